"""Classifiers in files that say what their outputs mean."""

from __future__ import annotations

import copy
import json
import os

import pytest
import torch

from torchxrayvision.checkpoints import read_tensors
from torchxrayvision.checkpoints.read import save_safetensors
from torchxrayvision.errors import CheckpointError, StateMismatchError, UnknownNameError
from torchxrayvision.models import Backbone, ResNet, get_model, load_checkpoint, save_checkpoint
from torchxrayvision.models.loading import apply_facts, read_header_facts

KEY = "torchxrayvision.classifier"
NAME = "torchvision:mobilenet_v3_small"


@pytest.fixture(scope="module")
def small():
    model = ResNet(architecture="resnet18-width32", num_classes=2)
    model.targets, model.input_resolution = ["Mass", "Edema"], 96
    return model


@pytest.fixture
def saved(small, tmp_path):
    path = tmp_path / "mine.safetensors"
    save_checkpoint(small, path, facts={"epoch": 3})
    return path


def rewritten(path, **changes):
    checkpoint = read_tensors(path)
    facts = {**json.loads(checkpoint.values[KEY]), **changes}
    other = path.with_name("other.safetensors")
    save_safetensors(other, checkpoint.tensors, {KEY: json.dumps(facts)})
    return other


def test_targets_and_resolution_come_back(small, saved):
    model = load_checkpoint(saved)
    assert model.targets == ["Mass", "Edema"]
    assert model.input_resolution == 96
    assert torch.equal(model.head.weight, small.head.weight)
    assert load_checkpoint(saved, targets=["a", "b"], input_resolution=64).input_resolution == 64


def test_the_header_says_the_rest(saved):
    facts = json.loads(read_tensors(saved).values[KEY])
    assert facts["epoch"] == 3
    assert facts["torchxrayvision"]


def test_the_header_says_operating_points_and_the_output_that_was_chosen(small, tmp_path):
    path = tmp_path / "mine.safetensors"
    calibrated = copy.deepcopy(small)
    calibrated.set_operating_points([0.25, float("nan")])
    calibrated.output = "probability"
    said = save_checkpoint(calibrated, path)
    facts = read_header_facts(read_tensors(path).values, 2, "mine")
    assert facts["operating_points"] == said["operating_points"] == [0.25, None]
    assert facts["output"] == said["output"] == "probability"
    other = copy.deepcopy(small)
    apply_facts(other, facts)
    torch.testing.assert_close(other.op_threshs, calibrated.op_threshs, equal_nan=True)
    assert other.default_output == "probability"


@pytest.mark.parametrize("make", [
    lambda: ResNet(architecture="resnet18-width32", num_classes=2),
    lambda: Backbone("torchvision:resnet18", num_classes=2),
])  # fmt: skip
@pytest.mark.parametrize("exported", [False, True])
def test_a_calibrated_model_gives_the_same_numbers_again(tmp_path, make, exported):
    from torchxrayvision.inference import export

    model = make().eval()
    model.targets, model.input_resolution = ["Mass", "Edema"], 64
    model.set_operating_points([0.25, float("nan")])
    path = tmp_path / "mine.safetensors"
    if exported:
        export(model, "safetensors", path)
    else:
        save_checkpoint(model, path)
    again = load_checkpoint(path)
    assert again.default_output == "operating-point"
    images = torch.zeros(1, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(images), model(images))
    assert load_checkpoint(path, targets=["a", "b"]).default_output == "operating-point"


def test_files_that_say_nothing_of_operating_points_change_none(small, saved):
    checkpoint = read_tensors(saved)
    facts = json.loads(checkpoint.values[KEY])
    older = {KEY: json.dumps({k: facts[k] for k in ("targets", "input_resolution")})}
    for values in (older, {}):
        other = copy.deepcopy(small)
        apply_facts(other, read_header_facts(values, 2, "mine"))
        assert other.op_threshs is None
        assert other.output is None


@pytest.mark.parametrize(
    "changes",
    [
        {"targets": ["Mass"]},
        {"targets": "ab"},
        {"targets": [1, 2]},
        {"input_resolution": -1},
        {"input_resolution": "96"},
        {"input_resolution": 10**9},
        {"architecture": NAME, "arguments": 3},
        {"operating_points": [0.5]},
        {"operating_points": 0.5},
        {"operating_points": [0.5, "0.5"]},
        {"operating_points": [0.5, 1.5]},
        {"output": "percent"},
        {"output": ["logit"]},
    ],
)
def test_a_header_that_contradicts_itself_is_refused(saved, changes):
    with pytest.raises(CheckpointError):
        load_checkpoint(rewritten(saved, **changes))


@pytest.mark.parametrize("text", ["no json", "[1]", "[" * 100_000])
def test_a_header_that_is_no_object_is_refused(saved, text):
    other = saved.with_name("other.safetensors")
    save_safetensors(other, read_tensors(saved).tensors, {KEY: text})
    with pytest.raises(CheckpointError):
        load_checkpoint(other)


def test_a_backbone_of_another_name_does_not_fit(tmp_path):
    path = tmp_path / "mine.safetensors"
    save_checkpoint(Backbone("torchvision:resnet18", num_classes=1), path)
    with pytest.raises(StateMismatchError):
        load_checkpoint(rewritten(path, architecture="torchvision:resnet34"))
    with pytest.raises(UnknownNameError):
        load_checkpoint(rewritten(path, architecture="torchvision:os.system"))


@pytest.mark.parametrize("name", ["torchvision:resnet18", "torchvision:vgg11", "timm:resnet10t"])
def test_backbones_take_grey_films_and_give_features(name):
    if name.startswith("timm"):
        pytest.importorskip("timm")
    with torch.device("meta"):
        model = get_model(name, num_classes=3)
        features = model._embed(torch.zeros(2, 1, 64, 64))
    assert features.shape == (2, model.head.in_features)
    assert model.head.out_features == 3


@pytest.mark.parametrize(
    "name", ["torchvision:resnet", "torchvision:squeezenet1_1", "timm:resnet", "keras:resnet50"]
)
def test_unknown_backbones_name_the_known(name):
    if name.startswith("timm"):
        pytest.importorskip("timm")
    with pytest.raises(UnknownNameError, match=r"resnet|timm"):
        Backbone(name)


def test_a_write_that_fails_leaves_the_old_file(small, saved, monkeypatch):
    before = saved.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(small, saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]

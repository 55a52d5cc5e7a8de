"""Classifiers in files that say what their outputs mean."""

from __future__ import annotations

import json

import pytest
import torch

from torchxrayvision.errors import CheckpointError, StateMismatchError, UnknownNameError
from torchxrayvision.models import Backbone, ResNet, get_model, load_checkpoint, save_checkpoint
from torchxrayvision.weights import _safetensors as safetensors_module
from torchxrayvision.weights import read_tensors
from torchxrayvision.weights._safetensors import save_safetensors

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

    monkeypatch.setattr(safetensors_module.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(small, saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]

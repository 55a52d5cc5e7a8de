"""UNetResNet50 of CXAS: 1.5.7's numbers from every wrapping of the file, loaded strictly."""

from __future__ import annotations

import hashlib
import inspect
import json
from pathlib import Path

import pytest
import torch

from support.dense import assert_same_masks, differences, images, record_image, state_of
from support.planted import planted
from torchxrayvision.baseline_models.chestx_anatomy import TARGETS, UNetResNet50
from torchxrayvision.baseline_models.chestx_anatomy import _names as names_of
from torchxrayvision.checkpoints.read import Checkpoint
from torchxrayvision.errors import ImageShapeError, LicenseWarning, StateMismatchError
from torchxrayvision.weights import get

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "dense.json").read_text())[
    "unet-resnet50"
]
NAME = "chestx_anatomy-unet-resnet50"


def released():
    """The tensors under the authors' names, as DataParallel saved them."""
    with torch.device("meta"):
        net = UNetResNet50(weights=False)
    bare = state_of(net)
    return {f"module.{k.replace('backbone.backbone.', 'backbone.')}": v for k, v in bare.items()}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cxas")
    entry = planted(NAME, folder, {"model": released(), "epoch": 3})
    with pytest.warns(LicenseWarning, match="CC BY-NC-SA") as caught:
        net = UNetResNet50(weights=entry, cache_dir=str(folder))
    assert [w.filename for w in caught] == [__file__], "the line of the user"
    return net


@pytest.mark.parametrize(
    ("size", "count"),
    [
        (96, 1),
        (128, 2),
        pytest.param(512, 1, marks=pytest.mark.slow),
        pytest.param(512, 2, marks=pytest.mark.slow),
    ],
)
def test_logits_and_masks_are_those_of_1_5_7(model, size, count):
    model.input_resolution = size
    with torch.no_grad():
        logits = model(images(count, size))
    golden = GOLDEN[f"{size}:{count}"]
    assert differences(record_image(logits), golden) < 1e-5
    assert_same_masks(logits, golden)


def test_gradient_to_the_input_is_that_of_1_5_7(model):
    model.input_resolution = 96
    x = images(1, 96).double().requires_grad_()
    model.double()(x).square().mean().backward()
    model.float().zero_grad(set_to_none=True)
    assert differences(record_image(x.grad), GOLDEN["gradient"]) < 1e-6


def test_dictionary_in_gives_the_dictionary_of_1_5_7(model):
    data = model._rescale(images(1, 72))
    with torch.no_grad():
        result = model({"data": data})
    golden = GOLDEN["dictionary"]
    assert list(result) == ["feats", "logits", "data", "segmentation_preds"]
    assert result["data"] is data
    assert differences(record_image(result["feats"]), golden["feats"]) < 1e-5
    assert differences(record_image(result["logits"]), golden["logits"]) < 1e-5
    assert_same_masks(result["logits"], golden["logits"])
    assert result["segmentation_preds"].dtype == torch.bool
    assert abs(int(result["segmentation_preds"].sum()) - golden["positive"]) <= len(
        golden["logits"]["mask_ties"]
    )


@pytest.mark.parametrize(
    "wrong", [{}, {"x": torch.zeros(1, 3, 64, 64)}, {"data": torch.zeros(1, 1, 64, 64)}]
)
def test_other_dictionaries_are_refused_with_advice(model, wrong):
    with pytest.raises(ImageShapeError, match=r"'data' of shape \(B, 3, S, S\)"):
        model(wrong)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "net.", "module.model."])
@pytest.mark.parametrize("wrapper", ["", "model.", "state_dict.", "network."])
@pytest.mark.parametrize("backbone", ["backbone.", "backbone.backbone."])
def test_every_wrapping_leads_to_the_same_names(prefix, wrapper, backbone):
    inner = [f"{backbone}layer0.0.weight", "head.out.conv.bias"]
    names = [f"{wrapper}{prefix}{name}" for name in inner]
    groups = (wrapper.rstrip("."),) if wrapper else ()
    checkpoint = Checkpoint(
        path="file.pth",
        tensors={name: torch.zeros(1) for name in names},
        container="zip",
        groups=groups,
    )
    assert list(names_of(checkpoint)) == ["backbone.backbone.layer0.0.weight", "head.out.conv.bias"]


def test_missing_tensors_are_reported_where_1_5_7_loads_half_a_network(tmp_path):
    state = released()
    state["module.head.up9.weight"] = state.pop("module.head.out.conv.weight")
    entry = planted(NAME, tmp_path, {"model": state})
    with (
        pytest.warns(LicenseWarning),
        pytest.raises(StateMismatchError, match=r"head\.up9\.weight") as caught,
    ):
        UNetResNet50(weights=entry, cache_dir=str(tmp_path))
    assert caught.value.missing == ("head.out.conv.weight",)


def test_prediction_names_each_structure(model):
    model.input_resolution = 64
    with torch.no_grad():
        prediction = model.predict(images(1, 64))
    assert list(prediction.values) == list(TARGETS)
    values = torch.stack(list(prediction.values.values()))
    assert values.shape == (159, 1, 64, 64)
    assert (values >= 0).all()
    assert (values <= 1).all()


def test_targets_are_those_of_1_5_7():
    assert len(set(TARGETS)) == 159
    assert (TARGETS[0], TARGETS[-1]) == ("spine", "breast right")
    digest = hashlib.sha256("\n".join(TARGETS).encode()).hexdigest()
    assert digest == GOLDEN["targets_digest"]


def test_network_has_the_parameters_of_1_5_7():
    with torch.device("meta"):
        net = UNetResNet50(False)
    assert not net.training
    assert sum(p.numel() for p in net.parameters()) == 73_380_191
    assert len(net.state_dict()) == 383
    assert list(inspect.signature(UNetResNet50).parameters)[:2] == ["weights", "cache_dir"]


def test_terms_forbid_commercial_use():
    assert get(NAME).license.commercial is False

"""PSPNet of ChestX-Det: 1.5.7's numbers from the container of the release."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
import torch

from support.dense import assert_same_masks, differences, images, record_image, state_of
from support.planted import planted
from torchxrayvision.baseline_models.chestx_det import PSPNet
from torchxrayvision.errors import StateMismatchError, UnknownNameError
from torchxrayvision.weights import get

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "dense.json").read_text())["pspnet"]
NAME = "chestx_det-pspnet"


def released():
    """The tensors of the release: prefixed, and with the head that only training uses."""
    with torch.device("meta"):
        net = PSPNet(weights=False).model
        net.convbnrelu4_aux = type(net.cbr_final)(1024, 256, 3)
        net.aux_cls = torch.nn.Conv2d(256, 14, 1)
    return state_of(net, "module.", residual=".cb3.")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pspnet")
    return PSPNet(cache_dir=str(folder), weights=planted(NAME, folder, released()))


@pytest.mark.parametrize(
    ("size", "count"),
    [
        (96, 1),
        (136, 2),
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


def test_prediction_is_a_probability_map_for_each_structure(model):
    model.input_resolution = 96
    with torch.no_grad():
        prediction = model.predict(images(2, 150))
        logits = model(images(2, 150))
    assert prediction.kind == "mask"
    assert list(prediction.values) == PSPNet.targets
    assert torch.equal(prediction.values["Heart"], logits[:, 8].sigmoid())
    assert prediction.values["Heart"].shape == (2, 96, 96)


def test_loaded_model_is_ready_to_use(model):
    assert not model.training, "1.5.7 leaves it in training mode"
    assert model.weights == NAME
    assert all(model.trained)
    assert len(model.targets) == 14
    assert "convbnrelu4_aux" in dict(model.model.named_children())


def test_input_resolution_is_that_of_the_release():
    with torch.device("meta"):
        model = PSPNet(weights=False)
    assert model.input_resolution == 512
    assert model(torch.zeros(1, 1, 200, 200, device="meta")).shape == (1, 14, 512, 512)
    assert model.predict(torch.zeros(1, 1, 64, 64, device="meta")).values == {}


def test_constructor_begins_as_in_1_5_7():
    assert next(iter(inspect.signature(PSPNet).parameters)) == "cache_dir"


def test_release_is_pinned():
    file = get(NAME).file
    assert file.certainty == "certain"
    assert file.sha256.startswith("019b167eac6b")
    assert file.size == 272_988_989


def test_weights_of_another_network_are_refused_by_name():
    with pytest.raises(UnknownNameError, match="pspnet weights"):
        PSPNet(weights="all")


def test_file_of_another_network_is_refused_by_names(tmp_path):
    state = {"module.conv1.weight": torch.zeros(4), "module.aux_cls.weight": torch.zeros(4)}
    entry = planted(NAME, tmp_path, state)
    with pytest.raises(StateMismatchError) as caught:
        PSPNet(cache_dir=str(tmp_path), weights=entry)
    assert caught.value.unexpected == ("conv1.weight",), "the second head is known"
    assert "classification.weight" in caught.value.missing

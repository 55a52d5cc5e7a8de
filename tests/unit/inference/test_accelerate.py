"""Any network on an engine: the same answers, in the same form; and what counts as the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from support import long_run
from torchxrayvision.autoencoders import ResNetAE
from torchxrayvision.errors import ImageShapeError
from torchxrayvision.inference import accelerate, export
from torchxrayvision.inference.engines.base import example, output_names
from torchxrayvision.inference.engines.choose import agreement
from torchxrayvision.models import UNet

SIDE = 32


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XRV_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    net = UNet(targets=["Heart", "Lungs"], width=4).eval()
    net.input_resolution = SIDE
    return net


@pytest.fixture(scope="module")
def autoencoder():
    torch.manual_seed(0)
    net = ResNetAE(architecture="autoencoder-resnet50").eval()
    net.input_resolution = 224  # as with weights
    return net


def answers(model, x):
    with torch.inference_mode():
        return model(x)


def test_a_classifier_answers_as_it_does_itself():
    net = long_run.network()
    net.set_operating_points([0.3, 0.5, 0.7])
    x = example(SIDE, 5)
    fast = accelerate(net, batch_size=2, engine="torch")
    torch.testing.assert_close(fast(x), answers(net, x), atol=1e-5, rtol=0)
    assert fast.choice.engine == "torch"


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_a_segmentation_network_answers_as_it_does_itself(segmenter, engine):
    x = example(SIDE, 3)
    fast = accelerate(segmenter, batch_size=2, engine=engine)
    torch.testing.assert_close(fast(x), answers(segmenter, x), atol=1e-3, rtol=1e-4)


def test_an_autoencoder_gives_codes_and_images_by_name(autoencoder):
    x = example(224, 2)
    found, expected = accelerate(autoencoder, 1, engine="torch")(x), answers(autoencoder, x)
    assert list(found) == list(expected) == list(output_names(autoencoder)) == ["z", "out"]
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-3, rtol=1e-3)


@pytest.mark.slow
def test_an_autoencoder_is_exported_under_the_names_of_its_outputs(autoencoder, tmp_path):
    import onnxruntime

    exported = export(autoencoder, "onnx", tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(exported.path)
    assert [output.name for output in session.get_outputs()] == ["z", "out"]
    assert exported.metadata["outputs"] == {"z": "code", "out": "image"}


def test_images_of_another_size_are_resized_as_the_model_does(segmenter):
    x = example(2 * SIDE, 1)
    fast = accelerate(segmenter, batch_size=1, engine="torch")
    torch.testing.assert_close(fast(x), answers(segmenter, x), atol=1e-3, rtol=1e-4)
    with pytest.raises(ImageShapeError):
        fast(x[0])


def test_the_model_of_the_caller_is_left_as_it_is(segmenter):
    before = {name: value.stride() for name, value in segmenter.state_dict().items()}
    accelerate(segmenter, batch_size=1, engine="torch")
    assert {name: value.stride() for name, value in segmenter.state_dict().items()} == before


def test_masks_agree_by_the_dice_of_the_worst_structure(segmenter):
    one = torch.full((1, 2, 20, 20), -5.0)
    one[0, 0, :10] = 5
    other = one.clone()
    assert agreement(segmenter, (one,), (other,), "fast").holds
    other[0, 0, 10, 0] = 5  # 200 pixels and 201
    found = agreement(segmenter, (one,), (other,), "fast")
    assert found.holds
    assert math.isclose(found.distance, 1 - 400 / 401, abs_tol=1e-6)
    assert not agreement(segmenter, (one,), (other,), "exact").holds
    other[0, 1, 0, 0] = 5  # a structure that the other does not have at all
    assert not agreement(segmenter, (one,), (other,), "fast").holds


def test_images_agree_by_their_noise(autoencoder):
    code, image = torch.zeros(1, 4), torch.zeros(1, 1, 8, 8)
    limit = 2048 * 10 ** (-50 / 20)
    for noise, holds in ((0.9 * limit, True), (1.1 * limit, False)):
        found = agreement(autoencoder, (code, image), (code, image + noise), "fast")
        assert found.holds == holds
    assert not agreement(autoencoder, (code, image), (code, image + 0.9), "exact").holds


def test_nothing_agrees_with_what_is_no_number():
    net = long_run.network()
    logits = torch.zeros(2, 3)
    wrong = torch.full_like(logits, np.nan)
    for precision in ("exact", "fast"):
        assert not agreement(net, (logits,), (wrong,), precision).holds

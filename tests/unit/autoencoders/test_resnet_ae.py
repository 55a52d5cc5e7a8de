"""The autoencoder: 1.5.7's numbers, its names and arguments, and what it refuses."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
import torch

from support.dense import differences, images, record_image, state_of
from support.planted import planted
from torchxrayvision.autoencoders import ResNetAE, ResNetAE50, ResNetAE101, model_urls
from torchxrayvision.errors import ImageShapeError, StateMismatchError, UnknownNameError

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "dense.json").read_text())[
    "resnetae101"
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ae")
    with torch.device("meta"):
        names = ResNetAE101()
    entry = planted("101-elastic", folder, state_of(names))
    return ResNetAE(weights=entry, cache_dir=str(folder))


@pytest.mark.parametrize("count", [1, 3])
def test_outputs_are_those_of_1_5_7(model, count):
    with torch.no_grad():
        result = model(images(count, 224))
    for key in ("z", "out"):
        assert differences(record_image(result[key]), GOLDEN[f"224:{count}"][key]) < 1e-5


def test_gradient_to_the_input_is_that_of_1_5_7(model):
    x = images(1, 224).double().requires_grad_()
    model.double()(x)["out"].square().mean().backward()
    model.float().zero_grad(set_to_none=True)
    assert differences(record_image(x.grad), GOLDEN["gradient"]) < 1e-6


def test_loaded_model_says_what_it_is(model):
    assert not model.training
    assert model.weights == "resnetae101-res224-elastic"
    assert model.trained == (True,)
    assert repr(model) == "XRV-ResNetAE-resnetae101-res224-elastic"
    assert not any(p.is_meta for p in model.parameters())


def test_prediction_is_the_image(model):
    with torch.no_grad():
        prediction = model.predict(images(2, 224))
        expected = model(images(2, 224))["out"][:, 0]
    assert prediction.kind == "image"
    assert torch.equal(prediction.values["Reconstruction"], expected)


def test_other_sizes_are_refused_with_weights_unless_the_check_is_off(model):
    with torch.no_grad():
        for call in (model, model.encode, model.features, model.embed, model.predict):
            with pytest.raises(ValueError, match="224 x 224 pixels, got"):
                call(images(1, 448))
        assert model.encode(images(1, 448), check_resolution=False).shape == (1, 512, 5, 5)
        assert torch.equal(model.features(images(1, 224)), model.encode(images(1, 224)))


@pytest.mark.parametrize("size", [128, 320])
def test_an_untrained_autoencoder_reconstructs_images_of_the_size_that_they_have(size):
    model = ResNetAE50().eval()
    assert not hasattr(model, "input_resolution")
    with torch.no_grad():
        assert model(images(1, size))["out"].shape == (1, 1, size, size)


def test_embedding_is_the_mean_of_the_code(model):
    with torch.no_grad():
        x = images(2, 224)
        torch.testing.assert_close(model.embed(x), model.encode(x).mean((2, 3)))


def test_decoding_to_another_size_is_refused(model):
    z = torch.zeros(1, 512, 3, 3)
    assert model.decode(z, [1, 1, 224, 224]).shape == (1, 1, 224, 224)
    with pytest.raises(ImageShapeError, match="224"):
        model.decode(z, image_size=[1, 1, 448, 448])


@pytest.mark.parametrize(
    ("build", "names", "parameters"), [(ResNetAE50, 655, None), (ResNetAE101, 1231, 31_120_448)]
)
def test_factories_give_the_networks_of_1_5_7(build, names, parameters):
    with torch.device("meta"):
        net = build()
    assert len(net.state_dict()) == names
    assert parameters in (None, sum(p.numel() for p in net.parameters()))
    assert net.predict(torch.zeros(1, 1, 224, 224, device="meta")).values == {}


def test_constructor_begins_as_in_1_5_7():
    assert list(inspect.signature(ResNetAE).parameters)[:2] == ["weights", "cache_dir"]
    assert list(inspect.signature(ResNetAE.encode).parameters)[1:] == ["x", "check_resolution"]
    assert list(inspect.signature(ResNetAE.decode).parameters)[1:] == ["z", "image_size"]


def test_model_urls_are_those_of_1_5_7():
    entry = model_urls["101-elastic"]
    assert entry["resolution"] == 224
    assert entry["image_range"] == [-1024, 1024]
    assert entry["weights_url"].endswith("/nihpcrsnamimic_ch-resnet101-2-ae-test2-elastic-e250.pt")
    with pytest.raises(TypeError):
        model_urls["101-elastic"]["resolution"] = 1


@pytest.mark.parametrize("wrong", ["101-elstic", "all"])
def test_other_weights_are_refused_by_name(wrong):
    with pytest.raises(UnknownNameError):
        ResNetAE(weights=wrong)


def test_file_of_another_network_is_refused_by_names(tmp_path):
    with torch.device("meta"):
        names = ResNetAE50()
    entry = planted("101-elastic", tmp_path, state_of(names))
    with pytest.raises(StateMismatchError) as caught:
        ResNetAE(weights=entry, cache_dir=str(tmp_path))
    assert "layer3.6.conv1.weight" in caught.value.missing
    assert "layer4.2.conv1.weight" in caught.value.unexpected

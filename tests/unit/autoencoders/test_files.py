"""Autoencoders by name, and from files that may say anything."""

from __future__ import annotations

import json

import pytest
import torch

from torchxrayvision.autoencoders import (
    CompactAE,
    ResNetAE,
    get_autoencoder,
    list_autoencoders,
    load_checkpoint,
    save_checkpoint,
)
from torchxrayvision.checkpoints import save_safetensors
from torchxrayvision.errors import CheckpointError, StateMismatchError, UnknownNameError


@pytest.fixture
def compact():
    torch.manual_seed(0)
    return CompactAE(width=4, code=2, levels=3, input_resolution=32).eval()


def test_what_is_saved_comes_back(compact, tmp_path):
    path = tmp_path / "mine.safetensors"
    save_checkpoint(compact, path, facts={"epoch": 3})
    again = load_checkpoint(path)
    image = torch.rand(2, 1, 40, 40) * 2000 - 1000
    with torch.no_grad():
        assert torch.equal(again(image)["out"], compact(image)["out"])
        assert torch.equal(again.embed(image), compact.embed(image))
    assert again.weights == "mine"
    assert again.predict(image).values["Reconstruction"].shape == (2, 32, 32)
    assert not again.training


def test_a_dense_code_is_one_vector_for_the_whole_image(tmp_path):
    network = CompactAE(width=4, code=2, levels=3, dense=5, input_resolution=32).eval()
    image = torch.rand(3, 1, 32, 32) * 2000 - 1000
    with torch.no_grad():
        code = network.encode(image)
        assert code.shape == (3, 5, 1, 1)
        assert network.decode(code, image.shape).shape == image.shape
        assert network.embed(image).shape == (3, 5)
        save_checkpoint(network, tmp_path / "dense.safetensors")
        again = load_checkpoint(tmp_path / "dense.safetensors")
        assert torch.equal(again(image)["out"], network(image)["out"])


@pytest.mark.parametrize("name", ["autoencoder-resnet50", "autoencoder-resnet101"])
def test_tensors_of_the_published_architecture_are_recognised(name, tmp_path):
    with torch.device("meta"):
        network = ResNetAE(architecture=name)
    tensors = {k: torch.zeros(v.shape, dtype=v.dtype) for k, v in network.state_dict().items()}
    torch.save(tensors, tmp_path / "plain.pt")
    assert load_checkpoint(tmp_path / "plain.pt").architecture == name


def test_names(compact):
    assert set(list_autoencoders()) >= {"autoencoder-compact", "autoencoder-resnet50"}
    assert get_autoencoder("autoencoder-compact", width=4).arguments["width"] == 4
    with pytest.raises(UnknownNameError, match="autoencoder-compact"):
        get_autoencoder("autoencoder-compct")
    with pytest.raises(ValueError, match="cannot be halved 5 times"):
        CompactAE(levels=5, input_resolution=48)
    with pytest.raises(ValueError, match="width is a whole number"):
        CompactAE(width=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "autoencoder-huge"},
        {"arguments": {"width": 4}},
        {"arguments": {"width": 4, "code": 2, "levels": 10**9, "dense": 0}},
        {"arguments": {"width": 4, "code": 2, "levels": 3, "dense": 0, "weights": "http://x"}},
        {"arguments": {"width": True, "code": 2, "levels": 3, "dense": 0}},
        {"arguments": {"width": 4, "code": 2, "levels": 3, "dense": -1}},
        {"arguments": [4, 2, 3]},
        {"input_resolution": 33},
        {"input_resolution": None},
        {"architecture": ["x"]},
    ],
)
def test_a_file_chooses_nothing_but_the_shape(compact, tmp_path, changes):
    path = tmp_path / "odd.safetensors"
    facts = {
        "architecture": "autoencoder-compact", "arguments": compact.arguments,
        "input_resolution": 32,
    }  # fmt: skip
    header = {"torchxrayvision.autoencoder": json.dumps(facts | changes)}
    save_safetensors(path, dict(compact.state_dict()), header)
    with pytest.raises(CheckpointError, match=r"odd\.safetensors"):
        load_checkpoint(path)


def test_other_files_are_refused(compact, tmp_path):
    path = tmp_path / "other.safetensors"
    save_safetensors(path, {"a": torch.zeros(2)}, {})
    with pytest.raises(CheckpointError, match="no autoencoder of this package"):
        load_checkpoint(path)
    save_safetensors(path, {"a": torch.zeros(2)}, {"torchxrayvision.autoencoder": "["})
    with pytest.raises(CheckpointError, match="no JSON"):
        load_checkpoint(path)
    facts = {
        "architecture": "autoencoder-compact",
        "arguments": compact.arguments,
        "input_resolution": 32,
    }
    tensors = dict(compact.state_dict())
    tensors.pop("to_code.bias")
    save_safetensors(path, tensors, {"torchxrayvision.autoencoder": json.dumps(facts)})
    with pytest.raises(StateMismatchError, match=r"to_code\.bias"):
        load_checkpoint(path)

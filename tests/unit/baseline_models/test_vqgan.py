"""VQGAN: 1.5.7's numbers from Lightning files, with the sizes read off the tensors."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
import torch

from support.dense import VQGANS, differences, images, lightning, record_image, vqgan_state
from support.planted import planted
from torchxrayvision.baseline_models.ieee8023 import VQGAN, VQGAN_Weights, model_urls
from torchxrayvision.errors import CheckpointError, StateMismatchError, UnknownNameError

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "dense.json").read_text())["vqgan"]


def state_of_release(name):
    return vqgan_state({key: tuple(shape) for key, shape in GOLDEN[name]["shapes"].items()})


@pytest.fixture(scope="module", params=list(VQGANS))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name, tmp_path_factory):
    folder = tmp_path_factory.mktemp(name)
    torch.save(lightning(state_of_release(name)), folder / "a.ckpt")
    (folder / "a.yaml").write_text(
        f"model:\n  params:\n    ddconfig:\n      resolution: {VQGANS[name]['resolution']}\n"
    )
    return VQGAN(
        ckpt_path=str(folder / "a.ckpt"),
        yaml_path=str(folder / "a.yaml"),
        resize_route="bilinear",
    )


def recorded(name):
    return [key.split(":") for key in GOLDEN[name] if ":" in key]


@pytest.mark.parametrize("which", range(3))
def test_words_and_images_are_those_of_1_5_7(model, name, which):
    size, count = recorded(name)[which]
    x = images(int(count), int(size))
    golden = GOLDEN[name][f"{size}:{count}"]
    with torch.no_grad():
        z = model.encode(x)
        assert differences(record_image(z), golden["z"]) < 1e-5
        assert differences(record_image(model.decode(z)), golden["out"]) < 1e-4
        assert torch.equal(model(x), model.decode(z))


def test_gradient_passes_the_codebook_as_in_1_5_7(model, name):
    x = images(1, VQGANS[name]["resolution"]).double().requires_grad_()
    model.double().encode(x).square().mean().backward()
    model.float().zero_grad(set_to_none=True)
    assert differences(record_image(x.grad), GOLDEN[name]["gradient"]) < 1e-6


def test_sizes_are_read_off_the_tensors(model, name):
    facts, config = VQGANS[name], model.config
    assert config.width == 32
    assert config.channels == tuple(32 * m for m in facts["ch_mult"])
    assert config.encoder_blocks == facts["num_res_blocks"]
    assert config.decoder_blocks == facts["num_res_blocks"] + 1
    assert (config.words, config.word) == (facts["n_embed"], facts["embed_dim"])
    assert config.code == facts["z_channels"]
    assert not config.doubled
    assert {k: list(v.shape) for k, v in model.model.state_dict().items()} == (
        GOLDEN[name]["shapes"]
    )


def test_tokens_are_positions_of_the_words(model, name):
    x = images(2, VQGANS[name]["resolution"])
    with torch.no_grad():
        tokens, z = model.tokens(x), model.encode(x)
    words = model.model.quantize.embedding.weight[tokens].movedim(-1, 1)
    torch.testing.assert_close(words, z)
    assert len(tokens.unique()) > 1


def test_output_stays_in_the_range_of_images(model, name):
    with torch.no_grad():
        z = torch.randn(1, VQGANS[name]["embed_dim"], 4, 4, generator=torch.manual_seed(0)) * 50
        image = model.decode(z)
        assert image.abs().max() <= 1024
        assert (image == image.abs().max()).any()
        prediction = model.predict(images(2, 50))
    assert prediction.kind == "image"
    side = VQGANS[name]["resolution"]
    assert prediction.values["Reconstruction"].shape == (2, side, side)


def test_embedding_is_the_mean_word(model, name):
    x = images(2, VQGANS[name]["resolution"])
    with torch.no_grad():
        torch.testing.assert_close(model.embed(x), model.encode(x).mean((2, 3)))


@pytest.mark.parametrize("member", list(VQGAN_Weights))
def test_releases_load_by_name_without_a_configuration(member, tmp_path):
    entry = planted(member.value.name, tmp_path, lightning(state_of_release("sd")))
    model = VQGAN(weights=entry, cache_dir=str(tmp_path))
    assert model.weights == member.value.name
    assert model.input_resolution == 768
    assert model.resize_route == "antialias"
    assert not model.training
    assert model.trained == (True,)


def test_configuration_without_a_resolution_leaves_the_published_one(tmp_path):
    torch.save(lightning(state_of_release("sd")), tmp_path / "mine.ckpt")
    (tmp_path / "a.yaml").write_text("model:\n  params: {}\n")
    model = VQGAN(ckpt_path=str(tmp_path / "mine.ckpt"), yaml_path=str(tmp_path / "a.yaml"))
    assert model.input_resolution == 768
    assert model.weights == "mine"


def test_arguments_are_those_of_1_5_7():
    names = list(inspect.signature(VQGAN).parameters)
    assert names[:4] == ["weights", "ckpt_path", "yaml_path", "cache_dir"]
    assert inspect.signature(VQGAN).parameters["weights"].default == "cxr2-vqgan-768-sd"
    assert list(model_urls) == ["cxr2-vqgan-768-sd", "cxr2-vqgan-768-msdd"]
    assert model_urls["cxr2-vqgan-768-msdd"]["config_url"].endswith("_cxr2_vqgan_768_msdd.yaml")
    with pytest.raises(UnknownNameError, match="vqgan weights"):
        VQGAN(weights="all")


def test_file_of_another_network_is_refused(tmp_path):
    torch.save({"state_dict": {"conv1.weight": torch.zeros(3)}}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"a\.ckpt: not a VQGAN .*conv1\.weight"):
        VQGAN(ckpt_path=str(tmp_path / "a.ckpt"))


def test_missing_and_unknown_tensors_are_refused_by_name(tmp_path):
    state = state_of_release("sd")
    state["encoder.stranger"] = state.pop("decoder.norm_out.bias")
    torch.save(lightning(state), tmp_path / "a.ckpt")
    with pytest.raises(StateMismatchError) as caught:
        VQGAN(ckpt_path=str(tmp_path / "a.ckpt"))
    assert caught.value.missing == ("decoder.norm_out.bias",)
    assert caught.value.unexpected == ("encoder.stranger",)

"""Encoders against the reference classes of transformers and timm, with made tensors."""

from __future__ import annotations

import dataclasses
import json
import logging

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torchvision import transforms

from support.releases import SMALL, dinov2, grey, pixels_of, put
from support.tiny import write_pictures
from torchxrayvision.errors import (
    CheckpointError,
    LicenseWarning,
    StateMismatchError,
    UnknownNameError,
    XRVWarning,
)
from torchxrayvision.explain import attention_rollout
from torchxrayvision.inference import export, predict_to_file
from torchxrayvision.models import (
    Encoder,
    Encoder_Weights,
    get_model,
    load_checkpoint,
    save_checkpoint,
)
from torchxrayvision.runs import fingerprint
from torchxrayvision.weights import get

pytest.importorskip("timm", reason="the networks are timm's: extra models")
pytest.importorskip("transformers", reason="the reference classes: extra dev")
pytestmark = pytest.mark.filterwarnings(
    f"ignore::{LicenseWarning.__module__}.{LicenseWarning.__name__}"
)

RELEASES = {
    "rad-dino": lambda full="": dinov2(registers=False, full=full),
    "rad-dino-maira-2": lambda full="": dinov2(registers=False, full=full),
    "cxformer-small": lambda full="": dinov2(registers=True, full=full),
    "cxformer-base": lambda full="": dinov2(registers=True, full=full),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("encoders")


def saved(reference, place):
    reference.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def rad_dino(folder):
    reference = dinov2(registers=False)
    entry = put("rad-dino", saved(reference, folder / "reference"), folder / "cache")
    return Encoder(weights=entry, cache_dir=str(folder / "cache")), reference, entry


@pytest.mark.parametrize("name", RELEASES)
def test_the_reference_class_gives_the_same_features(name, tmp_path):
    reference = RELEASES[name]()
    entry = put(name, saved(reference, tmp_path / "reference"), tmp_path)
    model = Encoder(weights=entry, cache_dir=str(tmp_path))
    same_features(model, reference, entry)


def same_features(model, reference, entry, tolerance=1e-4):
    values = grey(518)
    with torch.inference_mode():
        expected = reference(pixels_of(entry, values)).last_hidden_state
        pooled, places = model.embed(values * 2048 - 1024), model.embed_map(values * 2048 - 1024)
    assert expected.std() > 0.1
    torch.testing.assert_close(pooled, expected[:, 0], atol=tolerance, rtol=0)
    tokens = places.flatten(2).transpose(1, 2)
    torch.testing.assert_close(tokens, expected[:, -37 * 37 :], atol=tolerance, rtol=0)
    assert places.shape[2:] == (37, 37)


def made_chexfound(shape_name, seed=0):
    """timm's network, and its tensors under the names of the release, for three colours."""
    from timm.layers import SwiGLUPacked
    from timm.models.vision_transformer import VisionTransformer

    width, depth = {SMALL: (64, 2), "": (1024, 24)}[shape_name]
    hidden = 2736 if width == 1024 else 168
    reference = VisionTransformer(
        img_size=512, patch_size=16, embed_dim=width, depth=depth, num_heads=width // 64,
        num_classes=0, reg_tokens=4, no_embed_class=True, init_values=1e-5,
        mlp_layer=SwiGLUPacked, act_layer=torch.nn.SiLU, mlp_ratio=2 * hidden / width,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in reference.parameters():
            spread = 0.1 if value.dim() < 2 else value[0].numel() ** -0.5
            value.add_(torch.randn(value.shape, generator=generator) * spread)
    published = {}
    for name, value in reference.state_dict().items():
        renamed = name.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3")
        published["model." + renamed.replace(".gamma", ".weight")] = value
    first = torch.rand(1, 1, width, generator=generator)
    published["model.register_tokens"] = published.pop("model.reg_token")
    published["model.pos_embed"] = torch.cat([first, published["model.pos_embed"]], 1)
    published["model.cls_token"] = published["model.cls_token"] - first
    published["model.mask_token"] = torch.zeros(1, width)
    return reference.eval(), published


def check_chexfound(shape_name, folder):
    reference, published = made_chexfound(shape_name)
    entry = put("chexfound", published, folder)
    entry = dataclasses.replace(entry, architecture=get("chexfound").architecture + shape_name)
    del published
    model = Encoder(weights=entry, cache_dir=str(folder))
    values = grey(512, 1 if shape_name == "" else 2)
    with torch.inference_mode():
        tokens = reference.forward_features(pixels_of(entry, values))
        torch.testing.assert_close(
            model.embed(values * 2048 - 1024), tokens[:, 0], atol=1e-4, rtol=0
        )
        places = model.embed_map(values * 2048 - 1024).flatten(2).transpose(1, 2)
        torch.testing.assert_close(places, tokens[:, 5:], atol=1e-4, rtol=0)


def test_chexfound_is_timm_s_network_under_the_names_of_dinov2(tmp_path):
    check_chexfound(SMALL, tmp_path)


@pytest.mark.slow
def test_chexfound_at_its_full_size(tmp_path):
    check_chexfound("", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("rad-dino", "base"),
        ("rad-dino-maira-2", "base"),
        ("cxformer-small", "small"),
        ("cxformer-base", "base"),
    ],
)
def test_full_sizes(name, size, tmp_path):
    reference = RELEASES[name](size)
    entry = put(name, saved(reference, tmp_path / "reference"), tmp_path)
    entry = dataclasses.replace(entry, architecture=get(name).architecture)
    model = Encoder(weights=entry, cache_dir=str(tmp_path))
    with torch.inference_mode():
        values = grey(518, 1)
        expected = reference(pixels_of(entry, values)).last_hidden_state[:, 0]
        found = model.embed(values * 2048 - 1024)
    print((found - expected).abs().max().item())  # noqa: T201 - for `pytest -s`
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_a_mean_over_the_patches_and_both_are_there(rad_dino, folder):
    model, _, entry = rad_dino
    values = grey(518, 1) * 2048 - 1024
    both = Encoder(weights=entry, cache_dir=str(folder / "cache"), pooling="both")
    mean = Encoder(weights=entry, cache_dir=str(folder / "cache"), pooling="mean")
    with torch.inference_mode():
        expected = model.embed_map(values).mean((2, 3))
        torch.testing.assert_close(mean.embed(values), expected)
        torch.testing.assert_close(both.embed(values), torch.cat([model(values), expected], 1))
    assert (both.features_width, mean.features_width) == (128, 64)
    assert len({fingerprint(net) for net in (model, both, mean)}) == 3


def test_missing_and_unexpected_tensors_are_named(folder, rad_dino, tmp_path):
    tensors = load_file(folder / "reference" / "model.safetensors")
    del tensors["encoder.layer.1.attention.attention.key.bias"]
    tensors["encoder.layer.1.stranger"] = torch.zeros(3)
    entry = put("rad-dino", tensors, tmp_path)
    with pytest.raises(StateMismatchError) as caught:
        Encoder(weights=entry, cache_dir=str(tmp_path))
    assert caught.value.missing == ("body.blocks.1.attn.qkv.bias",)
    assert set(caught.value.unexpected) == {
        "body.encoder.layer.1.attention.attention.query.bias",
        "body.encoder.layer.1.attention.attention.value.bias",
        "body.encoder.layer.1.stranger",
    }


def test_positions_of_another_size_are_refused(folder, rad_dino, tmp_path):
    tensors = load_file(folder / "reference" / "model.safetensors")
    tensors["embeddings.position_embeddings"] = torch.zeros(1, 257, 64)
    entry = put("rad-dino", tensors, tmp_path)
    with pytest.raises(StateMismatchError, match="pos_embed"):
        Encoder(weights=entry, cache_dir=str(tmp_path))


def test_the_configuration_beside_the_tensors_decides(tmp_path):
    reference = dinov2(registers=False, hidden_act="gelu_new")
    entry = put(
        "rad-dino", saved(reference, tmp_path / "reference"), tmp_path,
        config={"hidden_act": "gelu_new", "num_attention_heads": 1, "auto_map": "evil.py"},
        preprocessor_config={"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.2, 0.3],
                             "resample": 3},
    )  # fmt: skip
    with pytest.warns(XRVWarning, match="as this file says"):
        model = Encoder(weights=entry, cache_dir=str(tmp_path))
    stated = dataclasses.replace(
        entry,
        preprocessing=dataclasses.replace(
            entry.preprocessing, mean=(0.4, 0.5, 0.6), deviation=(0.2, 0.2, 0.3)
        ),
    )
    same_features(model, reference, stated)


@pytest.mark.parametrize(
    "said",
    [
        {"config": {"hidden_act": "os.system"}},
        {"config": {"num_attention_heads": 7}},
        {"config": {"layer_norm_eps": "1e-6"}},
        {"config": "[1, 2]"},
        {"config": "{"},
        {"preprocessor_config": {"image_mean": [0.5, 0.5]}},
        {"preprocessor_config": {"image_std": [0.5, 0.0, 0.5]}},
    ],
)
def test_a_configuration_that_cannot_be_is_refused(said, folder, rad_dino, tmp_path):
    entry = put("rad-dino", folder / "reference", tmp_path, **said)
    with pytest.raises(CheckpointError):
        Encoder(weights=entry, cache_dir=str(tmp_path))


def test_without_findings_a_call_gives_the_embedding(rad_dino):
    model, *_ = rad_dino
    values = grey(518, 1) * 2048 - 1024
    assert model.kinds == ("embedding",)
    assert model.targets == []
    with torch.inference_mode():
        torch.testing.assert_close(model(values), model.embed(values))
        assert dict(model.predict(values).values) == {}
    with pytest.raises(UnknownNameError, match="embedding"):
        model(values, output="probability")
    assert not hasattr(model, "head")


def test_a_probe_is_saved_and_comes_back_as_what_it_was(rad_dino, folder, tmp_path):
    values = grey(518, 1) * 2048 - 1024
    for pooling, targets in (("class", []), ("both", ["Silicosis"])):
        model = Encoder(weights=rad_dino[2], cache_dir=str(folder / "cache"), pooling=pooling)
        if targets:
            model.reset_classifier(1, targets)
        path = tmp_path / f"{pooling}.safetensors"
        save_checkpoint(model, path)
        again = load_checkpoint(path)
        assert again.targets == targets
        assert again.input_resolution == 518
        kind = "logit" if targets else None
        with torch.inference_mode():
            torch.testing.assert_close(again(values, output=kind), model(values, output=kind))


def test_a_header_cannot_choose_anything_but_such_a_network(tmp_path):
    from safetensors.torch import save_file

    model = Encoder(architecture="dinov2-base14-width64-depth1")
    path = tmp_path / "a.safetensors"
    described = save_checkpoint(model, path)
    tensors = load_file(path)
    for change in (
        {"pooling": "os.system"},
        {"hidden_act": "exec"},
        {"mean": "0.5;"},
        {"num_attention_heads": 10**9},
    ):
        header = {**described, "arguments": {**described["arguments"], **change}}
        save_file(tensors, path, {"torchxrayvision.classifier": json.dumps(header)})
        with pytest.raises(CheckpointError):
            load_checkpoint(path)
    header = {**described, "architecture": "dinov2-base14-width64-depth999999"}
    save_file(tensors, path, {"torchxrayvision.classifier": json.dumps(header)})
    with pytest.raises(CheckpointError):
        load_checkpoint(path)


def test_a_release_in_a_folder_of_one_s_own_is_read_there(rad_dino, folder):
    model, _, entry = rad_dino
    values = grey(518, 1) * 2048 - 1024
    for place in (folder / "reference", folder / "reference" / "model.safetensors"):
        mine = load_checkpoint(place, weights=entry)
        assert mine.weights == "rad-dino"
        with torch.inference_mode():
            torch.testing.assert_close(mine(values), model(values))
    with pytest.raises(CheckpointError, match="folder that holds the release"):
        load_checkpoint(folder / "nowhere", weights=entry)


def test_preprocessing_is_that_of_the_release_to_one_grey_level(rad_dino):
    from PIL import Image

    model, _, entry = rad_dino
    rows, columns = np.mgrid[:800, :800]
    plane = (127 + 90 * np.sin(rows / 37) * np.cos(columns / 53)).clip(0, 255).astype(np.uint8)
    theirs = transforms.Compose(
        [
            transforms.Resize(518, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(518),
            transforms.PILToTensor(),
        ]
    )(Image.fromarray(plane))[0]
    x = torch.tensor(plane, dtype=torch.float32)[None, None] / 255 * 2048 - 1024
    facts = entry.preprocessing
    ours = (model.prepare(x)[0, 0] * facts.grey_deviation + facts.grey_mean) * 255
    assert (ours.round() - theirs).abs().max() <= 1


def test_predict_writes_embeddings_without_findings(rad_dino, tmp_path):
    import pyarrow.parquet as parquet

    model, *_ = rad_dino
    write_pictures(tmp_path)
    out = tmp_path / "features.parquet"
    done = predict_to_file(str(tmp_path), model, out, embeddings=True, engine="torch", batch_size=2)
    table = parquet.read_table(out)
    assert done.images == 4
    assert table.column_names == ["path", "error", "check", "embedding"]
    vectors = np.stack(table.column("embedding").to_pylist())
    assert vectors.shape == (4, 64)
    assert np.isfinite(vectors).all()
    assert not np.allclose(vectors[0], vectors[1])


def test_onnx_gives_the_same_features(rad_dino, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model, *_ = rad_dino
    made = export(model, "onnx", tmp_path / "encoder.onnx")
    assert made.metadata["outputs"] == {"features": "pooled features"}
    session = onnxruntime.InferenceSession(made.path)
    x = grey(518, 3) * 2048 - 1024
    (found,) = session.run(None, {"image": x.numpy()})
    with torch.inference_mode():
        np.testing.assert_allclose(found, model(x), atol=1e-4)


def test_attention_flows_to_the_token_that_is_the_embedding(rad_dino, folder):
    x = grey(518, 1) * 2048 - 1024
    model = rad_dino[0]
    mean = Encoder(weights=rad_dino[2], cache_dir=str(folder / "cache"), pooling="mean")
    maps = [attention_rollout(net, x, 0, upsample=False) for net in (model, mean)]
    for one in maps:
        assert one.shape == (1, 37, 37)
        assert one.sum().item() == pytest.approx(1, abs=1e-4)
    assert not torch.allclose(*maps)


def test_terms_are_shown_when_weights_are_loaded(folder, tmp_path, caplog):
    reference = dinov2(registers=True)
    entry = put("cxformer-base", saved(reference, tmp_path / "r"), tmp_path)
    with pytest.warns(LicenseWarning, match="CC BY-NC"):
        Encoder(weights=entry, cache_dir=str(tmp_path))
    mit = put("rad-dino", saved(dinov2(registers=False), tmp_path / "s"), tmp_path)
    with caplog.at_level(logging.INFO, "torchxrayvision"):
        Encoder(weights=mit, cache_dir=str(tmp_path))
    assert "MIT" in caplog.text


def test_names_are_checked():
    with pytest.raises(UnknownNameError, match="pooling"):
        Encoder(architecture="dinov2-base14-width64-depth1", pooling="max")
    with pytest.raises(UnknownNameError, match="dinov2-base14"):
        Encoder(architecture="dinov2-huge")
    with pytest.raises(UnknownNameError):
        Encoder(weights="densenet121-res224-all")
    with pytest.raises(UnknownNameError):
        Encoder(architecture="dinov2-base14-width100")
    assert get_model("dinov2-base14", num_classes=0).features_width == 768


def test_what_nobody_published_is_left_empty():
    entries = [member.value for member in Encoder_Weights]
    assert [entry.name for entry in entries] == [
        "rad-dino", "rad-dino-maira-2", "cxformer-small", "cxformer-base", "chexfound",
    ]  # fmt: skip
    assert all(entry.file.sha256 is None for entry in entries)
    assert all(entry.output == "embedding" and not entry.targets for entry in entries)
    assert get("chexfound").url.split("/")[-2] == "41b966c3d4fcd2c9b5c8bd760f2df17a7b569dd3"
    assert [entry.license.commercial for entry in entries] == [None, False, False, False, None]

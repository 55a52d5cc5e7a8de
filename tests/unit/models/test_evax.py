"""EVA-X against the figures of its authors' network, and its preprocessing against torchvision."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from support.evax import GOLDEN, SIZES, golden_input, released, state
from support.networks import synthetic
from torchxrayvision.errors import (
    CheckpointError,
    StateMismatchError,
    UnknownNameError,
)
from torchxrayvision.inference import export
from torchxrayvision.models import (
    DenseNet,
    EvaX,
    EvaXDenseNet,
    get_model,
    load_checkpoint,
    save_checkpoint,
)
from torchxrayvision.weights import EVAX_Weights, EVAXDenseNet_Weights, get

pytest.importorskip("timm", reason="the networks of EVA-X are timm's: extra models")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("evax")


@pytest.fixture(scope="module")
def tiny(folder):
    entry = released("evax-tiny-res224-nih", state("tiny"), folder)
    return EvaX(weights=entry, cache_dir=str(folder))


@pytest.mark.parametrize("size", SIZES)
def test_the_authors_network_gives_the_same_logits_and_features(size, folder):
    entry = released(f"evax-{size}-res224-nih", state(size), folder)
    model = EvaX(weights=entry, cache_dir=str(folder))
    expected = GOLDEN[f"eva_x_{size}"]
    with torch.inference_mode():
        features, logits = model._features_and_raw(golden_input())
    torch.testing.assert_close(logits, torch.tensor(expected["logits"]), atol=1e-4, rtol=0)
    head = torch.tensor(expected["feature_head"])
    torch.testing.assert_close(features[0, :8], head, atol=1e-4, rtol=0)
    norms = torch.tensor(expected["feature_norm"])
    torch.testing.assert_close(features.norm(dim=1), norms, atol=1e-3, rtol=0)
    assert model.targets == list(entry.targets)
    assert not any(part.is_meta for part in (*model.parameters(), *model.buffers()))


@pytest.mark.parametrize(
    "size", ["tiny", *(pytest.param(size, marks=pytest.mark.slow) for size in SIZES[1:])]
)
def test_onnx_gives_the_same(size, folder, tmp_path):
    pytest.importorskip("onnxruntime")
    import onnxruntime

    entry = released(f"evax-{size}-res224-nih", state(size), folder)
    model = EvaX(weights=entry, cache_dir=str(folder), resize_route="bicubic")
    path = tmp_path / "evax.onnx"
    export(model, "onnx", path)
    # The golden input is standardised and of 224 pixels; the graph takes grey values of 256.
    grey = (golden_input() * 0.28509309 + 0.49185243) * 2048 - 1024
    square = torch.nn.functional.pad(grey, (16, 16, 16, 16))
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(None, {"image": square.numpy()}), strict=True))
    expected = np.array(GOLDEN[f"eva_x_{size}"]["logits"])
    np.testing.assert_allclose(found["logits"], expected, atol=1e-4)


def test_loading_draws_no_random_number(folder):
    entry = released("evax-tiny-res224-nih", state("tiny"), folder)
    before = torch.random.get_rng_state()
    EvaX(weights=entry, cache_dir=str(folder))
    assert torch.equal(before, torch.random.get_rng_state())


def test_missing_and_unexpected_tensors_are_named(tmp_path):
    tensors = state("tiny")
    del tensors["blocks.3.attn.q_bias"]
    tensors["blocks.3.attn.stranger"] = torch.zeros(3)
    entry = released("evax-tiny-res224-nih", tensors, tmp_path)
    with pytest.raises(StateMismatchError) as caught:
        EvaX(weights=entry, cache_dir=str(tmp_path))
    assert caught.value.missing == ("body.blocks.3.attn.q_bias",)
    assert caught.value.unexpected == ("body.blocks.3.attn.stranger",)


def test_a_file_that_counts_positions_otherwise_is_refused(tmp_path):
    tensors = state("tiny")
    tensors["rope.freqs_cos"] = tensors["rope.freqs_cos"].flip(0)
    entry = released("evax-tiny-res224-nih", tensors, tmp_path)
    with pytest.raises(StateMismatchError, match=r"rope\.freqs_cos"):
        EvaX(weights=entry, cache_dir=str(tmp_path))


def picture(height, width, seed):
    """A smooth picture with noise and hard edges, 8 bits."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    plane = 127 + 90 * np.sin(rows / 37) * np.cos(columns / 53) + rng.normal(0, 12, (height, width))
    plane[height // 3 : height // 3 + 9] = 255
    plane[:, width // 4 : width // 4 + 5] = 0
    return Image.fromarray(plane.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(("height", "width"), [(1024, 1024), (512, 512), (700, 620), (240, 240)])
@pytest.mark.parametrize("name", ["evax-tiny-res224-nih", "evax-tiny-res224-chex"])
def test_preprocessing_is_that_of_the_authors_to_one_grey_level(name, height, width):
    facts = get(name)
    side, middle = facts.input_resolution, facts.preprocessing
    model = EvaX(num_classes=1)
    model.input_resolution = side
    given = picture(height, width, seed=height)
    reference = transforms.Compose(
        [
            transforms.Resize(side, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.PILToTensor(),
        ]
    )(given)[0]
    x = torch.tensor(np.asarray(given), dtype=torch.float32)[None, None] / 255 * 2048 - 1024
    square = min(height, width)
    top, left = round((height - square) / 2), round((width - square) / 2)
    prepared = model.prepare(x[..., top : top + square, left : left + square])[0, 0]
    grey = ((prepared * middle.deviation + middle.mean) * 255).round().to(torch.int32)
    # A picture that is not square is resized before it is cropped there, off by less than a pixel.
    tolerance = 1 if height == width else 255
    assert (grey - reference.to(torch.int32)).abs().max() <= tolerance
    assert (grey - reference.to(torch.int32)).abs().float().mean() < (0.5 if height == width else 6)


def test_saved_networks_come_back_as_what_they_were(tiny, tmp_path):
    x = torch.rand(2, 1, 256, 256, generator=torch.Generator().manual_seed(0)) * 2048 - 1024
    dense = synthetic(EvaXDenseNet(num_classes=2))
    dense.targets = ["Mass", "Edema"]
    for number, model in enumerate((tiny, dense)):
        path = tmp_path / f"{number}.safetensors"
        save_checkpoint(model, path)
        again = load_checkpoint(path)
        assert type(again) is type(model)
        assert again.targets == model.targets
        assert again.input_resolution == 256
        torch.testing.assert_close(again(x, output="logit"), model(x, output="logit"))


def test_a_file_of_the_release_is_recognised_by_its_tensors(tiny, folder):
    path = folder / get("evax-tiny-res224-nih").file.filename
    x = torch.zeros(1, 1, 256, 256)
    named = load_checkpoint(path, weights="evax-tiny-res224-nih")
    assert named.targets == tiny.targets
    torch.testing.assert_close(named(x), tiny(x))
    bare = load_checkpoint(path)
    assert isinstance(bare, EvaX)
    torch.testing.assert_close(bare(x, output="logit"), tiny(x, output="logit"))


def test_densenet_of_the_release_is_that_of_the_core_under_other_preprocessing(tmp_path):
    wide = synthetic(DenseNet(num_classes=14, in_channels=3))
    entry = released("evax-densenet121-res224-mae-nih", wide.state_dict(), tmp_path)
    model = get_model(entry, cache_dir=str(tmp_path))
    assert isinstance(model, EvaXDenseNet)
    x = torch.rand(2, 1, 224, 224, generator=torch.Generator().manual_seed(1))
    standard = (x - 0.5056) / 0.252
    with torch.inference_mode():
        expected = wide._features_and_raw(standard.expand(-1, 3, -1, -1))[1]
        given = torch.nn.functional.pad(x * 2048 - 1024, (16, 16, 16, 16))
        torch.testing.assert_close(model(given, output="logit"), expected, atol=1e-4, rtol=1e-4)


def test_only_weights_of_the_release_fit():
    with pytest.raises(UnknownNameError, match="get_model"):
        EvaX(weights="densenet121-res224-all")
    with pytest.raises(UnknownNameError):
        EvaX(weights="evax-densenet121-res224-mae-nih")
    with pytest.raises(UnknownNameError):
        EvaX(architecture="evax-huge")


def test_other_tensors_are_no_evax(tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"cls_token": torch.zeros(1, 1, 5), "blocks.0.norm1.bias": torch.zeros(5)}, path)
    with pytest.raises(CheckpointError, match="EVA-X"):
        load_checkpoint(path)


def test_published_numbers_and_hashes_are_there():
    entries = [m.value for m in (*EVAX_Weights, *EVAXDenseNet_Weights)]
    assert len({entry.file.sha256 for entry in entries}) == 7
    means = [next(iter(entry.metrics.values()))["mean"] for entry in entries]
    assert means == [0.824, 0.833, 0.835, 0.896, 0.901, 0.813, 0.808]

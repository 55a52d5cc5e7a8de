"""Training of segmentation networks: masks, losses, runs, and a stop that changes no bit."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from support.training_runs import stop_at_step, tensors
from torchxrayvision.datasets import MergeDataset, Phantom_Dataset, patient_keys
from torchxrayvision.errors import (
    CheckpointError,
    DatasetError,
    ImageShapeError,
    RecipeError,
    UnknownNameError,
)
from torchxrayvision.evaluation import dice
from torchxrayvision.models import (
    add_weights,
    from_pretrained,
    get_model,
    load_segmenter,
    save_segmenter,
)
from torchxrayvision.segmentation import get_segmenter, segment
from torchxrayvision.training import (
    Augmentation,
    MaskedImages,
    Optimiser,
    PreparedImages,
    Recipe,
    Segmentation,
    Source,
    dice_of,
    fit,
    outline_errors,
    prepare_parts,
    recipe_from_dict,
)
from torchxrayvision.training.augment import augment, augment_masks, draw
from torchxrayvision.training.loss import mean_of_known
from torchxrayvision.training.objectives import masks_at

FILES = ("best.safetensors", "last.safetensors")
NAMES = ("Left Disc", "Right Disc")


def discs(count=40, seed=0, side=32):
    """A bright disc on each side of a noisy image; of some images the right one is not outlined."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    centres = rng.uniform(0.3, 0.7, (count, 2)) * side
    masks = np.zeros((count, 2, side, side), bool)
    for which, share in enumerate((0.27, 0.73)):
        away = (x - share * side) ** 2 + (y - centres[:, which, None, None]) ** 2
        masks[:, which] = away < (side / 6) ** 2
    images = 60 + 120 * masks.any(1) + rng.integers(0, 30, (count, side, side))
    labels = np.ones((count, 2), np.float32)
    labels[::5, 1] = np.nan
    return MaskedImages(images.astype(np.uint8), masks, NAMES, labels, np.arange(count) // 2)


def recipe(**changes):
    usual = {
        "task": "segmentation",
        "model": "unet",
        "model_args": {"width": 8},
        "resolution": 32,
        "epochs": 4,
        "batch_size": 4,
        "ema": 0.5,
        "checkpoint_steps": 3,
        "augmentation": Augmentation(rotation=5, gamma=0.2),
        "optimiser": Optimiser(lr=0.02),
        "loggers": (),
        "accelerator": "cpu",
    }
    return Recipe(**{**usual, **changes})


def run(folder, *, resume=True, whole=None, **changes):
    whole = whole or discs()
    parts = whole.subset(range(28)), whole.subset(range(28, 36))
    test = whole.subset(range(36, 40))
    return fit(recipe(**changes), *parts, test=test, out=folder, resume=resume, progress=False)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmentation")
    return folder, run(folder)


# ---- masks --------------------------------------------------------------------------------------


def test_masks_are_kept_as_bits_and_come_back(tmp_path):
    rng = np.random.default_rng(0)
    masks = rng.random((5, 3, 13, 13)) < 0.3
    data = MaskedImages(np.zeros((5, 13, 13), np.uint8), masks, ["a", "b", "c"])
    np.testing.assert_array_equal(data.masks(range(5)), masks)
    part = data.subset([4, 1]).with_findings(["c", "x", "a"])
    assert part.names == ("c", "x", "a")
    found = part.masks([1, 0])
    np.testing.assert_array_equal(found[:, 0], masks[[1, 4], 2])
    np.testing.assert_array_equal(found[:, 2], masks[[1, 4], 0])
    assert not found[:, 1].any()
    assert np.isnan(part.labels[:, 1]).all()
    again = part.with_findings(["a"])
    np.testing.assert_array_equal(again.masks([0])[0, 0], masks[4, 0])


def test_other_masks_are_other_data():
    one, other = discs(), discs()
    assert one.fingerprint() == other.fingerprint()
    other._packed[3, 0, 5] ^= 1
    assert one.fingerprint() != other.fingerprint()
    with pytest.raises(ImageShapeError, match="masks must be of shape"):
        MaskedImages(np.zeros((2, 8, 8), np.uint8), np.zeros((2, 1, 4, 4)), ["a"])


def test_masks_of_a_dataset_are_those_of_its_samples(tmp_path):
    from torchvision.transforms import v2

    from torchxrayvision.transforms import CenterCropSquare, ResizeSquare

    together = v2.Compose([CenterCropSquare(), ResizeSquare(32)])
    plain = Phantom_Dataset(n=3, size=64, anatomy_masks=True)
    moved = Phantom_Dataset(n=3, size=64, anatomy_masks=True, transform=together)
    data = MaskedImages.build(plain, 32, ["Heart", "Left Lung"], folder=tmp_path, workers=1)
    for row in range(3):
        sample = moved[row]
        for column, name in enumerate(("Heart", "Left Lung")):
            expected = sample["semantic_masks"][name][0] > 0
            np.testing.assert_array_equal(data.masks([row])[0, column] > 0, expected)
        np.testing.assert_allclose(data[row][0], sample["img"], atol=4.1)
    assert (data.labels == 1).all()
    assert data.patient_ids.tolist() == patient_keys(plain).tolist()


def test_what_was_drawn_is_kept_and_damage_is_drawn_again(tmp_path, monkeypatch):
    from torchxrayvision.training.images import masks as module

    def build():
        dataset = Phantom_Dataset(n=2, size=64, anatomy_masks=True)
        return MaskedImages.build(dataset, 16, folder=tmp_path, workers=1)

    first = build()
    fingerprint = first.fingerprint()
    with monkeypatch.context() as patch:
        patch.setattr(module, "_drawn", None)  # would be called
        again = build()
    assert again.fingerprint() == fingerprint
    assert again.names == first.names
    (kept,) = (tmp_path / "masks").glob("*/masks.npy")
    content = bytearray(kept.read_bytes())
    content[-7] ^= 1
    kept.write_bytes(content)
    assert build().fingerprint() == fingerprint


def test_findings_that_an_image_does_not_show_have_empty_masks_and_unknown_ones_none(tmp_path):
    dataset = Phantom_Dataset(n=12, size=64, pathology_masks=True)
    shown = dataset.labels[:, dataset.pathologies.index("Effusion")]
    dataset.labels[np.flatnonzero(shown == 0)[0], dataset.pathologies.index("Effusion")] = np.nan
    data = MaskedImages.build(
        dataset, 32, ["Effusion"], masks="findings", folder=tmp_path, workers=1
    )
    now = dataset.labels[:, dataset.pathologies.index("Effusion")]
    np.testing.assert_array_equal(np.isnan(data.labels[:, 0]), np.isnan(now))
    assert np.isnan(now).sum() == 1
    known = ~np.isnan(now)
    inside = data.masks(range(len(data)))[:, 0].any((1, 2))
    np.testing.assert_array_equal(inside[known], now[known] == 1)


def test_what_gives_no_masks_is_refused(tmp_path):
    plain = Phantom_Dataset(n=2, size=64)
    with pytest.raises(DatasetError, match="anatomy_masks=True"):
        MaskedImages.build(plain, 16, folder=tmp_path)
    with pytest.raises(DatasetError, match="pathology_masks=True"):
        MaskedImages.build(MergeDataset([plain]), 16, masks="findings", folder=tmp_path)
    asked = Phantom_Dataset(n=2, size=64, anatomy_masks=True)
    with pytest.raises(UnknownNameError, match="Spleen"):
        MaskedImages.build(asked, 16, ["Spleen"], folder=tmp_path, workers=1)
    with pytest.raises(UnknownNameError, match="kind of masks"):
        MaskedImages.build(asked, 16, masks="bones", folder=tmp_path)


# ---- errors -------------------------------------------------------------------------------------


def test_masks_move_as_their_images_do():
    data = discs(6)
    draws = draw(range(6), seed=3, epoch=1)
    what = Augmentation(rotation=40, translation=0.1, scale=0.2, aspect=0.1, gamma=0.5, noise=0.1)
    masks = torch.from_numpy(data.masks(range(6)))
    moved = augment_masks(masks, draws, what, 48)
    only = Augmentation(rotation=40, translation=0.1, scale=0.2, aspect=0.1)
    as_images = augment(masks[:, :1].float() * 2048 - 1024, draws, only, 48)
    torch.testing.assert_close(moved[:, :1], (as_images + 1024) / 2048, atol=1e-6, rtol=0)
    assert moved.shape == (6, 2, 48, 48)
    assert 0 <= moved.min() <= moved.max() <= 1
    torch.testing.assert_close(masks_at(masks.float(), 32), masks.float())


def test_dice_is_that_of_evaluation_and_nan_where_nothing_is_known():
    rng = np.random.default_rng(0)
    inside, truth = rng.random((2, 4, 3, 9, 9)) < 0.4
    truth[1, 2] = inside[1, 2] = False
    masks = torch.from_numpy(truth).float()
    masks[2, 0] = float("nan")
    found = dice_of(torch.from_numpy(inside), masks).numpy()
    for image in range(4):
        for name in range(3):
            if (image, name) in ((1, 2), (2, 0)):
                assert np.isnan(found[image, name])
            else:
                expected = dice(inside[image, name], truth[image, name])
                assert found[image, name] == pytest.approx(expected)


def test_the_loss_weighs_pixels_and_overlap_and_leaves_out_the_unknown():
    torch.manual_seed(0)
    logits = torch.randn(3, 2, 8, 8, requires_grad=True)
    masks = (torch.rand(3, 2, 8, 8) < 0.3).float()
    masks[0, 1] = float("nan")
    both = outline_errors(logits, masks, Segmentation(cross_entropy=2, dice=3))
    p, m = logits[1, 0].sigmoid().double(), masks[1, 0].double()
    entropy = -(m * p.log() + (1 - m) * (1 - p).log()).mean()
    overlap = (2 * (p * m).sum() + 1) / (p.sum() + m.sum() + 1)
    assert both[1, 0].item() == pytest.approx((2 * entropy + 3 * (1 - overlap)).item(), rel=1e-5)
    assert both.isnan().tolist() == [[False, True], [False, False], [False, False]]
    loss = mean_of_known(both, ~both.isnan())
    assert loss.item() == pytest.approx(
        (both[:, 0].mean() + both[1:, 1].mean()).item() / 2, rel=1e-6
    )
    loss.backward()
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[0, 1].any()


# ---- recipes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trainable": "head"}, "whole network"),
        ({"segmentation": {"masks": "bones"}}, "must be one of"),
        ({"segmentation": {"dice": -1.0}}, "must lie in"),
        ({"segmentation": {"dice": 0.0, "cross_entropy": 0.0}}, "nothing counts"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(changes, said):
    with pytest.raises(RecipeError, match=said):
        recipe_from_dict({"task": "segmentation", **changes})


def test_networks_and_images_that_do_not_fit_are_refused(tmp_path):
    for changes, error, said in (
        ({"model": "densenet121", "model_args": {}}, UnknownNameError, "densenet121"),
        ({"model_args": {"depth": 3}}, RecipeError, "model_args"),
        ({"augmentation": Augmentation(flip=0.5)}, RecipeError, "mirrors"),
    ):
        with pytest.raises(error, match=said):
            run(tmp_path, **changes)
    with pytest.raises(RecipeError, match="trains a Segmenter, got ResNet"):
        fit(recipe(), discs(8), out=tmp_path, network=get_model("resnet18"), progress=False)
    plain = PreparedImages(np.zeros((4, 32, 32), np.uint8), np.ones((4, 2)), NAMES)
    with pytest.raises(RecipeError, match="MaskedImages"):
        fit(recipe(), plain, out=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("kind", "name"), [("anatomy", "Heart"), ("findings", "Effusion")])
def test_datasets_of_a_recipe_need_not_say_that_masks_are_wanted(kind, name, tmp_path):
    source = Source(name="Phantom_Dataset", args={"n": 10, "size": 64})
    made = recipe(datasets=(source,), findings=(name,), segmentation=Segmentation(masks=kind))
    train, validation, _ = prepare_parts(made, cache=tmp_path, workers=1)
    assert isinstance(train, MaskedImages)
    assert train.names == (name,)
    assert len(train) + len(validation) == 10
    assert train.masks(range(len(train))).any()


# ---- runs ---------------------------------------------------------------------------------------


def test_a_run_learns_and_leaves_what_its_page_says(done):
    folder, result = done
    history = [figures["val_dice"] for figures in result.history]
    assert result.mean_dice == max(history) > 0.6 > history[0]
    assert result.mean_dice == pytest.approx(np.mean(list(result.dice.values())))
    assert set(result.dice) == set(NAMES)
    assert np.isnan(result.mean_auroc)
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "best.safetensors", "best.json", "last.safetensors", "recipe.json", "split.csv",
        "dice.csv", "outlines-validation.csv", "outlines-test.csv", "outlines-validation.png",
        "resume.safetensors",
    }  # fmt: skip
    table = pd.read_csv(folder / "dice.csv").set_index(["part", "structure"])
    rows = pd.read_csv(folder / "outlines-validation.csv")
    for name in NAMES:
        mean = table.loc[("validation", name), "mean"]
        assert mean == pytest.approx(rows[name].mean()) == pytest.approx(result.dice[name])
    known = ~np.isnan(discs().labels[28:36])
    assert rows[list(NAMES)].notna().to_numpy().tolist() == known.tolist()
    assert table.loc[("validation", "Right Disc"), "images"] == known[:, 1].sum() < 8
    assert "too high" in table.loc[("validation", "Left Disc"), "note"]
    assert pd.isna(table.loc[("test", "Left Disc"), "note"])
    told = json.loads((folder / "best.json").read_text())
    assert told["recipe"]["task"] == "segmentation"
    assert told["data"]["train"]["images"] == 28


def test_the_kept_network_outlines_what_was_judged_wherever_it_is_loaded(
    done, tmp_path, monkeypatch
):
    folder, result = done
    monkeypatch.setenv("XRV_CACHE_DIR", str(tmp_path / "cache"))
    network = load_segmenter(result.best)
    assert (network.targets, network.input_resolution) == (list(NAMES), 32)
    data = discs()
    pixels = torch.from_numpy(data.batch(range(28, 36))[0]).float() * (2048 / 255) - 1024
    add_weights(result.best, "discs")
    for again in (network, get_segmenter("discs"), get_model("discs")):
        with torch.inference_mode():
            inside = (again(pixels) > 0)[:, 0].numpy()
        truth = data.masks(range(28, 36))[:, 0]
        found = [dice(a, b) for a, b in zip(inside, truth, strict=True)]
        rows = pd.read_csv(folder / "outlines-validation.csv")
        np.testing.assert_allclose(found, rows["Left Disc"], atol=1e-6)
    path = tmp_path / "film.png"
    Image.fromarray(data.batch([28])[0][0, 0]).save(path)
    (made,) = segment(str(path), "discs")
    assert dice(made.masks["Left Disc"], data.masks([28])[0, 0]) == pytest.approx(found[0])


def test_a_run_starts_from_weights_of_another_and_from_published_ones(done, tmp_path):
    start = str(done[1].best)
    result = run(tmp_path / "on", weights=start, model_args={}, epochs=1)
    assert result.mean_dice > done[1].history[0]["val_dice"]
    with pytest.raises(RecipeError, match="hold a UNet"):
        run(tmp_path / "other", weights=start, model="pspnet", model_args={})
    with pytest.warns(UserWarning, match="demonstration"):
        other = run(tmp_path / "demo", model="demo-anatomy", model_args={}, epochs=1)
    assert load_segmenter(other.last).targets == list(NAMES)
    with pytest.raises(CheckpointError, match="segmentation network"):
        from torchxrayvision.autoencoders import CompactAE
        from torchxrayvision.autoencoders import save_checkpoint as save_autoencoder

        save_autoencoder(CompactAE(width=4), tmp_path / "drawn.safetensors")
        load_segmenter(tmp_path / "drawn.safetensors")


def test_a_stop_changes_no_bit(done, tmp_path, monkeypatch):
    # Within the second epoch, after a state that was written within it.
    stop_at_step(12, lambda: run(tmp_path), monkeypatch)
    assert not (tmp_path / "dice.csv").exists()
    run(tmp_path)
    assert all(tensors(tmp_path / name) == tensors(done[0] / name) for name in FILES)


def test_images_that_are_kept_larger_and_mixed_are_judged_at_the_resolution(tmp_path):
    result = run(tmp_path, whole=discs(side=64), epochs=1,
                 augmentation=Augmentation(mixup=0.3))  # fmt: skip
    assert np.isfinite(result.mean_dice)


@pytest.mark.parametrize("name", ["pspnet", "unet-resnet50"])
def test_networks_of_other_groups_take_other_structures_and_are_kept(name, tmp_path):
    from torchxrayvision.models import class_of, save_pretrained

    net = class_of(name)(weights=False)
    net.reset_outputs(["Heart", "Left Lung"])
    net.input_resolution = 64
    net.eval()
    save_segmenter(net, tmp_path / "one.safetensors")
    save_pretrained(net, tmp_path / "folder")
    x = torch.rand(1, 1, 64, 64) * 2048 - 1024
    with torch.inference_mode():
        expected = net(x)
        assert expected.shape == (1, 2, 64, 64)
        for again in (load_segmenter(tmp_path / "one.safetensors"),
                      from_pretrained(tmp_path / "folder")):  # fmt: skip
            assert torch.equal(again(x), expected)

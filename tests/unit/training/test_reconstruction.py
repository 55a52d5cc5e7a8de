"""Training of autoencoders: errors, recipes, runs, and a stop that changes no bit."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

from support.training_runs import stop_at_step, tensors
from torchxrayvision import autoencoders
from torchxrayvision.errors import DatasetError, RecipeError, ResumeError, UnknownNameError
from torchxrayvision.models import get_model
from torchxrayvision.training import (
    Augmentation,
    Optimiser,
    PreparedImages,
    Recipe,
    Reconstruction,
    Split,
    fit,
    prepare_parts,
    recipe_from_dict,
    reconstruction_errors,
    ssim,
)
from torchxrayvision.training.objectives import psnr_of

FILES = ("best.safetensors", "last.safetensors")


def blurs(count=40, seed=0, side=32):
    """Smooth images: a few waves each, which few numbers tell."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    phase = rng.uniform(0, 2 * np.pi, (count, 2, 1, 1))
    waves = np.sin(2 * np.pi * x + phase[:, 0]) + np.sin(2 * np.pi * y + phase[:, 1])
    return PreparedImages(np.rint(waves * 50 + 128).astype(np.uint8))


def recipe(**changes):
    usual = {
        "task": "reconstruction",
        "model": "autoencoder-compact",
        "model_args": {"width": 4, "code": 4, "levels": 3},
        "resolution": 32,
        "epochs": 3,
        "batch_size": 4,
        "ema": 0.9,
        "checkpoint_steps": 3,
        "augmentation": Augmentation(rotation=5, noise=0.02),
        "optimiser": Optimiser(lr=0.01),
        "loggers": (),
        "accelerator": "cpu",
    }
    return Recipe(**{**usual, **changes})


def run(folder, *, resume=True, **changes):
    whole = blurs()
    parts = whole.subset(range(28)), whole.subset(range(28, 36))
    test = whole.subset(range(36, 40))
    return fit(recipe(**changes), *parts, test=test, out=folder, resume=resume, progress=False)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reconstruction")
    return folder, run(folder)


# ---- errors -------------------------------------------------------------------------------------


def test_errors_are_shares_of_the_range():
    given = torch.zeros(2, 1, 16, 16)
    drawn = given.clone()
    drawn[1] += 204.8  # a tenth of the range
    errors = reconstruction_errors(drawn, given, Reconstruction(), every=True)
    assert errors["absolute"].tolist() == pytest.approx([0, 0.1])
    assert errors["squared"].tolist() == pytest.approx([0, 0.01])
    assert psnr_of(errors["squared"]).tolist() == pytest.approx([120, 20], abs=1e-4)
    assert torch.equal(errors["loss"], errors["absolute"])


def test_ssim_is_that_of_plain_loops_over_windows():
    y, x = np.mgrid[:24, :24] / 24
    one = 0.5 + 0.3 * np.sin(7 * x) * np.cos(5 * y)
    other = one + 0.05 * np.sin(40 * x + 3 * y)
    pair = [torch.from_numpy(a)[None, None] for a in (one, other)]
    assert ssim(*pair).item() == pytest.approx(by_loops(one, other), abs=1e-9)
    assert ssim(pair[0], pair[0]).item() == pytest.approx(1)


def by_loops(one, other):
    steps = np.arange(11) - 5
    line = np.exp(-(steps**2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    values = []
    for top in range(len(one) - 10):
        for left in range(len(one) - 10):
            a, b = (i[top : top + 11, left : left + 11] for i in (one, other))
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = ((window * i**2).sum() - m**2 for i, m in ((a, mean_a), (b, mean_b)))
            both = (window * a * b).sum() - mean_a * mean_b
            light = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
            values.append(light * (2 * both + 9e-4) / (var_a + var_b + 9e-4))
    return np.mean(values)


def test_what_the_recipe_weighs_is_added():
    torch.manual_seed(0)
    given, drawn = torch.rand(2, 1, 16, 16) * 1000, torch.rand(2, 1, 16, 16) * 1000
    plain = reconstruction_errors(drawn, given, Reconstruction(error="mse"))
    weighed = reconstruction_errors(drawn, given, Reconstruction(error="mse", gradient=2, ssim=3))
    steps = (drawn - given) / 2048
    down, across = (steps.diff(dim=axis).abs().mean((1, 2, 3)) for axis in (2, 3))
    expected = plain["squared"] + 2 * (down + across) + 3 * (1 - weighed["ssim"])
    torch.testing.assert_close(weighed["loss"], expected)


# ---- recipes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"findings": ("Mass",)}, "has no findings"),
        ({"trainable": "head"}, "whole network"),
        ({"task": "painting"}, "must be one of"),
        ({"reconstruction": {"error": "l3"}}, "must be one of"),
        ({"reconstruction": {"ssim": -1.0}}, "must lie in"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(changes, said):
    with pytest.raises(RecipeError, match=said):
        recipe_from_dict({"task": "reconstruction", **changes})


def test_networks_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(UnknownNameError, match="autoencoder"):
        run(tmp_path, model="densenet121", model_args={})
    with pytest.raises(RecipeError, match="cannot be halved"):
        run(tmp_path, model_args={"levels": 6})
    with pytest.raises(RecipeError, match="draws 32 pixels of 48"):
        fit(
            recipe(model="autoencoder-resnet50", model_args={}, resolution=48),
            blurs(side=48), out=tmp_path, progress=False,
        )  # fmt: skip
    with pytest.raises(RecipeError, match="trains an Autoencoder, got ResNet"):
        fit(recipe(), blurs(), out=tmp_path, network=get_model("resnet18"), progress=False)
    assert not list(tmp_path.iterdir())


def test_datasets_need_no_labels(tmp_path):
    from PIL import Image

    for number in range(10):
        Image.fromarray(np.full((40, 40), 20 * number, np.uint8)).save(tmp_path / f"{number}.png")
    source = {"name": "Folder_Dataset", "args": {"folder": str(tmp_path)}}
    parsed = recipe_from_dict(
        {
            "task": "reconstruction",
            "datasets": [source],
            "resolution": 32,
            "model": "autoencoder-compact",
        }
    )
    with pytest.raises(DatasetError, match="patients are not known"):
        prepare_parts(parsed, cache=tmp_path / "cache", workers=1)
    parsed = dataclasses.replace(parsed, split=Split(kind="images"))
    train, validation, _ = prepare_parts(parsed, cache=tmp_path / "cache", workers=1)
    assert not set(train.paths) & set(validation.paths)
    assert (len(train), len(validation), train.labels.shape) == (8, 2, (8, 0))


# ---- runs ---------------------------------------------------------------------------------------


def test_a_run_learns_and_leaves_what_its_page_says(done):
    folder, result = done
    psnr = [figures["val_psnr"] for figures in result.history]
    assert psnr[-1] > psnr[0] + 1
    assert result.psnr == max(psnr)
    assert np.isnan(result.mean_auroc)
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "best.safetensors", "best.json", "last.safetensors", "recipe.json", "split.csv",
        "reconstruction.csv", "reconstructions-validation.csv", "reconstructions-test.csv",
        "reconstructions-validation.png", "resume.safetensors",
    }  # fmt: skip
    table = pd.read_csv(folder / "reconstruction.csv").set_index(["part", "measure"])
    rows = pd.read_csv(folder / "reconstructions-validation.csv")
    mean = table.loc[("validation", "psnr"), "mean"]
    assert mean == pytest.approx(rows["psnr"].mean()) == pytest.approx(result.psnr, abs=1e-3)
    assert "too high" in table.loc[("validation", "psnr"), "note"]
    assert pd.isna(table.loc[("test", "psnr"), "note"])
    told = json.loads((folder / "best.json").read_text())
    assert told["recipe"]["task"] == "reconstruction"
    assert told["data"]["train"]["images"] == 28


def test_the_kept_network_draws_what_was_judged(done):
    folder, result = done
    network = autoencoders.load_checkpoint(result.best)
    assert network.arguments == {**recipe().model_args, "dense": 0}
    assert network.input_resolution == 32
    images = torch.from_numpy(blurs().batch(range(28, 36))[0]).float() * (2048 / 255) - 1024
    with torch.inference_mode():
        drawn = network(images)["out"]
        codes = network.embed(images)
    psnr = psnr_of(((drawn - images) / 2048).square().mean((1, 2, 3)))
    rows = pd.read_csv(folder / "reconstructions-validation.csv")
    np.testing.assert_allclose(psnr, rows["psnr"], atol=1e-3)
    assert codes.shape == (8, 4 * 4 * 4)


def test_a_run_starts_from_weights_of_another(done, tmp_path):
    start = str(done[1].best)
    result = run(tmp_path / "on", weights=start, model_args={}, epochs=1)
    assert result.psnr > done[1].history[0]["val_psnr"]
    with pytest.raises(RecipeError, match="hold an autoencoder-compact"):
        run(tmp_path / "other", weights=start, model="autoencoder-resnet50", model_args={})


def test_a_stop_changes_no_bit(done, tmp_path, monkeypatch):
    # Within the second epoch, after a state that was written within it.
    stop_at_step(12, lambda: run(tmp_path), monkeypatch)
    assert not (tmp_path / "reconstruction.csv").exists()
    run(tmp_path)
    assert all(tensors(tmp_path / name) == tensors(done[0] / name) for name in FILES)


def test_another_objective_is_another_run(done):
    with pytest.raises(ResumeError, match="reconstruction"):
        run(done[0], reconstruction=Reconstruction(error="mse"))


def test_the_run_ends_early_on_psnr(tmp_path):
    result = run(tmp_path, patience=1, epochs=6, optimiser=Optimiser(lr=0.0), ema=0.0)
    assert result.epochs < 6


def test_images_that_are_kept_larger_are_judged_at_the_resolution(tmp_path):
    whole = blurs(side=64)
    result = fit(
        recipe(epochs=1), whole.subset(range(28)), whole.subset(range(28, 40)), out=tmp_path,
        progress=False,
    )  # fmt: skip
    assert np.isfinite(result.psnr)

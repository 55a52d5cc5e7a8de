"""Latent shift where the codes are known, and with the autoencoders of the package."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from support.evidence import SIDE, CellAutoencoder, Planted, image, mask
from torchxrayvision import explain
from torchxrayvision.autoencoders import ResNetAE50
from torchxrayvision.errors import DependencyError, ExplanationError, UnknownNameError
from torchxrayvision.models import DenseNet


@pytest.fixture(scope="module")
def shifted():
    return explain.latent_shift(
        Planted(), CellAutoencoder(), image(2), "dark", change=0.05, frames=9
    )


def test_frames_go_from_less_to_more_by_the_change_that_was_asked_for(shifted):
    for result in shifted:
        assert result.reached == (True, True)
        assert result.kind == "probability"
        assert result.frames.shape == (9, SIDE, SIDE)
        assert (result.shifts[0] < 0) & (result.shifts[-1] > 0)
        assert (result.values.diff() > 0).all()
        with torch.no_grad():
            start = Planted()(result.reconstruction[None, None]).sigmoid()[0, 1].item()
        assert result.values[0].item() == pytest.approx(start - 0.05, abs=0.002)
        assert result.values[-1].item() == pytest.approx(start + 0.05, abs=0.002)


def test_values_are_what_the_network_says_of_the_frames(shifted):
    result = shifted[0]
    with torch.no_grad():
        said = Planted()(result.frames[:, None]).sigmoid()[:, 1]
    torch.testing.assert_close(result.values, said, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        original = Planted()(image()).sigmoid()[0, 1].item()
    assert result.original_value == pytest.approx(original, abs=1e-5)


def test_only_the_evidence_changes(shifted):
    heat = shifted[0].heat()
    evidence = mask("dark")
    assert evidence[heat == heat.max()].all()
    assert heat[~evidence].max() < 0.05 * heat.max()
    assert shifted[0].heat(2 * SIDE).shape == (2 * SIDE, 2 * SIDE)


def test_shift_is_the_shortest_that_reaches_the_change():
    near, far = (
        explain.latent_shift(Planted(), CellAutoencoder(), image(), "dark", change=c)[0]
        for c in (0.05, 0.2)
    )
    assert -far.shifts[0] > -near.shifts[0] > 0
    step = near.shifts[0] * 0.9
    code = CellAutoencoder().encode(image())
    frame = near.frames[0]
    direction = (CellAutoencoder().encode(frame[None, None]) - code) / near.shifts[0]
    with torch.no_grad():
        before = Planted()(CellAutoencoder().decode(code + step * direction)).sigmoid()[0, 1]
        start = Planted()(CellAutoencoder().decode(code)).sigmoid()[0, 1]
    assert 0 < start - before < 0.05


def test_what_cannot_be_reached_is_said():
    (result,) = explain.latent_shift(
        Planted(), CellAutoencoder(), image(), "dark", limit=0.02, frames=3
    )
    assert result.reached == (False, False)
    assert result.values[0] < result.values[1] < result.values[2]


def test_the_longest_shift_is_tried_too():
    def shifted(**options):
        return explain.latent_shift(
            Planted(), CellAutoencoder(), image(), "dark", change=0.2, frames=3, **options
        )[0]

    free = shifted()
    held = shifted(limit=-1.01 * free.shifts[0].item())
    assert held.reached[0]
    assert held.shifts[0].item() == pytest.approx(free.shifts[0].item(), rel=0.01)


def test_nothing_is_left_behind():
    model, coder = Planted().train(), CellAutoencoder().train()
    random = torch.get_rng_state()
    with torch.inference_mode():
        explain.latent_shift(model, coder, image(), "bright", frames=3)
    assert model.training
    assert coder.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(random, torch.get_rng_state())


def test_codes_that_the_network_does_not_see_are_refused():
    class Blind(CellAutoencoder):
        def decode(self, z):
            return super().decode(z).detach() * 0

    with pytest.raises(ExplanationError, match="does not depend on the code"):
        explain.latent_shift(Planted(), Blind(), image(), "dark")


def test_any_pair_of_encoder_and_decoder_will_do():
    """Not a module, codes without places, trained here: a linear code of rank 4."""
    generator = torch.Generator().manual_seed(0)
    places = torch.stack([mask("dark").flatten(), mask("bright").flatten()]).float()
    codes = torch.rand(64, 2, generator=generator) * 1600 - 800
    films = codes @ places
    basis = torch.linalg.svd(films, full_matrices=False)[2][:2]

    class Linear:
        def encode(self, x):
            return x.flatten(1) @ basis.T

        def decode(self, z):
            return (z @ basis).reshape(-1, 1, SIDE, SIDE)

    x = (torch.tensor([[-500.0, 300.0]]) @ places).reshape(1, 1, SIDE, SIDE)
    (result,) = explain.latent_shift(Planted(), Linear(), x, "dark", change=0.05, frames=5)
    heat = result.heat()
    assert mask("dark")[heat >= 0.99 * heat.max()].all()
    assert (result.values.diff() > 0).all()


@pytest.mark.filterwarnings("ignore::torchxrayvision.errors.ImageRangeWarning")
def test_autoencoder_of_the_package():
    torch.manual_seed(0)
    model = DenseNet(8, (1, 1, 1, 1), 8, num_classes=2).eval()
    films = torch.rand(1, 1, 96, 96) * 2048 - 1024
    autoencoder = ResNetAE50().eval()
    autoencoder.input_resolution = 224  # as with weights: the image is resized to it first
    (result,) = explain.latent_shift(
        model, autoencoder, films, 1, frames=2, change=0.01, limit=0.02
    )
    assert result.frames.shape == (2, 224, 224)
    assert result.heat(96).shape == (96, 96)
    assert torch.isfinite(result.values).all()


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_film_runs_to_both_ends_and_back(shifted, tmp_path, ending):
    path = explain.save_animation(shifted[0], tmp_path / f"a.{ending}", title="dark", fps=10)
    with Image.open(path) as film:
        assert film.n_frames == 16
        assert film.width == SIDE
        assert film.info["loop"] == 0
        film.seek(1)
        film.load()
        assert film.info["duration"] == pytest.approx(100)
        film.seek(0)
        first = np.asarray(film.convert("L"))[:SIDE]
        film.seek(8)
        last = np.asarray(film.convert("L"))[:SIDE]
    expected = (shifted[0].frames[[0, -1]].numpy() + 1024) * 255 / 2048
    tolerance = 1 if ending != "webp" else 40  # WebP is lossy by default
    np.testing.assert_allclose(first, expected[0], atol=tolerance)
    np.testing.assert_allclose(last, expected[1], atol=tolerance)


@pytest.mark.parametrize(("title", "start"), [("dark", "dark: "), ("", "")])
def test_frames_say_the_title_and_their_value_apart(shifted, tmp_path, monkeypatch, title, start):
    drawn = []

    def annotate(picture, label):
        drawn.append(label)
        return picture

    monkeypatch.setattr("torchxrayvision.explain.counterfactual.annotate", annotate)
    explain.save_animation(shifted[0], tmp_path / "a.gif", title=title)
    assert drawn == [f"{start}{value:.2f}" for value in shifted[0].values.tolist()]


def test_film_of_another_size(shifted, tmp_path):
    path = explain.save_animation(shifted[0], tmp_path / "a.gif", size=150)
    with Image.open(path) as film:
        assert film.width == 150


def test_film_as_mp4(shifted, tmp_path):
    cv2 = pytest.importorskip("cv2")
    path = explain.save_animation(shifted[0], tmp_path / "a.mp4", size=151)
    reader = cv2.VideoCapture(str(path))
    frames = []
    while (read := reader.read())[0]:
        frames.append(read[1])
    assert len(frames) == 16
    assert frames[0].shape[1] == 152
    expected = (shifted[0].frames[0].mean().item() + 1024) * 255 / 2048
    assert frames[0][:150, :150].mean() == pytest.approx(expected, abs=6)


def test_film_that_cannot_be_written_says_why(shifted, tmp_path, monkeypatch):
    with pytest.raises(UnknownNameError, match="avi"):
        explain.save_animation(shifted[0], tmp_path / "a.avi")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(DependencyError, match='pip install "opencv-python-headless'):
        explain.save_animation(shifted[0], tmp_path / "a.mp4")


def test_a_network_that_is_no_module_of_ours_is_asked_for_a_probability():
    model = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 1))
    (result,) = explain.latent_shift(model, CellAutoencoder(), image(), 0, frames=3)
    assert ((result.values >= 0) & (result.values <= 1)).all()

"""How far images lie from a reference: the scores, their limits, files, and the commands."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from torchxrayvision import inference, screening
from torchxrayvision.autoencoders import CompactAE
from torchxrayvision.checkpoints import save_safetensors
from torchxrayvision.cli import app
from torchxrayvision.errors import CheckpointError, EmptyDatasetError
from torchxrayvision.models import ResNet, get_model
from torchxrayvision.phantom import simulate
from torchxrayvision.screening import Score, load_reference, reference_of
from torchxrayvision.screening.reference import _distances, _gaussian, _limit, unexplained

pytestmark = pytest.mark.filterwarnings("ignore::torchxrayvision.errors.DemonstrationWarning")
SIDE = 144


def film(number, seed=11):
    return simulate(number, seed=seed, size=160, views=("PA", "AP")).image


@pytest.fixture(scope="module")
def films():
    return [torch.nn.functional.interpolate(
        torch.from_numpy(film(n))[None], (SIDE, SIDE), mode="bilinear", antialias=True
    )[0].numpy() for n in range(50)]  # fmt: skip


@pytest.fixture(scope="module")
def reference(films):
    torch.manual_seed(0)
    network = get_model("demo")
    return reference_of(films[:40], network, CompactAE(width=4, code=2, levels=3).eval())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Simulated images and a photograph of noise, as files."""
    place = tmp_path_factory.mktemp("films")
    for number in range(50, 54):
        grey = np.round((film(number)[0] + 1024) * (255 / 2048)).clip(0, 255).astype(np.uint8)
        Image.fromarray(grey).save(place / f"film-{number}.png")
    noise = np.random.default_rng(0).integers(0, 256, (160, 160), dtype=np.uint8)
    Image.fromarray(noise).save(place / "noise.png")
    return place


# ---- the scores ---------------------------------------------------------------------------------


def test_the_distance_is_mahalanobis_with_a_covariance_that_can_be_inverted():
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(6, 6))
    sample = rng.normal(size=(4000, 6)) @ mix + 3
    mean, root = _gaussian(sample)
    distances = _distances(sample, mean, root)
    assert (distances**2).mean() == pytest.approx(1, abs=0.02)
    away = sample[:5] - sample.mean(axis=0)
    exact = np.sqrt(np.einsum("nd,de,ne->n", away, np.linalg.inv(np.cov(sample.T)), away) / 6)
    np.testing.assert_allclose(distances[:5], exact, rtol=0.03)
    few = _gaussian(rng.normal(size=(10, 40)))  # fewer images than numbers
    assert np.isfinite(_distances(rng.normal(size=(3, 40)), *few)).all()


def test_a_limit_lies_where_the_share_says():
    values = np.arange(1, 1001.0)
    assert _limit(values, 0.005) == 996
    assert _limit(values[:20], 0.005) == pytest.approx(21)  # too few: the largest and 5 %
    assert _limit(np.array([1.0, np.nan]), 0.1) == math.inf


def test_the_error_does_not_depend_on_exposure():
    torch.manual_seed(0)
    network = CompactAE(width=4, code=2, levels=3).eval()
    image = torch.from_numpy(film(3))[None]
    with torch.inference_mode():
        errors = unexplained(network, torch.cat([image, image * 0.3 - 200]))
        blank = unexplained(network, torch.full((1, 1, 64, 64), 300.0))
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)
    assert np.isfinite(blank).all()


def test_others_are_far_and_radiographs_are_not(reference, films):
    scores = reference.scores(np.stack(films[40:]))
    assert not any(reference.reasons(score) for score in scores)
    rng = np.random.default_rng(1)
    noise = rng.uniform(-1024, 1024, (1, SIDE, SIDE)).astype(np.float32)
    blank = np.full((1, SIDE, SIDE), 100, np.float32)
    for other in (noise, blank):
        (score,) = reference.scores(other[None])
        assert score.distance > max(s.distance for s in scores)
        assert "features lie" in " ".join(reference.reasons(score))


def test_reasons_name_what_exceeds_its_limit(reference):
    far = reference.limits["distance"] + 1
    assert reference.reasons(Score(0.5, 0.0)) == []
    (said,) = reference.reasons(Score(far, math.nan))
    assert f"{far:.2f} from the reference" in said
    assert len(reference.reasons(Score(far, reference.limits["error"] + 1))) == 2


# ---- files --------------------------------------------------------------------------------------


def test_what_is_saved_gives_the_same_scores(reference, films, tmp_path):
    path = tmp_path / "site.safetensors"
    reference.save(path)
    again = load_reference(str(path))
    squares = np.stack(films[44:47])
    one, other = reference.scores(squares), again.scores(squares)
    np.testing.assert_allclose([s.distance for s in one], [s.distance for s in other], rtol=1e-4)
    np.testing.assert_allclose([s.error for s in one], [s.error for s in other], rtol=1e-5)
    assert dict(again.limits) == pytest.approx(dict(reference.limits))
    assert again.digest == reference.digest


def test_files_that_are_none_are_refused(reference, films, tmp_path):
    path = tmp_path / "site.safetensors"
    save_safetensors(path, {"a": torch.zeros(2)}, {})
    with pytest.raises(CheckpointError, match="write-reference"):
        load_reference(path)
    reference.save(path)
    stated = {"weights": "demo", "sha256": "0" * 64}
    header = json.dumps({"network": stated, "limits": {}, "facts": {}})
    tensors = {"reference.mean": torch.zeros(2), "reference.root": torch.eye(2)}
    other = tmp_path / "other.safetensors"
    save_safetensors(other, tensors, {"torchxrayvision.reference": header})
    with pytest.raises(CheckpointError, match="other tensors now"):
        load_reference(other)
    own = reference_of(films[:20], ResNet(architecture="resnet18-width32", num_classes=2).eval())
    with pytest.raises(CheckpointError, match="would not hold"):
        own.save(tmp_path / "own.safetensors")
    with pytest.raises(EmptyDatasetError, match="20 images"):
        reference_of(films[:19], reference.network)


def test_the_packaged_reference_knows_radiographs_and_says_whose(films):
    known = load_reference()
    assert "NIH" in known.facts["images"]
    assert "citation" in known.facts["terms"]
    assert known.network.weights == "resnet18-res144-demo"
    assert set(known.limits) == {"distance", "error"}
    blank, noise = np.zeros((2, 1, SIDE, SIDE), np.float32)
    noise += np.random.default_rng(0).uniform(-1024, 1024, noise.shape).astype(np.float32)
    far = known.scores(np.stack([blank, noise, -films[0][:, ::-1]]))
    assert all(known.reasons(score) for score in far)
    assert far[0].error > known.limits["error"]


# ---- the screening and the commands -------------------------------------------------------------


@pytest.fixture(scope="module")
def site(reference, tmp_path_factory):
    path = tmp_path_factory.mktemp("site") / "site.safetensors"
    reference.save(path)
    return path


def test_the_screening_refuses_what_is_far(reference, folder):
    plain = screening.check(str(folder)).set_index("path")
    table = screening.check(str(folder), reference=reference).set_index("path")
    noise = str(folder / "noise.png")
    assert table.loc[noise, "codes"].split()[0] == "unfamiliar"
    assert table.loc[noise, "embedding_distance"] > reference.limits["distance"]
    assert table["reconstruction_error"].notna().all()
    others = table.drop(noise)
    assert not others["codes"].str.contains("unfamiliar").any()
    assert list(plain.columns) == list(table.columns[:-2])
    allowed = screening.check(
        str(folder / "noise.png"), reference=reference, allow=["unfamiliar", "not-chest"]
    )
    assert allowed["verdict"].tolist() == ["noted"]


def test_the_command_fits_writes_and_uses_a_reference(folder, tmp_path):
    known = tmp_path / "known"
    known.mkdir()
    for number in range(24):
        grey = np.round((film(number)[0] + 1024) * (255 / 2048)).clip(0, 255).astype(np.uint8)
        Image.fromarray(grey).save(known / f"{number}.png")
    site, table = tmp_path / "site.safetensors", tmp_path / "checks.csv"
    made = invoke("check", "--reference", known, "--write-reference", site)
    assert made.exit_code == 0, made.output
    assert "24 images" in made.stderr
    done = invoke("check", folder, "--reference", site, "--output", table)
    assert done.exit_code == 1, done.output
    rows = pd.read_csv(table).set_index("path")
    assert "unfamiliar" in rows.loc[str(folder / "noise.png"), "codes"]
    again = invoke("check", "--reference", known, "--write-reference", site)
    assert again.exit_code == 2
    assert "exists" in again.stderr


def invoke(*words):
    return CliRunner().invoke(app, [*map(str, words)])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check", "a.png", "--write-reference", "{tmp}/x.safetensors"], "--reference"),
        (["check", "a.png", "--reference", "{tmp}", "--write-reference", "{tmp}/x.npz"], "ends in"),
        (["predict", "a.png", "--reference", "{tmp}"], "takes a file here"),
        (["predict", "a.png", "--ood", "--check", "off"], "a part of the screening"),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path, words, said):
    done = invoke(*(word.format(tmp=tmp_path) for word in words))
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())


def test_predictions_say_what_is_far(folder, site, tmp_path):
    table = inference.predict(str(folder), "demo", reference=str(site)).set_index("path")
    assert "features lie" in table.loc[str(folder / "noise.png"), "check"]
    assert not table["check"].drop(str(folder / "noise.png")).str.contains("features lie").any()
    output = tmp_path / "findings.csv"
    inference.predict_to_file(
        str(folder), "demo", output, reference=str(site), check="refuse", engine="torch"
    )
    rows = pd.read_csv(output).set_index("path")
    assert "features lie" in rows.loc[str(folder / "noise.png"), "error"]
    told = json.loads((tmp_path / "findings.csv.provenance.json").read_text())
    assert len(told["options"]["reference"]["sha256"]) == 64

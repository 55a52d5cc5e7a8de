"""The weights that are installed with the package: whole, loud about what they are, and useful."""

from __future__ import annotations

import dataclasses
import socket
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from torchxrayvision import evaluation, phantom, weights
from torchxrayvision.cli import app
from torchxrayvision.errors import ChecksumError, DemonstrationWarning, UnknownNameError
from torchxrayvision.facts import PackagedFile
from torchxrayvision.models import UNet, XRayClassifier, get_model, list_models
from torchxrayvision.weights import Demo_Weights

STEMS = ("demo", "demo-anatomy")
EACH = pytest.mark.parametrize("stem", STEMS)
FILMS = 60  # of a seed that no training film has


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """No socket and an empty cache."""

    def refuse(*_, **__):
        raise OSError("the network was asked for")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("XRV_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def loaded(stem):
    with pytest.warns(DemonstrationWarning, match="demonstration weights"):
        return get_model(stem)


@pytest.fixture(scope="module")
def films():
    return [
        phantom.simulate(
            index,
            seed=909,
            size=weights.get("demo-anatomy").input_resolution,
            site=phantom.SITES[index % len(phantom.SITES)],
            views=("PA", "AP"),
        )
        for index in range(FILMS)
    ]


@EACH
def test_the_file_is_whole_and_small(stem):
    entry = weights.get(stem)
    path = weights.fetch_weights(stem)
    assert path.stat().st_size == entry.file.size <= 8_000_000
    assert weights.verify_weights(stem).status == "published"
    assert weights.locate_weights(stem) == path
    assert path.name == f"{stem}.safetensors"
    assert entry.url == ""


@EACH
def test_a_damaged_file_is_refused(stem):
    entry = weights.get(stem)
    other = dataclasses.replace(entry.file, sha256="0" * 64)
    with pytest.raises(ChecksumError, match="install torchxrayvision again"):
        weights.fetch_weights(dataclasses.replace(entry, file=other))
    gone = PackagedFile(folder="weights/data", filename="gone", sha256="0" * 64, size=1)
    assert weights.locate_weights(dataclasses.replace(entry, file=gone)) is None
    assert weights.verify_weights(dataclasses.replace(entry, file=gone)) is None


@EACH
def test_they_load_without_the_network_and_say_what_they_are(stem, alone):
    model = loaded(stem)
    entry = weights.get(stem)
    assert not model.training
    assert model.weights == entry.name
    assert model.targets == list(entry.targets)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    prediction = model.predict(torch.linspace(-1024, 1024, 64 * 64).reshape(1, 1, 64, 64))
    assert list(prediction.values) == list(entry.targets)
    assert not (alone / "cache").exists()


def test_they_are_of_the_kinds_that_their_names_say():
    assert isinstance(loaded("demo"), XRayClassifier)
    assert isinstance(loaded("demo-anatomy"), UNet)
    assert {m.value.name for m in Demo_Weights} <= set(list_models())
    with pytest.raises(UnknownNameError, match="demo-anatomy"):
        UNet(weights="demo")


def test_every_load_warns_and_others_do_not():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        get_model("demo")
        get_model("demo")
    assert [w.category for w in caught] == [DemonstrationWarning] * 2
    assert [w.name for w in weights.list_weights() if w.demonstration] == [
        m.value.name for m in Demo_Weights
    ]


def test_the_classifier_ranks_films_it_never_saw(films):
    model = loaded("demo")
    with torch.inference_mode():
        logits = model(torch.from_numpy(np.stack([f.image for f in films])), output="logit")
    names = [n for n in model.targets if 5 <= sum(f.labels.get(n, 0) for f in films) <= FILMS - 5]
    assert len(names) >= 5
    labels = np.array([[f.labels[n] for n in names] for f in films])
    columns = [model.targets.index(n) for n in names]
    assert evaluation.mean_auroc(labels, logits[:, columns].numpy()).value > 0.9


def test_the_outlines_lie_on_the_lungs_and_the_heart(films):
    model = loaded("demo-anatomy")
    with torch.inference_mode():
        maps = model.predict(torch.from_numpy(np.stack([f.image for f in films[:20]]))).values
    for name, least in (("Left Lung", 0.93), ("Right Lung", 0.93), ("Heart", 0.85)):
        found = (maps[name] > 0.5).numpy()
        each = [
            evaluation.dice(mask, film.anatomy[name])
            for mask, film in zip(found, films, strict=False)
        ]
        assert np.mean(each) > least


@EACH
def test_the_card_has_intervals_data_limits_and_thanks(stem):
    entry, card = weights.get(stem), weights.card_of(stem)
    tests = {**card.get("auroc", {}), **card.get("dice", {})}
    assert tests
    for rows in tests.values():
        for row in rows.values():
            assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
    assert set(entry.targets) == {name for rows in tests.values() for name in rows} - {"mean"}
    assert {"data", "recipe", "seed", "limits"} <= set(card["about"])
    thanked = "https://nihcc.app.box.com/v/ChestXray-NIHCC" in entry.license.note
    assert thanked == ("Wang" in entry.reference.authors) == ("nih" in entry.trained_on)
    assert thanked == (stem == "demo")


def test_the_card_says_what_simulations_add():
    six = weights.card_of("demo")["six"]
    both, alone = (six[name]["pooled"]["value"] for name in ("with", "without"))
    assert six["difference"]["value"] == pytest.approx(both - alone, abs=2e-4)


def test_the_classifier_is_as_good_as_was_asked():
    card = weights.card_of("demo")
    assert card["six"]["taught"]["value"] >= 0.79
    simulated = {name: row["value"] for name, row in card["auroc"]["simulated, held out"].items()}
    assert simulated.pop("mean") >= 0.95
    assert min(simulated.values()) >= 0.85


def xrv(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@EACH
def test_show_prints_the_card(stem):
    result = xrv("weights", "show", stem)
    assert result.exit_code == 0, result.output
    for text in ("limits: ", "recipe: ", weights.get(stem).targets[0], " to "):
        assert text in result.output


def test_show_prints_published_weights_too():
    result = xrv("weights", "show", "all")
    assert result.exit_code == 0, result.output
    assert "AUROC NIH" in result.output
    assert "0.880" in result.output


@pytest.fixture
def film(tmp_path):
    path = tmp_path / "film.png"
    pixels = np.random.default_rng(0).integers(0, 256, (80, 80), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_predict_takes_them_without_the_network(alone, film):
    result = xrv("predict", film, "--weights", "demo")
    assert result.exit_code == 0, result.output
    assert "Cardiomegaly" in result.stdout
    assert "demonstration weights" in result.stderr


def test_predict_never_takes_them_by_itself_but_names_them(alone, film, monkeypatch):
    monkeypatch.setenv("XRV_OFFLINE", "1")
    result = xrv("predict", film)
    assert result.exit_code != 0
    assert "--weights demo" in str(result.exception)
    assert "Cardiomegaly" not in result.stdout

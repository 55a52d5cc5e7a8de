"""The column `check`: what the cheap part of the screening says beside the numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from support import long_run
from torchxrayvision.cli import app
from torchxrayvision.errors import UnknownNameError
from torchxrayvision.inference import Shard, join_shards, predict, predict_to_file
from torchxrayvision.inputs import ReadOptions
from torchxrayvision.phantom import simulate
from torchxrayvision.screening import iter_checks

EXPECTED = {
    "dim.png": "noted: uses 4% of the range that the file declares",
    "film.png": "ok",
    "grey.png": "refused: holds 1 grey values, no picture",
    "inverted.png": "refused: its grey is inverted, air is bright",
    "stripes.png": "refused: does not look like a chest radiograph",
    "torn.png": "",
    "turned.png": "refused: is rotated by 90 degrees clockwise",
}


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """One film of each kind."""
    folder = tmp_path_factory.mktemp("films")
    image = simulate(3, seed=5, size=160, views=("PA",)).image[0]
    film = np.round((image + 1024) * (255 / 2048)).clip(0, 255).astype(np.uint8)
    stripes = np.tile(np.linspace(0, 255, 32), (128, 4))
    stripes += np.random.default_rng(0).normal(0, 5, (128, 128))
    pictures = {
        "film": film, "inverted": 255 - film, "turned": np.rot90(film, -1),
        "grey": np.full((90, 120), 77, np.uint8), "dim": film.astype(np.uint16) * 11,
        "stripes": stripes.clip(0, 255).astype(np.uint8),
    }  # fmt: skip
    for name, picture in pictures.items():
        Image.fromarray(np.ascontiguousarray(picture)).save(folder / f"{name}.png")
    (folder / "torn.png").write_bytes((folder / "film.png").read_bytes()[:300])
    return folder


@pytest.fixture(scope="module")
def network():
    return long_run.network()


def by_name(table):
    return {path.rsplit("/", 1)[-1]: check for path, check in zip(table.path, table.check)}  # noqa: B905


def test_each_kind_of_film_is_told_and_gets_its_numbers(films, network):
    table = predict(films, network, engine="torch")
    assert by_name(table) == EXPECTED
    assert table.Mass.notna().sum() == len(EXPECTED) - 1
    off = predict(films, network, engine="torch", check="off")
    pd.testing.assert_frame_equal(table.drop(columns="check"), off)


def test_what_is_refused_gets_no_numbers_where_that_is_asked(films, network):
    table = predict(films, network, engine="torch", check="refuse").set_index("path")
    for path, row in table.iterrows():
        expected = EXPECTED[path.rsplit("/", 1)[-1]]
        assert row.check == expected
        refused = expected.startswith("refused")
        assert np.isnan(row.Mass) == (refused or path.endswith("torn.png"))
        assert row.error == (expected if refused else row.error)
    with pytest.raises(UnknownNameError, match="did you mean 'refuse'"):
        predict(films, network, check="refused")


def test_verdicts_are_those_of_the_whole_screening(films, network):
    told = {r.path: r.verdict for r in iter_checks(films) if not r.error}
    table = predict(films, network, engine="torch").set_index("path")
    for path, verdict in told.items():
        assert table.check[path].partition(":")[0] == verdict


@pytest.mark.parametrize("ending", [".csv", ".json", ".parquet"])
def test_runs_shards_and_isolated_readers_say_the_same(films, network, tmp_path, ending):
    options = {"engine": "torch", "batch_size": 2}
    whole, parts = tmp_path / f"whole{ending}", tmp_path / f"parts{ending}"
    predict_to_file(films, network, whole, **options)
    for index in (1, 2):
        reading = ReadOptions(isolate=True, workers=1)
        predict_to_file(films, network, parts, shard=Shard(index, 2), reading=reading, **options)
    join_shards(parts)
    assert parts.read_bytes() == whole.read_bytes()
    read = {".csv": pd.read_csv, ".json": pd.read_json, ".parquet": pd.read_parquet}[ending]
    assert by_name(read(whole).fillna({"check": ""})) == EXPECTED


def test_the_command_takes_the_option(films, network, tmp_path, monkeypatch):
    monkeypatch.setattr("torchxrayvision.cli.predict.load_classifier", lambda *_: network)
    monkeypatch.setattr("torchxrayvision.cli.predict._require_weights", lambda _: None)
    command = ["predict", str(films / "stripes.png"), str(films / "film.png")]
    kept = CliRunner().invoke(app, command)
    assert kept.exit_code == 0
    assert EXPECTED["stripes.png"] in kept.stdout
    refused = CliRunner().invoke(app, [*command, "--check", "refuse"])
    assert refused.exit_code == 1
    assert "check" not in CliRunner().invoke(app, [*command, "--check", "off"]).stdout

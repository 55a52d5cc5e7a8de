"""`xrv predict` from the outside: real files in, a table out, every fault accounted for."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from support import long_run
from support.networks import synthetic, write
from support.synthetic import film
from torchxrayvision.cli import app
from torchxrayvision.errors import ResumeError
from torchxrayvision.inference import predict
from torchxrayvision.models import DenseNet, load_checkpoint

runner = CliRunner()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write("densenet121-res224-all", tmp_path_factory.mktemp("weights"))


@pytest.fixture
def films(tmp_path):
    folder = tmp_path / "films"
    (folder / "deep" / "er").mkdir(parents=True)
    Image.fromarray(film(300, 260, 1)).save(folder / "grey.png")
    Image.fromarray(film(256, 256, 2, 65536)).save(folder / "deep" / "sixteen.png")
    Image.fromarray(film(240, 300, 3)).convert("RGB").save(folder / "deep" / "er" / "c.jpg")
    (folder / "broken.png").write_bytes((folder / "grey.png").read_bytes()[:500])
    (folder / "empty.dcm").write_bytes(b"")
    (folder / "notes.txt").write_text("not an image")
    return folder


def xrv(*arguments):
    return runner.invoke(app, [str(a) for a in arguments])


def test_a_folder_gives_one_row_a_file_and_exit_code_one(films, checkpoint, tmp_path):
    table = tmp_path / "out.csv"
    result = xrv(
        "predict", films, "--checkpoint", checkpoint, "--weights", "all", "--output", table
    )
    assert result.exit_code == 1, result.output
    rows = pd.read_csv(table, keep_default_na=False)
    names = [os.path.relpath(p, films) for p in rows["path"]]
    assert names == ["broken.png", "empty.dcm", "grey.png", "deep/sixteen.png", "deep/er/c.jpg"]
    assert [bool(e) for e in rows["error"]] == [True, True, False, False, False]
    assert list(rows.columns[2:]) == [*DenseNet().targets, "check"]
    assert "2 of 5 files could not be read" in result.output


def test_numbers_are_those_of_the_model(films, checkpoint, tmp_path):
    model = load_checkpoint(checkpoint, weights="all")
    table = predict(films / "grey.png", model)
    xrv("predict", films / "grey.png", "--checkpoint", checkpoint, "--weights", "all",
        "--output", tmp_path / "o.parquet")  # fmt: skip
    written = pd.read_parquet(tmp_path / "o.parquet")
    np.testing.assert_allclose(table.iloc[:, 2:-1], written.iloc[:, 2:-1], atol=1e-6)


def test_batch_size_and_workers_do_not_change_the_numbers(films, checkpoint):
    model = load_checkpoint(checkpoint, weights="all")
    one = predict(films, model, batch_size=1, workers=1)
    many = predict(films, model, batch_size=4, workers=3)
    pd.testing.assert_frame_equal(one, many, atol=1e-5)


@pytest.mark.parametrize("kind", ["logit", "probability"])
def test_output_kind_is_what_was_asked_for(films, checkpoint, tmp_path, kind):
    target = tmp_path / "o.json"
    xrv("predict", films / "grey.png", "--checkpoint", checkpoint, "--output-kind", kind,
        "--output", target)  # fmt: skip
    row = json.loads(target.read_text())[0]
    model = load_checkpoint(checkpoint, weights="all")
    expected = predict(films / "grey.png", model, output=kind).iloc[0]
    assert row["Mass"] == pytest.approx(expected["Mass"], abs=1e-6)


def test_embeddings_are_written(films, checkpoint, tmp_path):
    target = tmp_path / "o.parquet"
    xrv("predict", films, "--checkpoint", checkpoint, "--embeddings", "--output", target)
    vectors = pd.read_parquet(target)["embedding"].dropna()
    assert [len(v) for v in vectors] == [1024] * 3


def test_without_a_terminal_the_table_is_csv(films, checkpoint):
    result = xrv("predict", films / "grey.png", "--checkpoint", checkpoint, "--weights", "all")
    lines = result.stdout.splitlines()
    assert lines[0].startswith("path,error,Atelectasis")
    assert lines[1].startswith(f"{films / 'grey.png'},,0.")
    assert result.exit_code == 0


def test_only_trained_findings_get_columns(films, tmp_path):
    path = write("densenet121-res224-rsna", tmp_path)
    result = xrv("predict", films / "grey.png", "--checkpoint", path, "--weights", "rsna")
    assert result.stdout.splitlines()[0] == "path,error,Pneumonia,Lung Opacity,check"


def test_absent_files_are_rows(checkpoint, tmp_path):
    result = xrv("predict", tmp_path / "gone.png", "--checkpoint", checkpoint)
    assert result.exit_code == 1
    assert "gone.png" in result.stdout.splitlines()[1]


def test_folder_without_images_is_an_error(checkpoint, tmp_path):
    (tmp_path / "empty").mkdir()
    result = xrv("predict", tmp_path / "empty", "--checkpoint", checkpoint)
    assert result.exit_code == 2
    assert "no image in" in result.output


def command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "torchxrayvision.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("environment", [{"XRV_OFFLINE": "1"}, {"XRV_MIRROR": "/nonexistent"}])
def test_without_weights_the_command_says_at_once_what_to_place_where(tmp_path, environment):
    Image.fromarray(film(64, 64)).save(tmp_path / "a.png")
    start = time.monotonic()
    done = command("predict", tmp_path / "a.png", **environment)
    assert time.monotonic() - start < 20  # a second on an idle machine, torch alone takes three
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert os.environ["XRV_CACHE_DIR"] in done.stderr
    assert "densenet121" in done.stderr
    assert done.stdout == ""


def test_hostile_checkpoint_is_one_line_and_runs_nothing(tmp_path):
    canary = tmp_path / "canary"
    (tmp_path / "evil.pt").write_bytes(b"cos\nmkdir\n(V" + str(canary).encode() + b"\ntR.")
    Image.fromarray(film(64, 64)).save(tmp_path / "a.png")
    done = command("predict", tmp_path / "a.png", "--checkpoint", tmp_path / "evil.pt")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert not canary.exists()


def test_unknown_weights_are_a_line_with_a_hint():
    done = command("predict", "a.png", "--weights", "densenet121-res224-al")
    assert done.returncode == 2
    assert "did you mean 'densenet121-res224-all'" in done.stderr


def test_info_tells_what_the_file_is(films):
    result = xrv("info", films / "grey.png", films / "empty.dcm")
    assert result.exit_code == 1
    assert "300" in result.output
    assert "260" in result.output


def test_weights_are_listed_with_what_is_here():
    result = xrv("weights", "list")
    assert result.exit_code == 0
    assert "resnet50-res512-all" in result.output


def test_path_of_weights_names_the_place_without_a_download():
    result = xrv("weights", "path", "all")
    assert os.environ["XRV_CACHE_DIR"] in result.stdout


def test_model_that_answers_nonsense_is_not_hidden(films):
    model = synthetic(DenseNet(num_classes=18))
    with pytest.raises(ValueError, match="input resolution"):
        predict(films / "grey.png", model)
    model.input_resolution = 64
    model.classifier = torch.nn.Linear(7, 18)
    with pytest.raises(RuntimeError):
        predict(films / "grey.png", model)


@pytest.fixture
def planted(monkeypatch):
    """A small network in the place of the published one."""
    monkeypatch.setattr(
        "torchxrayvision.cli.predict.load_classifier", lambda *_: long_run.network()
    )
    monkeypatch.setattr("torchxrayvision.cli.predict._require_weights", lambda _: None)


@pytest.mark.usefixtures("planted")
def test_lists_archives_and_patterns_give_the_rows_of_the_folder(films, tmp_path):
    def rows(*arguments):
        result = xrv("predict", *arguments, "--output", tmp_path / "o.csv")
        assert result.exit_code == 1, result.output
        table = pd.read_csv(tmp_path / "o.csv", keep_default_na=False)
        table["path"] = [re.sub(r".*films(\.zip)?/", "", path) for path in table["path"]]
        return table.set_index("path").sort_index()

    expected = rows(films)
    names = sorted(p for p in films.rglob("*") if p.suffix in (".png", ".jpg", ".dcm"))
    (tmp_path / "list.txt").write_text("\n".join(map(str, names)))
    shutil.make_archive(str(tmp_path / "films"), "zip", films)
    for arguments in (
        [f"@{tmp_path / 'list.txt'}"],
        ["--from-file", tmp_path / "list.txt"],
        [tmp_path / "films.zip"],
        [f"{films}/*.png", f"{films}/*.dcm", f"{films}/deep/**/*.png", f"{films}/deep/**/*.jpg"],
    ):
        pd.testing.assert_frame_equal(rows(*arguments), expected, atol=1e-6)


@pytest.mark.usefixtures("planted")
def test_an_interrupted_command_says_how_to_go_on_and_goes_on(tmp_path, monkeypatch):
    folder = long_run.write_films(tmp_path / "films", 30)
    whole = tmp_path / "whole.csv"
    assert xrv("predict", folder, "--output", whole).exit_code == 0
    from torchxrayvision.runs import Journal

    real = Journal.append

    def interrupted(self, batch):
        if batch.first >= 16:
            raise KeyboardInterrupt
        real(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "append", interrupted)
        result = xrv("predict", folder, "--output", tmp_path / "t.csv")
    assert result.exit_code == 130
    assert "the same command resumes the run from here" in result.output
    other = xrv("predict", folder, "--output", tmp_path / "t.csv", "--batch-size", 4)
    assert isinstance(other.exception, ResumeError)
    result = xrv("predict", folder, "--output", tmp_path / "t.csv")
    assert "16 rows were there already" in result.output
    assert (tmp_path / "t.csv").read_bytes() == whole.read_bytes()


@pytest.mark.usefixtures("planted")
def test_shards_are_joined_by_a_command(tmp_path):
    folder = long_run.write_films(tmp_path / "films", 30, damaged=11)
    xrv("predict", folder, "--output", tmp_path / "whole.csv")
    for shard in ("1/3", "3/3", "2/3"):
        result = xrv("predict", folder, "--output", tmp_path / "t.csv", "--shard", shard)
        assert f"xrv join {tmp_path / 't.csv'}" in result.output
    result = xrv("join", tmp_path / "t.csv")
    assert result.exit_code == 1  # for some images failed, as without shards
    assert (tmp_path / "t.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name radiographs"),
        (["a.png", "--shard", "1/2"], "--shard and --overwrite need --output"),
        (["a.png", "--shard", "3/2", "--output", "t.csv"], "shard 3/2 does not exist"),
        (["a.png", "--embeddings"], "--embeddings needs --output"),
    ],
)
def test_usage_is_checked_in_words(arguments, words):
    result = xrv("predict", *arguments)
    assert result.exit_code == 2
    assert words in result.output


@pytest.mark.usefixtures("planted")
def test_progress_is_said_in_lines_where_there_is_no_terminal(tmp_path, monkeypatch):
    monkeypatch.setattr("torchxrayvision.cli.console._LOG_EVERY", 0.0)
    folder = long_run.write_films(tmp_path / "films", 30)
    result = xrv("predict", folder, "--output", tmp_path / "t.csv")
    assert re.search(r"24 of 30 images, [\d.]+ (a|per) second, 0:00:\d\d left", result.output)


@pytest.mark.usefixtures("planted")
def test_reading_in_processes_gives_the_same_bytes(films, tmp_path):
    for name, options in (("a", []), ("b", ["--isolate", "--workers", 1])):
        xrv("predict", films, "--output", tmp_path / f"{name}.csv", *options)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()

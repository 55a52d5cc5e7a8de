"""Checks, segmentations and explanations that are stopped: the same bytes as without the stop."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch

from support import long_run, row_runs
from torchxrayvision.errors import OutputError, ResumeError
from torchxrayvision.inputs import ReadOptions

KINDS = list(row_runs.TABLES)
COUNT = 40


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return long_run.write_films(tmp_path_factory.mktemp("films"), COUNT, damaged=7)


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*")) if path.is_file()
    }  # fmt: skip


@pytest.fixture(scope="module")
def whole(films, tmp_path_factory):
    """Every file of a run that nothing stopped, by kind."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind)
        row_runs.run(kind, films, folder)
        found[kind] = contents(folder)
    yield found
    torch.set_num_threads(threads)


class StoppedError(Exception):
    """What ends a run in these tests."""


def stop_after(batches):
    calls = iter(range(batches))

    def on_progress(done, total):
        if next(calls, None) is None:
            raise StoppedError

    return on_progress


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_stopped_twice_gives_the_same_files(kind, films, whole, tmp_path):
    for batches in (1, 2):
        with pytest.raises(StoppedError):
            row_runs.run(kind, films, tmp_path, on_progress=stop_after(batches))
        assert not (tmp_path / row_runs.TABLES[kind]).exists()
    row_runs.run(kind, films, tmp_path)
    assert contents(tmp_path) == whole[kind]
    assert len(whole[kind]) > (0 if kind == "check" else COUNT)


@pytest.mark.skipif(sys.platform == "win32", reason="kills as POSIX does")
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_gives_the_same_files(kind, films, whole, tmp_path):
    search = [str(Path(row_runs.__file__).parents[1]), *sys.path]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(search)}
    rows = tmp_path / f"{row_runs.TABLES[kind]}.part" / "rows.bin"
    command = [sys.executable, row_runs.__file__, kind, str(films), str(tmp_path), "0.05"]
    rng = random.Random(kind)
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        while not rows.exists() or rows.stat().st_size < 1 + rng.randrange(400):
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.002)
        time.sleep(0.05 * rng.random())
        process.kill()
    assert not (tmp_path / row_runs.TABLES[kind]).exists()
    row_runs.run(kind, films, tmp_path)
    assert contents(tmp_path) == whole[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_results_that_exist_are_refused_unless_that_is_asked_for(kind, films, whole, tmp_path):
    row_runs.run(kind, films / "000", tmp_path)
    before = contents(tmp_path)
    with pytest.raises(OutputError, match="exists already; give --overwrite"):
        row_runs.run(kind, films / "000", tmp_path)
    assert contents(tmp_path) == before
    with pytest.raises(StoppedError):
        row_runs.run(kind, films, tmp_path, overwrite=True, on_progress=stop_after(1))
    with pytest.raises(ResumeError, match="unfinished run with other options"):
        (tmp_path / row_runs.TABLES[kind]).unlink()
        row_runs.run(kind, films / "000", tmp_path)
    row_runs.run(kind, films, tmp_path, overwrite=True)
    assert contents(tmp_path)[row_runs.TABLES[kind]] == whole[kind][row_runs.TABLES[kind]]


@pytest.mark.parametrize("kind", KINDS)
def test_archives_are_read_and_a_decoder_that_dies_costs_one_row(kind, tmp_path):
    film = long_run.write_films(tmp_path / "films", 3)
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as archive:
        for path in sorted(film.rglob("*.png")):
            archive.write(path, path.name)
    shutil.rmtree(film)
    reading = ReadOptions(workers=1, isolate=True)
    row_runs.run(kind, tmp_path / "films.zip", tmp_path / "out", reading=reading)
    table = (tmp_path / "out" / row_runs.TABLES[kind]).read_text()
    assert all(f"films.zip/0000{number}.png" in table for number in range(3))


def test_a_result_that_cannot_be_written_is_a_row(tmp_path):
    """A name as long as file systems allow; and a file where a folder should be."""
    film = long_run.write_films(tmp_path / "films", 2) / "000"
    (film / "00000.png").rename(film / f"{'n' * 245}.png")
    row_runs.run("explain", film, tmp_path / "out")
    assert len(list((tmp_path / "out").glob("nnnn*.png"))) == 2
    (tmp_path / "seg").mkdir()
    (tmp_path / "seg" / "00001").write_text("in the way")
    done, _ = row_runs.run("segment", film, tmp_path / "seg")
    assert (done.total, done.failed) == (2, 1)
    assert "its files cannot be written" in (tmp_path / "seg" / "measures.csv").read_text()


def test_a_run_does_not_count_its_own_files_where_its_table_lies_among_the_films(tmp_path):
    from typer.testing import CliRunner

    from torchxrayvision.cli import app

    films = long_run.write_films(tmp_path / "films", 2, damaged=9)
    (films / "notes.txt").write_text("of a reader")
    done = CliRunner().invoke(app, ["check", str(films), "--output", str(films / "checks.csv")])
    assert "1 file is not PNG, JPEG, JPEG 2000, TIFF, DICOM, BMP or WebP: 1 .txt" in done.stderr

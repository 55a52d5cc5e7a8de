"""What the command does to the programs and files that its output goes to."""

from __future__ import annotations

import os
import subprocess
import sys

import pandas as pd
import pytest
from PIL import Image

from support.synthetic import film

COMMAND = [sys.executable, "-m", "torchxrayvision.cli"]
NAME = "żółć[1].png"


@pytest.fixture
def films(tmp_path):
    Image.fromarray(film(60, 50, 1)).save(tmp_path / NAME)
    return tmp_path


def unread(arguments, folder):
    """Exit code and standard error where nobody reads standard output."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, *arguments], stdout=writing, stderr=subprocess.PIPE, text=True, cwd=folder,
        check=False,
    )  # fmt: skip
    os.close(writing)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["weights", "list"],
        ["predict", NAME, "--weights", "demo"],
        ["check", NAME],
        ["info", NAME],
    ],
    ids=lambda arguments: arguments[0],
)
def test_output_that_nobody_reads_is_no_error(films, arguments):
    code, said = unread(arguments, films)
    assert code == 0
    assert "Broken pipe" not in said
    assert "Traceback" not in said


def test_a_reader_that_goes_early_is_no_error(films):
    names = [NAME] * 200
    command = [*COMMAND, "check", *names]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=films) as running:
        assert NAME in running.stdout.readline().decode()
        running.stdout.close()
        assert running.wait() == 0


def test_other_exit_codes_are_kept_in_a_pipe(films):
    assert unread(["predict"], films)[0] == 2
    assert unread(["nothing"], films)[0] == 2


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_file_name_that_the_console_lacks_is_written_as_utf_8(films, encoding):
    done = subprocess.run(
        [*COMMAND, "predict", NAME, "absent-ł.png", "--weights", "demo"],
        capture_output=True, cwd=films, env={**os.environ, "PYTHONIOENCODING": encoding},
        check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert b"\r" not in done.stdout
    (films / "out.csv").write_bytes(done.stdout)
    assert list(pd.read_csv(films / "out.csv")["path"]) == [NAME, "absent-ł.png"]


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no terminals to be had here")
def test_a_terminal_that_lacks_a_letter_shows_its_number(films):
    terminal, end = os.openpty()
    done = subprocess.run(
        [*COMMAND, "check", NAME], stdout=end, stderr=subprocess.PIPE, cwd=films,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "200"}, check=False,
    )  # fmt: skip
    os.close(end)
    shown = os.read(terminal, 10_000).decode()
    os.close(terminal)
    assert done.returncode in (0, 1), done.stderr
    assert r"\u017c" in shown


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors as POSIX has them")
@pytest.mark.parametrize(
    "words",
    [
        ["check", NAME], ["check", NAME, "--json"], ["check", NAME, "-o", "-"], ["weights", "list"],
        ["info", NAME], ["predict", NAME, "--weights", "demo", "--engine", "torch"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_closed_standard_output_is_said(films, words):
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, *words],
        stderr=subprocess.PIPE, text=True, cwd=films, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "error: standard output is closed" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors as POSIX has them")
def test_a_table_does_not_need_standard_output(films, tmp_path):
    table = tmp_path / "t.csv"
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, "check", NAME, "-o", str(table)],
        stderr=subprocess.PIPE, text=True, cwd=films, check=False,
    )  # fmt: skip
    assert "closed" not in done.stderr
    assert table.read_text().startswith("path,error,verdict")

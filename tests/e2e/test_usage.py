"""What commands refuse before they compute anything: exit code 2 and a line, no traceback."""

from __future__ import annotations

import errno
import os

import pytest

from torchxrayvision import cli

FILE, FOLDER, FREE = "taken.csv", "folder.csv", "new/out"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / FILE).write_text("path,Mass\n")
    (tmp_path / FOLDER).mkdir()
    return tmp_path


@pytest.fixture
def refusal(monkeypatch, capsys):
    """What a command says on standard error when it ends with exit code 2."""

    def run(arguments):
        monkeypatch.setattr("sys.argv", ["xrv", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert ended.value.code == 2, said.err
        assert said.out == ""
        return " ".join(said.err.split())

    return run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predict", "a.png", "--output", FOLDER], "folder.csv is a folder, name a file"),
        (["check", "a.png", "--output", FOLDER], "folder.csv is a folder"),
        (["evaluate", FILE, FILE, "--output", FOLDER], "folder.csv is a folder"),
        (["export", "demo", "--to", "onnx", "--output", FOLDER], "folder.csv is a folder"),
        (["datasets", "export", "nih", "--output", FOLDER], "ends in .parquet"),
        (
            ["segment", "a.png", "--weights", "demo-anatomy", "--out-dir", FILE],
            "taken.csv is a file, name a folder",
        ),
        (
            ["explain", "a.png", "--target", "Mass", "--out-dir", FILE],
            "taken.csv is a file, name a folder",
        ),
        (["phantom", "--out-dir", FILE], "taken.csv is a file, name a folder"),
        (["phantom", "--out-dir", FREE, "--view", "foo"], "has the views PA, AP, L, not 'foo'"),
        (["train", "--config", FILE], "taken.csv: a recipe ends in .toml or .json, not '.csv'"),
        (
            ["explain", "a.png", "--target", "Mass", "--out-dir", FREE, "--animation", "avi"],
            "'avi' is not one of 'gif', 'webp', 'mp4'",
        ),
        (["predict", "a.png", "--device", "foo"], "foo cannot be used here"),
        (
            ["explain", "a.png", "--target", "Mass", "--out-dir", FREE, "--device", "foo"],
            "foo cannot",
        ),
        (
            ["segment", "a.png", "--weights", "demo-anatomy", "--out-dir", FREE, "--device", "foo"],
            "foo cannot be used here",
        ),
        (
            [
                "segment",
                "a.png",
                "--weights",
                "demo-anatomy",
                "--out-dir",
                FREE,
                "--pixel-spacing",
                "-1",
            ],
            "millimetres above 0",
        ),
    ],
)
def test_what_cannot_work_is_refused_first(here, refusal, arguments, said):
    assert said in refusal(arguments)
    assert sorted(p.name for p in here.rglob("*") if p.is_file()) == [FILE]


def test_nothing_is_printed_before_a_run_can_begin(here, refusal):
    arguments = ["predict", "a.png", "--weights", "demo", "--output-kind", "foo"]
    assert "'foo' is not one of 'logit'" in refusal(arguments)


def test_a_fault_of_the_disk_is_one_line(monkeypatch, capsys):
    def full(args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "scores.csv")

    monkeypatch.setattr(cli, "app", full)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: scores.csv: no space left on device\n"


def test_networks_of_other_groups_are_named(here, refusal):
    arguments = ["export", "chestx_det.Foo", "--to", "onnx", "--output", "x.onnx"]
    assert "Known: PSPNet" in refusal(arguments)

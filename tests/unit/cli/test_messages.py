"""What the commands say where a file is not there, or a warning comes from deep below."""

import io
import os
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from support.image_files import png, ramp
from torchxrayvision.cli import app, console, main


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "none.csv", "none.csv"),
        ("predict", ".", "--weights", "demo", "--calibration", "none.json"),
        ("export", "none.pt", "--to", "onnx", "--output", "out.onnx"),
    ],
)
def test_a_file_that_is_not_there_is_said_without_numbers_of_the_system(
    arguments, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["xrv", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: none.")
    assert ": no such file" in said
    assert "Errno" not in said


def test_other_errors_of_the_system_keep_what_they_say(capsys):
    console.show_error(OSError("the archive ends early"))
    console.show_error(PermissionError(13, "Permission denied", "films"))
    assert capsys.readouterr().err.splitlines() == [
        "error: the archive ends early",
        "error: films: permission denied",
    ]


def test_warnings_of_a_report_are_one_line_each(tmp_path, recwarn):
    film = tmp_path / "1.png"
    film.write_bytes(png(ramp(64, 64, 255), 8, 0))
    rows = "".join(f"{i}.png,0.{i % 10}\n" for i in range(1, 41))
    (tmp_path / "p.csv").write_text(f"path,Mass\n{rows}")
    rows = "".join(f"{i}.png,{int(i % 3 == 0)}\n" for i in range(1, 41))
    (tmp_path / "l.csv").write_text(f"path,Mass\n{rows}")
    done = run(
        "evaluate", tmp_path / "p.csv", tmp_path / "l.csv", "--report", tmp_path / "report",
        "--images", film, "--weights", "demo", "--kind", "probability",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "warning: resnet18-res144-demo" in done.stderr
    assert not [w for w in recwarn if "demonstration" in str(w.message)]


@pytest.mark.parametrize("whole", [(), ("finding", "n", "AUROC", "interval")])
def test_no_number_is_cut_where_a_terminal_is_narrow(monkeypatch, whole):
    narrow = Console(width=26, file=io.StringIO())
    monkeypatch.setattr(console, "console", lambda: narrow)
    rows = [["Pleural_Thickening", "1116", "0.765", "0.718 to 0.805"]]
    heads = ["finding", "n", "AUROC", "interval"]
    console.print_table(heads, rows, numbers={"n", "AUROC"}, whole=whole)
    shown = narrow.file.getvalue()
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown
    assert "Pleural_Thickening" in "".join(line[:6].strip() for line in shown.splitlines())
    for number in ("1116", "0.765", "0.718", "0.805"):
        assert number in shown


def test_pictures_that_would_be_read_as_radiographs_are_announced(tmp_path, monkeypatch, capsys):
    films = tmp_path / "films"
    films.mkdir()
    monkeypatch.chdir(films)
    console.note_pictures_among(["a.png", str(tmp_path / "others")], films / "maps")
    console.note_pictures_among([str(films)], tmp_path / "maps")
    assert capsys.readouterr().err == ""
    console.note_pictures_among(["."], Path("maps"))
    assert "warning: maps lies in ., so a later run" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["evaluate", "calibrate"])
def test_a_folder_without_rights_is_refused_before_anything_is_computed(
    tmp_path, monkeypatch, command
):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    option = "--output" if command == "evaluate" else "--to"
    done = run(command, "none.csv", "none.csv", option, tmp_path / "out.csv")
    assert done.exit_code == 2
    assert "cannot be written in" in " ".join(done.stderr.split())

"""The commands of docs/benchmarks.md and docs/covariate-shift.md run, on little data."""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from fakes import chexlocalize, nih
from torchxrayvision.cli import app

DOCS = Path(__file__).parents[2] / "docs"


def lines(page):
    text = (DOCS / page).read_text("utf-8")
    bodies = re.findall(r"^```\n(.*?)^```", text, re.M | re.S)
    return [line for body in bodies for line in body.splitlines() if line.startswith("xrv ")]


def run(line):
    return CliRunner().invoke(app, shlex.split(line)[1:])


@pytest.mark.filterwarnings("ignore::torchxrayvision.errors.DemonstrationWarning")
def test_the_page_of_benchmarks_runs(tmp_path, monkeypatch):
    """Images that need an account are those of fakes; other rows are computed by --partial."""
    monkeypatch.chdir(tmp_path)
    films, marked = nih.build(tmp_path / "nih-data"), chexlocalize.build(tmp_path / "marked")
    done = []
    for line in lines("benchmarks.md"):
        line = re.sub(r" n=\d+ size=\d+", " n=24 size=64", line)
        line = re.sub(r"--model [a-z]+-?\S*", "--model demo", line)
        kwargs = {}
        if " nih-official " in line:
            kwargs = {"--imgpath": films.kwargs["imgpath"]}
            line += f" --partial --with csvpath={films.kwargs['csvpath']} --workers 1"
        if " chexlocalize-valid " in line:
            kwargs = {"--imgpath": marked.kwargs["imgpath"]}
            line += " --partial --workers 1 --method cam"
            for name in ("csvpath", "segmentation_jsonpath"):
                line = re.sub(rf"{name}=\S+", f"{name}={marked.kwargs[name]}", line)
        for option, value in kwargs.items():
            line = re.sub(rf"{option} \S+", f"{option} {value}", line)
        result = run(line)
        assert result.exit_code == 0, f"{line}\n{result.output}"
        done.append(shlex.split(line)[2])
    assert done == ["split", "split", "siim", "nih-official", "chexlocalize-valid", "cross-dataset"]
    table = pd.read_csv("matrix/results.csv")
    assert table["dataset"].nunique() == 3
    assert Path("matrix/results.md").read_text("utf-8").count("\n") == 3
    assert Path("chexlocalize/explanations.csv").is_file()


def test_the_matrix_of_the_page_has_the_form_that_the_command_writes():
    text = (DOCS / "benchmarks.md").read_text("utf-8")
    (line,) = (one for one in lines("benchmarks.md") if " cross-dataset " in one)
    sites = re.findall(r'--on "([^"]+)"', line)
    head = f"| weights | {' | '.join(sites)} |"
    assert head in text
    row = text.split(head)[1].splitlines()[2]
    assert row.startswith("| demo | 0.")
    assert row.count("160 images") == len(sites)


def test_the_command_of_covariate_shift_says_what_it_would_do():
    (line,) = lines("covariate-shift.md")
    result = run(f"{line} --dry-run")
    assert result.exit_code == 0, result.output
    assert "55 small networks" in " ".join(result.output.split())

"""docs/evaluation.md runs from top to bottom: predict, calibrate, apply, evaluate, report."""

import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from torchxrayvision.calibration import Calibration
from torchxrayvision.cli import app
from torchxrayvision.phantom import png_bytes

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"


def blocks(language):
    found = re.findall(r"^```(\w*)\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    return [body for name, body in found if name == language]


@pytest.mark.filterwarnings("ignore::torchxrayvision.errors.DemonstrationWarning")
def test_the_page_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    names = [f"{i:02d}.png" for i in range(64)]
    for name in names:
        noise = rng.normal(size=(5, 5)).repeat(30, axis=0).repeat(30, axis=1)
        image = (400 * noise)[None].clip(-1024, 1024).astype(np.float32)
        (tmp_path / "images" / name).write_bytes(png_bytes(image))
    labels = pd.DataFrame({"path": names, "patientid": np.arange(64)})
    labels["Mass"] = np.arange(64) % 2
    labels["sex"] = np.where(np.arange(64) % 3, "F", "M")
    labels["view"] = np.where(np.arange(64) % 5, "PA", "AP")
    labels.to_csv("labels.csv", index=False)
    said = []
    for line in "".join(blocks("")).splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] != ["xrv"]:
            continue
        if words[1] == "predict":  # with the network in the package, which is small
            words += ["--weights", "demo"]
        result = CliRunner().invoke(app, words[1:], catch_exceptions=False)
        assert result.exit_code == 0, f"{line}\n{result.output}"
        said.append(words[1])
    assert said == [
        "predict", "audit", "calibrate", "predict", "evaluate", "predict", "probe",
    ]  # fmt: skip
    assert Calibration.load("site.json").findings["Mass"].threshold["target"] == "sensitivity"
    names = {}
    for block in blocks("python"):
        block = block.replace('"densenet121-res224-all"', '"demo"')
        exec(compile(block, "evaluation.md", "exec"), names)
    assert names["table"]["measure"].nunique() == 11
    assert set(names["gaps"]["subgroup"]) == {"F"}
    assert {"1", "10", "all"} == set(names["curve"]["per_class"])
    assert Path("probes.svg").stat().st_size > 1000
    assert Path("roc.svg").stat().st_size > 1000
    assert Path("report/index.html").stat().st_size > 50_000

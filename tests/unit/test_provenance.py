"""Every file that a command writes says what made it, and evaluate sees what is mixed."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from support.image_files import png, ramp
from torchxrayvision import provenance
from torchxrayvision.cli import app
from torchxrayvision.errors import EvaluationError
from torchxrayvision.files import Provenance
from torchxrayvision.runs import open_table

MADE = Provenance(command="xrv predict", weights="demo", weights_sha256="ab" * 32, output="logit")
IMAGE = ramp(64, 64, 255).astype(np.uint8)


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def written(folder, name, made=MADE):
    with open_table(folder / name, {"path": "text", "Mass": "float32"}, provenance=made) as table:
        table.write({"path": "1.png", "Mass": 0.5})
    return folder / name


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".json"])
def test_a_table_says_what_made_it(ending, tmp_path):
    path = written(tmp_path, f"t{ending}")
    assert provenance.read(path) == MADE.to_dict()
    beside = tmp_path / f"t{ending}.provenance.json"
    assert beside.exists() is (ending != ".parquet")
    assert MADE.to_dict()["package"].startswith("torchxrayvision ")


@pytest.mark.parametrize("ending", [".csv", ".json"])
def test_a_table_that_was_changed_is_not_what_the_file_beside_it_tells_of(ending, tmp_path):
    path = written(tmp_path, f"t{ending}")
    path.write_text(path.read_text() + "\n")
    assert provenance.read(path) is None
    assert provenance.output_kind(path) is None


def test_a_table_is_never_seen_with_the_provenance_of_the_one_it_replaces(tmp_path):
    path = written(tmp_path, "t.csv")
    other = Provenance(command="xrv predict", output="probability")
    with pytest.raises(KeyboardInterrupt), open_table(path, {"a": "text"}, provenance=other) as new:
        new.write({"a": "x"})
        raise KeyboardInterrupt
    assert provenance.read(path) == MADE.to_dict()


def test_pictures_and_pages_say_what_made_them(tmp_path):
    picture = Image.fromarray(np.zeros((4, 4), np.uint8))
    picture.save(tmp_path / "a.png", pnginfo=provenance.png_text(MADE))
    picture.save(tmp_path / "a.jpg", comment=provenance.jpeg_comment(MADE))
    hostile = Provenance(command='"><script>', options={"&": "'"})
    page = f"<!DOCTYPE html><html><head>{provenance.html_meta(hostile)}</head></html>"
    (tmp_path / "a.html").write_text(page)
    assert provenance.read(tmp_path / "a.png") == MADE.to_dict()
    assert provenance.read(tmp_path / "a.jpg") == MADE.to_dict()
    assert provenance.read(tmp_path / "a.html") == hostile.to_dict()
    assert "<script>" not in (tmp_path / "a.html").read_text()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b'{"command": 1}', b"\xff\xfe", b"[" * 100_000], ids=repr
)
@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.html", "a.png", "a.jpg", "a.parquet"])
def test_what_is_damaged_says_nothing(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    (tmp_path / f"{name}.provenance.json").write_bytes(content)
    assert provenance.read(tmp_path / name) is None


def test_an_absent_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        provenance.read(tmp_path / "absent.csv")


def test_numbers_of_different_kinds_are_not_mixed(tmp_path):
    logits = written(tmp_path, "a.csv")
    again = written(tmp_path, "b.parquet")
    pd.DataFrame({"path": ["1.png"]}).to_csv(tmp_path / "c.csv", index=False)
    assert provenance.refuse_mixed([logits, again, tmp_path / "c.csv"]) == "logit"
    other = Provenance(command="xrv predict", output="probability")
    calibrated = Provenance(
        command="xrv predict", output="logit", calibration={"sha256": "12" * 32}
    )
    for n, made in enumerate((other, calibrated)):
        path = written(tmp_path, f"d{n}.csv", made)
        with pytest.raises(EvaluationError, match=r"different kinds: logit .*a\.csv"):
            provenance.refuse_mixed([logits, again, path])


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for name in "ab":
        (images / f"{name}.png").write_bytes(png(IMAGE, 8, 0))
    return tmp_path


@pytest.mark.filterwarnings("ignore")
def test_commands_write_and_info_shows(folder):
    images, table = folder / "images", folder / "p.csv"
    predict = ["predict", images, "--weights", "demo", "--engine", "torch", "--workers", 1]
    assert run(*predict, "--output", table).exit_code == 0
    made = provenance.read(table)
    assert (made["command"], made["weights"], made["output"]) == (
        "xrv predict", "resnet18-res144-demo", "operating-point",
    )  # fmt: skip
    assert len(made["weights_sha256"]) == 64
    assert made["preprocessing"]["resolution"] == 144
    assert made["inputs"]["images"] == 2
    shown = run("info", table).output
    assert "operating-point" in shown
    assert made["weights_sha256"] in shown.replace("\n", "")
    assert run("check", images, "--workers", 1, "--output", folder / "c.parquet").exit_code in (
        0,
        1,
    )
    assert provenance.read(folder / "c.parquet")["command"] == "xrv check"
    labels = pd.DataFrame({"path": ["a.png", "b.png"], "Effusion": [0, 1]})
    labels.to_csv(folder / "l.csv", index=False)
    assert run("evaluate", table, folder / "l.csv", "--output", folder / "e.csv").exit_code == 0
    evaluated = provenance.read(folder / "e.csv")
    assert evaluated["command"] == "xrv evaluate"
    assert evaluated["weights_sha256"] == made["weights_sha256"]
    told = json.loads(run("info", folder / "l.csv", folder / "e.csv", "--json").output)
    assert told[0]["made_by"].startswith("not said")
    assert told[1]["made_by"] == evaluated


@pytest.mark.filterwarnings("ignore")
def test_maps_and_masks_say_what_made_them(folder):
    image = folder / "images" / "a.png"
    explain = ["explain", image, "--target", "Effusion", "--weights", "demo", "--workers", 1]
    assert run(*explain, "--out-dir", folder / "maps").exit_code == 0
    (picture,) = (folder / "maps").glob("*.png")
    assert provenance.read(picture)["options"]["method"] == "gradcam"
    assert provenance.read(folder / "maps" / "explanations.json")["command"] == "xrv explain"
    segment = ["segment", image, "--weights", "demo-anatomy", "--workers", 1]
    assert run(*segment, "--out-dir", folder / "masks").exit_code == 0
    masks = folder / "masks" / "a"
    for file in (masks / "overlay.jpg", masks / "labels.png", *(masks / "masks").iterdir()):
        assert provenance.read(file)["command"] == "xrv segment", file
    assert provenance.read(folder / "masks" / "measures.csv")["output"] == "mask"
    facts = json.loads(run("info", masks / "labels.png", "--json").output)
    assert facts[0]["made_by"]["weights"] == "unet-res160-demo-anatomy"
    assert facts[0]["height"] == 64


def test_simulated_releases_and_exported_folders_say_what_made_them(tmp_path):
    phantom = run("phantom", "--out-dir", tmp_path / "r", "-n", 2, "--layout", "nih", "--size", 32)
    assert phantom.exit_code == 0, phantom.output
    (table,) = (tmp_path / "r").rglob("Data_Entry*.csv")
    said = provenance.read(table)
    assert said["command"] == "xrv phantom"
    assert said["options"]["layout"] == "nih"
    shown = run("info", table, "--json")
    assert json.loads(shown.stdout)[0]["made_by"]["inputs"] == {"images": 2}

    done = run(
        "datasets", "export", "nih", "--imgpath", tmp_path / "r" / "images", "--with",
        f"csvpath={table}", "--view", "*", "--all-images", "--to", "folder", "--output",
        tmp_path / "out",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    files = sorted((tmp_path / "out").iterdir())
    assert {path.suffix for path in files} == {".png", ".json"}
    for path in files:
        assert provenance.read(path)["inputs"] == {"dataset": "NIH_Dataset", "images": 2}, path

"""`xrv results`: one row per file, objects by name, nothing of a patient outside of them."""

import csv

import pydicom
import pytest
from typer.testing import CliRunner

from support.dicom_results import write
from torchxrayvision.cli import app

pytestmark = pytest.mark.filterwarnings("ignore")


def run(*arguments):
    return CliRunner().invoke(app, ["results", *map(str, arguments)])


def rows(folder):
    with (folder / "results.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


DEMO = ("--weights", "demo", "--segmenter", "demo-anatomy")


def test_one_row_per_file_and_no_word_of_the_header(tmp_path):
    films, out = tmp_path / "films", tmp_path / "out"
    films.mkdir()
    write(films, "german")
    write(films, "PA")
    (films / "scan.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (films / "torn.dcm").write_bytes((films / "PA0.dcm").read_bytes()[:3000])
    result = run(films, "--out-dir", out, "--as", "sr,seg", *DEMO)
    assert result.exit_code == 1
    found = {row["path"].rpartition("/")[2]: row for row in rows(out)}
    assert set(found) == {"german0.dcm", "PA0.dcm", "scan.png", "torn.dcm"}
    assert "no DICOM file" in found["scan.png"]["error"]
    assert found["torn.dcm"]["error"]
    for name in ("german0.dcm", "PA0.dcm"):
        assert found[name]["error"] == ""
        for kind in ("sr", "seg"):
            saved = pydicom.dcmread(out / found[name][kind])
            assert saved.SOPInstanceUID in found[name][kind]
    said = result.output + (out / "results.csv").read_text("utf-8")
    said += " ".join(p.name for p in out.iterdir())
    source = pydicom.dcmread(films / "german0.dcm")
    for word in ("Müller", "Jörg", "A-17", "20240229", source.PatientID, source.StudyInstanceUID):
        assert word not in said
    assert len(list(out.iterdir())) == 5


def test_results_are_replaced_only_when_asked(tmp_path):
    path, out = write(tmp_path, "PA"), tmp_path / "out"
    arguments = (path, "--out-dir", out, "--as", "sr", "--weights", "demo")
    assert run(*arguments).exit_code == 0
    before = sorted(p.name for p in out.iterdir())
    refused = run(*arguments)
    assert refused.exit_code == 2
    assert "--overwrite" in refused.output
    assert run(*arguments, "--overwrite").exit_code == 0
    assert sorted(p.name for p in out.iterdir()) == before


def test_the_default_is_a_report_and_a_picture(tmp_path):
    out = tmp_path / "out"
    assert run(write(tmp_path, "PA"), "--out-dir", out, "--weights", "demo").exit_code == 0
    (row,) = rows(out)
    assert row["sr"].startswith("sr-2.25.")
    assert row["sc"].startswith("sc-2.25.")
    assert "seg" not in row

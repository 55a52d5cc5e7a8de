"""`xrv serve --mercure`: a folder in, a folder out, an exit code."""

import json
import logging

import pydicom
import pytest
from typer.testing import CliRunner

from support.dicom_results import write
from torchxrayvision.cli import app
from torchxrayvision.errors import ConfigError
from torchxrayvision.service.mercure import mercure_config

SETTINGS = {"model": {"weights": "demo"}, "results": {"kinds": ["sr"]}}
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def own_logger():
    """The command logs for its process; this one goes on."""
    logger = logging.getLogger("torchxrayvision.service")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.fixture
def folders(tmp_path):
    found = tmp_path / "in", tmp_path / "out"
    for folder in found:
        folder.mkdir()
    return found


def task(folder, settings=SETTINGS, process=None):
    step = {"module_name": "xrv", "settings": settings}
    (folder / "task.json").write_text(json.dumps({"process": step if process is None else process}))


def run(in_dir, out_dir, monkeypatch):
    monkeypatch.setenv("MERCURE_IN_DIR", str(in_dir))
    monkeypatch.setenv("MERCURE_OUT_DIR", str(out_dir))
    return CliRunner().invoke(app, ["serve", "--mercure"])


def test_results_and_a_summary_are_left(folders, monkeypatch):
    in_dir, out_dir = folders
    task(in_dir)
    frontal = write(in_dir, "german")
    (in_dir / "deeper").mkdir()
    write(in_dir / "deeper", "L")
    result = run(in_dir, out_dir, monkeypatch)
    assert result.exit_code == 0, result.output
    (report,) = out_dir.glob("*.dcm")
    made, source = pydicom.dcmread(report), pydicom.dcmread(frontal)
    assert made.StudyInstanceUID == source.StudyInstanceUID
    assert made.SOPInstanceUID in report.name
    said = json.loads((out_dir / "result.json").read_text())
    assert (said["read"], said["objects"], said["failed"]) == (1, 1, {})
    assert sum(said["refused"].values()) == 1
    assert said["__mercure_notification"]["requested"] is False
    assert {p.name for p in out_dir.iterdir()} == {report.name, "result.json"}
    for word in ("Müller", source.PatientID, source.StudyInstanceUID):
        assert word not in json.dumps(said) + result.output


def test_an_image_that_cannot_be_read_fails_the_task(folders, monkeypatch):
    in_dir, out_dir = folders
    task(in_dir)
    good = write(in_dir, "PA")
    (in_dir / "torn.dcm").write_bytes(good.read_bytes()[:3000])
    (in_dir / "text.txt").write_text("no image")
    (in_dir / "link.dcm").symlink_to(good)
    assert run(in_dir, out_dir, monkeypatch).exit_code == 1
    said = json.loads((out_dir / "result.json").read_text())
    assert said["read"] == 1
    assert sum(said["failed"].values()) == 1
    assert sum(said["refused"].values()) == 1  # which says no modality
    assert said["__mercure_notification"]["requested"] is True
    assert len(list(out_dir.glob("*.dcm"))) == 1


def test_settings_are_those_of_the_step(tmp_path):
    mine = {"gate": {"views": ["PA"]}}
    task(tmp_path, process=[{"settings": {"threshold": 1}}, {"settings": mine}, {"settings": None}])
    assert mercure_config(tmp_path).gate.views == ("PA",)
    for settings, reason in (
        ({"modle": {}}, "no section"),
        ({"model": {"wieghts": "x"}}, "weights"),
        ({"folder": "/etc"}, "no section"),
        ({"results": {"kinds": ["pdf"]}}, "kinds"),
    ):
        task(tmp_path, settings)
        with pytest.raises(ConfigError, match=reason):
            mercure_config(tmp_path)
    for text in ("[" * 100_000, "{", "\xff"):
        (tmp_path / "task.json").write_text(text, "latin-1")
        with pytest.raises(ConfigError, match=r"task\.json"):
            mercure_config(tmp_path)
    for text in ("[]", "{}", '{"process": 3}', '{"process": {"settings": []}}'):
        (tmp_path / "task.json").write_text(text)
        assert mercure_config(tmp_path).results.kinds == ("sr", "sc")


def test_what_is_missing_is_said(folders, monkeypatch):
    in_dir, out_dir = folders
    assert "holds no file" in str(run(in_dir, out_dir, monkeypatch).exception)
    assert "expected a folder" in str(run(in_dir / "gone", out_dir, monkeypatch).exception)
    monkeypatch.delenv("MERCURE_OUT_DIR")
    monkeypatch.delenv("MERCURE_IN_DIR")
    result = CliRunner().invoke(app, ["serve", "--mercure"])
    assert result.exit_code == 2
    assert "MERCURE_IN_DIR" in result.output

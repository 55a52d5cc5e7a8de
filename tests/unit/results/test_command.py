"""`xrv results`: one row per file, objects by name, nothing of a patient outside of them."""

import csv
import dataclasses
import json
import zipfile

import pydicom
import pytest
from typer.testing import CliRunner

from support.dicom_results import calibration_of, write
from torchxrayvision.cli import app
from torchxrayvision.inputs import ReadOptions, expand
from torchxrayvision.models import get_model
from torchxrayvision.results import results_to_folder

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
    assert len(list(out.iterdir())) == 6  # two of each kind, the table and its provenance


def test_a_calibration_is_applied_and_said_and_one_of_other_weights_refused(tmp_path):
    path, out, made = write(tmp_path, "PA"), tmp_path / "out", calibration_of(get_model("demo"))
    made.save(tmp_path / "own.json")
    calibration_of(get_model("demo"), weights_sha256="0" * 64).save(tmp_path / "other.json")
    arguments = (path, "--out-dir", out, "--as", "sr", "--weights", "demo", "--calibration")
    refused = run(*arguments, tmp_path / "other.json")
    assert refused.exit_code != 0
    assert "calibrate anew" in refused.output + str(refused.exception)
    assert not (out / "results.csv").exists()
    result = run(*arguments, tmp_path / "own.json")
    assert result.exit_code == 0, result.output
    (row,) = rows(out)
    assert "Certainty of Finding" in pydicom.dcmread(out / row["sr"]).to_json()
    told = json.loads((out / "results.csv.provenance.json").read_text("utf-8"))
    assert told["calibration"]["sha256"] == made.sha256


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


def numbers(folder):
    """Rows with what each object says, but for times and the folders of the images."""
    found = []
    for row in rows(folder):
        said = {"path": row["path"].rpartition("/")[2], "error": row["error"]}
        for kind in ("sr", "seg"):
            text = json.loads(pydicom.dcmread(folder / row[kind]).to_json()) if row[kind] else {}
            said[kind] = text.get("0040A730", text.get("7FE00010"))
        found.append(said)
    return found


def test_an_interrupted_run_goes_on_and_computes_nothing_twice(tmp_path, reader):
    films = [write(tmp_path, case) for case in ("PA", "AP", "german", "square", "L")]
    whole, out = tmp_path / "whole", tmp_path / "out"
    kinds = ("sr", "seg")
    results_to_folder(films, reader, whole, kinds)

    class StopError(Exception):
        pass

    def stop(done, total):
        if done == 3:
            raise StopError

    with pytest.raises(StopError):
        results_to_folder(films, reader, out, kinds, on_progress=stop)
    assert not (out / "results.csv").exists()
    seen = []
    done = results_to_folder(films, reader, out, kinds, on_progress=lambda d, _: seen.append(d))
    assert (done.total, done.failed, done.resumed) == (5, 0, 3)
    assert seen == [3, 4, 5]
    assert (out / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    assert numbers(out) == numbers(whole)
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in whole.iterdir())


def test_a_run_with_other_options_is_not_resumed(tmp_path, reader):
    from torchxrayvision.errors import ResumeError

    films, out = [write(tmp_path, "PA"), write(tmp_path, "AP")], tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        results_to_folder(films, reader, out, ["sr"], on_progress=interrupt)
    other = dataclasses.replace(reader, mask_threshold=0.7)
    with pytest.raises(ResumeError, match="mask_threshold"):
        results_to_folder(films, other, out, ["sr"])


def interrupt(done, total):
    if done:
        raise KeyboardInterrupt


def test_an_archive_gives_what_its_files_give(tmp_path):
    films, plain, packed = tmp_path / "films", tmp_path / "plain", tmp_path / "packed"
    films.mkdir()
    paths = [write(films, case) for case in ("PA", "AP")]
    with zipfile.ZipFile(tmp_path / "films.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in paths:
            archive.write(path, path.name)
    assert run(films, "--out-dir", plain, "--as", "sr,seg", *DEMO).exit_code == 0
    isolated = ("--isolate", "--workers", "1", "--time-limit", "60")
    command = (tmp_path / "films.zip", "--out-dir", packed, "--as", "sr,seg", *DEMO, *isolated)
    assert run(*command).exit_code == 0
    assert numbers(packed) == numbers(plain)
    assert all(row["sr"] for row in rows(packed))


def test_a_file_that_takes_too_long_is_a_row(tmp_path, reader, monkeypatch):
    import time

    from torchxrayvision.results import reader as module

    slow, quick = write(tmp_path, "PA"), write(tmp_path, "AP")
    read_bytes = module.read_bytes

    def stuck(file, options):
        if file.path == slow:
            time.sleep(3)
        return read_bytes(file, options)

    monkeypatch.setattr(module, "read_bytes", stuck)
    options = ReadOptions(workers=1, time_limit=0.5)
    results_to_folder([slow, quick], reader, tmp_path / "out", ["sr"], reading=options)
    errors = [row["error"] for row in rows(tmp_path / "out")]
    assert errors == ["reading took longer than 0.5 s", ""]


def test_images_in_batches_are_read_as_alone(tmp_path, reader):
    films = [write(tmp_path, case) for case in ("PA", "wide", "inverted")]
    torn = tmp_path / "B.dcm"
    torn.write_bytes(films[0].read_bytes()[:3000])
    several = dataclasses.replace(reader, batch_size=4)
    found = list(several.read_all(expand([*map(str, films[:1]), str(torn), *map(str, films[1:])])))
    assert isinstance(found.pop(1)[1], str)
    for (file, said), film in zip(found, films, strict=True):
        alone = reader.read(film)
        assert file.path == film
        values = [[f.value for f in r.findings] for r in (said, alone)]
        assert values[0] == pytest.approx(values[1], abs=1e-4)
        for name, mask in alone.masks.items():
            assert (mask != said.masks[name]).mean() < 1e-3
        assert said.check == alone.check
        assert said.source.SOPInstanceUID == alone.source.SOPInstanceUID

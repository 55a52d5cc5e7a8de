"""Workers with the demonstration's networks."""

import os
import signal
import warnings

import pydicom
import pytest

from support.dicom_results import calibration_of, write
from torchxrayvision.errors import ServiceError
from torchxrayvision.results import Reader
from torchxrayvision.service import config_of
from torchxrayvision.service.work import Worker, WorkerDiedError
from torchxrayvision.service.worker import ImageWorker, model_version


def config(tmp_path, **sections):
    values = {
        "folder": str(tmp_path / "state"),
        "model": {"weights": "demo", "segmenter": "demo-anatomy"},
        "results": {"kinds": ["sr", "sc", "seg"]},
        "gate": {"screening": "note"},
    }
    return config_of(values | sections)


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what demonstration weights are
        return ImageWorker(config(tmp_path_factory.mktemp("worker")))


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write(tmp_path_factory.mktemp("films"), "japanese")


def test_an_image_becomes_objects_with_uids_of_instance_and_model(worker, film, tmp_path):
    first = worker.answer(str(film), str(tmp_path / "a"))
    again = worker.answer(str(film), str(tmp_path / "b"))
    assert first["outcome"] == "read"
    assert first == again
    assert [o["kind"] for o in first["objects"]] == ["sr", "sc", "seg"]
    source = pydicom.dcmread(film)
    assert first["instance"] == source.SOPInstanceUID
    for said in first["objects"]:
        made = pydicom.dcmread(tmp_path / "a" / said["file"])
        assert made.SOPInstanceUID == said["uid"] == made.file_meta.MediaStorageSOPInstanceUID
        assert made.SOPClassUID == said["sop_class"]
        assert made.StudyInstanceUID == source.StudyInstanceUID
        assert made.PatientName == source.PatientName
        assert said["uid"] != source.SOPInstanceUID
    assert len({o["uid"] for o in first["objects"]}) == 3


def test_the_model_is_networks_files_and_version(worker):
    assert worker.model.startswith("torchxrayvision=")
    for part in ("classifier=resnet18-res144-demo@", "segmenter=unet-res160-demo-anatomy@"):
        assert part in worker.model


VERSIONS = {
    "kinds": {"results": {"kinds": ["sr", "sc"]}},
    "key threshold": {"results": {"kinds": ["sr", "sc", "seg"], "key_threshold": 0.7}},
    "kind of masks": {"results": {"kinds": ["sr", "sc", "seg"], "segmentation_type": "LABELMAP"}},
}


@pytest.mark.parametrize("what", VERSIONS)
def test_an_image_is_answered_anew_when_other_objects_are_asked_for(worker, tmp_path, what):
    version = model_version(worker._reader, config(tmp_path, **VERSIONS[what]))
    assert version != worker.model
    assert version.split()[:3] == worker.model.split()[:3]  # the networks are the same
    same = config(tmp_path, results={"kinds": ["seg", "sr", "sc"]})
    assert model_version(worker._reader, same) == worker.model


@pytest.mark.parametrize(
    "change", [{"mask_threshold": 0.6}, {"upright": True}, {"method": "cam"}, {"targets": ["Mass"]}]
)
def test_an_image_is_answered_anew_by_networks_that_are_asked_otherwise(worker, tmp_path, change):
    import dataclasses

    reader = dataclasses.replace(worker._reader, **change)
    assert model_version(reader, config(tmp_path)) != worker.model


def test_a_calibration_makes_certainties_and_another_version(worker, film, tmp_path):
    calibration_of(worker._reader.classifier).save(tmp_path / "own.json")
    model = {"weights": "demo", "calibration": str(tmp_path / "own.json")}
    settings = config(tmp_path, model=model, results={"kinds": ["sr"]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        calibrated = ImageWorker(settings)
        plain = ImageWorker(config(tmp_path, model={"weights": "demo"}, results={"kinds": ["sr"]}))
    assert " calibration=" in calibrated.model
    assert calibrated.model != plain.model
    texts = {}
    for name, one in (("calibrated", calibrated), ("plain", plain)):
        (said,) = one.answer(str(film), str(tmp_path / name))["objects"]
        texts[name] = pydicom.dcmread(tmp_path / name / said["file"]).to_json(), said["uid"]
    assert "Certainty of Finding" in texts["calibrated"][0]
    assert "Certainty of Finding" not in texts["plain"][0]
    assert texts["calibrated"][1] != texts["plain"][1]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"weights_sha256": "0" * 64}, "calibrate anew"),
     ({"preprocessing": {"resolution": 1}}, "prepared in another way")],
)  # fmt: skip
def test_a_calibration_of_something_else_ends_the_start(worker, tmp_path, wrong, words):
    calibration_of(worker._reader.classifier, **wrong).save(tmp_path / "other.json")
    model = {"weights": "demo", "calibration": str(tmp_path / "other.json")}
    with pytest.raises(ServiceError, match=words):
        Worker(config(tmp_path, model=model, results={"kinds": ["sr"]}))


@pytest.mark.parametrize("kind", ["modality", "view", "screening"])
def test_what_the_rules_refuse_is_not_read(worker, film, tmp_path, kind, monkeypatch):
    gates = {
        "modality": {"modalities": ["CR"]},
        "view": {"views": ["AP"]},
        "screening": {"screening": "refuse"},
    }
    rules = config(tmp_path, gate={"screening": "note", "answer_refused": True} | gates[kind])
    monkeypatch.setattr(worker, "_config", rules)
    if kind == "screening":
        read = Reader.read

        def refused(self, path):
            import dataclasses

            return dataclasses.replace(read(self, path), check="refused: is no chest")

        monkeypatch.setattr(Reader, "read", refused)
    found = worker.answer(str(film), str(tmp_path / "out"))
    assert found["outcome"] == "refused"
    (said,) = found["objects"]
    assert said["kind"] == "refusal"
    report = pydicom.dcmread(tmp_path / "out" / said["file"])
    named = {item.ConceptNameCodeSequence[0].CodeMeaning: item for item in report.ContentSequence}
    (comment,) = named["Qualitative Evaluations"].ContentSequence
    assert comment.ConceptNameCodeSequence[0].CodeMeaning == "Comment"
    assert comment.TextValue == found["reason"]
    assert found["reason"] not in str(named["Imaging Measurements"])
    assert report.StudyInstanceUID == pydicom.dcmread(film).StudyInstanceUID
    rules = config(tmp_path, gate={"screening": "note"} | gates[kind])
    monkeypatch.setattr(worker, "_config", rules)
    found = worker.answer(str(film), str(tmp_path / "silent"))
    assert (found["outcome"], found["objects"]) == ("refused", [])
    assert not (tmp_path / "silent").exists()


def test_damage_is_a_failure_that_quotes_nothing(worker, film, tmp_path):
    data = film.read_bytes()
    for number, damaged in enumerate((b"", b"x" * 4000, data[:400], data[:-4000])):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(damaged)
        found = worker.answer(str(path), str(tmp_path / f"out{number}"))
        assert found["outcome"] in ("failed", "refused"), number
        assert "Yamada" not in str(found)
        assert not (tmp_path / f"out{number}").exists()
    assert worker.answer(str(tmp_path / "absent"), "x")["outcome"] == "failed"


def test_a_worker_is_a_process_that_may_be_killed(film, tmp_path):
    worker = Worker(config(tmp_path, results={"kinds": ["sr"]}))
    try:
        asked = {"file": str(film), "folder": str(tmp_path / "one")}
        worker.ask([asked, asked | {"folder": str(tmp_path / "two")}])
        assert worker.answer(60)["outcome"] == "read"
        assert worker.answer(60)["outcome"] == "read"
        os.kill(worker._process.pid, signal.SIGKILL)
        with pytest.raises(WorkerDiedError, match="signal 9"):
            worker.answer(60)
    finally:
        worker.close()


def test_a_worker_that_takes_too_long_is_ended(film, tmp_path):
    worker = Worker(config(tmp_path, results={"kinds": ["sr"]}))
    try:
        with pytest.raises(WorkerDiedError, match=r"longer than 0\.05 s"):
            worker.answer(0.05)
        assert worker._process.poll() is not None
    finally:
        worker.close()


def test_a_network_that_does_not_exist_is_an_error_of_the_service(tmp_path):
    with pytest.raises(ServiceError, match="nothing-of-that-name"):
        Worker(
            config(tmp_path, model={"weights": "nothing-of-that-name"}, results={"kinds": ["sr"]})
        )

import stat

import pytest

from support.service_runs import file_of, image, send, settled, until
from torchxrayvision.errors import ImageReadError, OverloadError, ServiceError
from torchxrayvision.service import Service, config_of, drain, retry, status


def test_an_image_comes_in_and_results_arrive_and_are_asked_for(running, archive):
    service = running(results={"kinds": ["sr", "sc"]}, targets=[archive.target()])
    assert send(service.port, image(1), image(2)) == [0, 0]
    assert settled(service)
    assert service.queue.counts()["delivered"] == 2
    assert len(archive.held) == 4
    assert len(archive.stored) == 4
    assert service.queue.delivery_counts() == {("archive", "done"): 2}


def test_an_instance_is_answered_once_however_often_it_is_sent(running, archive, fake_worker):
    service = running(targets=[archive.target()])
    for _ in range(3):
        assert send(service.port, image(1), image(1)) == [0, 0]
    assert settled(service)
    assert send(service.port, image(1)) == [0]
    assert not service.accept(image(1), "stow").new
    assert settled(service)
    assert len(fake_worker.read) == 1
    assert len(archive.stored) == 2
    assert service.metrics.value("received", origin="cstore", outcome="known") == 6


def test_results_have_the_same_uids_after_a_lost_record(running, archive, settings, tmp_path):
    service = running(targets=[archive.target()])
    send(service.port, image(1))
    assert settled(service)
    service.stop()
    before = set(archive.held)
    for file in (tmp_path / "state").glob("queue.sqlite*"):
        file.unlink()
    service = running(targets=[archive.target()])
    send(service.port, image(1))
    assert settled(service)
    assert set(archive.held) == before


def test_only_one_service_runs_in_a_folder(running, settings):
    service = running()
    with pytest.raises(ServiceError, match="another service runs"):
        Service(config_of(settings))
    assert not service.not_ready()


def test_folders_and_files_are_private_and_named_by_the_service(running, tmp_path):
    service = running(targets=[{"name": "a", "kind": "dicom", "host": "127.0.0.1", "port": 9,
                                "aet": "A"}])  # fmt: skip
    service.accept(image(1, PatientName="Marker^Planted"), "stow")
    assert until(lambda: service.queue.counts()["produced"])
    paths = list((tmp_path / "state").rglob("*"))
    assert len(paths) > 6
    for path in paths:
        private = stat.S_IMODE(path.stat().st_mode) & 0o077
        if path.parent.parent.name != "out" and "out" not in path.parts:
            assert not private, path
        text = str(path.relative_to(tmp_path))
        assert "Marker" not in text
        assert "1.2.3" not in text


def test_no_word_of_a_header_is_logged_or_recorded(running, archive, events, tmp_path):
    service = running(targets=[archive.target()])
    words = {"PatientName": "Marker^Planted", "PatientID": "MRN-4711", "AccessionNumber": "ACC-1"}
    send(service.port, image(1, **words), image(2, BodyPartExamined="REFUSED", **words))
    send(service.port, image(3, BodyPartExamined="FAILED", **words))
    service.accept(image(4, Modality="MARKER", **words), "stow")
    assert settled(service)
    service.stop()
    said = str(events())
    held = b"".join(f.read_bytes() for f in (tmp_path / "state").glob("queue*"))
    for word in ("Marker", "MARKER", "Planted", "MRN-4711", "ACC-1", "1.2.3.4."):
        assert word not in said, word
        assert word.encode() not in held, word


def test_refused_and_failed_images_are_recorded_with_reasons(running, settings):
    service = running()
    send(service.port, image(1, BodyPartExamined="REFUSED"), image(2, BodyPartExamined="FAILED"))
    assert settled(service)
    assert service.queue.counts()["refused"] == 1
    found = status(config_of(settings))
    assert {row["reason"] for row in found["troubles"]} == {"as planted"}
    assert found["jobs"]["failed"] == 1
    assert found["model"] == service.model
    assert retry(config_of(settings)) == 1
    assert until(lambda: service.queue.counts()["failed"])


def test_an_image_that_kills_workers_costs_nobody_else_anything(running, fake_worker):
    service = running(work={"batch_size": 4})
    names = ["OK", "OK", "CRASH", "OK", "OK", "OK"]
    sent = [image(n, BodyPartExamined=part) for n, part in enumerate(names)]
    assert send(service.port, *sent) == [0] * 6
    assert settled(service)
    assert service.queue.counts()["delivered"] == 5
    assert service.queue.counts()["failed"] == 1
    assert fake_worker.read.count("1.2.3.4.2") == 2
    assert service.metrics.value("worker_deaths") == 2


def test_a_full_queue_answers_out_of_resources_and_takes_more_later(running):
    service = running(limits={"waiting": 2, "free_bytes": 0}, work={"batch_size": 1})
    sent = [image(n, BodyPartExamined="SLOW") for n in range(6)]
    statuses = send(service.port, *sent)
    assert set(statuses) == {0, 0xA700}
    assert service.not_ready() or settled(service)
    assert settled(service)
    assert service.queue.counts()["delivered"] == statuses.count(0)
    again = send(service.port, *sent[:2])
    assert again == [0, 0]


def test_a_full_disk_and_a_read_only_folder_lose_nothing(running, monkeypatch, events):
    import errno
    import os

    service = running()
    assert send(service.port, image(1)) == [0]
    real = os.fsync

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert send(service.port, image(2)) == [0xA700]
    monkeypatch.setattr(os, "fsync", real)
    opened = os.open

    def read_only(path, flags, *more, **others):
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, "Read-only file system")
        return opened(path, flags, *more, **others)

    monkeypatch.setattr(os, "open", read_only)
    assert send(service.port, image(3)) == [0xA700]
    monkeypatch.setattr(os, "open", opened)
    assert send(service.port, image(2), image(3)) == [0, 0]
    assert settled(service)
    assert service.queue.counts()["delivered"] == 3
    assert len(events("overload")) == 2
    left = list((service.config.folder / "in").rglob("*.dcm*"))
    assert len(left) <= 3


def test_limits_of_size_spool_and_disk(running):
    service = running(limits={"object_bytes": 2000, "free_bytes": 0})
    with pytest.raises(OverloadError, match="object_bytes"):
        service.accept(image(1, PixelData=bytes(4000)), "stow")
    service.stop()
    service = running(limits={"free_bytes": 1 << 60})
    with pytest.raises(OverloadError, match="free_bytes"):
        service.accept(image(1), "stow")
    assert "free_bytes" in service.not_ready()
    service.stop()
    service = running(limits={"spool_bytes": 1024, "free_bytes": 0})
    with pytest.raises(OverloadError, match="spool_bytes"):
        service.accept(image(1, PixelData=bytes(4000)), "stow")


def test_what_is_no_dicom_is_refused_with_an_error(running):
    service = running()
    for data in (b"", b"x" * 5000, b"\0" * 128 + b"DICM", image(1)[:140]):
        with pytest.raises(ImageReadError):
            service.accept(data, "stow")
    made = file_of_uid("../../../etc/passwd")
    with pytest.raises(ImageReadError, match="no UID"):
        service.accept(made, "stow")
    assert service.queue.waiting() == 0


def file_of_uid(uid):
    import warnings
    from io import BytesIO

    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = pydicom.dcmread(BytesIO(image(1)))
        made.SOPInstanceUID = uid
        return file_of(made)


def test_another_instance_than_announced_is_not_answered(running):
    service = running()
    key_file = image(5)
    service._accept_named(key_file, "1.2.3.4.6", "cstore")
    assert settled(service)
    (trouble,) = service.queue.troubles()
    assert trouble["reason"] == "it is another instance than announced"


def test_a_drained_service_takes_nothing_more_and_ends(running, archive, settings):
    service = running(targets=[archive.target()])
    send(service.port, image(1))
    drain(config_of(settings))
    assert service.stopping.wait(10)
    assert len(archive.held) == 2
    assert service.queue.unfinished() == 0
    with pytest.raises(OverloadError):
        service.accept(image(2), "stow")
    service.stop()
    drain(config_of(settings), wanted=False)
    service = running(targets=[archive.target()])
    assert service.accept(image(2), "stow").new


def test_what_a_killed_service_left_is_swept_and_what_waits_is_read(running, tmp_path):
    service = running()
    service.stop()
    folder = tmp_path / "state"
    for name in ("in/aa/orphan.dcm", "out/bb/orphan/sr0.dcm"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    service = running()
    assert not (folder / "in/aa/orphan.dcm").exists()
    assert not (folder / "out/bb/orphan").exists()


def test_files_are_removed_when_everybody_has_them(running, archive):
    service = running(targets=[archive.target()])
    send(service.port, image(1))
    assert settled(service)
    service.tidy()
    assert service.queue.files() == set()
    assert not list((service.config.folder / "in").rglob("*.dcm"))
    assert not list((service.config.folder / "out").rglob("*.dcm"))
    assert service.spool.bytes == 0
    assert send(service.port, image(1)) == [0]
    assert service.queue.waiting() == 0


def test_metrics_are_those_that_prometheus_reads(running, archive):
    service = running(targets=[archive.target()])
    send(service.port, image(1))
    assert settled(service)
    text = service.metrics_text()
    assert 'xrv_jobs{state="delivered"} 1\n' in text
    assert 'xrv_target_deliveries{state="done",target="archive"} 1\n' in text or (
        'xrv_target_deliveries{target="archive",state="done"} 1\n' in text
    )
    assert 'xrv_read_total{outcome="read"} 1\n' in text
    assert "xrv_ready 1\n" in text
    assert f'xrv_model_info{{model="{service.model}"}} 1\n' in text
    for line in text.splitlines():
        assert line.startswith("# ") or line.rsplit(" ", 1)[1].replace(".", "").isdigit(), line


def test_a_queue_that_cannot_be_written_takes_nothing_and_leaves_nothing(running, monkeypatch):
    import sqlite3

    service = running()

    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(service.queue, "add", full)
    assert send(service.port, image(1)) == [0xA700]
    assert not list((service.config.folder / "in").rglob("*.dcm"))
    monkeypatch.undo()
    assert send(service.port, image(1)) == [0]
    assert settled(service)

"""From a modality through the service into a real archive, while everything fails that can."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter

import pydicom
import pytest
import requests
from dicomweb_client.api import DICOMwebClient

from support.orthanc import FaultyProxy, Orthanc, findscu, free_ports, needs_orthanc, storescu
from support.service_runs import send_raw
from torchxrayvision.phantom import simulate, write_dicom
from torchxrayvision.service import config_of, status

pytestmark = [
    pytest.mark.orthanc,
    needs_orthanc,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SIZE = 256


def films(folder, count, first=0):
    """So many radiographs, each of a study of its own; eight different pictures."""
    made = [simulate(n, size=SIZE, views=["PA"], findings={"Effusion": 0.7}) for n in range(8)]
    found = {}
    for number in range(first, first + count):
        path = folder / f"{number}.dcm"
        dataset = write_dicom(path, made[number % 8], seed=16, number=number)
        dataset.StudyInstanceUID = f"1.2.826.0.1.3680043.10.999.{number + 1}"
        dataset.AccessionNumber = f"A{number}"
        dataset.PatientName = f"Planted^Name{number}"
        dataset.save_as(path)
        found[path] = dataset.StudyInstanceUID
    return found


class ServiceProcess:
    """`xrv serve` as a process that may be killed and started again."""

    def __init__(self, folder, **sections):
        self.port, self.http_port = free_ports(2)
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "token").write_text("a token of the test")
        (folder / "token").chmod(0o600)
        self.values = {
            "folder": str(folder / "state"),
            "model": {"weights": "demo", "segmenter": "demo-anatomy"},
            "results": {"kinds": ["sr", "sc", "seg"]},
            "receive": {"port": self.port, "peers": [{"aet": "MODALITY", "host": "127.0.0.1"}]},
            "http": {"port": self.http_port, "token_file": str(folder / "token")},
            "deliver": {"first_wait": 0.2, "longest_wait": 2.0, "time_limit": 20.0},
            "limits": {"free_bytes": 0},
        } | sections
        self.toml = folder / "serve.toml"
        self.toml.write_text(to_toml(self.values))
        self.log = folder / "serve.log"
        self.process = None

    def start(self):
        self.before = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "torchxrayvision", "serve", "--config", self.toml],
                stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            assert self.process.wait(60) == 0
        self.process = None

    def ready(self, seconds=120):
        """Wait until this life has started; whether it did."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if any(line["event"] == "started" for line in self.events(self.before)):
                return True
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            time.sleep(0.05)
        return False

    def stow(self, paths):
        """Send by STOW-RS; whether all were taken."""
        session = requests.Session()
        session.headers["Authorization"] = "Bearer a token of the test"
        url = f"http://127.0.0.1:{self.http_port}"
        client = DICOMwebClient(url, session=session, chunk_size=1 << 30, timeout=60)
        client.set_http_retry_params(retry=False)
        try:
            answer = client.store_instances([pydicom.dcmread(path) for path in paths])
        except requests.RequestException:
            return False
        finally:
            session.close()
        return len(answer.get("ReferencedSOPSequence", ())) == len(paths)

    def events(self, start=0):
        lines = self.log.read_bytes()[start:].decode().splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def status(self):
        return status(config_of(self.values))


def to_toml(values, name=""):
    """TOML of nested dictionaries."""
    plain, below = [], []
    for key, value in values.items():
        whole = f"{name}.{key}" if name else key
        if isinstance(value, dict):
            below.append(f"[{whole}]\n{to_toml(value, whole)}")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            below += [f"[[{whole}]]\n{to_toml(one, whole)}" for one in value]
        else:
            plain.append(f"{key} = {json.dumps(value)}")
    return "\n".join([*plain, *below]) + "\n"


@pytest.fixture
def orthanc(tmp_path):
    found = Orthanc(tmp_path / "orthanc").start()
    yield found
    found.stop()


def web(url):
    return {"name": "archive", "kind": "dicomweb", "url": f"{url}/dicom-web", "verify_after": 0.1}


def settle(service, seconds):
    """Wait until everything is delivered."""
    until = time.monotonic() + seconds
    while True:
        jobs = service.status()["jobs"]
        left = jobs["received"] + jobs["working"] + jobs["produced"]
        if not left or time.monotonic() > until:
            return jobs
        time.sleep(0.5)


@pytest.mark.timeout(1800)
def test_every_film_is_answered_once_although_all_fails_that_can(tmp_path, orthanc):
    """20 kills of the service, two restarts of the archive, STOW that fails at random."""
    rng = random.Random(16)
    studies = films(tmp_path / "films", 200)
    paths = list(studies)
    for at in range(0, 200, 50):
        storescu(orthanc.dicom_port, *paths[at : at + 50], aet="ORTHANC")
    proxy = FaultyProxy(orthanc.url, share=0.4, seed=16)
    service = ServiceProcess(tmp_path / "service", targets=[web(proxy.url)])
    acknowledged = threading.Event()

    def modality():
        """Half by C-STORE, half by STOW, again until everything was acknowledged."""
        left = [(paths[at : at + 10], at % 20 == 0) for at in range(0, 200, 10)]
        while left:
            chunk, by_stow = left.pop(0)
            sent = service.stow(chunk) if by_stow else storescu(service.port, *chunk, check=False)
            if not sent:
                left.append((chunk, by_stow))
                time.sleep(0.2)
        acknowledged.set()

    sender = threading.Thread(target=modality, daemon=True)
    service.start()
    sender.start()
    for kill in range(20):
        # Some lives end before they have begun to listen, most after some work.
        if kill % 5:
            assert service.ready()
        time.sleep(rng.uniform(0.0, 4.0))
        service.kill()
        if kill in (6, 13):
            orthanc.restart()
        service.start()
    assert acknowledged.wait(300)
    until = time.monotonic() + 300
    while min(proxy.failed.values()) < 3 and time.monotonic() < until:
        time.sleep(0.2)
    proxy.share = 0.0
    jobs = settle(service, 900)
    service.stop()
    proxy.close()
    assert jobs == {**dict.fromkeys(jobs, 0), "delivered": 200}
    assert all(proxy.failed.values()), proxy.failed
    found = orthanc.studies()
    assert set(found) == set(studies.values())
    wanted = Counter({"DX": 1, "SR": 1, "OT": 1, "SEG": 1})
    for uid, instances in found.items():
        assert Counter(modality for modality, _ in instances) == wanted, uid
    some = rng.sample(sorted(found), 5)
    assert [findscu(orthanc.dicom_port, uid) for uid in some] == [5] * 5
    check_objects(orthanc, found, {uid: path for path, uid in studies.items()}, some)
    check_silence(service)


def check_objects(orthanc, found, sources, some):
    """References and identity of the objects of some studies."""
    for uid in some:
        source = pydicom.dcmread(sources[uid], stop_before_pixels=True)
        for modality, instance in found[uid]:
            made = pydicom.dcmread(io.BytesIO(orthanc.file(instance)))
            assert made.PatientName == source.PatientName
            assert made.AccessionNumber == source.AccessionNumber
            if modality == "SR":
                (study,) = made.CurrentRequestedProcedureEvidenceSequence
                (series,) = study.ReferencedSeriesSequence
                (image,) = series.ReferencedSOPSequence
                assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID
            if modality != "DX":
                assert made.SeriesInstanceUID != source.SeriesInstanceUID


def check_silence(service):
    """No name in logs, file names or the database."""
    log = service.log.read_bytes()
    held = b"".join(f.read_bytes() for f in (service.folder / "state").glob("queue*"))
    names = "".join(str(f) for f in (service.folder / "state").rglob("*"))
    for text in (log, held, names.encode()):
        assert b"Planted" not in text
        assert b"1.2.826.0.1.3680043.10.999" not in text


@pytest.mark.timeout(600)
def test_c_store_to_an_archive_that_is_asked_by_c_find(tmp_path, orthanc):
    studies = films(tmp_path / "films", 6, first=500)
    storescu(orthanc.dicom_port, *studies, aet="ORTHANC")
    target = {"name": "archive", "kind": "dicom", "host": "127.0.0.1", "aet": "ORTHANC"}
    service = ServiceProcess(
        tmp_path / "service", targets=[target | {"port": orthanc.dicom_port, "verify_after": 0.1}]
    )
    service.start()
    assert service.ready()
    orthanc.stop()
    storescu(service.port, *studies)
    time.sleep(3)
    orthanc.start()
    jobs = settle(service, 120)
    assert jobs["delivered"] == 6
    service.stop()
    for uid, instances in orthanc.studies().items():
        assert [modality for modality, _ in instances] == ["DX", "OT", "SEG", "SR"], uid
        assert findscu(orthanc.dicom_port, uid) == 5


@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")  # of pydicom, on the side that sends
def test_a_thousand_malformed_datasets_leave_the_service_up_and_are_all_recorded(tmp_path):
    """Cut, flipped and overwritten datasets, declared lengths that lie, then a good film."""
    rng = random.Random(5)
    (path,) = films(tmp_path / "films", 1, first=900)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    stream = io.BytesIO()
    dataset.preamble = None
    del dataset.file_meta
    dataset.save_as(stream, implicit_vr=False, little_endian=True)
    good = stream.getvalue()
    header = good.index(b"\xe0\x7f\x10\x00")
    service = ServiceProcess(
        tmp_path / "service", results={"kinds": ["sr"]}, model={"weights": "demo"}
    )
    service.start()
    assert service.ready()
    process = service.process.pid
    taken = 0
    for first in range(0, 1000, 100):
        batch = [
            (f"1.2.826.0.1.3680043.10.997.{number}", malformed(good, header, rng))
            for number in range(first, first + 100)
        ]
        taken += send_raw(service.port, *batch, calling="MODALITY").count(0)
    storescu(service.port, path)
    jobs = settle(service, 600)
    assert service.process.poll() is None
    assert service.process.pid == process
    assert taken > 900
    assert sum(jobs.values()) == taken + 1
    assert jobs["delivered"] >= 1
    assert jobs["failed"] > 500
    service.stop()
    check_silence(service)


def malformed(good, header, rng):
    data = bytearray(good)
    way = rng.randrange(4)
    if way == 0:
        del data[rng.randrange(2, header + 2000) :]
    elif way == 1:
        for _ in range(rng.randrange(1, 30)):
            data[rng.randrange(header)] = rng.randrange(256)
    elif way == 2:
        at = rng.randrange(header)
        data[at : at + 8] = rng.randbytes(8)
    else:
        at = rng.randrange(header)
        data[at:at] = rng.randbytes(rng.randrange(1, 200))
    return bytes(data) + b"\0" * (len(data) % 2)

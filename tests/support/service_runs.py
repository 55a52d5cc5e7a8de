"""A service in the test's own process: small objects, a worker without networks, an archive."""

import socket
import time
from io import BytesIO
from pathlib import Path
from typing import ClassVar

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from torchxrayvision.errors import ImageReadError
from torchxrayvision.service import work
from torchxrayvision.service.gate import read_gate_header
from torchxrayvision.service.worker import result_uid

CR = "1.2.840.10008.5.1.4.1.1.1"
SC = "1.2.840.10008.5.1.4.1.1.7"
MODEL = "fake=1"


def image(number=0, study="1.2.3", **values):
    """A small DICOM object, as the bytes of a file."""
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = CR, f"1.2.3.4.{number}"
    made.StudyInstanceUID, made.SeriesInstanceUID = study, f"{study}.1"
    made.Modality, made.BodyPartExamined, made.ViewPosition = "CR", "CHEST", "PA"
    made.PatientName, made.PatientID = "Planted^Marker", "PLANTED-ID"
    made.Rows = made.Columns = 2
    made.BitsAllocated = made.BitsStored = 8
    for name, value in values.items():
        setattr(made, name, value)
    return file_of(made)


def file_of(made):
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    stream = BytesIO()
    made.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


class FakeWorker:
    """Answers as a worker does, without networks; what it meets in a body part it obeys."""

    read: ClassVar = []

    def __init__(self, config):
        self.model = MODEL
        self.config = config
        self.images = []

    def ask(self, images):
        self.images += images

    def answer(self, seconds):
        asked = self.images.pop(0)
        try:
            header = read_gate_header(Path(asked["file"]).read_bytes(), 1 << 20)
        except ImageReadError as error:
            return {"outcome": "failed", "reason": error.reason, "objects": [], "instance": ""}
        type(self).read.append(header.instance)
        word = header.body_part
        if word == "CRASH":
            raise work.WorkerDiedError("signal 11")
        if word == "SLOW":
            time.sleep(0.2)
        if word in ("REFUSED", "FAILED"):
            said = {"outcome": word.lower(), "reason": "as planted", "objects": []}
            return said | {"instance": header.instance}
        try:
            objects = self._objects(asked, header.instance)
        except Exception as error:  # noqa: BLE001 - as a worker does
            said = {"outcome": "failed", "reason": type(error).__name__, "objects": []}
            return said | {"instance": header.instance}
        return {"outcome": "read", "instance": header.instance, "reason": "", "objects": objects}

    def _objects(self, asked, instance):
        source = pydicom.dcmread(asked["file"])
        folder = Path(asked["folder"])
        folder.mkdir(parents=True)
        objects = []
        for kind in self.config.results.kinds:
            made = Dataset()
            made.SOPClassUID = SC
            made.SOPInstanceUID = result_uid(instance, MODEL, kind, 0)
            made.StudyInstanceUID = source.StudyInstanceUID
            made.SeriesInstanceUID = f"{source.StudyInstanceUID}.9"
            made.PatientName = source.PatientName
            (folder / f"{kind}0.dcm").write_bytes(file_of(made))
            facts = {"kind": kind, "file": f"{kind}0.dcm", "sop_class": SC}
            objects.append(facts | {"uid": str(made.SOPInstanceUID)})
        return objects

    def close(self):
        pass


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def until(condition, seconds=10.0):
    """Wait for something; whether it came."""
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return found


def settled(service, seconds=10.0):
    return until(lambda: not service.queue.unfinished(), seconds)


def send(port, *files, aet="XRV", calling="SENDER"):
    """Statuses of C-STORE requests, one per file."""
    from pynetdicom import AE

    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
    for sop_class in (CR, SC):
        ae.add_requested_context(sop_class)
    association = ae.associate("127.0.0.1", port, ae_title=aet)
    if not association.is_established:
        return None
    statuses = [
        association.send_c_store(pydicom.dcmread(BytesIO(data))).get("Status") for data in files
    ]
    association.release()
    return statuses


class Archive:
    """An archive that speaks C-STORE and C-FIND, and may be told to fail."""

    def __init__(self):
        from pynetdicom import AE, evt

        self.stored = []
        self.held = {}
        self.status = []  # of the next requests; 0 afterwards
        self.forget = 0  # so many objects are acknowledged and not kept
        ae = AE(ae_title="ARCHIVE")
        for sop_class in (SC, "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.1.1"):
            ae.add_supported_context(sop_class)
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_C_FIND, self._find)]
        self.server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port = self.server.server_address[1]

    def _store(self, event):
        status = self.status.pop(0) if self.status else 0
        if not status:
            uid = str(event.request.AffectedSOPInstanceUID)
            self.stored.append(uid)
            if self.forget:
                self.forget -= 1
            else:
                self.held[uid] = event.dataset
        return status

    def _find(self, event):
        wanted = event.identifier.SOPInstanceUID
        if wanted in self.held:
            found = Dataset()
            found.QueryRetrieveLevel, found.SOPInstanceUID = "IMAGE", wanted
            yield 0xFF00, found

    def target(self, **more):
        place = {"host": "127.0.0.1", "port": self.port, "aet": "ARCHIVE"}
        return {"name": "archive", "kind": "dicom", "verify_after": 0.0} | place | more


def send_raw(port, *messages, aet="XRV", calling="SENDER", sop_class=CR):
    """Statuses of C-STORE requests whose (UID, dataset) are any bytes; None where none came."""
    from pynetdicom import AE
    from pynetdicom.dimse_primitives import C_STORE

    ae = AE(ae_title=calling)
    ae.dimse_timeout = ae.network_timeout = 10
    ae.add_requested_context(sop_class, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", port, ae_title=aet)
    statuses = []
    for number, (uid, data) in enumerate(messages, start=1):
        if not association.is_established:
            statuses.append(None)
            continue
        request = C_STORE()
        request.MessageID, request.Priority = number % 60_000 + 1, 2
        request.AffectedSOPClassUID = sop_class
        request.AffectedSOPInstanceUID = uid
        request.DataSet = BytesIO(data)
        association._reactor_checkpoint.clear()
        while not association._is_paused:
            time.sleep(0.001)
        association.dimse.send_msg(request, 1)
        _, answer = association.dimse.get_msg(block=True)
        association._reactor_checkpoint.set()
        statuses.append(None if answer is None else answer.Status)
    if association.is_established:
        association.release()
    return statuses

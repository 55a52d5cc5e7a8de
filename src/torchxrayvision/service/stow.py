"""STOW-RS: objects out of a request as it comes in, and the answer that names each of them.

Source:
    DICOM PS3.18 section 10.5 (Store transaction), annex F (JSON), PS3.19 annex A (XML).
"""

from __future__ import annotations

import io
import json
import logging
import threading
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from torchxrayvision.errors import ImageReadError, OverloadError, RequestError
from torchxrayvision.images import silence_decoders
from torchxrayvision.service.gate import is_uid
from torchxrayvision.service.receive import STORAGE_CLASSES, transfer_syntaxes

if TYPE_CHECKING:
    from collections.abc import Callable

# Failure Reason (0008,1197), PS3.18 table 10.5.3-2 and PS3.4 table B.2-1.
PROCESSING_FAILURE: Final = 0x0110
CLASS_NOT_SUPPORTED: Final = 0x0122
OUT_OF_RESOURCES: Final = 0xA700
OTHER_STUDY: Final = 0xA900
CANNOT_UNDERSTAND: Final = 0xC000
SYNTAX_NOT_SUPPORTED: Final = 0xC122

_DICOM: Final = "application/dicom"
_PREAMBLE: Final = 132
_META_BYTES: Final = 65_536
_HEADER_BYTES: Final = 1 << 20  # in which the study of an object must be said
_PART_HEADERS: Final = 4096  # bytes of the headers of one part
_DEFLATED: Final = "1.2.840.10008.1.2.1.99"
_IMPLICIT: Final = "1.2.840.10008.1.2"
_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
_STUDY: Final = 0x0020000D

_silent = logging.Logger("python_multipart")
_silent.addHandler(logging.NullHandler())


class Memory:
    """Bytes that all requests together may hold; safe on any thread.

    Args:
        most: How many.
    """

    def __init__(self, most: int) -> None:
        self._left = most
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        """Count bytes that are about to be held.

        Args:
            size: How many.

        Raises:
            OverloadError: If they are too many for now.
        """
        with self._lock:
            if size > self._left:
                msg = "too many requests at the same time"
                raise OverloadError(msg)
            self._left -= size

    def give(self, size: int) -> None:
        """Count bytes that are no longer held.

        Args:
            size: How many.
        """
        with self._lock:
            self._left += size


class Part(NamedTuple):
    """One object of a request.

    Args:
        data: Its bytes; empty after a failure.
        failure: Failure Reason, or 0.
        held: Bytes that `Memory` counts for it.
    """

    data: bytes
    failure: int
    held: int


class Parts:
    """Takes a body apart as it comes in; holds one object at a time.

    Args:
        boundary: Of the multipart body; None for a body that is one object.
        object_bytes: Of the largest object; larger ones become parts with a failure.
        most: Parts of a body.
        memory: Shared by all requests.
    """

    def __init__(self, boundary: str | None, object_bytes: int, most: int, memory: Memory) -> None:
        self._most_bytes = object_bytes
        self._most = most
        self._memory = memory
        self._count = 0
        self._ready: list[Part] = []
        self._ended = boundary is None
        self._headers = 0
        self._field, self._value = bytearray(), bytearray()
        self._begin()
        self._parser = None if boundary is None else self._multipart(boundary)

    def _multipart(self, boundary: str) -> Any:
        from python_multipart import MultipartParser
        from python_multipart.exceptions import FormParserError

        callbacks: Any = {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header(data[start:end], self._field),
            "on_header_value": lambda data, start, end: self._header(data[start:end], self._value),
            "on_header_end": self._header_end,
            "on_part_data": lambda data, start, end: self._add(memoryview(data)[start:end]),
            "on_part_end": self._end,
            "on_end": self._finished,
        }
        try:
            parser: Any = MultipartParser(boundary.encode("ascii"), callbacks)
        except (FormParserError, UnicodeEncodeError):
            raise RequestError(400, "its boundary cannot be used") from None
        parser.logger = _silent
        return parser

    def _begin(self) -> None:
        self._data = bytearray()
        self._failure = self._held = self._headers = 0

    def _header(self, piece: bytes, into: bytearray) -> None:
        self._headers += len(piece)
        if self._headers > _PART_HEADERS:
            raise RequestError(400, f"the headers of a part exceed {_PART_HEADERS:,} bytes")
        into += piece

    def _header_end(self) -> None:
        name, value = bytes(self._field).lower(), bytes(self._value).lower()
        self._field, self._value = bytearray(), bytearray()
        encoded = name in (b"content-encoding", b"content-transfer-encoding")
        if (encoded and value not in (b"", b"binary", b"identity")) or (
            name == b"content-type" and value.split(b";")[0].strip() != _DICOM.encode()
        ):
            self._failure = CANNOT_UNDERSTAND

    def _add(self, piece: memoryview) -> None:
        if self._failure:
            return
        if len(self._data) + len(piece) > self._most_bytes:
            self._memory.give(self._held)
            self._data, self._held, self._failure = bytearray(), 0, OUT_OF_RESOURCES
            return
        self._memory.take(len(piece))
        self._held += len(piece)
        self._data += piece

    def _end(self) -> None:
        self._count += 1
        if self._count > self._most:
            raise RequestError(413, f"it holds more than {self._most:,} objects")
        self._ready.append(Part(bytes(self._data), self._failure, self._held))
        self._begin()

    def _finished(self) -> None:
        self._ended = True

    def feed(self, chunk: bytes) -> list[Part]:
        """Take some of the body.

        Args:
            chunk: The next bytes.

        Returns:
            The objects that are complete now; whoever is done with one gives its bytes back.

        Raises:
            RequestError: If the body is malformed or holds too much.
            OverloadError: If too many requests hold too much.
        """
        if self._parser is None:
            self._add(memoryview(chunk))
        else:
            from python_multipart.exceptions import FormParserError

            try:
                self._parser.write(chunk)
            except FormParserError:
                raise RequestError(400, "its multipart body is malformed") from None
        ready, self._ready = self._ready, []
        return ready

    def finish(self) -> list[Part]:
        """The object of a body that is one object.

        Raises:
            RequestError: If a multipart body ends amid a part, or holds nothing.
        """
        if self._parser is None:
            self._end()
            return self._ready
        if not self._ended:
            raise RequestError(400, "its multipart body ends early")
        if not self._count:
            raise RequestError(400, "it holds no object")
        return []

    def close(self) -> None:
        """Give back what is held of an object that is not complete, and of those not taken."""
        self._memory.give(self._held + sum(part.held for part in self._ready))
        self._held, self._ready = 0, []


class Identity(NamedTuple):
    """What an object says that it is.

    Args:
        sop_class: SOP Class UID.
        instance: SOP Instance UID.
        syntax: Transfer Syntax UID.
    """

    sop_class: str
    instance: str
    syntax: str


def identity_of(data: bytes) -> tuple[Identity, int]:
    """What the meta information of a DICOM file says, and where it ends.

    Args:
        data: The file.

    Returns:
        Identity and position of the dataset.

    Raises:
        ImageReadError: If it is no DICOM file, or what it says are no UIDs.
    """
    from pydicom.filereader import read_dataset

    try:
        if data[_PREAMBLE - 4 : _PREAMBLE] != b"DICM":
            raise ValueError
        stream = io.BytesIO(data[_PREAMBLE : _PREAMBLE + _META_BYTES])
        with silence_decoders():
            meta = read_dataset(stream, False, True, stop_when=lambda tag, *_: tag.group != 2)
            found = Identity(
                str(meta.MediaStorageSOPClassUID),
                str(meta.MediaStorageSOPInstanceUID),
                str(meta.TransferSyntaxUID),
            )
    except Exception:  # noqa: BLE001 - whatever a damaged header makes of a reader
        raise ImageReadError("the object", "no DICOM file (PS3.10)") from None
    if not all(map(is_uid, found)):
        raise ImageReadError("the object", "its meta information holds no UIDs")
    return found, _PREAMBLE + stream.tell()


def study_of(data: bytes, start: int, syntax: str) -> str:
    """Study Instance UID of a dataset, without inflating or reading more than its beginning.

    Args:
        data: A DICOM file.
        start: Where the dataset begins.
        syntax: Transfer Syntax UID.

    Raises:
        ImageReadError: If it cannot be read.
    """
    from pydicom.filereader import read_dataset

    try:
        head = data[start : start + _HEADER_BYTES]
        if syntax == _DEFLATED:
            head = zlib.decompressobj(-zlib.MAX_WBITS).decompress(head, _HEADER_BYTES)
        with silence_decoders():
            found = read_dataset(
                io.BytesIO(head), syntax == _IMPLICIT, syntax != _BIG_ENDIAN,
                stop_when=lambda tag, *_: tag > _STUDY,
            )  # fmt: skip
            return str(found.StudyInstanceUID)
    except Exception:  # noqa: BLE001 - as above
        raise ImageReadError("the object", "its study cannot be read") from None


@dataclass(slots=True)
class Answer:
    """What became of the objects of a request.

    Args:
        stored: SOP class and instance of each that is safe.
        failed: SOP class, instance and Failure Reason of each that is not.
        others: Failure Reason of each that says no instance.
    """

    stored: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str, int]] = field(default_factory=list)
    others: list[int] = field(default_factory=list)

    @property
    def status(self) -> int:
        """200 where all are stored, 202 where some are; 409 where none is, 503 for lack of room."""
        reasons = [*self.others, *(reason for *_, reason in self.failed)]
        if not reasons:
            return 200
        if self.stored:
            return 202
        return 503 if set(reasons) == {OUT_OF_RESOURCES} else 409

    def to_json(self) -> bytes:
        """As DICOM JSON."""
        return json.dumps(self._model(), separators=(",", ":")).encode()

    def _model(self) -> dict[str, Any]:
        model: dict[str, Any] = {"00081190": {"vr": "UR"}}
        if self.failed:
            items = [
                _reference(sop, instance) | {"00081197": {"vr": "US", "Value": [reason]}}
                for sop, instance, reason in self.failed
            ]
            model["00081198"] = {"vr": "SQ", "Value": items}
        if self.stored:
            references = [_reference(*one) | {"00081190": {"vr": "UR"}} for one in self.stored]
            model["00081199"] = {"vr": "SQ", "Value": references}
        if self.others:
            failures = [{"00081197": {"vr": "US", "Value": [reason]}} for reason in self.others]
            model["0008119A"] = {"vr": "SQ", "Value": failures}
        return model

    def to_xml(self) -> bytes:
        """As Native DICOM Model."""
        from xml.etree import ElementTree

        root = ElementTree.Element("NativeDicomModel", {"xml:space": "preserve"})
        _fill(root, self._model())
        made: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
        return made


_KEYWORDS: Final = {
    "00081150": "ReferencedSOPClassUID",
    "00081155": "ReferencedSOPInstanceUID",
    "00081190": "RetrieveURL",
    "00081197": "FailureReason",
    "00081198": "FailedSOPSequence",
    "00081199": "ReferencedSOPSequence",
    "0008119A": "OtherFailuresSequence",
}


def _reference(sop_class: str, instance: str) -> dict[str, Any]:
    return {
        "00081150": {"vr": "UI", "Value": [sop_class]},
        "00081155": {"vr": "UI", "Value": [instance]},
    }


def _fill(parent: Any, model: dict[str, Any]) -> None:
    from xml.etree.ElementTree import SubElement

    for tag, element in sorted(model.items()):
        names = {"tag": tag, "vr": element["vr"], "keyword": _KEYWORDS[tag]}
        made = SubElement(parent, "DicomAttribute", names)
        for number, value in enumerate(element.get("Value", ()), start=1):
            if isinstance(value, dict):
                _fill(SubElement(made, "Item", {"number": str(number)}), value)
            else:
                SubElement(made, "Value", {"number": str(number)}).text = str(value)


def store(part: Part, study: str, accept: Callable[[bytes, str], Any], answer: Answer) -> None:
    """Let the service take one object; on return it is durable, or `answer` says why not.

    Args:
        part: The object.
        study: Study Instance UID that it must be of; empty for any.
        accept: Of the service: takes bytes and an origin.
        answer: Gets what became of it.
    """
    if part.failure:
        answer.others.append(part.failure)
        return
    try:
        identity, start = identity_of(part.data)
    except ImageReadError:
        answer.others.append(CANNOT_UNDERSTAND)
        return
    failure = _failure(part.data, identity, start, study)
    if not failure:
        try:
            accept(part.data, "stow")
        except OverloadError:
            failure = OUT_OF_RESOURCES
        except ImageReadError:
            failure = CANNOT_UNDERSTAND
    named = (identity.sop_class, identity.instance)
    if failure:
        answer.failed.append((*named, failure))
    else:
        answer.stored.append(named)


def _failure(data: bytes, identity: Identity, start: int, study: str) -> int:
    if identity.sop_class not in STORAGE_CLASSES:
        return CLASS_NOT_SUPPORTED
    if identity.syntax not in transfer_syntaxes():
        return SYNTAX_NOT_SUPPORTED
    try:
        if study and study_of(data, start, identity.syntax) != study:
            return OTHER_STUDY
    except ImageReadError:
        return CANNOT_UNDERSTAND
    return 0

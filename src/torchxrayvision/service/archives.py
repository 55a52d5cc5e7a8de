"""How archives are spoken to: DICOMweb (STOW-RS, QIDO-RS) and DICOM (C-STORE, C-FIND)."""

from __future__ import annotations

import socket
import uuid
from typing import TYPE_CHECKING, Any, Final

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pynetdicom import AE, _config, build_context

from torchxrayvision.errors import DeliveryError
from torchxrayvision.service.credentials import secret_of, tls_context

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torchxrayvision.service.config import RemoteArchive, Target
    from torchxrayvision.service.deliver import ResultFile

# PS3.4 annex B.5 and C.6.2: what `torchxrayvision.results` makes, and Study Root FIND.
RESULT_CLASSES: Final = {
    "1.2.840.10008.5.1.4.1.1.88.34": "Comprehensive 3D SR Storage",
    "1.2.840.10008.5.1.4.1.1.7": "Secondary Capture Image Storage",
    "1.2.840.10008.5.1.4.1.1.66.4": "Segmentation Storage",
    "1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation Storage",
    "1.2.840.10008.5.1.4.1.1.11.1": "Grayscale Softcopy Presentation State Storage",
    "1.2.840.10008.5.1.4.1.1.30": "Parametric Map Storage",
    "1.2.840.10008.5.1.4.1.1.88.59": "Key Object Selection Document Storage",
}
_FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"
_EXPLICIT, _IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
_SERIES: Final = 0x0020000E
_PENDING: Final = (0xFF00, 0xFF01)
_PERMANENT: Final = (0xA900, 0xC000)  # first status of "does not match" and "cannot understand"
_OK, _ACCEPTED, _CONFLICT = 200, 202, 409
_LATER: Final = (401, 403, 404, 407, 408, 409, 425, 429)  # settings or load, not the object
_JSON: Final = "application/dicom+json"


def open_session(entry: RemoteArchive, key: str) -> requests.Session:
    """A session with the certificates and secrets of an archive.

    Args:
        entry: Settings of the archive.
        key: Where they are, for errors.

    Returns:
        The session.

    Raises:
        ConfigError: If a secret cannot be used.
    """
    session = requests.Session()
    session.trust_env = False  # no proxy, and no credentials of .netrc, that nobody set here
    session.verify = True if entry.tls.ca is None else str(entry.tls.ca)
    if entry.tls.certificate is not None:
        session.cert = (str(entry.tls.certificate), str(entry.tls.key))
    if entry.token_file is not None:
        token = secret_of(entry.token_file, f"{key}.token_file")
        session.headers["Authorization"] = f"Bearer {token}"
    if entry.password_file is not None:
        session.auth = (entry.user, secret_of(entry.password_file, f"{key}.password_file"))
    return session


class DicomwebArchive:
    """An archive that speaks DICOMweb.

    Args:
        target: Of the settings.
        seconds: For one request.

    Raises:
        ConfigError: If certificates or secrets cannot be used.
    """

    def __init__(self, target: Target, seconds: float) -> None:
        self._url = target.url.rstrip("/")
        self._seconds = seconds
        self._session = session = open_session(target, f"targets.{target.name}")
        self._client = DICOMwebClient(self._url, session=session, timeout=seconds)
        self._client.set_http_retry_params(retry=False)  # the queue does it, and survives a stop

    def send(self, files: Sequence[ResultFile]) -> None:
        """Hand over objects by STOW-RS.

        Args:
            files: The objects.

        Raises:
            DeliveryError: Unless it says that it took all of them.
        """
        boundary = uuid.uuid4().hex
        body = b"".join(_multipart(files, boundary))
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        try:
            answer = self._session.post(
                f"{self._url}/studies",
                data=body,
                headers={"Content-Type": kind, "Accept": _JSON},
                timeout=self._seconds,
                allow_redirects=False,  # the token is for this host
            )
        except requests.RequestException as error:
            raise DeliveryError(f"STOW-RS: {type(error).__name__}") from None
        status = answer.status_code
        if status in (_OK, _ACCEPTED):
            _check_stored(answer, len(files))
            return
        permanent = 400 <= status < 500 and status not in _LATER
        raise DeliveryError(f"STOW-RS answers {status}", permanent or status == _CONFLICT)

    def holds(self, files: Sequence[ResultFile]) -> bool:
        """Ask by QIDO-RS whether it has all of them.

        Args:
            files: The objects.

        Raises:
            DeliveryError: If it does not answer.
        """
        for file in files:
            study, series = _places(file)
            try:
                found = self._client.search_for_instances(
                    study, series, search_filters={"SOPInstanceUID": file.uid}
                )
            except requests.HTTPError as error:
                if error.response is not None and error.response.status_code == 404:
                    return False
                raise DeliveryError(f"QIDO-RS answers {_status(error)}") from None
            except (requests.RequestException, ValueError, KeyError) as error:
                raise DeliveryError(f"QIDO-RS: {type(error).__name__}") from None
            if not any(file.uid in _values(one, "00080018") for one in found):
                return False
        return True

    def close(self) -> None:
        """Keep the connections; they are idle."""


def _multipart(files: Sequence[ResultFile], boundary: str) -> Iterator[bytes]:
    for file in files:
        yield f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        yield file.path.read_bytes()
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def _check_stored(answer: requests.Response, count: int) -> None:
    """Objects that a successful answer names as failed, PS3.18 section 10.5.3."""
    try:
        said = answer.json()
    except ValueError:  # XML, or nothing: the archive is asked afterwards
        return
    said = said[0] if isinstance(said, list) and said else said
    failed = said.get("00081198", {}).get("Value", []) if isinstance(said, dict) else []
    if failed:
        codes = [code for one in failed for code in _values(one, "00081197")]
        shown = ", ".join(f"{code:04X}" for code in codes if isinstance(code, int)) or "no reason"
        raise DeliveryError(f"STOW-RS: {len(failed)} of {count} objects failed ({shown})", True)


def _values(item: Any, tag: str) -> list[Any]:
    element = item.get(tag) if isinstance(item, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def _status(error: requests.HTTPError) -> str:
    return "nothing" if error.response is None else str(error.response.status_code)


def _places(file: ResultFile) -> tuple[str, str]:
    """Study and series of an object; what follows them in the file is not parsed."""
    with file.path.open("rb") as opened:
        header = read_partial(opened, stop_when=lambda tag, *_: tag > _SERIES)
    return str(header.StudyInstanceUID), str(header.SeriesInstanceUID)


class DicomArchive:
    """An archive that speaks DICOM.

    Args:
        target: Of the settings.
        seconds: For one message.

    Raises:
        ConfigError: If certificates cannot be used.
    """

    def __init__(self, target: Target, seconds: float) -> None:
        # Files go out as they are; pynetdicom would parse and encode each of them again.
        _config.STORE_SEND_CHUNKED_DATASET = True
        self._target = target
        self._ae = AE(ae_title=target.calling_aet)
        self._ae.acse_timeout = self._ae.dimse_timeout = self._ae.network_timeout = seconds
        self._ae.connection_timeout = min(10.0, seconds)
        tls = target.tls
        wanted = tls.certificate is not None or tls.ca is not None
        self._tls = tls_context(tls, server=False) if wanted else None
        self._open: dict[str, Any] = {}

    def _association(self, aet: str, classes: Sequence[str]) -> Any:
        key = f"{aet}/{classes[0]}"
        found = self._open.get(key)
        if found is not None and found.is_established:
            return found
        target = self._target
        syntaxes = (_EXPLICIT, _IMPLICIT)  # a context each: then the one of the files is known
        contexts = [build_context(name, syntax) for name in classes for syntax in syntaxes]
        tls = None if self._tls is None else (self._tls, target.host)
        opened: Any = self._ae.associate(
            target.host, target.port, contexts=contexts, ae_title=aet, tls_args=tls
        )
        if not opened.is_established:
            _close_socket(opened)
            how = "rejects" if opened.is_rejected else "does not answer"
            raise DeliveryError(f"{how} the association")
        # A message goes out in pieces: without this each waits 40 ms for the other side.
        opened.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _keep_answers(opened)
        self._open[key] = opened
        return opened

    def send(self, files: Sequence[ResultFile]) -> None:
        """Hand over objects by C-STORE.

        Args:
            files: The objects.

        Raises:
            DeliveryError: Unless it says that it took all of them.
        """
        association = self._association(self._target.aet, list(RESULT_CLASSES))
        for file in files:
            try:
                status = association.send_c_store(_sendable(association, file)).get("Status")
            except ValueError:
                raise DeliveryError("takes no such SOP class", True) from None
            except RuntimeError:
                raise DeliveryError("C-STORE: the association ended") from None
            if status is None:
                association.abort()
                raise DeliveryError("C-STORE: no answer")
            if status and status & 0xF000 != 0xB000:
                permanent = status & 0xFF00 == _PERMANENT[0] or status & 0xF000 == _PERMANENT[1]
                raise DeliveryError(f"C-STORE answers {status:04X}", permanent)

    def holds(self, files: Sequence[ResultFile]) -> bool:
        """Ask by C-FIND whether it has all of them.

        Args:
            files: The objects.

        Raises:
            DeliveryError: If it does not answer.
        """
        target = self._target
        association = self._association(target.verify_aet or target.aet, [_FIND])
        return all(self._found(association, file) for file in files)

    def _found(self, association: Any, file: ResultFile) -> bool:
        query = Dataset()
        query.QueryRetrieveLevel = "IMAGE"
        query.StudyInstanceUID, query.SeriesInstanceUID = _places(file)
        query.SOPInstanceUID = file.uid
        found = False
        try:
            for status, answer in association.send_c_find(query, _FIND):
                code = status.get("Status")
                if code is None:
                    association.abort()
                    raise DeliveryError("C-FIND: no answer")
                if code in _PENDING:
                    found = found or (
                        answer is not None and answer.get("SOPInstanceUID") == file.uid
                    )
                elif code:
                    raise DeliveryError(f"C-FIND answers {code:04X}")
        except (RuntimeError, ValueError):
            raise DeliveryError("C-FIND: the association ended") from None
        return found

    def close(self) -> None:
        """Release the associations."""
        open_, self._open = self._open, {}
        for association in open_.values():
            if association.is_established:
                association.release()


def _keep_answers(association: Any) -> None:
    """Let nobody but the one who asked take an answer.

    The reactor of pynetdicom looks for requests of the peer. Where it is not quite paused yet, it
    takes the answer instead and throws it away, and the one who asked waits until the time is over.
    """
    answers = association.dimse.msg_queue

    def give_back(message: Any, context_id: int) -> None:
        with answers.mutex:
            answers.queue.appendleft((context_id, message))
            answers.not_empty.notify()

    association._serve_request = give_back


def _close_socket(association: Any) -> None:
    """Close what pynetdicom leaves open where a connection failed."""
    held = association.dul.socket
    if held is not None and held.socket is not None:
        held.socket.close()


def _sendable(association: Any, file: ResultFile) -> Any:
    """The file itself, or its dataset where the archive takes another encoding only."""
    taken = {(c.abstract_syntax, c.transfer_syntax[0]) for c in association.accepted_contexts}
    return file.path if (file.sop_class, _EXPLICIT) in taken else dcmread(file.path)

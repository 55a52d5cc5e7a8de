"""The DICOM listener: C-STORE and C-ECHO; success is said when an object is safe on the disk.

pynetdicom reads a protocol data unit of any declared size into memory, waits for its bytes without
end, does TLS handshakes on the thread that accepts, and starts threads for every connection. The
classes here bound all of that.
"""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import socket
import ssl
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

from pynetdicom import AE, evt
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from torchxrayvision.errors import ImageReadError, OverloadError, ServiceError
from torchxrayvision.service.config import network_of
from torchxrayvision.service.credentials import tls_context
from torchxrayvision.service.gate import is_uid

if TYPE_CHECKING:
    from collections.abc import Callable

    from torchxrayvision.service.config import Limits, Receive
    from torchxrayvision.service.operate import Metrics

# PS3.4 section B.2.3
SUCCESS: Final = 0x0000
OUT_OF_RESOURCES: Final = 0xA700
CANNOT_UNDERSTAND: Final = 0xC000

# Projection radiography and what radiographs are stored as; PS3.4 section B.5.
STORAGE_CLASSES: Final = {
    "1.2.840.10008.5.1.4.1.1.1": "Computed Radiography Image Storage",
    "1.2.840.10008.5.1.4.1.1.1.1": "Digital X-Ray Image Storage - For Presentation",
    "1.2.840.10008.5.1.4.1.1.1.1.1": "Digital X-Ray Image Storage - For Processing",
    "1.2.840.10008.5.1.4.1.1.7": "Secondary Capture Image Storage",
    "1.2.840.10008.5.1.4.1.1.7.2": "Multi-frame Grayscale Byte Secondary Capture Image Storage",
    "1.2.840.10008.5.1.4.1.1.7.3": "Multi-frame Grayscale Word Secondary Capture Image Storage",
}
_NATIVE: Final = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    "1.2.840.10008.1.2",  # Implicit VR Little Endian
    "1.2.840.10008.1.2.2",  # Explicit VR Big Endian
    "1.2.840.10008.1.2.1.99",  # Deflated
    "1.2.840.10008.1.2.5",  # RLE
    "1.2.840.10008.1.2.4.50",  # JPEG baseline
    "1.2.840.10008.1.2.4.51",  # JPEG extended
)
# Package that decodes them to transfer syntaxes.
_WITH: Final = {
    "gdcm": ("1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.57"),
    "jpeg_ls": ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"),
    "openjpeg": tuple(f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 201, 202, 203)),
}
_VERIFICATION: Final = "1.2.840.10008.1.1"
_HEADER: Final = 6  # bytes in front of each protocol data unit
_SLACK: Final = 1 << 20  # association requests and command sets, which no negotiation bounds
_CHUNK: Final = 1 << 18
_SPARE_CONNECTIONS: Final = 8  # that are told politely that there are too many associations


def transfer_syntaxes() -> list[str]:
    """UIDs of the transfer syntaxes that can be read with the packages that are installed."""
    found = list(_NATIVE)
    for package, several in _WITH.items():
        if importlib.util.find_spec(package) is not None:
            found += several
    return found


class _Bounds:
    """One connection, whose peer cannot fill the memory or hold a thread for ever."""

    def __init__(
        self, connection: Any, settings: Receive, object_bytes: int, log: Callable[..., None]
    ) -> None:
        self._connection = connection
        self._pdu_seconds = settings.pdu_seconds
        self._pdu = max(settings.max_pdu, _SLACK)
        self._message_seconds = settings.message_seconds
        self._most = object_bytes + _SLACK
        self._log = log
        self._lock = threading.Lock()
        self._message = 0  # bytes of the message that is being received
        self._pending = 0  # bytes of messages that were received and not handled yet
        self._since = time.monotonic()

    def read(self, size: int) -> bytearray:
        """So many bytes, or what came before the peer left; what pynetdicom calls `recv`."""
        self._expect(size)
        until = time.monotonic() + self._pdu_seconds
        found = bytearray()
        try:
            while len(found) < size:
                self._connection.settimeout(max(0.001, until - time.monotonic()))
                piece = self._connection.recv(min(_CHUNK, size - len(found)))
                if not piece:
                    break
                found += piece
        finally:
            self._connection.settimeout(self._pdu_seconds)
        return found

    @property
    def busy(self) -> bool:
        """Whether a message is under way or being handled."""
        return bool(self._message or self._pending)

    def end(self) -> None:
        """Close the connection, also where its peer is gone, which pynetdicom leaves open."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._connection.close()

    def _expect(self, size: int) -> None:
        with self._lock:
            if size == _HEADER and not self._message:
                self._since = time.monotonic()
            self._message += size
            total = self._message + self._pending
        if size > self._pdu or total > self._most:
            self._log("peer_dropped", reason="oversized")
            raise OSError
        if time.monotonic() - self._since > self._message_seconds:
            self._log("peer_dropped", reason="slow")
            raise OSError

    def received(self) -> None:
        with self._lock:
            self._pending += self._message
            self._message = 0

    def handled(self) -> None:
        with self._lock:
            self._pending = 0


class _Handler(RequestHandler):
    """One connection: TLS handshake, then an association with a bounded socket."""

    server: _Server

    def handle(self) -> None:
        """Start the association; on a thread of its own."""
        connection = self.request
        connection.settimeout(self.server.settings.pdu_seconds)
        if isinstance(connection, ssl.SSLSocket):
            connection.do_handshake()
        super().handle()

    def _create_association(self) -> Any:
        association: Any = super()._create_association()
        bounds = self.server.new_bounds(self.request)
        association.dul.socket.recv = bounds.read
        association.dul.socket._shutdown_socket = bounds.end
        self.server.bounds[association] = bounds
        return association


class _Server(ThreadedAssociationServer):
    """Accepts connections without waiting for any of them."""

    daemon_threads = True
    request_queue_size = 64
    settings: Receive
    new_bounds: Callable[[Any], _Bounds]
    bounds: weakref.WeakKeyDictionary[Any, _Bounds]
    log: Callable[..., None]
    networks: list[Any]

    def get_request(self) -> tuple[socket.socket, Any]:
        """The next connection; its TLS handshake is for its own thread."""
        listening: Any = self.socket
        connection, address = listening.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.ssl_context is not None:
            connection = self.ssl_context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002
        """Whether a connection is answered at all."""
        most = self.settings.max_associations + _SPARE_CONNECTIONS
        if sum(t.name.startswith("AcceptorThread") for t in threading.enumerate()) > most:
            self.log("peer_dropped", reason="too many connections")
            return False
        if not self.networks or any(_inside(client_address[0], net) for net in self.networks):
            return True
        self.log("peer_dropped", reason="unknown address")
        return False

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """A handshake that failed; socketserver would print a traceback."""
        self.log("peer_dropped", reason="handshake")


def _inside(address: str, network: Any) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]) in network


class Listener:
    """Listens until it is closed.

    Args:
        settings: Of the listener.
        limits: Of the service.
        accept: Called with the bytes of a DICOM file, its SOP Instance UID as announced and the
            origin; raises `OverloadError`.
        metrics: Where figures go.
        log: Called with an event and its facts.

    Raises:
        ServiceError: If the port cannot be used.
        ConfigError: If the certificates cannot.
    """

    def __init__(
        self,
        settings: Receive,
        limits: Limits,
        accept: Callable[[bytes, str, str], Any],
        metrics: Metrics,
        log: Callable[..., None],
    ) -> None:
        self._accept = accept
        self._metrics = metrics
        self._log = log
        self._peers = [(p.aet, network_of(p.host) if p.host else None) for p in settings.peers]
        tls = settings.tls
        context = tls_context(tls, server=True) if tls.certificate is not None else None
        try:
            server: Any = _ae(settings).make_server(
                (settings.host, settings.port),
                ssl_context=context,
                evt_handlers=[
                    (evt.EVT_REQUESTED, self._requested),
                    (evt.EVT_ACCEPTED, self._accepted),
                    (evt.EVT_REJECTED, self._rejected),
                    (evt.EVT_DIMSE_RECV, self._received),
                    (evt.EVT_C_STORE, self._store),
                    (evt.EVT_C_ECHO, self._echo),
                ],
                server_class=_Server,
                request_handler=_Handler,
            )
        except OSError as error:
            reason = error.strerror or type(error).__name__
            msg = f"receive: {settings.host}:{settings.port} cannot be listened on: {reason}"
            raise ServiceError(msg) from None
        self._server = server
        server.settings = settings
        server.log = log
        server.new_bounds = lambda c: _Bounds(c, settings, limits.object_bytes, log)
        server.bounds = weakref.WeakKeyDictionary()
        networks = [network for _, network in self._peers]
        server.networks = [] if settings.any_peer or None in networks else networks
        self.port: int = self._server.server_address[1]
        self._any = settings.any_peer
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="xrv-listen", daemon=True
        )

    def start(self) -> None:
        """Begin to answer."""
        self._server.ae._servers.append(self._server)  # where its associations are counted
        self._thread.start()

    def close(self, patience: float = 5.0) -> None:
        """Answer no more; associations get some time for what they are at.

        Args:
            patience: Seconds.
        """
        server = self._server
        if self._thread.is_alive():
            server.shutdown()
        else:
            server.server_close()
        until = time.monotonic() + patience
        while self._busy() and time.monotonic() < until:
            time.sleep(0.02)
        for association in server.active_associations:
            server.bounds[association].end()

    def _busy(self) -> bool:
        """Whether an association is amid a message."""
        bounds = self._server.bounds
        return any(a.is_established and bounds[a].busy for a in self._server.active_associations)

    def _requested(self, event: Any) -> None:
        self._metrics.count("associations", state="requested")
        if self._any:
            return
        aet, address = (
            event.assoc.requestor.primitive.calling_ae_title,
            event.assoc.requestor.address,
        )
        for peer, network in self._peers:
            if aet == peer and (network is None or _inside(address, network)):
                return
        self._rejected(event)
        event.assoc.acse.send_reject(0x01, 0x01, 0x03)  # calling AE title not recognised
        event.assoc.kill()

    def _accepted(self, event: Any) -> None:  # noqa: ARG002 - as pynetdicom calls it
        self._metrics.count("associations", state="accepted")

    def _rejected(self, event: Any) -> None:  # noqa: ARG002
        self._metrics.count("associations", state="rejected")
        self._log("association_rejected")

    def _received(self, event: Any) -> None:
        bounds = self._server.bounds.get(event.assoc)
        if bounds is not None:
            bounds.received()

    def _handled(self, event: Any) -> None:
        bounds = self._server.bounds.get(event.assoc)
        if bounds is not None:
            bounds.handled()

    def _echo(self, event: Any) -> int:
        self._handled(event)
        return SUCCESS

    def _store(self, event: Any) -> int:
        """Spool one object; the status is what became of it."""
        began = time.monotonic()
        try:
            status = self._status(event)
        except Exception as error:  # noqa: BLE001 - the sender keeps what is not answered
            self._log("store_fault", error=type(error).__name__)
            status = OUT_OF_RESOURCES
        self._handled(event)
        self._metrics.observe("store_seconds", time.monotonic() - began)
        self._metrics.count("stores", status=f"{status:04X}")
        return status

    def _status(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        if not is_uid(uid):
            return CANNOT_UNDERSTAND
        try:
            self._accept(event.encoded_dataset(), uid, "cstore")
        except OverloadError as error:
            self._log("overload", reason=str(error))
            return OUT_OF_RESOURCES
        except ImageReadError:
            return CANNOT_UNDERSTAND
        return SUCCESS


def _ae(settings: Receive) -> AE:
    ae = AE(ae_title=settings.aet)
    ae.require_called_aet = True
    ae.maximum_pdu_size = settings.max_pdu
    ae.maximum_associations = settings.max_associations
    ae.acse_timeout = min(30.0, settings.idle_seconds)
    ae.dimse_timeout = settings.idle_seconds
    ae.network_timeout = settings.idle_seconds
    ae.add_supported_context(_VERIFICATION)
    syntaxes = transfer_syntaxes()
    for sop_class in STORAGE_CLASSES:
        ae.add_supported_context(sop_class, syntaxes)
    return ae

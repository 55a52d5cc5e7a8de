"""Peers that are slow, silent, too large, unknown or malicious; others are answered meanwhile."""

import random
import shutil
import socket
import ssl
import statistics
import struct
import subprocess
import threading
import time

import pytest

from support.service_runs import CR, image, send, send_raw, settled, until
from torchxrayvision.errors import ConfigError, ServiceError

# What pydicom says of UIDs that are none, on both sides.
pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning")


def echo(port, aet="XRV", calling="SENDER", tls=None):
    from pynetdicom import AE

    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.connection_timeout = 5
    ae.add_requested_context("1.2.840.10008.1.1")
    association = ae.associate("127.0.0.1", port, ae_title=aet, tls_args=tls)
    if not association.is_established:
        return None
    status = association.send_c_echo().get("Status")
    association.release()
    return status


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def closed(peer, seconds=5.0):
    """Whether the service closes a connection within that time."""
    peer.settimeout(seconds)
    try:
        while peer.recv(1 << 16):
            continue
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def test_only_known_peers_from_known_places_are_answered(running, events):
    peers = [{"aet": "CT", "host": "127.0.0.0/8"}, {"aet": "DX", "host": "10.0.0.1"}]
    service = running(receive={"port": 0, "peers": peers})
    assert echo(service.port, calling="CT") == 0
    for calling in ("DX", "OTHER"):
        assert echo(service.port, calling=calling) is None
        assert send(service.port, image(1), calling=calling) is None
    assert service.queue.waiting() == 0
    assert "OTHER" not in str(events())


def test_no_peer_from_a_place_that_nobody_named_is_answered(running, events):
    service = running(receive={"port": 0, "peers": [{"aet": "CT", "host": "10.0.0.0/8"}]})
    with connect(service.port) as peer:
        assert closed(peer)
    assert until(lambda: events("peer_dropped"))
    assert events("peer_dropped")[0]["reason"] == "unknown address"


def test_another_called_title_is_rejected(running):
    service = running()
    assert echo(service.port, aet="XRV") == 0
    assert echo(service.port, aet="OTHER") is None


def test_sop_classes_that_nobody_reads_are_not_negotiated(running):
    from pynetdicom import AE

    service = running()
    ae = AE()
    ae.add_requested_context("1.2.840.10008.5.1.4.1.1.2")  # CT
    ae.add_requested_context(CR, ["1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.2"])
    association = ae.associate("127.0.0.1", service.port, ae_title="XRV")
    assert [c.abstract_syntax for c in association.accepted_contexts] == [CR]
    association.release()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("uid", ["../../../etc/passwd", "1.2/../../x", "1.2\0.3", "..", "1.2.a"])
def test_path_tricks_in_uids_touch_no_file(running, tmp_path, uid):
    service = running()
    before = sorted(tmp_path.rglob("*"))
    status = send_raw(service.port, (uid, b"x" * 64))[0]
    assert status in (0xC000, None)
    assert sorted(tmp_path.rglob("*")) == before
    assert echo(service.port) == 0


def test_silent_and_half_open_connections_end_and_hold_nobody_up(running):
    receive = {"port": 0, "any_peer": True, "pdu_seconds": 1.0, "idle_seconds": 1.5}
    service = running(receive=receive)
    peers = [connect(service.port) for _ in range(6)]
    peers[1].sendall(b"\1")
    peers[2].sendall(b"\1\0\0\0\1\0" + b"x" * 10)
    peers[3].sendall(b"GET / HTTP/1.1\r\n\r\n")
    began = time.monotonic()
    assert echo(service.port) == 0
    assert time.monotonic() - began < 2
    assert [closed(peer, 8) for peer in peers] == [True] * 6
    assert echo(service.port) == 0
    for peer in peers:
        peer.close()


def test_a_declared_size_is_not_believed(running, events):
    service = running()
    with connect(service.port) as peer:
        peer.sendall(struct.pack(">BBL", 1, 0, 0xFFFFFFFF) + b"x" * 1000)
        assert closed(peer)
    assert events("peer_dropped")[0]["reason"] == "oversized"
    assert echo(service.port) == 0


def test_an_object_that_is_too_large_ends_its_association_and_is_not_kept(running, events):
    service = running(limits={"object_bytes": 1 << 20, "free_bytes": 0})
    large = ("1.2.3.4.1", bytes(3 << 20))
    assert send_raw(service.port, large) == [None]
    assert until(lambda: events("peer_dropped"))
    assert service.queue.waiting() == 0
    assert send(service.port, image(1)) == [0]


def test_a_peer_that_trickles_is_dropped(running, events):
    receive = {"port": 0, "any_peer": True, "message_seconds": 0.5, "pdu_seconds": 0.5}
    service = running(receive=receive)
    with connect(service.port) as peer:
        peer.sendall(struct.pack(">BBL", 1, 0, 200))
        for _ in range(40):
            try:
                peer.sendall(b"x")
            except OSError:
                break
            time.sleep(0.05)
        assert closed(peer)
    assert echo(service.port) == 0


def test_too_many_associations_are_told_so(running):
    from pynetdicom import AE

    service = running(receive={"port": 0, "any_peer": True, "max_associations": 2})
    held = []
    for _ in range(2):
        ae = AE()
        ae.add_requested_context("1.2.840.10008.1.1")
        held.append(ae.associate("127.0.0.1", service.port, ae_title="XRV"))
    assert all(one.is_established for one in held)
    assert echo(service.port) is None
    for one in held:
        one.release()
    assert until(lambda: echo(service.port) == 0)


def test_many_malformed_datasets_are_all_accounted_for(running):
    service = running(work={"batch_size": 32})
    rng = random.Random(16)
    good = image(0)[300:]
    messages = []
    for number in range(100):
        data = bytearray(good[: rng.randrange(1, len(good))] if number % 3 else good)
        for _ in range(rng.randrange(8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        messages.append((f"1.2.9.{number}", bytes(data)))
    statuses = send_raw(service.port, *messages)
    assert set(statuses) == {0}
    assert settled(service, 60)
    counts = service.queue.counts()
    assert counts["failed"] + counts["delivered"] == 100
    assert counts["failed"] > 60
    assert send(service.port, image(1)) == [0]


def test_associations_are_answered_fast_while_the_queue_is_full(running):
    service = running(limits={"waiting": 8, "free_bytes": 0}, work={"batch_size": 1})
    stop = threading.Event()

    def flood():
        number = 0
        while not stop.is_set():
            number += 1
            send(service.port, image(number, BodyPartExamined="SLOW"))

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        assert until(lambda: service.queue.waiting() >= 8, 20)
        times = []
        for _ in range(20):
            began = time.monotonic()
            assert echo(service.port) == 0
            times.append(time.monotonic() - began)
    finally:
        stop.set()
        thread.join()
    assert statistics.median(times) < 2  # how fast it is says benchmarks/bench_service.py


def test_a_port_that_is_taken_is_an_error_that_says_so(running, fake_worker, settings):
    service = running()
    with pytest.raises(ServiceError, match="cannot be listened on"):
        running(folder=settings["folder"] + "2", receive={"port": service.port, "any_peer": True})


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A CA, and a certificate of it for 127.0.0.1 that both sides use."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl to make certificates with")
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "rsa:2048", "-nodes", "-subj")
    openssl(*new, "/CN=test CA", "-x509", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem")
    openssl(*new, "/CN=127.0.0.1", "-keyout", "own.key", "-out", "own.csr")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", "own.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2",
            "-CAcreateserial", "-extfile", "names", "-out", "own.pem")  # fmt: skip
    return folder


def test_tls_with_certificates_of_both_sides(running, certificates):
    files = {"certificate": "own.pem", "key": "own.key", "ca": "ca.pem"}
    tls = {name: str(certificates / file) for name, file in files.items()}
    service = running(receive={"port": 0, "any_peer": True, "tls": tls, "pdu_seconds": 2.0})
    known = ssl.create_default_context(cafile=tls["ca"])
    known.load_cert_chain(tls["certificate"], tls["key"])
    stranger = ssl.create_default_context(cafile=tls["ca"])
    half_open = [connect(service.port) for _ in range(3)]  # that never say hello
    assert echo(service.port, tls=(known, "127.0.0.1")) == 0
    assert echo(service.port, tls=(stranger, "127.0.0.1")) is None
    assert echo(service.port) is None
    assert all(closed(peer) for peer in half_open)
    for peer in half_open:
        peer.close()
    assert echo(service.port, tls=(known, "127.0.0.1")) == 0


def test_certificates_that_are_none_are_an_error(running, settings, tmp_path):
    (tmp_path / "a.pem").write_text("no certificate")
    tls = {"certificate": str(tmp_path / "a.pem"), "key": str(tmp_path / "a.pem")}
    with pytest.raises(ConfigError, match="cannot be used"):
        running(receive={"port": 0, "any_peer": True, "tls": tls})

"""STOW-RS, health and metrics: what is taken is durable; what a hostile peer can do is little."""

import concurrent.futures
import gzip
import http.client
import json
import random
import shutil
import socket
import subprocess
import time
import zlib
from io import BytesIO
from xml.etree import ElementTree

import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient

from support.service_runs import image, settled, until
from torchxrayvision.errors import ConfigError, ServiceError
from torchxrayvision.service import Service, config_of

TOKEN = "a-long-secret-of-this-test"
PLENTY = {"idle_seconds": 20, "request_seconds": 60}


@pytest.fixture
def serving(running, tmp_path):
    """Starts services that listen on HTTP, with a token."""
    secret = tmp_path / "token"
    secret.write_text(TOKEN)
    secret.chmod(0o600)

    def start(http=(), **sections):
        settings = {"port": 0, "token_file": str(secret), **dict(http)}
        settings = {name: value for name, value in settings.items() if value is not None}
        return running(http=settings, **sections)

    return start


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A CA, and pairs of certificate and key: of the server, of a client, of a stranger."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl")
    folder = tmp_path_factory.mktemp("certificates")

    def made(name, by=None):
        files = folder / f"{name}.pem", folder / f"{name}.key"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                   "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost",
                   "-keyout", files[1], "-out", files[0]]  # fmt: skip
        if by is not None:
            command += ["-CA", by[0], "-CAkey", by[1], "-addext", "basicConstraints=CA:FALSE"]
        subprocess.run(command, check=True, capture_output=True)
        return tuple(map(str, files))

    ca = made("ca")
    return ca[0], made("server", ca), made("client", ca), made("stranger")


def ask(service, method, path, body=None, token=TOKEN, **headers):
    """Status, headers and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", service.http_port, timeout=30)
    if token is not None:
        headers.setdefault("Authorization", f"Bearer {token}")
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def multipart(*files, boundary="xrv", kind="application/dicom"):
    body = b"".join(
        f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode() + file + b"\r\n" for file in files
    )
    return body + f"--{boundary}--\r\n".encode()


def stow(service, body, path="/studies", boundary="xrv", **headers):
    kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
    status, _, answer = ask(service, "POST", path, body, Content_Type=kind, **headers)
    return status, answer


def reasons(answer):
    """Failure Reasons by instance, and those of objects that say none."""
    model = json.loads(answer)
    failed = {
        item["00081155"]["Value"][0]: item["00081197"]["Value"][0]
        for item in model.get("00081198", {}).get("Value", ())
    }
    others = [i["00081197"]["Value"][0] for i in model.get("0008119A", {}).get("Value", ())]
    return failed, others


def test_objects_are_taken_and_answered_once(serving, archive):
    service = serving(targets=[archive.target()])
    body = multipart(image(1), image(2))
    status, answer = stow(service, body)
    assert status == 200
    model = json.loads(answer)
    named = [item["00081155"]["Value"][0] for item in model["00081199"]["Value"]]
    assert named == ["1.2.3.4.1", "1.2.3.4.2"]
    assert stow(service, body)[0] == 200
    assert settled(service)
    assert service.queue.counts()["delivered"] == 2
    assert service.metrics.value("received", origin="stow", outcome="new") == 2
    assert service.metrics.value("received", origin="stow", outcome="known") == 2


def test_a_foreign_client_stores_by_dicomweb(serving, archive):
    service = serving(targets=[archive.target()])
    client = DICOMwebClient(
        f"http://127.0.0.1:{service.http_port}",
        headers={"Authorization": f"Bearer {TOKEN}"}, chunk_size=1000,
    )  # fmt: skip
    datasets = [pydicom.dcmread(BytesIO(image(n))) for n in range(3)]
    answer = client.store_instances(datasets, study_instance_uid="1.2.3")
    assert len(answer.ReferencedSOPSequence) == 3
    assert "FailedSOPSequence" not in answer


def test_success_is_said_when_the_object_is_durable(serving, monkeypatch):
    service = serving()
    order = []
    accept = service.accept
    monkeypatch.setattr(
        service, "accept", lambda *a: (accept(*a), order.append(service.queue.counts()))
    )
    assert stow(service, multipart(image(1)))[0] == 200
    assert sum(order[0].values()) == 1


def test_each_object_has_its_own_reason(serving):
    service = serving(limits={"free_bytes": 0, "object_bytes": 4000})
    other_class = image(3, SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    large = image(4, ImageComments="x" * 5000)
    body = multipart(image(1), other_class, large, b"no DICOM", image(5, study="1.9"))
    status, answer = stow(service, body, "/studies/1.2.3")
    assert status == 202
    failed, others = reasons(answer)
    assert failed == {"1.2.3.4.3": 0x0122, "1.2.3.4.5": 0xA900}
    assert sorted(others) == [0xA700, 0xC000]
    assert sum(service.queue.counts().values()) == 1
    status, answer = stow(service, multipart(b"no DICOM"))
    assert (status, reasons(answer)) == (409, ({}, [0xC000]))


def test_the_answer_is_xml_where_asked(serving):
    service = serving()
    body = multipart(image(1), b"x")
    status, answer = stow(service, body, Accept="application/dicom+xml")
    assert status == 202
    root = ElementTree.fromstring(answer)
    assert root.tag == "NativeDicomModel"
    stored = root.find("DicomAttribute[@keyword='ReferencedSOPSequence']")
    uid = stored.find("Item/DicomAttribute[@keyword='ReferencedSOPInstanceUID']/Value")
    assert uid.text == "1.2.3.4.1"
    assert root.find(".//DicomAttribute[@keyword='FailureReason']/Value").text == str(0xC000)


def test_a_body_may_be_one_object(serving):
    service = serving()
    status, _, _ = ask(service, "POST", "/studies", image(1), Content_Type="application/dicom")
    assert status == 200
    assert sum(service.queue.counts().values()) == 1


def test_without_a_token_only_health_is_served(serving):
    service = serving({"token_file": None})
    assert ask(service, "GET", "/healthz")[0] == 200
    assert until(lambda: ask(service, "GET", "/readyz")[0] == 200)
    for method, path in (("GET", "/metrics"), ("POST", "/studies"), ("POST", "/studies/1.2")):
        status, _, body = ask(service, method, path, b"" if method == "POST" else None)
        assert status == 403
        assert b"only health" in body
    assert not sum(service.queue.counts().values())


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], TOKEN + "x", "ü"])
def test_a_wrong_token_gets_nothing(serving, token):
    service = serving()
    headers = {} if token != "ü" else {"Authorization": "Bearer ü".encode()}
    for method, path in (("GET", "/metrics"), ("POST", "/studies")):
        status, _, _ = ask(service, method, path, None, None if headers else token, **headers)
        assert status == 401
    assert ask(service, "GET", "/healthz", None, token if not headers else None)[0] == 200
    assert not sum(service.queue.counts().values())


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost@evil"])
def test_only_own_names_are_answered(serving, host):
    service = serving({"hosts": ["xrv.hospital.example"]})
    assert ask(service, "GET", "/metrics", Host=host)[0] == 421
    for own in ("localhost", "127.0.0.1:99", "[::1]:8480", "XRV.hospital.example"):
        assert ask(service, "GET", "/metrics", Host=own)[0] == 200


@pytest.mark.parametrize(
    "path",
    ["/studies/../metrics", "/studies/1.2/../../etc/passwd", "/studies/%2e%2e%2fx", "/studies/..",
     "/studies/1.2%00", "/studies/" + "1" * 65, "/studies/1.2/series/1.3", "//studies", "/",
     "/studies/1.2%2f1.3", "/.env"],
)  # fmt: skip
def test_path_tricks_lead_nowhere(serving, path):
    service = serving()
    body = multipart(image(1))
    kind = 'multipart/related; type="application/dicom"; boundary=xrv'
    status, _, answer = ask(service, "POST", path, body, Content_Type=kind)
    assert status in (400, 404)
    assert b"1.2" not in answer
    assert not sum(service.queue.counts().values())


def test_bombs_are_refused_before_they_inflate(serving, archive):
    service = serving({"request_bytes": 1 << 20}, targets=[archive.target()])
    bomb = gzip.compress(bytes(100 << 20))
    kind = 'multipart/related; type="application/dicom"; boundary=xrv'
    answer = ask(service, "POST", "/studies", bomb, Content_Type=kind, Content_Encoding="gzip")
    assert answer[0] == 415
    coded = b"--xrv\r\nContent-Type: application/dicom\r\nContent-Encoding: gzip\r\n\r\n"
    status, said = stow(service, coded + bomb + b"\r\n--xrv--\r\n")
    assert (status, reasons(said)) == (409, ({}, [0xC000]))
    # A deflated dataset of a hundred megabytes: the study is found in its beginning.
    plain = image(7)
    _, start = stow_module().identity_of(plain)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    tail = b"\x28\x00\x00\x40UN\x00\x00" + (100 << 20).to_bytes(4, "little")
    packed = packer.compress(plain[start:] + tail)
    packed += b"".join(packer.compress(bytes(1 << 20)) for _ in range(100)) + packer.flush()
    meta = plain[:start].replace(b"1.2.840.10008.1.2.1\x00", b"1.2.840.10008.1.2.1.99")
    growth = len(meta) - start
    length = int.from_bytes(meta[140:144], "little") + growth
    meta = meta[:140] + length.to_bytes(4, "little") + meta[144:]
    at = meta.index(b"1.2.840.10008.1.2.1.99")
    meta = meta[: at - 2] + (22).to_bytes(2, "little") + meta[at:]
    began = time.process_time()
    status, said = stow(service, multipart(meta + packed), "/studies/1.2.3")
    assert status == 200, said
    assert time.process_time() - began < 2  # and not the seconds that that many take
    service.queue.counts()


def stow_module():
    from torchxrayvision.service import stow

    return stow


def test_large_requests_are_refused(serving):
    service = serving({"request_bytes": 20_000, "objects": 3})
    kind = 'multipart/related; type="application/dicom"; boundary=xrv'
    assert ask(service, "POST", "/studies", b"x" * 30_000, Content_Type=kind)[0] == 413

    def endless():
        yield b"--xrv\r\nContent-Type: application/dicom\r\n\r\n"
        while True:
            yield b"x" * 4096

    connection = http.client.HTTPConnection("127.0.0.1", service.http_port, timeout=10)
    with pytest.raises(OSError):  # noqa: PT011 - it closes while more is sent
        connection.request(
            "POST",
            "/studies",
            endless(),
            {"Authorization": f"Bearer {TOKEN}", "Content-Type": kind},
        )
    connection.close()
    assert stow(service, multipart(*(image(n) for n in range(5))))[0] == 413
    head = b"--xrv\r\n" + b"X-A: " + b"a" * 8000 + b"\r\n\r\n"
    assert stow(service, head + b"\r\n--xrv--\r\n")[0] == 400
    assert ask(service, "GET", "/healthz")[0] == 200


def test_memory_is_shared_by_all_requests(serving):
    service = serving({"memory_bytes": 3000})
    assert stow(service, multipart(image(1)))[0] == 200
    status, answer = stow(service, multipart(image(2, ImageComments="x" * 4000)))
    assert status == 503, answer
    assert stow(service, multipart(image(3)))[0] == 200  # what was held is given back


def test_a_full_queue_and_a_stop_are_said_as_busy(serving):
    service = serving(limits={"free_bytes": 0, "spool_bytes": 1024})
    status, headers, _ = ask(
        service, "POST", "/studies", image(1, ImageComments="x" * 2000),
        Content_Type="application/dicom",
    )  # fmt: skip
    assert (status, headers["Retry-After"]) == (503, "30")
    assert not sum(service.queue.counts().values())


def test_slow_peers_are_dropped_and_hold_nobody_up(serving):
    limits = {"head_seconds": 0.5, "idle_seconds": 0.5, "request_seconds": 1.5}
    service = serving({**limits, "peer_connections": 40})
    opened = [socket.create_connection(("127.0.0.1", service.http_port)) for _ in range(20)]
    for one in opened[:10]:
        one.sendall(b"POST /studies HTTP/1.1\r\nHost: localhost\r\n")
    for one in opened[10:15]:
        one.sendall(
            b"POST /studies HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
            b"Content-Type: application/dicom\r\nAuthorization: Bearer " + TOKEN.encode() +
            b"\r\n\r\nx"
        )  # fmt: skip
    assert ask(service, "GET", "/healthz")[0] == 200
    assert stow(service, multipart(image(1)))[0] == 200
    for one in opened:
        one.settimeout(5)
        received = b""
        try:
            while piece := one.recv(1000):
                received += piece
        except ConnectionResetError:
            pass
        assert b" 200 " not in received
        one.close()
    dribbling = socket.create_connection(("127.0.0.1", service.http_port))
    began = time.monotonic()
    with pytest.raises(OSError):  # noqa: PT011
        dribbling.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n")
        while time.monotonic() - began < 8:
            dribbling.sendall(b"x")
            time.sleep(0.1)
    assert time.monotonic() - began < 5
    dribbling.close()


def test_one_address_cannot_take_all_connections(serving):
    service = serving({"connections": 10, "peer_connections": 4})
    opened = [socket.create_connection(("127.0.0.1", service.http_port)) for _ in range(12)]
    closed = 0
    for one in opened:
        one.settimeout(0.5)
        try:
            closed += one.recv(10) == b""
        except TimeoutError:
            pass
        except ConnectionResetError:
            closed += 1
    assert closed == 8
    for one in opened:
        one.close()
    assert until(lambda: ask(service, "GET", "/healthz")[0] == 200)


def test_fifty_clients_at_once(serving):
    service = serving(PLENTY)

    def client(number):
        return stow(service, multipart(image(number)))[0]

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        assert set(pool.map(client, range(50))) == {200}
    assert settled(service, 60)
    assert service.queue.counts()["delivered"] == 50


def test_a_thousand_malformed_bodies(serving, events):
    service = serving({"peer_connections": 64, **PLENTY}, limits={"free_bytes": 0})
    generator = random.Random(5)
    good = multipart(image(1, PatientName="Marker^Planted"))
    statuses = set()
    for number in range(1000):
        body = bytearray(good)
        for _ in range(generator.randrange(1, 6)):
            at = generator.randrange(len(body))
            kind = generator.randrange(4)
            if kind == 0:
                body[at] = generator.randrange(256)
            elif kind == 1:
                del body[at:]
            elif kind == 2:
                del body[at : at + generator.randrange(1, 200)]
            else:
                body[at:at] = generator.randbytes(generator.randrange(1, 50))
            body = body or bytearray(b"-")
        headers = (
            {} if number % 5 else {"Accept": generator.choice(["*/*", "application/dicom+xml"])}
        )
        status, answer = stow(service, bytes(body), **headers)
        statuses.add(status)
        assert b"Marker" not in answer
    assert {400, 409} <= statuses <= {200, 202, 400, 409}
    assert ask(service, "GET", "/healthz")[0] == 200
    assert stow(service, good)[0] == 200
    assert not events("http_fault")


def test_requests_that_are_no_http(serving, capfd):
    service = serving()
    for sent in (b"\x16\x03\x01\x02\x00" + bytes(200), b"GET / HTTP/9.9\r\n\r\n", b"\r\n" * 99,
                 b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
                 b"POST /studies HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
                 b"Content-Length: 5\r\n\r\nZZZ\r\n",
                 b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n"):  # fmt: skip
        with socket.create_connection(("127.0.0.1", service.http_port)) as one:
            one.settimeout(5)
            try:
                one.sendall(sent)
                one.shutdown(socket.SHUT_WR)
                answer = one.recv(1000)
            except ConnectionResetError:
                answer = b""
            assert b" 200 " not in answer
    assert ask(service, "GET", "/healthz")[0] == 200
    assert "Traceback" not in capfd.readouterr().err


def test_what_is_wrong_is_said_by_status(serving):
    service = serving()
    assert ask(service, "GET", "/studies")[0] == 405
    assert ask(service, "POST", "/healthz")[0] == 405
    for kind in ("text/plain", "multipart/form-data; boundary=x", "multipart/related", "",
                 'multipart/related; type="application/dicom+json"; boundary=x'):  # fmt: skip
        assert ask(service, "POST", "/studies", b"x", Content_Type=kind)[0] == 415
    assert stow(service, b"")[0] == 400
    assert stow(service, multipart())[0] == 400
    assert stow(service, multipart(image(1))[:-20])[0] == 400
    assert stow(service, multipart(image(1)), boundary="ü" * 3)[0] in (400, 415)


def test_figures_are_what_prometheus_reads(serving):
    service = serving()
    assert stow(service, multipart(image(1)))[0] == 200
    status, headers, body = ask(service, "GET", "/metrics")
    text = body.decode()
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert 'xrv_http_total{route="stow",status="200"} 1' in text
    assert "xrv_stow_seconds_bucket" in text
    assert 'xrv_jobs{state="' in text
    for line in text.splitlines():
        assert line.startswith(("# HELP ", "# TYPE ", "xrv_")), line


def test_beyond_loopback_only_with_a_token_or_certificates(tmp_path):
    secret = tmp_path / "token"
    secret.write_text(TOKEN)
    secret.chmod(0o600)
    for host in ("0.0.0.0", "::", "10.0.0.5", "server.example"):
        with pytest.raises(ConfigError, match="beyond loopback"):
            config_of({"folder": "x", "http": {"host": host}})
        named = {"host": host, "token_file": str(secret), "hosts": ["xrv.example"]}
        config_of({"folder": "x", "http": named})
    with pytest.raises(ConfigError, match="what clients call"):
        config_of({"folder": "x", "http": {"host": "0.0.0.0", "token_file": str(secret)}})


def test_a_token_that_everybody_reads_is_refused(serving, tmp_path):
    (tmp_path / "open").write_text(TOKEN)
    (tmp_path / "open").chmod(0o644)
    with pytest.raises(ConfigError, match=r"http\.token_file"):
        serving({"token_file": str(tmp_path / "open")})


def test_a_port_in_use_is_said(running, settings, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ServiceError, match="cannot be listened on"):
            Service(config_of(settings | {"http": {"port": taken.getsockname()[1]}}))


def test_certificates_of_clients_take_the_place_of_a_token(running, certificates):
    import ssl

    ca, server, client, stranger = certificates
    service = running(
        http={"port": 0, "tls": {"certificate": server[0], "key": server[1], "ca": ca}}
    )

    def metrics(files):
        context = ssl.create_default_context(cafile=ca)
        if files is not None:
            context.load_cert_chain(*files)
        connection = http.client.HTTPSConnection(
            "localhost", service.http_port, timeout=10, context=context
        )
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().status
        finally:
            connection.close()

    assert metrics(client) == 200
    for files in (None, stranger):
        with pytest.raises(OSError):  # noqa: PT011 - the handshake, or the first read
            metrics(files)
    assert metrics(client) == 200

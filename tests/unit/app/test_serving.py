"""The command in a process of its own: large uploads, many clients, an archive, wrong options."""

from __future__ import annotations

import http.client
import http.server
import io
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pydicom
import pytest
from typer.testing import CliRunner

from support import page as pages
from torchxrayvision.cli import app as command

pytest.importorskip("uvicorn")
MEGABYTE = 2**20


class Server:
    def __init__(self, *arguments):
        line = [sys.executable, "-W", "ignore", "-m", "torchxrayvision", "app", "--weights", "demo",
                "--segmenter", "none", "--no-browser", *arguments]  # fmt: skip
        self.process = subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        address = re.search(r"http://([\d.:]+)(/\S+)", self.process.stdout.readline())
        self.host, path = address[1], address[2]
        connection = http.client.HTTPConnection(self.host)
        connection.request("GET", path)
        answer = connection.getresponse()
        self.cookie = answer.getheader("set-cookie").partition(";")[0]
        connection.close()

    def post(self, body, **headers):
        """The status; also where the server answers before it took the whole body."""
        connection = http.client.HTTPConnection(self.host, timeout=120)
        given = {"Cookie": self.cookie, "Origin": f"http://{self.host}", "X-Name": "a.png"}
        try:
            connection.putrequest("POST", "/api/images")
            for name, value in {**given, **headers}.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders()
            try:
                for piece in body:
                    connection.send(piece)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it answered and closed: the rest is not wanted
            try:
                return connection.getresponse().status
            except (http.client.BadStatusLine, ConnectionError):
                return 0
        finally:
            connection.close()

    @property
    def memory(self):
        """Bytes that the process holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024

    def close(self):
        self.process.terminate()
        self.process.wait(20)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def server():
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc to ask how much memory a process holds")
    made = Server("--max-file", "32", "--memory", "96")
    yield made
    made.close()


def chunks(total, size=MEGABYTE):
    piece = b"%x\r\n" % size + bytes(size) + b"\r\n"
    for _ in range(total // size):
        yield piece
    yield b"0\r\n\r\n"


def test_two_gigabytes_are_refused_by_their_length_and_while_they_stream(server):
    before = server.memory
    assert server.post([], Content_Length=str(2**31)) == 413
    assert server.post(chunks(2**31), Transfer_Encoding="chunked") in (413, 0)
    assert server.memory - before < 150 * MEGABYTE
    assert server.post([b"x" * 100], Content_Length="100") == 201


def test_fifty_uploads_at_once_stay_within_the_memory(server):
    before = server.memory

    def upload(_):
        return server.post(chunks(8 * MEGABYTE), Transfer_Encoding="chunked")

    with ThreadPoolExecutor(50) as pool:
        codes = list(pool.map(upload, range(50)))
    assert set(codes) <= {201, 507, 503}
    assert 0 < codes.count(201) <= 12
    assert server.memory - before < 400 * MEGABYTE
    assert server.post([], Content_Length="0") in (201, 507)


class Archive(http.server.BaseHTTPRequestHandler):
    """Takes what is stored by STOW-RS and says so."""

    stored: list[bytes] = []  # noqa: RUF012 - of the one test

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.stored.append(body)
        uids = set(re.findall(rb"DICM", body))
        reply = pydicom.Dataset()
        reply.ReferencedSOPSequence = [pydicom.Dataset() for _ in uids]
        text = reply.to_json().encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def test_results_are_stored_in_the_archive_of_the_settings():
    pytest.importorskip("highdicom")
    pytest.importorskip("dicomweb_client")
    archive = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Archive)
    threading.Thread(target=archive.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{archive.server_port}/dicom-web"
        page = pages.client(pages.networks(segmenter=None), dicomweb=address)
        (key,) = pages.add(page, "one.dcm", pages.chest_dicom(128, Effusion=0.8))
        answer = page.post(f"/api/images/{key}/dicom", params={"kinds": "sr"})
        assert answer.json() == {"stored": 1}
        made = Archive.stored[0].partition(b"\r\n\r\n")[2]
        assert pydicom.dcmread(io.BytesIO(made), force=True).Modality == "SR"
        archive.shutdown()
        archive.server_close()
        answer = page.post(f"/api/images/{key}/dicom", params={"kinds": "sr"})
        assert answer.status_code == 502
    finally:
        archive.server_close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "is no folder"),
        (["--host", "0.0.0.0"], "--password-file"),
        (["--host", "reading-room"], "--password-file"),
        (["-w", "demo", "-w", "demo", "--checkpoint", "x"], "at most one"),
        (["-w", "demo", "-w", "demo", "--calibration", "x"], "one network"),
    ],
)
def test_what_cannot_work_is_refused_before_networks_are_loaded(arguments, said):
    result = CliRunner().invoke(command, ["app", *arguments])
    assert result.exit_code == 2
    assert said in result.output


def test_a_short_password_is_refused(tmp_path):
    (tmp_path / "word").write_text("short\n")
    result = CliRunner().invoke(command, ["app", "--password-file", str(tmp_path / "word")])
    assert result.exit_code == 2
    assert "8 characters" in result.output

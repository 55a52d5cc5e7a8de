"""A real archive: Debian's Orthanc on free ports, with its own folder; and a proxy that fails."""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

PLUGINS = Path("/usr/share/orthanc/plugins")
ORTHANC = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")

_THERE = ORTHANC and (PLUGINS / "libOrthancDicomWeb.so").exists() and shutil.which("storescu")
needs_orthanc = pytest.mark.skipif(
    not _THERE,
    reason="no Orthanc with DICOMweb and dcmtk (orthanc, orthanc-dicomweb, dcmtk of Debian)",
)


def free_ports(count):
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


class Orthanc:
    """The archive as a process; may be restarted, and keeps what it has."""

    def __init__(self, folder, modalities=None, **more):
        self.folder = folder
        self.port, self.dicom_port = free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}"
        settings = {
            "Name": "test",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "HttpPort": self.port,
            "DicomPort": self.dicom_port,
            "DicomAet": "ORTHANC",
            "DicomCheckCalledAet": True,
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "StableAge": 1,
            "Plugins": [str(PLUGINS / "libOrthancDicomWeb.so")],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            "DicomModalities": modalities or {},
            "ConcurrentJobs": 2,
        } | more
        (folder / "storage").mkdir(parents=True)
        self.settings = folder / "orthanc.json"
        self.settings.write_text(json.dumps(settings))
        self.process = None

    def start(self):
        with (self.folder / "orthanc.log").open("ab") as log:
            self.process = subprocess.Popen([ORTHANC, self.settings], stdout=log, stderr=log)
        for _ in range(600):
            try:
                requests.get(f"{self.url}/system", timeout=5).raise_for_status()
            except requests.RequestException:
                assert self.process.poll() is None, (self.folder / "orthanc.log").read_text()[
                    -2000:
                ]
                time.sleep(0.1)
            else:
                return self
        raise TimeoutError

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)
            self.process = None

    def restart(self):
        self.stop()
        self.start()

    def get(self, path):
        answer = requests.get(f"{self.url}{path}", timeout=30)
        answer.raise_for_status()
        return answer.json() if "json" in answer.headers["Content-Type"] else answer.content

    def studies(self):
        """Study UID to the modalities of its instances, sorted, and their SOP Instance UIDs."""
        found = {}
        for study in self.get("/studies?expand"):
            uid = study["MainDicomTags"]["StudyInstanceUID"]
            series = self.get(f"/studies/{study['ID']}/series?expand")
            instances = [
                (one["MainDicomTags"]["Modality"], instance)
                for one in series
                for instance in one["Instances"]
            ]
            found[uid] = sorted(instances)
        return found

    def file(self, instance):
        return self.get(f"/instances/{instance}/file")


def storescu(port, *files, aet="XRV", check=True):
    """Send with dcmtk; whether all of them were taken."""
    command = ["storescu", "-aec", aet, "-aet", "MODALITY", "-to", "20", "-td", "60", "127.0.0.1"]
    done = subprocess.run(
        [*command, str(port), *map(str, files)], capture_output=True, text=True, check=False
    )
    assert not check or done.returncode == 0, done.stderr
    return done.returncode == 0


def findscu(port, study, aet="ORTHANC"):
    """How many instances of a study an archive lists to dcmtk."""
    keys = ["QueryRetrieveLevel=IMAGE", f"StudyInstanceUID={study}", "SOPInstanceUID"]
    options = [part for key in keys for part in ("-k", key)]
    done = subprocess.run(
        ["findscu", "-v", "-S", "-aec", aet, *options, "127.0.0.1", str(port)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return (done.stdout + done.stderr).count("(0008,0018)")  # one per answer and one of the query


class FaultyProxy:
    """Hands requests on to a server, or fails in one of the ways in which servers do.

    Ways of failing: `refuse` answers 503; `lose` hands on and then drops the answer; `lie` answers
    200 and hands nothing on; `drop` closes the connection at once.
    """

    WAYS = ("refuse", "lose", "lie", "drop")

    def __init__(self, url, share=0.0, seed=0):
        self.share = share
        self.failed = dict.fromkeys(self.WAYS, 0)
        self._draws, self._lock = random.Random(seed), threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.server.daemon_threads = True
        self.server.proxy, self.server.behind = self, url
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def draw(self):
        """In which way the next request fails; empty for none."""
        with self._lock:
            failing = self._draws.random() < self.share
            way = self._draws.choice(self.WAYS) if failing else ""
            if way:
                self.failed[way] += 1
            return way

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        way = self.server.proxy.draw()
        if way == "refuse":
            self.answer(503, b"", "text/plain")
        elif way == "lie":
            self.answer(200, b"{}", "application/dicom+json")
        elif way == "drop":
            self.close_connection = True
        else:
            self.pass_on("POST", body, lose=way == "lose")

    def do_GET(self):
        self.pass_on("GET", None)

    def pass_on(self, method, body, lose=False):
        headers = {n: self.headers[n] for n in ("Content-Type", "Accept") if n in self.headers}
        try:
            url = self.server.behind + self.path
            answer = requests.request(method, url, data=body, headers=headers, timeout=60)
        except requests.RequestException:
            self.answer(502, b"", "text/plain")
            return
        if lose:
            self.close_connection = True
            return
        kind = answer.headers.get("Content-Type", "text/plain")
        self.answer(answer.status_code, answer.content, kind)

    def answer(self, status, body, kind):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

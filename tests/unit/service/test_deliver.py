"""What archives do: forget, refuse, answer late or wrong, and what becomes of results then."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from support.service_runs import image, send, settled, until
from torchxrayvision.errors import ConfigError
from torchxrayvision.service import config_of, retry


def test_an_archive_that_takes_and_keeps_nothing_is_found_out(running, archive, events):
    archive.forget = 2
    service = running(results={"kinds": ["sr"]}, targets=[archive.target()])
    send(service.port, image(1))
    assert settled(service)
    assert len(archive.stored) == 3
    assert len(archive.held) == 1
    reasons = {line["reason"] for line in events("delivery_failed")}
    assert reasons == {"took the objects, and has them not"}


def test_without_verification_nobody_asks(running, archive):
    archive.forget = 1
    service = running(results={"kinds": ["sr"]}, targets=[archive.target(verify=False)])
    send(service.port, image(1))
    assert settled(service)
    assert service.queue.counts()["delivered"] == 1
    assert not archive.held


def test_what_is_refused_for_a_while_arrives(running, archive):
    archive.status = [0xA700, 0xA700, 0xA700]
    service = running(results={"kinds": ["sr"]}, targets=[archive.target()])
    send(service.port, image(1))
    assert settled(service)
    assert service.queue.counts()["delivered"] == 1
    assert service.metrics.value("deliveries", target="archive", outcome="failed") == 3


def test_what_is_refused_for_good_is_a_dead_letter_until_told(running, archive, settings, events):
    archive.status = [0xA900] * 3
    service = running(results={"kinds": ["sr"]}, targets=[archive.target()])
    send(service.port, image(1))
    assert until(lambda: service.queue.counts()["dead"])
    (trouble,) = service.queue.troubles()
    assert trouble["targets"] == {"archive": "C-STORE answers A900"}
    assert until(lambda: len(events("delivery_dead")) == 1)
    assert retry(config_of(settings), ("failed",)) == 0
    assert retry(config_of(settings)) == 1
    assert settled(service)
    assert service.queue.counts()["delivered"] == 1


def test_an_archive_that_is_down_costs_the_other_one_nothing(running, archive):
    down = {"name": "down", "kind": "dicom", "host": "127.0.0.1", "port": 9, "aet": "DOWN"}
    deliver = {"first_wait": 0.01, "longest_wait": 0.02, "most_attempts": 3}
    service = running(targets=[down, archive.target()], deliver=deliver)
    send(service.port, image(1), image(2))
    assert until(lambda: service.queue.counts()["dead"] == 2)
    assert len(archive.held) == 4
    counts = service.queue.delivery_counts()
    assert counts == {("down", "dead"): 2, ("archive", "done"): 2}


def test_a_target_gets_the_kinds_that_it_asked_for(running, archive):
    service = running(results={"kinds": ["sr", "sc"]}, targets=[archive.target(kinds=["sc"])])
    send(service.port, image(1))
    assert settled(service)
    assert len(archive.held) == 1


def test_warnings_count_as_success(running, archive):
    service = running(results={"kinds": ["sr"]}, targets=[archive.target(verify=False)])
    archive.status = [0xB000]
    send(service.port, image(1))
    assert settled(service)
    assert service.queue.counts()["delivered"] == 1


class Web:
    """An archive that speaks a little DICOMweb, and answers what it is told."""

    def __init__(self):
        self.answers = []  # (status, body) of the next STOW requests
        self.requests = []
        self.held = set()
        self.finds = []  # statuses of the next QIDO requests
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def say(self, status, body, **headers):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/dicom+json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.requests.append((self.path, dict(self.headers), body))
                status, said = outer.answers.pop(0) if outer.answers else (200, {})
                if status == 200 and said == {}:
                    outer.held |= outer.uids_of(body)
                extra = {"Location": "/elsewhere"} if status == 302 else {}
                self.say(status, json.dumps(said).encode(), **extra)

            def do_GET(self):
                status = outer.finds.pop(0) if outer.finds else 200
                uid = self.path.rpartition("SOPInstanceUID=")[2].partition("&")[0]
                found = [{"00080018": {"vr": "UI", "Value": [uid]}}] if uid in outer.held else []
                if status == 200 and not found:
                    self.send_response(204)
                    self.end_headers()
                    return
                self.say(status, json.dumps(found).encode())

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @staticmethod
    def uids_of(body):
        import io

        import pydicom

        boundary = body.partition(b"\r\n")[0]
        parts = [p.partition(b"\r\n\r\n")[2][:-2] for p in body.split(boundary)[1:-1]]
        return {str(pydicom.dcmread(io.BytesIO(part)).SOPInstanceUID) for part in parts}

    def target(self, **more):
        url = f"http://127.0.0.1:{self.server.server_address[1]}/dicom-web"
        return {"name": "web", "kind": "dicomweb", "url": url, "verify_after": 0.0} | more


@pytest.fixture
def web():
    found = Web()
    yield found
    found.server.shutdown()
    found.server.server_close()


def test_stow_hands_over_all_objects_of_an_image_at_once(running, web, tmp_path):
    (tmp_path / "token").write_text("secret-token\n")
    (tmp_path / "token").chmod(0o600)
    target = web.target(token_file=str(tmp_path / "token"))
    service = running(results={"kinds": ["sr", "sc"]}, targets=[target])
    send(service.port, image(1))
    assert settled(service)
    ((path, headers, _),) = web.requests
    assert path == "/dicom-web/studies"
    assert headers["Authorization"] == "Bearer secret-token"
    assert len(web.held) == 2


FAILED = {"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [0xA700]}}]}}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((503, []), "STOW-RS answers 503"),
        ((302, []), "STOW-RS answers 302"),
        ((401, []), "STOW-RS answers 401"),
        ((409, []), "STOW-RS answers 409"),
        ((200, FAILED), "STOW-RS: 1 of 1 objects failed (A700)"),
        ((202, FAILED), "STOW-RS: 1 of 1 objects failed (A700)"),
        ((200, ["stored nothing"]), "took the objects, and has them not"),
    ],
)
def test_each_way_of_stow_to_fail_is_named_and_tried_again(running, web, events, answer, reason):
    web.answers = [answer]
    service = running(results={"kinds": ["sr"]}, targets=[web.target()])
    send(service.port, image(1))
    assert settled(service)
    assert service.queue.counts()["delivered"] == 1
    assert [line["reason"] for line in events("delivery_failed")] == [reason]
    assert {path for path, *_ in web.requests} == {"/dicom-web/studies"}


def test_a_question_that_is_not_answered_is_asked_again_without_sending_twice(running, web, events):
    web.finds = [500, 503]
    service = running(results={"kinds": ["sr"]}, targets=[web.target()])
    send(service.port, image(1))
    assert settled(service)
    assert len(web.requests) == 1
    assert [line["reason"] for line in events("delivery_failed")] == [
        "QIDO-RS answers 500", "QIDO-RS answers 503"]  # fmt: skip


def test_secrets_that_everybody_may_read_are_refused(running, web, tmp_path):
    (tmp_path / "token").write_text("secret-token")
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(ConfigError, match="read by everybody"):
        running(targets=[web.target(token_file=str(tmp_path / "token"))])
    with pytest.raises(ConfigError, match="cannot be read"):
        running(targets=[web.target(token_file=str(tmp_path / "absent"))])

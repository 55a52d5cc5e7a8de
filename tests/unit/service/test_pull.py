"""Images from a DICOMweb archive: each fetched once, also over a stop."""

import datetime
import http.server
import json
import threading
from urllib.parse import parse_qs, urlsplit

import pytest

from support.service_runs import image, settled, until
from torchxrayvision.errors import ConfigError, DeliveryError
from torchxrayvision.service import config_of, log_event
from torchxrayvision.service.pull import ArchivePull

TODAY = datetime.date(2026, 11, 29)


class Web:
    """A DICOMweb archive: (study date, modality, accession, number of the image) each."""

    def __init__(self):
        self.images = []
        self.fetched = []
        self.searches = []
        self.broken = set()
        self.status = 0
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                web.answer(self)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/dicom-web"

    def add(self, number, date="20261129", modality="CR", accession="A1"):
        self.images.append((date, modality, accession, number))

    def answer(self, handler):
        place = urlsplit(handler.path)
        asked = {name: values[0] for name, values in parse_qs(place.query).items()}
        parts = place.path.strip("/").split("/")[1:]
        if self.status:
            return self.send(handler, self.status, b"no")
        if parts == ["series"]:
            self.searches.append(asked)
            return self.send_json(handler, self.page(self.series(asked), asked))
        if parts[-1] == "instances":
            number = parts[1].rpartition(".")[2]
            found = [{"00080018": {"vr": "UI", "Value": [f"1.2.3.4.{number}"]}}]
            return self.send_json(handler, self.page(found, asked))
        number = int(parts[-1].rpartition(".")[2])
        self.fetched.append(number)
        if number in self.broken:
            return self.send(handler, 200, b"x" * 2_000_000)
        body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + image(number) + b"\r\n--b--"
        return self.send(handler, 200, body, "multipart/related; boundary=b")

    def series(self, asked):
        return [
            {"0020000D": {"vr": "UI", "Value": [f"1.2.{number}"]},
             "0020000E": {"vr": "UI", "Value": [f"1.2.{number}.1"]},
             "00201209": {"vr": "IS", "Value": [1]}}
            for date, modality, accession, number in self.images
            if asked.get("StudyDate") in (None, date)
            and asked.get("Modality") in (None, modality)
            and asked.get("AccessionNumber") in (None, accession)
        ]  # fmt: skip

    @staticmethod
    def page(found, asked):
        start = int(asked.get("offset", 0))
        return found[start : start + min(2, int(asked.get("limit", 2)))]  # pages of its own size

    def send_json(self, handler, value):
        self.send(
            handler, 200 if value else 204, json.dumps(value).encode(), "application/dicom+json"
        )

    @staticmethod
    def send(handler, status, body, kind="text/plain"):
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        if status != 204:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if status != 204:
            handler.wfile.write(body)

    def settings(self, **values):
        return {"name": "web", "url": self.url, "every": 0.1} | values


@pytest.fixture
def web():
    found = Web()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def pulling(running, web):
    """A service and a look at a given day, without a thread that looks by itself."""

    def start(limits=None, **values):
        service = running(limits={"free_bytes": 0, **(limits or {})})
        (settings,) = config_of({"folder": "x", "pull": [web.settings(**values)]}).pull
        pull = ArchivePull(
            settings, service.queue, lambda data: service.accept(data, "pull"), service._knows,
            log_event, service.config.limits.object_bytes,
        )  # fmt: skip
        return service, pull

    return start


def test_what_is_new_is_fetched_once(pulling, web):
    for number in range(5):
        web.add(number, modality="CR" if number % 2 else "DX")
    web.add(9, modality="CT")
    service, pull = pulling()
    assert pull.look(TODAY) == 5
    assert pull.look(TODAY) == 0
    web.add(6)
    assert pull.look(TODAY) == 1
    assert sorted(web.fetched) == [0, 1, 2, 3, 4, 6]
    assert settled(service)
    assert service.metrics.value("received", origin="pull", outcome="new") == 6
    assert {s["Modality"] for s in web.searches} == {"CR", "DX"}


def test_days_are_gone_through_and_the_reached_one_is_kept(pulling, web, running):
    for back in range(6):
        web.add(back, date=f"{TODAY - datetime.timedelta(days=back):%Y%m%d}")
    service, pull = pulling(days=5, late_days=2, modalities=[])
    assert pull.look(TODAY) == 5  # the sixth day is before the first look
    assert service.queue.setting("pull.web") == "20261127"
    web.searches.clear()
    assert pull.look(TODAY + datetime.timedelta(days=1)) == 0
    assert web.searches[0]["StudyDate"] == "20261127"
    assert service.queue.setting("pull.web") == "20261128"


def test_a_stop_amid_a_day_loses_nothing_and_fetches_nothing_twice(pulling, web):
    for number in range(4):
        web.add(number)
    service, pull = pulling(limits={"waiting": 2})
    service._pool.stop(5)  # nobody reads: the queue fills
    with pytest.raises(OSError, match="wait"):
        pull.look(TODAY)
    assert sum(service.queue.counts().values()) == 2
    service.stop()
    service, pull = pulling()
    assert pull.look(TODAY) == 2
    assert settled(service)
    assert service.queue.counts()["delivered"] == 4


def test_accession_numbers_and_body_parts_are_asked_for(pulling, web):
    web.add(1, accession="WANTED", date="19990101")
    web.add(2, accession="OTHER")
    _, pull = pulling(accessions=["WANTED"], days=0, body_parts=["CHEST"])
    assert pull.look(TODAY) == 1
    assert web.fetched == [1]
    assert all(s["AccessionNumber"] == "WANTED" for s in web.searches)
    assert {s["BodyPartExamined"] for s in web.searches} == {"CHEST"}


def test_what_is_broken_or_too_large_is_left(pulling, web, events):
    web.add(1)
    web.add(2)
    web.broken.add(1)
    service, pull = pulling(limits={"object_bytes": 100_000})
    assert pull.look(TODAY) == 1
    assert pull.look(TODAY) == 0
    assert web.fetched.count(1) == 1
    assert events("pull_left")
    assert settled(service)


def test_an_archive_that_fails_is_asked_again(running, web, events):
    web.status = 500
    web.add(1)
    service = running(pull=[web.settings(days=20_000)])
    assert until(lambda: events("pull_fault"))
    assert "500" in events("pull_fault")[0]["error"]
    service.stop()
    web.status = 0
    service = running(pull=[web.settings(modalities=[], days=0, accessions=["A1"])])
    assert until(lambda: service.queue.counts()["delivered"] == 1)


def test_an_answer_that_is_no_dicomweb_is_said(pulling, web, monkeypatch):
    _, pull = pulling()
    monkeypatch.setattr(pull._client, "search_for_series", lambda **_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pull.look(TODAY)
    monkeypatch.undo()
    web.status = 302
    with pytest.raises(DeliveryError, match="WADO-RS answers 302"):
        pull._fetch("1.2", "1.2.1", "1.2.3.4.1")


@pytest.mark.parametrize(
    ("values", "reason"),
    [({"url": "ftp://a"}, "http"), ({"name": "a b"}, "letters"), ({"user": "a"}, "password_file")],
)
def test_settings_are_checked(web, values, reason):
    with pytest.raises(ConfigError, match=reason):
        config_of({"folder": "x", "pull": [web.settings(**values)]})
    with pytest.raises(ConfigError, match="a second time"):
        config_of({"folder": "x", "pull": [web.settings(), web.settings()]})

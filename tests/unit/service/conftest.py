import contextlib
import json
import socket

import pytest
from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket

from support.service_runs import Archive, FakeWorker
from torchxrayvision.service import Service, config_of, work


@pytest.fixture(autouse=True)
def _close_sockets(monkeypatch):
    """pynetdicom leaves sockets whose peer is gone to the garbage collector."""

    def close(self):
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()

    monkeypatch.setattr(AssociationSocket, "_shutdown_socket", close)


@pytest.fixture(autouse=True)
def _keep_answers(monkeypatch):
    """The reactor of pynetdicom takes answers from those who wait for them, see `archives`."""
    serve = Association._serve_request

    def give_back(self, message, context_id):
        if self.is_acceptor:
            serve(self, message, context_id)
            return
        with self.dimse.msg_queue.mutex:
            self.dimse.msg_queue.queue.appendleft((context_id, message))
            self.dimse.msg_queue.not_empty.notify()

    monkeypatch.setattr(Association, "_serve_request", give_back)


@pytest.fixture
def fake_worker(monkeypatch):
    FakeWorker.read.clear()
    monkeypatch.setattr(work, "Worker", FakeWorker)
    return FakeWorker


@pytest.fixture
def settings(tmp_path):
    """Settings as TOML gives them, to change; ports are free ones."""
    return {
        "folder": str(tmp_path / "state"),
        "model": {"weights": "demo"},
        "receive": {"port": 0, "any_peer": True},
        "deliver": {"first_wait": 0.05, "longest_wait": 0.2},
        "limits": {"free_bytes": 0},
    }


@pytest.fixture
def running(fake_worker, settings):
    """Starts services of settings; all are stopped at the end."""
    started = []

    def start(**sections):
        service = Service(config_of(settings | sections))
        service.start()
        started.append(service)
        return service

    yield start
    for service in started:
        if not service.stopping.is_set():
            service.stop()


@pytest.fixture
def events(caplog):
    """What was logged, as dictionaries."""
    caplog.set_level("INFO", "torchxrayvision.service")

    def found(event=None):
        lines = [json.loads(r.message) for r in caplog.records if r.name.endswith(".service")]
        return [line for line in lines if event is None or line["event"] == event]

    return found


@pytest.fixture
def archive():
    found = Archive()
    yield found
    found.server.shutdown()

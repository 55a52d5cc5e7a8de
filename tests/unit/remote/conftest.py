"""The file server, a cache folder, and a folder that cannot be written to."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
from pathlib import Path

import pytest

from support.file_server import Server


@pytest.fixture
def server(monkeypatch):
    """A running server, named as the only mirror."""
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        monkeypatch.setenv("XRV_MIRROR", running.url)
        yield running
        running.closing.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def raw_server(monkeypatch):
    """Answers every request with a start, and then with more of the same, without end."""
    closing = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))
    answers = []

    def answer(connection):
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(answers[0][0])
            while not closing.wait(0.01):
                connection.sendall(answers[0][1])

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def script(*answer):
        answers.append(answer)
        monkeypatch.setenv("XRV_MIRROR", f"http://127.0.0.1:{listening.getsockname()[1]}")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield script
    closing.set()
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def read_only(tmp_path_factory):
    """A folder that this process may read and not write, even where the tests run as root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "cache"
        folder.mkdir()

        class Guard:
            path = folder

            def __enter__(self):
                folder.parent.chmod(0o755)
                folder.chmod(0o555)
                if os.geteuid() == 0:
                    os.seteuid(65534)

            def __exit__(self, *args):
                if os.getuid() == 0:
                    os.seteuid(0)
                folder.chmod(0o755)

        yield Guard()

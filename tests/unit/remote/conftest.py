"""The file server, a cache folder, and a folder that cannot be written to."""

from __future__ import annotations

import os
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

"""Fixtures for the whole suite. The network is closed unless a test is marked ``network``."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

# An optional folder of real radiographs beside the checkout; nothing in the default suite needs it.
SHARED = Path(os.environ.get("XRV_TEST_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture
def shared() -> Path:
    """The folder of real radiographs, or skip."""
    if not (SHARED / "samples").is_dir():
        pytest.skip(f"no real radiographs at {SHARED}")
    return SHARED


@pytest.fixture(scope="module", autouse=True)
def _room_for_the_next_module(tmp_path_factory, request):
    """Folders go with the module that wrote them, unless one of its tests failed.

    Checkpoints of real size are written in dozens: together they fill a small disk.
    """
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed == failed:
        for folder in tmp_path_factory.getbasetemp().iterdir():
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def fresh_compiler():
    """torch.compile without what it compiled before in this process.

    It keeps at most eight versions of one function, and every model of a parametrised test counts.
    """
    import torch

    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def _cache_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _own_cache(_cache_folder, monkeypatch, request):
    """Each test has an empty cache of its own, so no result depends on the machine."""
    if "network" in request.keywords:
        return
    monkeypatch.setenv("XRV_CACHE_DIR", str(_cache_folder))
    monkeypatch.delenv("XRV_OFFLINE", raising=False)
    monkeypatch.delenv("XRV_MIRROR", raising=False)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, request):
    """Connections leave this machine only in tests that say so."""
    if "network" in request.keywords:
        return
    connect = socket.socket.connect

    def guarded(self, address):
        host = address[0] if isinstance(address, tuple) else ""
        local = host in ("127.0.0.1", "::1", "localhost")
        if self.family in (socket.AF_INET, socket.AF_INET6) and not local:
            pytest.fail(f"a test tried to reach {address}; mark it network or use a local server")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)

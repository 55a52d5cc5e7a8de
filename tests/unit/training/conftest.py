"""Runs in processes of their own."""

from __future__ import annotations

import pytest

from support.training_runs import Server


@pytest.fixture(scope="package")
def start():
    """`support.training_runs.run` in a forked process."""
    server = Server()
    yield server.start
    server.close()

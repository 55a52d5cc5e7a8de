"""No file, however crafted, makes the checkpoint reader do anything but read or refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .hostile import CANARY, HARMLESS, call, payload_cases, proto, text
from .hostile_files import file_cases

CASES = [*payload_cases(), *file_cases()]
SECONDS, BYTES = 2.0, 512 << 20
WORKER = Path(__file__).with_name("hostile_worker.py")

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="memory is measured through /proc"
)


def run_worker(reader, files, work):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(WORKER), reader, str(files)],
        cwd=work, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    files, work = tmp_path_factory.mktemp("hostile"), tmp_path_factory.mktemp("work")
    for case in CASES:
        (files / case.file).write_bytes(case.build())
    found = run_worker("ours", files, work)
    found["left behind"] = [p.name for p in work.rglob("*")]
    found["files"] = {p.name for p in files.iterdir()}
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_hostile_file_executes_nothing_and_ends_typed_and_soon(case, results):
    result = results[case.file]
    assert result["events"] == []
    assert result["outcome"] == case.outcome, result
    assert "MemoryError" not in result.get("error", "")
    assert result["seconds"] < SECONDS
    assert result["bytes"] < BYTES


def test_refusals_name_the_file_and_a_reason(results):
    for case in CASES:
        result = results[case.file]
        if result["outcome"] == "refused":
            path, _, reason = result["error"].partition(f"{case.file}: ")
            assert path
            assert len(reason) > 10, result
            assert reason.isprintable()


def test_hostile_files_leave_nothing_behind(results):
    assert results["left behind"] == []
    assert results["files"] == {case.file for case in CASES}


def test_there_are_enough_cases_and_each_has_its_own_name():
    names = {case.name for case in CASES}
    assert len(names) == len(CASES) > 300
    assert sum(case.outcome == HARMLESS for case in CASES) < len(CASES) / 2


@pytest.mark.parametrize(
    "payload",
    [call("os", "mkdir", text(CANARY)), b"(" + text(CANARY) + b"ios\nmkdir\n"],
    ids=["reduce", "inst"],
)
def test_the_trap_springs_for_a_reader_that_executes(payload, tmp_path):
    """A control: the same payload in the interpreter's own unpickler is recorded and acts."""
    files, work = tmp_path / "files", tmp_path / "work"
    files.mkdir()
    work.mkdir()
    (files / "control.pt").write_bytes(proto() + payload + b".")
    result = run_worker("pickle", files, work)["control.pt"]
    assert any(event.startswith("os.mkdir") for event in result["events"])
    assert (work / CANARY).is_dir()

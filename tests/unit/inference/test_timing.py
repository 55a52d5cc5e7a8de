"""Times that other programs on the machine do not change."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from torchxrayvision.inference.engines import timing
from torchxrayvision.inference.engines.timing import Spent, now, seconds_of


@pytest.mark.parametrize(
    ("spent", "undisturbed"),
    [
        (Spent(wall=2, computed=2, waited=0), 2),
        (Spent(wall=2, computed=4, waited=0), 2),  # two threads
        (Spent(wall=3, computed=1, waited=2), 1),
        (Spent(wall=4, computed=4, waited=4), 2),  # two threads, each half of the time
        (Spent(wall=3, computed=0.5, waited=0.5), 2.5),  # it sleeps besides
        (Spent(wall=3, computed=0, waited=0), 3),
    ],
)
def test_waiting_is_taken_off(spent, undisturbed):
    assert spent.undisturbed == undisturbed


def test_a_thread_that_ended_is_no_gain_of_time():
    assert (Spent(5, 5, 1) - Spent(3, 3, 2)).undisturbed == 2


def test_a_system_that_does_not_count_gives_the_clock_on_the_wall(monkeypatch, tmp_path):
    monkeypatch.setattr(timing, "_THREADS", tmp_path / "none")
    assert now().waited == 0
    monkeypatch.setattr(timing, "_THREADS", tmp_path)
    (tmp_path / "17").mkdir()
    assert now().waited == 0
    (tmp_path / "17" / "schedstat").write_text("5000000000 2000000000 17\n")
    assert now().waited == 2
    assert seconds_of(lambda: time.sleep(0.05)) >= 0.05


@pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="the system does not count waiting"
)
def test_other_programs_do_not_change_a_time():
    """A busy loop on one processor that it shares with a program."""
    own = min(os.sched_getaffinity(0))
    loop = f"import os; os.sched_setaffinity(0, [{own}])\nprint(flush=True)\nwhile True: pass"
    found = []

    def measure():
        os.sched_setaffinity(0, [own])  # of this thread
        before, begun = now(), time.thread_time()
        while time.thread_time() < begun + 0.3:
            pass
        found.append(now() - before)

    with subprocess.Popen([sys.executable, "-c", loop], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        thread = threading.Thread(target=measure)
        thread.start()
        thread.join()
        other.kill()
    (spent,) = found
    assert spent.wall > 0.4
    assert spent.undisturbed < 0.6 * spent.wall + 0.1

"""Damaged and hostile files of every format: read or refused with a typed error, within limits."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[3] / "tools" / "fuzz.py"
INPUTS = 5000


def fuzz(*words):
    return subprocess.run(
        [sys.executable, str(TOOL), *map(str, words)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


@pytest.mark.fuzz
def test_no_input_of_any_format_gives_a_fault():
    done = fuzz("--inputs", INPUTS)
    assert done.returncode == 0, done.stdout[-20_000:]
    rows = [
        line.split() for line in done.stdout.splitlines()[1:] if re.match(r"[a-z0-9]+ +\d", line)
    ]
    assert sum(int(row[1]) for row in rows) == INPUTS
    for row in rows:  # a target that takes all or nothing tests nothing
        assert int(row[2]) > 5, row
        assert int(row[3]) > 5, row


def test_every_kind_of_fault_is_found():
    done = fuzz("--format", "self-test", "--inputs", 14, "--seconds", 3, "--seed", 61)
    assert done.returncode == 1
    counts = [int(word) for word in done.stdout.splitlines()[-1].split()[1:9]]
    assert counts[0] == sum(counts[1:]) == 14
    assert min(counts[1:]) > 0, done.stdout
    for kind in ("crash", "untyped", "time", "memory", "damage accepted"):
        assert re.search(rf"^{kind}: --format self-test --seed 61 --number \d+$", done.stdout, re.M)


def test_an_input_is_made_again_from_its_number():
    first, second = (fuzz("--format", "png", "--number", 17).stdout.split() for _ in range(2))
    assert first[0] in ("accepted", "refused")
    assert (first[0], first[4:]) == (second[0], second[4:])

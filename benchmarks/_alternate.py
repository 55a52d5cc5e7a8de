"""Compare this package with version 1.5.7, in turns, in one run.

A benchmark is a script with two workers, one for each side, and ends with :func:`main`::

    def version_1(out: Path) -> Timings: ...
    def this_package(out: Path) -> Timings: ...

    if __name__ == "__main__":
        main(__doc__, version_1, this_package, settings=THREADS)

``python benchmarks/bench_NAME.py --baseline-python PATH`` starts the script again as a worker, in
turns under the Python at PATH (an environment with torchxrayvision 1.5.7) and under its own, at
least five times each, the order swapped every round, so that what else the machine does falls on
both sides. A worker imports its side, measures its cases and returns their timings in seconds; a
case with "memory" in its name is in MB.

Printed are the medians over the rounds, and the ratio of each pair of neighbouring workers as
median and range: a ratio of 20 [18 - 23] means that no round gave less than 18. The case "peak
memory" is added to each worker, in MB. ``out`` is a folder in which workers may leave results that
``check`` compares; ``prepare`` fills its parent, once, with what all workers read.

A third worker, ``by_hand``, is what somebody would write without either version. ``--quick`` is one
round of a small case, to see whether a script works; what it prints is no result.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

Timings = dict[str, list[float]]  # case: seconds of each repetition
Worker = Callable[[Path], Timings]

PEAK = "peak memory"
SIDES = ("1.5.7", "this package", "by hand")
_RANGE = "[range over the rounds]"
QUICK = "XRV_BENCH_QUICK"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
THREADS = {"one thread": ONE_THREAD, "default threads": {}}


def quick() -> bool:
    """Whether this run only shows that the script works."""
    return os.environ.get(QUICK) == "1"


def timed(function: Callable[[], object], repeats: int = 7, warm_up: int = 1) -> list[float]:
    """Seconds of each of ``repeats`` calls, after ``warm_up`` calls that do not count."""
    for _ in range(warm_up):
        function()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return seconds


def main(
    doc: str | None,
    version_1: Worker,
    this_package: Worker,
    *,
    by_hand: Worker | None = None,
    prepare: Callable[[Path], None] | None = None,
    settings: dict[str, dict[str, str]] | None = None,
    check: Callable[[Path, Path], str] | None = None,
) -> None:
    """Run a benchmark from the command line.

    Args:
        doc: The docstring of the script: which question it answers.
        version_1: Measures 1.5.7; runs under the baseline's Python.
        this_package: Measures this package.
        by_hand: Measures what one would write without either; runs under this Python.
        prepare: Makes what all workers read, in the parent of their folders; does not count.
        settings: Name of a setting to environment variables of its workers; all in turn.
        check: Compares what the two workers left in their folders and says how they differ.
    """
    workers = dict(zip(SIDES, (version_1, this_package, by_hand), strict=True))
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--baseline-python", help="Python of an environment with 1.5.7")
    parser.add_argument("--rounds", type=int, default=5, help="workers of each side (default 5)")
    parser.add_argument("--quick", action="store_true", help="one round of small cases")
    parser.add_argument("--json", type=Path, help="also write every timing to this file")
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        _work(workers[args.worker], args.out)
        return
    if args.quick:
        os.environ[QUICK], args.rounds = "1", 1
    here = [sys.executable if workers[side] else None for side in SIDES[1:]]
    pythons = dict(zip(SIDES, (args.baseline_python, *here), strict=True))
    record = {}
    for setting, environment in (settings or {"": {}}).items():
        with tempfile.TemporaryDirectory() as folder:
            if prepare is not None:
                prepare(Path(folder))
            rounds = _rounds(pythons, environment, args.rounds, Path(folder))
            difference = ""
            if check is not None and args.baseline_python:
                difference = check(Path(folder, SIDES[0]), Path(folder, SIDES[1]))
        record[setting] = rounds
        _print(setting, rounds, difference)
    if args.json:
        args.json.write_text(json.dumps(record, indent=1))


def _work(worker: Worker, out: Path) -> None:
    timings = worker(out)
    try:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        timings[PEAK] = [peak / (2**20 if sys.platform == "darwin" else 2**10)]
    except ImportError:  # Windows
        pass
    (out / "timings.json").write_text(json.dumps(timings))


def _rounds(
    pythons: dict[str, str | None], environment: dict[str, str], rounds: int, folder: Path
) -> list[dict[str, Timings]]:
    """One entry a round: side to the timings of its worker."""
    record = []
    for number in range(rounds):
        turn = [side for side in SIDES if pythons[side]]
        if number % 2:
            turn.reverse()
        found = {}
        for side in turn:
            out = folder / side
            out.mkdir(exist_ok=True)
            inherited = {**os.environ, **environment}
            if side == SIDES[0]:  # which a search path might give this package instead
                inherited.pop("PYTHONPATH", None)
            # What a worker prints is not a result: 1.5.7 prints advice.
            done = subprocess.run(
                [str(pythons[side]), sys.argv[0], "--worker", side, "--out", str(out)],
                env=inherited,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                sys.exit(f"the worker of {side} failed:\n{done.stderr}")
            found[side] = json.loads((out / "timings.json").read_text())
        record.append(found)
    return record


def _print(setting: str, rounds: list[dict[str, Timings]], difference: str) -> None:
    sides = [side for side in SIDES if any(side in found for found in rounds)]
    others = [side for side in sides if side != SIDES[1]]
    print(f"\n## {setting or Path(sys.argv[0]).stem}\n")
    count = f"{len(rounds)} round{'s' if len(rounds) > 1 else ''}"
    print(f"{platform.machine()}, {os.cpu_count()} cores, {count}\n")
    heads = [f"ratio to {side}" if len(others) > 1 else "ratio" for side in others]
    print(f"| case | {' | '.join([*sides, *heads])} |".replace("ratio |", f"ratio {_RANGE} |"))
    print(f"| --- |{' ---: |' * (len(sides) + len(heads))}")
    for case in rounds[0][SIDES[1]]:
        medians = {
            side: [median(found[side][case]) for found in rounds]
            for side in sides
            if all(case in found[side] for found in rounds)
        }
        cells = [_amount(case, median(medians[s])) if s in medians else "" for s in sides]
        cells += [_ratio(medians.get(side), medians[SIDES[1]]) for side in others]
        print(f"| {case} | {' | '.join(cells)} |")
    if len(others) > 1:
        print(f"\nRatios are medians {_RANGE}.")
    if difference:
        print(f"\n{difference}")


def _ratio(theirs: list[float] | None, ours: list[float]) -> str:
    if theirs is None:
        return ""
    ratios = [old / new for old, new in zip(theirs, ours, strict=True)]
    return f"{median(ratios):.1f} [{min(ratios):.1f} - {max(ratios):.1f}]"


def _amount(case: str, value: float) -> str:
    if "memory" in case:
        return f"{value:.0f} MB"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.2f} ms"

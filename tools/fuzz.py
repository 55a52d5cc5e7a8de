"""Give damaged and hostile files of every format to their readers, and count what goes wrong.

    python tools/fuzz.py [--format F] [--inputs N] [--seed S] [--number K] [--keep FOLDER]

Seeds are made in code and changed with knowledge of their structure: chunks, segments, elements,
opcodes, cells and headers are dropped, doubled, exchanged and edited, mostly with lengths and
checksums that fit again, so that the change reaches the code behind them. An input is a function of
format, seed and number: `--format png --seed 0 --number 17` makes and reads that one again.

A reader may accept an input or refuse it with an error of `torchxrayvision.errors`. Faults are: a
process that ends; another exception; more than 5 s; more than 512 MB of memory; a file that is
accepted although its own checksum says that it is damaged. The exit status is 1 if there is one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "tests")]
import fuzz_formats  # noqa: E402

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

MEMORY = 512 << 20  # bytes
STARTING = 120.0  # seconds to import torch on a busy machine
ADDRESSES = 16 << 30  # bytes a reader may reserve at most; the machine is shared
FAULTS = ("crash", "untyped", "time", "memory", "damage accepted")
OUTCOMES = ("accepted", "refused", *FAULTS)


@dataclass(frozen=True)
class Outcome:
    """What came of one input."""

    kind: str
    detail: str = ""
    seconds: float = 0.0
    memory: int = 0


def make(name: str, seed: int, number: int) -> bytes:
    """The bytes of one input."""
    form = fuzz_formats.FORMATS[name]
    rng = random.Random(f"{name}/{seed}/{number}")
    return form.make(rng)


def judge(name: str, data: bytes, folder: Path, limit: float) -> Outcome:
    """Read one input in this process."""
    from torchxrayvision.errors import XRVError

    form = fuzz_formats.FORMATS[name]
    before = _start_memory()
    start = time.perf_counter()
    kind, detail = "accepted", ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            form.read(data, folder)
    except fuzz_formats.Damage as error:
        kind, detail = "damage accepted", str(error)
    except fuzz_formats.Partly:
        kind = "refused"
    except XRVError as error:
        kind, detail = "refused", type(error).__name__
    except Exception:  # noqa: BLE001 - whatever it is, it is a fault
        kind, detail = "untyped", _shortened(traceback.format_exc())
    seconds, memory = time.perf_counter() - start, _peak_memory() - before
    if kind == "accepted" and (said := form.damaged(data)):
        kind, detail = "damage accepted", said
    if memory > MEMORY:
        kind, detail = "memory", f"{memory >> 20} MB {detail}"
    elif seconds > limit:
        kind = "time"
    return Outcome(kind, detail, seconds, memory)


def _shortened(text: str) -> str:
    """A traceback without the lines of other packages, apart from its end."""
    lines = text.splitlines()
    own = [line.strip() for line in lines if "torchxrayvision" in line and "File" in line]
    return "\n".join([*own[-6:], *lines[-1:]])


def _start_memory() -> int:
    """Bytes of this process now; its peak is measured from here on, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    return _status("VmRSS")


def _peak_memory() -> int:
    return _status("VmHWM")


def _status(field: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))


def serve(connection: Connection, limit: float) -> None:
    """Judge the inputs that come through a pipe, until it closes."""
    import torch

    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + ADDRESSES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as folder:
        connection.send("ready")
        while True:
            try:
                name, seed, number = connection.recv()
            except EOFError:
                return
            connection.send(judge(name, make(name, seed, number), Path(folder), limit))


class Worker:
    """A process that judges inputs, started anew after one that ends it."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._process: Any = None

    def judge(self, name: str, seed: int, number: int) -> Outcome:
        """What comes of one input, whatever it does to the process."""
        if self._process is None:
            self._start()
        self._pipe.send((name, seed, number))
        if not self._pipe.poll(2 * self._limit):
            self.stop()
            return Outcome("time", "it did not end", 2 * self._limit)
        try:
            found: Outcome = self._pipe.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            self.stop()
            return Outcome("crash", f"exit status {code}")
        return found

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other, self._limit), daemon=True)
        self._process.start()
        other.close()
        if not self._pipe.poll(STARTING):
            raise TimeoutError("the process that reads does not start")
        self._pipe.recv()

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None


def fuzz(names: list[str], given: argparse.Namespace) -> int:
    """Run so many inputs in all, and print a table; returns the number of faults."""
    inputs, seed, keep = given.inputs, given.seed, given.keep
    worker, faults = Worker(given.seconds), 0
    print(
        f"{'format':13s}{'inputs':>8s}" + "".join(f"{kind:>17s}" for kind in OUTCOMES), flush=True
    )
    for place, name in enumerate(names):
        count = inputs * (place + 1) // len(names) - inputs * place // len(names)
        counts: Counter[str] = Counter()
        shown: set[str] = set()
        start, slowest, largest = time.perf_counter(), 0.0, 0
        for number in range(count):
            found = worker.judge(name, seed, number)
            counts[found.kind] += 1
            slowest, largest = max(slowest, found.seconds), max(largest, found.memory)
            if found.kind in FAULTS:
                faults += 1
                _tell(name, seed, number, found, shown)
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{name}-{seed}-{number}").write_bytes(make(name, seed, number))
        cells = "".join(f"{counts[kind]:17d}" for kind in OUTCOMES)
        took = time.perf_counter() - start
        note = f"   {took:.0f} s, slowest {slowest:.2f} s, largest {largest >> 20} MB"
        print(f"{name:13s}{count:8d}{cells}{note}", flush=True)
    worker.stop()
    return faults


def _tell(name: str, seed: int, number: int, found: Outcome, shown: set[str]) -> None:
    """Print a fault; of those with one cause, the first."""
    lines = found.detail.strip().splitlines() or [""]
    cause = f"{found.kind} {lines[-1][:60]} {lines[-3:-1]}"
    if cause not in shown:
        shown.add(cause)
        print(f"{found.kind}: --format {name} --seed {seed} --number {number}\n{found.detail}")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--format", choices=list(fuzz_formats.FORMATS), action="append")
    parser.add_argument("--inputs", type=int, default=5000, help="in all, over the formats")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--number", type=int, help="this input alone, in this process")
    parser.add_argument("--keep", type=Path, help="folder for the inputs that gave a fault")
    parser.add_argument("--seconds", type=float, default=5.0, help="limit of one input")
    given = parser.parse_args()
    formats = [name for name in fuzz_formats.FORMATS if name != fuzz_formats.SELF_TEST]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TMPDIR"] = folder  # of processes that end before they tidy up, too
        if given.number is None:
            return int(fuzz(given.format or formats, given) > 0)
        name = (given.format or formats)[0]
        found = judge(name, make(name, given.seed, given.number), Path(folder), given.seconds)
    print(found.kind, f"{found.seconds:.2f} s", f"{found.memory >> 20} MB", found.detail, sep="\n")
    return int(found.kind in FAULTS)


if __name__ == "__main__":
    sys.exit(main())

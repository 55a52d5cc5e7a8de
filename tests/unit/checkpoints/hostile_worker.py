"""Read every file of a folder under an audit hook and a memory limit; print what happened.

Run as ``python hostile_worker.py READER FOLDER``: READER is ``ours``, or ``pickle`` for the
control that shows that the traps spring.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

MEMORY = 512 << 20
# What reading a file may do. Everything else is an event: imports, calls, files written.
READING = {"open", "builtins.id", "os.listdir", "os.scandir", "mmap.__new__", "object.__getattr__"}


def field(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) << 10
    return 0


def reset_peak():
    Path("/proc/self/clear_refs").write_text("5")


class Recorder:
    def __init__(self):
        self.events = None

    def __call__(self, event, args):
        if self.events is None:
            return
        writes = event == "open" and not (args[1] in (None, "r", "rb") and not _writing(args[2]))
        if event not in READING or writes:
            shown = [str(arg)[:80] for arg in args[:3]]
            self.events.append(f"{event} {shown}"[:200])


def _writing(flags):
    return isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)


def ours():
    from torchxrayvision.checkpoints.read import read_tensors
    from torchxrayvision.errors import CheckpointError

    def read(path):
        try:
            checkpoint = read_tensors(path)
        except CheckpointError as error:
            return {"outcome": "refused", "error": str(error)}
        honest = checkpoint.tensors.get("w")
        right = honest is not None and honest.tolist() == [1.0, 2.0, 3.0, 4.0]
        return {"outcome": "harmless" if right else "wrong", "names": list(checkpoint.tensors)[:9]}

    return read


def control():
    import pickle

    def read(path):
        pickle.loads(path.read_bytes())
        return {"outcome": "harmless"}

    return read


def attempt(read, path, recorder):
    reset_peak()
    before, start = field("VmHWM"), time.process_time()
    recorder.events = []
    try:
        result = read(path)
    except BaseException as error:  # noqa: BLE001 - an escape is a finding
        result = {"outcome": "escaped", "error": f"{type(error).__name__}: {error}"[:300]}
    events, recorder.events = recorder.events, None
    seconds, grown = time.process_time() - start, field("VmHWM") - before
    return {**result, "events": events, "seconds": seconds, "bytes": grown}


def main(kind, folder):
    read = ours() if kind == "ours" else control()
    paths = sorted(Path(folder).iterdir())
    recorder = Recorder()
    for warm in ("legacy-honest.pt", "zip-honest.pt", "safetensors-honest.pt", "legacy-inst.pt"):
        if kind == "ours":  # modules that are imported on first use
            read(Path(folder, warm))
    import resource

    limit = field("VmSize") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    sys.addaudithook(recorder)
    results = {path.name: attempt(read, path, recorder) for path in paths}
    sys.stdout.write(json.dumps(results))


main(*sys.argv[1:])

"""Reading in a process of its own, which may crash or be killed without harm to the run.

The parent writes one JSON line a file to the child's standard input, followed by the bytes of
the image where the parent has read them. The child answers with one JSON line, followed by the
prepared image as raw float32. Run as a module, this is the child; it never loads torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.inputs.load import load
from torchxrayvision.inputs.source import Member, Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ReaderProcess"]

_ATTEMPTS: Final = 2  # a process may also die of another's fault, such as the memory killer's


class ReaderProcess:
    """One child at a time; started with the first file, and again after it has died.

    Args:
        size: Side of the prepared images in pixels.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._child: subprocess.Popen[bytes] | None = None
        self._killed = False
        self._lock = threading.Lock()

    def load(self, source: Source, data: bytes | None) -> NDArray[np.float32] | str:
        """As `_load.load`; a death of the child is a reason too.

        Args:
            source: What to read.
            data: Its bytes, where they were read already.
        """
        self._killed = False
        for _ in range(_ATTEMPTS):
            child = self._started()
            try:
                return self._ask(child, source, data)
            except (OSError, EOFError, ValueError):
                status = self._buried(child)
            if self._killed:
                break
        return f"the process that read it died ({status})"

    def _ask(
        self, child: subprocess.Popen[bytes], source: Source, data: bytes | None
    ) -> NDArray[np.float32] | str:
        assert child.stdin is not None and child.stdout is not None  # noqa: PT018 - pipes, below
        member = None if source.member is None else source.member.to_list()
        request = {
            "path": os.fspath(source.path), "given": source.given, "problem": source.problem,
            "member": member, "size": self._size, "bytes": None if data is None else len(data),
        }  # fmt: skip
        child.stdin.write(json.dumps(request).encode() + b"\n")
        if data is not None:
            child.stdin.write(data)
        child.stdin.flush()
        answer = json.loads(_line(child.stdout))
        if "error" in answer:
            return str(answer["error"])
        raw = _exactly(child.stdout, 4 * self._size**2)
        return np.frombuffer(raw, np.float32).reshape(1, self._size, self._size)

    def _started(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._child is None:
                # One thread each: the processes are the parallelism.
                single = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
                package = str(Path(__file__).parents[2])
                search = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
                self._child = subprocess.Popen(
                    [sys.executable, "-m", __name__],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env={**os.environ, **single, "PYTHONPATH": search},
                    start_new_session=True,  # Ctrl-C is for the parent
                )
            return self._child

    def _buried(self, child: subprocess.Popen[bytes]) -> str:
        with self._lock:
            child.kill()
            status = child.wait()
            _close_pipes(child)
            self._child = None
        return f"signal {-status}" if status < 0 else f"exit code {status}"

    def kill(self) -> None:
        """End the child and with it the file that it reads."""
        with self._lock:
            self._killed = True
            if self._child is not None:
                self._child.kill()

    def close(self) -> None:
        """Let the child end."""
        with self._lock:
            child, self._child = self._child, None
        if child is not None:
            _close_pipes(child)
            child.wait()


def _close_pipes(child: subprocess.Popen[bytes]) -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:  # what was still to be flushed has no reader any more
                continue


def _line(stream: IO[bytes]) -> bytes:
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    return line


def _exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise EOFError
    return data


def _source(request: dict[str, Any]) -> Source:
    fields = request["member"]
    member = None if fields is None else Member.from_list(fields)
    return Source(Path(request["path"]), request["given"], member, request["problem"])


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    while line := requests.readline():
        request = json.loads(line)
        data = None if request["bytes"] is None else _exactly(requests, request["bytes"])
        outcome = load(_source(request), request["size"], data)
        if isinstance(outcome, str):
            answers.write(json.dumps({"error": outcome}).encode() + b"\n")
        else:
            answers.write(b"{}\n" + outcome.tobytes())
        answers.flush()


if __name__ == "__main__":
    # Decoders in C print on standard output; what is printed there must not look like an answer.
    private = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(private, "wb") as channel:
        _serve(sys.stdin.buffer, channel)

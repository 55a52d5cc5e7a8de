"""Reading in a process of its own, which may crash or be killed without harm to the run.

The parent writes one JSON line per file to the child's standard input, followed by the bytes of
the image where the parent has read them. The child answers with one JSON line, followed by the
pixels. Run as a module, this is the child; it never loads torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np

import torchxrayvision.errors
from torchxrayvision.errors import ImageReadError
from torchxrayvision.images import ImageInfo, Limits, Raster, Reduction
from torchxrayvision.inputs.archives import Archives, InputFile, Member
from torchxrayvision.inputs.load import ReadOptions, read_file

if TYPE_CHECKING:
    from collections.abc import Mapping

_ATTEMPTS: Final = 2  # a process may also die of another's fault, such as the memory killer's


class ReaderProcess:
    """One child at a time; started with the first file, and again after it has died."""

    def __init__(self, options: ReadOptions) -> None:
        self._options = {
            "frame": options.frame,
            "limits": asdict(options.limits),
            "least_side": options.least_side,
        }
        self._child: subprocess.Popen[bytes] | None = None
        self._killed = self._busy = False
        self._lock = threading.Lock()

    def read(self, file: InputFile) -> Raster:
        """As `read_file`; an `ImageReadError` too if the child dies."""
        self._killed, self._busy = False, True
        try:
            for _ in range(_ATTEMPTS):
                child = self._started()
                try:
                    return self._ask(child, file)
                except ImageReadError:
                    raise
                except (OSError, EOFError, ValueError):
                    status = self._reap(child)
                if self._killed:
                    break
            raise ImageReadError(file.path, f"the process that read it died ({status})")
        finally:
            self._busy = False

    def _ask(self, child: subprocess.Popen[bytes], file: InputFile) -> Raster:
        assert child.stdin is not None and child.stdout is not None  # noqa: PT018 - pipes, below
        member = None if file.member is None else file.member.to_list()
        request = {
            **self._options, "path": os.fspath(file.path), "problem": file.problem,
            "member": member, "bytes": None if file.data is None else len(file.data),
        }  # fmt: skip
        child.stdin.write(json.dumps(request).encode() + b"\n")
        if file.data is not None:
            child.stdin.write(file.data)
        child.stdin.flush()
        answer = json.loads(_line(child.stdout))
        if "error" in answer:
            kind = getattr(torchxrayvision.errors, answer["error"])
            raise kind(file.path, answer["reason"], answer["advice"])
        raw = _exactly(child.stdout, answer.pop("bytes"))
        pixels = np.frombuffer(raw, answer.pop("dtype")).reshape(answer.pop("shape"))
        reduced = answer.pop("reduction")
        return Raster(
            pixels=pixels, info=ImageInfo(**_tuples(answer.pop("info"))),
            reduction=None if reduced is None else Reduction(**reduced), **answer,
        )  # fmt: skip

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

    def _reap(self, child: subprocess.Popen[bytes]) -> str:
        with self._lock:
            child.kill()
            status = child.wait()
            _close_pipes(child)
            self._child = None
        return f"signal {-status}" if status < 0 else f"exit code {status}"

    def kill(self) -> bool:
        """End the child and with it the file that it reads; whether it was reading one."""
        with self._lock:
            self._killed = True
            if self._child is not None:
                self._child.kill()
            return self._busy

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


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples."""
    return {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}


def _answer(request: dict[str, Any], data: bytes | None, archives: Archives) -> list[Any]:
    """One JSON line and the pixels, as pieces to write."""
    fields = request["member"]
    member = None if fields is None else Member.from_list(fields)
    path = Path(request["path"])
    file = InputFile(path, str(path), member, request["problem"], data)
    options = ReadOptions(
        frame=request["frame"],
        limits=Limits(**request["limits"]),
        least_side=request["least_side"],
    )
    try:
        raster = read_file(file, options, archives)
    except ImageReadError as error:
        said = {"error": type(error).__name__, "reason": error.reason, "advice": error.advice}
        return [json.dumps(said).encode() + b"\n"]
    except Exception as error:  # noqa: BLE001 - the parent has the row, here nobody would see it
        said = {"error": "ImageReadError", "reason": f"{type(error).__name__}: {error}"}
        return [json.dumps({**said, "advice": ""}).encode() + b"\n"]
    pixels = np.ascontiguousarray(raster.pixels)
    head = {
        "shape": pixels.shape, "dtype": pixels.dtype.str, "bytes": pixels.nbytes,
        "scale": raster.scale, "offset": raster.offset, "info": asdict(raster.info),
        "reduction": None if raster.reduction is None else asdict(raster.reduction),
    }  # fmt: skip
    return [json.dumps(head).encode() + b"\n", pixels.data]


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    archives = Archives()
    while line := requests.readline():
        request = json.loads(line)
        data = None if request["bytes"] is None else _exactly(requests, request["bytes"])
        for piece in _answer(request, data, archives):
            answers.write(piece)
        answers.flush()


if __name__ == "__main__":
    # Decoders in C print on standard output; what is printed there must not look like an answer.
    private = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(private, "wb") as channel:
        _serve(sys.stdin.buffer, channel)

"""The folder of an unfinished run: what it was asked to do, its list, and what is finished.

Beside ``table.csv`` lies ``table.csv.part`` (or ``table.csv.part-2-of-8`` for a shard) with

- ``run.json``: the options that change numbers or rows, and the machine;
- ``sources.jsonl``: the list of images, made once when the run begins;
- ``rows.bin``: finished batches, see `_journal`;
- ``lock``: held while a process works on it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from torchxrayvision.errors import ResumeError
from torchxrayvision.inference._disk import put_in_place
from torchxrayvision.inference._manifest import Manifest, write_manifest
from torchxrayvision.inference._sources import expand, is_container

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from torchxrayvision.models import XRayModel

__all__ = ["Record", "RunFolder", "Shard", "describe_inputs", "fingerprint", "parse_shard"]

_FORMAT: Final = 1
_STAMPS: Final = "changed"
_SHOWN: Final = 5  # differences in a message
_WIDTH: Final = 80  # characters of each value in it


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several parts of a list, cut between batches.

    Args:
        index: From 1.
        count: How many there are.

    Raises:
        ValueError: If there is no such part.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            msg = f"shard {self.index}/{self.count} does not exist; the first is 1/{self.count}"
            raise ValueError(msg)

    def bounds(self, images: int, batch_size: int) -> tuple[int, int]:
        """Positions of its first image and after its last one."""
        total = -(-images // batch_size)
        first, stop = ((self.index - k) * total // self.count * batch_size for k in (1, 0))
        return min(first, images), min(stop, images)


def parse_shard(text: str) -> Shard:
    """`"2/8"` as a shard.

    Raises:
        ValueError: If it is written in another way, or does not exist.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if found is None:
        msg = f"a shard is written as 2/8, the second of eight, not {text!r}"
        raise ValueError(msg)
    return Shard(int(found[1]), int(found[2]))


def fingerprint(model: XRayModel) -> str:
    """SHA-256 over what makes the numbers of a model: its tensors, names and operating points."""
    digest = hashlib.sha256()
    about = [type(model).__name__, model.targets, list(model.trained), model.input_resolution]
    digest.update(json.dumps([*about, model.resize_route]).encode())
    for name, tensor in model.state_dict().items():
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        if value.numel():
            digest.update(memoryview(value.flatten().view(dtype=_bytes()).numpy()))
    return digest.hexdigest()


def _bytes() -> Any:
    import torch

    return torch.uint8


def describe_inputs(paths: Sequence[str | os.PathLike[str]]) -> dict[str, Any]:
    """What was named, with the size and time of lists and archives, whose content matters."""
    names = [os.fspath(path) for path in paths]
    stamps = {}
    for name in names:
        path = Path(name.removeprefix("@"))
        if name.startswith("@") or is_container(path):
            with contextlib.suppress(OSError):
                status = path.stat()
                stamps[name] = [status.st_size, status.st_mtime_ns]
    return {"folder": str(Path.cwd()), "paths": names, _STAMPS: stamps}


@dataclass(frozen=True, slots=True)
class Record:
    """What `run.json` says.

    Args:
        options: What has to be the same to go on: inputs, model, output, columns, ...
        machine: What the numbers also depend on, in their last bits.
        manifest: The list.
    """

    options: dict[str, Any]
    machine: dict[str, Any]
    manifest: Manifest

    @property
    def batch_size(self) -> int:
        """Images of a batch; a run of fewer has one batch of them all."""
        size: int = self.options["batch_size"]
        return max(1, min(size, self.manifest.count))

    @property
    def bounds(self) -> tuple[int, int]:
        """Positions of the first image of this run, which may be a shard, and after its last."""
        shard = self.options["shard"]
        part = Shard(1, 1) if shard is None else Shard(*shard)
        return part.bounds(self.manifest.count, self.batch_size)


class RunFolder:
    """The folder of one run.

    Args:
        output: Final name of the table.
        shard: If the run is one.
    """

    def __init__(self, output: Path, shard: Shard | None = None) -> None:
        ending = "" if shard is None else f"-{shard.index}-of-{shard.count}"
        self.path = output.with_name(f"{output.name}.part{ending}")
        self.sources = self.path / "sources.jsonl"
        self.journal = self.path / "rows.bin"
        self.table = self.path / f"table{output.suffix}"
        self._record = self.path / "run.json"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out; the folder is made if absent.

        Raises:
            ResumeError: If another process works on it, or a file has its name.
        """
        from filelock import FileLock, Timeout

        if self.path.exists() and not self.path.is_dir():
            msg = f"{self.path} is in the way: it is a file, not an unfinished run; move it away"
            raise ResumeError(msg)
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(self.path / "lock", timeout=0)
            with lock:
                yield
        except Timeout:
            msg = f"{self.path}: another process works on this run; wait for it or end it"
            raise ResumeError(msg) from None

    def read(self) -> Record | None:
        """The record of the run, or None where none was begun.

        Raises:
            ResumeError: If it was written by a version whose runs this one cannot go on with.
        """
        try:
            entry = json.loads(self._record.read_text("utf-8"))
        except FileNotFoundError:
            return None
        if entry.get("format") != _FORMAT:
            msg = f"{self.path} was begun by another version; finish it there, or use --restart"
            raise ResumeError(msg)
        return Record(entry["options"], entry["machine"], Manifest(**entry["list"]))

    def begin(
        self,
        options: dict[str, Any],
        machine: Callable[[int], dict[str, Any]],
        on_found: Callable[[int], None] | None = None,
    ) -> Record:
        """Go on with the run that is here, or list the images and begin one.

        Args:
            options: See `Record`; `options["inputs"]["paths"]` is what gets listed.
            machine: Called with the number of images where a run begins, for `Record.machine`.
            on_found: Called now and then with the number of images listed so far.

        Raises:
            ResumeError: If the run that is here has other options.
        """
        options = json.loads(json.dumps(options))  # tuples as the lists that they come back as
        record = self.read()
        if record is not None:
            self.check(record.options, options)
            return record
        fresh = self.path / "sources.new"
        manifest = write_manifest(fresh, expand(options["inputs"]["paths"]), on_found)
        put_in_place(fresh, self.sources)
        self.journal.unlink(missing_ok=True)
        record = Record(options, machine(manifest.count), manifest)
        entry = {"format": _FORMAT, "options": options, "machine": record.machine}
        fresh.write_text(json.dumps({**entry, "list": asdict(manifest)}, indent=1), "utf-8")
        put_in_place(fresh, self._record)
        return record

    def check(
        self, found: dict[str, Any], wanted: dict[str, Any], but: Collection[str] = ()
    ) -> None:
        """Refuse to go on where options differ.

        Args:
            found: Options of the run that is here.
            wanted: Options of the one that would go on.
            but: Names that may differ.

        Raises:
            ResumeError: If any other does.
        """
        names = sorted({*found, *wanted} - set(but))
        differing = [d for n in names for d in _differences(n, found.get(n), wanted.get(n))]
        if differing:
            shown = differing[:_SHOWN]
            shown += [f"{len(differing) - _SHOWN} more"] if len(differing) > _SHOWN else []
            msg = (
                f"{self.path} holds an unfinished run with other options "
                f"({'; '.join(shown)}); repeat its command to finish it, or give --restart to "
                "throw its rows away"
            )
            raise ResumeError(msg)

    def discard(self) -> None:
        """Remove what is in the folder, but for the lock."""
        self._record.unlink(missing_ok=True)  # first: without it the rest means nothing
        for path in (self.sources, self.journal, self.table):
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder of a run that is finished."""
        self._record.unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)


def _differences(name: str, found: Any, wanted: Any) -> Iterator[str]:
    """How two values differ, one phrase for each part that does."""
    if found == wanted:
        return
    if isinstance(found, dict) and isinstance(wanted, dict):
        of = _changes if name == _STAMPS else _differences
        for key in sorted({*found, *wanted}):
            yield from of(key, found.get(key), wanted.get(key))
        return
    texts = [json.dumps(found), json.dumps(wanted)]
    # Of long ones what they have in common would be all that is seen.
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False))
    begin = max(0, sum(1 for _ in same) - _WIDTH // 2)
    before, now = (t if len(t) <= _WIDTH else _cut(t, begin) for t in texts)
    yield f"{name}: {before}, now {now}"


def _cut(text: str, begin: int) -> str:
    stop = begin + _WIDTH
    return f"{'...' * (begin > 0)}{text[begin:stop]}{'...' * (len(text) > stop)}"


def _changes(name: str, found: list[int] | None, wanted: list[int] | None) -> Iterator[str]:
    """How a list or an archive changed, of which size and time are known, None where it is gone."""
    if found == wanted:
        return
    if found is None or wanted is None:
        yield f"{name} {'appeared' if found is None else 'is gone'}"
    elif found[0] == wanted[0]:
        yield f"{name} changed, still {found[0]:,} bytes"
    else:
        yield f"{name} changed, {found[0]:,} to {wanted[0]:,} bytes"

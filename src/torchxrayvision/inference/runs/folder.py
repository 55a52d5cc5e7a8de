"""The folder of an unfinished run: what it was asked to do, its list, and what is finished.

Beside ``table.csv`` lies ``table.csv.part`` (or ``table.csv.part-2-of-8`` for a shard) with

- ``run.json``: the options that change numbers or rows, and the machine;
- ``sources.jsonl``: the list of images, made once when the run begins;
- ``rows.bin``: finished batches, see `_journal`;
- ``lock``: held while a process works on it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import shutil
import struct
import time
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np

from torchxrayvision.errors import OutputError, ResumeError, XRVError
from torchxrayvision.inputs import InputFile, Member, expand, is_container

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from torchxrayvision.models import XRayModel

__all__ = [
    "Batch",
    "Journal",
    "Manifest",
    "Record",
    "RunFolder",
    "Shard",
    "describe_inputs",
    "fingerprint",
    "parse_shard",
    "put_in_place",
    "read_lines",
    "read_manifest",
    "replay",
    "unpack",
    "write_manifest",
    "writing",
]


# ---- The list of images of a run, kept on disk: any number of them, the same after every restart.

_SAY_EVERY: Final = 1000


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a list holds.

    Args:
        count: Images.
        digest: SHA-256 of their names in order; the same on every machine that sees the same files.
    """

    count: int
    digest: str


def _pack(source: InputFile) -> str:
    """One line. Absent parts are left out, so that most lines are a name and nothing else."""
    path = os.fspath(source.path)
    entry: dict[str, Any] = {"g": source.given}
    if path != source.given:
        entry["p"] = path
    if source.member is not None:
        entry["m"] = source.member.to_list()
    if source.problem:
        entry["e"] = source.problem
    # ASCII: names that are not UTF-8 survive as lone surrogates, and no name breaks the line.
    return json.dumps(entry, separators=(",", ":"))


def unpack(line: str) -> InputFile:
    """The image that a line of a list stands for.

    Args:
        line: From `read_lines`.
    """
    entry = json.loads(line)
    member = Member.from_list(entry["m"]) if "m" in entry else None
    given = entry["g"]
    return InputFile(Path(entry.get("p", given)), given, member, entry.get("e", ""))


def write_manifest(
    path: Path, sources: Iterable[InputFile], on_found: Callable[[int], None] | None = None
) -> Manifest:
    """Write a list; it is on disk, whole, when this returns.

    Args:
        path: The file.
        sources: Consumed one by one.
        on_found: Called now and then with the number of images so far.
    """
    digest = hashlib.sha256()
    count = 0
    with path.open("w", encoding="ascii", newline="\n") as file:
        for source in sources:
            file.write(_pack(source) + "\n")
            # Times and offsets stay out: copies of one archive differ in them.
            digest.update(f"{source.given}\0{source.problem}\0".encode())
            count += 1
            if on_found is not None and count % _SAY_EVERY == 0:
                on_found(count)
        file.flush()
        os.fsync(file.fileno())
    return Manifest(count, digest.hexdigest())


def read_manifest(path: Path, first: int = 0, stop: int | None = None) -> Iterator[InputFile]:
    """The images of a list, one by one.

    Args:
        path: The file.
        first: Position of the first one wanted, from 0.
        stop: Position after the last one; None for all.
    """
    return map(unpack, read_lines(path, first, stop))


def read_lines(path: Path, first: int = 0, stop: int | None = None) -> Iterator[str]:
    """The images of a list, as lines for `unpack` to read elsewhere.

    Args:
        path: The file.
        first: See `read_manifest`.
        stop: See `read_manifest`.
    """
    with path.open(encoding="ascii", newline="\n") as file:
        yield from itertools.islice(file, first, stop)


# ---- Finished batches, appended to one file that survives being killed at any byte.
#
# Each record is ``length, CRC-32`` (little-endian, 4 bytes each), then a JSON head, then the
# numbers as raw float32. A record that a kill, a power cut or a full disk has cut short fails its
# CRC; reading stops there and the next run cuts it off and computes that batch again.

_FRAME: Final = struct.Struct("<II")
_LARGEST: Final = 1 << 30  # no batch is as large; a damaged length must not fill the memory
_NUMBERS: Final = np.dtype("<f4")


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What came of images that follow each other in the list.

    Args:
        first: Position of the first one.
        errors: One an image, empty where all went well.
        outputs: Shape (n, P) float32; NaN after an error.
        features: Shape (n, D) float32, or None if they were not asked for.
    """

    first: int
    errors: tuple[str, ...]
    outputs: NDArray[np.float32]
    features: NDArray[np.float32] | None = None


def _encode(batch: Batch) -> bytes:
    errors = {i: text for i, text in enumerate(batch.errors) if text}
    width = None if batch.features is None else batch.features.shape[1]
    head = {"first": batch.first, "shape": batch.outputs.shape, "features": width, "errors": errors}
    parts = [json.dumps(head, separators=(",", ":")).encode(), b"\n"]
    parts += [np.ascontiguousarray(batch.outputs, _NUMBERS).tobytes()]
    if batch.features is not None:
        parts += [np.ascontiguousarray(batch.features, _NUMBERS).tobytes()]
    return b"".join(parts)


def _decode(payload: bytes) -> Batch:
    line, _, raw = payload.partition(b"\n")
    head = json.loads(line)
    count, outputs = head["shape"]
    errors = tuple(head["errors"].get(str(i), "") for i in range(count))
    numbers = np.frombuffer(raw, _NUMBERS)
    split = count * outputs
    features = None
    if head["features"] is not None:
        features = numbers[split:].reshape(count, head["features"])
    return Batch(head["first"], errors, numbers[:split].reshape(count, outputs), features)


def _records(file: BinaryIO) -> Iterator[tuple[Batch, int]]:
    """Whole records and the position after each, up to the first that is not whole."""
    end = 0
    while True:
        frame = file.read(_FRAME.size)
        if len(frame) < _FRAME.size:
            return
        length, crc = _FRAME.unpack(frame)
        # A file that grew without its bytes reaching the disk reads as zeros: no record is empty.
        if not 0 < length <= _LARGEST:
            return
        payload = file.read(length)
        if len(payload) < length or zlib.crc32(payload) != crc:
            return
        end += _FRAME.size + length
        yield _decode(payload), end


def replay(path: Path) -> Iterator[Batch]:
    """The whole records of a journal, in order.

    Args:
        path: The file; an absent one holds nothing.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for batch, _ in _records(file):
            yield batch


class Journal:
    """A journal to append to; what is not whole at its end is cut off.

    Args:
        path: The file, made if absent.
        first: Position of the first image of this run in the list.
        sync: Seconds after which finished batches are forced to the disk. A kill loses none of
            them, a power cut at most those of this time.

    Attributes:
        position: Position in the list after the last finished batch.
        failed: Images so far that ended in an error.
    """

    def __init__(self, path: Path, first: int, sync: float = 5.0) -> None:
        self.position = first
        self.failed = 0
        self._sync = sync
        self._file = path.open("a+b", buffering=0)
        self._file.seek(0)
        end = 0
        for batch, after in _records(self._file):
            if batch.first != self.position:
                break
            self._count(batch)
            end = after
        self._cut(end)
        self._synced = time.monotonic()

    def _count(self, batch: Batch) -> None:
        self.position = batch.first + len(batch.errors)
        self.failed += sum(map(bool, batch.errors))

    def _cut(self, end: int) -> None:
        self._end = end
        self._file.truncate(end)
        self._file.seek(end)

    def append(self, batch: Batch) -> None:
        """Add a batch.

        Raises:
            OSError: If it cannot be written whole; the journal is as before then.
        """
        payload = _encode(batch)
        record = _FRAME.pack(len(payload), zlib.crc32(payload)) + payload
        view = memoryview(record)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError:
            self._cut(self._end)
            raise
        self._end += len(record)
        self._count(batch)
        if time.monotonic() - self._synced >= self._sync:
            self.sync()

    def sync(self) -> None:
        """Force what was added to the disk."""
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def close(self) -> None:
        """Force everything to the disk and close the file."""
        try:
            self.sync()
        finally:
            self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
            return
        with contextlib.suppress(OSError):  # what stopped the run matters more
            self.close()


# ---- Files of a run that are whole or absent, whatever stops the process or the machine.

_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn errors of the file system into one that says what is kept and how to go on.

    Args:
        place: What is written.

    Raises:
        OutputError: For any `OSError` inside that is not one of this package.
    """
    try:
        yield
    except XRVError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        what = "no space left" if error.errno in _NO_SPACE else "cannot be written"
        cure = "free some" if error.errno in _NO_SPACE else "mend that"
        msg = (
            f"{place}: {what} ({reason}); {cure} and run the same command again, which goes on "
            "after the last finished batch"
        )
        raise OutputError(msg) from error


def put_in_place(source: Path, target: Path) -> None:
    """Give a finished file its name; a power cut leaves the old file or the new one.

    Args:
        source: The file, on the same file system.
        target: Its name; replaced if it exists.
    """
    with source.open("rb+") as file:
        os.fsync(file.fileno())
    source.replace(target)
    # The name is durable only once its folder is; Windows and some network file systems refuse.
    with contextlib.suppress(OSError):
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


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
            msg = f"{self.path} was begun by another version; finish it there, or use --overwrite"
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
                f"({'; '.join(shown)}); repeat its command to finish it, or give --overwrite to "
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

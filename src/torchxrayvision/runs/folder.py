"""The folder of an unfinished run: what it was asked to do, its list, and what is finished.

Beside ``table.csv`` lies ``table.csv.part`` (or ``table.csv.part-2-of-8`` for a shard) with

- ``run.json``: the options that change numbers or rows, and the machine;
- ``sources.jsonl``: the list of images, made once when the run begins;
- ``rows.bin``: finished batches, see `Journal`;
- ``lock``: held while a process works on it.

The digests in ``run.json`` are compared before anything is taken from the folder: a damaged or
exchanged file gives an error, never the numbers of one image to the name of another.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from torchxrayvision.errors import OutputError, ResumeError
from torchxrayvision.files import FileState, put_in_place, sha256_of
from torchxrayvision.inputs import InputFile, Member, ReadOptions, Skipped, expand, is_container
from torchxrayvision.runs.journal import Batch, Journal, replay, writing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Iterator

    from torchxrayvision.inputs import Paths


_Item = TypeVar("_Item")
_FORMAT: Final = 2
_SAY_EVERY: Final = 1000
_STAMPS: Final = "changed"
_SHOWN: Final = 5  # differences in a message
_WIDTH: Final = 80  # characters of each value in it


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a list holds.

    Args:
        count: Images.
        digest: SHA-256 of their names in order; the same on every machine that sees the same files.
        file: SHA-256 of the bytes of the list as this machine wrote it.
        skipped: What is no image in the folders that were named, in one clause; see `Skipped`.
    """

    count: int
    digest: str
    file: str
    skipped: str = ""


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
    """The image that a line of a list, from `read_lines`, stands for."""
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
    digest, written = hashlib.sha256(), hashlib.sha256()
    count = 0
    with path.open("wb") as file:
        for source in sources:
            line = f"{_pack(source)}\n".encode("ascii")
            file.write(line)
            written.update(line)
            # Times and offsets stay out: copies of one archive differ in them.
            digest.update(f"{source.given}\0{source.problem}\0".encode())
            count += 1
            if on_found is not None and count % _SAY_EVERY == 0:
                on_found(count)
        file.flush()
        os.fsync(file.fileno())
    return Manifest(count, digest.hexdigest(), written.hexdigest())


def read_manifest(path: Path, first: int = 0, stop: int | None = None) -> Iterator[InputFile]:
    """The images of a list, one by one.

    Args:
        path: The file.
        first: Position of the first one wanted, from 0.
        stop: Position after the last one; None for all.
    """
    return map(unpack, read_lines(path, first, stop))


def read_lines(path: Path, first: int = 0, stop: int | None = None) -> Iterator[str]:
    """The images of a part of a list, see `read_manifest`, as lines for `unpack` to read."""
    with path.open(encoding="ascii", newline="\n") as file:
        yield from itertools.islice(file, first, stop)


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
        batches = -(-images // batch_size)
        first = (self.index - 1) * batches // self.count * batch_size
        stop = self.index * batches // self.count * batch_size
        return min(first, images), min(stop, images)


def parse_shard(text: str) -> Shard:
    """`"2/8"` as a shard.

    Args:
        text: Number of the part, from 1, a slash, and how many parts there are.

    Returns:
        The shard.

    Raises:
        ValueError: If it is written in another way, or does not exist.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if found is None:
        msg = f"a shard is written as 2/8, the second of eight, not {text!r}"
        raise ValueError(msg)
    return Shard(int(found[1]), int(found[2]))


def fingerprint(model: Any) -> str:
    """SHA-256 over what makes the numbers of a model: its tensors, names and operating points.

    Args:
        model: A network of this package.
    """
    digest = hashlib.sha256()
    facts = ["targets", "trained", "input_resolution", "resize_route"]
    if not model.state_dict():  # an ensemble that is read from its file member by member
        facts += ["weights_zip", "num_models"]
    about = [type(model).__name__, *(getattr(model, name, None) for name in facts)]
    if views := getattr(model, "views", None):  # an ensemble of whole models
        about += [views, *(fingerprint(member) for member in model.members)]
    if hasattr(model, "pooling"):  # an encoder, whose features depend on how it was built
        about.append(model.arguments)
    if contrast := getattr(model, "contrast", None):
        about.append(contrast)
    digest.update(json.dumps(about, default=list).encode())
    for name, tensor in model.state_dict().items():
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        if value.numel():
            digest.update(memoryview(value.flatten().view(dtype=_bytes()).numpy()))
    return digest.hexdigest()


def _bytes() -> Any:
    import torch

    return torch.uint8


def describe_inputs(paths: Paths, options: ReadOptions | None = None) -> dict[str, Any]:
    """What was named, with the size and time of lists and archives, whose content matters.

    Args:
        paths: See `expand`.
        options: How files are read: what of it decides on rows and numbers.
    """
    listed = [paths] if isinstance(paths, str | os.PathLike) else paths
    names = [os.fspath(path) for path in listed]
    stamps = {}
    for name in names:
        path = Path(name.removeprefix("@"))
        if name.startswith("@") or is_container(path):
            with contextlib.suppress(OSError):
                stamps[name] = [*FileState.of(path).content]
    asked = {"strict": options.strict, "frame": options.frame} if options else {}
    return {"folder": str(Path.cwd()), "paths": names, _STAMPS: stamps, **asked}


@dataclass(frozen=True, slots=True)
class Record:
    """What `run.json` says.

    Args:
        options: What has to be the same to resume: inputs, model, output, columns, ...
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
        shard = self.options.get("shard")
        part = Shard(1, 1) if shard is None else Shard(*shard)
        return part.bounds(self.manifest.count, self.batch_size)

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return sha256_of(text.encode())

    @property
    def run(self) -> str:
        """A short name of the run, which its journal bears."""
        return self.digest[:16]

    def to_json(self) -> str:
        """The content of `run.json`."""
        entry = {"format": _FORMAT, **asdict(self), "digest": self.digest}
        return json.dumps(entry, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> Record:
        """The record that `to_json` described.

        Raises:
            ResumeError: If it is damaged, or another version wrote it.
        """
        try:
            entry = json.loads(text)
            version = entry["format"]
            if version == _FORMAT:
                manifest = Manifest(**entry["manifest"])
                record = cls(entry["options"], entry["machine"], manifest)
                if entry["digest"] == record.digest:
                    return record
        except (ValueError, KeyError, TypeError, RecursionError):
            version = _FORMAT
        if version != _FORMAT:
            msg = "was begun by another version; finish it there, or start again with --overwrite"
            raise ResumeError(msg)
        raise ResumeError("is damaged; put the right file back, or start again with --overwrite")


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run came to.

    Args:
        total: Images, of the shard if it is one.
        failed: Those that ended in an error.
        resumed: Those that an earlier run had finished.
        images: Images of the whole list.
        place: The table, or the folder of a finished shard.
        skipped: See `Manifest`.
    """

    total: int
    failed: int
    resumed: int
    images: int
    place: Path
    skipped: str = ""


class RunFolder:
    """The folder of one run.

    Args:
        output: Final name of the table.
        shard: If the run is one.
    """

    def __init__(self, output: Path, shard: Shard | None = None) -> None:
        ending = "" if shard is None else f"-{shard.index}-of-{shard.count}"
        self.output = output
        self.path = output.with_name(f"{output.name}.part{ending}")
        self.sources = self.path / "sources.jsonl"
        self.journal = self.path / "rows.bin"
        self.table = self.path / f"table{output.suffix}"
        self._record = self.path / "run.json"

    @contextlib.contextmanager
    def locked(self, *, overwrite: bool = False) -> Iterator[None]:
        """Keep other processes out; the folder is made if absent.

        Raises:
            ResumeError: If another process works on it, or a file has its name.
            OutputError: If the table exists and is not to be overwritten.
        """
        from filelock import FileLock, Timeout

        if self.output.exists() and not overwrite:
            msg = (
                f"{self.output} exists already; give --overwrite (in Python overwrite=True) to "
                "replace it, or name another file"
            )
            raise OutputError(msg)
        if self.path.exists() and not self.path.is_dir():
            msg = f"{self.path} is in the way: it is a file, not an unfinished run; move it away"
            raise ResumeError(msg)
        lock = FileLock(self.path / "lock", timeout=0)
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
            except Timeout:
                msg = f"{self.path}: another process works on this run; wait for it or end it"
                raise ResumeError(msg) from None
        try:
            yield
        finally:
            lock.release()

    def read(self) -> Record | None:
        """The record of the run, or None where none was begun.

        Raises:
            ResumeError: If it is damaged, or of a version whose runs this one cannot resume.
        """
        try:
            return Record.from_json(self._record.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ResumeError(f"{self._record} cannot be read ({error.strerror})") from error
        except ResumeError as error:
            raise ResumeError(f"{self._record} {error}") from None

    def check_list(self, record: Record) -> None:
        """Compare the list with its digest.

        Raises:
            ResumeError: If the list is absent or is not the one that the run began with.
        """
        try:
            found = sha256_of(self.sources)
        except OSError as error:
            reason = f"cannot be read ({error.strerror})"
        else:
            if found == record.manifest.file:
                return
            reason = "is not the list that the run began with"
        msg = f"{self.sources} {reason}; put the right file back, or start again with --overwrite"
        raise ResumeError(msg)

    def batches(self, record: Record) -> Iterator[Batch]:
        """The finished batches, in order.

        Raises:
            ResumeError: If the journal is of another run.
        """
        return replay(self.journal, record.bounds[0], record.run)

    def begin(
        self,
        options: dict[str, Any],
        machine: Callable[[int], dict[str, Any]],
        on_found: Callable[[int], None] | None = None,
        *,
        overwrite: bool = False,
    ) -> Record:
        """Resume the run that is here, or list the images and begin one.

        Args:
            options: See `Record`; `options["inputs"]["paths"]` is what gets listed.
            machine: Called with the number of images where a run begins, for `Record.machine`.
            on_found: Called now and then with the number of images listed so far.
            overwrite: Whether an unfinished run with other options, or a damaged one, gives way.

        Raises:
            ResumeError: If the run that is here has other options, or is damaged.
        """
        options = json.loads(json.dumps(options))  # tuples as the lists that they come back as
        try:
            record = self.read()
            if record is not None:
                self.check(record.options, options)
                self.check_list(record)
                return record
        except ResumeError:
            if not overwrite:
                raise
            self.discard()
        fresh = self.path / "sources.new"
        inputs, skipped = options["inputs"], Skipped()
        strict = inputs.get("strict", False)
        files = expand(inputs["paths"], strict=strict, skipped=skipped, apart=self.path)
        manifest = replace(write_manifest(fresh, files, on_found), skipped=str(skipped))
        put_in_place(fresh, self.sources)
        self.journal.unlink(missing_ok=True)
        record = Record(options, json.loads(json.dumps(machine(manifest.count))), manifest)
        fresh.write_text(record.to_json(), "utf-8")
        put_in_place(fresh, self._record)
        return record

    def check(
        self, found: dict[str, Any], wanted: dict[str, Any], but: Collection[str] = ()
    ) -> None:
        """Refuse to resume where options differ, other than those in `but`.

        Raises:
            ResumeError: If any does.
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


def carry_out(
    folder: RunFolder,
    record: Record,
    compute: Callable[[int, int], Generator[Batch, None, None]],
    on_progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Do what is not done yet.

    Args:
        folder: Of the run, locked.
        record: From `RunFolder.begin`.
        compute: Called with the positions of the first image to do and after the last one.
        on_progress: Called after each batch with the images done and to do.

    Returns:
        What the run came to.
    """
    first, stop = record.bounds
    with writing(folder.path):
        journal = Journal(folder.journal, first, record.run)
    with journal:
        start = journal.position
        if start < stop:
            if on_progress is not None:
                on_progress(start - first, stop - first)
            with contextlib.closing(compute(start, stop)) as done:  # ends workers at any event
                for batch in done:
                    with writing(folder.path):
                        journal.append(batch)
                    if on_progress is not None:
                        on_progress(journal.position - first, stop - first)
        images = record.manifest.count
        return Summary(
            stop - first, journal.failed, start - first, images, folder.path,
            record.manifest.skipped,
        )  # fmt: skip


def run_to_table(
    folder: RunFolder,
    options: dict[str, Any],
    compute: Callable[[RunFolder, Record, int, int], Generator[Batch, None, None]],
    write: Callable[[Path, Iterator[Any]], object],
    *,
    machine: Callable[[int], dict[str, Any]] | None = None,
    overwrite: bool = False,
    on_found: Callable[[int], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Do a run whose batches carry details instead of numbers, from its list to its table.

    Whatever stops it, the same call resumes after the last finished batch, and the table comes
    out byte for byte as it would have without the stop.

    Args:
        folder: Of the run.
        options: See `Record`; with `inputs` and `batch_size`.
        compute: Yields the batches between two positions of the list.
        write: Called with the details of all images; puts the table in place, by way of the
            file that it is given.
        machine: See `RunFolder.begin`.
        overwrite: Whether an existing table is replaced, and an unfinished run with other options
            thrown away.
        on_found: Called now and then with the number of images listed so far.
        on_progress: Called after each batch with the images done and to do.

    Returns:
        What the run came to. With no image at all, no table is written.

    Raises:
        ResumeError: If an unfinished run with other options is there, or another process works.
        OutputError: If the table exists, the disk is full or it cannot be written.
    """
    with folder.locked(overwrite=overwrite):
        with writing(folder.path):
            record = folder.begin(options, machine or (lambda _: {}), on_found, overwrite=overwrite)
        summary = carry_out(
            folder, record, lambda start, stop: compute(folder, record, start, stop), on_progress
        )
        if summary.images:
            with writing(folder.output):
                write(folder.table, (d for b in folder.batches(record) for d in b.details))
    folder.remove()
    return replace(summary, place=folder.output)


def in_batches(
    items: Iterable[_Item], first: int, size: int, row: Callable[[_Item], tuple[str, Any]]
) -> Generator[Batch, None, None]:
    """Batches for `run_to_table`.

    Args:
        items: What there is to say of each image, in order.
        first: Position of the first image.
        size: Images of a batch.
        row: Gives the error and the details of an image.

    Yields:
        Batches without numbers.
    """
    remaining = iter(items)
    while chunk := [row(item) for item in itertools.islice(remaining, size)]:
        errors, details = zip(*chunk, strict=True)
        yield Batch(first, errors, details=details)
        first += len(chunk)

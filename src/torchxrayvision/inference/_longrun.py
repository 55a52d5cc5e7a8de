"""Runs of any length: into a file, resumable after any stop, in shards if wanted."""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
import re
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from torchxrayvision import __version__
from torchxrayvision.errors import ResumeError, XRVWarning
from torchxrayvision.inference._choose import Choice, choose_engine, open_engine
from torchxrayvision.inference._disk import writing
from torchxrayvision.inference._engine import input_size
from torchxrayvision.inference._journal import Journal, replay
from torchxrayvision.inference._manifest import read_manifest
from torchxrayvision.inference._pipeline import batches, first_images, results_of
from torchxrayvision.inference._resume import RunFolder, Shard, describe_inputs, fingerprint
from torchxrayvision.inference._writers import check_format, columns_of, open_writer
from torchxrayvision.models import check_output_kind, get_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torchxrayvision.inference._pipeline import Reading
    from torchxrayvision.inference._resume import Record
    from torchxrayvision.models import XRayClassifier

__all__ = ["Summary", "join_shards", "predict_to_file"]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run came to.

    Args:
        total: Images, of the shard if it is one.
        failed: Those that ended in an error.
        resumed: Those that an earlier run had finished.
        images: Images of the whole list.
        place: The table, or the folder of a finished shard.
    """

    total: int
    failed: int
    resumed: int
    images: int
    place: Path


def predict_to_file(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    model: str | XRayClassifier,
    output: str | os.PathLike[str],
    *,
    kind: str | None = None,
    embeddings: bool = False,
    batch_size: int = 8,
    engine: str = "auto",
    precision: str = "exact",
    device: str | torch.device | None = None,
    shard: Shard | None = None,
    restart: bool = False,
    reading: Reading | None = None,
    on_found: Callable[[int], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Predict the findings of any number of radiographs into a table.

    There is one row an image, in the order of the list that is made when the run begins. Whatever
    stops the run, the same call goes on after the last finished batch, and the table comes out
    byte for byte as it would have without the stop. Until it is complete the rows are in the
    folder `<output>.part`.

    Args:
        paths: What `expand` takes: files, folders, patterns, lists, archives.
        model: Name of published weights, or a model.
        output: The table, ending in `.csv`, `.parquet` or `.json`.
        kind: `"logit"`, `"probability"` or `"operating-point"`; None for the model's default.
        embeddings: Whether rows carry the features.
        batch_size: Images that go through the network together.
        engine: `"torch"`, `"onnx"`, `"openvino"`, or `"auto"` for the fastest here.
        precision: `"exact"`, or `"fast"` for probabilities within 0.01 of it.
        device: Where the network runs; None leaves it where it is.
        shard: Do this part only; `join_shards` makes the table of all.
        restart: Throw the rows of an unfinished run away.
        reading: How files are read.
        on_found: Called now and then with the number of images listed so far.
        on_progress: Called after each batch with the images done and to do.

    Returns:
        What the run came to. With no image at all, no table is written.

    Raises:
        ResumeError: If an unfinished run with other options is there, or another process works.
        OutputError: If the disk is full or the table cannot be written; rows are kept.
        StalledError: If so many files hang that the storage must be the cause; rows are kept.
        UnknownNameError: If weights, kind, engine or the ending are unknown.
    """
    target = Path(output)
    check_format(target)
    net = get_model(model) if isinstance(model, str) else model
    net = net.eval() if device is None else net.eval().to(device)
    wanted = net.default_output if kind is None else check_output_kind(kind)
    listed = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    options = {
        "inputs": describe_inputs(listed),
        "model": fingerprint(net),
        "resolution": input_size(net),
        "columns": columns_of(net.targets, net.trained),
        "output": wanted,
        "embeddings": embeddings,
        "batch_size": batch_size,
        "engine": engine,
        "precision": precision,
        "shard": None if shard is None else [shard.index, shard.count],
    }

    folder = RunFolder(target, shard)

    def machine(count: int) -> dict[str, Any]:
        size = max(1, min(batch_size, count))
        chosen = choose_engine(
            net, size, engine, precision, images=count,
            sample=lambda: first_images(read_manifest(folder.sources), input_size(net), size),
        )  # fmt: skip
        return {**_machine(), "threads": torch.get_num_threads(), "engine": asdict(chosen)}

    with folder.locked():
        if restart:
            folder.discard()
        with writing(folder.path):
            record = folder.begin(options, machine, on_found)
        summary = _predict(folder, record, net, reading, on_progress)
        if shard is None and summary.images:
            _write_table([folder], record, target)
    if shard is None or not summary.images:
        folder.remove()
        return replace(summary, place=target)
    return summary


def _machine() -> dict[str, Any]:
    return {
        "torchxrayvision": __version__,
        "torch": torch.__version__,
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
    }


def _warn_of_another(machine: dict[str, Any]) -> None:
    changed = [
        f"{k} {machine.get(k)}, now {v}" for k, v in _machine().items() if machine.get(k) != v
    ]
    if changed:
        warnings.warn(
            f"going on with a run that was begun elsewhere ({'; '.join(changed)}); the last digits "
            "of the rows to come may differ from those of a run in one piece",
            XRVWarning,
            stacklevel=4,
        )


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch use as many threads as when the run began: sums depend on how they are split."""
    before = torch.get_num_threads()
    if count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count != before:
            torch.set_num_threads(before)


def _predict(
    folder: RunFolder,
    record: Record,
    net: XRayClassifier,
    reading: Reading | None,
    on_progress: Callable[[int, int], None] | None,
) -> Summary:
    """Do what is not done yet."""
    options, images = record.options, record.manifest.count
    first, stop = _bounds(record)
    with writing(folder.path):
        journal = Journal(folder.journal, first)
    with journal:
        start = journal.position
        if first < start < stop:
            _warn_of_another(record.machine)
        if start < stop:
            with _threads(record.machine["threads"]):
                engine = open_engine(
                    net, options["output"], _batch_size(record), Choice(**record.machine["engine"])
                )
                if on_progress is not None:
                    on_progress(start - first, stop - first)
                sources = read_manifest(folder.sources, start, stop)
                done = batches(
                    engine, sources, first=start, reading=reading, features=options["embeddings"]
                )
                with contextlib.closing(done):  # ends the workers, whatever happens here
                    for _, batch in done:
                        with writing(folder.path):
                            journal.append(batch)
                        if on_progress is not None:
                            on_progress(journal.position - first, stop - first)
        return Summary(stop - first, journal.failed, start - first, images, folder.path)


def _batch_size(record: Record) -> int:
    batch_size: int = record.options["batch_size"]
    return max(1, min(batch_size, record.manifest.count))


def _bounds(record: Record) -> tuple[int, int]:
    shard = record.options["shard"]
    part = Shard(1, 1) if shard is None else Shard(*shard)
    return part.bounds(record.manifest.count, _batch_size(record))


def _write_table(folders: Sequence[RunFolder], record: Record, target: Path) -> None:
    """Turn the finished batches of all folders, in order, into the table."""
    columns, embeddings = record.options["columns"], record.options["embeddings"]
    place = folders[0]
    with (
        writing(target),
        open_writer(target, columns, embeddings, part=place.table) as writer,
    ):
        sources = read_manifest(place.sources)
        for folder in folders:
            for batch in replay(folder.journal):
                chunk = itertools.islice(sources, len(batch.errors))
                for result in results_of(chunk, batch):
                    writer.write(result)


def join_shards(output: str | os.PathLike[str]) -> Summary:
    """Make the table of a run that was done in shards, as it would be without them.

    Args:
        output: The table that the shards were given.

    Returns:
        What all of them came to; their folders are removed.

    Raises:
        ResumeError: If a shard is missing or unfinished, or they do not belong together.
        OutputError: If the table cannot be written; the shards are kept.
    """
    target = Path(output)
    check_format(target)
    shards = _all_shards(target)
    folders = [RunFolder(target, shard) for shard in shards]
    with contextlib.ExitStack() as stack:
        for folder in folders:
            stack.enter_context(folder.locked())
        records = [_recorded(folder) for folder in folders]
        _check_one_run(folders, records)
        failed = sum(_finished(f, r) for f, r in zip(folders, records, strict=True))
        _write_table(folders, records[0], target)
    for folder in folders:
        folder.remove()
    count = records[0].manifest.count
    return Summary(count, failed, count, count, target)


def _all_shards(target: Path) -> list[Shard]:
    """The shards whose folders lie beside the table, all of them or an error."""
    pattern = re.compile(re.escape(target.name) + r"\.part-(\d+)-of-(\d+)")
    names = [p.name for p in target.parent.iterdir()] if target.parent.is_dir() else []
    found = {(int(m[1]), int(m[2])) for m in map(pattern.fullmatch, names) if m}
    counts = sorted({count for _, count in found})
    if len(counts) != 1:
        what = f"shards of {' and of '.join(map(str, counts))}" if counts else "no shard"
        msg = f"{what} beside {target}; the folders of one run are named {target.name}.part-1-of-8"
        raise ResumeError(msg)
    count = counts[0]
    missing = [f"{i}/{count}" for i in range(1, count + 1) if (i, count) not in found]
    if missing:
        msg = f"{target}: shard {', '.join(missing)} is missing; run it with --shard"
        raise ResumeError(msg)
    return [Shard(i, count) for i in range(1, count + 1)]


def _recorded(folder: RunFolder) -> Record:
    record = folder.read()
    if record is None:
        msg = f"{folder.path} has not begun; run its command again"
        raise ResumeError(msg)
    return record


def _check_one_run(folders: Sequence[RunFolder], records: Sequence[Record]) -> None:
    first = records[0]
    if any(record.manifest != first.manifest for record in records):
        counts = ", ".join(str(record.manifest.count) for record in records)
        msg = (
            f"the shards were cut from different lists ({counts} images); give each the same list "
            "with @list.txt, and run again those that differ"
        )
        raise ResumeError(msg)
    for folder, record in zip(folders, records, strict=True):
        folder.check(first.options, record.options, but=("shard", "inputs"))


def _finished(folder: RunFolder, record: Record) -> int:
    """Images that failed in a shard, which must be finished."""
    first, stop = _bounds(record)
    position, failed = first, 0
    for batch in replay(folder.journal):
        position = batch.first + len(batch.errors)
        failed += sum(map(bool, batch.errors))
    if position < stop:
        msg = f"{folder.path} is at {position - first:,} of {stop - first:,}; finish it first"
        raise ResumeError(msg)
    return failed

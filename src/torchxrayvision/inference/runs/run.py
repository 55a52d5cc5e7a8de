"""Runs of any length: into a file, resumable after any stop, in shards if wanted."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchxrayvision.errors import ResumeError
from torchxrayvision.inference.engines.base import input_size
from torchxrayvision.inference.prediction import borrowed, results_of
from torchxrayvision.inference.runs.compute import Here
from torchxrayvision.inference.runs.folder import (
    Journal,
    RunFolder,
    Shard,
    describe_inputs,
    fingerprint,
    read_manifest,
    replay,
    writing,
)
from torchxrayvision.inference.runs.writers import check_format, columns_of, open_writer
from torchxrayvision.models import check_output_kind, get_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import torch

    from torchxrayvision.inference.cluster.ray import RayCluster
    from torchxrayvision.inference.runs.compute import Runner
    from torchxrayvision.inference.runs.folder import Record
    from torchxrayvision.inputs import ReadOptions
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
    reading: ReadOptions | None = None,
    cluster: RayCluster | None = None,
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
        model: Name of published weights, or a model, which is afterwards as it was.
        output: The table, ending in `.csv`, `.parquet` or `.json`.
        kind: `"logit"`, `"probability"` or `"operating-point"`; None for the model's default.
        embeddings: Whether rows carry the features.
        batch_size: Images that go through the network together.
        engine: `"torch"`, `"onnx"`, `"openvino"`, or `"auto"` for the fastest here.
        precision: `"exact"`, or `"fast"` for probabilities within 0.01 of it.
        device: Where the network runs meanwhile; None leaves it where it is, and takes the GPUs of
            a cluster.
        shard: Do this part only; `join_shards` makes the table of all.
        restart: Throw the rows of an unfinished run away.
        reading: How files are read.
        cluster: Compute on the nodes of a Ray cluster, see `RayCluster`; None for this process.
        on_found: Called now and then with the number of images listed so far.
        on_progress: Called after each batch with the images done and to do.

    Returns:
        What the run came to. With no image at all, no table is written.

    Raises:
        ResumeError: If an unfinished run with other options is there, or another process works.
        OutputError: If the disk is full or the table cannot be written; rows are kept.
        StalledError: If so many files hang that the storage must be the cause; rows are kept.
        ClusterError: If the nodes of the cluster cannot do it; rows are kept.
        UnknownNameError: If weights, kind, engine or the ending are unknown.
    """
    target = Path(output)
    check_format(target)
    net = get_model(model) if isinstance(model, str) else model
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

    def machine(images: int) -> dict[str, Any]:
        return runner.machine(options, images, folder.sources)

    with folder.locked():
        if restart:
            folder.discard()
        with (
            borrowed(net, device if cluster is None else None),
            _runner(cluster, net, reading, device) as runner,
        ):
            with writing(folder.path):
                record = folder.begin(options, machine, on_found)
            summary = _predict(folder, record, runner, on_progress)
        if shard is None and summary.images:  # a cluster is free again meanwhile
            _write_table([folder], record, target)
    if shard is None or not summary.images:
        folder.remove()
        return replace(summary, place=target)
    return summary


@contextlib.contextmanager
def _runner(
    cluster: RayCluster | None,
    net: XRayClassifier,
    reading: ReadOptions | None,
    device: str | torch.device | None,
) -> Iterator[Runner]:
    """What computes the batches; a cluster is left again at the end."""
    if cluster is None:
        yield Here(net, reading)
        return
    from torchxrayvision.inference.cluster.ray import on_ray

    with on_ray(cluster, net, reading, device) as runner:
        yield runner


def _predict(
    folder: RunFolder,
    record: Record,
    runner: Runner,
    on_progress: Callable[[int, int], None] | None,
) -> Summary:
    """Do what is not done yet."""
    first, stop = record.bounds
    with writing(folder.path):
        journal = Journal(folder.journal, first)
    with journal:
        start = journal.position
        if start < stop:
            if on_progress is not None:
                on_progress(start - first, stop - first)
            done = runner.batches(record, folder.sources, start, stop)
            with contextlib.closing(done):  # ends the workers, whatever happens here
                for batch in done:
                    with writing(folder.path):
                        journal.append(batch)
                    if on_progress is not None:
                        on_progress(journal.position - first, stop - first)
        images = record.manifest.count
        return Summary(stop - first, journal.failed, start - first, images, folder.path)


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
    first, stop = record.bounds
    position, failed = first, 0
    for batch in replay(folder.journal):
        position = batch.first + len(batch.errors)
        failed += sum(map(bool, batch.errors))
    if position < stop:
        msg = f"{folder.path} is at {position - first:,} of {stop - first:,}; finish it first"
        raise ResumeError(msg)
    return failed

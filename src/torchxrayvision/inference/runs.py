"""Runs of any length: into a file, resumable after any stop, in shards or on a cluster."""

from __future__ import annotations

import contextlib
import itertools
import json
import platform
import re
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torchxrayvision import __version__
from torchxrayvision.errors import (
    DeviceError,
    GraphError,
    ResumeError,
    XRVWarning,
    caller_stacklevel,
)
from torchxrayvision.inference.engines.graph import (
    Graph,
    choose,
    fingerprint_of,
    open_classifier,
    ready,
    worth_measuring,
)
from torchxrayvision.inference.engines.named import named_or_given
from torchxrayvision.inference.engines.runtime import (
    BATCH,
    Choice,
    Plan,
    device_names,
    input_size,
    usable_threads,
)
from torchxrayvision.inference.prediction import (
    batches,
    calibrated,
    check_mode,
    columns_of,
    first_images,
    open_writer,
    results_of,
)
from torchxrayvision.inputs import ReadOptions
from torchxrayvision.provenance import Provenance
from torchxrayvision.runs import (
    RunFolder,
    carry_out,
    check_format,
    describe_inputs,
    read_manifest,
    writing,
)
from torchxrayvision.runs import Shard as Shard  # exported by the package
from torchxrayvision.runs import Summary as Summary
from torchxrayvision.runs import parse_shard as parse_shard
from torchxrayvision.screening import reference_named

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from torchxrayvision.calibration import Calibration
    from torchxrayvision.inference.cluster.ray import RayCluster
    from torchxrayvision.inference.engines.runtime import Devices
    from torchxrayvision.inputs import InputFile, Paths
    from torchxrayvision.models import XRayClassifier
    from torchxrayvision.runs import Batch, Record


class Runner(Protocol):
    """What computes batches. The bits depend on the machine alone, not on the runner."""

    def machine(self, options: dict[str, Any], images: int, listed: Path) -> dict[str, Any]:
        """What a run that begins is computed with, for `Record.machine`.

        Args:
            options: See `Record`.
            images: How many there are.
            listed: The list, to try engines on the first ones.
        """

    def batches(
        self, record: Record, listed: Path, start: int, stop: int
    ) -> Generator[Batch, None, None]:
        """Compute the images from `start`, where a batch begins, up to `stop`, in order."""


class LocalRunner:
    """This process, with a network in evaluation mode on its device, or its graph."""

    def __init__(
        self,
        net: XRayClassifier | Graph,
        reading: ReadOptions | None,
        *,
        grows: bool = False,
        devices: tuple[str, ...] = (),
    ) -> None:
        self._net = net
        self._reading = reading or ReadOptions()
        self._grows = grows
        self._devices = devices

    def machine(self, options: dict[str, Any], images: int, listed: Path) -> dict[str, Any]:
        """See `Runner`."""
        self._net = worth_measuring(self._net, images)
        return plan_environment(
            self._net,
            options,
            images,
            read_manifest(listed),
            self._reading,
            grows=self._grows,
            devices=self._devices,
        )

    def batches(
        self, record: Record, listed: Path, start: int, stop: int
    ) -> Generator[Batch, None, None]:
        """See `Runner`."""
        changed = environment_changes(record.machine, environment(self._net, self._devices))
        if start > record.bounds[0] and changed:
            warnings.warn(
                f"resuming a run that was begun elsewhere ({'; '.join(changed)}); the last "
                "digits of the rows to come may differ from those of a run in one piece",
                XRVWarning,
                stacklevel=caller_stacklevel(),
            )
        choice, count = Choice(**record.machine["engine"]), record.machine["threads"]
        net = self._net
        if isinstance(net, Graph) and net.file_for(choice) is None and net.load is not None:
            net = net.load()  # the run was begun with torch
        with threads(net, count):
            kind = record.options["output"]
            plan = Plan(self._grows, stop - start, self._devices)
            engine = open_classifier(net, kind, record.batch_size, choice, count, plan)
            done = batches(
                engine,
                read_manifest(listed, start, stop),
                first=start,
                reading=self._reading,
                features=record.options["embeddings"],
                check=record.options["check"],
                reference=record.options.get("reference", {}).get("name"),
                precision=record.options["precision"],
            )
            # Ends workers, whatever happens here: those that read, then those that compute.
            with contextlib.closing(engine), contextlib.closing(done):
                for _, batch in done:
                    yield batch


def plan_environment(
    net: XRayClassifier | Graph,
    options: dict[str, Any],
    images: int,
    sources: Iterable[InputFile],
    reading: ReadOptions,
    *,
    grows: bool = False,
    devices: tuple[str, ...] = (),
) -> dict[str, Any]:
    """This machine, its threads and the engine for a run that begins, tried on the first images."""
    size = max(1, min(options["batch_size"], images))
    chosen = choose(
        net, size, options["engine"], options["precision"], images=images, grows=grows,
        sample=lambda: first_images(sources, input_size(net), size, reading),
    )  # fmt: skip
    return {
        **environment(net, devices), "threads": _threads(net), "engine": asdict(chosen),
        "devices": list(devices or _own_device(net)),
    }  # fmt: skip


def _own_device(net: XRayClassifier | Graph) -> list[str]:
    weight = None if isinstance(net, Graph) else next(net.parameters(), None)
    return ["cpu" if weight is None else str(weight.device)]


def _kinds(net: XRayClassifier | Graph, devices: Sequence[str]) -> str:
    """What computes, as far as the last bits depend on it."""
    kinds = set()
    for name in devices or _own_device(net):
        kind = name.partition(":")[0]
        if kind == "cuda":
            import torch

            kind = torch.cuda.get_device_name(name)
        kinds.add(kind)
    return " and ".join(sorted(kinds))


def _threads(net: XRayClassifier | Graph) -> int:
    if isinstance(net, Graph):
        return usable_threads()
    import torch

    return torch.get_num_threads()


def environment(
    net: XRayClassifier | Graph | None = None, devices: Sequence[str] = ()
) -> dict[str, Any]:
    """What the last bits of numbers depend on, of this process.

    Args:
        net: What is run; None for a network that is elsewhere.
        devices: Of several, their names.
    """
    device = {} if net is None else {"device": _kinds(net, devices)}
    if isinstance(net, Graph):
        return {**net.environment(), **device}
    import torch

    return {
        "torchxrayvision": __version__,
        "torch": torch.__version__,
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        **device,
    }


def environment_changes(machine: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """How the machine that a run began on differs from what `environment` found, a phrase each."""
    known = {"device": "cpu", **machine}  # of runs that were begun before it was written
    return [f"{k} {known.get(k)}, now {v}" for k, v in found.items() if known.get(k) != v]


@contextlib.contextmanager
def threads(net: XRayClassifier | Graph, count: int) -> Iterator[None]:
    """Let torch use as many threads as the run began with: sums depend on how they are split."""
    if isinstance(net, Graph):  # which is told when it is opened
        yield
        return
    import torch

    before = torch.get_num_threads()
    if count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count != before:
            torch.set_num_threads(before)


def predict_to_file(
    paths: Paths,
    model: str | XRayClassifier | Graph,
    output: str | os.PathLike[str],
    *,
    kind: str | None = None,
    embeddings: bool = False,
    batch_size: int | None = None,
    engine: str = "auto",
    precision: str = "exact",
    device: Devices = None,
    check: str = "note",
    reference: str | None = None,
    shard: Shard | None = None,
    restart: bool = False,
    overwrite: bool = False,
    reading: ReadOptions | None = None,
    cluster: RayCluster | None = None,
    calibration: Calibration | str | os.PathLike[str] | None = None,
    on_found: Callable[[int], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Predict the findings of any number of radiographs into a table.

    There is one row per image, in the order of the list that is made when the run begins. Whatever
    stops the run, the same call resumes after the last finished batch, and the table comes out
    byte for byte as it would have without the stop. Until it is complete the rows are in the
    folder `<output>.part`.

    Args:
        paths: What `expand` takes: files, folders, patterns, lists, archives.
        model: Name of published weights, or a model, which is afterwards as it was, or a `Graph`.
        output: The table, ending in `.csv`, `.parquet` or `.json`.
        kind: `"logit"`, `"probability"` or `"operating-point"`; None for the model's default.
        embeddings: Whether rows carry the features.
        batch_size: Images that go through the network together; None for 8, from which batches
            grow on a CUDA device as long as that makes it faster.
        engine: `"torch"`, `"onnx"`, `"openvino"`, or `"auto"` for the fastest here.
        precision: `"exact"`, or `"fast"` for probabilities within 0.01 of it.
        device: Where the network runs meanwhile; None leaves it where it is, and takes the GPUs of
            a cluster. Several as in `predict`; a run may be resumed on others.
        check: See `predict`.
        reference: See `predict`; every node of a cluster needs the file under this name.
        shard: Do this part only; `join_shards` makes the table of all.
        restart: Throw the rows of an unfinished run away, whatever its options.
        overwrite: Replace an existing table, and throw away an unfinished run that has other
            options; one with the same options resumes.
        reading: How files are read.
        cluster: Compute on the nodes of a Ray cluster, see `RayCluster`; None for this process.
        calibration: See `predict`.
        on_found: Called now and then with the number of images listed so far.
        on_progress: Called after each batch with the images done and to do.

    Returns:
        What the run came to. With no image at all, no table is written.

    Raises:
        ResumeError: If an unfinished run with other options is there, or another process works.
        OutputError: If the table exists, the disk is full or it cannot be written; rows are kept.
        StalledError: If so many files hang that the storage must be the cause; rows are kept.
        ClusterError: If the nodes of the cluster cannot do it; rows are kept.
        UnknownNameError: If weights, kind, engine or the ending are unknown.
        CalibrationError: If the calibration is for other weights or other images.
        DeviceError: If one of several devices cannot be used, or fails; rows are kept.
    """
    target = Path(output)
    check_format(target)
    devices = device_names(device)
    if cluster is not None and len(devices) > 1:
        raise DeviceError(", ".join(devices), "a cluster takes cpu or cuda for all of its nodes")
    if cluster is not None and isinstance(model, str):
        from torchxrayvision.models import get_model

        model = get_model(model)
    with named_or_given(model, engine, precision, device) as net:
        made, kind = calibrated(calibration, net, kind)
        options = {
            "inputs": describe_inputs(paths, reading or ReadOptions()),
            "model": fingerprint_of(net),
            "weights": net.weights,
            "resize_route": net.resize_route,
            "resolution": input_size(net),
            "columns": columns_of(net.targets, net.trained),
            "output": net.check_kind(kind),
            "embeddings": embeddings,
            "batch_size": batch_size or BATCH,
            "engine": engine,
            "precision": precision,
            "check": check_mode(check),
            "shard": None if shard is None else [shard.index, shard.count],
        }
        far = reference_named(reference)
        if far is not None:
            options["reference"] = {"name": reference, "sha256": far.digest}
        if texts := getattr(net, "prompts", None):  # what a zero-shot network compares with
            options["prompts"] = {
                name: {"positive": list(one.positive), "negative": list(one.negative)}
                for name, one in texts.items()
            }
        if made is not None:  # as JSON gives it back, for a run that resumes compares it
            options["calibration"] = json.loads(json.dumps(made.to_dict()))
        return _carry_out(
            net, RunFolder(target, shard), options, reading, devices, cluster,
            grows=batch_size is None, restart=restart, overwrite=overwrite, on_found=on_found,
            on_progress=on_progress,
        )  # fmt: skip


def _carry_out(
    net: XRayClassifier | Graph,
    folder: RunFolder,
    options: dict[str, Any],
    reading: ReadOptions | None,
    devices: tuple[str, ...],
    cluster: RayCluster | None,
    *,
    grows: bool,
    restart: bool,
    overwrite: bool,
    on_found: Callable[[int], None] | None,
    on_progress: Callable[[int, int], None] | None,
) -> Summary:
    """Begin or resume a run with these options, up to its table or the end of its shard."""
    target, whole = folder.output, options["shard"] is None

    def machine(images: int) -> dict[str, Any]:
        return runner.machine(options, images, folder.sources)

    with folder.locked(overwrite=overwrite):
        if restart:
            folder.discard()
        with (
            ready(net, devices[0] if devices and cluster is None else None),
            _runner(cluster, net, reading, devices, grows=grows) as runner,
        ):
            with writing(folder.path):
                record = folder.begin(options, machine, on_found, overwrite=overwrite)
            summary = carry_out(
                folder, record,
                lambda start, stop: runner.batches(record, folder.sources, start, stop),
                on_progress,
            )  # fmt: skip
        if whole and summary.images:  # a cluster is free again meanwhile
            _write_table([folder], [record], target)
    if whole or not summary.images:
        folder.remove()
        return replace(summary, place=target)
    return summary


@contextlib.contextmanager
def _runner(
    cluster: RayCluster | None,
    net: XRayClassifier | Graph,
    reading: ReadOptions | None,
    devices: tuple[str, ...],
    *,
    grows: bool,
) -> Iterator[Runner]:
    """What computes the batches; a cluster is left again at the end."""
    if cluster is None:
        yield LocalRunner(net, reading, grows=grows, devices=devices if len(devices) > 1 else ())
        return
    if isinstance(net, Graph):
        raise GraphError(f"{net.path.name}: a cluster takes weights, not a graph")
    with cluster.runner(net, reading, devices[0] if devices else None) as runner:
        yield runner


def _write_table(folders: Sequence[RunFolder], records: Sequence[Record], target: Path) -> None:
    """Turn the finished batches of all folders, in order, into the table."""
    record = records[0]
    options, place = record.options, folders[0]
    made = _calibration_of(options)
    provenance = Provenance(
        command="xrv predict", weights=options["weights"], weights_sha256=options["model"],
        output=options["output"] if made is None else "probability",
        calibration=None if made is None else made.summary(),
        preprocessing={
            "crop": "centre square", "resolution": options["resolution"],
            "resize_route": options["resize_route"],
        },
        options={
            **{
                name: options[name]
                for name in ("batch_size", "precision", "check", "prompts", "reference")
                if name in options
            },
            "engine": record.machine["engine"]["engine"], "torch": record.machine["torch"],
            "devices": record.machine.get("devices", ["cpu"]),
        },
        inputs={"images": record.manifest.count, "names_sha256": record.manifest.digest},
    )  # fmt: skip
    with (
        writing(target),
        open_writer(
            target, options["columns"], options["embeddings"], place.table,
            checked=options["check"] != "off", provenance=provenance, calibration=made,
        ) as writer,
    ):  # fmt: skip
        sources = read_manifest(place.sources)
        for folder, each in zip(folders, records, strict=True):
            for batch in folder.batches(each):
                chunk = itertools.islice(sources, len(batch.errors))
                try:
                    for result in results_of(chunk, batch, made, options["columns"]):
                        writer.write(result)
                except IndexError:  # its checksum is right, and it was not written by this package
                    msg = f"{folder.path} holds rows of another network; give --overwrite"
                    raise ResumeError(msg) from None


def _calibration_of(options: dict[str, Any]) -> Calibration | None:
    """The calibration of a run, which its record holds whole: its file may have changed since."""
    if "calibration" not in options:
        return None
    from torchxrayvision.calibration import Calibration as Record

    return Record.from_dict(options["calibration"])


def join_shards(output: str | os.PathLike[str], *, overwrite: bool = False) -> Summary:
    """Make the table of a run that was done in shards, as it would be without them.

    Args:
        output: The table that the shards were given.
        overwrite: Whether an existing table is replaced.

    Returns:
        What all of them came to; their folders are removed.

    Raises:
        ResumeError: If a shard is missing, damaged or unfinished, or they do not belong together.
        OutputError: If the table exists or cannot be written; the shards are kept.
    """
    target = Path(output)
    check_format(target)
    shards = _all_shards(target)
    folders = [RunFolder(target, shard) for shard in shards]
    with contextlib.ExitStack() as stack:
        for folder in folders:
            stack.enter_context(folder.locked(overwrite=overwrite))
        records = [_recorded(folder) for folder in folders]
        _check_one_run(folders, records)
        failed = sum(_finished(f, r) for f, r in zip(folders, records, strict=True))
        _write_table(folders, records, target)
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
    folder.check_list(record)
    return record


def _check_one_run(folders: Sequence[RunFolder], records: Sequence[Record]) -> None:
    first = records[0]
    if len({(record.manifest.count, record.manifest.digest) for record in records}) > 1:
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
    for batch in folder.batches(record):
        position = batch.stop
        failed += sum(map(bool, batch.errors))
    if position < stop:
        msg = f"{folder.path} is at {position - first:,} of {stop - first:,}; finish it first"
        raise ResumeError(msg)
    return failed

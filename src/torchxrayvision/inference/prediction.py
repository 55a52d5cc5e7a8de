"""From files to results: read, crop, resize, run, calibrate, as rows in memory or one by one."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from dataclasses import dataclass, field, replace
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.errors import ImageReadError, UnknownNameError
from torchxrayvision.inference.engines.graph import (
    choose,
    fingerprint_of,
    open_classifier,
    ready,
    worth_measuring,
)
from torchxrayvision.inference.engines.named import named_or_given
from torchxrayvision.inference.engines.runtime import BATCH, Plan, device_names, input_size
from torchxrayvision.inputs import AIR, Readers, ReadOptions, crop_and_resize, expand
from torchxrayvision.runs import Batch, open_table
from torchxrayvision.screening import quick_check, reference_named

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from torchxrayvision.calibration import Calibration
    from torchxrayvision.files import Provenance
    from torchxrayvision.inference.engines.base import ClassifierEngine
    from torchxrayvision.inference.engines.graph import Graph, GraphEngine
    from torchxrayvision.inference.engines.runtime import Devices
    from torchxrayvision.inputs import InputFile, Paths, Read
    from torchxrayvision.models import XRayClassifier

    Checked = tuple[NDArray[np.float32], str]  # a prepared image and what the screening says
    Engine = ClassifierEngine | GraphEngine
    Classifier = XRayClassifier | Graph

_CHECKS: Final = ("note", "refuse", "off")
_REFUSED: Final = "refused: "


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one file.

    Args:
        path: The file as the user named it.
        error: What went wrong, or an empty string.
        outputs: One number per target, shape (P,) float32, or None after an error.
        embedding: Features, shape (D,) float32, if they were asked for.
        check: What the screening says: `ok`, or `refused:` or `noted:` and the reason; empty
            after an error and where it was not asked.
        cells: With a calibration, its columns instead of those of `outputs`.
    """

    path: str
    error: str
    outputs: NDArray[np.float32] | None = None
    embedding: NDArray[np.float32] | None = None
    check: str = ""
    cells: Mapping[str, Any] = field(default_factory=dict)


def columns_of(findings: Sequence[str], kept: Sequence[bool]) -> dict[str, int]:
    """Name to position of the outputs that get a column.

    Args:
        findings: Names of all outputs.
        kept: For each output, whether it gets one; untrained outputs do not.

    Returns:
        Name of each column to its position among the outputs.
    """
    return {n: i for i, (n, keep) in enumerate(zip(findings, kept, strict=True)) if keep}


class Writer:
    """A table of results that grows by one at a time and takes its name when it is complete.

    Args:
        path: Final name, ending in `.csv`, `.json` or `.parquet`.
        findings: Names of the value columns, with their positions in `Result.outputs`.
        embeddings: Whether results carry embeddings.
        part: Where rows go until then, on the same file system; None for `<name>.part`.
        checked: Whether there is a column `check`.
        file: An open text file that gets CSV or JSON instead, such as standard output.
        provenance: What makes the table.
        calibration: Gives the value columns in place of the outputs.
    """

    def __init__(
        self,
        path: Path,
        findings: dict[str, int],
        embeddings: bool,
        part: Path | None = None,
        file: IO[str] | None = None,
        *,
        checked: bool = False,
        provenance: Provenance | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.findings = findings
        values = dict.fromkeys(findings, "float32")
        if calibration is not None:
            values = calibration.columns(list(findings))
        columns = {"path": "text", "error": "text", **values}
        if checked:
            columns["check"] = "text"
        if embeddings:
            columns["embedding"] = "vector"
        self._table = open_table(path, columns, part, file, provenance=provenance)

    def write(self, result: Result) -> None:
        """Add one row."""
        row: dict[str, Any] = {"path": result.path, "error": result.error, "check": result.check}
        if result.cells:
            row |= result.cells
        elif result.outputs is not None:
            row |= {name: result.outputs[index] for name, index in self.findings.items()}
        self._table.write(row | {"embedding": result.embedding})

    def close(self) -> None:
        """Write what is held back and close the file."""
        self._table.close()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *ended: Any) -> None:
        self._table.__exit__(*ended)


CsvWriter = open_writer = Writer


def batches(
    engine: Engine,
    files: Iterable[InputFile],
    *,
    first: int = 0,
    reading: ReadOptions | None = None,
    features: bool = False,
    check: str = "note",
    reference: str | None = None,
    precision: str = "exact",
) -> Generator[tuple[list[InputFile], Batch], None, None]:
    """Predict every file, batch by batch, in order.

    A batch is `engine.batch_size` files that follow each other, readable or not, so that an
    image has the same place in the same batch wherever a run begins, unless batches grow.

    Args:
        engine: Ready to run.
        files: Consumed lazily; at most a few batches are in memory.
        first: Position of the first file in the whole list, a multiple of the batch size.
        reading: How files are read.
        features: Whether batches carry the features.
        check: See `predict`.
        reference: See `predict`.
        precision: See `predict`.

    Yields:
        The files of a batch and what came of them.
    """
    with open_readers(engine.size, reading, check, reference, precision) as readers:
        yield from batches_from(readers, engine, files, first=first, features=features)


def check_mode(name: str) -> str:
    """The name, if it says how the screening is used.

    Raises:
        UnknownNameError: If it is neither `"note"`, `"refuse"` nor `"off"`.
    """
    if name not in _CHECKS:
        raise UnknownNameError("check", name, _CHECKS)
    return name


def open_readers(
    size: int,
    options: ReadOptions | None,
    check: str = "off",
    reference: str | None = None,
    precision: str = "exact",
) -> Readers[InputFile, Checked]:
    """Workers that read images of one side for an engine; to be closed.

    `"fast"` decodes no further than that side needs.
    """
    options = options or ReadOptions()
    if precision == "fast":
        options = replace(options, least_side=size)
    far = None if check == "off" else reference_named(reference)

    def make(file: InputFile, read: Read) -> Checked:
        raster = read(file)
        square = crop_and_resize(file, raster, size)
        found = "" if check == "off" else quick_check(file, raster, square, far)
        if check == "refuse" and found.startswith(_REFUSED):
            raise ImageReadError(file.path, found)
        return square, found

    return Readers(make, options)


def batches_from(
    readers: Readers[InputFile, Checked],
    engine: Engine,
    files: Iterable[InputFile],
    *,
    first: int = 0,
    features: bool = False,
) -> Generator[tuple[list[InputFile], Batch], None, None]:
    """As `batches`, with workers from `open_readers` that stay open."""
    loaded = readers.map(files, ahead=lambda: 2 * engine.batch_size + readers.workers)
    begun: deque[tuple[list[InputFile], Callable[[], Batch]]] = deque()
    while chunk := list(itertools.islice(loaded, engine.batch_size)):
        finish = _begin(engine, first, [image for _, image in chunk], features)
        begun.append(([file for file, _ in chunk], finish))
        first += len(chunk)
        if len(begun) > engine.overlaps:
            done, finish = begun.popleft()
            yield done, finish()
    while begun:
        done, finish = begun.popleft()
        yield done, finish()


def _begin(
    engine: Engine, first: int, images: list[Checked | str], features: bool
) -> Callable[[], Batch]:
    """Begin with a batch; what it gives waits for its end."""
    count = len(images)
    errors = tuple(image if isinstance(image, str) else "" for image in images)
    good = [i for i, error in enumerate(errors) if not error]
    finish: Callable[[], tuple[NDArray[np.float32], NDArray[np.float32]]] | None = None
    if good:
        engine.input[...] = AIR
        for i in good:
            engine.input[i] = images[i][0]
        finish = engine.start()
    checks = tuple(
        (image if image.startswith(_REFUSED) else "") if isinstance(image, str) else image[1]
        for image in images
    )

    def batch() -> Batch:
        values = np.full((count, engine.outputs), np.nan, np.float32)
        vectors = np.full((count, engine.width), np.nan, np.float32)
        if finish is not None:
            all_values, all_vectors = finish()
            values[good], vectors[good] = all_values[good], all_vectors[good]
        return Batch(first, errors, values, vectors if features else None, checks)

    return batch


def first_images(
    files: Iterable[InputFile], size: int, count: int, reading: ReadOptions
) -> NDArray[np.float32]:
    """At most `count` images to compare engines on, shape (n, 1, size, size).

    The first readable ones, or made ones if there are none; read by one worker, as a bad one must
    not end the run here either.
    """
    tried = (f for f in itertools.islice(files, 4 * count) if f.member is None
             or not f.member.sequential)  # fmt: skip
    with open_readers(size, replace(reading, workers=1)) as readers:
        loaded = (image for _, image in readers.map(tried, ahead=2))
        images = list(itertools.islice((i[0] for i in loaded if not isinstance(i, str)), count))
    if not images:
        from torchxrayvision.inference.engines.base import example

        return np.asarray(example(size, count))
    return np.stack(images)


def results_of(
    files: Iterable[InputFile],
    batch: Batch,
    calibration: Calibration | None = None,
    findings: Mapping[str, int] | None = None,
) -> Iterator[Result]:
    """A batch as one result per image.

    Args:
        files: The images of the batch, in order.
        batch: What came of them.
        calibration: Applied to the outputs, if any.
        findings: With a calibration: name to position of the outputs that have columns.
    """
    for i, (file, error) in enumerate(zip(files, batch.errors, strict=True)):
        check = batch.details[i]
        if error:
            yield Result(file.given, error, check=check)
        else:
            vector = None if batch.features is None else batch.features[i]
            values = None if batch.outputs is None else batch.outputs[i]
            cells: Mapping[str, Any] = {}
            if calibration is not None and values is not None:
                cells = calibration.row({n: values[j] for n, j in (findings or {}).items()})
            yield Result(file.given, "", values, vector, check, cells)


def preprocessing_of(model: Classifier) -> dict[str, Any]:
    """What is done to images before the network, as tables and calibrations say it.

    Args:
        model: A classifier with an input resolution.

    Returns:
        Names and values, as JSON holds them.
    """
    return {
        "crop": "centre square",
        "resolution": input_size(model),
        "resize_route": model.resize_route,
    }


def calibrated(
    calibration: Calibration | str | os.PathLike[str] | None,
    model: Classifier,
    kind: str | None,
) -> tuple[Calibration | None, str | None]:
    """The calibration for these weights, and the kind of output that it takes.

    Args:
        calibration: It, its file, or None.
        model: Whose outputs it is for.
        kind: What the user asked for.

    Returns:
        The calibration and the kind.

    Raises:
        CalibrationError: If it is for other weights, other images or another kind of output.
    """
    if calibration is None:
        return None, kind
    from torchxrayvision.calibration import Calibration as Record
    from torchxrayvision.errors import CalibrationError

    made = calibration if isinstance(calibration, Record) else Record.load(calibration)
    made.check(fingerprint_of(model), preprocessing_of(model))
    if kind is not None and kind != made.output:
        msg = (
            f"the calibration takes outputs of kind {made.output} and gives probabilities; "
            f"{kind} cannot be asked for with it"
        )
        raise CalibrationError(msg)
    made.columns(list(columns_of(model.targets, model.trained)))
    return made, made.output


def predict(
    paths: Paths,
    model: str | Classifier,
    *,
    output: str | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    device: Devices = None,
    engine: str = "auto",
    precision: str = "exact",
    check: str = "note",
    reference: str | None = None,
    calibration: Calibration | str | os.PathLike[str] | None = None,
) -> pd.DataFrame:
    """Predict the findings of radiographs.

    Each file is read, cropped to its centre square, resized as scikit-image does, and run. For a
    table that does not fit the memory, or a run that may be interrupted, see `predict_to_file`.

    Args:
        paths: What `expand` takes: files, folders, patterns, lists, archives; one or several.
        model: Name of published weights, or a model, which is afterwards as it was, or a `Graph`.
        output: `"logit"`, `"probability"` or `"operating-point"`; None for the model's default.
        batch_size: Images that go through the network together; None for 8, from which batches
            grow on a CUDA device as long as that makes it faster.
        workers: Threads that read images; None for one per processor.
        device: Where the network runs meanwhile; None leaves it where it is. Several, as in
            `["cuda:0", "cuda:1"]` or `"cuda:0,cuda:1"`, or `"all"` accelerators, compute batches
            at the same time.
        engine: `"torch"`, `"onnx"`, `"openvino"`, or `"auto"` for the fastest on this machine.
        precision: `"exact"`, or `"fast"` for probabilities within 0.01 of it.
        check: `"note"` fills a column `check` by the cheap part of the screening: `ok`, or
            `refused:` or `noted:` and the reason, where refused is what `xrv check` would
            refuse. `"refuse"` gives what is refused no numbers. `"off"` does neither.
        reference: What lies far from it is refused too: `"packaged"`, or the file of a
            `screening.Reference`; None for neither.
        calibration: What `xrv calibrate` wrote for these weights, or its record: columns
            `calibrated <finding>` take the place of the outputs, with `call <finding>` and
            `set <finding>` where it holds thresholds and sets.

    Returns:
        One row per file: `path`, `error` (empty if all went well), one float32 column per trained
        finding, NaN after an error, and `check`.

    Raises:
        UnknownNameError: If no such weights, output kind, engine or precision exist.
        CalibrationError: If the calibration is for other weights or other images.
        DependencyError: If the package of the engine is missing.
        RemoteError: If the weights cannot be fetched.
        DeviceError: If one of several devices cannot be used.
    """
    import pandas as pd

    devices = device_names(device)
    with named_or_given(model, engine, precision, device) as net:
        made, output = calibrated(calibration, net, output)
        with ready(net, devices[0] if devices else None):
            results = list(
                predictions(
                    net, list(expand(paths)), kind=output, batch_size=batch_size, engine=engine,
                    precision=precision, reading=ReadOptions(workers=workers), check=check,
                    reference=reference, calibration=made, devices=devices,
                )
            )  # fmt: skip
    table: dict[str, object] = {
        "path": [r.path for r in results],
        "error": [r.error for r in results],
    }
    findings = columns_of(net.targets, net.trained)
    if made is not None:
        for name, form in made.columns(list(findings)).items():
            cells = [r.cells.get(name) for r in results]
            table[name] = pd.Series(cells, dtype="float32" if form == "float32" else "object")
        findings = {}
    for name, index in findings.items():
        values = [float("nan") if r.outputs is None else r.outputs[index] for r in results]
        table[name] = pd.Series(values, dtype="float32")
    if check != "off":
        table["check"] = [r.check for r in results]
    return pd.DataFrame(table)


def predictions(
    model: Classifier,
    files: Sequence[InputFile],
    *,
    kind: str | None = None,
    batch_size: int | None = None,
    engine: str = "auto",
    precision: str = "exact",
    reading: ReadOptions | None = None,
    embeddings: bool = False,
    check: str = "note",
    reference: str | None = None,
    calibration: Calibration | None = None,
    opened: Engine | None = None,
    devices: Sequence[str] = (),
) -> Iterator[Result]:
    """Predict every file, one result each, in order, as they are done.

    Args:
        model: In evaluation mode, on its device; must have an input resolution.
        files: What `expand` gives.
        kind: `"logit"`, `"probability"` or `"operating-point"`; None for the model's default.
        batch_size: See `predict`.
        engine: See `predict`.
        precision: See `predict`.
        reading: How files are read.
        embeddings: Whether results carry the features.
        check: See `predict`.
        reference: See `predict`.
        calibration: For these weights; results carry its `cells`.
        opened: From `open_by_name` for this model and kind, where one serves many calls; `engine`
            and `batch_size` say nothing then, and `precision` only how files are read.
        devices: Names of several that share the batches, the first that of the model.

    Yields:
        One result per file. A file that cannot be read gives a result with an error.
    """
    check_mode(check)
    with contextlib.ExitStack() as stack:
        if opened is None:
            model = worth_measuring(model, len(files))
            plan = Plan(grows=batch_size is None, images=len(files), devices=tuple(devices))
            opened = _opened(
                model, files, kind, batch_size or BATCH, engine, precision, reading, plan
            )
            stack.enter_context(contextlib.closing(opened))
        findings = columns_of(model.targets, model.trained)
        for chunk, batch in batches(
            opened, files, reading=reading, features=embeddings, check=check, reference=reference,
            precision=precision,
        ):  # fmt: skip
            yield from results_of(chunk, batch, calibration, findings)


def _opened(
    model: Classifier,
    files: Sequence[InputFile],
    kind: str | None,
    batch_size: int,
    engine: str,
    precision: str,
    reading: ReadOptions | None,
    plan: Plan,
) -> Engine:
    """A model ready for some files, chosen by them where the engine is."""
    wanted = model.check_kind(kind)
    size = max(1, min(batch_size, len(files)))  # one image must not cost a whole batch
    choice = choose(
        model, size, engine, precision, images=len(files), grows=plan.grows,
        sample=lambda: first_images(files, input_size(model), size, reading or ReadOptions()),
    )  # fmt: skip
    return open_classifier(model, wanted, size, choice, plan=plan)

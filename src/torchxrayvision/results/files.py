"""Objects of one image, their files, and runs over many images that can be resumed."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from torchxrayvision.errors import ImageReadError, counted
from torchxrayvision.files import write_atomically
from torchxrayvision.inference import fingerprint_of
from torchxrayvision.inputs import ReadOptions, reason_of
from torchxrayvision.provenance import Provenance
from torchxrayvision.results.documents import key_objects, structured_report
from torchxrayvision.results.drawings import presentation_state, secondary_capture
from torchxrayvision.results.planes import parametric_map, segmentation
from torchxrayvision.results.readings import ImageReading, check_kinds, making
from torchxrayvision.runs import (
    CsvTable,
    RunFolder,
    describe_inputs,
    in_batches,
    read_manifest,
    run_to_table,
    write_or_reason,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

    from pydicom.dataset import Dataset

    from torchxrayvision.inputs import InputFile
    from torchxrayvision.results.reader import Reader
    from torchxrayvision.runs import Batch, Record, Summary

_TABLE: Final = "results.csv"
_BEHIND: Final = 4  # images whose objects are not written yet while the networks go on


def make_objects(
    reading: ImageReading,
    kinds: Sequence[str] = ("sr", "sc"),
    *,
    segmentation_type: str = "BINARY",
    key_threshold: float = 0.5,
) -> dict[str, list[Dataset]]:
    """The DICOM objects of one image.

    Args:
        reading: What was said of it.
        kinds: Of `KINDS`.
        segmentation_type: See `segmentation`.
        key_threshold: Least number of a finding for which the image is selected (`"ko"`).

    Returns:
        Kind to objects, one each, of `"pm"` one per heat map. There is no `"seg"` without masks,
        no `"pm"` without heat maps, and no `"ko"` where no finding
        reaches the threshold.

    Raises:
        UnknownNameError: If a kind is none of them.
        DependencyError: If highdicom is missing.
        ImageReadError: If the header of the image does not allow an object.
    """
    objects: dict[str, list[Dataset]] = {}
    for kind in check_kinds(kinds):
        if kind == "sr":
            objects[kind] = [structured_report(reading)]
        elif kind == "sc":
            objects[kind] = [secondary_capture(reading)]
        elif kind == "seg" and reading.masks:
            objects[kind] = [segmentation(reading, segmentation_type)]
        elif kind == "gsps":
            objects[kind] = [presentation_state(reading)]
        elif kind == "pm" and reading.heats:
            objects[kind] = [parametric_map(reading, label) for label in reading.heats]
        elif kind == "ko":
            above = [f for f in reading.findings if f.number >= key_threshold]
            if above:
                text = f"{counted(len(above), 'finding')} at or above {key_threshold:g}"
                objects[kind] = [key_objects([reading], text)]
    return objects


def dicom_results(
    path: str | os.PathLike[str],
    reader: Reader,
    kinds: Sequence[str] = ("sr", "sc"),
    **options: Any,
) -> dict[str, list[Dataset]]:
    """All DICOM objects of one file.

    Args:
        path: A DICOM radiograph.
        reader: The networks.
        kinds: See `make_objects`.
        **options: Of `make_objects`.

    Returns:
        Kind to objects; nothing is written.

    Raises:
        ImageReadError: If it is no DICOM radiograph or cannot be read.
        UnknownNameError: If a kind is none of them.
        DependencyError: If highdicom is missing.
    """
    return make_objects(reader.read(path), kinds, **options)


def save_objects(objects: Mapping[str, Sequence[Dataset]], folder: Path) -> dict[str, list[str]]:
    """Write objects as files, each named by its kind and its own SOP Instance UID.

    Args:
        objects: Kind to objects.
        folder: An existing folder.

    Returns:
        Kind to the names of its files.

    Raises:
        OSError: If a file cannot be written.
    """
    names: dict[str, list[str]] = {}
    for kind, several in objects.items():
        for made in several:
            name = f"{kind}-{made.SOPInstanceUID}.dcm"
            with write_atomically(folder / name, durable=False) as part, making(name, kind):
                made.save_as(part, enforce_file_format=True)
            names.setdefault(kind, []).append(name)
    return names


def results_to_folder(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    reader: Reader,
    folder: str | os.PathLike[str],
    kinds: Sequence[str] = ("sr", "sc"),
    *,
    segmentation_type: str = "BINARY",
    key_threshold: float = 0.5,
    reading: ReadOptions | None = None,
    overwrite: bool = False,
    on_found: Callable[[int], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Write the objects of any number of radiographs; whatever stops it, the same call resumes.

    Args:
        paths: See `torchxrayvision.inputs.expand`.
        reader: The networks.
        folder: Gets the objects, named by kind and SOP Instance UID, and `results.csv`, with one
            row per file: `path`, `error`, `check` and the names of its objects by kind.
        kinds: See `make_objects`.
        segmentation_type: See `make_objects`.
        key_threshold: See `make_objects`.
        reading: How files are read.
        overwrite: See `torchxrayvision.inference.predict_to_file`.
        on_found: See `torchxrayvision.inference.predict_to_file`.
        on_progress: See `torchxrayvision.inference.predict_to_file`.

    Returns:
        What the run came to. With no image at all, no table is written.

    Raises:
        UnknownNameError: If a kind is none of them.
        DependencyError: If highdicom is missing.
        ResumeError: If an unfinished run with other options is there, or another process works.
        OutputError: If the table exists, the disk is full or it cannot be written.
    """
    chosen = check_kinds(kinds)
    place = Path(folder)
    listed = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    how = reading or ReadOptions()
    asked: dict[str, Any] = {"segmentation_type": segmentation_type, "key_threshold": key_threshold}
    networks = [reader.classifier, reader.segmenter]
    prints = [None if net is None else fingerprint_of(net) for net in networks]
    options = {
        "inputs": describe_inputs(listed, how), "kinds": list(chosen), **asked,
        "reader": reader.settings(), "batch_size": reader.batch_size, "models": prints,
    }  # fmt: skip
    told = Provenance(
        command="xrv results",
        weights=None if reader.classifier is None else reader.classifier.weights,
        weights_sha256=prints[0],
        calibration=reader.calibrated(),
        options={"kinds": list(chosen), **asked, **reader.settings(), "segmenter": prints[1]},
    )

    def compute(
        run: RunFolder, record: Record, start: int, stop: int
    ) -> Generator[Batch, None, None]:
        place.mkdir(parents=True, exist_ok=True)
        readings = reader.read_all(read_manifest(run.sources, start, stop), how)
        rows = _written(readings, lambda said: make_objects(said, chosen, **asked), place)
        with contextlib.closing(rows):
            yield from in_batches(
                rows, start, record.batch_size, lambda row: (str(row["error"]), row)
            )

    def write(part: Path, rows: Iterator[dict[str, Any]]) -> None:
        columns = dict.fromkeys(["path", "error", "check", *chosen], "text")
        with CsvTable(place / _TABLE, columns, part, provenance=told) as table:
            for row in rows:
                table.write(row)

    return run_to_table(
        RunFolder(place / _TABLE), options, compute, write, overwrite=overwrite,
        on_found=on_found, on_progress=on_progress,
    )  # fmt: skip


def _written(
    readings: Iterable[tuple[InputFile, ImageReading | str]],
    make: Callable[[ImageReading], Mapping[str, Sequence[Dataset]]],
    folder: Path,
) -> Generator[dict[str, str], None, None]:
    """Rows in order; objects are made and written while the networks see the next images."""

    def write(file: InputFile, said: ImageReading | str) -> dict[str, str]:
        row = {"path": file.given, "error": "", "check": ""}
        if isinstance(said, str):
            return row | {"error": said}
        try:
            objects = make(said)
        except ImageReadError as error:
            return row | {"error": reason_of(error)}
        names = write_or_reason(lambda: save_objects(objects, folder))
        if isinstance(names, str):
            return row | {"error": names}
        return row | {"check": said.check} | {kind: " ".join(n) for kind, n in names.items()}

    with ThreadPoolExecutor(1, "xrv-results") as pool:
        waiting = deque[Any]()
        remaining = iter(readings)
        while True:
            for item in itertools.islice(remaining, _BEHIND - len(waiting)):
                waiting.append(pool.submit(write, *item))
            if not waiting:
                return
            yield waiting.popleft().result()

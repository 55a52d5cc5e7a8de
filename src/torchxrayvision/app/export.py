"""What a user takes away: tables of all that was read, and DICOM objects of one image."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from torchxrayvision import __version__
from torchxrayvision.csvtext import CsvFile
from torchxrayvision.errors import ImageReadError, needs_package

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torchxrayvision.app.library import Entry
    from torchxrayvision.app.networks import Classifier, Networks

_NOTE: Final = "Research use only; not a medical device. An output is not a probability of disease."
KINDS: Final = ("sr", "sc", "seg")


def rows_of(entries: Iterable[Entry], classifier: Classifier, number: int) -> list[dict[str, Any]]:
    """One row per image that was read: the columns of `xrv predict`, and whether it was forced.

    Args:
        entries: The images.
        classifier: Whose readings.
        number: Its place among those of the page.
    """
    rows = []
    for entry in entries:
        reading = entry.readings.get(number)
        if reading is None:
            continue
        hidden = bool(reading.refused) and not entry.forced
        error = f"refused: {reading.refused}" if hidden else reading.error
        row: dict[str, Any] = {"path": entry.name, "error": error}
        for name, index in classifier.columns.items():
            shown = reading.values is not None and not hidden
            row[name] = reading.values[index] if shown else None
        row |= {name: None if hidden else cell for name, cell in reading.cells.items()}
        row["check"] = reading.check
        row["read_anyway"] = "yes" if reading.refused and entry.forced else ""
        rows.append(row)
    return rows


def to_csv(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    """Rows as CSV, as `xrv predict` writes them."""
    file = io.StringIO()
    table = CsvFile(file)
    table.write(columns)
    for row in rows:
        table.write([row.get(name) for name in columns])
    return file.getvalue()


def columns_of(classifier: Classifier) -> list[str]:
    """Names of the columns of `rows_of`."""
    made = classifier.calibration
    calibrated = [] if made is None else made.columns(list(classifier.columns))
    return ["path", "error", *classifier.columns, *calibrated, "check", "read_anyway"]


def to_json(entries: Sequence[Entry], networks: Networks) -> dict[str, Any]:
    """Everything that was read, with what read it."""
    models = []
    for number, classifier in enumerate(networks.classifiers):
        rows = rows_of(entries, classifier, number)
        for row in rows:
            row |= {name: _plain(value) for name, value in row.items()}
        models.append(
            {
                "weights": classifier.name, "sha256": classifier.sha256, "output": classifier.kind,
                "provenance": classifier.provenance.to_dict(), "images": rows,
            }
        )  # fmt: skip
    structures = [
        {"path": entry.name, **_measured(entry.seen["structures"])}
        for entry in entries
        if "structures" in entry.seen
    ]
    return {"torchxrayvision": __version__, "note": _NOTE, "models": models,
            "structures": structures}  # fmt: skip


def _plain(value: Any) -> Any:
    """Numbers of NumPy as the shortest text that gives them back; NaN as None."""
    if hasattr(value, "item"):
        number = float(str(value))
        return None if number != number else number
    return value


def _measured(found: dict[str, Any]) -> dict[str, Any]:
    areas = [
        {name: part[name] for name in ("name", "pixels", "mm2") if name in part}
        for part in found.get("structures", ())
    ]
    kept = {name: found.get(name) for name in ("error", "network", "measures", "doubts")}
    return {**kept, "areas": areas}


def objects_of(
    entry: Entry, data: bytes, networks: Networks, number: int, kinds: Sequence[str],
    finding: str | None,
) -> list[tuple[str, bytes]]:  # fmt: skip
    """DICOM objects of one image, each with a name for its file.

    Args:
        entry: The image.
        data: Its file.
        networks: What reads it.
        number: Which classifier.
        kinds: Of `KINDS`.
        finding: Whose evidence is drawn; None for the strongest that is present.

    Raises:
        DependencyError: If highdicom is missing.
        ImageReadError: If it is no DICOM radiograph, if its header does not allow an object, or
            if there are no masks for one.
    """
    from torchxrayvision.inputs import InputFile, ReadOptions
    from torchxrayvision.results import Reader, make_objects

    classifier = networks.classifiers[number]
    drawn = finding is not None or "sc" in kinds or classifier.explains
    masks = networks.segmenter_name is not None and "seg" in kinds
    reader = Reader(
        classifier=classifier.model,
        segmenter=networks.segmenter if masks else None,
        checkpoint=classifier.checkpoint,
        targets=None if finding is None else [finding],
        most=1 if drawn else 0,
        engine=classifier.engine,
    )
    file = InputFile(Path("image.dcm"), "the image", data=data)
    with classifier.lock:
        ((_, reading),) = reader.read_all([file], ReadOptions(workers=1))
    if isinstance(reading, str):
        raise ImageReadError(entry.name, reading)
    files: list[tuple[str, bytes]] = []
    for kind, several in make_objects(reading, kinds).items():
        for made in several:
            written = io.BytesIO()
            made.save_as(written, enforce_file_format=True)
            files.append((f"{kind}-{made.SOPInstanceUID}.dcm", written.getvalue()))
    if not files:
        raise ImageReadError(entry.name, "there is nothing to make these objects of")
    return files


def packed(files: Sequence[tuple[str, bytes]]) -> tuple[str, str, bytes]:
    """One file to download: name, media type and content; several go into a zip."""
    if len(files) == 1:
        return files[0][0], "application/dicom", files[0][1]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return "dicom-results.zip", "application/zip", file.getvalue()


def send(files: Sequence[tuple[str, bytes]], target: str) -> int:
    """Store objects in an archive by STOW-RS.

    Args:
        files: From `objects_of`.
        target: Address of its DICOMweb service.

    Returns:
        How many were stored.

    Raises:
        DependencyError: If dicomweb-client is missing.
        OSError: If the archive does not take them.
    """
    import pydicom

    with needs_package("dicomweb-client", "sending results", "app"):
        from dicomweb_client.api import DICOMwebClient
    objects = [pydicom.dcmread(io.BytesIO(content)) for _, content in files]
    client = DICOMwebClient(target)
    client.set_http_retry_params(retry=False)  # a person waits, and can try again
    answer = client.store_instances(objects)
    stored = len(answer.get("ReferencedSOPSequence", ()))
    if stored < len(objects):
        msg = f"the archive stored {stored} of {len(objects)} objects"
        raise OSError(msg)
    return stored

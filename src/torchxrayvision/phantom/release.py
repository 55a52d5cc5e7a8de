"""Write simulated radiographs as a release that looks like a real one: `write_release`."""

from __future__ import annotations

import csv
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.errors import DatasetError, UnknownNameError, ViewError
from torchxrayvision.files import Provenance
from torchxrayvision.labels import CHEXPERT_RENAME, NIH14
from torchxrayvision.masks import encode_gap_rle, mask_to_box, resize_mask, union
from torchxrayvision.phantom.files import uid, write_dicom, write_jpeg, write_mask, write_png
from torchxrayvision.phantom.render import simulate

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from torchxrayvision.phantom.records import Simulation

FRAME = 1024
"""Side in pixels of the images of NIH, RSNA and SIIM; their tables count in these pixels."""

APART = FRAME // 32
"""Empty columns that part two boxes of one finding; nobody draws two for less."""

_NIH_BOXED = {
    **{name: name for name in ("Atelectasis", "Cardiomegaly", "Effusion", "Mass", "Nodule")},
    **{"Infiltration": "Infiltrate", "Pneumonia": "Pneumonia", "Pneumothorax": "Pneumothorax"},
}
"""The eight findings that BBox_List_2017.csv has boxes for, and how it spells them."""

_CHEXPERT_COLUMNS = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion"),
    *("Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion"),
    *("Pleural Other", "Fracture", "Support Devices"),
)
_CHEXPERT_SPEAKS = {column: finding for finding, column in CHEXPERT_RENAME.items()}
_SUSPICIOUS = ("Consolidation", "Pneumonia")
"""What RSNA's readers drew boxes around: opacities suspicious for pneumonia."""

Simulations = Iterable["Simulation"]
Arguments = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a release is laid out.

    Args:
        write: Folder, simulations and seed to the arguments of the dataset that reads them.
        size: Side of its images in pixels.
        views: Views it holds.
        dataset: Name of the class in `torchxrayvision.datasets` that reads it.
    """

    write: Callable[[Path, Simulations, int], Arguments]
    size: int
    views: tuple[str, ...]
    dataset: str


class _Numbering:
    """Patients numbered from 1 in order of appearance, and the images of each from 0."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._films: dict[str, int] = {}

    def __call__(self, made: Simulation) -> tuple[int, int]:
        patient = str(made.patient.id)
        number = self._numbers.setdefault(patient, len(self._numbers) + 1)
        self._films[patient] = self._films.get(patient, -1) + 1
        return number, self._films[patient]


def _write_table(path: Path, header: str, rows: Iterable[Sequence[object]]) -> Path:
    """A csv whose header is the release's own, comma for comma."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        stream.write(header + "\n")
        csv.writer(stream, lineterminator="\n").writerows(rows)
    return path


def _boxes(mask: NDArray[np.bool_]) -> list[tuple[int, int, int, int]]:
    """Boxes x, y, width, height in pixels of the frame, one for each part that is side by side."""
    framed = resize_mask(mask, (FRAME, FRAME))
    columns = np.flatnonzero(framed.any(axis=0))
    boxes = []
    for part in np.split(columns, np.flatnonzero(np.diff(columns) > APART) + 1):
        found = mask_to_box(framed[:, part[0] : part[-1] + 1]) if part.size else None
        if found is not None:
            boxes.append((int(part[0]), found[1], found[2] - found[0], found[3] - found[1]))
    return boxes


def write_nih(folder: Path, simulations: Simulations, seed: int) -> Arguments:  # noqa: ARG001 - a layout
    """NIH ChestX-ray14: images/*.png, Data_Entry_2017.csv, BBox_List_2017.csv."""
    rows: list[Sequence[object]] = []
    drawn: list[Sequence[object]] = []
    numbered = _Numbering()
    for made in simulations:
        patient, follow_up = numbered(made)
        name = f"{patient:08d}_{follow_up:03d}.png"
        write_png(folder / "images" / name, made.image)
        present = [finding for finding in NIH14 if made.labels.get(finding) == 1]
        person, spacing = made.patient, f"{made.pixel_spacing:.3f}"
        side = made.image.shape[-1]
        rows.append(
            [
                *(name, "|".join(present) or "No Finding", follow_up, patient),
                *(int(person.age_years), person.sex, made.view, side, side, spacing, spacing),
            ]
        )
        for finding in present:
            if finding in _NIH_BOXED and finding in made.masks:
                boxes = _boxes(made.masks[finding])
                drawn += [(name, _NIH_BOXED[finding], *box, "", "", "") for box in boxes]
    header = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
        "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    )
    return {
        "imgpath": folder / "images",
        "csvpath": _write_table(folder / "Data_Entry_2017.csv", header, rows),
        "bbox_list_path": _write_table(
            folder / "BBox_List_2017.csv", "Image Index,Finding Label,Bbox [x,y,w,h],,,", drawn
        ),
    }


def write_chexpert(folder: Path, simulations: Simulations, seed: int) -> Arguments:  # noqa: ARG001 - a layout
    """CheXpert: train.csv and train/patientNNNNN/studyN/viewN_frontal.jpg."""
    root = folder / "CheXpert-v1.0-small"
    rows: list[Sequence[object]] = []
    numbered = _Numbering()
    for made in simulations:
        patient, study = numbered(made)
        frontal = "Lateral" if made.view == "L" else "Frontal"
        place = f"train/patient{patient:05d}/study{study + 1}/view1_{frontal.lower()}.jpg"
        write_jpeg(root / place, made.image)
        person = made.patient
        rows.append(
            [
                *(f"{root.name}/{place}", "Male" if person.sex == "M" else "Female"),
                *(int(person.age_years), frontal, "" if made.view == "L" else made.view),
                *_chexpert_labels(made),
            ]
        )
    header = ",".join(["Path,Sex,Age,Frontal/Lateral,AP/PA", *_CHEXPERT_COLUMNS])
    return {"imgpath": root, "csvpath": _write_table(root / "train.csv", header, rows)}


def _chexpert_labels(made: Simulation) -> list[str]:
    """1.0, 0.0, or blank for what is not simulated; *No Finding* leaves devices aside."""
    values = {
        column: made.labels.get(_CHEXPERT_SPEAKS.get(column, column))
        for column in _CHEXPERT_COLUMNS[1:]
    }
    ill = any(value == 1 for column, value in values.items() if column != "Support Devices")
    texts = ["" if value is None else f"{value:.1f}" for value in values.values()]
    return ["" if ill else "1.0", *texts]


def write_rsna(folder: Path, simulations: Simulations, seed: int) -> Arguments:
    """RSNA Pneumonia: <patientId>.dcm, a row per box, and a table of the DICOM headers."""
    boxes: list[Sequence[object]] = []
    headers: list[Sequence[object]] = []
    for number, made in enumerate(simulations):
        # The challenge names each image as a patient of its own.
        patient = str(uuid.uuid5(uuid.NAMESPACE_URL, uid("rsna", seed, number)))
        place = folder / "stage_2_train_images" / f"{patient}.dcm"
        dicom = write_dicom(
            place,
            made,
            seed=seed,
            number=number,
            patient=patient,
            inverted=number % 4 == 3,
            modality="CR",
        )
        masks = [made.masks[finding] for finding in _SUSPICIOUS if finding in made.masks]
        found = _boxes(union(masks)) if masks else []
        boxes += [(patient, *map(float, box), 1) for box in found]
        if not found:
            boxes.append((patient, "", "", "", "", 0))
        headers.append(
            [
                *(number, dicom.BodyPartExamined, "SYN", place.name, 1.0, dicom.Modality),
                *(int(made.patient.age_years), patient, "", dicom.PatientSex),
                *(dicom.PixelSpacing[0], 1.0, 1.0, dicom.ViewPosition),
            ]
        )
    header = (
        ",BodyPartExamined,ConversionType,Filename,InstanceNumber,Modality,PatientAge,PatientID,"
        "PatientOrientation,PatientSex,PixelSpacing,SamplesPerPixel,SeriesNumber,ViewPosition"
    )
    labels = "patientId,x,y,width,height,Target"
    return {
        "imgpath": folder / "stage_2_train_images",
        "csvpath": _write_table(folder / "stage_2_train_labels.csv", labels, boxes),
        "dicomcsvpath": _write_table(folder / "dicom_headers.csv", header, headers),
        "extension": ".dcm",
    }


def write_siim(folder: Path, simulations: Simulations, seed: int) -> Arguments:
    """SIIM-ACR: <study>/<series>/<image>.dcm, and runs down the columns, one row per image."""
    rows: list[Sequence[object]] = []
    for number, made in enumerate(simulations):
        study, series, image = (uid(kind, seed, number) for kind in ("study", "series", "instance"))
        write_dicom(
            folder / "dicom-images-train" / study / series / f"{image}.dcm",
            made,
            seed=seed,
            number=number,
            inverted=number % 2 == 1,
            modality="CR" if number % 4 < 2 else "DX",
        )
        mask = made.masks.get("Pneumothorax")
        runs = "-1" if mask is None else encode_gap_rle(resize_mask(mask, (FRAME, FRAME)))
        rows.append((image, f" {runs}"))  # the release has a space there, in the header too
    table = _write_table(folder / "train-rle.csv", "ImageId, EncodedPixels", rows)
    return {"imgpath": folder / "dicom-images-train", "csvpath": table}


def write_folder(folder: Path, simulations: Simulations, seed: int) -> Arguments:
    """Somebody's own folder: PNG, JPEG and DICOM mixed, labels.csv, masks, and truth.csv."""
    labels: list[Sequence[object]] = []
    truth: list[Sequence[object]] = []
    findings: tuple[str, ...] = ()
    for number, made in enumerate(simulations):
        findings = tuple(made.labels)
        stem, person = f"film{number:06d}", made.patient
        place = f"images/{_write_mixed(folder / 'images', stem, made, seed, number)}"
        facts = (person.id, int(person.age_years), person.sex, made.view, made.site)
        labels.append([place, *facts, *map(int, made.labels.values())])
        measured = (made.cardiothoracic_ratio, made.pixel_spacing, *made.severity.values())
        truth.append([place, *(f"{value:.4f}" for value in measured)])
        for kind, masks in (("masks", made.masks), ("anatomy", made.anatomy)):
            for name, mask in masks.items():
                write_mask(folder / kind / stem / f"{name.replace(' ', '_')}.png", mask)
    severities = [f"severity {finding}" for finding in findings]
    header = ",".join(["path,cardiothoracic_ratio,pixel_spacing", *severities])
    _write_table(folder / "truth.csv", header, truth)
    header = ",".join(["path,patientid,age,sex,view,site", *findings])
    return {"csvpath": _write_table(folder / "labels.csv", header, labels)}


def _write_mixed(folder: Path, stem: str, made: Simulation, seed: int, number: int) -> str:
    """One image in one of four formats in turn; the name of its file."""
    kind = number % 4
    if kind == 0:
        write_png(folder / f"{stem}.png", made.image)
        return f"{stem}.png"
    if kind == 1:
        write_jpeg(folder / f"{stem}.jpg", made.image)
        return f"{stem}.jpg"
    if kind == 2:
        inverted = number % 8 == 6
        write_dicom(folder / f"{stem}.dcm", made, seed=seed, number=number, inverted=inverted)
        return f"{stem}.dcm"
    write_png(folder / f"{stem}.png", made.image, bits=16)
    return f"{stem}.png"


FRONTAL = ("PA", "AP")
LAYOUTS = {
    "folder": Layout(write=write_folder, size=512, views=(*FRONTAL, "L"), dataset="CSV_Dataset"),
    "nih": Layout(write=write_nih, size=FRAME, views=FRONTAL, dataset="NIH_Dataset"),
    "chexpert": Layout(
        write=write_chexpert, size=512, views=(*FRONTAL, "L"), dataset="CheX_Dataset"
    ),
    "rsna": Layout(write=write_rsna, size=FRAME, views=FRONTAL, dataset="RSNA_Pneumonia_Dataset"),
    "siim": Layout(
        write=write_siim, size=FRAME, views=FRONTAL, dataset="SIIM_Pneumothorax_Dataset"
    ),
}
"""Layout by its short name."""


def release_layouts() -> dict[str, str]:
    """Layouts that `write_release` knows.

    Returns:
        Name to the class of `torchxrayvision.datasets` that reads it.

    Example:
        >>> release_layouts()["nih"]
        'NIH_Dataset'
    """
    return {name: layout.dataset for name, layout in LAYOUTS.items()}


def write_release(
    folder: str | os.PathLike[str],
    n: int,
    seed: int = 0,
    layout: str = "folder",
    *,
    size: int | None = None,
    site: str = "A",
    views: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write simulated radiographs in the files, folders and tables of a real release.

    ``"folder"`` is somebody's own collection: 8 and 16 bit PNG, JPEG and DICOM mixed,
    ``labels.csv``, ``truth.csv`` (severities, cardiothoracic ratio), masks of findings and of
    anatomy. ``"nih"``, ``"chexpert"``, ``"rsna"`` and ``"siim"`` have the names, headers and boxes
    or run lengths of those releases. DICOM files are 12 bits deep, some of them MONOCHROME1, and
    name nobody.

    Args:
        folder: New or empty folder.
        n: Number of images.
        seed: Of the simulation; image i is ``simulate(i, seed=seed, ...)``.
        layout: One of `release_layouts`.
        size: Side of the images in pixels; None: 1024 for NIH, RSNA and SIIM as in the releases
            (whose tables count in pixels of 1024 at any size), else 512.
        site: Look of the images, one of `SITES`.
        views: Views to simulate; None: those that the release has.
        progress: Called with (done, total) after each image.

    Returns:
        Arguments with which the dataset class of the layout reads the release.

    Raises:
        UnknownNameError: If there is no such layout.
        ViewError: If the release has no such view.
        DatasetError: If the folder holds something, or `n` is not positive.

    Example:
        >>> import tempfile
        >>> import torchxrayvision as xrv
        >>> arguments = xrv.phantom.write_release(tempfile.mkdtemp(), 2, layout="nih", size=64)
        >>> nih = xrv.datasets.NIH_Dataset(**arguments, views="*", unique_patients=False)
        >>> len(nih), nih[0]["img"].shape
        (2, (1, 64, 64))
    """
    if layout not in LAYOUTS:
        raise UnknownNameError("layout", layout, list(LAYOUTS))
    chosen = LAYOUTS[layout]
    unknown = [view for view in views or () if view not in chosen.views]
    if unknown:
        msg = f"layout {layout!r} has the views {', '.join(chosen.views)}, not {unknown[0]!r}"
        raise ViewError(msg)
    if n < 1:
        msg = f"a release of n={n!r} images: at least 1"
        raise DatasetError(msg)
    target = _empty(Path(folder).expanduser())
    simulations = _simulated(
        n, progress, seed=seed, size=size or chosen.size, site=site, views=views or chosen.views
    )
    arguments = chosen.write(target, simulations, seed)
    made = Provenance(
        command="xrv phantom",
        output="labels",
        options={
            "layout": layout, "seed": seed, "size": size or chosen.size, "site": site,
            "views": [*(views or chosen.views)],
        },
        inputs={"images": n},
    )  # fmt: skip
    for table in sorted(target.rglob("*.csv")):
        made.write_beside(table, table)
    return arguments


def _empty(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        msg = f"{folder} is not empty; name a new folder"
        raise DatasetError(msg)
    return folder


def _simulated(
    n: int, progress: Callable[[int, int], None] | None, **settings: Any
) -> Iterator[Simulation]:
    for index in range(n):
        yield simulate(index, **settings)
        if progress is not None:
            progress(index + 1, n)

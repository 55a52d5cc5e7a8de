"""REFLACX: certainties of findings, and ellipses around them, on MIMIC-CXR images."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.datasets.annotations import Shapes
from torchxrayvision.datasets.columns import extract
from torchxrayvision.datasets.findings import FindingFunction
from torchxrayvision.datasets.images import Files
from torchxrayvision.datasets.reading import read_csv
from torchxrayvision.datasets.release import need_columns
from torchxrayvision.datasets.releases.grounded import GroundedDataset
from torchxrayvision.datasets.spec import DatasetSpec, Table
from torchxrayvision.datasets.storage import plain_text
from torchxrayvision.errors import DatasetError
from torchxrayvision.facts import License, Reference

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from torchxrayvision.datasets.findings import Labels
    from torchxrayvision.datasets.release import Row, SourceContext

_FINDINGS = {
    "Abnormal mediastinal contour": "Abnormal mediastinal contour",
    "Acute fracture": "Acute fracture",
    "Airway wall thickening": "Airway wall thickening",
    "Atelectasis": "Atelectasis",
    "Consolidation": "Consolidation",
    "Edema": "Pulmonary edema",
    "Effusion": "Pleural effusion",
    "Emphysema": "Emphysema",
    "Enlarged cardiac silhouette": "Enlarged cardiac silhouette",
    "Fibrosis": "Fibrosis",
    "Fracture": "Fracture",
    "Groundglass opacity": "Groundglass opacity",
    "Hiatal hernia": "Hiatal hernia",
    "High lung volume / emphysema": "High lung volume / emphysema",
    "Hilar Enlargement": "Enlarged hilum",
    "Interstitial lung disease": "Interstitial lung disease",
    "Mass": "Mass",
    "Nodule": "Nodule",
    "Nodule/Mass": "Lung nodule or mass",
    "Pleural abnormality": "Pleural abnormality",
    "Pleural_Thickening": "Pleural thickening",
    "Pneumothorax": "Pneumothorax",
    "Support Devices": "Support devices",
    "Wide mediastinum": "Wide mediastinum",
}
"""Finding to its column; each phase has some of them."""

_DEVICES = "Support devices"  # seen or not, without a certainty
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_FIELDS = ("id", "finding", *_CORNERS, "certainty")
_SURE = 5.0


def _read_release(folder: Path) -> pd.DataFrame:
    """The readings of all phases, each with its ellipses as a list."""
    import pandas as pd

    main = folder / "main_data" if (folder / "main_data").is_dir() else folder
    parts = []
    for phase in (1, 2, 3):
        path = main / f"metadata_phase_{phase}.csv"
        if path.is_file():
            parts.append(read_csv(path).assign(phase=phase))
    if not parts:
        msg = f"no metadata_phase_1.csv, metadata_phase_2.csv or metadata_phase_3.csv in {main}"
        raise ValueError(msg)
    readings = pd.concat(parts, ignore_index=True)
    names = readings.get("id", pd.Series(dtype=object)).astype(str)
    files = [main / name / "anomaly_location_ellipses.csv" for name in names]
    drawn = pd.Series([_read_ellipses(path) for path in files], dtype=object)
    return readings.assign(ellipses=drawn)


def _read_ellipses(path: Path) -> list[tuple[Any, ...]]:
    """One tuple per ellipse and finding: raw finding, corners, certainty; empty without a file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return [found for row in csv.DictReader(stream) for found in _marked(row)]


def _marked(row: Mapping[str, str]) -> list[tuple[Any, ...]]:
    corners = [_number(row.get(side)) for side in _CORNERS]
    raw = [name for name in _FINDINGS.values() if str(row.get(name, "")).strip() == "True"]
    # A device is drawn without a certainty.
    certainty = _number(row.get("certainty"))
    return [(name, *corners, _SURE if name == _DEVICES else certainty) for name in raw]


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def _one_row_an_image(context: SourceContext) -> pd.DataFrame:
    """The images of the wanted phases, in order of first mention; readers' certainties averaged."""
    import pandas as pd

    readings = context.tables["reflacxpath"]
    need_columns(readings, ["id", "image", "subject_id", "image_size_x", "image_size_y"], context)
    readings = readings[readings["phase"].isin(context.arguments["phases"])]
    if not len(readings):
        msg = f"{context.dataset}: the release has no phase {context.arguments['phases']}"
        raise DatasetError(msg)
    path = extract(readings["image"].astype("str"), r"(?P<value>p\d{2}/p\d+/s\d+/[^/]+)\.\w+$")
    readings = readings.assign(path=path)
    readings["dicom_id"] = extract(path, r"(?P<value>[^/]+)$")
    context.tables["annotations"] = pd.DataFrame(
        [
            (dicom_id, name, *ellipse)
            for dicom_id, name, ellipses in zip(
                readings["dicom_id"], readings["id"], readings["ellipses"], strict=True
            )
            for ellipse in ellipses
            if ellipse[-1] >= context.arguments["threshold"]
        ],
        columns=["dicom_id", *_FIELDS],
    )
    return _averaged(readings, _certainties(readings))


def _averaged(readings: pd.DataFrame, certainties: pd.DataFrame) -> pd.DataFrame:
    """One row per image, with the mean certainty of its readers for each finding."""
    kept = ["dicom_id", "path", "subject_id", "image_size_x", "image_size_y", "split"]
    by_image = readings["dicom_id"]
    frame = readings[[name for name in kept if name in readings]].drop_duplicates("dicom_id")
    frame = frame.assign(
        readers=by_image.groupby(by_image).size().loc[frame["dicom_id"]].to_numpy(),
        subject_id=plain_text(frame["subject_id"]),
    )
    mean = certainties.groupby(by_image.to_numpy()).mean().loc[frame["dicom_id"]]
    return frame.reset_index(drop=True).join(mean.reset_index(drop=True))


def _certainties(readings: pd.DataFrame) -> pd.DataFrame:
    """Certainties 0 to 5 of each reading; NaN for findings that its phase does not have."""
    import pandas as pd

    columns = {}
    for raw in _FINDINGS.values():
        if raw not in readings:
            columns[raw] = pd.Series(np.nan, index=readings.index)
        elif raw == _DEVICES:
            seen = readings[raw].astype("str").str.strip().map({"True": _SURE, "False": 0.0})
            columns[raw] = seen.astype(float)
        else:
            columns[raw] = pd.to_numeric(readings[raw], errors="coerce").astype(float)
    return pd.DataFrame(columns).reset_index(drop=True)


def _thresholded(frame: pd.DataFrame, context: SourceContext) -> Labels:
    """1 where the mean certainty reaches the threshold, 0 below, NaN where nobody was asked."""
    certainty = frame[list(_FINDINGS.values())].to_numpy(dtype=np.float32)
    labels = (certainty >= context.arguments["threshold"]).astype(np.float32)
    labels[np.isnan(certainty)] = np.nan
    return tuple(_FINDINGS), labels


def _draw(annotation: Mapping[str, Any], frame: tuple[int, int], shape: tuple[int, int]) -> Any:
    from torchxrayvision import masks

    scale = np.array([shape[1] / frame[1], shape[0] / frame[0]] * 2)
    return masks.ellipse_to_mask(np.array([annotation[side] for side in _CORNERS]) * scale, shape)


@dataclass(frozen=True, kw_only=True)
class _Ellipses(Shapes):
    """Ellipses; one without an area marks nothing."""

    def valid(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Which ellipses have an area."""
        corners = table[list(_CORNERS)].to_numpy(dtype=np.float64)
        areas = corners[:, 2:] > corners[:, :2]
        return np.asarray(areas[:, 0] & areas[:, 1])


def _path(row: Row) -> str:
    return f"files/{row['path']}.{'dcm' if row['image_format'] == 'dicom' else 'jpg'}"


class REFLACX_Dataset(GroundedDataset):
    """REFLACX: 2,616 MIMIC-CXR images read by five radiologists, with ellipses around findings.

    3,032 readings in three phases (counts of the paper): five radiologists read each image of
    phases 1 and 2, one each image of phase 3. A reader gave each finding a certainty: 0 absent, 1
    unlikely, 2 less likely, 3 possible, 4 suspicious for or probable, 5 consistent with.

    One row per image. A label is 1 where the mean certainty of its readers is `threshold` or more
    and 0 below; it is NaN where the phase does not have the finding: phase 1 has other names than
    phases 2 and 3. The mean certainties are in ``csv`` under the names of the release, with the
    number of ``readers``. Masks are the ellipses with a certainty of `threshold` or more, united;
    ``annotations(i)`` has each with its reading, finding and certainty. *Support Devices* are seen
    or not, and count as 5 or 0. The split is that of MIMIC-CXR. Gaze, dictation and the texts of
    *Other* are left in the release.

    Args:
        imgpath: Root of MIMIC-CXR-JPG, the folder that holds ``files``; or of MIMIC-CXR for DICOM.
        reflacxpath: Root of the release, or its folder ``main_data``.
        phases: Which of 1, 2 and 3.
        threshold: Least certainty of a present finding, above 0 and at most 5.
        image_format: "jpg" or "dicom".
        pathology_masks: Add the ellipses as masks.
    """

    spec = DatasetSpec(
        title="REFLACX",
        reference=Reference(
            authors="Bigolin Lanfredi R, Zhang M, Auffermann WF, et al.",
            title="REFLACX, a dataset of reports and eye-tracking data for localization of "
            "abnormalities in chest x-rays",
            year=2022,
            venue="Scientific Data",
            url="https://doi.org/10.1038/s41597-022-01441-z",
        ),
        license=License(
            name="PhysioNet Credentialed Health Data License 1.5.0",
            url="https://physionet.org/content/reflacx-xray-localization/view-license/1.0.0/",
            note="Needs training in research with human subjects and a signed agreement.",
        ),
        homepage="https://physionet.org/content/reflacx-xray-localization/",
        tables=(
            Table(
                "reflacxpath",
                read=_read_release,
                description="the folder of the release that holds main_data",
            ),
        ),
        join=_one_row_an_image,
        images=Files(_path, layout="files/p10/p10000032/s50414267/<dicom_id>.jpg"),
        findings=FindingFunction(_thresholded, tuple(_FINDINGS)),
        patient="subject_id",
        cohort="MIMIC-CXR",
        compat_keeps_whole_rows=True,
        columns={"patientid": "subject_id"},
        masks=_Ellipses(
            table="annotations",
            image="dicom_id",
            finding="finding",
            rename={raw: name for name, raw in _FINDINGS.items()},
            draw=_draw,
            frame=("image_size_y", "image_size_x"),
        ),
        split="split",
        verified="columns, names of the findings and form of the ellipses, in the authors' code "
        "that writes them. Findings, split, and folders of readings may be missing",
        choices={"image_format": ("jpg", "dicom")},
        parameters="imgpath, reflacxpath, phases=(1,2,3), threshold=3, image_format='jpg', "
        "transform, data_aug, seed, unique_patients, pathology_masks",
    )

    def _prepare(self, given: dict[str, Any]) -> None:
        name, phases, threshold = type(self).__name__, given["phases"], given["threshold"]
        wanted = (phases,) if isinstance(phases, int) else tuple(phases)
        if not wanted or not set(wanted) <= {1, 2, 3}:
            raise DatasetError(f"{name}: phases are some of 1, 2 and 3, got {phases!r}")
        if not 0 < threshold <= _SURE:
            raise DatasetError(f"{name}: threshold is above 0 and at most 5, got {threshold!r}")
        given.update(phases=wanted, threshold=float(threshold))

"""PadChest, with the terms of its hierarchy that stand for each finding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.datasets.columns import days
from torchxrayvision.datasets.findings import FindingText
from torchxrayvision.datasets.images import Files
from torchxrayvision.datasets.pipeline import SpecDataset
from torchxrayvision.datasets.release import need_columns
from torchxrayvision.datasets.spec import DatasetSpec, Table, sexes
from torchxrayvision.datasets.storage import is_coded_text
from torchxrayvision.facts import License, Reference

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd

    from torchxrayvision.datasets.release import Row, SourceContext

PADCHEST_TERMS: Mapping[str, tuple[str, ...]] = {
    "Air Trapping": ("air trapping",),
    "Aortic Atheromatosis": ("aortic atheromatosis",),
    "Aortic Elongation": (
        "aortic elongation",
        "aortic button enlargement",
        "ascendent aortic elongation",
        "descendent aortic elongation",
        "supra aortic elongation",
    ),
    "Atelectasis": (
        "atelectasis",
        "atelectasis basal",
        "laminar atelectasis",
        "lobar atelectasis",
        "round atelectasis",
        "segmental atelectasis",
        "total atelectasis",
    ),
    "Bronchiectasis": ("bronchiectasis",),
    "Cardiomegaly": ("cardiomegaly",),
    "Consolidation": ("consolidation", "air bronchogram"),
    "Costophrenic Angle Blunting": ("costophrenic angle blunting",),
    "Edema": ("pulmonary edema",),
    # Fluid of whatever kind in the pleural space; pericardial effusion stands elsewhere.
    "Effusion": (
        "pleural effusion",
        "empyema",
        "hemothorax",
        "hydropneumothorax",
        "loculated fissural effusion",
        "loculated pleural effusion",
    ),
    "Emphysema": ("emphysema",),  # of the lung, so not subcutaneous emphysema
    "Fibrosis": ("pulmonary fibrosis", "asbestosis signs", "post radiotherapy changes"),
    "Flattened Diaphragm": ("flattened diaphragm",),
    # A callus is a healed rib fracture; the labellers of CheXpert and Open-i count those too.
    # Vertebral compression is a degenerative change in this hierarchy.
    "Fracture": (
        "fracture",
        "callus rib fracture",
        "clavicle fracture",
        "humeral fracture",
        "rib fracture",
        "vertebral fracture",
    ),
    "Granuloma": ("granuloma", "calcified granuloma"),
    "Hemidiaphragm Elevation": ("hemidiaphragm elevation",),
    "Hernia": ("hiatal hernia",),
    # Calcified mediastinal adenopathy is not at the hilum.
    "Hilar Enlargement": (
        "hilar enlargement",
        "adenopathy",
        "calcified adenopathy",
        "pulmonary artery enlargement",
        "vascular hilar enlargement",
    ),
    "Infiltration": (
        "infiltrates",
        "air bronchogram",
        "alveolar pattern",
        "consolidation",
        "ground glass pattern",
        "interstitial pattern",
        "miliary opacities",
        "reticular interstitial pattern",
        "reticulonodular interstitial pattern",
    ),
    # The hierarchy has masses of mediastinum, pleura, breast and soft tissue here too. Elsewhere
    # the finding is a mass of the lung, and a merged dataset needs one meaning.
    "Mass": ("mass", "pulmonary mass"),
    "Nodule": ("nodule", "multiple nodules"),  # a pseudonodule is a nipple or a vessel
    "Pleural_Thickening": (
        "pleural thickening",
        "apical pleural thickening",
        "calcified pleural thickening",
    ),
    "Pneumonia": ("pneumonia", "atypical pneumonia"),
    "Pneumothorax": ("pneumothorax", "hydropneumothorax"),
    "Scoliosis": ("scoliosis",),
    "Support Devices": (
        "electrical device",
        "dai",
        "dual chamber device",
        "pacemaker",
        "single chamber device",
    ),
    "Tube": (
        "NSG tube",
        "chest drain tube",
        "double J stent",
        "endotracheal tube",
        "gastrostomy tube",
        "nephrostomy tube",
        "tracheostomy tube",
        "ventriculoperitoneal drain tube",
    ),
    # The hierarchy has tuberculosis sequelae here too. They are scars: no disease to be found.
    "Tuberculosis": ("tuberculosis",),
}
"""Finding to the whole terms that mean it: a term and what stands below it, but for the exceptions
noted. *Infiltration* is the subtree of *infiltrates*, *Support Devices* that of *electrical device*
(so it is narrower than CheXpert's), *Tube* the terms for tubes and stents.

Source: the hierarchy of the release, manual_review/trees_code.txt of
https://github.com/auriml/Rx-thorax-automatic-captioning.
"""

PADCHEST_SUBSTRINGS: Mapping[str, tuple[str, ...]] = {
    **{finding: (finding,) for finding in PADCHEST_TERMS},
    "Consolidation": ("consolidation", "air bronchogram"),
    "Hilar Enlargement": ("hilar enlargement", "adenopathy", "pulmonary artery enlargement"),
    "Infiltration": (
        "infiltrates",
        "interstitial pattern",
        "ground glass pattern",
        "alveolar pattern",
        "consolidation",
        "air bronchogram",
    ),
    "Pleural_Thickening": ("pleural thickening",),
    "Support Devices": ("device", "pacemaker"),
    "Tube": ("stent'", "tube'"),
}
"""The parts of text that 1.5.7 searched for."""

_SAYS_NOTHING = frozenset({"", "exclude", "suboptimal study", "unchanged"})
"""Terms that speak of the study and not of the chest. Where there are no others the findings are
unknown: *unchanged* refers to an earlier report."""

# Files of the release that cannot be decoded, as 1.5.7 lists them.
_UNREADABLE = (
    "216840111366964012283393834152009033102258826_00-059-087.png",
    "216840111366964012339356563862009072111404053_00-043-192.png",
    "216840111366964012373310883942009117084022290_00-064-025.png",
    "216840111366964012373310883942009152114636712_00-102-045.png",
    "216840111366964012373310883942009170084120009_00-097-074.png",
    "216840111366964012487858717522009280135853083_00-075-001.png",
    "216840111366964012558082906712009327122220177_00-102-064.png",
    "216840111366964012819207061112010281134410801_00-129-131.png",
    "216840111366964012819207061112010306085429121_04-020-102.png",
    "216840111366964012819207061112010307142602253_04-014-084.png",
    "216840111366964012819207061112010315104455352_04-024-184.png",
    "216840111366964012959786098432011033083840143_00-176-115.png",
    "216840111366964012989926673512011074122523403_00-163-058.png",
    "216840111366964012989926673512011083134050913_00-168-009.png",
    "216840111366964012989926673512011151082430686_00-157-045.png",
    "216840111366964013076187734852011291090445391_00-196-188.png",
    "216840111366964013590140476722013043111952381_02-065-198.png",
    "216840111366964013590140476722013058110301622_02-056-111.png",
    "216840111366964013686042548532013208193054515_02-026-007.png",
    "216840111366964013829543166512013353113303615_02-092-190.png",
    "216840111366964013962490064942014134093945580_01-178-104.png",
)

_YOUNGEST = 10  # years; only older patients, as 1.5.7 intends
_NEEDED = (
    "ImageID",
    "ImageDir",
    "StudyDate_DICOM",
    "PatientID",
    "PatientBirth",
    "PatientSex_DICOM",
    "Projection",
    "Labels",
)

_LATER = (
    *("Unnamed: 0", "StudyID", "ViewPosition_DICOM", "MethodProjection", "Pediatric"),
    *("Modality_DICOM", "Manufacturer_DICOM", "PhotometricInterpretation_DICOM"),
    *("PixelRepresentation_DICOM", "PixelAspectRatio_DICOM", "SpatialResolution_DICOM"),
    *("BitsStored_DICOM", "WindowCenter_DICOM", "WindowWidth_DICOM", "Rows_DICOM"),
    *("Columns_DICOM", "XRayTubeCurrent_DICOM", "Exposure_DICOM", "ExposureInuAs_DICOM"),
    *("ExposureTime", "RelativeXRayExposure_DICOM", "ReportID", "MethodLabel", "Labels"),
    *("Localizations", "LabelsLocalizationsBySentence", "labelCUIS", "LocalizationsCUIS"),
)


def read_padchest(path: Path) -> pd.DataFrame:
    """The table of the release; its identifiers of up to 39 digits are text.

    Args:
        path: PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv, plain or compressed.

    Returns:
        The table.
    """
    import pandas as pd

    from torchxrayvision.csvtext import open_table

    with open_table(path) as table:
        return pd.read_csv(table, dtype={"StudyID": str, "PatientID": str}, low_memory=False)


def padchest_terms(text: str) -> list[str]:
    """The terms of a cell of *Labels* that say something about the chest.

    Args:
        text: A list as Python prints it, ``"['normal', ' unchanged', '']"``.

    Returns:
        Terms without stray space; none where the findings are unknown.

    Example:
        >>> padchest_terms("['cardiomegaly', ' pacemaker', '', 'unchanged']")
        ['cardiomegaly', 'pacemaker']
    """
    return [term for term in _terms(text) if term not in _SAYS_NOTHING]


def _terms(text: str) -> list[str]:
    return [term.strip(" '\"") for term in text.strip("[] ").split(",")]


def _mentions(frame: pd.DataFrame, wanted: str) -> Any:
    """Which rows have a term among their labels."""
    codes, texts = frame["Labels"].factorize()
    found = [wanted in text and wanted in _terms(text) for text in map(str, texts)]
    return np.array([*found, False])[codes]  # blanks have code -1


def _table(context: SourceContext) -> pd.DataFrame:
    frame = context.tables["csvpath"]
    need_columns(frame, _NEEDED, context)
    if context.compat:
        return frame.copy()
    return frame.assign(suboptimal=_mentions(frame, "suboptimal study"))


def _study_age(frame: pd.DataFrame, context: SourceContext) -> Any:  # noqa: ARG001 - a rule
    import pandas as pd

    dates = pd.to_numeric(frame["StudyDate_DICOM"], errors="coerce")
    return dates // 10_000 - pd.to_numeric(frame["PatientBirth"], errors="coerce")


def _unusable(frame: pd.DataFrame, context: SourceContext) -> Any:
    """Without labels or unreadable; and, unlike 1.5.7, set aside by the readers or of a child."""
    unusable = (frame["Labels"].isna() | frame["ImageID"].isin(_UNREADABLE)).to_numpy(dtype=bool)
    if context.compat:
        return unusable
    child = (_study_age(frame, context) <= _YOUNGEST).to_numpy(dtype=bool, na_value=False)
    return unusable | _mentions(frame, "exclude") | child


def _old_enough(frame: pd.DataFrame, context: SourceContext) -> Any:
    """1.5.7 reckons ages in 2019, after it has chosen one image of each patient."""
    if not context.compat:
        return np.ones(len(frame), dtype=bool)
    return 2019 - frame["PatientBirth"] > _YOUNGEST


def _view(frame: pd.DataFrame, context: SourceContext) -> Any:  # noqa: ARG001 - a rule
    view = frame["Projection"]
    if is_coded_text(view):
        return view.cat.rename_categories({"AP_horizontal": "AP Supine"})
    return view.replace({"AP_horizontal": "AP Supine"})


def _days(frame: pd.DataFrame, context: SourceContext) -> Any:  # noqa: ARG001 - a rule
    return days(frame["StudyDate_DICOM"])


def _path(row: Row) -> str:
    return str(row["ImageID"]) if row["flat_dir"] else f"{row['ImageDir']}/{row['ImageID']}"


class PC_Dataset(SpecDataset):
    """PadChest: 160,861 images of 67,000 patients of a hospital in Alicante, 2009 to 2017.

    28 findings out of the terms of 174 findings and 19 diagnoses: physicians read 24 % of the
    reports, a recurrent network the others (column *MethodLabel*). Terms count whole and with what
    stands below them in the hierarchy of the release: a pseudonodule is no nodule, subcutaneous
    emphysema no emphysema, an old fracture a fracture.

    Left out are 21 files that cannot be decoded, 103 images without labels, those whose report
    the readers set aside (*exclude*), and those of patients of ten years or less. Where a report
    says no more than *unchanged* or *suboptimal study* the findings are unknown; column
    ``suboptimal`` marks the latter. Ages are the year of the study minus that of the birth. Rows
    are in the order of ImageID.

    Args:
        imgpath: Folder of the 16-bit PNG files.
        csvpath: PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.
        views: "PA", "L", "AP", "AP Supine", "COSTAL", "UNK", "EXCLUDE", several, or "*".
        flat_dir: All files are in `imgpath`; False: in the folders 0 to 54 of the release. Files
            that are not there are looked for in all folders.
    """

    spec = DatasetSpec(
        title="PadChest",
        reference=Reference(
            authors="Bustos A, Pertusa A, Salinas JM, de la Iglesia-Vayá M",
            title="PadChest: a large chest x-ray image dataset with multi-label annotated reports",
            year=2020,
            venue="Medical Image Analysis",
            url="https://arxiv.org/abs/1901.07441",
        ),
        license=License(
            name="PadChest Dataset Research Use Agreement",
            url="https://bimcv.cipf.es/bimcv-projects/padchest/padchest-dataset-research-use-agreement/",
            commercial=False,
        ),
        homepage="https://bimcv.cipf.es/bimcv-projects/padchest/",
        tables=(
            Table(
                "csvpath",
                packaged="padchest",
                read=read_padchest,
                deferred_columns=_LATER,
                description="PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv of the release",
            ),
        ),
        join=_table,
        images=Files(
            _path,
            layout="the PNG files, in one folder or in 0 to 54",
            folders=(".", "[0-9]", "[0-9][0-9]"),
        ),
        findings=FindingText(
            "Labels", PADCHEST_TERMS, padchest_terms, substrings=PADCHEST_SUBSTRINGS
        ),
        view=_view,
        patient="PatientID",
        cohort="PadChest",
        drop=_unusable,
        keep=_old_enough,
        sort_by="ImageID",
        columns={
            "patientid": "PatientID",
            "offset_day_int": _days,
            "age_years": _study_age,
            **sexes("PatientSex_DICOM", "M", "F"),
        },
        verified="all columns",
        parameters="imgpath, csvpath, views, transform, data_aug, flat_dir=True, seed, "
        "unique_patients=True",
    )

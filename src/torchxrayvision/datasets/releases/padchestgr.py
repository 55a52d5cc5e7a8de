"""PadChest-GR: sentences of reports with the boxes that they mean, on PadChest images."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torchxrayvision.datasets.annotations import BoxTable
from torchxrayvision.datasets.findings import FindingFunction, FindingText, separated
from torchxrayvision.datasets.images import Files
from torchxrayvision.datasets.release import need_columns
from torchxrayvision.datasets.releases.grounded import GroundedDataset, read_records
from torchxrayvision.datasets.releases.padchest import PADCHEST_TERMS
from torchxrayvision.datasets.spec import DatasetSpec, Table
from torchxrayvision.datasets.storage import plain_text
from torchxrayvision.facts import License, Reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import pandas as pd

    from torchxrayvision.datasets.findings import Labels
    from torchxrayvision.datasets.release import SourceContext

_BOX = ("x_min", "y_min", "x_max", "y_max")


def _read_master(path: Path) -> pd.DataFrame:
    """The table as text: its study and patient numbers have forty digits."""
    import pandas as pd

    from torchxrayvision.csvtext import open_table

    with open_table(path) as table:
        return pd.read_csv(table, dtype=str, low_memory=False)


def _one_row_an_image(context: SourceContext) -> pd.DataFrame:
    """The images of the reports; boxes, and boxes by finding, go into tables of their own."""
    import pandas as pd

    reports, master = context.tables["jsonpath"], context.tables["csvpath"]
    need_columns(reports, ["StudyID", "ImageID", "findings"], context)
    need_columns(master, ["StudyID", "PatientID", "split"], context)
    sentences = [
        (image, sentence)
        for image, listed in zip(reports["ImageID"], reports["findings"], strict=True)
        for sentence in _listed(listed)
        if sentence.get("abnormal")
    ]
    labels: dict[str, list[str]] = {}
    for image, sentence in sentences:
        labels.setdefault(image, []).extend(map(str, _listed(sentence.get("labels"))))
    frame = reports[["StudyID", "ImageID"]].astype(str).drop_duplicates("ImageID")
    frame = frame.assign(
        labels=["|".join(dict.fromkeys(labels.get(name, []))) for name in frame["ImageID"]]
    )
    boxes = pd.DataFrame(
        [found for image, sentence in sentences for found in _boxes(image, sentence, context)],
        columns=["ImageID", "labels", "sentence_en", "sentence_es", "locations", *_BOX],
    )
    context.tables["boxes"] = boxes
    context.tables["grounded"] = _by_finding(boxes, context)
    return frame.merge(_of_master(master), on="StudyID", how="left")


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _boxes(
    image: str, sentence: Mapping[str, Any], context: SourceContext
) -> Iterable[tuple[Any, ...]]:
    """One tuple per box of a sentence."""
    said = [str(sentence.get(key) or "") for key in ("sentence_en", "sentence_es")]
    labels, places = (
        "|".join(map(str, _listed(sentence.get(key)))) for key in ("labels", "locations")
    )
    drawn = list(_listed(sentence.get("boxes")))
    if context.arguments["extra_boxes"]:
        drawn += _listed(sentence.get("extra_boxes"))
    for box in drawn:
        yield (image, labels, *said, places, *(float(number) for number in box))


def _by_finding(boxes: pd.DataFrame, context: SourceContext) -> pd.DataFrame:
    """The boxes once for each finding that their labels mean."""
    import pandas as pd

    meant: dict[str, list[str]] = {}
    for finding, terms in _terms(context, boxes["labels"]).items():
        for term in terms:
            meant.setdefault(term.casefold(), []).append(finding)
    findings = [
        sorted({f for label in text.split("|") for f in meant.get(label.strip().casefold(), [])})
        for text in boxes["labels"]
    ]
    named = pd.Series(findings, index=boxes.index, dtype=object)
    return boxes[["ImageID", *_BOX]].assign(finding=named).explode("finding").dropna()


def _terms(context: SourceContext, texts: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """Finding to the labels that mean it."""
    if context.arguments["findings"] == "padchest":
        return PADCHEST_TERMS
    raw = {label.strip() for text in texts for label in text.split("|")}
    return {label: (label,) for label in sorted(raw) if label}


def _of_master(master: pd.DataFrame) -> pd.DataFrame:
    """Patient, split and groups of labels of each study."""
    table = master.assign(
        StudyID=plain_text(master["StudyID"]), PatientID=plain_text(master["PatientID"])
    )
    first = table.drop_duplicates("StudyID")[["StudyID", "PatientID", "split"]]
    if "label_group" not in table:
        return first
    named = table[table["label_group"].notna()].astype({"label_group": str})
    groups = named.groupby("StudyID")["label_group"].agg(lambda group: "|".join(sorted(set(group))))
    return first.assign(label_groups=first["StudyID"].map(groups).fillna(""))


def _reported(frame: pd.DataFrame, context: SourceContext) -> Labels:
    """1 where the report says so, 0 elsewhere."""
    terms = _terms(context, frame["labels"])
    rule = FindingText("labels", terms, separated("|"), blank=0.0)
    return rule.encode(frame, replace(context, compat=False))


class PadChestGR_Dataset(GroundedDataset):
    """PadChest-GR: 4,555 PadChest images whose reports have a box for each finding.

    Radiologists drew boxes for the positive sentences of the reports. Labels are of the report: 1
    where a positive sentence has one of the labels that mean the finding, 0 elsewhere. With
    ``findings="padchest"`` these are the findings of `PC_Dataset`, with the same terms; with "raw"
    every label that occurs, some 150, under its own name.

    Masks are the boxes of a finding, united; ``bbox`` has every box once, and ``annotations(i)``
    each box with its labels, locations and sentence in English and Spanish. Boxes are fractions of
    width and height in the release. The split is the release's, by patients. ``label_groups`` in
    ``csv`` are the release's 26 groups. Count: the release's table of reports.

    Args:
        imgpath: Folder of the PNG files (16 bits), or any folder above it; the two tables are
            looked for in it too.
        jsonpath: grounded_reports_20240819.json.
        csvpath: master_table.csv (may be zipped).
        findings: "padchest" or "raw".
        extra_boxes: Add the boxes of the key ``extra_boxes``.
        pathology_masks: Add the boxes as masks.
    """

    spec = DatasetSpec(
        title="PadChest-GR",
        reference=Reference(
            authors="de Castro DC, Bustos A, Bannur S, et al.",
            title="PadChest-GR: a bilingual chest X-ray dataset for grounded radiology report "
            "generation",
            year=2024,
            venue="arXiv",
            url="https://arxiv.org/abs/2411.05085",
        ),
        license=License(
            name="PadChest-GR Dataset Research Use Agreement",
            url="https://bimcv.cipf.es/bimcv-projects/padchest-gr/",
            commercial=False,
        ),
        homepage="https://bimcv.cipf.es/bimcv-projects/padchest-gr/",
        tables=(
            Table(
                "jsonpath",
                read=read_records,
                path_below_imgpath="grounded_reports_20240819.json",
                description="grounded_reports_20240819.json of the release",
            ),
            Table(
                "csvpath",
                read=_read_master,
                path_below_imgpath="master_table.csv",
                description="master_table.csv of the release",
            ),
        ),
        join=_one_row_an_image,
        images=Files(
            "{ImageID}",
            layout="the PNG files, in one folder, in PadChest_GR or in PadChest's 0 to 54",
            folders=("PadChest_GR", "*/PadChest_GR", "[0-9]", "[0-9][0-9]"),
        ),
        findings=FindingFunction(_reported, tuple(PADCHEST_TERMS)),
        patient="PatientID",
        # Numbers of 36 to 39 digits: none of these would agree by chance.
        cohort="PadChest",
        compat_keeps_whole_rows=True,
        columns={"patientid": "PatientID"},
        masks=BoxTable(
            table="grounded",
            image="ImageID",
            finding="finding",
            box=_BOX,
            form="xyxy",
            frame=1,
        ),
        boxes=BoxTable(table="boxes", image="ImageID", box=_BOX, form="xyxy", frame=1),
        split="split",
        verified="all keys of the reports, which sentences without a finding may lack; StudyID, "
        "PatientID, split and label_group of the table, the last of which may be "
        "missing. What extra_boxes adds is not documented",
        choices={"findings": ("padchest", "raw")},
        parameters="imgpath, jsonpath, csvpath, findings='padchest', extra_boxes=False, "
        "transform, data_aug, seed, unique_patients, pathology_masks",
    )

"""Open-i's chest X-rays of Indiana University."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING, Any

from torchxrayvision.datasets.columns import days
from torchxrayvision.datasets.findings import FindingText
from torchxrayvision.datasets.images import Files
from torchxrayvision.datasets.pipeline import SpecDataset
from torchxrayvision.datasets.reading import release_table
from torchxrayvision.datasets.release import need_columns
from torchxrayvision.datasets.releases.openi_terms import OPENI_SUBSTRINGS, OPENI_TERMS, openi_terms
from torchxrayvision.datasets.spec import DatasetSpec, Table
from torchxrayvision.datasets.storage import plain_text
from torchxrayvision.errors import DatasetError
from torchxrayvision.facts import License, Reference

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pandas as pd

    from torchxrayvision.datasets.release import SourceContext

# Two images have other names in the table of headers.
_RENAMED = {
    "CXR1_IM-0001-3001": "CXR1_1_IM-0001-3001",
    "CXR1_IM-0001-4001": "CXR1_1_IM-0001-4001",
}
_LATERAL = {"LATERAL": "L", "LARGE LATERAL": "L"}


def _reports(path: Path) -> Iterator[bytes]:
    """Every report of an archive or a folder, in order."""
    if path.is_dir():
        yield from (file.read_bytes() for file in sorted(path.rglob("*.xml")))
        return
    with tarfile.open(path) as archive:
        for member in archive:
            stream = archive.extractfile(member)
            if stream is not None:
                yield stream.read()


def read_openi_reports(path: Path) -> pd.DataFrame:
    """Images and terms of the reports of the release.

    Args:
        path: NLMCXR_reports.tgz, the folder that it unpacks to, or a table made of them.

    Returns:
        One row per image: ``uid`` of its report, ``imageid``, and the terms that people
        (``labels_major``) and a program (``labels_automatic``) gave the report, in lower case.
    """
    from xml.etree import ElementTree

    import pandas as pd

    from torchxrayvision.datasets.reading import read_csv

    if path.name.endswith((".csv", ".csv.gz", ".parquet")):
        return read_csv(path)
    rows = []
    for report in _reports(path):
        try:
            root = ElementTree.fromstring(report)
        except ElementTree.ParseError as error:
            msg = f"Openi_Dataset: xmlpath={str(path)!r} holds a report that is no XML: {error}"
            raise DatasetError(msg) from error
        found = {
            kind: "|".join(sorted({(e.text or "").lower() for e in root.iterfind(f"MeSH/{kind}")}))
            for kind in ("major", "automatic")
        }
        number = root.find("uId")
        rows += [
            {
                "uid": number.get("id") if number is not None else None,
                "imageid": image.get("id"),
                "labels_major": found["major"],
                "labels_automatic": found["automatic"],
            }
            for image in root.iterfind("parentImage")
        ]
    return pd.DataFrame(rows, columns=["uid", "imageid", "labels_major", "labels_automatic"])


def _join(context: SourceContext) -> pd.DataFrame:
    """Reports beside the headers of their images, and the view that t-SNE clusters suggest."""
    reports = context.tables["xmlpath"]
    headers = context.tables["dicomcsv_path"]
    clusters = context.tables["tsnepacsv_path"]
    need_columns(reports, ["uid", "imageid", "labels_major", "labels_automatic"], context)
    need_columns(headers, ["imageid", "View Position"], context)
    need_columns(clusters, ["imageid", "tsne-view"], context)
    if not context.compat:
        headers = headers.assign(imageid=headers["imageid"].replace(_RENAMED))
    joined = reports.merge(headers, on="imageid", how="left")
    joined = joined.merge(clusters, on="imageid", how="left")
    automatic = plain_text(joined["labels_automatic"]).fillna("")
    if context.compat:
        return joined.assign(terms=automatic)
    return joined.assign(terms=plain_text(joined["labels_major"]).fillna("") + "|" + automatic)


def _view(frame: pd.DataFrame, context: SourceContext) -> Any:
    if context.arguments["use_tsne_derived_view"]:
        return frame["tsne-view"]
    raw = plain_text(frame["View Position"])
    return raw if context.compat else raw.replace(_LATERAL)


def _days(frame: pd.DataFrame, context: SourceContext) -> Any:
    need_columns(frame, ["Study Date"], context)
    return days(frame["Study Date"])


def _age(frame: pd.DataFrame, context: SourceContext) -> Any:
    import pandas as pd

    need_columns(frame, ["Study Date", "Patient's Birth Date"], context)
    study = pd.to_numeric(frame["Study Date"], errors="coerce")
    birth = pd.to_numeric(frame["Patient's Birth Date"], errors="coerce")
    return (study - birth) // 10_000  # YYYYMMDD, so a birthday still to come counts


class Openi_Dataset(SpecDataset):
    """Open-i: 7,470 frontal and lateral images of 3,851 patients of Indiana University.

    Eighteen findings out of the terms that people and a program gave each report. A finding is
    present if either says so; the terms count whole. The findings of reports that nobody coded, or
    whose images were of no use, are unknown. Labels belong to a report, so both images share them.

    The *View Position* of the headers calls many lateral images PA. t-SNE clusters tell frontal
    from lateral for one image of each report (`use_tsne_derived_view`), the others are "UNKNOWN"
    then. Dates are those of the headers, which were de-identified; ages are their differences.

    ``.csv`` has 11 columns of the headers. For all 175 pass
    ``dicomcsv_path=torchxrayvision.tables.load("openi_dicom")``.

    Args:
        imgpath: Folder of the PNG files (NLMCXR_png.tgz).
        xmlpath: The reports: NLMCXR_reports.tgz or its folder.
        dicomcsv_path: Table of the DICOM headers.
        tsnepacsv_path: Table of the views by t-SNE.
        use_tsne_derived_view: Take views from there.
        views: "PA", "AP", "L", "LL", "RL", "UNKNOWN", several, or "*".
        nrows: Read only the first rows of the reports.
    """

    spec = DatasetSpec(
        title="Open-i, Indiana University chest X-rays",
        reference=Reference(
            authors="Demner-Fushman D, Kohli MD, Rosenman MB, et al.",
            title="Preparing a collection of radiology examinations for distribution and retrieval",
            year=2016,
            venue="Journal of the American Medical Informatics Association",
            url="https://doi.org/10.1093/jamia/ocv080",
        ),
        license=License(
            name="CC BY-NC-ND 4.0",
            url="https://creativecommons.org/licenses/by-nc-nd/4.0/",
            commercial=False,
        ),
        homepage="https://openi.nlm.nih.gov/",
        tables=(
            Table(
                "xmlpath",
                packaged="openi",
                read=read_openi_reports,
                description="NLMCXR_reports.tgz",
            ),
            Table(
                "dicomcsv_path",
                packaged="openi_dicom",
                columns=(
                    "imageid",
                    "Patient ID",
                    "Patient's Birth Date",
                    "Study Date",
                    "View Position",
                    "Laterality",
                    "Manufacturer",
                    "Photometric Interpretation",
                    "Bits Stored",
                    "Pixel Spacing",
                    "Rows",
                    "Columns",
                ),
                description="a table of the DICOM headers",
            ),
            Table(
                "tsnepacsv_path", packaged="openi_tsne", description="a table of the views by t-SNE"
            ),
        ),
        join=_join,
        images=Files(
            "{imageid}.png",
            layout="the PNG files of NLMCXR_png.tgz",
            folders=("NLMCXR_png", "images", "images/images_normalized"),
        ),
        findings=FindingText(
            "terms",
            OPENI_TERMS,
            openi_terms,
            substrings=OPENI_SUBSTRINGS,
        ),
        view=_view,
        patient="uid",
        columns={"patientid": "uid", "offset_day_int": _days, "age_years": _age},
        verified="all columns",
        parameters="imgpath, xmlpath, dicomcsv_path, tsnepacsv_path, use_tsne_derived_view=False, "
        "views, transform, data_aug, nrows, seed, unique_patients=True",
    )

    @property
    def dicom_metadata(self) -> pd.DataFrame:
        """All fields of the DICOM headers by ``imageid``."""
        return release_table(self, "dicomcsv_path").set_index("imageid")

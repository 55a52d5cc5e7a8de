"""Build the packaged metadata tables from the data folder of a torchxrayvision 1.5.7 wheel.

Two further sources, which that folder lacks, are put into it: rsna-nih-matches.csv.gz and
nih-official-test-patients.txt, see `read_matches`.

    python tools/build_tables.py DATA_FOLDER [--out src/torchxrayvision/tables] [--only NAME ...]

Each source becomes one parquet file whose rows stand in the order of the source, with the column
names and values that ``pandas.read_csv`` gives. Every table is read back and compared with its
source, column by column, before the run succeeds. ``tables.json`` records where each came from.

Encodings, chosen by measurement on the two largest tables:

* In tables of many rows, text that repeats becomes a dictionary with sorted values, so that its
  codes sort as the text does, and pandas reads it as a categorical. Identifiers that
  pandas would read as integers too wide for 64 bits become text whose dictionary is in numeric
  order.
* Text that hardly repeats is stored plain: zstd finds the shared prefixes. Integers that hardly
  repeat are stored as differences.
* Columns of -1, 0, 1 and blank (CheXpert findings) become float32, which holds them exactly;
  any other float stays float64. Integers become int32, the narrowest in which products of image
  sizes do not overflow.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import tarfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from torchxrayvision.masks import encode_coco_rle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OUT = Path(__file__).parents[1] / "src" / "torchxrayvision" / "tables"
MANY_ROWS = 20_000  # below, a categorical costs more time than it saves memory
ONE_PAGE = 1 << 27  # bytes: a dictionary that spills into plain pages costs size and read time
WORST_MATCH = 10.0
"""Highest mean squared error of 8-bit pixels at which two images are the same: that of the 26,586
matches ends at 7.2, that of the 98 others begins at 73."""
DATE = "2026-11-22"
"""When the sources were taken from the wheel."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One table: its file, where that came from, and what is left out.

    Args:
        name: Name of the table.
        file: Name of the source in the data folder.
        title: What a row is.
        publisher: Who published the original.
        url: Where the original stands.
        licence: Name of the licence or agreement.
        terms: What a user must know.
        read: Reads the source into a frame.
        leave_out: Column to the reason why it is not packaged.
        numeric_text: Identifier columns whose digits are kept as text, in numeric order.
        note: How the table differs from the source besides.
        taken: When the source was taken.
    """

    name: str
    file: str
    title: str
    publisher: str
    url: str
    licence: str
    terms: str
    read: Callable[[Path], pd.DataFrame]
    leave_out: dict[str, str] = field(default_factory=dict)
    numeric_text: tuple[str, ...] = ()
    note: str = ""
    taken: str = DATE


def read_csv(path: Path) -> pd.DataFrame:
    """Read a table as ``pandas.read_csv`` does; compression is told from the name."""
    return pd.read_csv(path, low_memory=False)


def read_padchest(path: Path) -> pd.DataFrame:
    """Read PadChest with its identifiers as text: some have 39 digits, some a dash."""
    return pd.read_csv(path, low_memory=False, dtype={"StudyID": str, "PatientID": str})


def read_matches(path: Path) -> pd.DataFrame:
    """The NIH image that each RSNA image was made of, and whether NIH tests on its patient.

    Args:
        path: rsna-nih-matches.csv.gz; the list of NIH's test patients, one number per line, lies
            beside it.
    """
    frame = pd.read_csv(path)
    tested = {int(line) for line in (path.parent / "nih-official-test-patients.txt").open()}
    matched = frame["mse"] <= WORST_MATCH
    image = frame["nih_image_index"].where(matched)
    patients = image.str[:8].astype(float)
    return pd.DataFrame(
        {
            "patientId": frame["rsna_patientId"],
            "nih_image": image,
            "mse": frame["mse"],
            "nih_test": patients.isin(tested),
        }
    )


def read_patients(path: Path) -> pd.DataFrame:
    """A list of patients, one number per line, as one column."""
    return pd.DataFrame({"Patient ID": sorted(int(line) for line in path.open())})


def _reports(path: Path) -> Iterator[dict[str, Any]]:
    with tarfile.open(path) as archive:
        for member in archive:
            stream = archive.extractfile(member)
            if stream is None:
                continue
            root = ElementTree.parse(stream).getroot()
            terms = {
                kind: "|".join(
                    sorted({(e.text or "").lower() for e in root.iterfind(f"MeSH/{kind}")})
                )
                for kind in ("major", "automatic")
            }
            uid = root.find("uId").get("id")
            for image in root.iterfind("parentImage"):
                yield {
                    "uid": uid,
                    "imageid": image.get("id"),
                    "labels_major": terms["major"],
                    "labels_automatic": terms["automatic"],
                }


def read_reports(path: Path) -> pd.DataFrame:
    """One row an image: its report and the MeSH terms of that report, joined with ``|``."""
    return pd.DataFrame(_reports(path))


def read_masks(path: Path) -> pd.DataFrame:
    """One row a mask of the archive, run lengths in COCO's compressed form."""
    rows = []
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith("/"):
                continue
            pixels = np.asarray(Image.open(io.BytesIO(archive.read(name))))
            if not np.isin(pixels, (0, 127, 255)).all():
                msg = f"{name} holds values other than 0, 127 and 255"
                raise ValueError(msg)
            half = pixels == 127
            rows.append(
                {
                    "filename": name.partition("/")[2],
                    "height": pixels.shape[0],
                    "width": pixels.shape[1],
                    "counts": encode_coco_rle(pixels == 255),
                    "counts_127": encode_coco_rle(half) if half.any() else "",
                }
            )
    return pd.DataFrame(rows)


EMPTY = "empty in every row"
NIH = {
    "publisher": "NIH Clinical Center",
    "url": "https://nihcc.app.box.com/v/ChestXray-NIHCC",
    "licence": "NIH Clinical Center terms of use",
    "terms": "No restriction on use; link to the download site, cite Wang et al. 2017 and "
    "acknowledge the NIH Clinical Center.",
}
RSNA = {
    "publisher": "Radiological Society of North America, on images of the NIH Clinical Center",
    "url": "https://www.kaggle.com/c/rsna-pneumonia-detection-challenge",
    "licence": "RSNA Pneumonia Detection Challenge terms of use",
    "terms": "Non-commercial and academic research and education under the terms on the "
    "challenge's page; cite Shih et al. 2019.",
}
OPENI = {
    "publisher": "Indiana University and the National Library of Medicine (Open-i)",
    "url": "https://openi.nlm.nih.gov/faq",
    "licence": "CC BY-NC-ND 4.0",
    "terms": "Licence named in each report of the release; cite Demner-Fushman et al. 2016.",
}
SOURCES = (
    Source(
        name="nih",
        file="Data_Entry_2017_v2020.csv.gz",
        title="One row an image of NIH ChestX-ray14",
        read=read_csv,
        **NIH,
    ),
    Source(
        name="nih_boxes",
        file="BBox_List_2017.csv.gz",
        title="One row a box drawn on an image of NIH ChestX-ray14, in pixels of 1024 by 1024",
        read=read_csv,
        leave_out=dict.fromkeys(["Unnamed: 6", "Unnamed: 7", "Unnamed: 8"], EMPTY),
        **NIH,
    ),
    Source(
        name="nih_test",
        file="nih-official-test-patients.txt",
        title="One row a patient of NIH's official test list, test_list.txt",
        read=read_patients,
        note="The 2,797 patients of the 25,596 images that test_list.txt names; all images of a "
        "patient are on one side. SHA-256 of the eight-digit numbers, sorted and joined by line "
        "feeds: c8785378860368fe9cfe9d0f35d0b40f6cf438c0ffe5c74bd392a882e09b6d38.",
        **{**NIH, "taken": "2026-11-29"},
    ),
    Source(
        name="nih_google",
        file="google2019_nih-chest-xray-labels.csv.gz",
        title="One row an image that radiologists read again, validation and test sets",
        publisher="Google Health",
        url="https://cloud.google.com/healthcare-api/docs/resources/public-datasets/nih-chest",
        licence="Terms on the publisher's page",
        terms="Terms of the NIH images hold besides; cite Majkowska et al. 2019.",
        read=read_csv,
    ),
    Source(
        name="rsna",
        file="kaggle_stage_2_train_labels.csv.zip",
        title="One row a box, or an image without one, in pixels of 1024 by 1024",
        read=read_csv,
        **RSNA,
    ),
    Source(
        name="rsna_dicom",
        file="kaggle_stage_2_train_images_dicom_headers.csv.gz",
        title="One row an image: its DICOM header",
        read=read_csv,
        **RSNA,
    ),
    Source(
        name="rsna_nih",
        file="rsna-nih-matches.csv.gz",
        title="One row an image of RSNA's challenge: the image of NIH ChestX-ray14 it was made of",
        publisher="Authors of TorchXRayVision",
        url="https://github.com/mlmed/torchxrayvision",
        licence="Apache-2.0",
        terms="Cite Cohen et al. 2022.",
        read=read_matches,
        note="The source has the nearest image by mean squared error (mse); above 10 (98 rows) it "
        "is another image, and nih_image is blank. The first eight digits of nih_image are the "
        "patient. nih_test says whether that patient is in test_list.txt of NIH ChestX-ray14.",
        taken="2026-11-29",
    ),
    Source(
        name="padchest",
        file="PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz",
        title="One row an image",
        publisher="BIMCV, Medical Imaging Databank of the Valencia Region",
        url="https://bimcv.cipf.es/bimcv-projects/padchest/",
        licence="PadChest Dataset Research Use Agreement",
        terms="Research only; registration and the agreement on the publisher's page; "
        "cite Bustos et al. 2020.",
        read=read_padchest,
        leave_out={"Report": "free text of a radiology report"},
        numeric_text=("PatientID",),
        note="StudyID and PatientID are text.",
    ),
    Source(
        name="chexpert",
        file="chexpert_train.csv.gz",
        title="One row an image of the training set",
        publisher="Stanford Machine Learning Group",
        url="https://stanfordmlgroup.github.io/competitions/chexpert/",
        licence="Stanford University Dataset Research Use Agreement",
        terms="Non-commercial research; registration and the agreement on the publisher's page; "
        "cite Irvin et al. 2019.",
        read=read_csv,
    ),
    Source(
        name="openi",
        file="NLMCXR_reports.tgz",
        title="One row an image: its report and the MeSH terms of that report",
        read=read_reports,
        note="Read from 3,955 reports in XML, in the order of the archive. Terms are in lower "
        "case, distinct, sorted, joined with '|'. The reports' text is left out, and the captions, "
        "which quote it in places.",
        **OPENI,
    ),
    Source(
        name="openi_dicom",
        file="nlmcxr_dicom_metadata.csv.gz",
        title="One row an image: its DICOM header, read by the authors of TorchXRayVision",
        read=read_csv,
        **OPENI,
    ),
    Source(
        name="openi_tsne",
        file="nlmcxr_tsne_pa.csv.gz",
        title="One row an image: frontal or lateral, from clusters of a t-SNE map",
        publisher="Authors of TorchXRayVision",
        url="https://github.com/mlmed/torchxrayvision",
        licence="Apache-2.0",
        terms="Cite Cohen et al. 2022.",
        read=read_csv,
    ),
    Source(
        name="siim",
        file="siim-pneumothorax-train-rle.csv.gz",
        title="One row a mask, or an image without one; -1 or gaps and runs down the columns",
        publisher="Society for Imaging Informatics in Medicine and American College of Radiology",
        url="https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation",
        licence="SIIM-ACR Pneumothorax Segmentation rules",
        terms="Terms on the challenge's page.",
        read=read_csv,
    ),
    Source(
        name="vindr",
        file="vinbigdata-train.csv.gz",
        title="One row a box of a reader, or a reader's 'No finding', in pixels of the image",
        publisher="VinBigData Institute",
        url="https://www.kaggle.com/c/vinbigdata-chest-xray-abnormalities-detection",
        licence="VinBigData Chest X-ray Abnormalities Detection rules",
        terms="Terms on the challenge's page; the PhysioNet release needs credentialed access; "
        "cite Nguyen et al. 2022.",
        read=read_csv,
    ),
    Source(
        name="covid_lungs",
        file="semantic_masks_v7labs_lungs.zip",
        title="One row a mask of both lungs for an image of the COVID-19 image data collection",
        publisher="V7 Labs",
        url="https://github.com/v7labs/covid-19-xray-dataset",
        licence="CC BY 4.0",
        terms="Name V7 Labs.",
        read=read_masks,
        note="Masks in PNG, here as COCO's compressed run lengths: counts for pixels of 255, "
        "which 1.5.7 takes as lung, and counts_127 for pixels of 127, which some masks have beside "
        "them and whose meaning the source does not state. Some masks are empty.",
    ),
)


def _order(values: pd.Series, numeric: bool) -> list[str]:
    distinct = [str(v) for v in values.dropna().unique()]
    return sorted(distinct, key=lambda v: (len(v), v)) if numeric else sorted(distinct)


def _text(values: pd.Series, numeric: bool) -> pa.Array:
    if len(values) < MANY_ROWS or values.nunique() * 2 > len(values):
        return pa.array(values, pa.string(), from_pandas=True)
    order = _order(values, numeric)
    small = pa.int8() if len(order) < 128 else pa.int16() if len(order) < 1 << 15 else pa.int32()
    codes = pd.Categorical(values, categories=order).codes
    indices = pa.array(codes, small, mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(order, pa.string()))


def _column(values: pd.Series, numeric: bool) -> pa.Array:
    if values.dtype.kind == "i":
        if values.abs().max() >= 1 << 31:
            return pa.array(values.to_numpy(), pa.int64())
        return pa.array(values.to_numpy(), pa.int32())
    if values.dtype.kind == "f":
        narrow = values.dropna().isin((-1.0, 0.0, 1.0)).all() and values.notna().any()
        return pa.array(values.to_numpy(np.float32 if narrow else np.float64))
    if values.dtype.kind == "b":
        return pa.array(values.to_numpy())
    return _text(values, numeric)


def to_arrow(frame: pd.DataFrame, source: Source) -> pa.Table:
    """Choose a type for each column that keeps its values."""
    arrays, fields = [], []
    for name in frame.columns:
        array = _column(frame[name], name in source.numeric_text)
        arrays.append(array)
        # A column declared free of nulls needs no validity levels and is read without a copy.
        fields.append(pa.field(name, array.type, nullable=array.null_count > 0))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _mostly_distinct(column: pa.ChunkedArray, kind: pa.DataType) -> bool:
    coded = pa.types.is_dictionary(kind) or pa.types.is_floating(kind)
    return not coded and len(column.unique()) * 2 > len(column)


def write(table: pa.Table, path: Path) -> None:
    """Write one row group, each column one page; numbers and dictionaries dictionary-coded."""
    distinct = [f.name for f in table.schema if _mostly_distinct(table[f.name], f.type)]
    integers = [n for n in distinct if pa.types.is_integer(table.schema.field(n).type)]
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=19,
        use_dictionary=[n for n in table.column_names if n not in distinct],
        column_encoding=dict.fromkeys(integers, "DELTA_BINARY_PACKED") or None,
        write_statistics=False,
        row_group_size=max(1, table.num_rows),
        data_page_size=ONE_PAGE,
        dictionary_pagesize_limit=ONE_PAGE,
    )


def check(path: Path, frame: pd.DataFrame) -> None:
    """Compare the written table with its source, value by value.

    Raises:
        ValueError: If a column differs.
    """
    back = pq.ParquetFile(path).read().to_pandas()
    if list(back.columns) != list(frame.columns) or len(back) != len(frame):
        msg = f"{path.name}: rows or columns were lost"
        raise ValueError(msg)
    for name in frame.columns:
        want, got = frame[name], back[name]
        if want.dtype.kind in "ifb":
            same = np.array_equal(
                want.to_numpy(np.float64), got.to_numpy(np.float64), equal_nan=True
            )
        else:
            same = want.isna().equals(got.isna()) and bool(
                (want.dropna().astype(object) == got.dropna().astype(object)).all()
            )
        if not same:
            msg = f"{path.name}: column {name!r} differs from the source"
            raise ValueError(msg)


def build(source: Source, data: Path, out: Path) -> dict[str, Any]:
    """Write one table and return its record."""
    origin = data / source.file
    frame = source.read(origin).drop(columns=list(source.leave_out))
    path = out / f"{source.name}.parquet"
    write(to_arrow(frame, source), path)
    check(path, frame)
    return {
        "file": path.name,
        "title": source.title,
        "rows": len(frame),
        "columns": [str(c) for c in frame.columns],
        "left_out": source.leave_out,
        "note": source.note,
        "source": source.file,
        "source_sha256": hashlib.sha256(origin.read_bytes()).hexdigest(),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "publisher": source.publisher,
        "url": source.url,
        "licence": source.licence,
        "terms": source.terms,
        "taken": source.taken,
    }


def main() -> None:
    """Build the tables named on the command line, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="data folder of the 1.5.7 wheel")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--only", nargs="*", help="names of tables")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    index = args.out / "tables.json"
    old = json.loads(index.read_text("utf-8"))["tables"] if index.is_file() else {}
    tables = {}
    for source in SOURCES:
        if args.only and source.name not in args.only:
            if source.name in old:
                tables[source.name] = old[source.name]
            continue
        tables[source.name] = build(source, args.data, args.out)
        size = (args.out / f"{source.name}.parquet").stat().st_size
        print(f"{source.name:12} {tables[source.name]['rows']:>8,} rows {size / 1e3:>8,.0f} kB")
    record = {
        "about": "Metadata tables as packaged with torchxrayvision 1.5.7, rows in the order of "
        "the source. Built by tools/build_tables.py.",
        "tables": tables,
    }
    index.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()

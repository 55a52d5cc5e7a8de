"""VinDr-CXR as on Kaggle and as on PhysioNet, with its readers one by one or in agreement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.datasets.annotations import BoxTable
from torchxrayvision.datasets.findings import FindingFunction
from torchxrayvision.datasets.images import Files
from torchxrayvision.datasets.pipeline import SpecDataset
from torchxrayvision.datasets.reading import release_table
from torchxrayvision.datasets.release import need_columns
from torchxrayvision.datasets.spec import DatasetSpec, Table, value
from torchxrayvision.facts import License, Reference
from torchxrayvision.labels import VINDR14, VINDR_GLOBAL, VINDR_LOCAL, VINDR_RENAME
from torchxrayvision.masks import box_edges, boxes_to_mask

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from torchxrayvision.datasets.findings import Labels
    from torchxrayvision.datasets.release import Row, SourceContext

_CONSENSUS = ("any", "majority", "all")
_NONE = "No finding"
_TOGETHER = "consensus"  # stands for the reader where the release gives the common result
_TO_FINDING: Mapping[str, str] = {raw: finding for finding, raw in VINDR_RENAME.items()}


def _raw(finding: str) -> str:
    """Name of a finding in the release."""
    return VINDR_RENAME.get(finding, finding)


def vindr_findings(context: SourceContext) -> tuple[str, ...]:
    """Findings that the tables at hand can speak of: 14, 22 or 27.

    Kaggle's table has numbers for its classes and merges some; PhysioNet's boxes are of 22
    findings; five diagnoses stand only in the table of labels. 1.5.7 knows the 14 of Kaggle, and
    no table of labels.
    """
    if "labels_path" in context.tables:
        return tuple(sorted((*VINDR_LOCAL, *VINDR_GLOBAL)))
    if context.compat or "class_id" in context.tables["csvpath"].columns:
        return VINDR14
    return tuple(sorted(VINDR_LOCAL))


@dataclass(frozen=True)
class _Reads:
    """Who read which image, and what they found.

    Args:
        images: Names of the images, sorted (I,).
        readers: Names of the readers (R,).
        read: Whether a reader read an image, bool (I, R).
        found: Whether a reader found a finding in an image, bool (I, R, P).
    """

    images: NDArray[Any]
    readers: NDArray[Any]
    read: NDArray[np.bool_]
    found: NDArray[np.bool_]


def _codes(table: pd.DataFrame) -> tuple[Any, ...]:
    """Number of the image and of the reader in each row, and their names."""
    images, names = table["image_id"].factorize(sort=True)
    if "rad_id" not in table.columns:  # the test part of PhysioNet gives the common result
        return images, np.asarray(names), np.zeros(len(table), dtype=int), np.array([_TOGETHER])
    readers, people = table["rad_id"].factorize(sort=True)
    return images, np.asarray(names), readers, np.asarray(people)


def _reads(context: SourceContext) -> _Reads:
    findings = vindr_findings(context)
    table = context.tables.get("labels_path", context.tables["csvpath"])
    images, names, readers, people = _codes(table)
    read = np.zeros((len(names), len(people)), dtype=bool)
    read[images, readers] = True
    found = np.zeros((len(names), len(people), len(findings)), dtype=bool)
    if "labels_path" in context.tables:
        table = table.rename(columns={"Other diseases": "Other disease"})  # train and test differ
        need_columns(table, map(_raw, findings), context)
        for j, finding in enumerate(findings):
            said = (table[_raw(finding)] == 1).to_numpy(dtype=bool)
            found[images[said], readers[said], j] = True
    else:
        columns = _columns(table, findings)
        said = columns >= 0
        found[images[said], readers[said], columns[said]] = True
    return _Reads(names, people, read, found)


def _columns(table: pd.DataFrame, findings: tuple[str, ...]) -> NDArray[np.int64]:
    """Position of each row's class among the findings, -1 for *No finding* and others."""
    codes, classes = table["class_name"].factorize()
    index = {finding: j for j, finding in enumerate(findings)}
    places = [index.get(_TO_FINDING.get(str(name), str(name)), -1) for name in classes]
    columns: NDArray[np.int64] = np.array([*places, -1], dtype=np.int64)[codes]
    return columns


def _texts(marked: NDArray[np.bool_], names: list[str], blank: str) -> Any:
    """Names of the marked columns of each row, with ``|`` between, as categorical text."""
    import pandas as pd

    # Rows repeat. Eight bytes at a time they are numbers, which pandas groups without sorting.
    packed = np.packbits(marked, axis=1)
    packed = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8)))
    codes = np.zeros(len(marked), dtype=np.int64)
    for column in np.ascontiguousarray(packed).view(np.int64).T:
        codes = pd.factorize(codes * len(codes) + pd.factorize(column)[0])[0]
    first = np.zeros(codes.max(initial=-1) + 1, dtype=np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    known = np.asarray(names, dtype=object)
    texts = ["|".join(known[row]) or blank for row in marked[first]]
    return pd.Categorical.from_codes(codes, pd.Index(texts))


def _one_row_an_image(context: SourceContext) -> pd.DataFrame:
    """Images by name, who read them, and how many readers found each finding."""
    import pandas as pd

    boxes = context.tables["csvpath"]
    need_columns(boxes, ["image_id", "class_name", "x_min", "y_min", "x_max", "y_max"], context)
    if "labels_path" in context.tables:
        need_columns(context.tables["labels_path"], ["image_id"], context)
    reads, findings = _reads(context), vindr_findings(context)
    votes = reads.found.sum(axis=1, dtype=np.int32)
    raw = [_raw(finding) for finding in findings]
    order = np.argsort(raw)
    frame = pd.DataFrame(votes, columns=raw)
    frame.insert(0, "image_id", reads.images)
    named = _texts(votes[:, order] > 0, sorted(raw), _NONE)
    frame.insert(1, "class_name", named)
    frame.insert(2, "rad_id", _texts(reads.read, [str(name) for name in reads.readers], ""))
    frame.insert(3, "readers", reads.read.sum(axis=1, dtype=np.int32))
    return frame


def _agreed(votes: Any, readers: Any, context: SourceContext) -> Any:
    """Whether so many of the readers of an image suffice."""
    consensus = context.arguments["consensus"]
    if consensus == "majority":
        return 2 * votes > readers
    return votes == readers if consensus == "all" else votes > 0


def _labels(frame: pd.DataFrame, context: SourceContext) -> Labels:
    """Findings by the agreement of the readers; which ones there are depends on the tables."""
    findings = vindr_findings(context)
    votes = frame[[_raw(finding) for finding in findings]].to_numpy()
    readers = frame["readers"].to_numpy()
    return findings, _agreed(votes, readers[:, None], context).astype(np.float32)


class _AgreedBoxes(BoxTable):
    """Boxes of all readers, for the findings that the readers agree on."""

    @property
    def tables(self) -> tuple[str, ...]:
        """Both tables are kept, for `VinDr_Dataset.reader_labels`."""
        return (self.table, "labels_path")

    def present(self, frame: pd.DataFrame, context: SourceContext) -> NDArray[np.bool_]:
        """Which rows have a box of a finding that the readers agree on."""
        import pandas as pd

        findings, labels = _labels(frame, context)
        table = context.tables[self.table]
        rows = pd.Index(frame["image_id"]).get_indexer(table["image_id"])
        columns = _columns(table, findings)
        drawn = self.valid(table) & (rows >= 0) & (columns >= 0)
        marked = np.zeros(len(frame), dtype=bool)
        marked[rows[drawn][labels[rows[drawn], columns[drawn]] == 1]] = True
        return marked

    def masks(
        self, row: Row, shape: tuple[int, int], context: SourceContext
    ) -> dict[str, NDArray[Any]]:
        """Finding to its mask, float32, boxes of one finding united."""
        boxes, positions = self.found(row, context)
        findings, codes = self._classes(context)
        readers, chosen = row["readers"], codes[positions]
        painted = {}
        for j in dict.fromkeys(chosen.tolist()):
            if j >= 0 and _agreed(row[_raw(findings[j])], readers, context):
                # All boxes of a finding at once, in the type of samples: masks of nine megapixels
                # are costly to unite, to look through and to copy.
                drawn = boxes[positions][chosen == j]
                if box_edges(drawn, shape, form=self.form):
                    painted[findings[j]] = boxes_to_mask(
                        drawn, shape, form=self.form, dtype=np.float32
                    )
        return painted

    def _classes(self, context: SourceContext) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        """Findings, and which of them each box is of."""
        if "classes" not in context.cache:
            findings = vindr_findings(context)
            context.cache["classes"] = findings, _columns(context.tables[self.table], findings)
        classes: tuple[tuple[str, ...], NDArray[np.int64]] = context.cache["classes"]
        return classes


def _official_part(frame: pd.DataFrame, context: SourceContext) -> Any:
    """The part "test" where the table has the common result of five readers."""
    table = context.tables.get("labels_path", context.tables["csvpath"])
    return np.full(len(frame), "train" if "rad_id" in table.columns else "test", dtype=object)


class VinDr_Dataset(SpecDataset):
    """VinDr-CXR: 15,000 PA images of two hospitals in Hanoi, each read by three radiologists.

    Seventeen radiologists drew boxes in pixels of the image. Kaggle's table has 14 findings. The
    one of PhysioNet has 22, and five diagnoses in a table of its own; its 3,000 test images have
    the common result of five readers. As in 1.5.7 a finding is present if *any* of an image's
    readers saw it: 43 % of these labels come from one reader alone. `consensus` asks for more.

    ``.csv`` has the readers of an image (``rad_id``, their number ``readers``) and for each class
    how many of them saw it; `reader_labels` has them one by one. Masks unite the boxes of all
    readers, for findings whose label is 1.

    Args:
        imgpath: Folder of the files <image_id>.dicom, or one above it.
        csvpath: train.csv of Kaggle; annotations_train.csv or annotations_test.csv of PhysioNet.
        views: Every image is "PA"; "*" is the same.
        pathology_masks: Add the boxes as masks.
        labels_path: image_labels_train.csv or image_labels_test.csv of PhysioNet, for all 27
            findings; it then decides the labels, and `csvpath` the masks.
        consensus: How many readers of an image must have seen a finding: "any", "majority" or
            "all". The common result of a test part counts as one reader.

    Example:
        >>> from torchxrayvision.datasets import VinDr_Dataset
        >>> for consensus in ("any", "majority", "all"):
        ...     print(VinDr_Dataset(consensus=consensus).totals()["Cardiomegaly"][1.0])
        2300
        1817
        1297
    """

    spec = DatasetSpec(
        title="VinDr-CXR",
        reference=Reference(
            authors="Nguyen HQ, Lam K, Le LT, et al.",
            title="VinDr-CXR: an open dataset of chest X-rays with radiologist's annotations",
            year=2022,
            venue="Scientific Data",
            url="https://doi.org/10.1038/s41597-022-01498-w",
        ),
        license=License(
            name="PhysioNet Credentialed Health Data License 1.5.0",
            url="https://physionet.org/content/vindr-cxr/1.0.0/",
            commercial=False,
            note="Kaggle's copy stands under the rules of the VinBigData challenge.",
        ),
        homepage="https://physionet.org/content/vindr-cxr/1.0.0/",
        tables=(
            Table("csvpath", packaged="vindr", description="train.csv or annotations_train.csv"),
            Table("labels_path", optional=True, description="image_labels_train.csv of PhysioNet"),
        ),
        join=_one_row_an_image,
        images=Files(
            "{image_id}.dicom",
            layout="the files <image_id>.dicom of train or test",
            folders=("train", "test"),
        ),
        findings=FindingFunction(_labels),
        view=value("PA"),
        masks=_AgreedBoxes(
            table="csvpath",
            image="image_id",
            finding="class_name",
            box=("x_min", "y_min", "x_max", "y_max"),
            form="xyxy",
            rename=_TO_FINDING,
        ),
        split=_official_part,
        verified="all columns of Kaggle's table; those of PhysioNet as published, tolerant of both "
        "spellings of 'Other disease'",
        choices={"consensus": _CONSENSUS},
        parameters="imgpath, csvpath, views, transform, data_aug, seed, pathology_masks, *, "
        "labels_path, consensus='any'",
    )

    @property
    def rawcsv(self) -> pd.DataFrame:
        """The annotations as released: one row per box of a reader."""
        return release_table(self, "csvpath")

    def reader_labels(self) -> pd.DataFrame:
        """What each reader of each image found.

        Returns:
            One row per image and reader: ``image_id``, ``rad_id`` and a column for each finding of
            the release, int64 0 or 1; sorted by both.

        Example:
            >>> from torchxrayvision.datasets import VinDr_Dataset
            >>> table = VinDr_Dataset().reader_labels()
            >>> len(table), int(table.groupby("rad_id")["Cardiomegaly"].sum()["R10"])
            (45000, 1834)
        """
        import pandas as pd

        reads = _reads(self._context)
        images, readers = np.nonzero(reads.read)
        names = list(vindr_findings(self._context))
        table = pd.DataFrame(reads.found[images, readers].astype(np.int64), columns=names)
        table.insert(0, "image_id", reads.images[images])
        table.insert(1, "rad_id", reads.readers[readers])
        return table


VinBrain_Dataset = VinDr_Dataset

"""People's own images: listed in a table, or lying in a folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from torchxrayvision.csvtext import open_table, separator_of
from torchxrayvision.datasets.images import Files
from torchxrayvision.datasets.pipeline import SpecDataset
from torchxrayvision.datasets.reading import read_as_text, read_csv, read_tables
from torchxrayvision.datasets.releases.guess import (
    AUTO,
    AgeColumn,
    LabelColumns,
    PathColumn,
    SexColumn,
    TermColumn,
    ViewColumn,
    find_column,
    find_labels,
    find_path,
    named_column,
)
from torchxrayvision.datasets.spec import DatasetSpec, Table
from torchxrayvision.datasets.storage import whole_numbers
from torchxrayvision.errors import (
    DatasetError,
    DatasetNotFoundError,
    EmptyDatasetError,
    counted,
)
from torchxrayvision.facts import LIBRARY, License
from torchxrayvision.files import sha256_of
from torchxrayvision.inputs import InputFile, Skipped, expand, is_archive, printable

if TYPE_CHECKING:
    import pandas as pd

    from torchxrayvision.datasets.base import Transform
    from torchxrayvision.datasets.constructors import Compat, PathLike, TableLike, Views
    from torchxrayvision.datasets.findings import Findings
    from torchxrayvision.datasets.release import Row, Rule, SourceContext
    from torchxrayvision.inputs import Member

logger = logging.getLogger(__name__)

_MEMBERS: Final = "members"
_YOURS = License(name="Whatever holds for your images")
_HEALTHY = ("No Finding", "Normal", "Healthy")
_TEXT_ROLES = ("patient", "view", "sex", "split")
_UNCERTAIN = {"unknown": float("nan"), "present": 1.0, "absent": 0.0}


def _written(path: Path) -> dict[str, Any]:
    """How `pandas.read_csv` takes a table that a spreadsheet may have saved."""
    with open_table(path) as lines:
        separator, named = separator_of(lines.readline().decode("utf-8-sig", "replace"))
    return {"sep": separator, "skiprows": int(named)}


def _read_own(path: Path) -> pd.DataFrame:
    return read_csv(path) if path.suffix == ".parquet" else read_csv(path, **_written(path))


def _checked_rows(context: SourceContext) -> pd.DataFrame:
    """The table, with a path in every row."""
    frame = context.tables["csvpath"].reset_index(drop=True)
    path = context.arguments["path"]
    blank = frame[path].isna() | (frame[path].astype(str).str.strip() == "")
    if blank.any():
        msg = (
            f"{context.dataset}: {counted(int(blank.sum()), 'row')} without an image in column "
            f"{path!r}, first row {int(blank.to_numpy().argmax())}; drop it and pass the DataFrame"
        )
        raise DatasetError(msg)
    return frame


class CSV_Dataset(SpecDataset):
    """Your own images, listed in a table: one row per image, a column with its path, labels.

    PNG, JPEG, TIFF and DICOM of any depth, told apart by their content. Which column is which
    is found by its name or its values, and every guess can be replaced by an argument; guesses
    are logged at the level INFO.

    Labels are 1 present, 0 absent, blank (NaN) unknown. The names of your columns are the
    findings; to merge with other datasets, name them as those do or use `relabel_dataset`.

    Args:
        csvpath: The table: a csv (comma, semicolon or tab, or as a first line ``sep=;`` says;
            plain, gzip, zip), a parquet file, or a DataFrame.
        imgpath: Folder that the paths in the table start from; None: the folder of the csv file.
            Absolute paths in the table stay as they are.
        path: Column that names the image files.
        labels: Label columns, in order; or a dict, finding to column. "auto" takes every column
            of 0, 1, -1 and blank alone. None, or an empty list: no findings.
        terms: Column of text that lists the findings of an image, such as ``Mass|Nodule``; every
            term becomes a finding, apart from *No Finding*, *Normal* and *Healthy*. Replaces
            `labels`.
        separator: Between those terms.
        uncertain: What the label -1 means: "unknown" (NaN), "present" or "absent".
        patient: Column that names the patient; None: there is none. It becomes ``patientid``.
        view: Column of the view. It becomes ``view``: *lateral* is L, *pa* is PA, and so on.
        age: Column of the age in years, or DICOM's 045Y and 006M. It becomes ``age_years``.
        sex: Column of the sex, such as M and F. It becomes ``sex_male`` and ``sex_female``.
        split: Column of your own split, for `official_splits`.
        extension: Added to each path, such as ".png", where the column holds bare names.
        views: Views to keep; None: all.

    Raises:
        DatasetError: If a column is missing, no column names images, a label is something else
            than 1, 0, -1 or blank, or a row has no path. The message says which.

    Example:
        >>> import tempfile
        >>> import numpy as np, pandas as pd
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from torchxrayvision.datasets import CSV_Dataset
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("a.png", "b.png"):
        ...     Image.fromarray(np.full((64, 48), 128, np.uint8)).save(folder / name)
        >>> table = pd.DataFrame({"file": ["a.png", "b.png"], "sex": ["F", "M"], "Mass": [1, 0]})
        >>> table.to_csv(folder / "mine.csv", index=False)
        >>> dataset = CSV_Dataset(folder / "mine.csv")
        >>> dataset.pathologies, dataset.labels.tolist()
        (['Mass'], [[1.0], [0.0]])
        >>> dataset[0]["img"].shape
        (1, 64, 48)
        >>> int(dataset.csv["sex_female"].sum())
        1
    """

    spec = DatasetSpec(
        title="Your own images, listed in a table",
        reference=LIBRARY,
        license=_YOURS,
        homepage=LIBRARY.url,
        tables=(Table("csvpath", description="your table, one row per image", read=_read_own),),
        join=_checked_rows,
        images=Files(
            PathColumn("path"),
            layout="the paths of the table (imgpath=None: below the folder of the csv)",
        ),
        findings=TermColumn("findings"),
        view="view",
        default_views=("*",),
        patient="patientid",
        compat_keeps_whole_rows=True,
        patient_order="appearance",
        columns={
            "patientid": "patientid",
            "age_years": AgeColumn("age"),
            "sex_male": SexColumn("sex", "M"),
            "sex_female": SexColumn("sex", "F"),
        },
        split="split",
        verified="columns are yours; each can be named",
    )

    def __init__(
        self,
        csvpath: TableLike,
        imgpath: PathLike = None,
        path: str = AUTO,
        labels: str | Sequence[str] | Mapping[str, str] | None = AUTO,
        terms: str | None = None,
        separator: str = "|",
        uncertain: Literal["unknown", "present", "absent"] = "unknown",
        patient: str | None = AUTO,
        view: str | None = AUTO,
        age: str | None = AUTO,
        sex: str | None = AUTO,
        split: str | None = AUTO,
        extension: str = "",
        views: Views = None,
        transform: Transform | None = None,
        data_aug: Transform | None = None,
        seed: int = 0,
        unique_patients: bool = False,
        *,
        compat: Compat = None,
    ) -> None:
        name, spec = type(self).__name__, type(self).spec
        table = read_tables(spec, {"csvpath": csvpath}, None, name)["csvpath"]
        files = find_path(table, path, name)
        given = {"patient": patient, "view": view, "age": age, "sex": sex, "split": split}
        roles = {role: find_column(table, role, value, name) for role, value in given.items()}
        if roles["view"] is None and views is not None:
            msg = f"{name}: views={views!r} needs a column of views; pass view=<column>"
            raise DatasetError(msg)
        if roles["patient"] is None and unique_patients:
            msg = f"{name}: unique_patients needs a column of patients; pass patient=<column>"
            raise DatasetError(msg)
        table = _identifiers(table, csvpath, [files, terms, *(roles[r] for r in _TEXT_ROLES)])
        taken = [files, *roles.values()]
        findings = (
            _findings(table, labels, taken, uncertain, name)
            if terms is None
            else TermColumn(named_column(table, "terms", terms, name), separator, _HEALTHY)
        )
        # The spec of this object says which of the table's columns are which.
        self.__dict__["spec"] = replace(
            spec,
            images=replace(spec.images, path=PathColumn(files, extension)),
            findings=findings,
            view=None if roles["view"] is None else ViewColumn(roles["view"]),
            patient=roles["patient"],
            columns=_shared(roles),
            split=roles["split"],
        )
        self._setup(
            {
                "imgpath": _folder_of(csvpath) if imgpath is None else imgpath,
                "csvpath": table,
                "path": files,
                "views": views,
                "transform": transform,
                "data_aug": data_aug,
                "seed": seed,
                "unique_patients": unique_patients,
                "compat": compat,
            }
        )
        # As given; where the paths start from stays what was found out above.
        self.csvpath, self.__dict__["imgpath"] = csvpath, imgpath

    @property
    def _cohort(self) -> object:
        """The table: numbers of another say nothing of these patients."""
        if isinstance(self.csvpath, (str, os.PathLike)):
            return Path(self.csvpath).expanduser().resolve()
        return id(self.csvpath)

    @property
    def _cohort_name(self) -> str:
        """The file; a table in memory has none, so it is known by its patients and images."""
        if self.csvpath is None or isinstance(self.csvpath, (str, os.PathLike)):
            return str(self._cohort)
        names = (self.spec.patient, self._context.arguments["path"])
        held = self.csvpath[[name for name in names if name is not None]]
        return f"table {sha256_of(held.to_csv(index=False).encode())}"


def _identifiers(
    table: pd.DataFrame, csvpath: TableLike, columns: Sequence[str | None]
) -> pd.DataFrame:
    """The table with some columns as they are written: 007, 7 and 0007 are three patients."""
    import pandas as pd

    named = [name for name in dict.fromkeys(columns) if name is not None and name in table.columns]
    path = Path(csvpath).expanduser() if isinstance(csvpath, (str, os.PathLike)) else None
    if path is not None and path.suffix != ".parquet" and isinstance(table.index, pd.RangeIndex):
        written = read_as_text(path, named, **_written(path))
        return table.assign(**{name: written[name] for name in named})
    return table.assign(**{name: whole_numbers(table[name]) for name in named})


def _folder_of(csvpath: TableLike) -> Path:
    """Where paths start from if nobody says: the folder of the csv, or the working directory."""
    named = isinstance(csvpath, (str, os.PathLike))
    return Path(csvpath).expanduser().parent if named else Path()  # type: ignore[arg-type]


def _shared(roles: Mapping[str, str | None]) -> dict[str, str | Rule]:
    columns: dict[str, str | Rule] = {}
    if (patient := roles["patient"]) is not None:
        columns["patientid"] = patient
    if (age := roles["age"]) is not None:
        columns["age_years"] = AgeColumn(age)
    if (sex := roles["sex"]) is not None:
        columns["sex_male"], columns["sex_female"] = SexColumn(sex, "M"), SexColumn(sex, "F")
    return columns


def _findings(
    table: pd.DataFrame,
    labels: str | Sequence[str] | Mapping[str, str] | None,
    taken: Sequence[str | None],
    uncertain: str,
    dataset: str,
) -> Findings:
    if uncertain not in _UNCERTAIN:
        msg = f"{dataset}: uncertain must be one of {list(_UNCERTAIN)}, got {uncertain!r}"
        raise DatasetError(msg)
    columns: Mapping[str, str]
    if isinstance(labels, str) and labels == AUTO:
        columns = find_labels(table, taken, dataset)
    elif isinstance(labels, Mapping):
        columns = labels
    else:
        listed = [labels] if isinstance(labels, str) else list(labels or ())
        columns = {str(name): name for name in listed}
    missing = [column for column in columns.values() if column not in table.columns]
    if missing:
        shown = ", ".join(map(repr, table.columns[:40]))
        msg = (
            f"{dataset}: labels names {', '.join(map(repr, missing))}, which the table lacks; "
            f"it has {shown}"
        )
        raise DatasetError(msg)
    return LabelColumns(dict(columns), _UNCERTAIN[uncertain])


@dataclass(frozen=True)
class FoundFiles(Files):
    """What `expand` found below a folder or in an archive; members of archives too."""

    def _listed(self, row: Row, context: SourceContext) -> InputFile:
        name, place = self.name(row), self.place(context)
        archive, member, problem = context.cache[_MEMBERS].get(name, (name, None, ""))
        return InputFile(place / archive, f"{place}/{name}", member, problem)

    def exists(self, row: Row, context: SourceContext) -> bool:
        """Whether the image of a row is there."""
        file = self._listed(row, context)
        return not file.problem and file.path.is_file()

    def input_file(self, row: Row, context: SourceContext) -> InputFile:
        """See `ImageSource`."""
        file = self._listed(row, context)
        if not file.problem and not file.path.is_file():
            raise self.missing(row, context)
        return file


def _listing(context: SourceContext) -> pd.DataFrame:
    """Every image below the folder, sorted by path."""
    import pandas as pd

    folder = context.roots["folder"]
    if folder is None or not (folder.is_dir() or (folder.is_file() and is_archive(folder))):
        advice = "pass the folder of your images"
        if folder is not None and folder.exists():
            advice = "it is a file; torchxrayvision.images.read_image reads a single one"
        raise DatasetNotFoundError(context.dataset, "folder", str(folder), advice)
    skipped = Skipped()
    members: dict[str, tuple[str, Member | None, str]] = {}
    found = []
    for file in expand([folder], skipped=skipped):
        archive = file.path.relative_to(folder).as_posix()
        path = archive
        if file.member is not None or file.problem:
            path = file.given.removeprefix(printable(str(folder))).lstrip("/") or folder.name
            members[path] = archive, file.member, file.problem
        found.append(path)
    context.cache[_MEMBERS] = members
    if skipped:
        logger.info("%s, below %s", skipped, folder)
    paths = sorted(found, key=lambda path: path.split("/"))
    if not paths:
        msg = (
            f"{context.dataset}: no image below folder={str(folder)!r}; hidden files are passed "
            f"over{f', and {skipped}' if skipped else ''}"
        )
        raise EmptyDatasetError(msg)
    frame = pd.DataFrame({"path": paths})
    if context.arguments["labels_from"] is None:
        return frame
    loose = [path for path in paths if "/" not in path]
    if loose:
        msg = (
            f"{context.dataset}: labels='folders' needs every image in a subfolder, but "
            f"{len(loose)} are directly in {folder}, such as {loose[0]!r}; move them, or pass "
            f"labels=None"
        )
        raise DatasetError(msg)
    frame["finding"] = [path.partition("/")[0] for path in paths]
    return frame


class Folder_Dataset(SpecDataset):
    """Your own images in a folder, with labels from the names of its subfolders or without.

    It holds the same files as `torchxrayvision.inputs.expand` lists for every command: PNG, JPEG,
    JPEG 2000, TIFF, DICOM, BMP and WebP, told apart by their content, and those in zip and tar
    archives. Files that end like an image count as images; others count if their first bytes say
    so, as DICOM files without an extension do. Hidden files and folders are passed over, and so
    is everything else, which is counted in the log; links to folders are followed. The order is
    that of the sorted paths, on every machine.

    Args:
        folder: Searched with all its subfolders; or a zip or tar archive. Of a compressed tar
            images are read fast in their order only.
        labels: "folders": each subfolder of `folder` names the one finding of the images in it
            (``pneumonia/a.png``); the other findings are absent there. None: no findings.
        healthy: Names of subfolders, in any case, whose images have none of the findings.

    Raises:
        DatasetNotFoundError: If `folder` does not exist.
        EmptyDatasetError: If there is no image in it.
        DatasetError: If labels were asked for and an image is in no subfolder.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from torchxrayvision.datasets import Folder_Dataset
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("Normal/a.png", "Pneumonia/b.png", "Pneumonia/c.png"):
        ...     (folder / name).parent.mkdir(exist_ok=True)
        ...     Image.fromarray(np.full((64, 48), 128, np.uint8)).save(folder / name)
        >>> dataset = Folder_Dataset(folder, labels="folders")
        >>> dataset.pathologies, dataset.labels.ravel().tolist()
        (['Pneumonia'], [0.0, 1.0, 1.0])
        >>> dataset.csv["path"].tolist()
        ['Normal/a.png', 'Pneumonia/b.png', 'Pneumonia/c.png']
        >>> Folder_Dataset(folder).pathologies
        []
    """

    spec = DatasetSpec(
        title="Your own images in a folder",
        reference=LIBRARY,
        license=_YOURS,
        homepage=LIBRARY.url,
        join=_listing,
        images=FoundFiles("{path}", argument="folder", layout="your images"),
        findings=TermColumn("finding", separator="/", healthy=_HEALTHY),
        verified="there is no table",
    )

    def __init__(
        self,
        folder: PathLike,
        labels: Literal["folders"] | None = None,
        healthy: Sequence[str] = _HEALTHY,
        transform: Transform | None = None,
        data_aug: Transform | None = None,
        seed: int = 0,
        *,
        compat: Compat = None,
    ) -> None:
        name = type(self).__name__
        if labels not in (None, "folders"):
            msg = f"{name}: labels must be 'folders' or None, got {labels!r}"
            raise DatasetError(msg)
        findings = TermColumn("finding", "/", tuple(healthy)) if labels else LabelColumns({})
        self.__dict__["spec"] = replace(type(self).spec, findings=findings)
        self._setup(
            {
                "folder": folder,
                "labels_from": labels,
                "transform": transform,
                "data_aug": data_aug,
                "seed": seed,
                "compat": compat,
            }
        )

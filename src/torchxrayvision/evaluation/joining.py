"""Tables of predictions and of labels: read without losing identifiers, and joined by image."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from torchxrayvision.csvtext import check_parquet, open_table, restored, separator_of
from torchxrayvision.errors import DataWarning, EvaluationError, counted
from torchxrayvision.labels import LABEL_PREFIX

if TYPE_CHECKING:
    import pandas as pd

# Names of columns, as `plain_name` gives them, in order of preference.
# NIH has Image Index, CheXpert Path, PadChest ImageID, VinDr image_id, MIMIC dicom_id, BRAX
# PngPath, TBX11K fname, Object-CXR image_name, CANDID-PTX SOPInstanceUID.
_IMAGES: Final = (
    "path", "file", "filename", "image", "imageindex", "imageid", "imagename", "imagepath",
    "filepath", "dicomid", "pngpath", "dicompath", "fname", "img", "sopinstanceuid",
)  # fmt: skip
_PATIENTS: Final = ("patientid", "subjectid", "patient", "subject", "pid", "ptid")
_SHOWN: Final = "path, Path, file, filename, image, Image Index or imageid"
# Releases whose paths name the patient where their tables do not.
_IN_PATHS: Final = (
    ("CheXpert", re.compile(r"(?:^|/)(patient\d{5})(?:/|$)")),
    ("MIMIC-CXR", re.compile(r"(?:^|/)(p\d{8})(?:/|$)")),
    ("NIH ChestX-ray14", re.compile(r"(?:^|/)(\d{8})_\d{3}(?:\.\w+)?$")),
)
_NOT_FINDINGS: Final = (*_IMAGES, *_PATIENTS, "error")

# Texts that stand for a missing number.
_MISSING: Final = frozenset(("", "na", "n/a", "#n/a", "nan", "null", "none", "<na>"))
_WORKBOOKS: Final = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
_SAVE_AS: Final = "in a spreadsheet save it as CSV UTF-8"
_TRUTH: Final = {"true": 1.0, "false": 0.0}
_SUFFIX: Final = re.compile(
    r"(\.(png|jpe?g|jp[2cfhx]|j2[ck]|dcm|dicom|tiff?|bmp|webp|gz))+$", re.IGNORECASE
)


def plain_name(name: object) -> str:
    """The name of a column without case, spaces and punctuation."""
    return re.sub(r"[^a-z0-9]", "", str(name).lower())


def read_table(path: str | Path) -> pd.DataFrame:
    r"""A table of predictions or labels whose identifiers are as they were written.

    Every column of a CSV file stays text: as numbers the patients ``007``, ``7`` and ``0007`` would
    be one, and the image ``000000`` would be lost. Numbers of JSON and Parquet files stay what they
    are there, without rounding identifiers of many digits. `join_labels` makes numbers of findings.

    Args:
        path: .csv (comma, semicolon or tab, or the sign that a first line such as ``sep=;`` names;
            UTF-8 with or without a byte-order mark; plain or packed as .gz, .bz2, .xz or .zip),
            .json (a list of records, or columns) or .parquet.

    Returns:
        One row per record. A missing value of a CSV file is the empty text.

    Raises:
        EvaluationError: If the file is not such a table.
        FileNotFoundError: If there is no such file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "labels.csv")
        ...     _ = file.write_text("path,patientid,Mass\n000000,007,1\n")
        ...     read_table(file).to_numpy().tolist()
        [['000000', '007', '1']]
    """
    file = Path(path)
    if file.suffix.lower() in _WORKBOOKS and file.exists():
        msg = f"{file} cannot be read as a table: it is a workbook; {_SAVE_AS}"
        raise EvaluationError(msg)
    try:
        return _parsed(file)
    except FileNotFoundError:
        raise
    except UnicodeDecodeError as error:
        msg = f"{file} cannot be read as a table: it is not UTF-8 ({error}); {_SAVE_AS}"
        raise EvaluationError(msg) from None
    except Exception as error:  # noqa: BLE001 - parsers and their packing raise what they like
        msg = f"{file} cannot be read as a table: {error}"
        raise EvaluationError(msg) from None


def _parsed(file: Path) -> pd.DataFrame:
    import pandas as pd

    kind = file.suffix.lower()
    if kind == ".json":
        table = pd.DataFrame(json.loads(file.read_text("utf-8-sig")), dtype=object)
        for column in table:  # half a pair of surrogates is no text: a UnicodeEncodeError here
            "".join(value for value in (column, *table[column]) if isinstance(value, str)).encode()
        return table
    if kind == ".parquet":
        nullable: Any = {"dtype_backend": "numpy_nullable", "page_checksum_verification": True}
        check_parquet(file)
        return pd.read_parquet(file, **nullable)
    with open_table(file) as lines:
        head = lines.readline().decode("utf-8-sig", "replace")
    separator, named = separator_of(head)
    options: Any = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}
    with open_table(file) as rows:
        if named:
            rows.readline()
        # With low_memory pandas asks a stream that is damaged for more without end.
        table = restored(pd.read_csv(rows, sep=separator, low_memory=False, **options))
    bare = [str(name).strip() for name in table]  # "path, Mass" is written by hand
    return table.set_axis(bare, axis=1) if len({*bare}) == len(bare) else table


def patient_column(labels: pd.DataFrame) -> str | None:
    """The column that names the patient.

    Args:
        labels: Any table.

    Returns:
        ``patientid``, ``Patient ID``, ``PatientID``, ``subject_id`` or the like; None if there is
        no such column.

    Example:
        >>> import pandas as pd
        >>> patient_column(pd.DataFrame({"Image Index": ["a.png"], "Patient ID": ["7"]}))
        'Patient ID'
    """
    return _named(labels, _PATIENTS)


def patients_in_paths(images: pd.Series) -> tuple[str, pd.Series[str]] | None:
    """The patient of each image, where every path is one of a release that names it there.

    Args:
        images: Paths as a table of labels gives them.

    Returns:
        The release and the patients; None if the paths are of none.
    """
    text = images.astype(str).str.replace("\\", "/", regex=False)
    for release, pattern in _IN_PATHS:
        found = text.str.extract(pattern, expand=False)
        if len(found) and found.notna().all():
            return release, found
    return None


def image_column(table: pd.DataFrame) -> str | None:
    """The column that names the image, as `join_labels` takes it."""
    return _named(table, _IMAGES)


def _named(table: pd.DataFrame, names: tuple[str, ...]) -> str | None:
    """The first column of a table with one of the names."""
    plain = {plain_name(column): column for column in reversed([*table.columns])}
    return next((plain[name] for name in names if name in plain), None)


def join_labels(predictions: pd.DataFrame, labels: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Put the labels of each predicted image beside its predictions.

    Images are matched by their path as written, or by file name with some of the folders before
    it: by as many as find most of the images in both tables, and tell all of a table apart. Where
    more match without the ending of the file name, ``.png`` and ``.jpg`` are the same image.

    Args:
        predictions: As `xrv predict` writes it: ``path``, ``error`` and one column per finding.
            The names of findings may share a prefix, such as ``pred_Mass``.
        labels: One row per image: ``path`` (or ``Path``, ``file``, ``filename``, ``image``,
            ``Image Index``, ``imageid``), findings as 1, 0 or nothing, and anything else such as
            ``patientid``. What `xrv.datasets.export_parquet` wrote will do: its ``label:Mass`` is
            Mass. Identifiers are compared as text, so read them as text (`read_table`).

    Returns:
        The rows of predictions that have labels, columns of labels under their own names,
        predicted findings as ``predicted <finding>``, other columns that both have as ``<column>
        of the predictions`` too; and the findings that both have.

    Raises:
        EvaluationError: If no column names the images, no image or finding is in both, names are
            not unique, or a label or prediction is not a number.

    Warns:
        DataWarning: If file names match and the folders or endings differ.

    Example:
        >>> import pandas as pd
        >>> predicted = pd.DataFrame({"path": ["in/a.png"], "error": [""], "Mass": [0.7]})
        >>> known = pd.DataFrame({"path": ["a.png"], "Mass": [1], "sex": ["F"]})
        >>> rows, findings = join_labels(predicted, known)
        >>> findings, rows[["Mass", "predicted Mass", "sex"]].values.tolist()
        (['Mass'], [[1.0, 0.7, 'F']])
    """
    ours, theirs = _named(predictions, _IMAGES), _named(labels, _IMAGES)
    if ours is None or theirs is None:
        msg = (
            "predictions need a column path, and labels one of "
            f"{_SHOWN}; got {list(predictions)[:5]} and {list(labels)[:5]}"
        )
        raise EvaluationError(msg)
    labels = _without_prefix(labels)
    columns = _findings(predictions, labels)
    findings = list(columns)
    labels = labels.assign(**{name: _truth(labels[name]) for name in findings})
    scores = {
        f"predicted {name}": _numbers(predictions[column], "predictions")
        for name, column in columns.items()
    }
    keys = _matching(_names(predictions[ours], "predictions"), _names(labels[theirs], "labels"))
    others = predictions.drop(columns=[ours, *columns.values()])
    rows = others.assign(**scores, _image=keys[0]).merge(
        labels.assign(_image=keys[1]), on="_image", suffixes=(" of the predictions", "")
    )
    return rows.drop(columns="_image"), [str(name) for name in findings]


def match_images(paths: pd.Series[str], labels: pd.DataFrame) -> tuple[pd.Series[Any], str]:
    """The row of a table that each image has.

    Args:
        paths: Images as they were named, in any folder.
        labels: One row per image, see `join_labels`.

    Returns:
        The position of the row of each image, -1 where there is none, int64 with the index of
        `paths`; and the column of the table that names the images.

    Raises:
        EvaluationError: If no column names the images, or none of them is there.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"file": ["b.png", "a.png"], "Mass": [0, 1]})
        >>> rows, column = match_images(pd.Series(["in/a.png", "in/c.png"]), table)
        >>> rows.tolist(), column
        ([1, -1], 'file')
    """
    import pandas as pd

    column = _named(labels, _IMAGES)
    if column is None:
        msg = f"a table needs a column that names images: {_SHOWN}; got {list(labels)[:8]}"
        raise EvaluationError(msg)
    kept = labels[column].astype(str).drop_duplicates()
    keys = _matching(paths.astype(str), _names(kept, "labels"))
    place = pd.Series(kept.index, index=pd.Index(keys[1]))
    found = keys[0].map(place).fillna(-1).astype("int64")
    return pd.Series(found.to_numpy(), index=paths.index), str(column)


def _without_prefix(labels: pd.DataFrame) -> pd.DataFrame:
    """Labels of a dataset's export under the names of findings; the publisher's own give way."""
    prefixed = [name for name in labels if str(name).startswith(LABEL_PREFIX)]
    findings = {name: str(name).removeprefix(LABEL_PREFIX) for name in prefixed}
    return labels.drop(columns=list(findings.values()), errors="ignore").rename(columns=findings)


def _findings(predictions: pd.DataFrame, labels: pd.DataFrame) -> dict[Any, Any]:
    """Finding to the column of the predictions that holds it."""
    known = [name for name in labels if plain_name(name) not in _NOT_FINDINGS]
    numbers = [
        name
        for name in predictions
        if plain_name(name) not in _NOT_FINDINGS and _has_numbers(predictions[name])
    ]
    direct: dict[Any, Any] = {name: name for name in numbers if name in known}
    if direct:
        return direct
    by_prefix: dict[str, dict[Any, Any]] = {}
    for column in numbers:
        for name in known:
            prefix = str(column).removesuffix(str(name))
            if prefix and prefix != str(column):
                by_prefix.setdefault(prefix, {})[name] = column
    most = max(map(len, by_prefix.values()), default=0)
    best = [prefix for prefix, found in by_prefix.items() if len(found) == most]
    if len(best) == 1:
        return by_prefix[best[0]]
    if best:
        msg = f"the columns of the predictions begin with {' or '.join(best)}: keep one of them"
    else:
        plain = {plain_name(name): name for name in known}
        alike = [(name, plain[key]) for name in numbers if (key := plain_name(name)) in plain]
        spelt = "".join(f"; {ours!r} there is {theirs!r} here" for ours, theirs in alike[:1])
        msg = (
            "no finding is in both tables; predictions have "
            f"{list(predictions)[:8]}, labels {list(labels)[:8]}{spelt}"
        )
    raise EvaluationError(msg)


def _has_numbers(column: pd.Series) -> bool:
    import pandas as pd
    from pandas.api.types import is_numeric_dtype

    if is_numeric_dtype(column):
        return True
    return bool(pd.to_numeric(column, errors="coerce").notna().any()) or bool(
        len(column) and _missing(column).all()
    )


def _missing(column: pd.Series) -> pd.Series[bool]:
    return column.isna() | column.astype(str).str.strip().str.lower().isin(_MISSING)


def _numbers(column: pd.Series, what: str) -> pd.Series[float]:
    """A column as float64, NaN where it is missing.

    Raises:
        EvaluationError: If a value is neither a number nor missing.
    """
    import pandas as pd
    from pandas.api.types import is_numeric_dtype

    if is_numeric_dtype(column):
        return pd.Series(column.to_numpy("float64", na_value=float("nan")), index=column.index)
    missing = _missing(column)
    found = pd.to_numeric(column.mask(missing), errors="coerce").astype("float64")
    words = column.astype(str).str.lower().map(_TRUTH)
    found = found.fillna(words)
    odd = column[found.isna() & ~missing]
    if len(odd):
        msg = f"{what}: numbers are needed (column {column.name!r} has {odd.iloc[0]!r})"
        raise EvaluationError(msg)
    return found


def _truth(column: pd.Series) -> pd.Series[float]:
    """A column of labels as 1, 0 and NaN.

    Raises:
        EvaluationError: If a value is something else.
    """
    found = _numbers(column, "labels")
    odd = column[~(found.isna() | found.isin((0.0, 1.0)))]
    if len(odd):
        msg = (
            f"labels are 0, 1 or NaN for unknown (column {column.name!r} has {odd.iloc[0]} in "
            f"{counted(len(odd), 'row')}): leave a cell empty where a finding is uncertain"
        )
        raise EvaluationError(msg)
    return found


class _Match(NamedTuple):
    """Names that tell the images of both tables apart, and how many they find.

    Attributes:
        names: Of predictions and of labels; None if none do.
        found: Predictions that have labels.
        alone: Whether file names were compared without folders.
        twice: Why names that match more do not do.
        split: The components of both tables' paths.
    """

    names: tuple[pd.Series[str], pd.Series[str]] | None
    found: int
    alone: bool
    twice: str
    split: tuple[pd.Series[Any], pd.Series[Any]]


def _matching(
    ours: pd.Series[str], theirs: pd.Series[str]
) -> tuple[pd.Series[str], pd.Series[str]]:
    """Names of images that are unique in both tables, by which most of them are in both."""
    for which, names in (("predictions", ours), ("labels", theirs)):
        if names.empty:
            msg = f"the {which} have no rows"
            raise EvaluationError(msg)
    chosen, twice = _best(ours, theirs), ""
    if chosen.found < len(ours):
        bare = _best(*(names.str.replace(_SUFFIX, "", regex=True) for names in (ours, theirs)))
        twice = bare.twice
        if bare.found > chosen.found and bare.names is not None:
            _note_endings(ours, theirs, bare.names)
            chosen = bare
    if chosen.names is None:
        raise EvaluationError(chosen.twice or twice or _nothing_shared(ours, theirs))
    if chosen.alone:
        return _without_contradictions(chosen.names, chosen.split), chosen.names[1]
    return chosen.names


def _nothing_shared(ours: pd.Series[str], theirs: pd.Series[str]) -> str:
    """Why no image of one table is in the other."""
    why = f"no image is in both tables: {ours.iloc[0]!r} and {theirs.iloc[0]!r} are their first"
    bare = [
        names.str.replace(_SUFFIX, "", regex=True).str.replace(r"^.*[/\\]", "", regex=True)
        for names in (ours, theirs)
    ]
    short = [names.str.lstrip("0") for names in bare]
    if short[0].isin(short[1]).any():
        why += "; without zeros in front they match, which a spreadsheet takes from numbers"
    return why


def _best(ours: pd.Series[str], theirs: pd.Series[str]) -> _Match:
    split = (ours.map(_components), theirs.map(_components))
    deepest = max(map(len, split[0]), default=0)
    ends = (ours, theirs)  # as written first
    best = _Match(None, 0, False, "", split)
    for count in range(deepest + 1, 0, -1):
        if count <= deepest:
            ends = (_last(split[0], count), _last(split[1], count))
        found = int(ends[0].isin(ends[1]).sum())
        doubled = _doubled(*ends) if found else ""
        best = best._replace(twice=best.twice or doubled)
        if found > best.found and not doubled:
            best = best._replace(names=ends, found=found, alone=count == 1 <= deepest)
        if best.found == len(ours):
            break  # no image is left that fewer folders could find
    return best


def _last(split: pd.Series[Any], count: int) -> pd.Series[str]:
    return split.map(lambda parts: "/".join(parts[-count:]))


def _note_endings(
    ours: pd.Series[str], theirs: pd.Series[str], names: tuple[pd.Series[str], pd.Series[str]]
) -> None:
    """Say which images are matched although their file names end differently."""
    known = dict(zip(names[1], theirs, strict=True))
    pairs = [
        (PurePosixPath(mine).name, PurePosixPath(known[name]).name)
        for name, mine in zip(names[0], ours, strict=True)
        if name in known
    ]
    differ = [
        (a, b)
        for a, b in pairs
        if (ends := [_ending(name) for name in (a, b)]) and all(ends) and ends[0] != ends[1]
    ]
    if differ:
        warnings.warn(
            f"{counted(len(differ), 'image is', 'images are')} matched though file names end "
            f"differently, such as "
            f"{differ[0][0]} and {differ[0][1]}",
            DataWarning,
            stacklevel=4,
        )


def _ending(name: str) -> str:
    found = _SUFFIX.search(name)
    return found[0].lower() if found else ""


def _without_contradictions(
    names: tuple[pd.Series[str], pd.Series[str]], split: tuple[pd.Series[Any], pd.Series[Any]]
) -> pd.Series[str]:
    """File names alone match here: predictions without, or with doubts of, unlike folders."""
    folders = [
        dict(zip(ends, parts.map(lambda p: p[-2:-1]), strict=True))
        for ends, parts in zip(names, split, strict=True)
    ]
    known = {name: folders[1][name] for name in folders[0] if name in folders[1]}
    unlike = {n for n, folder in known.items() if folder and folders[0][n] not in ((), folder)}
    alike = any(folder and folders[0][n] == folder for n, folder in known.items())
    if unlike and alike:  # folders mean something, so these are other images
        return names[0].mask(names[0].isin(unlike))
    if unlike:
        name = min(unlike)
        warnings.warn(
            f"{counted(len(unlike), 'image is', 'images are')} matched by file name though folders "
            f"differ, such as "
            f"{'/'.join((*folders[0][name], name))} and {'/'.join((*folders[1][name], name))}",
            DataWarning,
            stacklevel=4,
        )
    return names[0]


def _doubled(ours: pd.Series[str], theirs: pd.Series[str]) -> str:
    for which, names in (("predictions", ours), ("labels", theirs)):
        twice = names[names.duplicated()]
        if len(twice):
            return (
                f"{counted(len(twice), 'image')} of the {which} with the name of another, such as "
                f"{twice.iloc[0]}"
            )
    return ""


def _names(column: pd.Series[Any], which: str) -> pd.Series[str]:
    nameless = int((column.isna() | (column.astype(object) == "")).sum())
    if nameless:
        rows = counted(nameless, "row")
        msg = f"{rows} of the {which} without an image in the column {column.name}"
        raise EvaluationError(msg)
    return column.astype(str)


def _components(path: str) -> tuple[str, ...]:
    return PurePosixPath(path.replace("\\", "/")).parts

"""An audit from the files to the issues."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.audit.checks import (
    Issue,
    disagreeing_duplicates,
    duplicate_issues,
    file_issues,
    issue,
    leak_issues,
    table_issues,
)
from torchxrayvision.audit.collect import Images, collect
from torchxrayvision.audit.duplicates import Pair, by_hash, exposures, search
from torchxrayvision.audit.public import public_issues, published_overlap
from torchxrayvision.audit.reference import Reference, reference_of
from torchxrayvision.audit.statistics import confounding, drift, suspicious_labels
from torchxrayvision.errors import DependencyError, EvaluationError, counted
from torchxrayvision.evaluation import (
    match_images,
    patient_column,
    read_table,
    subgroups_by,
    subgroups_of,
)
from torchxrayvision.labels import LABEL_PREFIX
from torchxrayvision.provenance import Provenance

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from torchxrayvision.datasets import SpecDataset
    from torchxrayvision.inputs import InputFile, ReadOptions
    from torchxrayvision.models import XRayClassifier

# Columns that say how an image was made, and measures of the image itself, that no label may need.
_ATTRIBUTES: Final = (
    *("site", "hospital", "institution", "manufacturer", "scanner", "station", "view"),
    *("viewposition", "view position", "device"),
)
_MEASURED: Final = ("format", "letters", "bars", "mean", "spread", "brightness", "contrast")
_DRIFTING: Final = ("letters", "bars", "mean", "spread", "brightness", "contrast", "format")
_STRATA: Final = ("sex", "view", "age")
_SPLITS: Final = ("split", "subset", "fold", "partition", "set")


@dataclass(kw_only=True, eq=False)
class Audit:
    """What an audit found.

    Attributes:
        issues: The gravest first.
        images: One row per file: `Images.table` with ``patient``, and ``exposure``: the first
            image of the same exposure.
        duplicates: ``first``, ``second``, ``correlation``, ``how``.
        confounding: See `statistics.confounding`.
        suspicious: ``path``, ``label``, ``said``, ``probability``.
        drift: See `statistics.drift`.
        provenance: What made it.
        skipped: What is no image in the folder, in one clause.
        notes: What was not looked at, and why.
    """

    issues: list[Issue]
    images: pd.DataFrame
    duplicates: pd.DataFrame
    confounding: pd.DataFrame
    suspicious: pd.DataFrame
    drift: pd.DataFrame
    provenance: Provenance
    skipped: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def blockers(self) -> list[Issue]:
        """Issues that make results on this collection wrong."""
        return [found for found in self.issues if found.severity == "blocker"]

    def to_dict(self) -> dict[str, Any]:
        """The issues and counts as plain values."""
        return {
            "images": len(self.images),
            "unreadable": int((self.images["error"] != "").sum()),
            "duplicates": len(self.duplicates),
            "issues": [
                {"severity": i.severity, "kind": i.kind, "count": i.count, "text": i.text}
                for i in self.issues
            ],
            "notes": self.notes,
            "provenance": self.provenance.to_dict(),
        }


def audit(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    labels: str | os.PathLike[str] | pd.DataFrame | None = None,
    *,
    patient: str | None = None,
    split: str | None = None,
    against: str | os.PathLike[str] | pd.DataFrame | SpecDataset | None = None,
    model: XRayClassifier | None = None,
    reading: ReadOptions | None = None,
    scratch: str | os.PathLike[str] | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Audit:
    """Look for what would make results on a collection wrong; nothing is changed.

    Files that cannot be read; images of one exposure, also after encoding, resizing, cropping,
    windowing, inversion, mirroring or rotation by a few degrees; patients in two parts of a split;
    contradictions of the table; how well site, scanner, view and signs of text predict the labels;
    labels that the images contradict; and drift against a reference.

    Args:
        paths: Images: files, folders, patterns, archives, see `torchxrayvision.inputs.expand`.
        labels: A table with one row per image, see `evaluation.join_labels`; None for none.
        patient: Column of the table that names the patient; None finds one by its name, or takes
            the Patient ID of DICOM files.
        split: Column of the table that names the part; None finds one by its name.
        against: A reference: a folder of images, a table of labels, or a dataset of
            `torchxrayvision.datasets`, whose images are read where they are, and whose published
            relations to other collections count.
        model: Network whose features are compared, in evaluation mode; None for pixels alone.
        reading: How files are read.
        scratch: Where thumbnails and features are kept meanwhile; None for the system's folder.
        on_progress: Called with what is done, and the steps done and to do.

    Returns:
        What was found.

    Raises:
        EvaluationError: If the table names no images of the folder, or lacks a column.

    Example:
        >>> import tempfile
        >>> from torchxrayvision.phantom import png_bytes, simulate
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for i in range(2):
        ...         picture = png_bytes(simulate(i, size=64, views=["PA"]).image)
        ...         _ = Path(folder, f"{i}.png").write_bytes(picture)
        ...     done = audit(folder)
        >>> len(done.images), done.blockers
        (2, [])
    """
    with tempfile.TemporaryDirectory(dir=scratch, ignore_cleanup_errors=True) as place:
        run = _Run(Path(place), model, reading, on_progress)
        return run.do(_listed(paths), labels, patient, split, against)


def _listed(paths: Any) -> list[str]:
    import os as _os

    given = [paths] if isinstance(paths, str | _os.PathLike) else list(paths)
    return [_os.fspath(path) for path in given]


class _Run:
    """One audit; what it looks at grows step by step."""

    def __init__(
        self,
        folder: Path,
        model: XRayClassifier | None,
        reading: ReadOptions | None,
        on_progress: Callable[[str, int, int], None] | None,
    ) -> None:
        self._folder, self._model, self._reading = folder, model, reading
        self._say = on_progress or (lambda *_: None)
        self._issues: list[Issue] = []
        self._notes: list[str] = []

    def do(
        self,
        paths: list[str],
        labels: Any,
        patient: str | None,
        split: str | None,
        against: Any,
    ) -> Audit:
        import pandas as pd

        reference = reference_of(against)
        images = self._collected(paths, "images")
        other = None
        if reference is not None and reference.files:
            other = self._collected(reference.files, "reference")
        names = images.table["path"].tolist()
        self._issues += file_issues(images.table)
        facts = _Facts.of(images, labels, patient, split)
        self._issues += facts.issues
        pairs = self._pairs(images, other)
        inside = [p for p in pairs if p.second < len(names)]
        self._issues += duplicate_issues(names, inside, facts.people, facts.split)
        self._issues += leak_issues(facts.people, facts.split, inside)
        if len(facts.labels.columns):
            self._issues += disagreeing_duplicates(names, inside, facts.labels)
        self._issues += public_issues(names)
        self._issues += self._overlap(names, pairs, other)
        if reference is not None and reference.names:
            self._issues += published_overlap(names, reference.names, reference.title)
        table = self._confounding(images, facts)
        suspicious = self._suspicious(images, facts)
        moved = self._drift(images, facts, other, reference)
        order = ("blocker", "warning", "note")
        self._issues.sort(key=lambda found: order.index(found.severity))
        every = [*names, *(other.table["path"].tolist() if other else [])]
        return Audit(
            issues=self._issues,
            images=images.table.assign(
                patient=facts.people,
                exposure=[names[row] for row in exposures(len(names), inside).tolist()],
            ),
            duplicates=pd.DataFrame(
                [(every[p.first], every[p.second], p.correlation, p.how) for p in pairs],
                columns=["first", "second", "correlation", "how"],
            ),
            confounding=table,
            suspicious=suspicious,
            drift=moved,
            provenance=self._provenance(len(names), facts),
            skipped=images.skipped,
            notes=self._notes,
        )

    def _collected(self, paths: Sequence[str | InputFile], what: str) -> Images:
        place = self._folder / what
        place.mkdir()
        return collect(
            paths, place, self._model, reading=self._reading,
            on_progress=lambda done, total: self._say(f"reading {what}", done, total),
        )  # fmt: skip

    def _pairs(self, images: Images, other: Images | None) -> list[Pair]:
        """Images of one exposure: by bytes, by pixels, by structure."""
        both = [images] if other is None else [images, other]
        count = len(images.table)
        found: dict[tuple[int, int], Pair] = {}
        for column, how in (("bytes_sha256", "same bytes"), ("pixels_sha256", "same pixels")):
            keys = [key for part in both for key in part.table[column].tolist()]
            for pair in by_hash(keys, how):
                if pair.first < count:
                    found.setdefault((pair.first, pair.second), pair)
        features = [part.features for part in both if part.features is not None]
        for pair in search(
            _Stacked([part.thumbnails for part in both]),
            lambda asked: _larger(both, asked),
            _Stacked(features) if len(features) == len(both) else None,
            others=0 if other is None else len(other.table),
            on_progress=self._say,
        ):
            found.setdefault((pair.first, pair.second), pair)
        kept = [pair for pair in found.values() if pair.first < count]
        return sorted(kept, key=lambda pair: (pair.first, pair.second))

    def _overlap(
        self, names: list[str], pairs: list[Pair], other: Images | None
    ) -> Iterable[Issue]:
        across = sorted({pair.first for pair in pairs if pair.second >= len(names)})
        if other is not None and across:
            rows = [names[row] for row in across]
            text = counted(len(rows), "image is", "images are") + " in the reference too."
            yield issue("blocker", "overlap with the reference", rows, text)

    def _confounding(self, images: Images, facts: _Facts) -> pd.DataFrame:
        labels = facts.labels.copy()
        if facts.split is not None:
            parts = [part for part in sorted(set(facts.split.tolist())) if part]
            for part in parts if len(parts) > 2 else parts[:1]:
                known = np.where(facts.split == "", np.nan, facts.split == part)
                labels[f"split: {part}"] = known.astype(float)
        table = confounding(facts.attributes | _measures(images), labels, facts.people)
        for row in table[table["flagged"]].to_dict("records"):
            name, text = row["label"], f"{row['auroc']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
            said = f"{row['attribute']} alone predicts {name}: AUROC {text}."
            self._issues.append(
                Issue(severity="warning", kind="confounding", count=int(row["n"]), text=said)
            )
        return table

    def _suspicious(self, images: Images, facts: _Facts) -> pd.DataFrame:
        import pandas as pd

        nothing = pd.DataFrame(columns=["path", "label", "said", "probability"])
        if images.features is None or not len(facts.labels.columns):
            return nothing
        try:
            found = suspicious_labels(
                np.asarray(images.features), facts.labels.where(facts.labels >= 0), facts.people
            )
        except DependencyError as error:
            self._notes.append(f"labels were not compared with images: {error}")
            return nothing
        paths = images.table["path"].to_numpy()[found["row"].to_numpy(int)]
        return found.assign(path=paths)[["path", "label", "said", "probability"]]

    def _drift(
        self, images: Images, facts: _Facts, other: Images | None, reference: Reference | None
    ) -> pd.DataFrame:
        import pandas as pd

        if reference is None:
            return pd.DataFrame()
        here: dict[str, NDArray[Any]] = {}
        there: dict[str, NDArray[Any]] = {}
        if reference.table is None:
            known = _Facts.of(other, None, None, None) if other is not None else facts
        else:
            known = _Facts.of_table(reference.table)
            here = _known(facts.labels) | facts.strata
            there = _known(known.labels) | known.strata
        features: list[NDArray[np.float32] | None] = [None, None]
        if other is not None:
            here |= _measures(images, _DRIFTING)
            there |= _measures(other, _DRIFTING)
            features = [images.features, other.features]
        people, strata = [facts.people, known.people], [facts.strata, known.strata]
        try:
            table = drift(here, there, people, strata, features)
        except DependencyError as error:
            self._notes.append(f"features were not compared with the reference: {error}")
            table = drift(here, there, people, strata)
        for row in table[table["flagged"]].head(10).to_dict("records"):
            text = f"{row['auroc']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
            said = f"{row['measure']} tells {row['subgroup']} from the reference: AUROC {text}."
            self._issues.append(
                Issue(severity="warning", kind="drift", count=int(row["n"]), text=said)
            )
        return table

    def _provenance(self, count: int, facts: _Facts) -> Provenance:
        from torchxrayvision.runs import fingerprint

        model = self._model
        return Provenance(
            command="xrv audit",
            weights=None if model is None else model.weights,
            weights_sha256=None if model is None else fingerprint(model),
            options={"patient": facts.patient_column, "split": facts.split_column},
            inputs={"images": count, "findings": len(facts.labels.columns)},
        )


def _known(labels: pd.DataFrame) -> dict[str, NDArray[Any]]:
    """Findings as 1, 0 and NaN for whatever is unknown."""
    return {str(c): labels[c].where(labels[c] >= 0).to_numpy(float) for c in labels}


class _Stacked:
    """Rows of several arrays that stay in their files: what is asked for is read."""

    def __init__(self, parts: Sequence[NDArray[Any]]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, asked: slice | NDArray[np.integer]) -> NDArray[Any]:
        if len(self._parts) == 1:
            return np.asarray(self._parts[0][asked])
        rows = np.arange(len(self))[asked]
        first = self._parts[0]
        found = np.empty((len(rows), *first.shape[1:]), first.dtype)
        for part, start in zip(self._parts, self._starts, strict=False):
            inside = (rows >= start) & (rows < start + len(part))
            found[inside] = part[rows[inside] - start]
        return found


def _larger(parts: list[Images], rows: Sequence[int]) -> NDArray[np.uint8]:
    count = len(parts[0].table)
    pictures = [parts[int(row >= count)].larger([row - count * (row >= count)])[0] for row in rows]
    return np.stack(pictures)


def _measures(images: Images, names: Sequence[str] = _MEASURED) -> dict[str, NDArray[Any]]:
    """Numbers and words that were measured on the images themselves."""
    import pandas as pd

    found: dict[str, NDArray[Any]] = {}
    for name in names:
        column = images.table[name]
        if pd.api.types.is_numeric_dtype(column):
            found[name] = column.to_numpy(float)
        else:
            numbers = pd.to_numeric(column, errors="coerce")
            text = name == "format"
            found[name] = column.astype(str).to_numpy(object) if text else numbers.to_numpy(float)
    return found


def _strata(table: pd.DataFrame) -> dict[str, NDArray[Any]]:
    """Sex, view and bands of age, of a table of labels or of DICOM headers."""
    found = {name: values for name, values in subgroups_of(table).items() if name in _STRATA}
    lower = {str(column).lower(): column for column in reversed([*table])}
    for name, columns in {
        "sex": ("sex", "patient sex", "patient gender", "gender"),
        "view": ("view", "view position", "viewposition"),
        "age": ("age", "patient age", "age_years"),
    }.items():
        column = next((lower[c] for c in columns if c in lower), None)
        if name not in found and column is not None and (table[column].astype(str) != "").any():
            found[name] = next(iter(subgroups_by(table, [str(column)]).values()))
    return {name: values for name, values in found.items() if len(set(values.tolist())) > 1}


@dataclass(kw_only=True, eq=False)
class _Facts:
    """What the table says of each image, in the order of the images."""

    labels: pd.DataFrame
    people: NDArray[Any]
    split: NDArray[Any] | None
    attributes: dict[str, NDArray[Any]]
    strata: dict[str, NDArray[Any]]
    issues: list[Issue]
    patient_column: str | None = None
    split_column: str | None = None

    @classmethod
    def of(cls, images: Images, labels: Any, patient: str | None, split: str | None) -> _Facts:
        """Those of images and their table, or of images alone."""
        import pandas as pd

        if labels is None:
            for option, given in (("patient", patient), ("split", split)):
                if given is not None:
                    msg = f"{option}={given!r} is a column of the table: give labels too"
                    raise EvaluationError(msg)
            return cls(
                labels=pd.DataFrame(index=images.table.index),
                people=images.table["patient"].to_numpy(object),
                split=None,
                attributes=_attributes(images.table),
                strata=_strata(images.table),
                issues=[],
            )
        table = labels if isinstance(labels, pd.DataFrame) else read_table(labels)
        rows, column = match_images(images.table["path"], table)
        found = rows >= 0
        joined = table.reindex(rows).reset_index(drop=True)
        facts = cls.of_table(joined, patient, split)
        if facts.patient_column is None:
            facts.people = images.table["patient"].to_numpy(object)
        facts.attributes |= {
            name: values
            for name, values in _attributes(images.table).items()
            if name not in facts.attributes
        }
        again = table[column].astype(str).duplicated()
        absent = ~table.index.isin(set(rows[found])) & ~again
        missing = table.loc[absent, column].astype(str).tolist()
        inside = joined[found.to_numpy()]
        names = images.table["path"][found.to_numpy()]
        names.index = inside.index
        values = facts.labels[found.to_numpy()]
        facts.issues += table_issues(inside, values, names, missing)
        if repeated := table.loc[again, column].astype(str).tolist():
            text = counted(len(repeated), "row repeats an image", "rows repeat an image")
            text += " of the table; the first row of an image counts."
            facts.issues.append(issue("warning", "image in several rows", repeated, text))
        without = images.table.loc[~found.to_numpy(), "path"].tolist()
        if without:
            text = counted(len(without), "image has", "images have") + " no row in the table."
            facts.issues.append(issue("warning", "image without row", without, text))
        return facts

    @classmethod
    def of_table(
        cls, table: pd.DataFrame, patient: str | None = None, split: str | None = None
    ) -> _Facts:
        """Those of a table alone."""
        for name in (patient, split):
            if name is not None and name not in table:
                msg = f"the table has no column {name!r}; it has {', '.join(map(str, table))}"
                raise EvaluationError(msg)
        who = patient or patient_column(table)
        lower = {str(column).lower(): str(column) for column in reversed([*table])}
        part = split or next((lower[name] for name in _SPLITS if name in lower), None)
        return cls(
            labels=_findings(table, {who, part}),
            people=_texts(table[who]) if who else np.full(len(table), "", object),
            split=_texts(table[part]) if part else None,
            attributes=_attributes(table),
            strata=_strata(table),
            issues=[],
            patient_column=who,
            split_column=part,
        )


def _texts(column: pd.Series[Any]) -> NDArray[Any]:
    return np.where(column.isna(), "", column.astype(str).str.strip()).astype(object)


def _attributes(table: pd.DataFrame) -> dict[str, NDArray[Any]]:
    return {
        str(column): _texts(table[column])
        for column in table
        if str(column).lower() in _ATTRIBUTES and (_texts(table[column]) != "").any()
    }


def _findings(table: pd.DataFrame, others: set[str | None]) -> pd.DataFrame:
    """Columns whose values are 1, 0, -1 and blank, or most of them: labels of findings."""
    import pandas as pd

    prefixed = [str(c) for c in table if str(c).startswith(LABEL_PREFIX)]
    if "Finding Labels" in table or "labels" in table:
        column = "Finding Labels" if "Finding Labels" in table else "labels"
        listed = table[column].fillna("").astype(str)
        if listed.str.contains(r"[A-Za-z]").mean() > 0.5:
            parts = listed.str.get_dummies("|").astype(float)
            parts.loc[listed == ""] = np.nan
            return parts
    found = {}
    for column in prefixed or [str(c) for c in table]:
        if column in others or (not prefixed and column.lower().startswith("unnamed")):
            continue
        values = pd.to_numeric(table[column], errors="coerce")
        blank = table[column].isna() | (table[column].astype(str).str.strip() == "")
        known = values[~blank]
        if len(known) and known.notna().all() and known.isin([0.0, 1.0, -1.0]).mean() > 0.8:
            found[column.removeprefix(LABEL_PREFIX)] = values
    return pd.DataFrame(found, index=table.index)

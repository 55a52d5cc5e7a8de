"""Tables of predictions and labels as one study: rows, findings, patients, kind of output."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.errors import EvaluationError, counted
from torchxrayvision.evaluation.intervals import patient_codes
from torchxrayvision.evaluation.joining import (
    image_column,
    join_labels,
    patient_column,
    patients_in_paths,
    read_table,
)
from torchxrayvision.evaluation.performance import KINDS
from torchxrayvision.evaluation.thresholds import (
    threshold_at_sensitivity,
    threshold_at_specificity,
    youden_threshold,
)
from torchxrayvision.files import PROVENANCE_SUFFIX, sha256_of
from torchxrayvision.labels import LABEL_PREFIX

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from torchxrayvision.evaluation.intervals import Floats

CHOICES: Final = ("youden", "sensitivity", "specificity")


@dataclass(frozen=True)
class Study:
    """Predictions beside their labels.

    Attributes:
        name: Of the predictions, for tables and pictures.
        rows: One row per image that was read and has labels: labels and columns of that table
            under their own names, ``predicted <finding>`` beside.
        images: The image of each row as the predictions name it, (N,).
        findings: The P findings that both tables have.
        labels: 1, 0 or NaN, (N, P).
        scores: (N, P).
        kind: What the scores are: one of ``probability``, ``operating-point``, ``logit``, or None.
        patient: The column that names the patient, or None.
        patients: Patient of each row, text or None, (N,); None without a column.
        predicted: Rows of the predictions.
        labelled: Rows of the labels.
        joined: Rows in both.
        unreadable: Rows in both whose image could not be read.
        columns: Names of the columns of the labels.
        set_aside: Rows that were read and are not judged, for they were calibrated on.
        made: What the predictions say of what made them.
        files: The predictions and the labels.
    """

    name: str
    rows: pd.DataFrame
    images: Sequence[str]
    findings: list[str]
    labels: Floats
    scores: Floats
    kind: str | None
    patient: str | None
    patients: Any
    predicted: int
    labelled: int
    joined: int
    unreadable: int
    columns: Sequence[str] = ()
    set_aside: int = 0
    made: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[Path, Path] | None = None

    @classmethod
    def read(
        cls,
        predictions: str | os.PathLike[str],
        labels: str | os.PathLike[str],
        *,
        patient: str | None = None,
        kind: str | None = None,
    ) -> Study:
        """Read both tables and join them.

        Args:
            predictions: As `xrv predict --output` writes it.
            labels: See `join_labels`.
            patient: Column of the labels that names the patient; None to look for one.
            kind: What the scores are, where the predictions do not say.

        Returns:
            The study.

        Raises:
            EvaluationError: If the tables do not fit, or the predictions say that they are of
                another kind.
            OSError: If a file cannot be read.
        """
        first, second = Path(predictions), Path(labels)
        tables = (read_table(first), read_table(second))
        return cls.of(tables, (first, second), patient=patient, kind=kind)

    @classmethod
    def of(
        cls,
        tables: tuple[pd.DataFrame, pd.DataFrame],
        files: tuple[Path, Path],
        *,
        patient: str | None = None,
        kind: str | None = None,
    ) -> Study:
        """Join tables that `read_table` has read.

        Args:
            tables: Predictions and labels.
            files: Where they are from.
            patient: See `read`.
            kind: See `read`.

        Returns:
            The study.

        Raises:
            EvaluationError: See `read`.
        """
        (scored, known), (first, second) = tables, files
        column = patient or patient_column(known)
        if column is not None and column not in known:
            has = ", ".join(map(str, known))
            msg = f"{second} has no column {column!r}; it has {has}"
            raise EvaluationError(msg)
        name = image_column(scored)
        if name is not None:  # kept through the join: labels name images in their own way
            scored = scored.assign(**{_IMAGE: scored[name]})
        rows, findings = join_labels(scored, known)
        good = rows[_readable(rows, scored, known)].reset_index(drop=True)
        patients = None if column is None else identifiers(good[column])
        if column is None and (of_paths := patients_in_paths(good[image_column(known)])):
            column, patients = f"the paths, as in {of_paths[0]}", of_paths[1]
        made = _said(first)
        return cls(
            name=first.stem,
            rows=good.drop(columns=_IMAGE),
            images=good[_IMAGE].astype(str).tolist(),
            findings=findings,
            labels=good[findings].to_numpy(dtype=float),
            scores=good[[f"predicted {name}" for name in findings]].to_numpy(dtype=float),
            kind=_kind(first, made, kind),
            patient=column,
            patients=patients,
            predicted=len(scored),
            labelled=len(known),
            joined=len(rows),
            unreadable=len(rows) - len(good),
            columns=[str(name).removeprefix(LABEL_PREFIX) for name in known],
            made=made,
            files=files,
        )

    @cached_property
    def hashes(self) -> Mapping[str, str]:
        """SHA-256 of both files, read when it is asked for."""
        names = ("predictions_sha256", "labels_sha256")
        return {name: sha256_of(file) for name, file in zip(names, self.files or (), strict=False)}

    @property
    def codes(self) -> Any:
        """Patient of each row as a number, (N,)."""
        return patient_codes(self.patients, len(self.labels))

    def flow(self) -> list[tuple[str, int]]:
        """What became of the images, for a diagram: names and counts."""
        return [
            ("predicted", self.predicted),
            ("without labels", self.predicted - self.joined),
            ("could not be read", self.unreadable),
            ("evaluated", len(self.labels)),
            ("labelled, without predictions", self.labelled - self.joined),
        ]

    def summary(self) -> str:
        """One line: how many images, and what was left out."""
        patients = (
            f"patients are those of {self.patient}"
            if self.patient
            else "each image counts as a patient"
        )
        aside = f"{self.set_aside} that were calibrated on, " if self.set_aside else ""
        return (
            f"{counted(len(self.labels), 'image')}; left out: {aside}"
            f"{self.unreadable} that could not be read, "
            f"{self.predicted - self.joined} without labels, {self.labelled - self.joined} without "
            f"predictions; {patients}"
        )

    def aligned(self, other: Study) -> tuple[Study, Study]:
        """Both studies on the images and findings that they share, in the order of this one.

        Args:
            other: Of the same labels.

        Returns:
            This one and the other one.

        Raises:
            EvaluationError: If they share nothing, or their kinds differ.
        """
        if self.kind != other.kind and None not in (self.kind, other.kind):
            msg = (
                f"the tables hold numbers of different kinds: {self.kind} ({self.name}) and "
                f"{other.kind} ({other.name}); predict again with the same --output-kind"
            )
            raise EvaluationError(msg)
        findings = [name for name in self.findings if name in other.findings]
        ours, theirs = self._keys(), other._keys()
        place = {key: i for i, key in enumerate(theirs)}
        shared = [(i, place[key]) for i, key in enumerate(ours) if key in place]
        if not findings or not shared:
            msg = f"{self.name} and {other.name} share no finding or no image"
            raise EvaluationError(msg)
        first, second = (list(part) for part in zip(*shared, strict=True))
        return self._part(first, findings), other._part(second, findings)

    def part(self, keep: NDArray[np.bool_]) -> Study:
        """Some rows of the study.

        Args:
            keep: (N,).

        Returns:
            The study of these rows; what was left out before is counted as before.
        """
        made = self._part(np.flatnonzero(keep).tolist(), self.findings)
        return replace(made, set_aside=self.set_aside + int((~np.asarray(keep, bool)).sum()))

    def held_out(self, share: float, seed: int) -> NDArray[np.bool_]:
        """Rows of patients who are set aside, whatever tables they stand in.

        The hash of the seed and of the patient decides, so that no list of patients need be kept.

        Args:
            share: Of the patients, in (0, 1).
            seed: Another one sets others aside.

        Returns:
            (N,).
        """
        names = self.images if self.patients is None else self.patients
        texts = [
            image if name is None else str(name)
            for name, image in zip(names, self.images, strict=True)
        ]
        limit = int(share * 2**32)
        aside = {
            text: int(hashlib.sha256(f"{seed}:{text}".encode()).hexdigest()[:8], 16) < limit
            for text in set(texts)
        }
        return np.array([aside[text] for text in texts], bool)

    def _keys(self) -> list[str]:
        """What names the image in the labels, which both studies have."""
        column = image_column(self.rows)
        return self.rows[column].astype(str).tolist() if column is not None else [*self.images]

    def _part(self, rows: list[int], findings: list[str]) -> Study:
        columns = [self.findings.index(name) for name in findings]
        return replace(
            self,
            rows=self.rows.iloc[rows].reset_index(drop=True),
            images=[self.images[i] for i in rows],
            findings=findings,
            labels=self.labels[np.ix_(rows, columns)],
            scores=self.scores[np.ix_(rows, columns)],
            patients=None if self.patients is None else self.patients.iloc[rows],
        )

    def thresholds(self, choice: str, value: float = 0.0) -> dict[str, float]:
        """Thresholds chosen on these rows, for another study.

        Args:
            choice: One of `CHOICES`.
            value: Share for sensitivity or specificity.

        Returns:
            Finding to threshold; findings without both classes have none.

        Raises:
            EvaluationError: If the choice is unknown.
        """
        if choice not in CHOICES:
            msg = f"thresholds are chosen by {', '.join(CHOICES)}, got {choice!r}"
            raise EvaluationError(msg)
        found = {}
        for j, name in enumerate(self.findings):
            truth, given = self.labels[:, j], self.scores[:, j]
            if not {0.0, 1.0} <= set(truth[~np.isnan(truth)]):
                continue
            if choice == "youden":
                found[name] = youden_threshold(truth, given)
            elif choice == "sensitivity":
                found[name] = threshold_at_sensitivity(truth, given, value)
            else:
                found[name] = threshold_at_specificity(truth, given, value)
        return found


_SAY_THEMSELVES: Final = (".parquet", ".json")
_IMAGE: Final = "_image_of_predictions"


def _said(file: Path) -> Mapping[str, Any]:
    """What a table says of what made it; text says it in a file beside."""
    beside = file.with_name(file.name + PROVENANCE_SUFFIX)
    if file.suffix.lower() not in _SAY_THEMSELVES and not beside.is_file():
        return {}
    from torchxrayvision.provenance import read

    return read(file) or {}


def _kind(path: Path, made: Mapping[str, Any], given: str | None) -> str | None:
    said = made.get("output")
    known = str(said) if said in KINDS else None
    if given is not None and given not in KINDS:
        msg = f"kind is one of {', '.join(KINDS)}, got {given!r}"
        raise EvaluationError(msg)
    if known is not None and given is not None and known != given:
        msg = f"{path} says that its numbers are of kind {known}, not {given}"
        raise EvaluationError(msg)
    return known or given


def _readable(rows: pd.DataFrame, scored: pd.DataFrame, known: pd.DataFrame) -> pd.Series[bool]:
    """Images that could be read, as the predictions say; labels may have a column of that name."""
    import pandas as pd

    if "error" not in scored:
        return pd.Series(True, index=rows.index)
    error = rows["error of the predictions" if "error" in known else "error"]
    return error.isna() | (error == "").fillna(False).astype(bool)


def identifiers(column: pd.Series) -> pd.Series[str]:
    """Identifiers as text; a row without one is a patient of its own.

    Args:
        column: Of a table.

    Returns:
        Text, None where there is none.
    """
    text = column.astype(str).astype(object)
    return text.where(column.notna() & (text != ""), None)


def published_thresholds(study: Study) -> dict[str, float]:
    """The operating points of the weights that made the predictions, on the scale of the scores.

    Args:
        study: What is judged.

    Returns:
        Finding to threshold: 0.5 for scores that are scaled to operating points; none where the
        predictions do not say which published weights made them, or the scores are calibrated.
    """
    if study.kind == "operating-point":
        return dict.fromkeys(study.findings, 0.5)
    name, calibrated = study.made.get("weights"), study.made.get("calibration")
    if study.kind is None or calibrated or not isinstance(name, str):
        return {}
    from torchxrayvision.errors import UnknownNameError
    from torchxrayvision.weights import get_weights_entry

    try:
        entry = get_weights_entry(name)
    except UnknownNameError:
        return {}
    points = entry.operating_points or ()
    found = {n: p for n, p in zip(entry.targets, points, strict=False) if n and p == p}
    if study.kind == "logit":
        found = {n: float(np.log(p / (1 - p))) for n, p in found.items()}
    return {name: found[name] for name in study.findings if name in found}

"""How a dataset is declared: a `DatasetSpec`, facts and small rules, checked when it is made.

`SpecDataset` runs them in this order::

    read tables -> join -> view -> drop rows -> one image per patient -> keep rows -> order
    -> encode findings -> shared columns -> has_masks

Every rule is a function of ``(frame, context)``; `join` of ``(context)``. A rule that differs from
1.5.7 branches on ``context.compat``. Nothing is read at import. ``docs/adding-a-dataset.md`` says
how to write a module with a spec.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from torchxrayvision.datasets.annotations import MaskFiles
from torchxrayvision.datasets.release import SHARED_COLUMNS, Rule, need_columns
from torchxrayvision.datasets.storage import is_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import pandas as pd

    from torchxrayvision.datasets.annotations import BoxSource, MaskSource
    from torchxrayvision.datasets.findings import Findings
    from torchxrayvision.datasets.images import ImageSource
    from torchxrayvision.datasets.release import SourceContext
    from torchxrayvision.facts import License, Reference

USUAL_PARAMETERS = (
    "imgpath, csvpath, views, transform, data_aug, seed, unique_patients=True, pathology_masks"
)
"""Constructor arguments of a dataset that declares no others, in their order."""


@dataclass(frozen=True)
class Table:
    """A table of a release.

    Args:
        argument: Constructor argument that names it, such as ``"csvpath"``.
        packaged: Name of the copy in `torchxrayvision.tables`, or None.
        read: Path to table. The default reads csv (plain, gz, zip) and parquet.
        path_below_imgpath: Path below ``imgpath`` that is read when the argument is None.
        optional: Whether the dataset works without it; the rules then do not find it.
        columns: Columns to read of the packaged copy; None for all.
        deferred_columns: Columns of the packaged copy that rules, images and masks do not need.
            They are read when ``.csv`` is first looked at, which saves time and memory.
        description: What the table is and where the release keeps it, for messages.
    """

    argument: str
    packaged: str | None = None
    read: Callable[[Path], pd.DataFrame] | None = None
    path_below_imgpath: str | None = None
    optional: bool = False
    columns: tuple[str, ...] | None = None
    deferred_columns: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """Everything that tells one dataset from another.

    Args:
        title: Name of the release as its authors write it.
        reference: What to cite.
        license: Terms of the images and tables.
        homepage: Where the release is.
        tables: In the order of reading; the first is the table of images unless `join` is given.
        images: Where the pixels of a row are.
        findings: Columns or text to labels; ordered.
        join: Builds the table of one row per image. Default: a copy of the first table.
        view: Column or rule for the view; None where the source has none.
        default_views: Views when the caller passes None.
        patient: Column that names the patient, used by ``unique_patients``; None where unknown.
        patient_order: Order of the patients when there is one image of each.
        cohort: Name of the patients: releases with the same one number them alike. Empty: those
            of this title.
        true_patient: Rule: the patient of each row for splits, where 1.5.7 has something else in
            ``patientid``.
        unknown_patient: Rule: True for images of the cohort whose patient nobody could tell, which
            count as a patient each.
        cohort_prefix: What this release writes before the numbers of its cohort.
        renumbered_cohorts: Cohorts that this release holds images of, under patient numbers of its
            own: split together with them, a patient could land on both sides.
        compat_keeps_whole_rows: Whether 1.5.7 keeps whole rows too when there is one image of each.
        drop: Rule: True for rows that are no usable image of the release.
        keep: Rule: True for rows to keep, after the choice of one image per patient.
        sort_by: Column by which the rows stand in the end; None: as in the table or by patient.
        columns: Shared columns: name of a raw column or a rule.
        masks: Source of ``pathology_masks``.
        semantic: Source of ``semantic_masks``.
        boxes: Source of the sample's ``bbox``.
        split: Column of the official split, or a rule that names the part of each row (None for
            rows of no part); None where the release has no split.
        expected_sizes: Height and width that the files must have, for `verify`: a pair, or a rule
            that gives one per row.
        scores: Whether labels are scores instead of 0, 1, NaN.
        score_range: Lowest and highest score.
        verified: Which columns were seen in the release itself, and which are tolerant.
        parameters: Constructor arguments, written like those of a function, in their positional
            order, which is 1.5.7's; after ``*`` those of keywords alone, of which ``compat`` always
            is the last. Defaults are literals without spaces: ``size=512``; ``...`` where there is
            none. Those that all datasets share need not be said.
        choices: Constructor argument to the values that it may have.

    Raises:
        ValueError: If a field is malformed.
    """

    title: str
    reference: Reference
    license: License
    homepage: str
    images: ImageSource
    findings: Findings
    tables: tuple[Table, ...] = ()
    join: Callable[[SourceContext], pd.DataFrame] | None = None
    view: str | Rule | None = None
    default_views: tuple[str, ...] = ("PA",)
    patient: str | None = None
    patient_order: Literal["sorted", "appearance"] = "sorted"
    cohort: str = ""
    true_patient: Rule | None = None
    unknown_patient: Rule | None = None
    cohort_prefix: str = ""
    renumbered_cohorts: tuple[str, ...] = ()
    compat_keeps_whole_rows: bool = False
    drop: Rule | None = None
    keep: Rule | None = None
    sort_by: str | None = None
    columns: Mapping[str, str | Rule] = field(default_factory=dict)
    masks: MaskSource | None = None
    semantic: MaskSource | None = None
    boxes: BoxSource | None = None
    split: str | Rule | None = None
    expected_sizes: tuple[int, int] | Rule | None = None
    scores: bool = False
    score_range: tuple[float, float] = (0.0, 1.0)
    verified: str = ""
    parameters: str = USUAL_PARAMETERS
    choices: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = [text for ok, text in self._checks() if not ok]
        if problems:
            msg = f"spec of {self.title or 'a dataset'}: {'; '.join(problems)}"
            raise ValueError(msg)

    def _checks(self) -> list[tuple[bool, str]]:
        arguments = [table.argument for table in self.tables]
        names = self.findings.names
        unknown = set(self.columns) - set(SHARED_COLUMNS)
        return [
            (bool(self.title), "title is empty"),
            (self.homepage.startswith("https://"), f"homepage {self.homepage!r} is not https"),
            (len(set(arguments)) == len(arguments), f"table arguments repeat: {arguments}"),
            (bool(self.tables) or self.join is not None, "it has neither tables nor join"),
            (names is None or len(set(names)) == len(names), f"findings repeat: {names}"),
            (not unknown, f"columns {sorted(unknown)} are not among {list(SHARED_COLUMNS)}"),
            (bool(self.default_views), "default_views is empty"),
            (self.score_range[0] < self.score_range[1], "score_range is empty"),
        ]

    @property
    def root_arguments(self) -> frozenset[str]:
        """Constructor arguments that name a folder or an archive of files."""
        masks = [source for source in (self.masks, self.semantic) if isinstance(source, MaskFiles)]
        files = (image for mask in masks for images in mask.files.values() for image in images)
        return frozenset({self.images.argument, *(image.argument for image in files)})

    @property
    def kept_tables(self) -> frozenset[str]:
        """Arguments of the tables that masks and boxes need after construction."""
        sources = (self.masks, self.semantic, self.boxes)
        return frozenset(name for source in sources if source is not None for name in source.tables)


def equals(column: str | tuple[str, ...], *values: object) -> Rule:
    """A rule: whether a column has one of some values; blanks are False.

    Args:
        column: Raw column; several: the names that it has in versions of the release.
        values: Values that count.

    Returns:
        The rule, for ``columns={"sex_male": equals("sex", "M")}``.
    """
    names = (column,) if isinstance(column, str) else column

    def rule(frame: pd.DataFrame, context: SourceContext) -> Any:
        name = next((name for name in names if name in frame.columns), names[0])
        need_columns(frame, [name], context)
        raw = frame[name]
        if len(values) == 1:
            return is_value(raw, values[0])
        return raw.isin(values).to_numpy(dtype=bool)

    return rule


def sexes(column: str | tuple[str, ...], male: str, *female: str) -> dict[str, Rule]:
    """The shared columns ``sex_male`` and ``sex_female`` of a raw column.

    Args:
        column: See `equals`.
        male: Its value for men.
        female: Its values for women.
    """
    return {"sex_male": equals(column, male), "sex_female": equals(column, *female)}


def value(constant: object) -> Rule:
    """A rule: the same value in every row, such as ``view=value("AP")``."""

    def rule(frame: pd.DataFrame, context: SourceContext) -> Any:  # noqa: ARG001 - a rule
        return np.full(len(frame), constant, dtype=object)

    return rule

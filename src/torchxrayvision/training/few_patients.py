"""How well a probe on fixed features does, by the number of patients that it was fitted to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.errors import DatasetError, ImageShapeError, counted
from torchxrayvision.evaluation import MEAN, auroc_interval, mean_auroc, patient_codes
from torchxrayvision.training.images.prepared import checked_labels
from torchxrayvision.training.probe import STRENGTHS, fit_one, linear_probe, require_sklearn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from torchxrayvision.evaluation import Interval

SHOTS: Final = (1, 5, 10, 50, 100)
"""Patients of each class that probes are fitted to."""

ALL: Final = "all"
"""What the column ``per_class`` says of the probe that was fitted to all patients."""


def learning_curve(
    train: tuple[ArrayLike, ArrayLike, ArrayLike | None],
    test: tuple[ArrayLike, ArrayLike, ArrayLike | None],
    names: Sequence[str],
    *,
    shots: Sequence[int] = SHOTS,
    seeds: int = 5,
    strengths: Sequence[float] = STRENGTHS,
    folds: int = 5,
    on_progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """AUROC of linear probes that were fitted to few patients of each class, and to all.

    For each seed the patients with and without a finding are put in a random order, of which the
    first n of each class give one image each; so a curve grows by adding patients. Features are
    scaled by the mean and spread of all training images, which needs no labels. The regularisation
    is chosen by cross-validation over patients among the images that were drawn; of one patient
    per class there is nothing to choose from, and C is 1.

    Args:
        train: Features (N, D), labels (N, P) as 1, 0 or NaN, and the patient of each image or
            None.
        test: The same of other patients.
        names: The P findings.
        shots: Patients of each class; what a finding has too few patients for is left out.
        seeds: Draws of each number.
        strengths: Values of C to choose from.
        folds: Parts of the cross-validation.
        on_progress: Called with the probes fitted and to fit.

    Returns:
        One row per finding and number of patients, those of all patients last, then the mean over
        the findings that have every number: ``finding``, ``per_class`` (text, ``"all"`` for all),
        ``with_finding`` and ``without`` (training patients), ``auroc`` (mean over the seeds),
        ``low`` and ``high`` (95 % over the patients of the test), ``lowest`` and ``highest`` (over
        the seeds), ``seeds``, ``n`` and ``positives`` of the test, ``findings`` and ``reason``.

    Raises:
        DependencyError: If scikit-learn is missing.
        ImageShapeError: If the shapes do not fit.
        DatasetError: If a label is neither 0, 1 nor NaN, or a patient is on both sides.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> sides = [rng.normal(size=(90, 3)) for _ in range(2)]
        >>> train, test = [(x, x[:, :1] > 0, None) for x in sides]
        >>> learning_curve(train, test, ["Mass"], shots=[1, 10])["per_class"].tolist()
        ['1', '10', 'all', '1', '10', 'all']
    """
    require_sklearn()
    if train[2] is not None and test[2] is not None:
        both = {*np.asarray(train[2]).tolist()} & {*np.asarray(test[2]).tolist()} - {None}
        if both:
            some = ", ".join(str(name) for name in sorted(both, key=str)[:3])
            shared = counted(len(both), "patient is", "patients are")
            msg = f"{shared} in the training and in the test, such as {some}"
            raise DatasetError(msg)
    ours, theirs = (_Side(side, names) for side in (train, test))
    steps = len(names) * seeds * len(shots)
    done, kept = 0, []
    curves: list[dict[str, NDArray[np.float64]]] = []
    for j in range(len(names)):
        people = ours.people(j)
        most = min(len(people[0]), len(people[1]))
        curve: dict[str, NDArray[np.float64]] = {}
        for shot in shots:
            if shot <= most and theirs.has_both(j):
                draws = [_drawn(ours, theirs, j, shot, seed, strengths, folds) for seed in
                         range(seeds)]  # fmt: skip
                curve[str(shot)] = np.stack(draws, axis=1)
            done += seeds
            if on_progress is not None:
                on_progress(done, steps)
        curves.append(curve)
        kept.append(people)
    probe = linear_probe(
        ours.features, ours.labels, names, ours.patients, strengths=strengths, folds=folds
    )
    whole = probe.logits(theirs.features)
    for j, curve in enumerate(curves):
        if theirs.has_both(j) and not np.isnan(whole[:, j]).any():
            curve[ALL] = whole[:, [j]]
    return _table(theirs, curves, names, kept, [*map(str, shots), ALL])


class _Side:
    """Training or test.

    Attributes:
        features: float64 (N, D).
        labels: (N, P).
        patients: Numbers from 0, (N,).
        scaled: Features in standard deviations, (N, D).
    """

    def __init__(
        self, given: tuple[ArrayLike, ArrayLike, ArrayLike | None], names: Sequence[str]
    ) -> None:
        self.features = np.asarray(given[0], np.float64)
        self.labels = np.asarray(given[1], np.float64)
        if self.features.ndim != 2 or self.labels.shape != (len(self.features), len(names)):
            msg = (
                f"features are (N, D) and labels (N, {len(names)}), got {self.features.shape} and "
                f"{self.labels.shape}"
            )
            raise ImageShapeError(msg)
        checked_labels(self.labels, names)
        self.patients = patient_codes(given[2], len(self.features))
        spread = self.features.std(axis=0)
        self.mean, self.spread = self.features.mean(axis=0), np.where(spread > 0, spread, 1.0)

    def people(self, j: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Patients with a finding, and those who have only images without it."""
        label = self.labels[:, j]
        with_finding = np.unique(self.patients[label == 1])
        without = np.setdiff1d(np.unique(self.patients[label == 0]), with_finding)
        return with_finding, without

    def has_both(self, j: int) -> bool:
        """Whether both classes of a finding have an image."""
        return {0.0, 1.0} <= set(self.labels[:, j])


def _drawn(
    ours: _Side, theirs: _Side, j: int, shot: int, seed: int, strengths: Sequence[float], folds: int
) -> NDArray[np.float64]:
    """Scores of the test by a probe fitted to so many patients of each class, (M,)."""
    rng = np.random.default_rng([seed, j])
    rows = []
    for people, value in zip(ours.people(j), (1.0, 0.0), strict=True):
        order = rng.permutation(people)
        images = np.flatnonzero(ours.labels[:, j] == value)
        images = images[rng.permutation(len(images))]  # so that the first of a patient is any
        of_patient = dict(zip(ours.patients[images][::-1], images[::-1], strict=True))
        rows += [of_patient[patient] for patient in order[:shot]]
    x = (ours.features[rows] - ours.mean) / ours.spread
    label = np.repeat([1.0, 0.0], shot)
    weight, bias, _, _ = fit_one(x, label, ours.patients[rows], strengths, folds, seed)
    scores: NDArray[np.float64] = (theirs.features - ours.mean) / ours.spread @ weight + bias
    return scores


def _table(
    test: _Side,
    curves: list[dict[str, NDArray[np.float64]]],
    names: Sequence[str],
    people: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    steps: Sequence[str],
) -> pd.DataFrame:
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for j, (name, curve) in enumerate(zip(names, curves, strict=True)):
        for step in (step for step in steps if step in curve):
            used = [len(side) if step == ALL else int(step) for side in people[j]]
            counts = {"with_finding": used[0], "without": used[1], "findings": 1}
            rows.append(
                {"finding": name, "per_class": step, **counts, **_row(test, {j: curve[step]})}
            )
    whole = [j for j, curve in enumerate(curves) if all(step in curve for step in steps)]
    for step in steps if whole else ():
        found = _row(test, {j: curves[j][step] for j in whole})
        rows.append({"finding": MEAN, "per_class": step, "findings": len(whole), **found})
    columns = [
        "finding", "per_class", "with_finding", "without", "auroc", "low", "high", "lowest",
        "highest", "seeds", "n", "positives", "findings", "reason",
    ]  # fmt: skip
    table = pd.DataFrame(rows).reindex(columns=columns)
    return table.astype({"with_finding": "Int64", "without": "Int64"})


def _row(test: _Side, scores: dict[int, NDArray[np.float64]]) -> dict[str, Any]:
    """Mean over findings and seeds, with the interval of the patients of the test."""
    draws = next(iter(scores.values())).shape[1]
    labels = np.stack([test.labels[:, j] for j in scores for _ in range(draws)], axis=1)
    given = np.concatenate([*scores.values()], axis=1)
    found: Interval = mean_auroc(labels, given, test.patients)
    by_seed = [
        np.mean([
            auroc_interval(test.labels[:, j], column[:, seed], test.patients).value
            for j, column in scores.items()
        ])
        for seed in range(draws)
    ]  # fmt: skip
    known = np.stack([test.labels[:, j] for j in scores], axis=1)
    return {
        "auroc": found.value, "low": found.low, "high": found.high, "lowest": float(min(by_seed)),
        "highest": float(max(by_seed)), "seeds": draws, "reason": found.reason,
        "n": int((~np.isnan(known)).any(axis=1).sum()), "positives": int((known == 1).sum()),
    }  # fmt: skip

"""How often intervals of `performance_table`, `difference_table`, `gap_table` hold the truth.

    python benchmarks/coverage_of_measures.py --csv docs/measures.csv

Studies are those of `coverage_of_intervals.py`: 200 or 2,000 images, 1, 10 or 50 % with the
finding, patients with one to five images that are alike by 0 or 0.5. Probabilities are off by a
slope of 0.8 and a shift, or calibrated, where the cell says so. Two models share 0.7 of their
noise; they are worth the same, or the second one less. Subgroups are of patients, or of images, so
that patients are in both. Each cell counts the studies that gave an interval, and of these the
ones whose interval holds the value of the population. `--page` prints the tables of
docs/intervals.md from the rows; one core needs a few minutes.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from pathlib import Path

import numpy as np
import pandas as pd

from coverage_of_intervals import LIKENESSES, NORMAL, PREVALENCES, SIZES, Cell, Studies, page
from torchxrayvision.evaluation import difference_table, gap_table, performance_table

AREAS = (0.7, 0.9)
SHARED = 0.7
SLOPE, SHIFT = 1.25, 0.3  # of miscalibrated logits: the calibration slope is 0.8
LOSS = 0.05  # of AUROC, where models or subgroups differ
AT = 0.02  # prevalence of shifted predictive values
NAMES = {
    "average_precision": "average precision",
    "brier": "Brier score",
    "calibration_slope": "calibration slope",
    "calibration_intercept": "calibration intercept",
    "ece": "calibration error (ECE)",
    "ppv_at_prevalence": "PPV at 2 %",
    "npv_at_prevalence": "NPV at 2 %",
    "f1": "F1",
    "auroc": "AUROC",
    "ppv": "PPV",
    "npv": "NPV",
}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def logits(scores, cell: Cell, slope: float, shift: float):
    """Log odds that the finding is there, given the score, made wrong on purpose."""
    right = math.log(cell.prevalence / (1 - cell.prevalence)) + cell.gap * (scores - cell.gap / 2)
    return slope * right + shift


class Population:
    """What every measure is worth in the population, by integration over the score.

    Args:
        cell: The kind of study; predicted probabilities are made for its gap.
        gap: Distance of the classes' scores, if not that of the cell.
        slope: Of the predicted logits.
        shift: Of the predicted logits.
    """

    def __init__(self, cell: Cell, gap: float | None = None, slope=1.0, shift=0.0) -> None:
        gap, share = cell.gap if gap is None else gap, cell.prevalence
        x = np.linspace(-8, 8 + max(gap, cell.gap), 40_001)
        step = x[1] - x[0]
        absent = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) * step * (1 - share)
        present = np.exp(-((x - gap) ** 2) / 2) / math.sqrt(2 * math.pi) * step * share
        logit = logits(x, cell, slope, shift)
        chance = sigmoid(logit)
        hit = 1 - NORMAL.cdf(cell.threshold - gap)
        passed = NORMAL.cdf(cell.threshold)
        tail = present[::-1].cumsum()[::-1], absent[::-1].cumsum()[::-1]
        precision = tail[0] / np.maximum(tail[0] + tail[1], 1e-300)
        bins = np.minimum((chance * 10).astype(int), 9)
        errors = np.bincount(bins, (present + absent) * chance - present)
        a, b = self._line(logit, present, absent)
        self.truth = {
            "auroc": NORMAL.cdf(gap / math.sqrt(2)),
            "average_precision": float((present * precision).sum() / share),
            "sensitivity": hit,
            "specificity": passed,
            "ppv": _positive(hit, passed, share),
            "npv": _positive(passed, hit, 1 - share),
            "f1": 2 * share * hit / (share + share * hit + (1 - share) * (1 - passed)),
            "brier": float((present * (1 - chance) ** 2 + absent * chance**2).sum()),
            "calibration_slope": b,
            "calibration_intercept": a,
            "ece": float(np.abs(errors).sum()),
            "ppv_at_prevalence": _positive(hit, passed, AT),
            "npv_at_prevalence": _positive(passed, hit, 1 - AT),
        }

    @staticmethod
    def _line(logit, present, absent):
        """Intercept with the slope at 1, and the slope of a regression with both."""
        shift = 0.0
        for _ in range(50):
            chance = sigmoid(logit + shift)
            gradient = (present - (present + absent) * chance).sum()
            shift += gradient / ((present + absent) * chance * (1 - chance)).sum()
        weights, design = np.zeros(2), np.stack([np.ones_like(logit), logit])
        for _ in range(50):
            chance = sigmoid(weights @ design)
            spread = (present + absent) * chance * (1 - chance)
            gradient = design @ (present - (present + absent) * chance)
            weights += np.linalg.solve((design * spread) @ design.T, gradient)
        return float(shift), float(weights[1])


def _positive(hit, passed, share):
    return share * hit / (share * hit + (1 - share) * (1 - passed))


def held(ends, truth) -> dict[str, float]:
    ends = np.asarray(ends, float).reshape(-1, 2)
    given = ends[~np.isnan(ends[:, 0])]
    inside = (given[:, 0] <= truth) & (truth <= given[:, 1])
    return {
        "given": len(given) / max(len(ends), 1),
        "coverage": float(inside.mean()) if len(given) else math.nan,
        "width": float(np.diff(given, axis=1).mean()) if len(given) else math.nan,
    }


def usable(studies: Studies):
    labels = studies.labels
    return np.flatnonzero((labels.min(axis=0) == 0) & (labels.max(axis=0) == 1))


def _ends(table, measure):
    """Ends of each study, which is a finding of the table."""
    rows = (table["finding"] != "mean") & (table["measure"] == measure)
    return table.loc[rows, ["low", "high"]].to_numpy()


def of_one_model(studies: Studies):
    cell, labels, scores = studies.cell, studies.labels, studies.scores()
    for name, slope, shift in (("", SLOPE, SHIFT), (", calibrated", 1.0, 0.0)):
        given = logits(scores, cell, slope, shift)
        limit = logits(cell.threshold, cell, slope, shift)
        measures = ["brier", "calibration_slope", "calibration_intercept", "ece"]
        if not name:
            measures += ["sensitivity", "specificity", "f1"]
        # Studies of one kind have the same patients, so each may be a finding of one table.
        rows = usable(studies)
        table = performance_table(
            labels[:, rows], given[:, rows], [f"{r}" for r in rows], thresholds=limit,
            patient_ids=studies.patients, kind="logit", measures=measures,
            prevalence=None if name else AT,
        )  # fmt: skip
        shown = [m for m in measures if m not in ("sensitivity", "specificity")]
        shown += [] if name else ["ppv_at_prevalence", "npv_at_prevalence"]
        truth = Population(cell, None, slope, shift).truth
        for measure in shown:
            yield NAMES[measure] + name, held(_ends(table, measure), truth[measure])


COMPARED = (
    "average_precision", "sensitivity", "specificity", "ppv", "npv", "f1", "brier",
    "calibration_slope", "calibration_intercept",
)  # fmt: skip


def of_two_models(studies: Studies):
    cell, labels = studies.cell, studies.labels
    common = math.sqrt(SHARED) * studies.noise()
    first, second = (common + math.sqrt(1 - SHARED) * studies.noise() for _ in range(2))
    worse = cell._replace(area=cell.area - LOSS).gap
    for name, gap in (("none", cell.gap), ("real", worse)):
        ours = logits(cell.gap * labels + first, cell, SLOPE, SHIFT)
        theirs = logits(gap * labels + second, cell, SLOPE, SHIFT)
        limit = logits(cell.threshold, cell, SLOPE, SHIFT)
        a = Population(cell, None, SLOPE, SHIFT).truth
        b = Population(cell, gap, SLOPE, SHIFT).truth
        rows = usable(studies)
        table = difference_table(
            labels[:, rows], ours[:, rows], theirs[:, rows], [f"{r}" for r in rows],
            thresholds=limit, patient_ids=studies.patients, kind="logit", measures=COMPARED,
        )  # fmt: skip
        for measure in COMPARED:
            found = held(_ends(table, measure), a[measure] - b[measure])
            yield f"difference of two models, {name}: {NAMES.get(measure, measure)}", found


def of_subgroups(studies: Studies):
    cell, labels, noise = studies.cell, studies.labels, studies.noise()
    per_patient = studies.rng.integers(0, 3, size=studies.patients.max() + 1)[studies.patients] == 0
    per_image = studies.rng.integers(0, 3, size=cell.n) == 0
    worse = cell._replace(area=cell.area - LOSS).gap
    measures = ("auroc", "sensitivity", "specificity")
    for what, member in (("patients", per_patient), ("images", per_image)):
        for name, gap in (("none", cell.gap), ("real", worse)):
            scores = np.where(member, gap, cell.gap)[:, None] * labels + noise
            group = np.where(member, "a", "b")
            rows = usable(studies)
            table = gap_table(
                labels[:, rows], scores[:, rows], [f"{r}" for r in rows], {"group": group},
                thresholds=cell.threshold, patient_ids=studies.patients, measures=measures,
            )  # fmt: skip
            a, b = Population(cell, gap).truth, Population(cell).truth
            for measure in measures:
                found = held(_ends(table, measure), a[measure] - b[measure])
                yield f"gap of {what}, {name}: {NAMES.get(measure, measure)}", found


PARTS = (of_one_model, of_two_models, of_subgroups)


def simulated(some, studies: int, seed: int = 0, parts=PARTS) -> pd.DataFrame:
    """One row per measure and cell: n, prevalence, likeness, area, given, coverage, width."""
    rows = []
    for cell in some:
        number = max(studies // 2, 1) if cell.n > SIZES[0] else studies
        for part in parts:
            drawn = Studies(cell, number, seed)
            rows += [{"measure": n} | cell._asdict() | found for n, found in part(drawn)]
    return pd.DataFrame(rows)


def cells():
    return itertools.starmap(Cell, itertools.product(SIZES, PREVALENCES, LIKENESSES, AREAS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--studies", type=int, default=1000, help="per cell of 200 images")
    parser.add_argument("--csv", type=Path, help="write the rows here")
    parser.add_argument("--page", type=Path, help="print the tables from a file of rows instead")
    options = parser.parse_args()
    if options.page:
        print(page(pd.read_csv(options.page), AREAS))
        return
    start = time.process_time()
    parts = []
    for cell in cells():
        parts.append(simulated([cell], options.studies))
        if options.csv:  # so that a run which is stopped leaves something
            pd.concat(parts).round(4).to_csv(options.csv, index=False)
        print(f"{cell} {time.process_time() - start:.0f} s", flush=True)
    table = pd.concat(parts, ignore_index=True)
    print(page(table, AREAS))


if __name__ == "__main__":
    main()

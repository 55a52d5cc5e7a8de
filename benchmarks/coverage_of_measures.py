"""How often intervals of `performance_table`, `difference_table`, `gap_table` hold the truth.

    python benchmarks/coverage_of_measures.py --csv docs/measures.csv

Studies are those of `coverage_of_intervals.py`: 200 or 2,000 images, 1, 10 or 50 % with the
finding, patients with one to five images that are alike by 0 or 0.5. Probabilities are off by a
slope of 0.8 and a shift, or calibrated, where the cell says so. Two models share 0.7 of their
noise; they are worth the same, or the second one less. Subgroups are of patients, or of images, so
that patients are in both. Each cell counts the studies that gave an interval, and of these the
ones whose interval holds the value of the population.

The intervals of shares, of Brier scores, slopes and intercepts, of their differences and of gaps
are computed for all studies of a cell at once, by the formulas of the package written a second
time; `tests/unit/evaluation/test_coverage.py` holds them to what the tables print, to ten digits.
Calibration error, average precision, AUROC of subgroups and means over findings are read from the
tables, in a part of the studies (`--tables`, `--means`). Of 2,000 images there are a quarter as
many studies. What is outside of 93 to 97 % then is drawn again, in more studies and others
(`--again`), and this figure counts. Rows that the file has are not drawn a second time, so that a
run that was stopped resumes. `--page` prints the tables of docs/intervals.md from the rows.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import time
from pathlib import Path

import numpy as np
import pandas as pd

from coverage_of_intervals import (
    LEAST_GIVEN,
    LIKENESSES,
    NORMAL,
    PREVALENCES,
    SIZES,
    Cell,
    Studies,
    page,
    pooled,
)  # fmt: skip
from torchxrayvision.evaluation import difference_table, gap_table, performance_table
from torchxrayvision.evaluation.differences import LEAST_FOR_DECISIONS, LEAST_FOR_GAP
from torchxrayvision.evaluation.intervals import t_of, z_of

AREAS = (0.7, 0.9)
SHARED = 0.7
SLOPE, SHIFT = 1.25, 0.3  # of miscalibrated logits: the calibration slope is 0.8
LOSS = 0.05  # of AUROC, where models or subgroups differ
AT = 0.02  # prevalence of shifted predictive values
LEAST_FOR_SHARE, LEAST_FOR_NUMBER = 5, 10  # patients
AT_ONCE = 500_000  # images drawn together
STEPS = 30
AGAIN = 1_000_000  # seed of what is drawn again
Z = z_of(0.95)
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


@functools.cache
def truth_of(cell: Cell, gap: float | None = None, slope=1.0, shift=0.0) -> dict[str, float]:
    """The measures of a `Population`."""
    return Population(cell, gap, slope, shift).truth


def _positive(hit, passed, share):
    return share * hit / (share * hit + (1 - share) * (1 - passed))


def held(low, high, truth, given=None) -> dict[str, float]:
    """Counts: studies, those with an interval, those that hold the truth, sum of widths."""
    low, high = np.asarray(low, float), np.asarray(high, float)
    given = ~np.isnan(low) if given is None else given & ~np.isnan(low)
    inside = (low <= truth) & (truth <= high)
    return {
        "studies": len(low),
        "given": int(given.sum()),
        "coverage": int(inside[given].sum()),
        "width": float((high - low)[given].sum()),
    }


# ---- what all studies of a cell show, (R,) or (patients, R) -------------------------------------


class Drawn:
    """Studies with both classes, and sums over their patients, whose rows lie together."""

    def __init__(self, studies: Studies) -> None:
        labels = studies.labels
        self.rows = np.flatnonzero((labels.min(axis=0) == 0) & (labels.max(axis=0) == 1))
        self.present = labels[:, self.rows] == 1
        self.starts = np.flatnonzero(np.diff(studies.patients, prepend=-1))
        self.patients = len(self.starts)
        counts = [(self.sums(side.astype(float)) > 0).sum(axis=0) for side in
                  (self.present, ~self.present)]  # fmt: skip
        self.rarer = np.minimum(*counts)

    def sums(self, rows):
        return np.add.reduceat(rows, self.starts, axis=0)

    def share(self, hits, members) -> Share:
        return Share(self, hits & members, members)

    def decisions(self, called) -> dict[str, Share]:
        present = self.present
        return {
            "sensitivity": self.share(called, present),
            "specificity": self.share(~called, ~present),
            "ppv": self.share(present, called),
            "npv": self.share(~present, ~called),
            "f1": self.share(called & present, called | present),
        }

    def numbers(self, logit) -> dict[str, tuple]:
        """Brier score, slope and intercept with what each patient adds."""
        away = (sigmoid(logit) - self.present) ** 2
        brier = away.mean(axis=0)
        found = {"brier": (brier, self.sums((away - brier) / len(away)))}
        for name, two in (("calibration_slope", True), ("calibration_intercept", False)):
            value, rows = self._line(logit, two)
            found[name] = (value, self.sums(rows))
        return found

    def _line(self, logit, two: bool):
        """Newton's method for all studies at once: slope, or intercept with the slope at 1."""
        a, b = np.zeros(logit.shape[1]), np.ones(logit.shape[1])
        for _ in range(30):
            chance = sigmoid(np.clip(a + b * logit, -30, 30))
            spread, left = chance * (1 - chance), self.present - chance
            h00, h01, h11 = (x.sum(axis=0) for x in (spread, spread * logit, spread * logit**2))
            g0, g1 = left.sum(axis=0), (left * logit).sum(axis=0)
            whole = h00 * h11 - h01**2
            if not two:
                a = a + np.clip(g0 / h00, -2, 2)
                continue
            da, db = (h11 * g0 - h01 * g1) / whole, (h00 * g1 - h01 * g0) / whole
            step = np.minimum(1, 2 / np.maximum(1e-9, np.maximum(abs(da), abs(db))))
            a, b = a + step * da, b + step * db
        chance = sigmoid(np.clip(a + b * logit, -30, 30))
        left = self.present - chance
        spread = chance * (1 - chance)
        h00, h01, h11 = (x.sum(axis=0) for x in (spread, spread * logit, spread * logit**2))
        if two:
            return b, left * (logit * h00 - h01) / (h00 * h11 - h01**2)
        return a, left / h00


class Share:
    """A share of rows: value, effective number of rows, patients, and what each patient adds."""

    def __init__(self, drawn: Drawn, hits, members) -> None:
        per, found = (drawn.sums(x.astype(float)) for x in (members, hits))
        n, count = per.sum(axis=0), found.sum(axis=0)
        self.n, self.patients = n, (per > 0).sum(axis=0)
        with np.errstate(all="ignore"):
            self.value = count / n
            apart = self.patients * ((n * found - count * per) ** 2).sum(axis=0)
            size = np.minimum(n, 1 + (self.patients - 1) * count * (n - count) * n**2 / apart)
            self.moved = np.nan_to_num((found - per * self.value) / n)
        same = np.where((count == 0) | (count == n), self.patients, np.where(apart == 0, n, size))
        self.size = np.where(self.patients == n, n, same)
        with np.errstate(all="ignore"):
            several = (self.patients - 1) * n / (n - self.patients)
        self.freedom = np.where(self.patients == n, np.inf, several)

    def ends(self):
        """Wilson's."""
        n, p = self.size, self.value
        with np.errstate(all="ignore"):
            centre = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
            reach = Z / (1 + Z * Z / n) * np.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
        return np.maximum(0, centre - reach), np.minimum(1, centre + reach)

    def spread(self, value):
        return value * (1 - value) / self.size


class F1(Share):
    """2J / (1 + J) of the share J of rows called or present that are both."""

    def __init__(self, share: Share) -> None:
        self.__dict__ |= share.__dict__
        self.moved = share.moved * 2 / (1 + share.value) ** 2
        self.value = _f1(share.value)
        self.share = share

    def ends(self):
        return tuple(_f1(end) for end in self.share.ends())

    def spread(self, value):
        part = value / (2 - value)
        return self.share.spread(part) * (2 / (1 + part) ** 2) ** 2


def _f1(share):
    return 2 * share / (1 + share)


def correlation(x, y):
    with np.errstate(all="ignore"):
        length = np.sqrt((x * x).sum(axis=0) * (y * y).sum(axis=0))
        return np.where(length > 0, np.clip((x * y).sum(axis=0) / length, -1, 1), 0.0)


def student(freedom):
    """Standard errors for degrees of freedom, (R,)."""
    freedom = np.maximum(np.broadcast_to(freedom, np.shape(freedom)), 1)
    known = {one: t_of(0.95, float(one)) for one in np.unique(freedom)}
    return np.vectorize(known.get, otypes=[float])(freedom)


# ---- the rules ----------------------------------------------------------------------------------


def edges(refuted, seen):
    """Lowest and highest truth that is not refuted, by bisection."""
    ends = []
    for side in (-1.0, 1.0):
        inside, outside = seen.copy(), np.full_like(seen, side)
        for _ in range(STEPS):
            middle = (inside + outside) / 2
            out = refuted(middle)
            inside, outside = np.where(out, inside, middle), np.where(out, middle, outside)
        ends.append(np.where(refuted(np.full_like(seen, side)), inside, side))
    return ends


def about_mean(a, b):
    """Gap of two shares, see `differences.gap`."""
    together, weight = correlation(a.moved, b.moved), a.size / (a.size + b.size)
    seen, times = a.value - b.value, welch(a, b)
    middle = weight * a.value + (1 - weight) * b.value

    def refuted(truth):
        s = np.sqrt(a.spread(np.clip(middle + (1 - weight) * truth, 0, 1)))
        t = np.sqrt(b.spread(np.clip(middle - weight * truth, 0, 1)))
        return abs(seen - truth) > times * np.sqrt(
            np.maximum(s * s + t * t - 2 * together * s * t, 0)
        )

    with np.errstate(all="ignore"):
        return edges(refuted, seen)


def welch(a, b):
    """Standard errors to either side of a gap, see `differences.gap`."""
    with np.errstate(all="ignore"):
        s, t = (np.maximum(x.spread(x.value), 0.25 / x.size**2) for x in (a, b))
        freedom = (s + t) ** 2 / (s * s / a.freedom + t * t / b.freedom)
    known = freedom < 1000
    return np.where(known, student(np.floor(np.where(known, freedom, 1))), Z)


def nearest(a, b, times):
    """Difference of two models' shares, see `differences.paired_shares`."""
    together, seen = correlation(a.moved, b.moved), a.value - b.value

    def spreads(x, y):
        s, t = np.sqrt(a.spread(x)), np.sqrt(b.spread(y))
        return s, t, s * s + t * t - 2 * together * s * t

    def refuted(truth):
        x, y = a.value, b.value
        for _ in range(3):
            s, t, variance = spreads(x, y)
            part = np.where(variance > 0, (s * s - together * s * t) / variance, 0.5)
            x = np.clip(a.value - part * (seen - truth), 0, 1)
            y = np.clip(x - truth, 0, 1)
        return abs(seen - truth) > times * np.sqrt(np.maximum(spreads(x, y)[2], 0))

    with np.errstate(all="ignore"):
        return edges(refuted, seen)


def tango(a, b, called, members):
    """Difference of two models' rates, see `differences.paired_rates`."""
    n, seen = a.n, a.value - b.value
    gained, lost = ((x & ~y & members).sum(axis=0) / n for x, y in (called, called[::-1]))
    with np.errstate(all="ignore"):
        shown = a.patients / np.maximum(a.patients - 1, 1) * ((a.moved - b.moved) ** 2).sum(axis=0)
        alone = gained + lost - (gained - lost) ** 2
        size = np.where((shown > 0) & (alone > 0), np.minimum(n, alone / shown), a.patients)
        size = np.where(a.patients == n, n, size)

    def refuted(truth):
        slope = -(gained + lost) + (2 - seen) * truth
        inside = np.maximum(slope**2 + 8 * lost * truth * (1 - truth), 0)
        variance = 2 * (np.sqrt(inside) - slope) / 4 + truth * (1 - truth)
        return abs(seen - truth) > Z * np.sqrt(np.maximum(variance, 0) / size)

    return edges(refuted, seen)


def number_ends(drawn, value, moved, freedom):
    few = drawn.patients / (drawn.patients - 1)
    reach = student(freedom) * np.sqrt(few * (moved**2).sum(axis=0))
    return value - reach, value + reach


def freedoms(drawn, name, two_models: bool):
    everyone = np.full_like(drawn.rarer, drawn.patients - 1)
    if name == "calibration_intercept":
        return 2 * drawn.rarer if two_models else everyone
    return everyone if name == "brier" else drawn.rarer - 1


def shifted(hit, passed):
    """Predictive values at another prevalence from both rates, see `performance._from_ratio`."""
    together = correlation(hit.moved, -passed.moved)
    odds = AT / (1 - AT)
    for top, bottom, factor in ((hit, passed, odds), (passed, hit, 1 / odds)):
        (low_a, high_a), (low, high) = top.ends(), bottom.ends()
        a, b, low_b, high_b = top.value, 1 - bottom.value, 1 - high, 1 - low
        with np.errstate(all="ignore"):
            log, middle = np.log, np.log(a / b)

            def reach(x, y):
                return np.sqrt(np.maximum(0, x * x + y * y - 2 * together * x * y))

            down = reach(log(a / low_a), log(high_b / b))
            up = reach(log(high_a / a), log(b / low_b))
            ends = factor * np.exp(middle - down), factor * np.exp(np.minimum(middle + up, 500))
            none = (a == 0) | (b == 0)
            low = np.where(none, factor * low_a / high_b, ends[0])
            high = np.where(none, factor * high_a / low_b, ends[1])
            yield low / (1 + low), np.where(np.isinf(high), 1.0, high / (1 + high))


# ---- the studies --------------------------------------------------------------------------------


def of_one_model(studies: Studies):
    cell, drawn = studies.cell, Drawn(studies)
    scores = studies.scores()[:, drawn.rows]
    enough = drawn.rarer >= LEAST_FOR_NUMBER
    for name, slope, shift in (("", SLOPE, SHIFT), (", calibrated", 1.0, 0.0)):
        truth = truth_of(cell, None, slope, shift)
        for measure, (value, moved) in drawn.numbers(logits(scores, cell, slope, shift)).items():
            ends = number_ends(drawn, value, moved, freedoms(drawn, measure, two_models=False))
            yield NAMES[measure] + name, held(*ends, truth[measure], enough)
    truth = truth_of(cell)
    shares = drawn.decisions(scores >= cell.threshold)
    f1 = F1(shares["f1"])
    enough = (f1.patients >= LEAST_FOR_SHARE) & (drawn.rarer >= LEAST_FOR_SHARE)
    yield "F1", held(*f1.ends(), truth["f1"], enough)
    hit, passed = shares["sensitivity"], shares["specificity"]
    enough = np.minimum(hit.patients, passed.patients) >= LEAST_FOR_SHARE
    for name, ends in zip(("ppv", "npv"), shifted(hit, passed), strict=True):
        measure = f"{name}_at_prevalence"
        yield NAMES[measure], held(*ends, truth[measure], enough)


def two_models(studies: Studies, gap: float):
    """Scores of two models on the same images."""
    labels = studies.labels
    common = math.sqrt(SHARED) * studies.noise()
    first, second = (common + math.sqrt(1 - SHARED) * studies.noise() for _ in range(2))
    return studies.cell.gap * labels + first, gap * labels + second


def of_two_models(studies: Studies):
    cell, drawn = studies.cell, Drawn(studies)
    worse = cell._replace(area=cell.area - LOSS).gap
    for name, gap in (("none", cell.gap), ("real", worse)):
        pair = [each[:, drawn.rows] for each in two_models(studies, gap)]
        a, b = (truth_of(cell, each, SLOPE, SHIFT) for each in (None, gap))
        for measure, ends, enough in differences(cell, drawn, pair):
            found = held(*ends, a[measure] - b[measure], enough)
            yield f"difference of two models, {name}: {NAMES.get(measure, measure)}", found


def differences(cell, drawn, pair):
    """Measure, ends and whether they are given, of all studies."""
    called = [scores >= cell.threshold for scores in pair]
    ours, theirs = (drawn.decisions(each) for each in called)
    for measure, members in (("sensitivity", drawn.present), ("specificity", ~drawn.present)):
        hits = called if measure == "sensitivity" else [~each for each in called]
        enough = ours[measure].patients >= LEAST_FOR_DECISIONS
        yield measure, tango(ours[measure], theirs[measure], hits, members), enough
    for measure in ("ppv", "npv", "f1"):
        a, b = ours[measure], theirs[measure]
        enough = np.minimum(a.patients, b.patients) >= LEAST_FOR_SHARE
        enough &= drawn.rarer >= LEAST_FOR_DECISIONS
        if measure == "f1":
            a, b = F1(a), F1(b)
        yield measure, nearest(a, b, student(drawn.rarer - 1)), enough
    ours, theirs = (drawn.numbers(logits(each, cell, SLOPE, SHIFT)) for each in pair)
    for measure in ours:
        value, moved = (x - y for x, y in zip(ours[measure], theirs[measure], strict=True))
        ends = number_ends(drawn, value, moved, freedoms(drawn, measure, two_models=True))
        yield measure, ends, drawn.rarer >= LEAST_FOR_NUMBER


def subgroups(studies: Studies):
    """What a subgroup is of, whether it is worth less, its rows, and scores."""
    cell, labels, noise = studies.cell, studies.labels, studies.noise()
    per_patient = studies.rng.integers(0, 3, size=studies.patients.max() + 1)[studies.patients] == 0
    per_image = studies.rng.integers(0, 3, size=cell.n) == 0
    worse = cell._replace(area=cell.area - LOSS).gap
    for what, member in (("patients", per_patient), ("images", per_image)):
        for name, gap in (("none", cell.gap), ("real", worse)):
            scores = np.where(member, gap, cell.gap)[:, None] * labels + noise
            yield f"gap of {what}, {name}", gap, member, scores


def of_subgroups(studies: Studies):
    cell, drawn = studies.cell, Drawn(studies)
    for name, gap, member, scores in subgroups(studies):
        called, member = scores[:, drawn.rows] >= cell.threshold, member[:, None]
        truth, usual = truth_of(cell, gap), truth_of(cell)
        for measure, hits, rows in (
            ("sensitivity", called, drawn.present),
            ("specificity", ~called, ~drawn.present),
        ):
            a, b = drawn.share(hits, rows & member), drawn.share(hits, rows & ~member)
            enough = np.minimum(a.patients, b.patients) >= LEAST_FOR_GAP
            found = held(*about_mean(a, b), truth[measure] - usual[measure], enough)
            yield f"{name}: {measure}", found


# ---- what is read from the tables ---------------------------------------------------------------


def ends_of(table, measure):
    """Ends of each study, which is a finding of the table."""
    rows = (table["finding"] != "mean") & (table["measure"] == measure)
    return table.loc[rows, "low"].to_numpy(float), table.loc[rows, "high"].to_numpy(float)


def of_errors(studies: Studies, wanted=None):
    """Calibration error."""
    cell, rows = studies.cell, Drawn(studies).rows
    known, names = studies.labels[:, rows], [str(r) for r in rows]
    scores = studies.scores()[:, rows]
    for name, slope, shift in (("", SLOPE, SHIFT), (", calibrated", 1.0, 0.0)):
        if (what := NAMES["ece"] + name) in (wanted or [what]):
            table = performance_table(
                known, logits(scores, cell, slope, shift), names, kind="logit", measures=["ece"],
                patient_ids=studies.patients,
            )  # fmt: skip
            truth = truth_of(cell, None, slope, shift)["ece"]
            yield what, held(*ends_of(table, "ece"), truth)


def of_precisions(studies: Studies, wanted=None):
    """Average precision of two models."""
    cell, rows = studies.cell, Drawn(studies).rows
    known, names = studies.labels[:, rows], [str(r) for r in rows]
    people = {"patient_ids": studies.patients, "measures": ["average_precision"]}
    worse = cell._replace(area=cell.area - LOSS).gap
    for name, gap in (("none", cell.gap), ("real", worse)):
        if (what := f"difference of two models, {name}: average precision") in (wanted or [what]):
            pair = [each[:, rows] for each in two_models(studies, gap)]
            table = difference_table(known, *pair, names, **people)
            a, b = (truth_of(cell, each)["average_precision"] for each in (None, gap))
            yield what, held(*ends_of(table, "average_precision"), a - b)


def of_areas(studies: Studies, wanted=None):
    """AUROC of subgroups."""
    cell, rows = studies.cell, Drawn(studies).rows
    known, names = studies.labels[:, rows], [str(r) for r in rows]
    people = {"patient_ids": studies.patients, "measures": ["auroc"]}
    for name, gap, member, scores in subgroups(studies):
        if (what := f"{name}: AUROC") in (wanted or [what]):
            group = {"group": np.where(member, "a", "b")}
            table = gap_table(known, scores[:, rows], names, group, **people)
            apart = truth_of(cell, gap)["auroc"] - truth_of(cell)["auroc"]
            yield what, held(*ends_of(table, "auroc"), apart)


MEANS = ("average_precision", "sensitivity", "specificity", "ppv", "npv", "f1", "brier",
         "calibration_slope", "calibration_intercept")  # fmt: skip
FINDINGS = 3


def of_means(studies: Studies, wanted=None):
    """Means over findings whose scores share half of their noise, one study after the other."""
    names = {f"mean over {FINDINGS} findings: {NAMES.get(one, one)}": one for one in MEANS}
    measures = [one for name, one in names.items() if name in (wanted or names)]
    cell = studies.cell
    others = [
        Studies(cell, studies.studies, studies.seed + f, studies.patients)
        for f in range(1, FINDINGS + 1)
    ]
    noise = studies.noise()
    made = [one.scores(math.sqrt(0.5) * (noise + one.noise())) for one in others]
    limit = logits(cell.threshold, cell, SLOPE, SHIFT)
    truth = truth_of(cell, None, SLOPE, SHIFT)
    ends = {measure: [] for measure in measures}
    for r in range(studies.studies):
        known = np.stack([one.labels[:, r] for one in others], axis=1)
        if not ((known.min(axis=0) == 0) & (known.max(axis=0) == 1)).all():
            continue
        given = logits(np.stack([one[:, r] for one in made], axis=1), cell, SLOPE, SHIFT)
        table = performance_table(
            known, given, list("abc"), thresholds=limit, kind="logit", measures=measures,
            patient_ids=studies.patients,
        )  # fmt: skip
        mean = table[table["finding"] == "mean"].set_index("measure")
        for measure in measures:
            ends[measure].append((mean.loc[measure, "low"], mean.loc[measure, "high"]))
    for name, measure in names.items():
        if measure in measures:
            pairs = np.array(ends[measure], float).reshape(-1, 2)
            yield name, held(pairs[:, 0], pairs[:, 1], truth[measure])


FORMULAS = (of_one_model, of_two_models, of_subgroups)
TABLES = (of_errors, of_precisions, of_areas)


def part_of(measure: str):
    """Which of the above a measure is of."""
    for sign, part in (
        ("mean over", of_means), ("(ECE)", of_errors), (": average precision", of_precisions),
        (": AUROC", of_areas), ("gap of", of_subgroups), ("difference of", of_two_models),
    ):  # fmt: skip
        if sign in measure:
            return part
    return of_one_model


def drawn(part, cell: Cell, studies: int, seed: int = 0, wanted=None) -> list[dict]:
    """A row of counts per measure and block. Patients and subgroups are those of a block."""
    at_once = min(AT_ONCE // cell.n, 500 if part in FORMULAS else 100)
    rows = []
    for block, first in enumerate(range(0, studies, at_once)):
        one = Studies(cell, min(at_once, studies - first), seed + 10 * block)
        found = part(one) if part in FORMULAS else part(one, wanted)
        rows += [{"measure": name} | cell._asdict() | counts for name, counts in found]
    return rows


def simulated(some, studies: int, tables: int = 0, means: int = 0, seed: int = 0) -> pd.DataFrame:
    """One row per measure and cell: its studies, the share given, coverage and mean width.

    Args:
        some: Cells.
        studies: Of what is computed for all at once.
        tables: Of what is read from tables.
        means: Of the means over findings.
        seed: Of the draws.
    """
    rows = []
    for cell in some:
        for parts, number in ((FORMULAS, studies), (TABLES, tables), ((of_means,), means)):
            for part in parts:
                rows += drawn(part, cell, number, seed)
    return pooled(pd.DataFrame(rows))


def outside(table: pd.DataFrame) -> pd.DataFrame:
    """Rows whose figure is not within 93 and 97 %, of those that the page shows."""
    shown = table[table["given"] >= LEAST_GIVEN]
    return shown[~shown["coverage"].between(0.93, 0.97)]


class File:
    """The rows that there are, in a file that a stopped run leaves behind.

    Args:
        path: CSV; None keeps them in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        there = path is not None and path.is_file()
        self.table = pd.read_csv(path) if there else pd.DataFrame()

    def of(self, cell: Cell) -> pd.DataFrame:
        """Rows of a cell."""
        if not len(self.table):
            return self.table
        same = [self.table[name] == value for name, value in cell._asdict().items()]
        return self.table[np.logical_and.reduce(same)]

    def put(self, new: pd.DataFrame, cell: Cell) -> None:
        """Add rows of a cell, in place of those of the same measure."""
        places = {row.measure: row.Index for row in self.of(cell).itertuples()}
        new = new.round(4)
        for row in new.to_dict("records"):
            if row["measure"] in places:
                self.table.loc[places[row["measure"]]] = row
            else:
                self.table = pd.concat([self.table, pd.DataFrame([row])], ignore_index=True)
        if self.path is not None:
            self.table.to_csv(self.path, index=False)


def complete(file: File, cell: Cell, options) -> None:
    """Draw what a file lacks of a cell, and draw again what is outside of the band.

    What is outside after few studies may be so by chance, and by more of others it is not.
    """
    small = cell.n == min(SIZES)
    numbers = dict.fromkeys(FORMULAS, options.studies if small else options.studies // 4)
    numbers |= dict.fromkeys(TABLES, options.tables if small else options.tables // 4)
    numbers[of_means] = options.means if small else options.means // 4
    known = file.of(cell)
    there = {part_of(name) for name in known["measure"]} if len(known) else set()
    for part, number in numbers.items():
        if number and part not in there:
            file.put(pooled(pd.DataFrame(drawn(part, cell, number))), cell)
    few = outside(file.of(cell))
    few = few[few["studies"] < options.again * 0.75]  # a class may be absent from the others
    for part in {part_of(name): None for name in few["measure"]}:
        names = [name for name in few["measure"] if part_of(name) is part]
        more = pooled(pd.DataFrame(drawn(part, cell, options.again, AGAIN, names)))
        file.put(more[more["measure"].isin(names)], cell)


def cells():
    return itertools.starmap(Cell, itertools.product(SIZES, PREVALENCES, LIKENESSES, AREAS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    number = {"type": int, "metavar": "N"}
    parser.add_argument("--studies", default=4000, help="of 200 images, per cell", **number)
    parser.add_argument("--tables", default=2000, help="of what is read from tables", **number)
    parser.add_argument("--means", default=1000, help="of the means over findings", **number)
    parser.add_argument("--again", default=4000, help="of what is outside 93 to 97 %%", **number)
    parser.add_argument("--only", help="cells whose name holds this, such as n=200")
    parser.add_argument("--csv", type=Path, help="rows; what is there is not drawn again")
    parser.add_argument("--page", type=Path, help="print the tables from a file of rows instead")
    options = parser.parse_args()
    if options.page:
        print(page(pd.read_csv(options.page), AREAS))
        return
    start, file = time.process_time(), File(options.csv)
    for cell in cells():
        if not options.only or options.only in repr(cell):
            complete(file, cell, options)
            print(f"{cell} {time.process_time() - start:.0f} s", flush=True)
    if not options.only:
        print(page(file.table, AREAS))
    print(outside(file.table).to_string())


if __name__ == "__main__":
    main()

"""How often the intervals of `torchxrayvision.evaluation` hold the truth, in simulated studies.

    python benchmarks/coverage_of_intervals.py --csv docs/intervals.csv

One core needs about twenty minutes; `--studies 200` shows the same roughly in one. Studies have
200 or 2,000 images; 1, 10 or 50 % of them have the finding; patients have one to five images, whose
labels and scores correlate by 0 or by 0.5 (before the label is cut off); scores are normal, apart
by what an AUROC of 0.7 to 0.97 takes. Each cell counts the studies that gave an interval and, of
these, the ones whose interval holds the value of the population. `--page` prints the tables of
docs/intervals.md. `--spread 1.5` shows the intervals of AUROC where scores of images with the
finding spread so many times as far as those without: the rules were chosen for scores that spread
alike.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
import zlib
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import pandas as pd

from torchxrayvision import evaluation

NORMAL = NormalDist()
SIZES = (200, 2000)
PREVALENCES = (0.01, 0.1, 0.5)
LIKENESSES = (0.0, 0.5)
AREAS = (0.7, 0.8, 0.9, 0.97)
FINDINGS = 3  # of the mean over findings
LOSS = 0.05  # of AUROC, where two models differ
SHARED = 0.7  # of the noise of two models
LEAST_GIVEN = 0.1  # share of studies with an interval below which a cell reads "too few"
AT_ONCE = 500  # studies drawn together


class Cell(NamedTuple):
    """One kind of study."""

    n: int
    prevalence: float
    likeness: float
    area: float

    @property
    def gap(self) -> float:
        """Distance of the means of the scores with and without the finding."""
        return math.sqrt(2) * NORMAL.inv_cdf(self.area)

    @property
    def threshold(self) -> float:
        """Half way between the means."""
        return self.gap / 2


def cells():
    return itertools.starmap(Cell, itertools.product(SIZES, PREVALENCES, LIKENESSES, AREAS))


class Studies:
    """Many studies of one kind, drawn at once: labels (n, R), and scores made of noise (n, R)."""

    def __init__(self, cell: Cell, studies: int, seed: int, patients=None, spread=1.0) -> None:
        self.cell, self.studies, self.seed, self.spread = cell, studies, seed, spread
        self.rng = np.random.default_rng([seed, zlib.crc32(repr(cell).encode())])
        sizes = self.rng.integers(1, 6, size=cell.n)
        drawn = np.repeat(np.arange(cell.n), sizes)[: cell.n]
        self.patients = drawn if patients is None else patients
        cut = NORMAL.inv_cdf(1 - cell.prevalence)
        self.labels = (self.noise() > cut).astype(float)

    def noise(self):
        """Standard normal, with the likeness of the images of a patient."""
        cell = self.cell
        shared = self.rng.normal(size=(cell.n, self.studies))[self.patients]
        own = self.rng.normal(size=(cell.n, self.studies))
        return math.sqrt(cell.likeness) * shared + math.sqrt(1 - cell.likeness) * own

    def scores(self, noise=None):
        noise = self.noise() if noise is None else noise
        gap = self.cell.gap * math.sqrt((1 + self.spread**2) / 2)
        return self.labels * (gap + (self.spread - 1) * noise) + noise


def held(intervals, truth) -> dict[str, float]:
    """Counts: studies with a value, those with an interval, those that hold the truth, widths."""
    ends = np.array([(i.low, i.high) for i in intervals if not math.isnan(i.value)]).reshape(-1, 2)
    given = ends[~np.isnan(ends[:, 0])]
    inside = (given[:, 0] <= truth) & (truth <= given[:, 1])
    return {
        "studies": len(ends),
        "given": len(given),
        "coverage": int(inside.sum()),
        "width": float(np.diff(given, axis=1).sum()),
    }


def usable(studies: Studies):
    """Studies in which both classes occur."""
    return np.flatnonzero((studies.labels.min(axis=0) == 0) & (studies.labels.max(axis=0) == 1))


def areas(studies: Studies):
    scores, patients = studies.scores(), studies.patients
    found = [
        evaluation.auroc_interval(studies.labels[:, r], scores[:, r], patients)
        for r in usable(studies)
    ]
    yield "AUROC", held(found, studies.cell.area)


def means_over_findings(studies: Studies):
    cell = studies.cell
    others = [
        Studies(cell, studies.studies, studies.seed + finding, studies.patients)
        for finding in range(1, FINDINGS + 1)
    ]
    noise = studies.noise()  # half of the noise is that of the image, whatever the finding
    mixed = [math.sqrt(0.5) * noise + math.sqrt(0.5) * one.noise() for one in others]
    labels = np.stack([one.labels for one in others], axis=1)
    scores = np.stack([one.scores(given) for one, given in zip(others, mixed, strict=True)], axis=1)
    both = (labels.min(axis=0) == 0) & (labels.max(axis=0) == 1)
    found = [
        evaluation.mean_auroc(labels[..., r], scores[..., r], studies.patients)
        for r in np.flatnonzero(both.all(axis=0))
    ]
    yield "mean AUROC of 3 findings", held(found, cell.area)


def differences(studies: Studies):
    cell, labels = studies.cell, studies.labels
    shared = math.sqrt(SHARED) * studies.noise()
    first, second = (shared + math.sqrt(1 - SHARED) * studies.noise() for _ in range(2))
    worse = cell._replace(area=cell.area - LOSS).gap
    for name, gap, truth in (("none", cell.gap, 0.0), (f"{LOSS}", worse, LOSS)):
        found = [
            evaluation.paired_difference(
                labels[:, r],
                cell.gap * labels[:, r] + first[:, r],
                gap * labels[:, r] + second[:, r],
                studies.patients,
            )
            for r in usable(studies)
        ]
        yield f"difference of two models, {name}", held(found, truth)


def precisions(studies: Studies):
    cell, scores = studies.cell, studies.scores()
    found = [
        evaluation.average_precision_interval(studies.labels[:, r], scores[:, r], studies.patients)
        for r in usable(studies)
    ]
    yield "average precision", held(found, precision_of(cell))


def precision_of(cell: Cell) -> float:
    """Average precision of the population, by the trapezoidal rule."""
    x = np.linspace(-8, 8 + cell.gap, 20_001)
    tail = np.vectorize(lambda value: 1 - NORMAL.cdf(value))
    hits, alarms = cell.prevalence * tail(x - cell.gap), (1 - cell.prevalence) * tail(x)
    density = np.exp(-((x - cell.gap) ** 2) / 2) / math.sqrt(2 * math.pi)
    return float(np.trapezoid(hits / np.maximum(hits + alarms, 1e-300) * density, x))


def rates(studies: Studies):
    cell, scores = studies.cell, studies.scores()
    points = [
        evaluation.operating_point(
            studies.labels[:, r], scores[:, r], cell.threshold, studies.patients
        )
        for r in usable(studies)
    ]
    hit = 1 - NORMAL.cdf(cell.threshold - cell.gap)  # specificity too: half way between the means
    share = cell.prevalence
    for name, truth in (
        ("sensitivity", hit),
        ("specificity", hit),
        ("ppv", share * hit / (share * hit + (1 - share) * (1 - hit))),
        ("npv", (1 - share) * hit / ((1 - share) * hit + share * (1 - hit))),
    ):
        yield name, held([getattr(point, name) for point in points], truth)


def plain_means(studies: Studies):
    noise = studies.noise()
    found = [
        evaluation.mean_interval(noise[:, r], studies.patients) for r in range(studies.studies)
    ]
    yield "mean of a number", held(found, 0.0)


MEASURES = (areas, means_over_findings, differences, precisions, rates, plain_means)


def simulated(some, studies: int, seed: int = 0, spread: float = 1.0) -> pd.DataFrame:
    """One row per measure and cell: its studies, the share given, coverage and mean width."""
    rows = []
    for cell in some:
        for part, first in enumerate(range(0, studies, AT_ONCE)):
            number = min(AT_ONCE, studies - first)
            for measure in MEASURES if spread == 1 else (areas,):
                drawn = Studies(cell, number, seed + 10 * part, spread=spread)
                rows += [{"measure": n} | cell._asdict() | found for n, found in measure(drawn)]
    return pooled(pd.DataFrame(rows))


def pooled(rows: pd.DataFrame) -> pd.DataFrame:
    """Counts of several draws of a cell, as shares of the studies and of the intervals."""
    kinds = ["measure", *Cell._fields]
    table = rows.groupby(kinds, sort=False, as_index=False).sum()
    table[["coverage", "width"]] = table[["coverage", "width"]].div(table["given"], axis=0)
    table["given"] /= table["studies"].clip(lower=1)
    return table


def page(table: pd.DataFrame, areas=AREAS) -> str:
    """The tables of docs/intervals.md: one per measure, a row per kind of study."""
    parts = []
    for measure, part in table.groupby("measure", sort=False):
        head = "| images | with the finding | likeness | " + " | ".join(
            f"AUROC {area:g}" for area in areas
        )
        lines = [
            f"### {measure[0].upper()}{measure[1:]}\n",
            head + " |",
            "| --- " * (3 + len(areas)) + "|",
        ]
        for (n, share, alike), row in part.groupby(["n", "prevalence", "likeness"]):
            by_area = row.set_index("area")
            shown = [_shown(by_area.loc[area]) for area in areas]
            lines.append(f"| {n:,} | {share:.0%} | {alike:g} | {' | '.join(shown)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _shown(row) -> str:
    if row["given"] < LEAST_GIVEN or math.isnan(row["coverage"]):
        return "too few"
    given = "" if row["given"] > 0.995 else f" ({row['given']:.0%} given)"
    return f"{row['coverage']:.1%}{given}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--studies", type=int, default=4000, help="per cell")
    parser.add_argument("--spread", type=float, default=1.0)
    parser.add_argument("--csv", type=Path, help="write the rows here")
    parser.add_argument("--page", type=Path, help="print the tables from a file of rows instead")
    options = parser.parse_args()
    if options.page:
        print(page(pd.read_csv(options.page)))
        return
    start = time.process_time()
    parts = []
    for cell in cells():
        parts.append(simulated([cell], options.studies, spread=options.spread))
        print(f"{cell} {time.process_time() - start:.0f} s", flush=True)
    table = pd.concat(parts, ignore_index=True)
    if options.csv:
        table.round(4).to_csv(options.csv, index=False)
    print(page(table))


if __name__ == "__main__":
    main()

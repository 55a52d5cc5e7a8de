"""Whether calibrations keep their promises, in simulated studies.

    python benchmarks/coverage_of_calibration.py

Each of 500 studies draws two hospitals' worth of patients with one to five images, whose logits are
off by a slope and a shift. On the first half everything is chosen by `calibration.fit`; on the
second it is judged. Counted are: the calibration error (ECE) before and after; how often the
interval of the sensitivity (specificity) that the threshold achieves holds the one of the
population at this threshold, and how often the interval that allows for the choice holds the
target; and how often conformal sets hold the truth in either class.
"""

from __future__ import annotations

import argparse
import itertools
import math
from statistics import NormalDist

import numpy as np
import pandas as pd

from torchxrayvision.calibration import fit
from torchxrayvision.evaluation import achieved_interval, expected_calibration_error

NORMAL = NormalDist()
TARGET, COVERAGE = 0.9, 0.9
ALL = 40_000  # images that stand for the population


class Site:
    """Patients whose logits are off.

    Args:
        prevalence: Share of images with the finding.
        likeness: Correlation of images of a patient.
        area: AUROC.
        slope: Of the logits, 1 if right.
        shift: Of the logits.
    """

    def __init__(self, prevalence, likeness, area, slope, shift):
        self.prevalence, self.likeness = prevalence, likeness
        self.gap = math.sqrt(2) * NORMAL.inv_cdf(area)
        self.slope, self.shift = slope, shift

    def draw(self, rng, n):
        """Labels, logits and patients of n images."""
        patients = np.repeat(np.arange(n), rng.integers(1, 6, n))[:n]

        def noise():
            shared, own = rng.normal(size=n)[patients], rng.normal(size=n)
            return math.sqrt(self.likeness) * shared + math.sqrt(1 - self.likeness) * own

        labels = (noise() > NORMAL.inv_cdf(1 - self.prevalence)).astype(float)
        scores = labels * self.gap + noise()
        right = math.log(self.prevalence / (1 - self.prevalence))
        right = right + self.gap * (scores - self.gap / 2)
        return labels, self.slope * right + self.shift, patients

    def rate(self, limit, target):
        """Sensitivity or specificity of the population at a threshold on the logits."""
        right = (limit - self.shift) / self.slope
        score = (right - math.log(self.prevalence / (1 - self.prevalence))) / self.gap
        score += self.gap / 2
        if target == "sensitivity":
            return 1 - NORMAL.cdf(score - self.gap)
        return NORMAL.cdf(score)


def study(rng, site, n, target):
    labels, logits, patients = site.draw(rng, n)
    made = fit(
        labels[:, None], logits[:, None], ["x"], output="logit", patient_ids=patients,
        target=f"{target}={TARGET}", coverage=COVERAGE,
    )  # fmt: skip
    finding = made.findings["x"]
    at, achieved = finding.threshold["at"], finding.threshold[target]
    truth, given, others = site.draw(rng, n)
    on_others = achieved_interval(truth, given, at, target, finding.threshold["chosen_on"], others)
    many, seen, _ = site.draw(rng, ALL)
    chances = finding.probabilities(seen, "logit")
    sets = finding.sets(seen)
    held = np.where(many == 1, sets != "absent", sets != "present")
    return {
        "ECE before": expected_calibration_error(many, 1 / (1 + np.exp(-seen))),
        "ECE after": expected_calibration_error(many, chances),
        "holds the rate": achieved["low"] <= site.rate(at, target) <= achieved["high"],
        "holds the target": TARGET in on_others,
        "sets, present": held[many == 1].mean(),
        "sets, absent": held[many == 0].mean(),
        "unsure": (sets == "unsure").mean(),
        "method": finding.method,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument("--images", type=int, default=2000)
    options = parser.parse_args()
    rows = []
    for target, (prevalence, likeness) in itertools.product(
        ("sensitivity", "specificity"), ((0.1, 0.0), (0.1, 0.5), (0.4, 0.5))
    ):
        site = Site(prevalence, likeness, 0.85, 1.6, 0.8)
        rng = np.random.default_rng([options.images, len(rows)])
        part = pd.DataFrame(
            [study(rng, site, options.images, target) for _ in range(options.studies)]
        )
        means = part.drop(columns="method").astype(float).mean()
        rows.append(
            {"target": target, "with the finding": prevalence, "likeness": likeness} | dict(means)
        )
        print(pd.DataFrame([rows[-1]]).round(4).to_string(), flush=True)
        print(part["method"].value_counts().to_dict(), flush=True)
    print(pd.DataFrame(rows).round(3).to_string(index=False))


if __name__ == "__main__":
    main()

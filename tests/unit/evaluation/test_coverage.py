"""Intervals hold the truth as often as they say: a small run of the script behind the page."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from torchxrayvision.evaluation import average_precision_interval, bootstrap, mean_interval

ROOT = Path(__file__).parents[3]
STUDIES = 240


@pytest.fixture(scope="module")
def coverage():
    path = ROOT / "benchmarks" / "coverage_of_intervals.py"
    spec = importlib.util.spec_from_file_location("coverage_of_intervals", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("likeness", [0.0, 0.5])
@pytest.mark.parametrize(("prevalence", "area"), [(0.1, 0.97), (0.5, 0.8)])
def test_intervals_hold_the_truth_in_95_of_100_studies(coverage, prevalence, area, likeness):
    cell = coverage.Cell(200, prevalence, likeness, area)
    table = coverage.simulated([cell], STUDIES).set_index("measure")
    given = table[table["given"] >= coverage.LEAST_GIVEN]
    assert len(given) >= len(table) - (prevalence < 0.5)  # average precision needs 30 cases
    # Four standard errors of so many studies; a percentile interval of AUROC 0.97 covers 88 %.
    spread = 4 * np.sqrt(0.95 * 0.05 / (STUDIES * given["given"]))
    assert ((given["coverage"] - 0.95).abs() <= spread).all(), given["coverage"].to_dict()


def test_two_cases_are_too_few(coverage):
    table = coverage.simulated([coverage.Cell(200, 0.01, 0.0, 0.9)], 100).set_index("measure")
    rare = table.drop(["specificity", "mean of a number"])
    assert (rare["given"] < coverage.LEAST_GIVEN).all(), rare["given"].to_dict()


@pytest.mark.parametrize("patients", [3, 5, 10, 20])
def test_the_mean_of_few_patients_holds_the_truth(patients):
    rng = np.random.default_rng(patients)
    inside = sum(0 in mean_interval(rng.normal(size=patients)) for _ in range(600))
    assert abs(inside / 600 - 0.95) < 0.03  # resampling covered 71, 81, 88 and 92 %


def test_a_mean_without_spread_has_no_interval():
    one = mean_interval([0.9, 0.8, 0.7], ["a", "a", "a"])
    assert one.value == pytest.approx(0.8)
    assert one.reason == "too few patients for an interval: 1, 2 are needed"
    same = mean_interval([0.9] * 50)
    assert same.reason == "every number is the same, which shows no spread"
    assert math.isnan(one.high)
    assert math.isnan(same.low)


def test_the_influence_of_average_precision_is_that_of_leaving_patients_out():
    """The jackknife, another way to the same variance, agrees where patients are many."""
    rng = np.random.default_rng(5)
    labels = (rng.random(1500) < 0.3).astype(float)
    scores = (labels + rng.normal(size=1500)).round(1)  # with ties
    patients = np.arange(1500) // 3
    interval = average_precision_interval(labels, scores, patients)
    from torchxrayvision.evaluation import average_precision

    left = np.array(
        [average_precision(labels[patients != p], scores[patients != p]) for p in range(500)]
    )
    error = math.sqrt(499 / 500 * ((left - left.mean()) ** 2).sum())
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_average_precision_of_few_cases_has_no_interval():
    labels = np.repeat([1, 0], [29, 200])
    interval = average_precision_interval(labels, np.arange(229) % 40)
    assert interval.reason == (
        "too few patients for an interval: 29 with the finding, 30 are needed"
    )
    perfect = average_precision_interval(np.repeat([1, 0], 40), -np.arange(80.0))
    assert (perfect.value, perfect.high) == (1, 1)
    assert 0.85 < perfect.low < 0.95


def test_the_bootstrap_of_a_mean_is_no_shorter_than_student(coverage):
    numbers = np.random.default_rng(6).exponential(size=25)
    drawn = bootstrap(np.mean, numbers, replicates=4000)
    formula = mean_interval(numbers)
    assert drawn.high - drawn.low > 0.9 * (formula.high - formula.low)
    assert drawn.high > formula.high - 0.05  # the tail is on this side


def test_the_page_shows_the_figures_of_the_file(coverage):
    table = pd.read_csv(ROOT / "docs" / "intervals.csv")
    page = (ROOT / "docs" / "intervals.md").read_text("utf-8")
    assert coverage.page(table) in page
    assert len(table) == len(list(coverage.cells())) * table["measure"].nunique()


def test_every_figure_of_the_file_is_95_percent_or_too_few(coverage):
    """93 to 97 %, with two standard errors of the studies that were simulated."""
    table = pd.read_csv(ROOT / "docs" / "intervals.csv")
    given = table[table["given"] >= coverage.LEAST_GIVEN]
    spread = 2 * np.sqrt(0.95 * 0.05 / (given["studies"] * given["given"]))
    outside = given[~given["coverage"].between(0.93 - spread, 0.97 + spread)]
    assert outside.empty, outside.to_string()
    certain = given[given["studies"] * given["given"] > 3000]  # a standard error below 0.4 %
    assert len(certain) > len(given) / 2
    assert certain["coverage"].between(0.93, 0.97).all(), certain.to_string()

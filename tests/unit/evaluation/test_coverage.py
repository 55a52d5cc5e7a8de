"""Intervals hold the truth as often as they say: a small run of the script behind the page."""

import argparse
import importlib.util
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from torchxrayvision.evaluation import (
    average_precision_interval,
    bootstrap,
    difference_table,
    gap_table,
    mean_interval,
    performance_table,
)
from torchxrayvision.evaluation.differences import tango_ends

ROOT = Path(__file__).parents[3]
STUDIES = 240


def script(name):
    path = ROOT / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def coverage():
    return script("coverage_of_intervals")


@pytest.fixture(scope="module")
def measures():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        return script("coverage_of_measures")


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


# ---- all measures, differences and gaps -------------------------------------------------------


def ends(low, high, _, given=None):
    given = np.ones(len(low), bool) if given is None else given
    return np.where(given, low, np.nan), np.where(given, high, np.nan)


def printed(measures, studies):
    """What the tables print of the studies, in the names of the script."""
    cell, drawn = studies.cell, measures.Drawn(studies)
    known, rows = studies.labels[:, drawn.rows], drawn.rows
    names, people = [str(r) for r in rows], {"patient_ids": studies.patients}
    fresh = measures.Studies(cell, studies.studies, studies.seed)
    more = {"kind": "logit", **people}

    def logits(scores):
        return measures.logits(scores, cell, measures.SLOPE, measures.SHIFT)

    limit = measures.logits(cell.threshold, cell, measures.SLOPE, measures.SHIFT)
    table = performance_table(
        known, logits(fresh.scores()[:, rows]), names, thresholds=limit, prevalence=measures.AT,
        **more,
    )  # fmt: skip
    for measure in ("brier", "calibration_slope", "calibration_intercept", "f1",
                    "ppv_at_prevalence", "npv_at_prevalence"):  # fmt: skip
        yield measures.NAMES[measure], measures.ends_of(table, measure)
    fresh = measures.Studies(cell, studies.studies, studies.seed)
    pair = [logits(each[:, rows]) for each in measures.two_models(fresh, cell.gap)]
    table = difference_table(known, *pair, names, thresholds=limit, **more)
    for measure in ("sensitivity", "specificity", "ppv", "npv", "f1", "brier",
                    "calibration_slope", "calibration_intercept"):  # fmt: skip
        name = measures.NAMES.get(measure, measure)
        yield f"difference of two models, none: {name}", measures.ends_of(table, measure)
    fresh = measures.Studies(cell, studies.studies, studies.seed)
    for name, _, member, scores in measures.subgroups(fresh):
        group = {"group": np.where(member, "a", "b")}
        table = gap_table(known, scores[:, rows], names, group, thresholds=cell.threshold, **people)
        for measure in ("sensitivity", "specificity"):
            yield f"{name}: {measure}", measures.ends_of(table, measure)


@pytest.mark.parametrize(("prevalence", "likeness"), [(0.1, 0.0), (0.3, 0.5)])
def test_the_script_computes_what_the_tables_print(measures, monkeypatch, prevalence, likeness):
    cell = measures.Cell(200, prevalence, likeness, 0.9)
    monkeypatch.setattr(measures, "held", ends)
    found = {}
    for part in measures.FORMULAS:
        found |= dict(part(measures.Studies(cell, 12, 0)))
    compared = 0
    for name, (low, high) in printed(measures, measures.Studies(cell, 12, 0)):
        np.testing.assert_allclose(found[name][0], low, atol=2e-7, err_msg=name)
        np.testing.assert_allclose(found[name][1], high, atol=2e-7, err_msg=name)
        compared += int((~np.isnan(low)).sum())
    assert compared > 100


@pytest.mark.parametrize(("prevalence", "likeness"), [(0.1, 0.0), (0.5, 0.5)])
def test_intervals_of_all_measures_hold_the_truth(measures, prevalence, likeness):
    cell = measures.Cell(200, prevalence, likeness, 0.9)
    table = measures.simulated([cell], 1000).set_index("measure")
    given = table[table["given"] >= 0.1]
    assert len(given) > 15
    # Two standard errors around the band that the page promises; a MOVER of Wilson's intervals held
    # differences of NPV in 98 to 99 %.
    studies = given["studies"] * given["given"]
    low, high = (end + 2 * side * np.sqrt(end * (1 - end) / studies)
                 for end, side in ((0.93, -1), (0.97, 1)))  # fmt: skip
    outside = given[(given["coverage"] < low) | (given["coverage"] > high)]
    assert outside.empty, outside.to_string()


def test_a_file_is_completed_and_what_is_outside_is_drawn_again(measures, tmp_path):
    cell, path = measures.Cell(200, 0.5, 0.0, 0.9), tmp_path / "rows.csv"
    options = argparse.Namespace(studies=60, tables=0, means=0, again=150)
    measures.complete(measures.File(path), cell, options)
    table = pd.read_csv(path)
    assert set(table["studies"]) == {60, 150}  # of 60 studies some measures are outside by chance
    once = table[table["studies"] == 60]
    assert measures.outside(once).empty
    before = path.read_bytes()
    measures.complete(measures.File(path), cell, options)
    assert path.read_bytes() == before


def test_the_page_shows_all_measures_of_the_file(measures):
    table = pd.read_csv(ROOT / "docs" / "measures.csv")
    page = (ROOT / "docs" / "intervals.md").read_text("utf-8")
    assert measures.page(table, measures.AREAS) in page
    assert len(table) == len(list(measures.cells())) * table["measure"].nunique()
    outside, given = outside_of(table)
    said = re.search(r"Of (\d+) figures, (\d+) lie between 93 and 97 %", page)
    assert (int(said[1]), int(said[2])) == (len(given), len(given) - len(outside))


def outside_of(table):
    """Figures outside of 93 to 97 %, and all figures with their standard errors."""
    given = table[table["given"] >= 0.1]
    error = np.sqrt(0.95 * 0.05 / (given["studies"] * given["given"]))
    given = given.assign(error=error)
    return given[~given["coverage"].between(0.93, 0.97)], given


def test_every_measure_of_the_file_is_95_percent_or_too_few():
    """93 to 97 %, with two standard errors of the studies that were simulated."""
    outside, given = outside_of(pd.read_csv(ROOT / "docs" / "measures.csv"))
    low, high = 0.93 - 2 * outside["error"], 0.97 + 2 * outside["error"]
    assert outside["coverage"].between(low, high).all(), outside.to_string()
    assert len(outside) < 0.03 * len(given)


def test_models_that_few_patients_decide_are_not_compared():
    rng = np.random.default_rng(0)
    labels = (np.arange(400) < 29).astype(float)[:, None]
    scores = [labels + rng.normal(size=labels.shape) for _ in range(2)]
    table = difference_table(labels, *scores, ["Mass"], thresholds=0.5, measures=["sensitivity"])
    assert table["reason"].iloc[0] == (
        "too few patients for an interval: 29 in the denominator, 30 are needed"
    )
    assert math.isnan(table["p"].iloc[0])
    assert not math.isnan(table["difference"].iloc[0])


def test_tango_gives_the_intervals_of_his_tables():
    """Newcombe 1998, table of method 10 for paired proportions: 36 gained, 24 lost of 100."""
    low, high = tango_ends(0.12, 0.02, 50 * 2, 1.959964)
    assert 0.02 < low < 0.1 < high < 0.19
    low, high = tango_ends(0.0, 0.0, 30, 1.959964)
    assert -low == pytest.approx(high)
    assert high == pytest.approx(1.959964**2 / (30 + 1.959964**2), abs=1e-6)

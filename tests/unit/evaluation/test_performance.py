"""Every measure with its interval: against scikit-learn, each other, and what they refuse."""

import math

import numpy as np
import pytest
from sklearn import metrics
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from torchxrayvision.errors import EvaluationError
from torchxrayvision.evaluation import (
    MEASURES,
    auroc_table,
    calibration_line,
    difference_table,
    expected_calibration_error,
    gap_table,
    holm,
    operating_table,
    paired_difference,
    performance_by,
    performance_table,
    predictive_values,
    with_intersections,
)

NAMES = ["Mass", "Edema", "Nodule"]


@pytest.fixture(scope="module")
def study():
    """1,500 images of 600 patients; probabilities that are somewhat off; one label is missing."""
    rng = np.random.default_rng(0)
    patients = np.sort(rng.integers(0, 600, 1500))
    labels = (rng.random((1500, 3)) < [0.1, 0.3, 0.5]).astype(float)
    logits = 1.4 * labels + rng.normal(size=labels.shape) - [2.0, 1.0, 0.5]
    # Some scores are equal, and none lies on the edge of a bin, where conventions differ.
    logits = np.round(logits, 2) + 0.003
    labels[5, 1] = np.nan
    return labels, logits, 1 / (1 + np.exp(-logits)), patients


@pytest.fixture(scope="module")
def table(study):
    labels, _, chances, patients = study
    return performance_table(
        labels, chances, NAMES, thresholds=[0.2, 0.4, 0.5], patient_ids=patients, kind="probability"
    ).set_index(["finding", "measure"])


def test_scikit_learn_agrees(study, table):
    labels, _, chances, _ = study
    for j, (name, limit) in enumerate(zip(NAMES, [0.2, 0.4, 0.5], strict=True)):
        known = ~np.isnan(labels[:, j])
        truth, given = labels[known, j].astype(int), chances[known, j]
        called = (given >= limit).astype(int)
        absent, said = 1 - truth, 1 - called
        observed, predicted = calibration_curve(truth, given, n_bins=10)
        sizes = np.histogram(given, np.linspace(0, 1, 11))[0]
        expected = {
            "auroc": metrics.roc_auc_score(truth, given),
            "average_precision": metrics.average_precision_score(truth, given),
            "sensitivity": metrics.recall_score(truth, called),
            "specificity": metrics.recall_score(absent, said),
            "ppv": metrics.precision_score(truth, called),
            "npv": metrics.precision_score(absent, said),
            "f1": metrics.f1_score(truth, called),
            "brier": metrics.brier_score_loss(truth, given),
            "ece": np.average(np.abs(observed - predicted), weights=sizes[sizes > 0]),
        }
        for measure, value in expected.items():
            assert table.loc[(name, measure), "value"] == pytest.approx(value, abs=1e-12), measure


def test_the_calibration_line_is_that_of_a_logistic_regression(study, table):
    labels, logits, chances, _ = study
    fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logits[:, [0]], labels[:, 0])
    slope = table.loc[("Mass", "calibration_slope"), "value"]
    assert slope == pytest.approx(fit.coef_[0, 0], abs=1e-5)
    line = calibration_line(labels[:, 0], chances[:, 0])
    assert slope == line.slope
    assert table.loc[("Mass", "calibration_intercept"), "value"] == line.in_the_large
    assert table.loc[("Mass", "ece"), "value"] == pytest.approx(
        expected_calibration_error(labels[:, 0], chances[:, 0]), abs=1e-14
    )


def test_the_tables_of_single_measures_agree(study, table):
    labels, _, chances, patients = study
    areas = auroc_table(labels, chances, NAMES, patients).set_index("finding")
    for name in [*NAMES, "mean"]:
        ours = table.loc[(name, "auroc"), ["value", "low", "high"]].astype(float)
        np.testing.assert_allclose(ours, areas.loc[name, ["auroc", "low", "high"]].astype(float))
    rates = operating_table(labels, chances, NAMES, [0.2, 0.4, 0.5], patients).set_index("finding")
    for name in NAMES:
        for rate in ("sensitivity", "specificity", "ppv", "npv"):
            ours = table.loc[(name, rate), ["value", "low", "high"]].astype(float)
            theirs = rates.loc[name, [rate, f"{rate}_low", f"{rate}_high"]].astype(float)
            np.testing.assert_allclose(ours, theirs)


def test_logits_give_what_their_probabilities_give(study, table):
    labels, logits, _, patients = study
    limits = np.log(np.array([0.2, 0.4, 0.5]) / (1 - np.array([0.2, 0.4, 0.5])))
    again = performance_table(
        labels, logits, NAMES, thresholds=limits, patient_ids=patients, kind="logit"
    ).set_index(["finding", "measure"])
    shown = ["value", "low", "high"]
    np.testing.assert_allclose(again[shown].astype(float), table[shown].astype(float), atol=1e-9)


def test_intervals_hold_their_value_and_count_patients(study, table):
    labels, _, chances, _ = study
    shown = table[~table["low"].isna()]
    assert len(shown) > 35
    assert ((shown["low"] <= shown["value"]) & (shown["value"] <= shown["high"])).all()
    assert set(table["patients"]) == {len(np.unique(study[3]))}
    alone = performance_table(labels, chances, NAMES, thresholds=0.5, kind="probability")
    assert set(alone["patients"]) == {1500, 1499}


def test_what_cannot_be_given_says_why(study):
    labels, _, chances, _ = study
    given = performance_table(labels, chances, NAMES, kind="operating-point")
    given = given.set_index(["finding", "measure"])
    assert given.loc[("Mass", "brier"), "reason"].startswith("outputs scaled to operating points")
    assert given.loc[("Mass", "ppv"), "reason"] == "no threshold is given for this finding"
    assert given.loc[("mean", "ppv"), "reason"] == "no threshold is given for this finding"
    assert given.loc[("Mass", "auroc"), "reason"] == ""
    unknown = performance_table(labels, chances, NAMES, measures=["brier"])
    assert unknown["value"].isna().all()
    few = performance_table(labels[:12], chances[:12], NAMES, thresholds=0.5, kind="probability")
    assert few.loc[few["low"].isna(), "reason"].str.len().gt(0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "percent"}, "kind is one of probability, operating-point, logit"),
        ({"measures": ["auc"]}, "measures are auroc"),
        ({"thresholds": [0.1, 0.2]}, "3 findings need as many names and one threshold"),
        ({"prevalence": 1.5, "thresholds": 0.5}, "prevalence is a share between 0 and 1"),
        ({"scores": np.full((1500, 3), 7.0), "kind": "probability"}, "is the kind logit?"),
    ],
)
def test_what_makes_no_sense_is_refused(study, change, message):
    labels, _, chances, _ = study
    scores = change.pop("scores", chances)
    with pytest.raises(EvaluationError, match=message.replace("?", r"\?")):
        performance_table(labels, scores, NAMES, **change)


def test_predictive_values_move_with_the_prevalence(study):
    labels, _, chances, patients = study
    options = {"thresholds": 0.3, "patient_ids": patients, "kind": "probability"}
    found = performance_table(labels, chances, NAMES, prevalence={"Mass": 0.01}, **options)
    found = found.set_index(["finding", "measure"])
    rates = [found.loc[("Mass", rate), "value"] for rate in ("sensitivity", "specificity")]
    positive, negative = predictive_values(*rates, 0.01)
    ours = found.loc[("Mass", "ppv_at_prevalence")]
    assert ours["value"] == pytest.approx(positive)
    assert ours["low"] < positive < ours["high"] < found.loc[("Mass", "ppv"), "low"]
    assert found.loc[("Mass", "npv_at_prevalence"), "value"] == pytest.approx(negative)
    assert ("Edema", "ppv_at_prevalence") not in found.index
    # At the prevalence of the table itself it is the predictive value of the table.
    share = labels[:, 0].mean()
    same = performance_table(labels, chances, NAMES, prevalence=share, **options)
    same = same.set_index(["finding", "measure"])["value"]
    assert same["Mass", "ppv_at_prevalence"] == pytest.approx(same["Mass", "ppv"])


def test_a_threshold_without_false_alarms_has_a_predictive_value():
    labels, scores = [[0], [1]] * 30, [[0.1], [0.9]] * 30
    found = performance_table(labels, scores, ["Mass"], thresholds=0.5, prevalence=0.1)
    row = found[found["measure"] == "ppv_at_prevalence"].iloc[0]
    assert row["value"] == row["high"] == 1
    assert 0.3 < row["low"] < 0.7


def test_a_model_does_not_differ_from_itself(study):
    labels, _, chances, patients = study
    options = {"thresholds": 0.3, "patient_ids": patients, "kind": "probability"}
    found = difference_table(labels, chances, chances, NAMES, **options)
    assert (found["difference"] == 0).all()
    known = found.dropna(subset=["p"])
    assert set(known["measure"]) >= set(MEASURES) - {"ece"}
    assert (known["p"] == 1).all()
    assert (known["high"] - known["low"]).max() < 1e-9


def test_differences_are_paired_and_corrected(study):
    labels, _, chances, patients = study
    noisy = chances * np.random.default_rng(1).uniform(0.6, 1, chances.shape)
    options = {"thresholds": 0.3, "patient_ids": patients, "kind": "probability"}
    found = difference_table(labels, chances, noisy, NAMES, **options)
    rows = found.set_index(["finding", "measure"])
    area = rows.loc[("Mass", "auroc")]
    alone = paired_difference(labels[:, 0], chances[:, 0], noisy[:, 0], patients)
    assert (area["difference"], area["low"], area["high"]) == pytest.approx(
        (alone.value, alone.low, alone.high)
    )
    # An interval leaves out 0 where, and only where, p is below 0.05.
    known = found.dropna(subset=["p"])
    out = (known["low"] > 0) | (known["high"] < 0)
    assert (out == (known["p"] < 0.05)).all()
    assert out.any()
    assert not out.all()
    for measure, part in found.groupby("measure"):
        single = part[part["finding"] != "mean"]
        np.testing.assert_allclose(single["p_holm"], holm(single["p"]), err_msg=str(measure))
    apart = difference_table(labels, chances, noisy, NAMES, **options | {"measures": ["brier"]})
    one = performance_table(labels, chances, NAMES, **options | {"measures": ["brier"]})
    two = performance_table(labels, noisy, NAMES, **options | {"measures": ["brier"]})
    widths = [(t["high"] - t["low"])[0] for t in (one, two, apart)]
    assert widths[2] < math.hypot(*widths[:2]) / 2  # pairing pays


def test_holm_corrects_as_published():
    """Against the rule by hand: the smallest of m times m, the next times m - 1, never falling."""
    rng = np.random.default_rng(3)
    given = rng.random(9) ** 3
    order = np.argsort(given)
    by_hand = np.empty(9)
    for rank, place in enumerate(order):
        by_hand[place] = min(1, max((9 - r) * given[order[r]] for r in range(rank + 1)))
    np.testing.assert_allclose(holm(given), by_hand)


def test_gaps_find_the_subgroup_that_is_served_worse():
    rng = np.random.default_rng(2)
    patients = np.sort(rng.integers(0, 1500, 4000))
    sex = np.where(rng.random(1500) < 0.4, "F", "M")[patients]
    site = rng.choice(["a", "b", "c", ""], 4000)
    labels = (rng.random((4000, 2)) < 0.3).astype(float)
    scores = labels * np.where(sex == "F", 0.6, 2.0)[:, None] + rng.normal(size=labels.shape)
    found = gap_table(
        labels, scores, ["Mass", "Edema"], {"sex": sex, "site": site},
        thresholds=1.0, patient_ids=patients,
    )  # fmt: skip
    sexes = found[found["attribute"] == "sex"]
    assert set(sexes["subgroup"]) == {"F"}
    worse = sexes[sexes["measure"].isin(["auroc", "sensitivity"])]
    assert (worse["high"] < 0).all()
    assert (worse["p_holm"] < 1e-6).all()
    sites = found[found["attribute"] == "site"]
    assert set(sites["subgroup"]) == {"a", "b", "c"}
    assert (sites["p_holm"] > 0.05).all()
    assert (found["p_holm"] >= found["p"]).all()
    small = gap_table(labels, scores, ["Mass", "Edema"], {"sex": sex}, least=2000)
    assert small["reason"].str.contains("2000 are needed").all()
    assert small["gap"].notna().any()


def test_means_of_subgroups_are_over_shared_findings(study):
    labels, _, chances, patients = study
    labels = labels.copy()
    half = patients < 300
    labels[half, 2] = 0
    groups = {"site": np.where(half, "a", "b")}
    found = performance_by(labels, chances, NAMES, groups, patient_ids=patients)
    means = found[(found["finding"] == "mean") & (found["measure"] == "auroc")]
    assert means["findings"].tolist() == [2, 2]
    intersections = with_intersections({"site": groups["site"], "sex": ["F", "M", ""] * 500})
    assert set(intersections["site & sex"]) == {"a & F", "a & M", "b & F", "b & M", "unknown"}


@pytest.mark.parametrize("measure", ["average_precision", "brier", "calibration_slope"])
def test_a_mean_over_findings_of_too_few_patients_has_no_interval(measure):
    labels = np.zeros((60, 2))
    labels[:7] = 1
    logits = labels + np.random.default_rng(2).normal(size=labels.shape)
    table = performance_table(labels, logits, list("ab"), kind="logit", measures=[measure])
    mean = table.set_index("finding").loc["mean"]
    assert mean["reason"] == "too few patients for the interval of a mean in 2 of 2 findings"
    assert mean[["low", "high"]].isna().all()
    assert mean["value"] > 0


def test_a_mean_slope_needs_more_patients_than_each_of_its_findings():
    rng = np.random.default_rng(2)

    def table_of(positives):
        labels = np.zeros((400, 3))
        labels[:positives] = 1
        logits = labels + rng.normal(size=labels.shape)
        return performance_table(
            labels, logits, list("abc"), kind="logit", measures=["calibration_slope"]
        ).set_index("finding")

    short, enough = table_of(99), table_of(100)
    assert short.loc["mean", "reason"] == (
        "too few patients for the interval of a mean in 3 of 3 findings"
    )
    assert np.isnan(short.loc["mean", "low"])
    assert short.loc[list("abc"), "low"].notna().all()
    assert enough.loc["mean", ["low", "high"]].notna().all()

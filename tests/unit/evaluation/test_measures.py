import math

import numpy as np
import pandas as pd
import pytest
import torch

from torchxrayvision import evaluation
from torchxrayvision.datasets import NIH_Dataset
from torchxrayvision.errors import EvaluationError

metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the reference")
calibration = pytest.importorskip("sklearn.calibration")
linear_model = pytest.importorskip("sklearn.linear_model")


@pytest.fixture
def forecasts():
    rng = np.random.default_rng(0)
    probabilities = rng.random(2000) ** 2
    labels = (rng.random(2000) < probabilities).astype(float)
    return labels, probabilities


def test_counts_and_rates_equal_those_of_scikit_learn(forecasts):
    labels, scores = forecasts
    point = evaluation.operating_point(labels, scores, 0.4)
    called = scores >= 0.4
    assert [
        [point.true_negatives, point.false_positives],
        [point.false_negatives, point.true_positives],
    ] == metrics.confusion_matrix(labels, called).tolist()
    assert point.sensitivity.value == metrics.recall_score(labels, called)
    assert point.specificity.value == metrics.recall_score(labels, called, pos_label=0)
    assert point.ppv.value == metrics.precision_score(labels, called)
    assert point.npv.value == metrics.precision_score(labels, called, pos_label=0)
    sensitivity = point.sensitivity
    wilson = evaluation.wilson_interval(point.true_positives, int(labels.sum()))
    assert (sensitivity.low, sensitivity.high) == wilson


def test_rates_count_patients(forecasts):
    labels, scores = (array[:200] for array in forecasts)
    plain = evaluation.operating_point(labels, scores, 0.4)
    single = evaluation.operating_point(labels, scores, 0.4, patient_ids=np.arange(200))
    assert single.ppv.low == pytest.approx(plain.ppv.low, abs=0.02)
    films = [array.repeat(9) for array in (labels, scores, np.arange(200))]
    repeated = evaluation.operating_point(films[0], films[1], 0.4, patient_ids=films[2])
    assert repeated.true_positives == 9 * plain.true_positives
    assert repeated.ppv.low == single.ppv.low


def test_a_rate_of_one_is_not_certain():
    labels, groups = np.repeat([0, 1], 50), np.repeat(range(10), 10)
    point = evaluation.operating_point(labels, labels, 0.5, groups)
    assert point.sensitivity.value == 1
    assert (point.sensitivity.low, point.sensitivity.high) == evaluation.wilson_interval(5, 5)


def test_a_threshold_that_calls_nothing_has_no_ppv():
    point = evaluation.operating_point([0, 1], [0.1, 0.2], 0.5)
    assert math.isnan(point.ppv.value)
    assert str(point.ppv) == "not defined: no row is on this side of the threshold"
    assert point.npv.value == 0.5


def test_the_table_of_thresholds_holds_the_points():
    labels = np.array([[0, 0], [1, 0], [0, 0], [1, 0]] * 5)
    scores = np.array([[0.1, 0], [0.7, 0], [0.6, 0], [0.3, 0]] * 5)
    table = evaluation.operating_table(labels, scores, ["Mass", "Edema"], [0.5, 0.2])
    point = evaluation.operating_point(labels[:, 0], scores[:, 0], 0.5)
    mass, edema = table.iloc[0], table.iloc[1]
    assert mass["ppv"] == point.ppv.value
    assert mass["npv_high"] == point.npv.high
    assert (edema["reason"], edema["threshold"]) == ("no row has the finding", 0.2)
    assert math.isnan(edema["sensitivity"])
    with pytest.raises(EvaluationError, match="thresholds of shape"):
        evaluation.operating_table(labels, scores, ["Mass", "Edema"], [0.5, 0.2, 0.1])


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_threshold_holds_in_the_precision_of_the_scores(kind):
    scores = np.array([0.1, 0.3, 0.3, 0.5], kind)
    at = evaluation.threshold_at_specificity([0, 0, 0, 1], scores, 0.6)
    assert (scores >= at).tolist() == [False, False, False, True]
    assert (torch.from_numpy(scores) >= at).tolist() == [False, False, False, True]
    close = np.array([0.3, np.nextafter(0.3, 1)])
    assert (close >= evaluation.threshold_at_specificity([0, 1], close, 1.0)).tolist() == [0, 1]


def test_thresholds_do_what_they_promise(forecasts):
    labels, scores = forecasts
    for share in (0.5, 0.9, 1.0):
        at = evaluation.threshold_at_sensitivity(labels, scores, share)
        assert evaluation.operating_point(labels, scores, at).sensitivity.value >= share
        above = evaluation.operating_point(labels, scores, np.nextafter(at, 1))
        assert above.sensitivity.value < share
        at = evaluation.threshold_at_specificity(labels, scores, share)
        assert evaluation.operating_point(labels, scores, at).specificity.value >= share
        below = evaluation.operating_point(labels, scores, at * (1 - 1e-6))
        assert below.specificity.value < share
    best = evaluation.youden_threshold(labels, scores)
    curve = evaluation.roc_curve(labels, scores)
    total = (curve["sensitivity"] + curve["specificity"]).max()
    point = evaluation.operating_point(labels, scores, best)
    assert point.sensitivity.value + point.specificity.value == pytest.approx(total)
    with pytest.raises(EvaluationError, match="a share above 0"):
        evaluation.threshold_at_sensitivity(labels, scores, 0)


def test_predictive_values_follow_the_prevalence(forecasts):
    labels, scores = forecasts
    point = evaluation.operating_point(labels, scores, 0.4)
    values = evaluation.predictive_values(
        point.sensitivity.value, point.specificity.value, labels.mean()
    )
    assert values == pytest.approx((point.ppv.value, point.npv.value))
    assert math.isnan(evaluation.predictive_values(0.0, 1.0, 0.5)[0])
    with pytest.raises(EvaluationError, match="shares in"):
        evaluation.predictive_values(90, 0.9, 0.1)


def test_calibration_equals_scikit_learn(forecasts):
    labels, probabilities = forecasts
    assert evaluation.brier_score(labels, probabilities) == pytest.approx(
        metrics.brier_score_loss(labels, probabilities), abs=1e-12
    )
    for by, strategy in (("width", "uniform"), ("quantile", "quantile")):
        curve = evaluation.reliability_curve(labels, probabilities, bins=8, by=by)
        observed, predicted = calibration.calibration_curve(
            labels, probabilities, n_bins=8, strategy=strategy
        )
        np.testing.assert_allclose(curve["observed"], observed, rtol=0, atol=1e-12)
        np.testing.assert_allclose(curve["predicted"], predicted)
        assert curve["n"].sum() == 2000
        assert (curve["low"] <= curve["observed"]).all()


def test_the_line_of_calibration_equals_a_regression(forecasts):
    labels, probabilities = forecasts
    logits = np.log(probabilities / (1 - probabilities))
    fitted = linear_model.LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    fitted.fit(logits[:, None], labels)
    line = evaluation.calibration_line(labels, probabilities)
    assert line.slope == pytest.approx(fitted.coef_.item(), abs=1e-5)
    assert line.intercept == pytest.approx(fitted.intercept_.item(), abs=1e-5)
    assert line.slope == pytest.approx(1, abs=0.15)
    assert line.in_the_large == pytest.approx(0, abs=0.15)


def test_the_line_undoes_a_distortion(forecasts):
    labels, probabilities = forecasts
    logits = np.log(probabilities / (1 - probabilities))
    line = evaluation.calibration_line(labels, probabilities)
    distorted = evaluation.calibration_line(labels, 1 / (1 + np.exp(-(3 * logits + 1))))
    assert distorted.slope == pytest.approx(line.slope / 3, rel=0.01)
    assert distorted.in_the_large < -0.3


def test_the_error_of_a_constant_is_its_distance():
    labels = np.repeat([0, 1], [70, 30])
    error = evaluation.expected_calibration_error(labels, np.full(100, 0.5))
    assert error == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: evaluation.brier_score([0, 1], [0, 1.2]), r"lie in \[0, 1\], got 0 to 1.2"),
        (lambda: evaluation.reliability_curve([0, 1], [0, 1], bins=0), "bins is 1 or more"),
        (lambda: evaluation.reliability_curve([0, 1], [0, 1], by="size"), "got 10 and 'size'"),
        (lambda: evaluation.calibration_line([0, 1], [0.2, 0.7]), "separate the classes"),
        (lambda: evaluation.calibration_line([0, 1], [0.5, 0.5]), "all the same"),
        (lambda: evaluation.dice([1, 0], [1]), "their shapes differ"),
        (
            lambda: evaluation.subgroup_table([[0], [1]], [[0], [1]], ["a"], {"sex": ["male"]}),
            r"subgroups\['sex'\] has 1 values for 2 rows",
        ),
        (lambda: evaluation.subgroup_table([[0]], [[0]], ["a"], {}), "an attribute or more"),
        (
            lambda: evaluation.subgroup_table([[0]], [[0]], ["a"], {"b": [1]}, patient_ids=[1, 2]),
            "each of 1 rows, got 2",
        ),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(EvaluationError, match=message):
        call()


def test_subgroups_are_tables_of_their_rows():
    rng = np.random.default_rng(1)
    labels = (rng.random((300, 2)) < 0.4).astype(float)
    scores = labels + rng.normal(size=labels.shape)
    sex = np.array(["female", "male", None], dtype=object)[rng.integers(3, size=300)]
    patients = rng.integers(100, size=300)
    table = evaluation.subgroup_table(labels, scores, ["Mass", "Edema"], {"sex": sex}, patients)
    assert table["subgroup"].unique().tolist() == ["female", "male", "unknown"]
    assert table["finding"].tolist() == ["Mass", "Edema", "mean"] * 3
    rows = sex == "male"
    alone = evaluation.auroc_table(labels[rows], scores[rows], ["Mass", "Edema"], patients[rows])
    inside = table[table["subgroup"] == "male"].reset_index(drop=True)
    pd.testing.assert_frame_equal(inside[alone.columns], alone)


def test_datasets_say_their_subgroups():
    csv = NIH_Dataset(imgpath="", unique_patients=False).csv.head(50)
    groups = evaluation.subgroups_of(csv)
    assert set(groups) == {"sex", "age", "view"}
    assert set(groups["sex"]) == {"male", "female"}
    males = pd.Series(groups["sex"]) == "male"
    assert males.tolist() == csv["sex_male"].tolist()
    ages = csv["age_years"].to_numpy()
    assert groups["age"].tolist() == evaluation.age_bands(ages).tolist()


def test_overlap_equals_scikit_learn():
    a, b = np.random.default_rng(2).random((2, 40, 50)) < 0.4
    assert evaluation.dice(a, b) == pytest.approx(metrics.f1_score(a.ravel(), b.ravel()), abs=1e-12)
    assert evaluation.iou(a, b) == pytest.approx(
        metrics.jaccard_score(a.ravel(), b.ravel()), abs=1e-12
    )
    assert evaluation.dice(a, a) == evaluation.iou(a, a) == 1
    assert evaluation.dice(a, ~a) == evaluation.iou(a, ~a) == 0
    assert math.isnan(evaluation.dice(a & ~a, a & ~a))
    assert math.isnan(evaluation.iou(a & ~a, a & ~a))


def test_unknown_sex_is_unknown_in_merged_tables():
    said = pd.DataFrame({"sex_male": [True, False], "sex_female": [False, True]})
    merged = pd.concat([said, pd.DataFrame({"view": ["PA"]})], ignore_index=True)
    assert evaluation.subgroups_of(merged)["sex"].tolist() == ["male", "female", "unknown"]

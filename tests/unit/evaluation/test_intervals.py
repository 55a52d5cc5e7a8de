import math
import re
import time

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from torchxrayvision import evaluation
from torchxrayvision.errors import EvaluationError
from torchxrayvision.evaluation.intervals import t_of
from torchxrayvision.evaluation.ranking import Area


def binormal(rng, n, gap=1.2, share=0.3):
    labels = (rng.random(n) < share).astype(float)
    return labels, gap * labels + rng.normal(size=n)


def delong_by_hand(labels, scores):
    """Variance by the definition: every pair compared."""
    a, b = scores[labels == 1], scores[labels == 0]
    won = (a[:, None] > b) + 0.5 * (a[:, None] == b)
    return won.mean(axis=1).var(ddof=1) / len(a) + won.mean(axis=0).var(ddof=1) / len(b)


def seen_variance(labels, scores):
    rows = len(labels)
    area = Area.of(labels, scores, np.arange(rows), rows)
    return sum(part.influence @ part.influence for part in (area.with_finding, area.without))


@pytest.mark.parametrize("decimals", [1, 9])
def test_the_variance_is_delongs(decimals):
    labels, scores = binormal(np.random.default_rng(0), 200)
    scores = scores.round(decimals)
    assert seen_variance(labels, scores) == pytest.approx(delong_by_hand(labels, scores), rel=1e-10)


@pytest.mark.parametrize("decimals", [1, 9])
def test_many_patients_get_delongs_interval(decimals):
    labels, scores = binormal(np.random.default_rng(1), 20_000)
    scores = scores.round(decimals)
    interval = evaluation.auroc_interval(labels, scores)
    logit = stats.logistic.ppf(interval.value)
    error = math.sqrt(seen_variance(labels, scores)) / (interval.value * (1 - interval.value))
    expected = stats.logistic.cdf(logit + stats.norm.ppf(0.975) * error * np.array([-1, 1]))
    np.testing.assert_allclose([interval.low, interval.high], expected, atol=1e-4)


def test_images_of_a_patient_count_once_if_they_are_copies():
    labels, scores = binormal(np.random.default_rng(2), 2000)
    once = evaluation.auroc_interval(labels, scores)
    copies = [array.repeat(5) for array in (labels, scores, np.arange(2000))]
    repeated = evaluation.auroc_interval(*copies)
    assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high), abs=2e-4)
    assert evaluation.auroc_interval(*copies[:2]).low > once.low + 0.01


def test_bootstrap_and_formula_agree_on_a_large_sample():
    labels, scores = binormal(np.random.default_rng(1), 3000)
    drawn = evaluation.bootstrap(evaluation.auroc, labels, scores, replicates=1000)
    formula = evaluation.auroc_interval(labels, scores)
    assert drawn.value == formula.value == evaluation.auroc(labels, scores)
    assert drawn.low == pytest.approx(formula.low, abs=0.003)
    assert drawn.high == pytest.approx(formula.high, abs=0.003)


def test_bootstrap_says_where_there_are_too_few():
    labels = np.repeat([1, 0], [2, 98])
    interval = evaluation.bootstrap(evaluation.auroc, labels, np.arange(100), replicates=300)
    assert math.isnan(interval.low)
    assert re.fullmatch(
        r"too few patients for an interval: 1\d% of the replicates have no value", interval.reason
    )
    patients = np.repeat(np.arange(19), 3)
    interval = evaluation.bootstrap(np.mean, np.arange(57.0), patient_ids=patients)
    assert interval.value == 28
    assert interval.reason == "too few patients for an interval: 19, 20 are needed"


@pytest.mark.parametrize("films", [1, 4])
def test_intervals_hold_the_truth_as_often_as_they_say(films):
    """300 studies of 60 patients; four films of one patient share nearly all of their noise."""
    rng, gap = np.random.default_rng(3), 1.2
    truth = stats.norm.cdf(gap / math.sqrt(2))
    inside, naive = 0, 0
    for _ in range(300):
        labels, scores = binormal(rng, 60, gap)
        labels, groups = labels.repeat(films), np.arange(60).repeat(films)
        noise = rng.normal(scale=0.1, size=60 * films) if films > 1 else 0
        scores = scores.repeat(films) + noise
        inside += truth in evaluation.auroc_interval(labels, scores, groups)
        naive += truth in evaluation.auroc_interval(labels, scores)
    # Binomial spread of 300 studies is 1.3 %.
    assert 0.90 <= inside / 300 <= 0.985
    if films > 1:
        assert naive / 300 < 0.8


def test_a_perfect_ranking_is_not_certain():
    few = evaluation.auroc_interval([0] * 5 + [1] * 5, range(10))
    many = evaluation.auroc_interval([0] * 100 + [1] * 100, range(200))
    assert few.value == few.high == many.value == many.high == 1
    assert 0.5 < few.low < 0.8 < 0.95 < many.low < 1
    # A hundred films of five patients are evidence from five patients.
    labels, groups = np.repeat([0, 1], 100), np.repeat(range(10), 20)
    assert evaluation.auroc_interval(labels, labels, groups).low == few.low
    worst = evaluation.auroc_interval([1] * 5 + [0] * 5, range(10))
    assert (worst.value, worst.low, worst.high) == (0, 0, pytest.approx(1 - few.low))


@pytest.mark.parametrize("positives", [5, 9])
def test_few_patients_with_the_finding_get_wide_intervals(positives):
    rng, gap = np.random.default_rng(14), 1.2
    truth = stats.norm.cdf(gap / math.sqrt(2))
    labels = np.repeat([1, 0], [positives, 20])
    inside = sum(
        truth in evaluation.auroc_interval(labels, rng.normal(size=len(labels)) + gap * labels)
        for _ in range(400)
    )
    assert inside / 400 > 0.925


@pytest.mark.parametrize("positives", [1, 3, 4])
def test_fewer_patients_get_no_interval_and_say_so(positives):
    labels = np.repeat([1, 0], [positives, 20])
    interval = evaluation.auroc_interval(labels, np.arange(len(labels)))
    assert interval.value == 0
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    text = f"too few patients for an interval: {positives} with the finding and 20 without it"
    assert interval.reason.startswith(text)
    assert text in str(interval)
    # Forty images of the four patients are evidence from four patients.
    many = [array.repeat(10) for array in (labels, np.arange(len(labels)), np.arange(len(labels)))]
    assert evaluation.auroc_interval(*many).reason == interval.reason


def test_without_an_interval_nothing_is_ruled_out():
    unknown = evaluation.Interval(0.9, math.nan, math.nan, 4, 2, reason="too few")
    assert 0.5 in unknown
    undefined = evaluation.Interval(math.nan, math.nan, math.nan, 4, 2, reason="no row")
    assert 0.5 not in undefined


def test_perfect_rankings_hold_the_truth_as_often_as_they_say():
    """Of an area whose studies are often perfect, the score interval still covers."""
    rng, gap = np.random.default_rng(4), 2.5
    truth = stats.norm.cdf(gap / math.sqrt(2))
    perfect = [
        interval
        for _ in range(400)
        if (
            interval := evaluation.auroc_interval(
                np.repeat([0, 1], 5), rng.normal(size=10) + np.repeat([0, gap], 5)
            )
        ).value
        == 1
    ]
    assert len(perfect) > 50
    assert all(truth in interval for interval in perfect)


def test_the_table_keeps_findings_without_an_area():
    labels = [[0, 0, np.nan, 1], [1, 0, np.nan, 0], [1, 0, np.nan, 1]] * 5
    scores = [[0, 1, 2, 3], [1, 2, 3, 4], [2, 2, 2, np.nan]] * 5
    table = evaluation.auroc_table(labels, scores, ["Mass", "Edema", "Hernia", "Fracture"])
    assert table["finding"].tolist() == ["Mass", "Edema", "Hernia", "Fracture", "mean"]
    assert table["reason"].tolist() == [
        "",
        "no row has the finding",
        "no row has a label",
        "5 of 15 rows have a label and no score",
        "",
    ]
    assert table["auroc"].notna().tolist() == [True, False, False, False, True]
    assert table["n"].tolist() == [15, 15, 0, 15, 15]
    assert table["positives"].tolist() == [10, 0, 0, 10, 10]
    assert table["findings"].tolist() == [1, 0, 0, 0, 1]


def test_the_mean_is_that_of_the_findings_and_its_interval_of_their_patients():
    rng = np.random.default_rng(5)
    columns = [binormal(rng, 400) for _ in range(4)]
    labels, scores = (np.stack(arrays, axis=1) for arrays in zip(*columns, strict=True))
    table = evaluation.auroc_table(labels, scores, list("abcd"))
    singles, mean = table.iloc[:4], table.iloc[4]
    assert mean["auroc"] == pytest.approx(singles["auroc"].mean())
    widths = singles["high"] - singles["low"]
    # Four independent findings: half the width of one.
    assert mean["high"] - mean["low"] == pytest.approx(widths.mean() / 2, rel=0.15)
    again = evaluation.mean_auroc(labels, scores)
    assert (again.value, again.low, again.high) == (mean["auroc"], mean["low"], mean["high"])


def test_a_table_without_any_area_is_a_table():
    table = evaluation.auroc_table([[0], [0]], [[0], [1]], ["Mass"])
    assert table["reason"].tolist() == ["no row has the finding", "no finding has an AUROC"]
    with pytest.raises(EvaluationError, match="no finding has an AUROC"):
        evaluation.mean_auroc([[0], [0]], [[0], [1]])


def test_paired_differences_are_narrower_than_two_intervals():
    rng = np.random.default_rng(6)
    labels, first = binormal(rng, 500)
    second = first + rng.normal(scale=0.3, size=500)
    difference = evaluation.paired_difference(labels, first, second)
    alone = evaluation.auroc_interval(labels, first)
    assert difference.value == pytest.approx(
        evaluation.auroc(labels, first) - evaluation.auroc(labels, second)
    )
    assert difference.low < difference.value < difference.high
    assert difference.high - difference.low < 0.7 * (alone.high - alone.low)


def test_a_model_does_not_differ_from_itself():
    labels, scores = binormal(np.random.default_rng(7), 100)
    difference = evaluation.paired_difference(labels, scores, scores * 3 + 1)
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)


def test_paired_differences_use_the_findings_that_both_can_score():
    labels = np.array([[0, 0, 1], [1, 1, 1], [0, 1, 1]])
    first, second = np.random.default_rng(8).random((2, 3, 3))
    second[0, 1] = np.nan
    whole = evaluation.paired_difference(labels, first, second)
    part = evaluation.paired_difference(labels[:, 0], first[:, 0], second[:, 0])
    assert whole == part
    with pytest.raises(EvaluationError, match="no finding has rows of both classes"):
        evaluation.paired_difference(labels[:, 1:], first[:, 1:], second[:, 1:])


@pytest.mark.parametrize("positives", [1, 3, 10])
@pytest.mark.parametrize("shared", [0.0, 0.6])  # of the noise of the two models
def test_two_models_alike_seldom_differ_whatever_the_number_of_cases(positives, shared):
    """Plain percentiles left out 0 in 77 % of studies with one case, and 19 % with three."""
    rng = np.random.default_rng(11)
    labels = np.r_[np.ones(positives), np.zeros(100)]
    apart = 0
    for _ in range(200):
        common = rng.normal(scale=math.sqrt(shared), size=len(labels))
        first, second = (
            1.4 * labels + common + rng.normal(scale=math.sqrt(1 - shared), size=len(labels))
            for _ in range(2)
        )
        difference = evaluation.paired_difference(labels, first, second)
        assert math.isnan(difference.low) == (positives < 10)
        apart += 0 not in difference
    assert apart / 200 <= 0.08


@pytest.mark.parametrize(("positives", "findings"), [(5, 1), (10, 5), (20, 2)])
def test_the_mean_of_few_cases_holds_the_truth(positives, findings):
    rng = np.random.default_rng(12)
    truth, inside = stats.norm.cdf(2 / math.sqrt(2)), 0
    for _ in range(200):
        labels = np.stack([rng.permutation(200) < positives for _ in range(findings)], axis=1)
        scores = 2 * labels + rng.normal(size=labels.shape)
        inside += truth in evaluation.mean_auroc(labels, scores)
    assert inside / 200 >= 0.92


def test_a_mean_that_rare_findings_decide_has_no_interval():
    rng = np.random.default_rng(12)
    labels = np.stack([np.arange(200) < cases for cases in (3, 4, 60)], axis=1)
    scores = labels + rng.normal(size=labels.shape)
    mean = evaluation.mean_auroc(labels, scores)
    assert mean.value == pytest.approx(
        np.mean([evaluation.auroc(labels[:, j], scores[:, j]) for j in range(3)])
    )
    assert math.isnan(mean.low)
    assert mean.reason == "too few patients for the interval of a mean in 2 of 3 findings"
    # One rare finding among many common ones decides little.
    many = np.c_[labels[:, :1], np.repeat(labels[:, 2:], 40, axis=1)]
    assert evaluation.mean_auroc(many, many + rng.normal(size=many.shape)).reason == ""


def test_the_mean_of_one_finding_is_that_finding():
    labels, scores = binormal(np.random.default_rng(13), 103, share=0.1)
    one, mean = evaluation.auroc_table(labels[:, None], scores[:, None], ["Mass"]).to_dict(
        "records"
    )
    assert {**one, "finding": "mean"} == pytest.approx(mean)


def test_results_depend_on_the_seed_alone():
    labels, scores = binormal(np.random.default_rng(9), 200)
    one, two, other = (
        evaluation.bootstrap(evaluation.auroc, labels, scores, replicates=200, seed=seed)
        for seed in (0, 0, 1)
    )
    assert one == two
    assert one != other


def test_blocks_of_replicates_do_not_show(monkeypatch):
    given = evaluation.auroc, *binormal(np.random.default_rng(10), 100)
    whole = evaluation.bootstrap(*given, replicates=300)
    monkeypatch.setattr("torchxrayvision.evaluation.resampling._CELLS", 12_345)
    assert evaluation.bootstrap(*given, replicates=300) == whole


def test_rows_of_no_known_patient_are_patients_of_their_own():
    labels, scores = binormal(np.random.default_rng(11), 60)
    none = evaluation.auroc_interval(labels, scores, patient_ids=[None] * 60)
    assert none == evaluation.auroc_interval(labels, scores)
    named = pd.Series([f"p{i}" for i in range(60)])
    assert evaluation.auroc_interval(labels, scores, named) == none


def test_means_have_intervals_of_their_patients():
    rng = np.random.default_rng(12)
    patients = rng.normal(size=40)
    plain = evaluation.mean_interval(patients)
    assert plain.value == pytest.approx(patients.mean())
    error = patients.std() / math.sqrt(40)
    assert plain.high - plain.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    repeated = evaluation.mean_interval(patients.repeat(5), np.arange(40).repeat(5))
    assert (repeated.low, repeated.high) == pytest.approx((plain.low, plain.high))
    assert evaluation.mean_interval([np.nan, 2.0]).value == 2
    assert str(evaluation.mean_interval([np.nan])) == "not defined: no row has a number"


def test_wilson_equals_scipy():
    for hits, n in ((0, 10), (3, 10), (10, 10), (77, 1000)):
        expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
        assert evaluation.wilson_interval(hits, n) == pytest.approx(tuple(expected))
    assert all(math.isnan(end) for end in evaluation.wilson_interval(0, 0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: evaluation.auroc_interval([0, 1], [0, 1], patient_ids=[1]),
            "each of 2 rows, got 1",
        ),
        (lambda: evaluation.auroc_interval([0, 1], [0, 1], level=95), "level is a share"),
        (
            lambda: evaluation.bootstrap(np.mean, [0, 1], replicates=0),
            "got 2 rows and replicates=0",
        ),
        (
            lambda: evaluation.auroc_table([[0], [1]], [[0], [1]], ["a", "b"]),
            "names are those of 1",
        ),
        (lambda: evaluation.bootstrap(np.mean, [1, 2], [1]), "same number of rows, got"),
        (lambda: evaluation.mean_interval([]), "got 0 rows"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(EvaluationError, match=message):
        call()


def test_the_size_of_a_paper_takes_seconds():
    rng = np.random.default_rng(13)
    labels = (rng.random((1116, 14)) < 0.1).astype(float)
    start = time.process_time()
    evaluation.auroc_table(labels, labels + rng.normal(size=labels.shape), [""] * 14)
    assert time.process_time() - start < 10  # 0.6 s alone on one core


@pytest.mark.parametrize("function", ["auroc_interval", "mean_auroc", "paired_difference"])
def test_former_names_work_and_say_what_they_are_now(function):
    labels, scores = binormal(np.random.default_rng(13), 100)
    given = (labels, scores, scores**3) if function == "paired_difference" else (labels, scores)
    measure = getattr(evaluation, function)
    expected = measure(*given, patient_ids=np.arange(100) // 2)
    with pytest.warns(DeprecationWarning, match="groups is now patient_ids"):
        assert measure(*given, groups=np.arange(100) // 2) == expected
    with pytest.warns(DeprecationWarning, match="n is now replicates"):
        assert measure(*given, np.arange(100) // 2, n=50) == expected
    assert measure(*given, np.arange(100) // 2, replicates=50, seed=3) == expected
    with pytest.raises(TypeError, match="both groups and patient_ids"), pytest.warns():
        measure(*given, groups=range(100), patient_ids=range(100))
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        measure(*given, replicate=50)


def test_the_formula_of_delong_is_the_rule_of_all():
    with pytest.warns(DeprecationWarning, match=r"delong_interval is now .*\.auroc_interval"):
        assert evaluation.delong_interval is evaluation.auroc_interval


def test_students_quantiles_equal_scipy():
    for freedom in (1, 1.7, 4, 29.5, 1000):
        assert t_of(0.95, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-10)


def test_scores_that_are_all_equal_have_an_area_and_no_error():
    table = evaluation.auroc_table([[0], [1], [1], [0]], [[0.2]] * 4, ["Mass"], [0, 0, 1, 2])
    assert table["auroc"].tolist() == [0.5, 0.5]
    assert table["reason"].str.len().gt(0).all()

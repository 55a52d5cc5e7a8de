import math
import time

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from torchxrayvision import evaluation
from torchxrayvision.errors import EvaluationError


def binormal(rng, n, gap=1.2, share=0.3):
    labels = (rng.random(n) < share).astype(float)
    return labels, gap * labels + rng.normal(size=n)


def delong_by_hand(labels, scores):
    """Standard error by the definition: every pair compared."""
    a, b = scores[labels == 1], scores[labels == 0]
    won = (a[:, None] > b) + 0.5 * (a[:, None] == b)
    return math.sqrt(won.mean(axis=1).var(ddof=1) / len(a) + won.mean(axis=0).var(ddof=1) / len(b))


@pytest.mark.parametrize("decimals", [1, 9])
def test_delong_equals_its_definition(decimals):
    labels, scores = binormal(np.random.default_rng(0), 200)
    scores = scores.round(decimals)
    interval = evaluation.delong_interval(labels, scores)
    logit = stats.logistic.ppf(interval.value)
    error = delong_by_hand(labels, scores) / (interval.value * (1 - interval.value))
    expected = stats.logistic.cdf(logit + stats.norm.ppf(0.975) * error * np.array([-1, 1]))
    np.testing.assert_allclose([interval.low, interval.high], expected, rtol=1e-10)


def test_bootstrap_and_formula_agree_on_a_large_sample():
    labels, scores = binormal(np.random.default_rng(1), 3000)
    drawn = evaluation.auroc_interval(labels, scores)
    formula = evaluation.delong_interval(labels, scores)
    assert drawn.value == evaluation.auroc(labels, scores)
    assert formula.value == pytest.approx(drawn.value, abs=1e-12)
    assert drawn.low == pytest.approx(formula.low, abs=0.002)
    assert drawn.high == pytest.approx(formula.high, abs=0.002)


def test_weights_give_what_copies_give():
    """The fast way is the plain one: the same draws, rows copied, the area measured again."""
    rng = np.random.default_rng(2)
    labels, scores = binormal(rng, 400)
    scores = scores.round(1)
    labels[:5] = np.nan
    groups = rng.integers(150, size=400)
    fast = evaluation.auroc_interval(labels, scores, groups, n=200, seed=7)
    slow = evaluation.bootstrap(evaluation.auroc, labels, scores, groups=groups, n=200, seed=7)
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), abs=1e-12)


@pytest.mark.parametrize("films", [1, 4])
@pytest.mark.parametrize("method", ["bootstrap", "delong"])
def test_intervals_hold_the_truth_as_often_as_they_say(method, films):
    """300 studies of 60 patients; four films of one patient share nearly all of their noise."""
    rng, gap = np.random.default_rng(3), 1.2
    truth = stats.norm.cdf(gap / math.sqrt(2))
    inside, naive = 0, 0
    for seed in range(300):
        labels, scores = binormal(rng, 60, gap)
        labels, groups = labels.repeat(films), np.arange(60).repeat(films)
        noise = rng.normal(scale=0.1, size=60 * films) if films > 1 else 0
        scores = scores.repeat(films) + noise
        if method == "bootstrap":
            interval = evaluation.auroc_interval(labels, scores, groups, n=300, seed=seed)
        else:
            interval = evaluation.delong_interval(labels, scores, groups)
        inside += truth in interval
        naive += truth in evaluation.delong_interval(labels, scores)
    # Binomial spread of 300 studies is 1.3 %; percentile intervals of 60 patients are a bit short.
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
    worst = evaluation.delong_interval([1] * 5 + [0] * 5, range(10))
    assert (worst.value, worst.low, worst.high) == (0, 0, pytest.approx(1 - few.low))


@pytest.mark.parametrize("positives", [1, 3, 9])
def test_few_patients_with_the_finding_get_wide_intervals(positives):
    """Resampling one to three patients covers a half to 0.85; the score interval covers."""
    rng, gap = np.random.default_rng(14), 1.2
    truth = stats.norm.cdf(gap / math.sqrt(2))
    labels = np.repeat([1, 0], [positives, 20])
    inside = sum(
        truth in evaluation.auroc_interval(labels, rng.normal(size=len(labels)) + gap * labels, n=2)
        for _ in range(400)
    )
    assert inside / 400 > 0.925


def test_perfect_rankings_hold_the_truth_as_often_as_they_say():
    """Of an area whose studies are often perfect, the score interval still covers."""
    rng, gap = np.random.default_rng(4), 2.5
    truth = stats.norm.cdf(gap / math.sqrt(2))
    perfect = [
        interval
        for _ in range(400)
        if (
            interval := evaluation.delong_interval(
                np.repeat([0, 1], 5), rng.normal(size=10) + np.repeat([0, gap], 5)
            )
        ).value
        == 1
    ]
    assert len(perfect) > 50
    assert all(truth in interval for interval in perfect)


def test_the_table_keeps_findings_without_an_area():
    labels = [[0, 0, np.nan, 1], [1, 0, np.nan, 0], [1, 0, np.nan, 1]]
    scores = [[0, 1, 2, 3], [1, 2, 3, 4], [2, 2, 2, np.nan]]
    table = evaluation.auroc_table(labels, scores, ["Mass", "Edema", "Hernia", "Fracture"], n=50)
    assert table["finding"].tolist() == ["Mass", "Edema", "Hernia", "Fracture", "mean"]
    assert table["reason"].tolist() == [
        "",
        "no row has the finding",
        "no row has a label",
        "1 of 3 rows have a label and no score",
        "",
    ]
    assert table["auroc"].notna().tolist() == [True, False, False, False, True]
    assert table["n"].tolist() == [3, 3, 0, 3, 3]
    assert table["positives"].tolist() == [2, 0, 0, 2, 4]


def test_the_mean_is_that_of_the_findings_and_its_interval_of_their_replicates():
    rng = np.random.default_rng(5)
    columns = [binormal(rng, 400) for _ in range(4)]
    labels, scores = (np.stack(arrays, axis=1) for arrays in zip(*columns, strict=True))
    table = evaluation.auroc_table(labels, scores, list("abcd"), n=500)
    singles, mean = table.iloc[:4], table.iloc[4]
    assert mean["auroc"] == pytest.approx(singles["auroc"].mean())
    widths = singles["high"] - singles["low"]
    # Four independent findings: half the width of one.
    assert mean["high"] - mean["low"] == pytest.approx(widths.mean() / 2, rel=0.15)
    again = evaluation.mean_auroc(labels, scores, n=500)
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
    whole = evaluation.paired_difference(labels, first, second, n=50)
    part = evaluation.paired_difference(labels[:, 0], first[:, 0], second[:, 0], n=50)
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
    for seed in range(200):
        common = rng.normal(scale=math.sqrt(shared), size=len(labels))
        first, second = (
            1.4 * labels + common + rng.normal(scale=math.sqrt(1 - shared), size=len(labels))
            for _ in range(2)
        )
        apart += 0 not in evaluation.paired_difference(labels, first, second, n=200, seed=seed)
    assert apart / 200 <= 0.08


@pytest.mark.parametrize(("positives", "findings"), [(3, 1), (10, 5), (20, 2)])
def test_the_mean_of_few_cases_holds_the_truth(positives, findings):
    rng = np.random.default_rng(12)
    truth, inside = stats.norm.cdf(2 / math.sqrt(2)), 0
    for seed in range(200):
        labels = np.stack([rng.permutation(200) < positives for _ in range(findings)], axis=1)
        scores = 2 * labels + rng.normal(size=labels.shape)
        inside += truth in evaluation.mean_auroc(labels, scores, n=200, seed=seed)
    assert inside / 200 >= 0.92


def test_the_mean_of_one_finding_is_that_finding():
    labels, scores = binormal(np.random.default_rng(13), 103, share=0.05)
    one, mean = evaluation.auroc_table(labels[:, None], scores[:, None], ["Mass"]).to_dict(
        "records"
    )
    assert {**one, "finding": "mean"} == pytest.approx(mean)


def test_results_depend_on_the_seed_alone():
    labels, scores = binormal(np.random.default_rng(9), 200)
    one, two, other = (evaluation.auroc_interval(labels, scores, seed=s) for s in (0, 0, 1))
    assert one == two
    assert one != other


def test_blocks_of_replicates_do_not_show(monkeypatch):
    labels, scores = binormal(np.random.default_rng(10), 100)
    whole = evaluation.auroc_interval(labels, scores)
    monkeypatch.setattr("torchxrayvision.evaluation._resample._CELLS", 12_345)
    assert evaluation.auroc_interval(labels, scores) == whole


def test_rows_of_no_known_patient_are_patients_of_their_own():
    labels, scores = binormal(np.random.default_rng(11), 60)
    none = evaluation.auroc_interval(labels, scores, groups=[None] * 60)
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
        (lambda: evaluation.auroc_interval([0, 1], [0, 1], groups=[1]), "each of 2 rows, got 1"),
        (lambda: evaluation.auroc_interval([0, 1], [0, 1], level=95), "level is a share"),
        (lambda: evaluation.auroc_interval([0, 1], [0, 1], n=0), "got 2 rows and n=0"),
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

import numpy as np
import pytest

from torchxrayvision import evaluation
from torchxrayvision.errors import EvaluationError
from torchxrayvision.evaluation import estimates, ranking

metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the reference")


def tied_sample(seed, n=300, levels=12):
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.3).astype(float)
    scores = np.round(labels + rng.normal(size=n), 1) if levels else labels + rng.normal(size=n)
    return labels, scores


@pytest.mark.parametrize("levels", [0, 12])
@pytest.mark.parametrize("seed", range(5))
def test_areas_equal_those_of_scikit_learn(seed, levels):
    labels, scores = tied_sample(seed, levels=levels)
    assert evaluation.auroc(labels, scores) == pytest.approx(
        metrics.roc_auc_score(labels, scores), abs=1e-12
    )
    assert evaluation.average_precision(labels, scores) == pytest.approx(
        metrics.average_precision_score(labels, scores), abs=1e-12
    )


def test_the_curve_equals_that_of_scikit_learn():
    labels, scores = tied_sample(0)
    curve = evaluation.roc_curve(labels, scores)
    alarms, hits, thresholds = metrics.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve["threshold"], thresholds)
    np.testing.assert_allclose(curve["sensitivity"], hits)
    np.testing.assert_allclose(1 - curve["specificity"], alarms, atol=1e-15)


def test_unknown_labels_are_left_out():
    labels, scores = tied_sample(1)
    unknown = labels.copy()
    unknown[::3] = np.nan
    kept = ~np.isnan(unknown)
    for measure in (evaluation.auroc, evaluation.average_precision):
        assert measure(unknown, scores) == measure(labels[kept], scores[kept])


def test_a_score_may_be_missing_only_where_the_label_is():
    assert evaluation.auroc([0, 1, np.nan], [0.1, 0.2, np.nan]) == 1
    with pytest.raises(EvaluationError, match="1 of 3 rows have a label and no score"):
        evaluation.auroc([0, 1, 1], [0.1, 0.2, np.nan])


def test_infinite_scores_rank():
    assert evaluation.auroc([0, 0, 1, 1], [-np.inf, 0, 0, np.inf]) == 0.875


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([1, 1], [0, 1], "every row has the finding"),
        ([0, 0], [0, 1], "no row has the finding"),
        ([np.nan] * 2, [0, 1], "no row has a label"),
        ([], [], "no row has a label"),
        ([0, 1], [0, 1, 2], r"one shape, .* got \(2,\) and \(3,\)"),
        ([0, 2], [0, 1], r"0, 1 or NaN for unknown, got \[2.0\]"),
        (["yes", "no"], [0, 1], "labels: numbers are needed"),
        ([[0, 1], [1, 0]], [[0, 1], [1, 0]], "labels of one finding"),
    ],
)
def test_what_has_no_area_says_why(labels, scores, message):
    with pytest.raises(EvaluationError, match=message):
        evaluation.auroc(labels, scores)


@pytest.mark.parametrize("seed", range(4))
def test_the_excess_of_an_average_precision_is_its_curvature_in_the_weights_of_patients(seed):
    labels, scores = tied_sample(seed, 120, levels=seed % 2)
    present, codes = labels == 1, np.random.default_rng(seed).integers(0, 50, 120)
    _, _, influence = ranking.precision_with_influence(present, scores, codes, 0.95)
    step, curvature = 1e-3, 0.0
    for patient in np.unique(codes):
        moved = [
            metrics.average_precision_score(
                labels, scores, sample_weight=1 + side * step * (codes == patient)
            )
            for side in (-1, 0, 1)
        ]
        curvature += (moved[0] - 2 * moved[1] + moved[2]) / step**2
    excess = ranking.precision_excess(present, scores, codes, influence)
    assert excess == pytest.approx(max(0.0, curvature / 2), rel=1e-3, abs=1e-6)


def test_the_lower_end_of_a_mean_average_precision_goes_down_by_what_lies_too_high(monkeypatch):
    rng = np.random.default_rng(0)
    labels = (rng.random((900, 3)) < 0.1).astype(float)
    scores = labels + rng.normal(size=labels.shape)
    excesses = []

    def mean_with(excess):
        monkeypatch.setattr(estimates, "precision_excess", excess)
        table = evaluation.performance_table(
            labels, scores, list("abc"), measures=["average_precision"],
            patient_ids=np.arange(900) // 2,
        )  # fmt: skip
        return table.set_index("finding").loc["mean"]

    def kept(*given):
        excesses.append(ranking.precision_excess(*given))
        return excesses[-1]

    without, mean = mean_with(lambda *_: 0.0), mean_with(kept)
    assert len(excesses) == 3
    assert min(excesses) > 0
    assert mean["low"] == pytest.approx(without["low"] - np.mean(excesses))
    assert (mean["value"], mean["high"]) == (without["value"], without["high"])


def test_differences_of_average_precisions_ask_for_no_excess(monkeypatch):
    def refused(*given):
        raise AssertionError("computed though no mean asks for it")

    monkeypatch.setattr(estimates, "precision_excess", refused)
    rng = np.random.default_rng(0)
    labels = (rng.random((300, 1)) < 0.2).astype(float)
    ours, theirs = (labels + rng.normal(size=labels.shape) for _ in range(2))
    options = {"measures": ["average_precision"]}
    table = evaluation.difference_table(labels, ours, theirs, ["a"], **options)
    assert table["difference"].notna().all()
    with pytest.raises(AssertionError, match="no mean asks"):
        evaluation.performance_table(labels, ours, ["a"], **options)

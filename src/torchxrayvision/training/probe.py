"""How much a network's features know: linear probes, and probes from a handful of cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.deprecation import with_former_names
from torchxrayvision.errors import ImageShapeError, counted, needs_package
from torchxrayvision.evaluation import auroc, patient_codes
from torchxrayvision.training.images.prepared import checked_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from torchxrayvision.models import XRayClassifier, XRayModel
    from torchxrayvision.training.images.prepared import PreparedImages

STRENGTHS: Final = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Values of C, the inverse of the regularisation, that a probe chooses from."""


def embed(model: XRayModel, images: PreparedImages, *, batch_size: int = 32) -> NDArray[np.float32]:
    """Features of images, for `linear_probe` and `few_shot`.

    Args:
        model: Any network with `embed`: a classifier, an encoder, an autoencoder; it is left in
            evaluation mode, on the device where it is.
        images: N prepared images.
        batch_size: Images that go through the network together.

    Returns:
        float32 (N, D).
    """
    import torch

    from torchxrayvision.training.images.prepared import from_stored

    device = next(model.parameters()).device  # an encoder has no head yet
    features = []
    with torch.inference_mode():
        model.eval()
        for start in range(0, len(images), batch_size):
            rows = np.arange(start, min(start + batch_size, len(images)))
            batch = torch.from_numpy(images.batch(rows)[0]).to(device)
            features.append(model.embed(from_stored(batch)).float().cpu().numpy())
    return np.concatenate(features)


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """One logistic regression per finding on fixed features.

    Attributes:
        names: The P findings.
        weight: float64 (P, D), for features as they are.
        bias: float64 (P,). Both are NaN for a finding that lacks positives or negatives.
        strength: C of each finding, chosen by cross-validation; NaN if it could not be.
        auroc: Mean over the folds with that C.
    """

    names: tuple[str, ...]
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    strength: NDArray[np.float64]
    auroc: NDArray[np.float64]

    def logits(self, features: NDArray[Any]) -> NDArray[np.float64]:
        """Log-odds of each finding.

        Args:
            features: (N, D).

        Returns:
            float64 (N, P).
        """
        scores: NDArray[np.float64] = np.asarray(features, np.float64) @ self.weight.T + self.bias
        return scores

    def put_on(self, model: XRayClassifier) -> None:
        """Make the probe the last layer of the network that the features came from.

        Args:
            model: That network; its outputs become the probe's findings.
        """
        import torch

        model.reset_classifier(len(self.names), list(self.names))
        with torch.no_grad():
            model.head.weight.copy_(torch.from_numpy(np.nan_to_num(self.weight)))
            model.head.bias.copy_(torch.from_numpy(np.nan_to_num(self.bias)))
        known = ~np.isnan(self.bias)
        model.targets = [n if k else "" for n, k in zip(self.names, known, strict=True)]


@with_former_names
def linear_probe(
    features: NDArray[Any],
    labels: NDArray[Any],
    names: Sequence[str],
    patient_ids: NDArray[Any] | None = None,
    *,
    strengths: Sequence[float] = STRENGTHS,
    folds: int = 5,
    seed: int = 0,
) -> Probe:
    """Fit a logistic regression per finding, regularised as cross-validation by patient says best.

    Args:
        features: (N, D), such as `embed` gives.
        labels: (N, P): 1 present, 0 absent, NaN unknown, which are left out.
        names: The P findings.
        patient_ids: The patient of each image, (N,); None if every image is one of its own.
        strengths: Values of C to choose from.
        folds: Parts of the cross-validation; fewer where there are fewer patients with a finding.
        seed: Of the parts.

    Returns:
        The probe, fitted to all images.

    Raises:
        DependencyError: If scikit-learn is missing.
        ImageShapeError: If the shapes do not fit.
        DatasetError: If a label is neither 0, 1 nor NaN.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> features = rng.normal(size=(80, 4))
        >>> probe = linear_probe(features, features[:, :1] > 0, ["Mass"])
        >>> bool(probe.auroc[0] > 0.95)
        True
    """
    require_sklearn()
    features, labels = np.asarray(features, np.float64), np.asarray(labels, np.float64)
    if labels.shape != (len(features), len(names)):
        given = f"features of {counted(len(features), 'image')}, {counted(len(names), 'finding')}"
        msg = f"{given}, but labels {labels.shape}"
        raise ImageShapeError(msg)
    checked_labels(labels, names)
    codes = patient_codes(patient_ids, len(features))
    mean, spread = features.mean(axis=0), features.std(axis=0)
    scaled = (features - mean) / np.where(spread > 0, spread, 1.0)
    fitted = [fit_one(scaled, column, codes, strengths, folds, seed) for column in labels.T]
    weight = np.stack([one[0] for one in fitted]) / np.where(spread > 0, spread, 1.0)
    bias, strength, areas = (np.array([one[i] for one in fitted]) for i in (1, 2, 3))
    return Probe(
        names=tuple(names),
        weight=weight,
        bias=bias - weight @ mean,
        strength=strength,
        auroc=areas,
    )


def require_sklearn() -> None:
    """Refuse where scikit-learn is missing."""
    with needs_package("scikit-learn", "A linear probe", "train"):
        import sklearn  # noqa: F401


def _model(strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=5000)


def fit_one(
    features: NDArray[np.float64],
    label: NDArray[np.float64],
    patient_ids: NDArray[Any],
    strengths: Sequence[float],
    folds: int,
    seed: int,
) -> tuple[NDArray[np.float64], float, float, float]:
    """Weights, bias, C and AUROC of one finding; C is 1 where patients are too few to choose it.

    Args:
        features: (N, D), scaled.
        label: 1, 0 or NaN, (N,).
        patient_ids: The patient of each, (N,).
        strengths: Values of C to choose from.
        folds: Of the cross-validation.
        seed: Of its parts.

    Returns:
        They are NaN for a finding that lacks positives or negatives, C where it was not chosen.
    """
    known = ~np.isnan(label)
    x, y, patient = features[known], label[known] == 1, patient_ids[known]
    if len(np.unique(y)) < 2:
        return np.full(features.shape[1], np.nan), np.nan, np.nan, np.nan
    parts = min(folds, len(np.unique(patient[y])), len(np.unique(patient[~y])))
    scores = {} if parts < 2 else _cross_validated(x, y, patient, strengths, parts, seed)
    # The strongest regularisation among equals.
    best = max(scores, key=lambda c: (scores[c], -c)) if scores else 1.0
    fitted = _model(best).fit(x, y)
    area = scores.get(best, np.nan)
    return fitted.coef_[0], float(fitted.intercept_[0]), best if scores else np.nan, area


def _cross_validated(
    x: NDArray[np.float64],
    y: NDArray[np.bool_],
    patient: NDArray[Any],
    strengths: Sequence[float],
    parts: int,
    seed: int,
) -> dict[float, float]:
    from sklearn.model_selection import StratifiedGroupKFold

    found: dict[float, list[float]] = {}
    splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    for train, test in splitter.split(x, y, patient):
        if len(np.unique(y[train])) < 2 or len(np.unique(y[test])) < 2:
            continue
        for strength in strengths:
            scores = _model(strength).fit(x[train], y[train]).decision_function(x[test])
            found.setdefault(strength, []).append(auroc(y[test], scores))
    return {strength: float(np.mean(areas)) for strength, areas in found.items()}


def few_shot(
    features: NDArray[Any],
    labels: NDArray[Any],
    names: Sequence[str],
    test: tuple[NDArray[Any], NDArray[Any]],
    *,
    shots: Sequence[int] = (1, 4, 16),
    repeats: int = 20,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """How well a probe does that was fitted to k positive and k negative images of a finding.

    Args:
        features: (N, D) to draw from.
        labels: (N, P).
        names: The P findings.
        test: Features (M, D) and labels (M, P) of other patients.
        shots: Values of k.
        repeats: Draws for each k.
        level: Share of the draws that the interval holds.
        seed: Of the draws.

    Returns:
        One row per finding and k: `finding`, `k`, `auroc` (mean over the draws), `low`, `high`. It
        is the spread over draws of training cases, not over test patients. Findings with fewer
        than k cases of a kind are left out.

    Raises:
        DependencyError: If scikit-learn is missing.
        DatasetError: If a label is neither 0, 1 nor NaN.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(60, 3))
        >>> few_shot(x, x[:, :1] > 0, ["Mass"], (x, x[:, :1] > 0), shots=[4]).columns.tolist()
        ['finding', 'k', 'auroc', 'low', 'high']
    """
    require_sklearn()
    import pandas as pd

    for table in (labels, test[1]):
        checked_labels(np.asarray(table, np.float64), names)
    rows = []
    for column, name in enumerate(names):
        label, truth = np.asarray(labels)[:, column], np.asarray(test[1])[:, column]
        known = (truth == 1) | (truth == 0)
        positive, negative = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
        for k in shots:
            if min(len(positive), len(negative)) < k or len(np.unique(truth[known])) < 2:
                continue
            areas = []
            for repeat in range(repeats):
                rng = np.random.default_rng([seed, column, k, repeat])
                drawn = [rng.choice(kind, k, replace=False) for kind in (positive, negative)]
                logits = _drawn_probe(features[np.concatenate(drawn)], k, test[0][known])
                areas.append(auroc(truth[known], logits))
            low, high = np.quantile(areas, [(1 - level) / 2, (1 + level) / 2])
            rows.append((name, k, float(np.mean(areas)), float(low), float(high)))
    return pd.DataFrame(rows, columns=["finding", "k", "auroc", "low", "high"])


def _drawn_probe(cases: NDArray[Any], k: int, test: NDArray[Any]) -> NDArray[np.float64]:
    """Scores of a probe fitted to k positive cases and the k negative ones after them."""
    mean, spread = cases.mean(axis=0), cases.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    truth = np.repeat([1, 0], k)
    fitted = _model(0.01).fit((cases - mean) / spread, truth)
    scores: NDArray[np.float64] = fitted.decision_function((test - mean) / spread)
    return scores

"""Counts that describe a dataset: findings, views, sex and age."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torchxrayvision.datasets._dataset import Dataset

__all__ = ["describe"]

_DECADE = 10


def describe(dataset: Dataset) -> dict[str, Any]:
    """Count what a dataset holds; no image is read.

    Args:
        dataset: Any dataset or container.

    Returns:
        ``dataset`` (name), ``images``, ``patients`` (None where unknown), ``findings`` (finding to
        ``present``, ``absent``, ``unknown`` and, for scores, ``other``), and ``view``, ``sex``,
        ``age`` (value to images, empty where the source does not say; ages in decades).

    Example:
        >>> from torchxrayvision.datasets import RSNA_Pneumonia_Dataset
        >>> describe(RSNA_Pneumonia_Dataset(views=["PA", "AP"]))["images"]
        26684
    """
    csv = dataset.csv
    return {
        "dataset": type(dataset).__name__,
        "images": len(dataset),
        "patients": int(csv["patientid"].nunique()) if "patientid" in csv else None,
        "findings": _findings(dataset),
        "view": _values(csv["view"]) if "view" in csv else {},
        "sex": _sexes(csv),
        "age": _ages(csv["age_years"]) if "age_years" in csv else {},
    }


def _findings(dataset: Dataset) -> dict[str, dict[str, int]]:
    labels = np.asarray(dataset.labels)
    result = {}
    for column, name in enumerate(dataset.pathologies):
        values = labels[:, column]
        present, absent = int((values == 1).sum()), int((values == 0).sum())
        unknown = int(np.isnan(values).sum())
        other = len(values) - present - absent - unknown
        result[str(name)] = {
            "present": present,
            "absent": absent,
            "unknown": unknown,
            "other": other,
        }
    return result


def _values(column: Any) -> dict[str, int]:
    counts = column.astype("object").where(column.notna(), "unknown").value_counts()
    return {str(value): int(count) for value, count in counts.items() if count}


def _sexes(csv: Any) -> dict[str, int]:
    if "sex_male" not in csv or "sex_female" not in csv:
        return {}
    male, female = (
        csv[name].eq(other=True).to_numpy(dtype=bool, na_value=False)
        for name in ("sex_male", "sex_female")
    )
    counts = {
        "male": int(male.sum()),
        "female": int(female.sum()),
        "unknown": int((~(male | female)).sum()),
    }
    return {sex: count for sex, count in counts.items() if count}


def _ages(column: Any) -> dict[str, int]:
    ages = column.to_numpy(dtype=float)
    known = ages[np.isfinite(ages)]
    decades, counts = np.unique(known // _DECADE, return_counts=True)
    result = {
        f"{int(decade) * _DECADE}-{int(decade) * _DECADE + _DECADE - 1}": int(count)
        for decade, count in zip(decades, counts, strict=True)
    }
    if len(known) < len(ages):
        result["unknown"] = len(ages) - len(known)
    return result

"""What predictions are worth, with intervals.

- Ranking: `auroc`, `average_precision`, `roc_curve`.
- Intervals: `auroc_interval`, `mean_auroc`, `auroc_table`, `average_precision_interval`,
  `paired_difference` for two models, `mean_interval` for one number per image, `wilson_interval`
  for a share of independent rows; `bootstrap` for anything else.
- Thresholds: `operating_point`, `operating_table`, `predictive_values`, `youden_threshold`,
  `threshold_at_sensitivity`, `threshold_at_specificity`.
- Probabilities: `brier_score`, `reliability_curve`, `expected_calibration_error`,
  `calibration_line`.
- Subgroups: `subgroup_table` by what `subgroups_of` or `subgroups_by` finds in a table.
- Masks: `dice`, `iou`. Tables on disk: `read_table`, `join_labels`, `xrv evaluate`.

Labels are 1, 0, or NaN for unknown, which is left out. `patient_ids` name the patient of each row:
images of one patient are alike, and an interval that takes them for independent is too narrow.
Only `bootstrap` resamples. The other intervals have formulas; they accept the arguments
``replicates`` and ``seed`` of release 2.0.0a1, which change nothing. `docs/intervals.md` shows how
often each interval holds the truth, and below how many patients there is none.

Example:
    >>> from torchxrayvision import evaluation
    >>> evaluation.auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
"""

from __future__ import annotations

import warnings
from typing import Any

from torchxrayvision.evaluation.calibration import (
    CalibrationLine,
    brier_score,
    calibration_line,
    expected_calibration_error,
    reliability_curve,
)
from torchxrayvision.evaluation.comparisons import (
    difference_table,
    gap_table,
    holm,
    with_intersections,
)
from torchxrayvision.evaluation.discrimination import (
    auroc_interval,
    auroc_table,
    mean_auroc,
    paired_difference,
)
from torchxrayvision.evaluation.estimates import DECISIONS, MEASURES, PROBABILITIES, RANKING
from torchxrayvision.evaluation.intervals import (
    MEAN,
    Interval,
    effective_rows,
    mean_interval,
    wilson_interval,
)
from torchxrayvision.evaluation.intervals import patient_codes as patient_numbers
from torchxrayvision.evaluation.intervals import with_former_names as with_former_names
from torchxrayvision.evaluation.joining import (
    join_labels,
    match_images,
    patient_column,
    read_table,
)
from torchxrayvision.evaluation.overlap import dice, iou
from torchxrayvision.evaluation.performance import (
    RANKS_ONLY,
    MeasureOptions,
    performance_by,
    performance_table,
    probabilities_of,
)
from torchxrayvision.evaluation.ranking import (
    auroc,
    average_precision,
    average_precision_interval,
    precision_recall_curve,
    roc_curve,
)
from torchxrayvision.evaluation.resampling import bootstrap
from torchxrayvision.evaluation.studies import Study, identifiers, published_thresholds
from torchxrayvision.evaluation.subgroups import (
    AGE_BANDS,
    age_bands,
    subgroup_table,
    subgroups_by,
    subgroups_of,
)
from torchxrayvision.evaluation.thresholds import (
    OperatingPoint,
    achieved_interval,
    net_benefit_curve,
    operating_point,
    operating_table,
    predictive_values,
    threshold_at_sensitivity,
    threshold_at_specificity,
    youden_threshold,
)

__all__ = [
    "AGE_BANDS",
    "DECISIONS",
    "MEAN",
    "MEASURES",
    "PROBABILITIES",
    "RANKING",
    "RANKS_ONLY",
    "CalibrationLine",
    "Interval",
    "MeasureOptions",
    "OperatingPoint",
    "Study",
    "achieved_interval",
    "age_bands",
    "auroc",
    "auroc_interval",
    "auroc_table",
    "average_precision",
    "average_precision_interval",
    "bootstrap",
    "brier_score",
    "calibration_line",
    "dice",
    "difference_table",
    "effective_rows",
    "expected_calibration_error",
    "gap_table",
    "holm",
    "identifiers",
    "iou",
    "join_labels",
    "match_images",
    "mean_auroc",
    "mean_interval",
    "net_benefit_curve",
    "operating_point",
    "operating_table",
    "paired_difference",
    "patient_column",
    "patient_numbers",
    "performance_by",
    "performance_table",
    "precision_recall_curve",
    "predictive_values",
    "probabilities_of",
    "published_thresholds",
    "read_table",
    "reliability_curve",
    "roc_curve",
    "subgroup_table",
    "subgroups_by",
    "subgroups_of",
    "threshold_at_sensitivity",
    "threshold_at_specificity",
    "wilson_interval",
    "with_intersections",
    "youden_threshold",
]


def __getattr__(name: str) -> Any:
    if name == "delong_interval":  # the one rule of `auroc_interval` is better everywhere
        warnings.warn(
            "torchxrayvision.evaluation.delong_interval is now auroc_interval, whose interval "
            "needs no resampling any more; the old name goes in release 3",
            DeprecationWarning,
            stacklevel=2,
        )
        return auroc_interval
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)

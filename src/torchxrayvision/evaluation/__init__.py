"""What predictions are worth, with intervals.

- Ranking: `auroc`, `average_precision`, `roc_curve`.
- Intervals that resample patients: `auroc_interval`, `mean_auroc`, `auroc_table`,
  `paired_difference` for two models, `mean_interval` for one number a film, `bootstrap` for
  anything else; by formula: `delong_interval`.
- Thresholds: `operating_point`, `operating_table`, `predictive_values`, `youden_threshold`,
  `threshold_at_sensitivity`, `threshold_at_specificity`.
- Probabilities: `brier_score`, `reliability_curve`, `expected_calibration_error`,
  `calibration_line`.
- Subgroups: `subgroup_table` by what `subgroups_of` finds in ``dataset.csv``.
- Masks: `dice`, `iou`. Tables on disk: `join_labels`, `xrv evaluate`.

Labels are 1, 0, or NaN for unknown, which is left out. `groups` names the patient of each row:
films of one patient are alike, and an interval that takes them for independent is too narrow.

Example:
    >>> from torchxrayvision import evaluation
    >>> evaluation.auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
"""

from torchxrayvision.evaluation._auroc import (
    MEAN,
    auroc_interval,
    auroc_table,
    delong_interval,
    mean_auroc,
    paired_difference,
)
from torchxrayvision.evaluation._calibration import (
    CalibrationLine,
    brier_score,
    calibration_line,
    expected_calibration_error,
    reliability_curve,
)
from torchxrayvision.evaluation._interval import Interval, wilson_interval
from torchxrayvision.evaluation._join import join_labels
from torchxrayvision.evaluation._operating import (
    OperatingPoint,
    operating_point,
    operating_table,
    predictive_values,
    threshold_at_sensitivity,
    threshold_at_specificity,
    youden_threshold,
)
from torchxrayvision.evaluation._overlap import dice, iou
from torchxrayvision.evaluation._ranking import auroc, average_precision, roc_curve
from torchxrayvision.evaluation._resample import bootstrap, mean_interval
from torchxrayvision.evaluation._subgroups import (
    AGE_BANDS,
    age_bands,
    subgroup_table,
    subgroups_of,
)

__all__ = [
    "AGE_BANDS",
    "MEAN",
    "CalibrationLine",
    "Interval",
    "OperatingPoint",
    "age_bands",
    "auroc",
    "auroc_interval",
    "auroc_table",
    "average_precision",
    "bootstrap",
    "brier_score",
    "calibration_line",
    "delong_interval",
    "dice",
    "expected_calibration_error",
    "iou",
    "join_labels",
    "mean_auroc",
    "mean_interval",
    "operating_point",
    "operating_table",
    "paired_difference",
    "predictive_values",
    "reliability_curve",
    "roc_curve",
    "subgroup_table",
    "subgroups_of",
    "threshold_at_sensitivity",
    "threshold_at_specificity",
    "wilson_interval",
    "youden_threshold",
]

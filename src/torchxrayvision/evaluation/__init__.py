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

from typing import Final

import lazy_loader

from torchxrayvision.deprecation import with_moved_names

# Loaded at first use.
# The names are those of `__init__.pyi`.
_find, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# Its successor needs no resampling.
_MOVED: Final = {"delong_interval": "torchxrayvision.evaluation.auroc_interval"}
__getattr__ = with_moved_names(__name__, _MOVED, _find)

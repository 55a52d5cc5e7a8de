"""Results as DICOM objects of the study that the image is in; needs the extra `dicom-results`.

- One image: `Reader` asks the networks about a file and gives an `ImageReading`; `make_objects`
  makes the objects, `dicom_results` does both, `save_objects` writes files.
- One object: `structured_report`, `secondary_capture`, `segmentation`, `presentation_state`,
  `parametric_map`, `key_objects`, each of an `ImageReading`.
- Codes: `finding_code`, `structure_code`.

Example:
    >>> from torchxrayvision import results
    >>> results.finding_code("Pneumothorax").value
    '36118008'
"""

from __future__ import annotations

import lazy_loader

# Loaded at first use.
# The names are those of `__init__.pyi`.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Record `model_urls` of TorchXRayVision 1.5.7.

Run with a Python that has torchxrayvision 1.5.7 installed, from the root of this repository:

    python tools/record_golden_weights.py tests/golden/model_urls.json

NaN is written as null, because JSON has no NaN.
"""

import json
import math
import sys
from pathlib import Path


def plain(value):
    if isinstance(value, float) and math.isnan(value):
        return None
    return [plain(v) for v in value] if isinstance(value, list) else value


def main(target):
    import torchxrayvision as xrv

    entries = {
        name: {key: plain(value) for key, value in entry.items()}
        for name, entry in xrv.models.model_urls.items()
    }
    Path(target).write_text(json.dumps(entries, indent=1, allow_nan=False) + "\n")
    print(f"{len(entries)} entries in {target}")


if __name__ == "__main__":
    main(*sys.argv[1:])

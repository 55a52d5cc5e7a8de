"""What does the import cost, and what does it cost on top of torch?

python benchmarks/bench_import.py --baseline-python PATH
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from _alternate import Timings, main

STATEMENTS = {
    "import torchxrayvision": "import torchxrayvision",
    "import torch": "import torch",
    "import torch and torchxrayvision, models and datasets used": (
        "import torch, torchxrayvision as xrv; xrv.models.DenseNet; xrv.datasets.NIH_Dataset"
    ),
    "the NIH table and its totals": (
        "import torchxrayvision as xrv; "
        "xrv.datasets.NIH_Dataset('.', views=['PA'], unique_patients=False).totals()"
    ),
}


def both(out: Path) -> Timings:
    """Each statement in a fresh process, timed inside it: starting Python does not count."""
    timings: Timings = {}
    for name, statement in STATEMENTS.items():
        code = (
            "import time; start = time.perf_counter()\n"
            f"{statement}\n"
            "print('seconds', time.perf_counter() - start)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=out
        )
        timings[name] = [float(done.stdout.rpartition("seconds")[2])]
    return timings


if __name__ == "__main__":
    main(__doc__, both, both)

"""The table and the figure of docs/covariate-shift.md: `xrv benchmark covariate-shift` in full.

    python tools/covariate_shift.py --cache FOLDER

Minutes on one core, of which rendering is most; what lies in FOLDER is not done again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch

from torchxrayvision import plots
from torchxrayvision.benchmark import Shift, covariate_shift

DOCS = Path(__file__).parents[1] / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True, help="folder to resume from")
    shift = Shift()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    table = covariate_shift(
        shift,
        parser.parse_args().cache,
        on_progress=lambda done, all_: print(done, all_, flush=True),
    )
    file = DOCS / "covariate-shift.csv"
    table.to_csv(file, index=False, float_format="%.4f")
    plots.covariate_shift(table, finding=shift.finding).save(
        DOCS / "images" / "covariate-shift.png", dpi=160
    )
    # As the file rounds them: numbers rounded twice would differ from the file's in the last digit.
    for ratio, part in pd.read_csv(file).groupby("ratio"):
        cells = [f"{r.auroc:.3f} [{r.low:.3f}, {r.high:.3f}]" for r in part.itertuples()]
        print(f"| {ratio:.1f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

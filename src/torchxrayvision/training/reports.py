"""What a run leaves beside its weights: the split, predictions of the best weights, intervals."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from torchxrayvision.errors import EvaluationError
from torchxrayvision.evaluation import auroc_table
from torchxrayvision.training.images.prepared import from_stored

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torchxrayvision.models import XRayClassifier
    from torchxrayvision.training.images.prepared import PreparedImages

logger = logging.getLogger(__name__)

CHOSE_THE_EPOCH = "these images chose the epoch, so the figures are too high for other patients"


def write_reports(
    folder: Path,
    parts: Mapping[str, PreparedImages | None],
    network: XRayClassifier,
    batch_size: int,
) -> pd.DataFrame:
    """Write `split.csv`, `predictions-PART.csv` of each part but `train`, and `auroc.csv`.

    Args:
        folder: Of the run.
        parts: Images of `train`, `validation` and `test`; None for a part that there is not.
        network: Predicts, with the weights of the best epoch, on the device where it is.
        batch_size: Images that go through the network together.

    Returns:
        The AUROC table: one row per part and finding, columns `part`, those of
        `evaluation.auroc_table`, and `note`; empty if no part has one.
    """
    there = {part: images for part, images in parts.items() if images is not None}
    split = [
        pd.DataFrame({"path": images.paths, "patient": images.groups, "part": part})
        for part, images in there.items()
    ]
    pd.concat(split, ignore_index=True).to_csv(folder / "split.csv", index=False)
    network.eval()
    device = next(network.parameters()).device
    tables = []
    for part, images in there.items():
        if part == "train":
            continue
        scores = []
        with torch.inference_mode():
            for start in range(0, len(images), batch_size):
                rows = np.arange(start, min(start + batch_size, len(images)))
                batch = from_stored(torch.from_numpy(images.batch(rows)[0]).to(device))
                scores.append(network(batch, output="probability").float().cpu().numpy())
        predicted = pd.DataFrame(np.concatenate(scores), columns=list(images.names))
        predicted.insert(0, "path", images.paths)
        predicted.to_csv(folder / f"predictions-{part}.csv", index=False)
        try:
            table = auroc_table(images.labels, np.concatenate(scores), images.names, images.groups)
        except EvaluationError as error:  # weights that diverged give no numbers
            logger.warning("no AUROC of %s: %s", part, error)
            continue
        table.insert(0, "part", part)
        tables.append(table.assign(note=CHOSE_THE_EPOCH if part == "validation" else ""))
    if not tables:
        return pd.DataFrame()
    found = pd.concat(tables, ignore_index=True)
    found.to_csv(folder / "auroc.csv", index=False)
    return found

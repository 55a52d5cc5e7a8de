"""What a run leaves beside its weights: the split, outputs of the best weights, intervals."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import torch

from torchxrayvision.errors import EvaluationError
from torchxrayvision.evaluation import auroc_table, mean_interval
from torchxrayvision.files import sha256_of, write_atomically
from torchxrayvision.models import resize
from torchxrayvision.provenance import Provenance
from torchxrayvision.training.images.prepared import from_stored, to_stored
from torchxrayvision.training.loss import reconstruction_errors
from torchxrayvision.training.objectives import psnr_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from torchxrayvision.training.images.prepared import PreparedImages
    from torchxrayvision.training.recipe import Recipe

logger = logging.getLogger(__name__)

_SHOWN: Final = 6  # images in the picture of a part

BEST: Final = "best.safetensors"

CHOSE_THE_EPOCH = "these images chose the epoch, so the figures are too high for other patients"


def write_reports(
    folder: Path, parts: Mapping[str, PreparedImages | None], network: Any, recipe: Recipe
) -> pd.DataFrame:
    """Write `split.csv`, and of each part but `train` what the best weights make of it.

    Beside each table is what made it, see `torchxrayvision.provenance`.

    Args:
        folder: Of the run.
        parts: Images of `train`, `validation` and `test`; None for a part that there is not.
        network: With the weights of the best epoch, on the device where it is.
        recipe: Of the run.

    Returns:
        One row per part and finding, or measure: columns `part`, those of
        `evaluation.auroc_table` or of `_measures`, and `note`; empty if no part has one.
    """
    there = {part: images for part, images in parts.items() if images is not None}
    split = [
        pd.DataFrame({"path": images.paths, "patient": images.patient_ids, "part": part})
        for part, images in there.items()
    ]
    best = folder / BEST
    kept = best.exists()  # a network of the caller's own has no file that says how to build it
    made = Provenance(
        command="xrv train",
        weights=BEST if kept else "",
        options={"weights_file_sha256": sha256_of(best)} if kept else {},
        inputs={part: len(images) for part, images in there.items()},
    )
    _write(pd.concat(split, ignore_index=True), folder / "split.csv", made)
    network.eval()
    drawn = recipe.task == "reconstruction"
    report = _drawn if drawn else _predicted
    tables = []
    for part, images in there.items():
        if part == "train":
            continue
        table = report(folder, part, images, network, recipe, made)
        if table is not None:
            table.insert(0, "part", part)
            tables.append(table.assign(note=CHOSE_THE_EPOCH if part == "validation" else ""))
    if not tables:
        return pd.DataFrame()
    found = pd.concat(tables, ignore_index=True)
    _write(found, folder / ("reconstruction.csv" if drawn else "auroc.csv"), made)
    return found


def _write(table: pd.DataFrame, path: Path, made: Provenance) -> None:
    """A table and, beside it, what made it."""
    table.to_csv(path, index=False)
    made.write_beside(path, path)


def _predicted(
    folder: Path,
    part: str,
    images: PreparedImages,
    network: Any,
    recipe: Recipe,
    made: Provenance,
) -> pd.DataFrame | None:
    """Write the predictions of a part, and give the AUROC of each finding."""
    with torch.inference_mode():
        scores = [
            network(batch, output="probability").float().cpu().numpy()
            for batch in _batches(images, network, recipe)
        ]
    predicted = pd.DataFrame(np.concatenate(scores), columns=list(images.names))
    predicted.insert(0, "path", images.paths)
    said = replace(made, output="probability", inputs={"part": part, "images": len(images)})
    _write(predicted, folder / f"predictions-{part}.csv", said)
    try:
        return auroc_table(images.labels, np.concatenate(scores), images.names, images.patient_ids)
    except EvaluationError as error:  # weights that diverged give no numbers
        logger.warning("no AUROC of %s: %s", part, error)
        return None


def _drawn(
    folder: Path,
    part: str,
    images: PreparedImages,
    network: Any,
    recipe: Recipe,
    made: Provenance,
) -> pd.DataFrame:
    """Write the errors of each image of a part and a picture of some, and give their means."""
    errors: list[dict[str, NDArray[Any]]] = []
    shown: list[NDArray[np.float32]] = []
    with torch.inference_mode():
        for batch in _batches(images, network, recipe):
            drawn = network(batch)["out"].float()
            found = reconstruction_errors(drawn, batch, recipe.reconstruction, every=True)
            errors.append(
                {
                    "psnr": psnr_of(found["squared"]).cpu().numpy(),
                    "ssim": found["ssim"].cpu().numpy(),
                    "absolute_error": found["absolute"].cpu().numpy() * 2048,
                }
            )
            if len(shown) < _SHOWN:
                pairs = torch.stack([batch[:, 0], drawn[:, 0]], dim=1)
                shown += list(pairs[: _SHOWN - len(shown)].cpu().numpy())
    each = pd.DataFrame({key: np.concatenate([e[key] for e in errors]) for key in errors[0]})
    rows = each.copy()
    rows.insert(0, "path", images.paths)
    said = replace(made, inputs={"part": part, "images": len(images)})
    _write(rows, folder / f"reconstructions-{part}.csv", said)
    _picture(folder / f"reconstructions-{part}.png", shown)
    return _measures(each, images.patient_ids)


def _measures(each: pd.DataFrame, patient_ids: NDArray[np.int64]) -> pd.DataFrame:
    """Mean of each measure with its interval over patients: `measure`, `mean`, `low`, `high`."""
    rows = []
    for measure in each.columns:
        mean = mean_interval(each[measure], patient_ids)
        rows.append(
            {
                "measure": measure, "mean": mean.value, "low": mean.low, "high": mean.high,
                "images": len(each), "patients": len(np.unique(patient_ids)),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _picture(path: Path, pairs: Sequence[NDArray[np.float32]]) -> None:
    """Some images, each above what the network drew."""
    from PIL import Image

    from torchxrayvision.pictures import contact_sheet

    grey = [[to_stored(image, "uint8") for image in pair] for pair in pairs]
    pictures = [pair[0] for pair in grey] + [pair[1] for pair in grey]
    titles = ["given"] * len(grey) + ["drawn"] * len(grey)
    sheet = contact_sheet(pictures, titles, columns=len(grey), titles_below=True)
    with write_atomically(path) as part:
        Image.fromarray(sheet).save(part, format="PNG")


def _batches(images: PreparedImages, network: Any, recipe: Recipe) -> Iterator[torch.Tensor]:
    device = next(network.parameters()).device
    for start in range(0, len(images), recipe.batch_size):
        rows = np.arange(start, min(start + recipe.batch_size, len(images)))
        batch = from_stored(torch.from_numpy(images.batch(rows)[0]).to(device))
        # Kept larger for augmentation to zoom in; classifiers resize by themselves.
        yield batch if recipe.task == "classification" else resize(batch, recipe.resolution)

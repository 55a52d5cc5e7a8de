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
from torchxrayvision.training.loss import dice_of, reconstruction_errors
from torchxrayvision.training.objectives import masks_at, psnr_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from torchxrayvision.training.images.prepared import PreparedImages
    from torchxrayvision.training.recipe import Recipe

logger = logging.getLogger(__name__)

_SHOWN: Final = 6  # images in the picture of a part
_INSIDE: Final = 0.5  # of a pixel

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
        One row per part and finding, measure or structure: columns `part`, those of
        `evaluation.auroc_table` or of `_measures`, and `note`; empty if no part has one.
    """
    there = {part: images for part, images in parts.items() if images is not None}
    best = folder / BEST
    kept = best.exists()  # a network of the caller's own has no file that says how to build it
    made = Provenance(
        command="xrv train",
        weights=BEST if kept else "",
        options={"weights_file_sha256": sha256_of(best)} if kept else {},
        inputs={part: len(images) for part, images in there.items()},
    )
    _write(split_table(there), folder / "split.csv", made)
    network.eval()
    report, name = _REPORTS[recipe.task]
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
    _write(found, folder / name, made)
    return found


def split_table(parts: Mapping[str, PreparedImages]) -> pd.DataFrame:
    """Which image is in which part.

    Args:
        parts: Name of each part to its images.

    Returns:
        One row per image: columns `path`, `patient` and `part`. Patients count from 0 over all
        parts, so that one number is one patient.
    """
    rows = pd.concat(
        [
            pd.DataFrame({"path": images.paths, "patient": images.patient_ids, "part": part})
            for part, images in parts.items()
        ],
        ignore_index=True,
    )
    return rows.assign(patient=rows["patient"].factorize()[0])


def _write(table: pd.DataFrame, path: Path, made: Provenance) -> None:
    """A table and, beside it, what made it."""
    table.to_csv(path, index=False)
    made.write_beside(path, path)


def _write_rows(
    rows: pd.DataFrame, path: Path, part: str, images: PreparedImages, made: Provenance
) -> None:
    """One row per image of a part, named by its path."""
    named = rows.copy()
    named.insert(0, "path", images.paths)
    _write(named, path, replace(made, inputs={"part": part, "images": len(images)}))


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
            for batch, _ in _batches(images, network, recipe)
        ]
    predicted = pd.DataFrame(np.concatenate(scores), columns=list(images.names))
    said = replace(made, output="probability")
    _write_rows(predicted, folder / f"predictions-{part}.csv", part, images, said)
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
        for batch, _ in _batches(images, network, recipe):
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
    _write_rows(each, folder / f"reconstructions-{part}.csv", part, images, made)
    _picture(folder / f"reconstructions-{part}.png", shown)
    return _measures(each, images.patient_ids, "measure")


def _outlined(
    folder: Path,
    part: str,
    images: PreparedImages,
    network: Any,
    recipe: Recipe,
    made: Provenance,
) -> pd.DataFrame:
    """Write the Dice of each image of a part and a picture of some, and give their means."""
    held: Any = images
    found: list[NDArray[Any]] = []
    shown: list[tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]] = []
    with torch.inference_mode():
        for batch, rows in _batches(images, network, recipe):
            inside = network(batch) > 0
            masks = torch.from_numpy(held.masks(rows)).to(batch.device).float()
            unknown = torch.from_numpy(images.labels[rows]).to(batch.device).isnan()
            truth = masks_at(masks, inside.shape[-1])
            known = truth.masked_fill(unknown[:, :, None, None], float("nan"))
            found.append(dice_of(inside, known).cpu().numpy())
            if len(shown) < _SHOWN:
                each = zip(batch[:, 0], truth >= _INSIDE, inside, strict=True)
                triples = [tuple(a.cpu().numpy() for a in three) for three in each]
                shown += triples[: _SHOWN - len(shown)]
    each_dice = pd.DataFrame(np.concatenate(found), columns=list(images.names))
    _write_rows(each_dice, folder / f"outlines-{part}.csv", part, images, made)
    _outlines_picture(folder / f"outlines-{part}.png", shown, images.names)
    return _measures(each_dice, images.patient_ids, "structure")


def _measures(each: pd.DataFrame, patient_ids: NDArray[np.int64], named: str) -> pd.DataFrame:
    """Mean of each column with its interval over patients, in rows that are `named` by it."""
    rows = []
    for column in each.columns:
        mean = mean_interval(each[column], patient_ids)
        known = each[column].notna().to_numpy()
        rows.append(
            {
                named: column, "mean": mean.value, "low": mean.low, "high": mean.high,
                "images": int(known.sum()), "patients": len(np.unique(patient_ids[known])),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _outlines_picture(
    path: Path,
    shown: Sequence[tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]],
    names: Sequence[str],
) -> None:
    """Some images with the outlines that are right, each above those that the network found."""
    from torchxrayvision.pictures import draw_outlines, grey, palette

    colours = [tuple(map(int, colour)) for colour in palette(len(names))]
    pictures = [
        draw_outlines(grey(three[0]), dict(zip(names, three[which], strict=True)), colours)
        for which in (1, 2)
        for three in shown
    ]
    titles = ["given"] * len(shown) + ["found"] * len(shown)
    _write_sheet(path, pictures, titles, len(shown))


def _picture(path: Path, pairs: Sequence[NDArray[np.float32]]) -> None:
    """Some images, each above what the network drew."""
    grey = [[to_stored(image, "uint8") for image in pair] for pair in pairs]
    pictures = [pair[0] for pair in grey] + [pair[1] for pair in grey]
    titles = ["given"] * len(grey) + ["drawn"] * len(grey)
    _write_sheet(path, pictures, titles, len(grey))


def _write_sheet(
    path: Path, pictures: Sequence[NDArray[np.uint8]], titles: Sequence[str], columns: int
) -> None:
    from PIL import Image

    from torchxrayvision.pictures import contact_sheet

    sheet = contact_sheet(pictures, titles, columns=columns, titles_below=True)
    with write_atomically(path) as part:
        Image.fromarray(sheet).save(part, format="PNG")


def _batches(
    images: PreparedImages, network: Any, recipe: Recipe
) -> Iterator[tuple[torch.Tensor, NDArray[np.int64]]]:
    """Batches of images, and the position of each in the part."""
    device = next(network.parameters()).device
    for start in range(0, len(images), recipe.batch_size):
        rows = np.arange(start, min(start + recipe.batch_size, len(images)))
        batch = from_stored(torch.from_numpy(images.batch(rows)[0]).to(device))
        # Kept larger for augmentation to zoom in; classifiers resize by themselves.
        if recipe.task != "classification":
            batch = resize(batch, recipe.resolution)
        yield batch, rows


# What is written of a part, and the table of all parts.
_REPORTS: Final = {
    "classification": (_predicted, "auroc.csv"),
    "reconstruction": (_drawn, "reconstruction.csv"),
    "segmentation": (_outlined, "dice.csv"),
}

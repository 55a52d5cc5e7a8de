"""Real and simulated films as arrays, made once."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import pandas as pd

from demo_weights.plan import (
    AP,
    FRONTAL,
    KEPT,
    MASK_SIDE,
    OUTPUTS,
    PLACES,
    RENDERED,
    STRUCTURES,
)
from torchxrayvision import phantom
from torchxrayvision.images import read_raster
from torchxrayvision.training import PreparedImages
from torchxrayvision.training.images.prepared import to_stored
from torchxrayvision.transforms import XRayResizer, prepare

_CHUNK = 50


@dataclass(frozen=True)
class Films:
    """Images uint8 (N, S, S), labels (N, P) over OUTPUTS, the patient of each."""

    images: np.ndarray
    labels: np.ndarray
    patients: np.ndarray

    def of(self, rows):
        """Some of them, as what `fit` takes."""
        return PreparedImages(self.images[rows], self.labels[rows], OUTPUTS, self.patients[rows])


def real(folder):
    """The NIH films. Labels that the source lacks are NaN."""
    table = pd.read_csv(folder / "labels.csv", dtype=str)
    found = table["labels"].str.split("|")
    known = {name for names in found for name in names} - {"No Finding"}
    labels = np.full((len(table), len(OUTPUTS)), np.nan, np.float32)
    for column, name in enumerate(OUTPUTS):
        if name in known:
            labels[:, column] = [name in names for names in found]
    labels[:, OUTPUTS.index(AP)] = table["view"] == "AP"
    images = []
    for name in table["image"]:
        raster = read_raster(folder / "images-320" / name.replace(".png", ".jpg"))
        images.append(
            to_stored(prepare(raster.pixels, raster.scale, raster.offset, KEPT)[0], "uint8")
        )
    return Films(np.stack(images), labels, table["image"].str[:8].to_numpy(str))


def render(count, seed, outlined, workers=2):
    """Simulated films of all sites in turn.

    Returns:
        Films; the masks of PLACES, packed to bits, (count, places, MASK_SIDE, MASK_SIDE / 8); the
        first `outlined` films at the side RENDERED; and their structures, packed to bits,
        (outlined, structures, RENDERED, RENDERED / 8).
    """
    starts = range(0, count, _CHUNK)
    jobs = [(seed, start, min(start + _CHUNK, count), outlined) for start in starts]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(_render, jobs))
    small, labels, places, large, masks = (
        np.concatenate(part) for part in zip(*parts, strict=True)
    )
    patients = np.array([f"{seed}-{index}" for index in range(count)])
    return Films(small, labels, patients), places, large, masks


def _render(job):
    seed, start, stop, outlined = job
    resizer = XRayResizer(KEPT)
    small, labels, places, large, masks = [], [], [], [], []
    for index in range(start, stop):
        site = phantom.SITES[index % len(phantom.SITES)]
        film = phantom.simulate(index, seed=seed, size=RENDERED, site=site, views=FRONTAL)
        small.append(to_stored(resizer(film.image)[0], "uint8"))
        present = {**film.labels, AP: float(film.view == "AP")}
        labels.append([present.get(name, np.nan) for name in OUTPUTS])
        places.append(_places(film))
        if index < outlined:
            large.append(to_stored(film.image[0], "uint8"))
            masks.append(np.packbits(np.stack([film.anatomy[n] for n in STRUCTURES]), axis=-1))
    empty = (0, len(STRUCTURES), RENDERED, RENDERED // 8)
    return (
        np.stack(small),
        np.array(labels, np.float32),
        np.stack(places),
        np.stack(large) if large else np.zeros((0, RENDERED, RENDERED), np.uint8),
        np.stack(masks) if masks else np.zeros(empty, np.uint8),
    )


def _places(film):
    """Packed masks of PLACES: a cell is set if any pixel of it is."""
    none = np.zeros((RENDERED, RENDERED), bool)
    lungs = film.anatomy["Left Lung"] | film.anatomy["Right Lung"]
    known = {**film.masks, "Heart": film.anatomy["Heart"], "Lungs": lungs}
    masks = np.stack([known.get(name, none) for name in PLACES])
    step = RENDERED // MASK_SIDE
    cells = masks.reshape(len(PLACES), MASK_SIDE, step, MASK_SIDE, step).any(axis=(2, 4))
    return np.packbits(cells, axis=-1)

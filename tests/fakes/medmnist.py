"""ChestMNIST and PneumoniaMNIST: compressed NumPy archives with their official splits."""

from pathlib import Path

import numpy as np

from fakes._fake import Fake, pattern

CHEST = (
    *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia"),
    *("Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening"),
    "Hernia",
)


def write(path: Path, findings: tuple[str, ...], counts: dict[str, int], size: int) -> Fake:
    """Images by their place in the arrays, labels of type uint8 as in the release."""
    rng = np.random.default_rng(0)
    arrays, labels, splits, seed = {}, {}, {}, 0
    for split, count in counts.items():
        known = rng.integers(0, 2, (count, len(findings)), dtype=np.uint8)
        known[0], known[1] = 0, 1
        images = np.stack([pattern((size, size), seed + i) for i in range(count)])
        seed += count
        arrays |= {f"{split}_images": images, f"{split}_labels": known}
        splits[split] = [f"{split}_images[{i}]" for i in range(count)]
        for name, row in zip(splits[split], known.tolist(), strict=True):
            labels[name] = dict(zip(findings, map(float, row), strict=True))
    np.savez_compressed(path, **arrays)
    return Fake(kwargs={"npzpath": path}, labels=labels, default=list(labels), splits=splits)


def build_chest(folder: Path) -> Fake:
    """Nine images of 28 by 28 pixels, fourteen findings."""
    return write(folder / "chestmnist.npz", CHEST, {"train": 4, "val": 2, "test": 3}, 28)


def build_pneumonia(folder: Path) -> Fake:
    """Seven images of 64 by 64 pixels, one finding."""
    counts = {"train": 3, "val": 2, "test": 2}
    return write(folder / "pneumoniamnist_64.npz", ("Pneumonia",), counts, 64)


BUILDERS = {"ChestMNIST_Dataset": build_chest, "PneumoniaMNIST_Dataset": build_pneumonia}

"""Record what TorchXRayVision 1.5.7 makes of the fake releases of the test suite.

    PYTHONPATH=tests python tools/record_golden_fakes.py tests/golden/fakes.json

Run in an environment that holds torchxrayvision 1.5.7, NumPy, Pillow and pydicom. These sources
have no packaged table to compare with. An image is told by its size and mean, which every image
of a fake has to itself; a sample that 1.5.7 cannot read is null.
"""

from __future__ import annotations

import inspect
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import torchxrayvision as xrv
from fakes import brax, chexlocalize, covid19, mimic, nlmtb, objectcxr, stonybrook, tbx11k

# Name of the fake to the class and the builder.
FAKES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "BRAX": ("BRAX_Dataset", brax.build),
    "CheXlocalize": ("CheXlocalize_Dataset", chexlocalize.build),
    "CheXlocalize test": ("CheXlocalize_Dataset", chexlocalize.build_test),
    "COVID19": ("COVID19_Dataset", covid19.build),
    "COVID19 a": ("COVID19_Dataset", lambda folder: covid19.build_era(folder, "a")),
    "COVID19 b": ("COVID19_Dataset", lambda folder: covid19.build_era(folder, "b")),
    "COVID19 c": ("COVID19_Dataset", lambda folder: covid19.build_era(folder, "c")),
    "MIMIC": ("MIMIC_Dataset", mimic.build),
    "NLMTB Montgomery": ("NLMTB_Dataset", nlmtb.build),
    "NLMTB Shenzhen": ("NLMTB_Dataset", nlmtb.build_shenzhen),
    "ObjectCXR": ("ObjectCXR_Dataset", objectcxr.build),
    "StonyBrook": ("StonyBrookCOVID_Dataset", stonybrook.build),
    "TBX11K": ("TBX11K_Dataset", tbx11k.build),
}
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"views": ["*"]},
    {"views": ["PA"]},
    {"views": ["PA", "AP"], "unique_patients": False},
    {"views": ["*"], "unique_patients": False},
    {"views": ["*"], "unique_patients": False, "max_aspect_ratio": None},
    {"split": "val"},
    {"split": "trainval"},
    {"pathology_masks": False, "segmentation_jsonpath": None},
)


def variants(parameters: set[str]) -> Iterator[dict[str, Any]]:
    """Those that a class has all arguments for."""
    return (variant for variant in VARIANTS if set(variant) <= parameters)


def image_of(dataset: Any, position: int) -> list[float] | None:
    """Height, width and mean of an image."""
    try:
        image = dataset[position]["img"]
    except (OSError, KeyError):  # no such file; a table that is shorter than the labels
        return None
    return [*image.shape[1:], round(float(image.mean()), 3)]


def outcome(cls: type, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Rows, labels and findings."""
    dataset = cls(**kwargs)
    labels = [[None if np.isnan(v) else float(v) for v in row] for row in dataset.labels]
    return {
        "pathologies": [str(name) for name in dataset.pathologies],
        "rows": len(dataset.csv),
        "labels": labels,
        "images": [image_of(dataset, position) for position in range(len(dataset))],
    }


def record(class_name: str, build: Callable[[Path], Any]) -> list[dict[str, Any]]:
    """The outcome of every variant on one fake."""
    cls = getattr(xrv.datasets, class_name)
    parameters = set(inspect.signature(cls).parameters)
    with tempfile.TemporaryDirectory() as folder:
        given = build(Path(folder)).kwargs
        paths: dict[str, Any] = {
            name: str(value) for name, value in given.items() if name in parameters
        }
        if "segmentation_jsonpath" in parameters - set(paths):
            paths["pathology_masks"] = False  # 1.5.7 insists
        return [
            {"arguments": variant, **outcome(cls, {**paths, **variant})}
            for variant in variants(parameters)
        ]


def main() -> None:
    warnings.simplefilter("ignore")
    golden = {
        name: {"class": class_name, "outcomes": record(class_name, build)}
        for name, (class_name, build) in FAKES.items()
    }
    # One outcome a line keeps the file small and its changes readable.
    lines = []
    for name, entry in golden.items():
        outcomes = ",\n".join(f"   {json.dumps(item)}" for item in entry["outcomes"])
        head = f' {json.dumps(name)}: {{"class": {json.dumps(entry["class"])}, "outcomes": ['
        lines.append(f"{head}\n{outcomes}\n ]}}")
    Path(sys.argv[1]).write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()

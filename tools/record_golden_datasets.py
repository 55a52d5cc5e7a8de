"""Record what the dataset classes of torchxrayvision 1.5.7 return for the tables it packages.

    python tools/record_golden_datasets.py [--out tests/golden/datasets.json]

Runs in an environment of its own in which torchxrayvision 1.5.7 is installed; it calls the public
classes and writes numbers and digests, never data. Digests, exactly:

* ``labels``: SHA-256 of ``np.where(np.isnan(x), -9, x).astype("<f4").tobytes()`` of the array of
  shape (n, pathologies) in C order.
* a column: SHA-256 of ``"\\n".join(map(text, values)).encode()``, where ``text`` of a missing value
  is ``""``, of a boolean ``"1"`` or ``"0"``, of a number with no fraction its integer, of any other
  number ``repr(float(x))``, of anything else ``str``.
* ``masks``: SHA-256 of, for each image in turn and each pathology in alphabetical order, the text
  ``"<image>|<pathology>|"`` and ``np.packbits(mask > 0.5, axis=None).tobytes()``, mask (H, W).

``tests/support/digests.py`` takes the same digests in the suite.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import math
import platform
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np

OUT = Path(__file__).parents[1] / "tests" / "golden" / "datasets.json"
VIEWS = {"PA": ["PA"], "PA+AP": ["PA", "AP"], "*": "*"}
MASKED_IMAGES = 50

# Class: column that names the image of a row, whether it takes views, and unique_patients.
SOURCES = {
    "NIH_Dataset": ("Image Index", True, True),
    "RSNA_Pneumonia_Dataset": ("patientId", True, False),
    "NIH_Google_Dataset": ("Image Index", True, True),
    "PC_Dataset": ("ImageID", True, True),
    "CheX_Dataset": ("Path", True, True),
    "Openi_Dataset": ("imageid", True, True),
    "SIIM_Pneumothorax_Dataset": ("ImageId", False, True),
    "VinDr_Dataset": ("image_id", False, False),
}
SHARED = (
    "patientid",
    "age_years",
    "sex_male",
    "sex_female",
    "offset_day_int",
    "view",
    "has_masks",
)
MASKS = {
    "NIH_Dataset": ({"views": "*", "unique_patients": False}, "get_mask_dict", [1024, 512, 1000]),
    "RSNA_Pneumonia_Dataset": ({"views": "*"}, "get_mask_dict", [1024, 512, 1000]),
    "SIIM_Pneumothorax_Dataset": ({}, "get_pathology_mask_dict", [1024, 512, 1000]),
    "VinDr_Dataset": ({}, "get_mask_dict", [(1, 3400, 3400)]),
}
OTHER_CLASSES = (
    "CheXlocalize_Dataset",
    "MIMIC_Dataset",
    "BRAX_Dataset",
    "COVID19_Dataset",
    "NLMTB_Dataset",
    "TBX11K_Dataset",
    "StonyBrookCOVID_Dataset",
    "ObjectCXR_Dataset",
)
TOOLS = (
    "relabel_dataset",
    "MergeDataset",
    "FilterDataset",
    "SubsetDataset",
    "CovariateDataset",
    "XRayResizer",
    "XRayCenterCrop",
    "ToPILImage",
    "apply_transforms",
    "normalize",
)


def text(value: object) -> str:
    """The text of one cell in a digest."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "1" if value else "0"
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        number = float(value)
        return str(int(number)) if number.is_integer() else repr(number)
    return str(value)


def digest_column(values) -> str:
    """Digest of a column, as the module says."""
    return hashlib.sha256("\n".join(map(text, values)).encode()).hexdigest()


def digest_labels(labels) -> str:
    """Digest of the labels, as the module says."""
    array = np.asarray(labels, np.float32)
    return hashlib.sha256(np.where(np.isnan(array), -9, array).astype("<f4").tobytes()).hexdigest()


def digest_masks(dataset, method: str, images, size) -> tuple[str, int]:
    """Digest of the masks of some images and how many pixels they set."""
    digest, pixels = hashlib.sha256(), 0
    names = [str(p) for p in dataset.pathologies]
    for image in images:
        masks = getattr(dataset, method)(image, size)
        for name, mask in sorted((names[index], mask) for index, mask in masks.items()):
            filled = np.asarray(mask)[0] > 0.5
            pixels += int(filled.sum())
            digest.update(f"{image}|{name}|".encode() + np.packbits(filled, axis=None).tobytes())
    return digest.hexdigest(), pixels


def totals(dataset) -> dict:
    """Counts per pathology and value, JSON keys as text."""
    counts = {}
    for name, column in zip(
        dataset.pathologies, np.asarray(dataset.labels, np.float32).T, strict=True
    ):
        values, numbers = np.unique(column[~np.isnan(column)], return_counts=True)
        counts[str(name)] = {text(v): int(n) for v, n in zip(values, numbers, strict=True)}
        if np.isnan(column).any():
            counts[str(name)]["nan"] = int(np.isnan(column).sum())
    return counts


def own_totals(dataset) -> dict:
    """What the class itself counts."""
    return {
        str(name): {text(v): int(n) for v, n in counts.items()}
        for name, counts in dataset.totals().items()
    }


def record_rows(dataset, image_column: str) -> dict:
    """Rows, order, labels and shared columns of one dataset."""
    table = dataset.csv
    columns = {c: digest_column(table[c]) for c in SHARED if c in table.columns}
    counted = totals(dataset)
    record = {
        "rows": len(dataset),
        "pathologies": [str(p) for p in dataset.pathologies],
        "images": digest_column(table[image_column]),
        "first_images": [str(v) for v in table[image_column].iloc[:3]],
        "last_image": str(table[image_column].iloc[-1]),
        "labels": digest_labels(dataset.labels),
        "positive_cells": int(np.nansum(np.asarray(dataset.labels) == 1)),
        "totals": counted,
        "columns": columns,
        "csv_columns": [str(c) for c in table.columns]
        if len(table.columns) < 60
        else len(table.columns),
    }
    if "has_masks" in columns:
        record["has_masks"] = totals_of(table["has_masks"])
    mine = {n: {v: c for v, c in t.items() if v != "nan"} for n, t in counted.items()}
    if own_totals(dataset) != mine:
        record["own_totals"] = own_totals(dataset)
    return record


def totals_of(values) -> dict:
    """Counts of the values of a column."""
    found, numbers = np.unique(np.asarray(values), return_counts=True)
    return {text(v): int(n) for v, n in zip(found, numbers, strict=True)}


def parameters(takes_views: bool, takes_unique: bool):
    """Every combination that is recorded."""
    for label, views in VIEWS.items() if takes_views else [("", None)]:
        for unique in (True, False) if takes_unique else (None,):
            keywords = {} if views is None else {"views": views}
            if unique is not None:
                keywords["unique_patients"] = unique
            yield label, unique, keywords


def record_source(xrv, name: str, folder: str) -> list:
    """All combinations of one class."""
    image_column, takes_views, takes_unique = SOURCES[name]
    records = []
    for _, _, keywords in parameters(takes_views, takes_unique):
        entry = {"parameters": keywords}
        try:
            dataset = getattr(xrv.datasets, name)(imgpath=folder, **keywords)
        except Exception as error:  # noqa: BLE001 - what 1.5.7 raises is the fact recorded
            entry["raises"] = f"{type(error).__name__}: {error}"[:200]
        else:
            entry.update(record_rows(dataset, image_column))
        records.append(entry)
        print(name, keywords, entry.get("rows", entry.get("raises")), flush=True)
    return records


def record_masks(xrv, name: str, folder: str) -> dict:
    """Masks of evenly spaced images that have some."""
    keywords, method, sizes = MASKS[name]
    dataset = getattr(xrv.datasets, name)(imgpath=folder, pathology_masks=True, **keywords)
    column = SOURCES[name][0]
    marked = list(dict.fromkeys(dataset.csv[column][dataset.csv["has_masks"].to_numpy(bool)]))
    step = len(marked) // MASKED_IMAGES
    images = [str(v) for v in marked[::step][:MASKED_IMAGES]]
    record = {
        "parameters": keywords,
        "method": method,
        "marked_images": len(marked),
        "images": images,
        "sizes": [],
    }
    for size in sizes:
        digest, pixels = digest_masks(dataset, method, images, size)
        record["sizes"].append({"size": size, "masks": digest, "pixels": pixels})
    print(name, "masks", [s["pixels"] for s in record["sizes"]], flush=True)
    return record


def record_lungs(xrv, folder: str) -> dict:
    """Lung masks of the COVID-19 collection, every eleventh of the archive, at their own size."""
    import pandas as pd

    archive = Path(xrv.__file__).parent / "data" / "semantic_masks_v7labs_lungs.zip"
    with zipfile.ZipFile(archive) as opened:
        names = [n.partition("/")[2] for n in opened.namelist() if not n.endswith("/")][::11]
    table = Path(folder) / "metadata.csv"
    pd.DataFrame(
        {
            "patientid": range(len(names)),
            "offset": 0,
            "finding": "Pneumonia/Viral/COVID-19",
            "view": "PA",
            "folder": "images",
            "filename": names,
        }
    ).to_csv(table, index=False)
    dataset = xrv.datasets.COVID19_Dataset(imgpath=folder, csvpath=str(table), semantic_masks=True)
    record = {}
    for name in names:
        mask = dataset.get_semantic_mask_dict(name, (1, 8, 8))["Lungs"][0] > 0.5
        packed = np.packbits(mask, axis=None).tobytes()
        record[name] = {
            "shape": list(mask.shape),
            "pixels": int(mask.sum()),
            "mask": hashlib.sha256(packed).hexdigest(),
        }
    return record


def signatures(xrv) -> dict:
    """Constructor arguments in order with their defaults."""
    found = {}
    for name in (*SOURCES, *OTHER_CLASSES, *TOOLS):
        parameters = inspect.signature(getattr(xrv.datasets, name)).parameters.values()
        found[name] = {
            p.name: "required" if p.default is p.empty else repr(p.default) for p in parameters
        }
    return found


def main() -> None:
    """Record everything and write one file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--only", nargs="*", help="names of classes")
    args = parser.parse_args()
    import pandas as pd

    import torchxrayvision as xrv

    warnings.simplefilter("ignore")
    record = {
        "about": "torchxrayvision 1.5.7 on its packaged tables; tools/record_golden_datasets.py "
        "says how each digest is taken. offset_day_int of PC_Dataset is 1.5.7's under pandas 3, "
        "which is off by a factor of 1,000 from days.",
        "torchxrayvision": xrv.__version__,
        "python": platform.python_version(),
        "pandas": pd.__version__,
        "numpy": np.__version__,
        "image_column": {name: facts[0] for name, facts in SOURCES.items()},
        "signatures": signatures(xrv),
        "public_names": sorted(n for n in dir(xrv.datasets) if not n.startswith("_")),
        "default_pathologies": list(xrv.datasets.default_pathologies),
        "datasets": {},
        "masks": {},
        "lungs": {},
    }
    names = args.only or list(SOURCES)
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            record["datasets"][name] = record_source(xrv, name, folder)
        for name in (n for n in names if n in MASKS):
            record["masks"][name] = record_masks(xrv, name, folder)
        if not args.only:
            record["lungs"] = record_lungs(xrv, folder)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()

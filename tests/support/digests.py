"""The digests of ``tests/golden/datasets.json``, as tools/record_golden_datasets.py takes them."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden" / "datasets.json"


def golden():
    """The record of 1.5.7's packaged datasets."""
    return json.loads(GOLDEN.read_text("utf-8"))


def cell_text(value):
    """The text of one cell: integers without a fraction, 1 and 0 for booleans, "" for missing."""
    if value is None or (isinstance(value, (float, np.floating)) and math.isnan(value)):
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "1" if value else "0"
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        number = float(value)
        return str(int(number)) if number.is_integer() else repr(number)
    return str(value)


def digest_column(values):
    """SHA-256 of the cells of a column, one a line."""
    return hashlib.sha256("\n".join(map(cell_text, values)).encode()).hexdigest()


def digest_labels(labels):
    """SHA-256 of labels (n, pathologies) as little-endian float32 with -9 for NaN."""
    array = np.asarray(labels, np.float32)
    return hashlib.sha256(np.where(np.isnan(array), -9, array).astype("<f4").tobytes()).hexdigest()


def digest_masks(masks):
    """SHA-256 over (image, pathology, mask), and the number of pixels set.

    The caller yields images in the order of the record and pathologies in alphabetical order.
    """
    digest, pixels = hashlib.sha256(), 0
    for image, pathology, mask in masks:
        array = np.asarray(mask)
        filled = array if array.dtype == bool else array > 0.5
        pixels += int(filled.sum())
        digest.update(f"{image}|{pathology}|".encode() + np.packbits(filled, axis=None).tobytes())
    return digest.hexdigest(), pixels

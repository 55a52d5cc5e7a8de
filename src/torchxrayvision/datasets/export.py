"""A dataset as plain files, for tools that know nothing of this package."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.errors import DatasetError
from torchxrayvision.files import PROVENANCE_KEY, Provenance, write_atomically
from torchxrayvision.inputs import ReadOptions, prefetch
from torchxrayvision.labels import LABEL_PREFIX
from torchxrayvision.provenance import png_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from torchxrayvision.datasets.base import Dataset

_log = logging.getLogger(__name__)


def label_table(dataset: Dataset) -> pd.DataFrame:
    """The csv of a dataset and its labels side by side.

    Args:
        dataset: Any dataset or container.

    Returns:
        One row per image: the columns of ``csv``, then one float32 column ``label:<finding>`` each.
    """
    import pandas as pd

    labels = {
        f"{LABEL_PREFIX}{name}": dataset.labels[:, column].astype(np.float32)
        for column, name in enumerate(dataset.pathologies)
    }
    csv = dataset.csv.reset_index(drop=True)
    return pd.concat([csv, pd.DataFrame(labels, index=csv.index)], axis=1)


def export_parquet(dataset: Dataset, path: str | Path) -> Path:
    """Write `label_table` as one Parquet file; images stay where they are.

    Args:
        dataset: Any dataset or container.
        path: File to write; it appears only when complete.

    Returns:
        The path.
    """
    target = Path(path)
    table = label_table(dataset)
    table.columns = [str(name) for name in table.columns]
    for name in [n for n, kind in table.dtypes.items() if kind == np.dtype(object)]:
        table[name] = table[name].map(_plain)  # lists and mixed types have no column type
    import pyarrow as pa
    import pyarrow.parquet as pq

    packed = pa.Table.from_pandas(table)
    held = {**(packed.schema.metadata or {}), PROVENANCE_KEY: _provenance(dataset).to_json()}
    with write_atomically(target) as part:
        pq.write_table(packed.replace_schema_metadata(held), part, compression="zstd")
    return target


def _provenance(dataset: Dataset) -> Provenance:
    return Provenance(
        command="xrv datasets export",
        output="labels",
        inputs={"dataset": type(dataset).__name__, "images": len(dataset)},
    )


def _plain(value: Any) -> str | None:
    if value is None or value != value:  # NaN of any type is unequal to itself
        return None
    return value if isinstance(value, str) else str(value)


def export_folder(
    dataset: Dataset,
    folder: str | Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    reading: ReadOptions | None = None,
) -> dict[str, str]:
    """Write a WebDataset-style folder: for each image ``<key>.png``, ``<key>.json`` and its masks.

    The key is the position with nine digits, so that the order of names is the order of rows.
    Images are 16 bit grey, 0 for -1024 and 65535 for 1024; masks ``<key>.mask.<finding>.png``
    are 0 and 255. The JSON holds labels by finding (null for unknown) and the fields of the csv.
    Each file says what made it, see `torchxrayvision.provenance`.

    Args:
        dataset: A dataset with images.
        folder: New or empty folder.
        progress: Called with (done, total) after each image.
        reading: Its `time_limit` is that of one image; one thread reads, in order, so that random
            transforms draw the same numbers in every export.

    Returns:
        Key to reason for images that could not be read; they have a JSON file with an ``error``.

    Raises:
        DatasetError: If the folder holds something.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        msg = f"{target} is not empty; name a new folder"
        raise DatasetError(msg)
    failed: dict[str, str] = {}
    made = _provenance(dataset)
    options = replace(reading or ReadOptions(), workers=1, isolate=False)
    samples = prefetch(range(len(dataset)), lambda at, _: dataset[at], options)
    for position, sample in samples:
        key = f"{position:09d}"
        record = _record(dataset, position) | {"provenance": made.to_dict()}
        if isinstance(sample, str):
            failed[key] = record["error"] = sample
            _log.info("row %d: %s", position, sample)
        else:
            _write_sample(target, key, dataset, sample, made)
        text = json.dumps(record, ensure_ascii=False, allow_nan=False, default=str)
        (target / f"{key}.json").write_text(text, encoding="utf-8")
        if progress is not None:
            progress(position + 1, len(dataset))
    return failed


def _record(dataset: Dataset, position: int) -> dict[str, Any]:
    row = dataset.csv.iloc[position]
    known = {str(k): _scalar(v) for k, v in row.items()}
    labels = dataset.labels[position]
    return {
        "labels": {
            name: None if np.isnan(value) else float(value)
            for name, value in zip(dataset.pathologies, labels, strict=True)
        },
        "fields": {name: value for name, value in known.items() if value is not None},
    }


def _scalar(value: Any) -> Any:
    """A value that JSON knows; None for a missing one."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    return None if value != value else str(value)  # NaT is unequal to itself


def _write_sample(
    folder: Path, key: str, dataset: Dataset, sample: Mapping[str, Any], made: Provenance
) -> None:
    scaled = (np.asarray(sample["img"], dtype=np.float64)[0] + 1024) * (65535 / 2048)
    _png(folder / f"{key}.png", scaled.round().clip(0, 65535).astype(np.uint16), made)
    named = {
        dataset.pathologies[index]: mask
        for index, mask in sample.get("pathology_masks", {}).items()
    }
    for name, mask in {**named, **sample.get("semantic_masks", {})}.items():
        safe = str(name).replace("/", "_").replace(" ", "_")
        _png(
            folder / f"{key}.mask.{safe}.png",
            (np.asarray(mask)[0] > 0.5).astype(np.uint8) * np.uint8(255),
            made,
        )


def _png(path: Path, pixels: NDArray[Any], made: Provenance) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(path, compress_level=3, pnginfo=png_text(made))

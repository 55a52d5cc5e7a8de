"""What tells one state of an image from another without decoding it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from torchxrayvision.datasets._compose import MergeDataset, SubsetDataset
from torchxrayvision.datasets._images import Files, IndexedFiles
from torchxrayvision.errors import DatasetError

__all__ = ["identities"]


def identities(dataset: Any) -> list[str]:
    """A text for each image that changes when the image does.

    For a file it is its name, size, times of change of content and of entry; for a member of an
    archive its name and those of the archive; for a simulated image all that it is computed from.

    Args:
        dataset: A dataset of this package, or a container of such.

    Returns:
        One text a row.

    Raises:
        DatasetError: If the dataset transforms its images, or is of an unknown kind.
        DatasetNotFoundError: If an image is missing.
    """
    if isinstance(dataset, SubsetDataset):
        inner = identities(dataset.dataset)
        return [inner[int(row)] for row in dataset.idxs]
    if isinstance(dataset, MergeDataset):
        return [text for part in dataset.datasets for text in identities(part)]
    name = type(dataset).__name__
    if getattr(dataset, "transform", None) or getattr(dataset, "data_aug", None):
        msg = f"{name} has a transform or data_aug; leave both out, images are prepared here"
        raise DatasetError(msg)
    images = getattr(getattr(dataset, "spec", None), "images", None)
    if images is None:
        msg = f"{name} does not say where its images come from; give PreparedImages an array"
        raise DatasetError(msg)
    release = dataset._release
    rows = (dataset._row(position) for position in range(len(dataset)))
    if isinstance(images, Files | IndexedFiles):
        return [f"{images.name(row)} {_stamp(images.open(row, release))}" for row in rows]
    place = images.place(release)
    common = f"{name} {_stamp(place)}" if place.is_file() else _computed(dataset, release)
    return [f"{common} {images.name(row)}" for row in rows]


def _stamp(path: Any) -> str:
    status = Path(path).stat()
    # The time of the entry cannot be set back, so a copy over the file is seen in any case.
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _computed(dataset: Any, release: Any) -> str:
    """All that simulated images depend on: arguments, and the code that draws them."""
    from torchxrayvision import phantom

    code = hashlib.sha256()
    for path in sorted(Path(phantom.__file__).parent.glob("*.py")):
        code.update(path.read_bytes())
    arguments = json.dumps(release.arguments, sort_keys=True, default=str)
    return f"{type(dataset).__name__} {arguments} {code.hexdigest()}"

"""Is the release on this disk the one that the tables describe? `verify`."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.errors import DatasetError, DatasetNotFoundError, ImageReadError, counted
from torchxrayvision.files import sha256_of
from torchxrayvision.inputs import ReadOptions, prefetch, read_bytes, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from torchxrayvision.datasets.pipeline import SpecDataset
    from torchxrayvision.inputs import Read

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Report:
    """What `verify` found.

    Attributes:
        dataset: Name of the class.
        checked: How many rows were looked at.
        missing: Paths of images that are not there.
        unreadable: Path and reason of images that cannot be decoded.
        wrong_size: Path, size found (height, width) and size expected.
        duplicates: Groups of paths with the same bytes, or named by several rows.
    """

    dataset: str
    checked: int = 0
    missing: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    wrong_size: list[tuple[str, tuple[int, int], tuple[int, int]]] = field(default_factory=list)
    duplicates: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every image is there, can be read and has its size; duplicates are no fault."""
        return not (self.missing or self.unreadable or self.wrong_size)

    def __str__(self) -> str:
        lines = [
            f"{self.dataset}: {counted(self.checked, 'image')} checked, "
            f"{len(self.missing):,} missing, {len(self.unreadable):,} unreadable, "
            f"{len(self.wrong_size):,} of the wrong size, "
            f"{counted(len(self.duplicates), 'group')} of duplicates"
        ]
        for name in ("missing", "unreadable", "wrong_size", "duplicates"):
            found = getattr(self, name)
            lines += [f"  {name}: {entry}" for entry in found[:10]]
            if len(found) > 10:
                lines.append(f"  {name}: and {len(found) - 10:,} more")
        return "\n".join(lines)


@dataclass
class _Finding:
    path: str
    missing: bool = False
    reason: str = ""
    size: tuple[int, int] | None = None
    digest: str = ""


def verify(
    dataset: SpecDataset,
    *,
    decode: bool = True,
    hashes: bool = True,
    workers: int = 4,
    progress: Callable[[int, int], None] | None = None,
    reading: ReadOptions | None = None,
) -> Report:
    """Check every image of a dataset against its table.

    Args:
        dataset: Any dataset of this package that reads images.
        decode: Decode the pixels; False looks only whether the files are there.
        hashes: Find images with the same bytes; needs to read every file.
        workers: Threads.
        progress: Called with (done, total) after each image, such as the update of a bar.
        reading: Limits for reading a file; its `workers`, if given, replace those above.

    Returns:
        The report; its ``ok`` is what a script wants, its text what a person wants.

    Raises:
        DatasetNotFoundError: If the folder itself is missing.
        DatasetError: If `dataset` is a container.
    """
    if not hasattr(dataset, "spec"):
        msg = f"verify takes one dataset, not a container such as {type(dataset).__name__}"
        raise DatasetError(msg)
    dataset.spec.images.place(dataset._context)  # the folder is there, or a clear error is raised
    expected = _expected(dataset)
    report = Report(dataset=type(dataset).__name__, checked=len(dataset))
    seen: dict[str, list[str]] = {}
    options = reading or ReadOptions()
    options = replace(options, workers=options.workers or workers)
    check = partial(_check, dataset, decode=decode, hashes=hashes)
    for done, outcome in prefetch(range(len(dataset)), check, options):
        found = outcome
        if isinstance(found, str):
            found = _Finding(dataset.spec.images.name(dataset._row(done)), reason=found)
        _sort_in(report, found, None if expected is None else expected[done])
        if found.digest:
            seen.setdefault(found.digest, []).append(found.path)
        if progress is not None:
            progress(done + 1, len(dataset))
    report.duplicates = [tuple(paths) for paths in seen.values() if len(paths) > 1]
    return report


def _expected(dataset: SpecDataset) -> list[tuple[int, int]] | None:
    rule = dataset.spec.expected_sizes
    if rule is None:
        return None
    if isinstance(rule, tuple):
        return [rule] * len(dataset)
    return [(int(h), int(w)) for h, w in np.asarray(rule(dataset.csv, dataset._context))]


def _check(
    dataset: SpecDataset, position: int, read: Read, *, decode: bool, hashes: bool
) -> _Finding:
    images, context = dataset.spec.images, dataset._context
    row = dataset._row(position)
    found = _Finding(images.name(row))
    if not images.exists(row, context):
        found.missing = True
        return found
    try:
        file = images.input_file(row, context)
        if hashes:
            whole = file.member is None and file.data is None
            found.digest = sha256_of(file.path if whole else read_bytes(file))
        if decode:
            shape = read(file).shape if images.plain else images.read(row, context).shape[-2:]
            found.size = (int(shape[0]), int(shape[1]))
    except DatasetNotFoundError:
        found.missing = True
    except (ImageReadError, OSError) as error:
        found.reason = reason_of(error)
    return found


def _sort_in(report: Report, found: _Finding, expected: tuple[int, int] | None) -> None:
    if found.missing:
        report.missing.append(found.path)
    elif found.reason:
        report.unreadable.append((found.path, found.reason))
    elif expected is not None and found.size is not None and found.size != expected:
        report.wrong_size.append((found.path, found.size, expected))

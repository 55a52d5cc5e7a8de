"""Bringing datasets to one list of findings: `relabel_dataset`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.datasets._pack import UNKNOWN
from torchxrayvision.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

__all__ = ["align", "relabel_dataset"]

logger = logging.getLogger(__name__)


def align(labels: NDArray[Any], names: Sequence[str], wanted: Sequence[str]) -> NDArray[Any]:
    """Columns of labels in another order; NaN for findings that are not there.

    Args:
        labels: Shape (..., len(names)), numbers, or int8 as `pack_labels` makes them.
        names: Finding of each column.
        wanted: Findings of the result.

    Returns:
        float32 or int8, shape (..., len(wanted)); never the array that was given.
    """
    index = {name: j for j, name in enumerate(names)}
    packed = labels.dtype == np.int8
    blank, kind = (UNKNOWN, np.int8) if packed else (np.nan, np.float32)
    result = np.full((*labels.shape[:-1], len(wanted)), blank, dtype=kind)
    for j, name in enumerate(wanted):
        if name in index:
            result[..., j] = labels[..., index[name]]
    return result


def relabel_dataset(pathologies: Iterable[str], dataset: Any, silent: bool = False) -> None:
    """Reorder, add and remove findings of a dataset, in place.

    A finding that the dataset lacks gets NaN, which losses and metrics leave out. The caller's
    list is copied. A container that is relabelled leaves the datasets inside it as they are.

    Args:
        pathologies: Findings wanted, in order; ``xrv.labels.DEFAULT_PATHOLOGIES`` for the order
            of the core models. ``""`` stands for an output without meaning.
        dataset: Any dataset or container; anything with ``pathologies`` and ``labels``.
        silent: Do not log what was added and dropped.

    Raises:
        DatasetError: If `pathologies` is one text, which is hardly ever meant.

    Example:
        >>> import numpy as np
        >>> from torchxrayvision.datasets import Dataset
        >>> tiny = Dataset()
        >>> tiny.pathologies, tiny.labels = ["Mass"], np.array([[1.0]], dtype=np.float32)
        >>> relabel_dataset(["Edema", "Mass"], tiny, silent=True)
        >>> tiny.labels.tolist()
        [[nan, 1.0]]
    """
    if isinstance(pathologies, str):
        msg = f"pathologies must be a list of findings, got the text {pathologies!r}"
        raise DatasetError(msg)
    wanted = [str(name) for name in pathologies]
    had = [str(name) for name in dataset.pathologies]
    if not silent:
        added = [name for name in wanted if name and name not in had]
        dropped = [name for name in had if name not in wanted]
        logger.info(
            "relabel %s: unknown here %s, dropped %s", type(dataset).__name__, added, dropped
        )
    relabel = getattr(dataset, "_relabel", None)
    if relabel is not None:
        relabel(wanted)
    else:
        labels = align(np.asarray(dataset.labels), had, wanted)
        dataset.pathologies, dataset.labels = wanted, labels

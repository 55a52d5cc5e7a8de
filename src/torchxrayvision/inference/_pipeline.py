"""Read and prepare files on threads while the network runs; results in the order of the input."""

from __future__ import annotations

import itertools
import logging
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from torchxrayvision.errors import ImageReadError, XRVError
from torchxrayvision.images import read_raster
from torchxrayvision.models._calibration import OutputKind, calibrate
from torchxrayvision.transforms import prepare

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from torchxrayvision.inference._sources import Source
    from torchxrayvision.models import XRayClassifier

__all__ = ["Result", "default_workers", "run"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one file.

    Args:
        path: The file as the user named it.
        error: What went wrong, or an empty string.
        outputs: One number a target, shape (P,) float32, or None after an error.
        embedding: Features, shape (D,) float32, if they were asked for.
    """

    path: str
    error: str
    outputs: NDArray[np.float32] | None = None
    embedding: NDArray[np.float32] | None = None


def default_workers() -> int:
    """Threads that read images: one for each processor this process may use, at most eight."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(8, usable or 1)


def _load(source: Source, size: int) -> NDArray[np.float32] | str:
    """The prepared image, or what is wrong with the file."""
    try:
        raster = read_raster(source.path)
        return prepare(raster.pixels, raster.scale, raster.offset, size)
    except ImageReadError as error:
        return error.reason + (f"; {error.advice}" if error.advice else "")
    except (XRVError, OSError) as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - one bad file must not lose the run
        _log.exception("unexpected error on %s", source.path)
        return f"{type(error).__name__}: {error}"


def _loaded(
    sources: Iterable[Source], size: int, workers: int, ahead: int
) -> Iterator[tuple[Source, NDArray[np.float32] | str]]:
    """Prepared images in order, at most `ahead` of them in memory."""
    remaining = iter(sources)
    pending: deque[tuple[Source, Future[NDArray[np.float32] | str]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="xrv-read") as pool:
        try:
            while True:
                for source in itertools.islice(remaining, ahead - len(pending)):
                    pending.append((source, pool.submit(_load, source, size)))
                if not pending:
                    return
                source, future = pending.popleft()
                yield source, future.result()
        finally:
            for _, future in pending:
                future.cancel()


def _forward(
    model: XRayClassifier, batch: list[NDArray[np.float32]], kind: OutputKind
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Outputs (B, P) and embeddings (B, D) of prepared images."""
    device = next(model.parameters()).device
    with torch.inference_mode():
        x = torch.from_numpy(np.stack(batch)).to(device, next(model.parameters()).dtype)
        features = model.embed(x)
        values = calibrate(model.head(features), kind, model.op_threshs)
    return values.float().cpu().numpy(), features.float().cpu().numpy()


def run(
    model: XRayClassifier,
    sources: Iterable[Source],
    *,
    kind: OutputKind,
    batch_size: int,
    workers: int,
    embeddings: bool,
) -> Iterator[Result]:
    """Predict every source, one result each, in order.

    Args:
        model: In evaluation mode, on its device; must have an input resolution.
        sources: Files; consumed lazily.
        kind: Meaning of the values.
        batch_size: Images that go through the network together.
        workers: Threads that read and prepare images.
        embeddings: Whether results carry the features.

    Yields:
        One result a source. A file that cannot be read gives a result with an error.
    """
    size = model.input_resolution
    if size is None:
        msg = "this model names no input resolution; set model.input_resolution to a side in pixels"
        raise ValueError(msg)
    loaded = _loaded(sources, size, workers, ahead=2 * batch_size + workers)
    # Batches are counted in files, not in readable files, so results never wait for later ones.
    while chunk := list(itertools.islice(loaded, batch_size)):
        images = [image for _, image in chunk if not isinstance(image, str)]
        outputs = iter(zip(*_forward(model, images, kind), strict=True)) if images else iter(())
        for source, image in chunk:
            if isinstance(image, str):
                yield Result(source.given, image)
            else:
                values, features = next(outputs)
                yield Result(source.given, "", values, features if embeddings else None)

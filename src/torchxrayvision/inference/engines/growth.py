"""Batches that grow while that makes a device faster, decided on the work itself.

A GPU computes a few images hardly slower than one, and how many it takes to fill it depends on the
device, the network and the side of the images. So a run whose batch size nobody named begins with
the usual one, and each batch that is computed anyway is timed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from torchxrayvision.inference.engines.base import Engine, on_cuda
from torchxrayvision.inference.engines.runtime import Choice, input_size

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from torchxrayvision.inference.engines.base import Finish
    from torchxrayvision.models import XRayModel

_log = logging.getLogger(__name__)

GAIN: Final = 1.05
"""Images per second with a batch of twice the size, by which it must be faster."""
_TIMED: Final = 3  # batches of a size; the fastest counts, as others may share the device
_MOST: Final = 512  # images of a batch: larger ones gain nothing on any device
_MOST_BYTES: Final = 256 << 20  # of the images and results of a batch in the memory of the host
_BATCHES: Final = 8  # of its size that a run has at least: the first ones only tell whether it pays


class Growth:
    """What the times of batches say of the size of the next ones.

    The size doubles as long as a device computes more images per second than before. The first
    batch of each size on a device is not counted: kernels are chosen and memory is taken in it.
    After a batch that did not fit, the size is the largest that did, and stays.

    Args:
        size: Images of the first batches.
        most: Images of the largest ones.
        devices: That share the batches.

    Attributes:
        size: Images of the next batches.
        settled: Whether it stays.
    """

    def __init__(self, size: int, most: int, devices: int = 1) -> None:
        self._first = devices  # batches of a size that are not counted, one of each device
        self.size = size
        self.settled = 2 * size > most
        self._most = most
        self._before: tuple[int, float] | None = None  # the size before, and images per second
        self._seconds: list[float] = []

    def note(self, size: int, seconds: float, fitted: int) -> None:
        """Learn from a batch.

        Args:
            size: Images that it had.
            seconds: That the device took for it.
            fitted: Images that went through at once; fewer than `size` where memory ran out.
        """
        if self.settled or size != self.size:  # of a size that was left meanwhile
            return
        if fitted < size:
            self._settle(fitted, f"{size} do not fit")
            return
        self._seconds.append(seconds)
        if len(self._seconds) < self._first + _TIMED:
            return
        rate = size / max(min(self._seconds[self._first :]), 1e-9)
        self._seconds = []
        if self._before is not None and rate < GAIN * self._before[1]:
            self._settle(self._before[0], f"{size} gain nothing")
        elif 2 * size > self._most:
            self._settle(size, "the largest that this run makes")
        else:
            self._before = size, rate
            self.size = 2 * size
            _log.info("%d images per batch: %.0f per second; trying %d", size, rate, self.size)

    def failed(self, size: int) -> None:
        """Learn that no batch of a size can even be prepared; the size is that before, and stays.

        Args:
            size: Images that it would have had.
        """
        self._settle(size // 2, f"{size} cannot be prepared")

    def _settle(self, size: int, reason: str) -> None:
        self.size, self.settled = size, True
        _log.info("%d images per batch from here on: %s", size, reason)


class GrowingEngine(Engine):
    """An engine that is opened again for batches of another size, as `Growth` says.

    Args:
        open_with: Gives an engine for batches of a size.
        size: Images of the first batches.
        most: Images of the largest ones.
        devices: That share the batches.

    Attributes:
        growth: What is known of sizes.
    """

    def __init__(
        self, open_with: Callable[[int], Engine], size: int, most: int, devices: int = 1
    ) -> None:
        self._open_with = open_with
        self._engine = open_with(size)
        self._retired: Engine | None = None  # it may have batches that are not finished
        self.growth = Growth(size, most, devices)
        self.name = self._engine.name
        self.wanted = self._engine.wanted
        self._follow()

    def _follow(self) -> None:
        self.input = self._engine.input
        self.overlaps = self._engine.overlaps

    def start(self) -> Finish:
        """See `Engine`; the buffer that is to be written then may have another size."""
        engine = self._engine
        finish = engine.start()
        size = len(engine.input)

        def finish_and_note() -> tuple[torch.Tensor, ...]:
            given = finish()
            if engine is self._engine:
                self._retired = None
            self.took, self.fitted = engine.took, engine.fitted
            self.growth.note(size, engine.took, engine.fitted)
            return given

        if self.growth.size != size:
            self._resize()
        self._follow()
        return finish_and_note

    def _resize(self) -> None:
        """Open another engine; what the one before has begun is still finished by it."""
        before, size = self._engine, self.growth.size
        try:
            self._engine = self._open_with(size)
        except RuntimeError as error:  # memory of the device or pinned memory is short
            if size <= len(before.input):
                raise
            _log.info("a batch of %d images: %s", size, error)
            self.growth.failed(size)
            return
        before.retire()
        self._retired = before

    def _run(self) -> tuple[torch.Tensor, ...]:
        return self.start()()

    def close(self) -> None:
        """See `Engine`."""
        for engine in (self._engine, self._retired):
            if engine is not None:
                engine.close()


def most_images(
    model: XRayModel, size: int, images: int | None, choice: Choice, devices: int = 1
) -> int:
    """Up to how many images a batch may grow; `size` where it does not.

    Only on CUDA devices: processors are as fast with a few images, and their last bits would depend
    on the time. What `torch.compile` made is for one size, and making it again takes minutes.

    Args:
        model: On its device.
        size: Images of the first batches.
        images: How many there are to do; None where that is not known.
        choice: What runs it.
        devices: That share the images.
    """
    if not on_cuda(model) or choice.engine != "torch" or choice.compiled:
        return size
    side = input_size(model)
    planes = 1 + (0 if hasattr(model, "features_width") else len(getattr(model, "targets", ())))
    most = min(_MOST, _MOST_BYTES // (4 * planes * side * side))
    return max(size, most if images is None else min(most, images // (_BATCHES * devices)))

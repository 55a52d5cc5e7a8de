"""What a CUDA device needs besides a CPU: true float32, pinned memory, and captured graphs.

Loaded only for a network that is on one.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, Final

import torch

from torchxrayvision.inputs import AIR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torchxrayvision.inference.engines.base import Timed

    Forward = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]

_WARM_UPS: Final = 3  # before a capture, in which nothing may be allocated or chosen any more


class _Float32:
    """Who computes in true float32 now; the settings of torch are those of the whole process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.give_back: Callable[[], None] = lambda: None


_float32: Final = _Float32()
_capturing: Final = threading.Lock()  # torch captures one graph at a time


@contextlib.contextmanager
def true_float32() -> Iterator[None]:
    """Let convolutions and products of matrices use all bits of float32.

    cuDNN otherwise rounds the factors of convolutions to ten bits (TF32), which moves
    probabilities by about 1e-3. Threads may enter at the same time: what was set before the first
    of them comes back after the last.
    """
    with _float32.lock:
        if not _float32.users:
            _float32.give_back = _without_tf32()
        _float32.users += 1
    try:
        yield
    finally:
        with _float32.lock:
            _float32.users -= 1
            if not _float32.users:
                _float32.give_back()


def _without_tf32() -> Callable[[], None]:
    """Set it; what is given sets what was before."""
    backends: Any = torch.backends
    name = "allow_tf32"
    wanted: bool | str = False
    parts = [backends.cudnn, backends.cuda.matmul]
    if hasattr(backends.cudnn, "conv"):  # from torch 2.9, where there is an old and a new way
        name, wanted = "fp32_precision", "ieee"
        parts = [backends.cudnn.conv, backends.cuda.matmul, backends.mkldnn.matmul]
    before = [getattr(part, name) for part in parts]
    for part in parts[:2]:
        setattr(part, name, wanted)
    old_way = _disagreeing()
    if old_way is not None:  # this sets products of matrices on CPUs as well
        torch.set_float32_matmul_precision("highest")

    def give_back() -> None:
        if old_way is not None:
            torch.set_float32_matmul_precision(old_way)
        for part, value in zip(parts, before, strict=True):
            setattr(part, name, value)

    return give_back


def _disagreeing() -> str | None:
    """What a program set the old way, where torch refuses products of matrices because of it."""
    try:
        torch.backends.cuda.matmul.allow_tf32  # noqa: B018 - each product asks for it
    except RuntimeError:
        try:
            return torch.get_float32_matmul_precision()
        except RuntimeError:
            return "high"
    return None


class Transfers:
    """Two pinned buffers for the images of a batch, used by turns, and the copies out of them.

    While a batch is computed the next one can be written and copied: the copy has a stream of its
    own, and the results come back into pinned memory, so that nothing waits before `finish`.

    Args:
        shape: Of a batch, (B, 1, S, S).
        device: Where it is computed.
    """

    def __init__(self, shape: Sequence[int], device: torch.device) -> None:
        self._device = device
        self._buffers = [torch.full(tuple(shape), AIR, pin_memory=True) for _ in range(2)]
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    @property
    def buffer(self) -> torch.Tensor:
        """Where the images of the next batch go."""
        return self._buffers[0]

    def swap(self) -> None:
        """Give the other buffer; the batch before the last must have been finished."""
        self._buffers.reverse()

    def to_device(self, images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """A copy of pinned images on the device, of which computing there waits.

        Another type than float32 is made there: on the way it would be made by the processor, in
        memory that is not pinned.
        """
        current = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            moved = images.to(self._device, non_blocking=True).to(dtype)
        current.wait_stream(self._stream)
        moved.record_stream(current)
        return moved

    def mark(self) -> torch.cuda.Event:
        """Where computing has come to on the device, with its time."""
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def to_host(self, given: Sequence[torch.Tensor], begin: torch.cuda.Event) -> Timed:
        """Begin to copy results; what it gives waits for them.

        Args:
            given: On the device.
            begin: See `mark`.

        Returns:
            What gives the results in pinned memory, and the seconds since `begin`.
        """
        host = tuple(
            torch.empty(one.shape, pin_memory=True).copy_(one.float(), non_blocking=True)
            for one in given
        )
        done = self.mark()

        def finish() -> tuple[tuple[torch.Tensor, ...], float]:
            done.synchronize()
            return host, begin.elapsed_time(done) / 1e3

        return finish


class Captured:
    """A network as one CUDA graph: all its kernels in a single launch.

    Networks for radiographs have hundreds of small kernels, which a processor may launch more
    slowly than a GPU computes them.

    Args:
        forward: The network; takes images on the device.
        images: Of the shape and type of every batch to come.
    """

    def __init__(self, forward: Forward, images: torch.Tensor) -> None:
        self._images = images.clone()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(images.device), _capturing:
            current = torch.cuda.current_stream()
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(current)
            with torch.cuda.stream(side):
                for _ in range(_WARM_UPS):
                    forward(self._images)
            current.wait_stream(side)
            # On a stream of this device: the one that torch takes by itself is of the device of
            # the first capture. Around it, as a capture that fails leaves its stream the current
            # one. Threads of other devices may take memory meanwhile, which "global" forbids.
            with (
                torch.cuda.stream(current),
                torch.cuda.graph(self._graph, stream=side, capture_error_mode="thread_local"),
            ):
                self._given = forward(self._images)

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What the network gives; overwritten by the next call."""
        self._images.copy_(images)
        self._graph.replay()
        return self._given


def name_of(device: torch.device) -> str:
    """The GPU, for what is remembered of this machine."""
    return torch.cuda.get_device_name(device)

"""One network on several devices: a copy and a thread for each, all fed from one queue."""

from __future__ import annotations

import copy
import threading
import warnings
from collections import deque
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from torchxrayvision.errors import DeviceError, XRVWarning, caller_stacklevel
from torchxrayvision.inference.engines.base import Engine
from torchxrayvision.inference.engines.growth import GrowingEngine, most_images
from torchxrayvision.inference.engines.runtime import aligned

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from torchxrayvision.inference.engines.base import Finish
    from torchxrayvision.inference.engines.runtime import Choice, Plan
    from torchxrayvision.models import XRayModel

    OpenOne = Callable[[XRayModel, int], Engine]

_Model = TypeVar("_Model", bound=nn.Module)


def open_as_planned(
    model: XRayModel, batch_size: int, choice: Choice, plan: Plan, open_one: OpenOne
) -> Engine:
    """A network with batches that grow, on several devices, or both; see `open_planned`.

    Args:
        model: In evaluation mode, on the first device.
        batch_size: Images of a batch, or of the first ones.
        choice: What runs it.
        plan: How.
        open_one: Opens it on one device, for batches of one size.
    """
    copies = Copies(model, plan.devices) if len(plan.devices) > 1 else None

    def open_with(size: int) -> Engine:
        if copies is None:
            return open_one(model, size)
        return DeviceGroup(copies, size, open_one)

    count = max(1, len(plan.devices))
    most = most_images(model, batch_size, plan.images, choice, count) if plan.grows else batch_size
    if most > batch_size:
        return GrowingEngine(open_with, batch_size, most, count)
    return open_with(batch_size)


def copy_to(model: _Model, device: str) -> _Model:
    """A copy of a network on a device; the one given stays as it is, and no second one beside it.

    Args:
        model: Anywhere.
        device: As torch names it.
    """
    there: dict[int, object] = {
        id(one): nn.Parameter(one.detach().to(device), requires_grad=one.requires_grad)
        for one in model.parameters()
    }
    there |= {id(one): one.detach().to(device) for one in model.buffers()}
    return copy.deepcopy(model, there)


class Copies:
    """A network on each of some devices.

    Args:
        model: In evaluation mode, on the first of them.
        devices: Their names.

    Attributes:
        members: Name and network of each device that is still used.

    Raises:
        DeviceError: If there is no place for it on one of them.
    """

    def __init__(self, model: XRayModel, devices: Sequence[str]) -> None:
        self.members: list[tuple[str, XRayModel]] = [(devices[0], model)]
        for name in devices[1:]:
            try:
                self.members.append((name, copy_to(model, name)))
            except (RuntimeError, AssertionError) as error:
                raise DeviceError(name, error) from error

    def drop(self, name: str) -> None:
        """Use a device no more.

        Args:
            name: Of the device.
        """
        self.members = [member for member in self.members if member[0] != name]


class _Task:
    """A batch and what comes of it."""

    def __init__(self, images: NDArray[np.float32]) -> None:
        self.images = images
        self.done = threading.Event()
        self.given: tuple[torch.Tensor, ...] = ()
        self.took, self.fitted = 0.0, 0
        self.error: Exception | None = None


class DeviceGroup(Engine):
    """Several devices as one engine: a batch goes to whichever is free, results come in order.

    A device on which not even one image fits is left out from then on, with a warning, and its
    batch goes to another. Any other error of a device ends the run.

    Args:
        copies: The network on each device.
        batch_size: Images of a batch of one device.
        open_one: Opens the network of one device, for batches of a size.
    """

    def __init__(self, copies: Copies, batch_size: int, open_one: OpenOne) -> None:
        members = [(name, open_one(net, batch_size)) for name, net in copies.members]
        first = members[0][1]
        self.name, self.wanted = first.name, first.wanted
        self.overlaps = 2 * len(members)  # one computed and one waiting, so that none is idle
        self.input = aligned(first.input.shape)
        self._copies = copies
        self._free: list[NDArray[np.float32]] = []
        self._tasks: deque[_Task] = deque()
        self._changed = threading.Condition()
        self._unfinished = 0
        self._alive = {name for name, _ in members}
        self._ending = False
        self._error: DeviceError | None = None
        self._lost: list[str] = []
        self._threads = [
            threading.Thread(target=self._work, args=member, name=f"xrv-{member[0]}", daemon=True)
            for member in members
        ]
        for thread in self._threads:
            thread.start()

    def start(self) -> Finish:
        """See `Engine`."""
        task = _Task(self.input)
        with self._changed:
            if self._error is not None:
                raise self._error
            self._unfinished += 1
            self._tasks.append(task)
            self._changed.notify_all()
            spare = self._free.pop() if self._free else None
        self.input = aligned(task.images.shape) if spare is None else spare
        return lambda: self._answer(task)

    def _run(self) -> tuple[torch.Tensor, ...]:
        return self.start()()

    def _answer(self, task: _Task) -> tuple[torch.Tensor, ...]:
        task.done.wait()
        with self._changed:
            lost, self._lost = self._lost, []
        for message in lost:  # here, as warnings of other threads reach nobody
            warnings.warn(message, XRVWarning, stacklevel=caller_stacklevel())
        if task.error is not None:
            raise task.error
        self.took, self.fitted = task.took, task.fitted
        return task.given

    def retire(self) -> None:
        """See `Engine`."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()

    def close(self) -> None:
        """See `Engine`."""
        with self._changed:
            self._ending = True
            self._unfinished -= len(self._tasks)
            self._tasks.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self, name: str, engine: Engine) -> None:
        """What the thread of a device does."""
        begun: deque[tuple[_Task, Finish]] = deque()
        task: _Task | None = None
        try:
            while True:
                task = self._next(wait=not begun)
                if task is not None:
                    engine.input[...] = task.images
                    begun.append((task, engine.start()))
                elif not begun:
                    return
                if task is None or len(begun) > engine.overlaps:
                    oldest, finish = begun[0]
                    oldest.given = finish()
                    oldest.took, oldest.fitted = engine.took, engine.fitted
                    begun.popleft()
                    self._finished(oldest)
        except Exception as error:  # noqa: BLE001 - it is told to whoever waits
            unfinished = [one for one, _ in begun]
            if task is not None and task not in unfinished and not task.done.is_set():
                unfinished.append(task)
            self._failed(name, error, unfinished)

    def _next(self, *, wait: bool) -> _Task | None:
        """The next batch; None where there is none, and with `wait` where none will come."""
        with self._changed:
            while True:
                if self._error is not None:
                    return None
                if self._tasks:
                    return self._tasks.popleft()
                # Until all are finished: a device that fails gives its batches back.
                if not wait or (self._ending and not self._unfinished):
                    return None
                self._changed.wait()

    def _finished(self, task: _Task) -> None:
        with self._changed:
            self._unfinished -= 1
            self._free.append(task.images)
            self._changed.notify_all()
        task.done.set()

    def _failed(self, name: str, error: Exception, unfinished: list[_Task]) -> None:
        """Leave a device out that has too little memory, and give up after any other error."""
        with self._changed:
            self._alive.discard(name)
            if isinstance(error, torch.OutOfMemoryError) and self._alive:
                self._copies.drop(name)
                self._tasks.extendleft(reversed(unfinished))
                self._lost.append(
                    f"{name}: a single image does not fit into its memory; going on with "
                    f"{', '.join(sorted(self._alive))}"
                )
            else:
                self._error = DeviceError(name, error)
                self._error.__cause__ = error
                for task in (*unfinished, *self._tasks):
                    task.error = self._error
                    task.done.set()
                self._tasks.clear()
            self._changed.notify_all()

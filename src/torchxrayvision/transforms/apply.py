"""The one place that chooses how a transform meets a sample.

A ``torchvision.transforms.v2.Transform`` is joint: it is called once with the image, the masks
and the boxes. Anything else is called once for each array, as in version 1, every time with the
same random numbers. Either way the caller's random states are as they were afterwards.
"""

from __future__ import annotations

import operator
import os
import random
import secrets
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.errors import ImageShapeError
from torchxrayvision.transforms.arrays import ToPILImage, XRayCenterCrop, XRayResizer, prepare
from torchxrayvision.transforms.placement import square_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, MutableMapping

    from numpy.typing import NDArray

    from torchxrayvision.images import Raster

    Sample = MutableMapping[str, Any]

MASK_FIELDS = ("pathology_masks", "semantic_masks")

# Held while the global generators are borrowed, so that two threads that load samples cannot
# take each other's numbers.
_generators = threading.RLock()


def apply_transforms(
    sample: Sample, transform: Callable[[Any], Any] | None, seed: int | None = None
) -> Sample:
    """Apply a transform to the image of a sample and to what belongs to it.

    *Joint.* A transform of ``torchvision.transforms.v2``, ``v2.Compose`` included, is called once
    on the image, all masks and the boxes. Masks stay 0 and 1. Pad with -1024 (air): torchvision's
    own fill of 0 is mid-grey here.

    *Per array.* Any other callable is called on ``img`` and on each mask, with the states of
    ``random``, NumPy and torch the same each time, so that random crops and rotations agree.
    Masks are then resized like images and get soft edges, and ``bbox`` is left alone, both as in
    version 1.

    The states of the global generators are the caller's again when this returns or raises. A
    transform with a generator of its own cannot be repeated; make it a v2 transform.

    Args:
        sample: A dataset's item, changed in place: ``img`` (1, H, W); ``pathology_masks`` and
            ``semantic_masks``, dicts of arrays (1, H, W); ``bbox``, (N, 4) as ``[x, y, width,
            height]`` in pixels. All but ``img`` are optional; other fields are not touched.
        transform: What to apply, or None.
        seed: Seed of this call's random numbers, 0 or more. None takes a new one from the operating
            system; a dataset passes ``SeedSource.next()``.

    Returns:
        The same sample. After a joint transform ``img`` is a float32 array, each mask an array
        of the type it had, and ``bbox`` a list or a float32 array, as it was.

    Raises:
        ImageShapeError: If a mask has not the height and width of the image, before or after.

    Example:
        >>> sample = {"img": np.zeros((1, 6, 4), np.float32)}
        >>> apply_transforms(sample, XRayCenterCrop())["img"].shape
        (1, 4, 4)
    """
    if transform is None:
        return sample
    _check_masks(sample, "")
    if _is_joint(transform):
        with _borrowed_generators(seed) as restart:
            restart()
            changed = _apply_joint(sample, transform)
    elif _draws_nothing(transform):
        changed = _apply_each(sample, transform, restart=lambda: None)
    else:
        with _borrowed_generators(seed) as restart:
            changed = _apply_each(sample, transform, restart)
    _check_masks({**sample, **changed}, f" after {transform!r}")
    sample.update(changed)
    return sample


class SeedSource:
    """Seeds for augmentation: another one at every call, in every worker and in every epoch.

    A dataset owns one and never asks the global generators, so augmentation neither disturbs
    the caller's random numbers nor stands still. Inside a worker of a ``DataLoader`` the seeds
    also depend on the worker's own seed, which torch draws from its generator once an epoch:
    under ``torch.manual_seed`` a whole run can be repeated.

    Args:
        seed: Makes the sequence repeatable, 0 or more. None: from the operating system.

    Example:
        >>> first, second = SeedSource(0), SeedSource(0)
        >>> first.next() == second.next()
        True
        >>> first.next() == first.next()
        False
    """

    def __init__(self, seed: int | None = None) -> None:
        self.entropy: int = secrets.randbits(128) if seed is None else operator.index(seed)
        np.random.SeedSequence(self.entropy)  # refuses a negative number here rather than later
        self._home = os.getpid()
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._owner: tuple[int, ...] | None = None

    def next(self) -> int:
        """Draw a seed.

        Returns:
            A whole number in [0, 2**32).
        """
        owner = self._place()
        with self._lock:
            if owner != self._owner:  # first use here: a worker must not repeat its parent
                self._owner = owner
                self._generator = np.random.default_rng([self.entropy, *owner[1:]])
            return int(self._generator.integers(2**32))

    def _place(self) -> tuple[int, ...]:
        """The process, and behind it what its seeds depend on besides the entropy."""
        process = os.getpid()
        data = sys.modules.get("torch.utils.data")
        worker = data.get_worker_info() if data is not None else None
        if worker is not None:
            return process, int(worker.seed)
        return (process,) if process == self._home else (process, process)

    def __getstate__(self) -> dict[str, Any]:
        return {"entropy": self.entropy, "home": self._home}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.entropy = state["entropy"]
        self._home = state["home"]
        self._forget()

    def __repr__(self) -> str:
        return f"SeedSource({self.entropy})"


def square_pixels(sample: Sample, aspect: float) -> Sample:
    """A sample whose image, masks and boxes have square pixels.

    Args:
        sample: With ``img`` and perhaps masks and ``bbox``.
        aspect: Height of a pixel of it over its width.

    Returns:
        The sample itself where its pixels are square, else a new one.
    """
    if aspect == 1:
        return sample
    changed: dict[str, Any] = dict(sample)
    changed["img"] = square_image(sample["img"], aspect)
    for field in MASK_FIELDS:
        if field in sample:
            changed[field] = {
                name: square_image(np.asarray(mask) > 0, aspect).astype(np.asarray(mask).dtype)
                for name, mask in sample[field].items()
            }
    if "bbox" in sample:
        factors = [1.0, aspect] if aspect > 1 else [1 / aspect, 1.0]
        changed["bbox"] = np.asarray(sample["bbox"], np.float32) * np.array(factors * 2, np.float32)
    return changed


def _check_masks(sample: Sample, when: str) -> None:
    shape = getattr(sample["img"], "shape", None)
    if shape is None:  # a transform may end in a PIL image
        return
    for field in MASK_FIELDS:
        for name, mask in (sample.get(field) or {}).items():
            found = getattr(mask, "shape", shape)
            if tuple(found[-2:]) != tuple(shape[-2:]):
                msg = (
                    f"{field}[{name!r}] has the shape {tuple(found)} and img {tuple(shape)}{when};"
                    " a mask needs the height and width of its image"
                )
                raise ImageShapeError(msg)


def _is_joint(transform: object) -> bool:
    # Whoever made a v2 transform has imported the module; nobody else should wait for it.
    v2 = sys.modules.get("torchvision.transforms.v2")
    return v2 is not None and isinstance(transform, v2.Transform)


def _steps(transform: Any) -> list[Any]:
    """The transforms that one applies in turn to an array."""
    kind = type(transform)
    if kind.__module__ == "torchvision.transforms.transforms" and kind.__name__ == "Compose":
        return [step for part in transform.transforms for step in _steps(part)]
    return [transform]


def _draws_nothing(transform: object) -> bool:
    """Whether the generators can stay where they are, and other threads go on."""
    kinds = (XRayCenterCrop, XRayResizer, ToPILImage)
    return all(type(step) in kinds for step in _steps(transform))


def from_raster(transform: object) -> Callable[[Raster], NDArray[np.float32]] | None:
    """How a transform makes its image of stored pixels in one step, if it offers to.

    A float32 copy of a whole radiograph costs as much as resizing it. A transform offers to do
    without by a method ``from_raster(raster)``, which returns the same float32 (1, H, W) as the
    transform of the whole image; `XRayCenterCrop` and then `XRayResizer` offer it together.

    Args:
        transform: What a dataset applies, or None.

    Returns:
        The function of a `torchxrayvision.images.Raster`, or None.

    Example:
        >>> from_raster(XRayResizer(224)) is None
        True
    """
    offered: Callable[[Raster], NDArray[np.float32]] | None
    offered = getattr(transform, "from_raster", None)
    steps = _steps(transform)
    if offered or [type(step) for step in steps] != [XRayCenterCrop, XRayResizer]:
        return offered
    resizer: XRayResizer = steps[1]
    if resizer.engine != "skimage":
        return None
    return lambda raster: prepare(
        raster.pixels, raster.scale, raster.offset, resizer.size, raster.info.aspect
    )


def _apply_each(
    sample: Sample, transform: Callable[[Any], Any], restart: Callable[[], None]
) -> dict[str, Any]:
    def one(array: Any) -> Any:
        restart()
        return transform(array)

    changed: dict[str, Any] = {"img": one(sample["img"])}
    for field in MASK_FIELDS:
        if field in sample:
            changed[field] = {name: one(mask) for name, mask in sample[field].items()}
    return changed


def _apply_joint(sample: Sample, transform: Callable[[Any], Any]) -> dict[str, Any]:
    import torch
    from torchvision import tv_tensors

    image = np.ascontiguousarray(sample["img"], np.float32)
    parts: dict[str, Any] = {"img": tv_tensors.Image(torch.tensor(image))}
    for field in MASK_FIELDS:
        if field in sample:
            parts[field] = {
                name: tv_tensors.Mask(torch.tensor(np.ascontiguousarray(mask)))
                for name, mask in sample[field].items()
            }
    if "bbox" in sample:
        boxes = np.asarray(sample["bbox"], np.float32).reshape(-1, 4)
        parts["bbox"] = tv_tensors.BoundingBoxes(
            torch.tensor(boxes), format="XYWH", canvas_size=image.shape[-2:]
        )
    parts = transform(parts)
    changed: dict[str, Any] = {"img": _to_array(parts["img"]).astype(np.float32, copy=False)}
    for field in MASK_FIELDS:
        if field in sample:
            changed[field] = {
                name: _to_array(mask).astype(np.asarray(sample[field][name]).dtype, copy=False)
                for name, mask in parts[field].items()
            }
    if "bbox" in sample:
        boxes = _to_array(parts["bbox"]).astype(np.float32, copy=False)
        changed["bbox"] = boxes if isinstance(sample["bbox"], np.ndarray) else boxes.tolist()
    return changed


def _to_array(value: Any) -> NDArray[Any]:
    detach = getattr(value, "detach", None)
    return np.asarray(value if detach is None else detach().cpu().numpy())


@contextmanager
def _borrowed_generators(seed: int | None) -> Iterator[Callable[[], None]]:
    """Lend the global generators: yields what sets them to ``seed``; gives the states back.

    Of torch only the generator of the CPU is lent; transforms of arrays run there.
    """
    import torch  # whatever the transform itself imports later, its numbers are the same

    if seed is not None and 0 <= seed < 2**32:
        chosen = seed  # the same draws as in 1.5.7
    else:
        chosen = int(np.random.SeedSequence(seed).generate_state(1, np.uint32)[0])

    def restart() -> None:
        random.seed(chosen)
        np.random.seed(chosen)  # noqa: NPY002 - the generator that transforms draw from
        torch.default_generator.manual_seed(chosen)

    with _generators:
        python_state, torch_state = random.getstate(), torch.get_rng_state()
        numpy_state = np.random.get_state()  # noqa: NPY002
        try:
            yield restart
        finally:
            random.setstate(python_state)
            torch.set_rng_state(torch_state)
            np.random.set_state(numpy_state)  # noqa: NPY002

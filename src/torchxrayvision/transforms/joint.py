"""Transforms that move an image together with its masks and boxes.

They are ``torchvision.transforms.v2`` transforms on ``tv_tensors``: an ``Image`` of shape
(1, H, W), float32 in [-1024, 1024], any number of ``Mask`` and ``BoundingBoxes``, in any nesting
of dicts and lists. Parameters are drawn once for the whole sample; masks stay 0 and 1.
They can be mixed with torchvision's own in a ``v2.Compose``. Datasets wrap their arrays
themselves: see :func:`torchxrayvision.transforms.apply_transforms`.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from torchxrayvision.errors import ImageShapeError
from torchxrayvision.transforms.arrays import crop_box
from torchxrayvision.transforms.resampling import nearest, resize

AIR = -1024.0  # what lies outside an image; torchvision's 0 would be mid-grey


class _Joint(v2.Transform):  # type: ignore[misc]  # torchvision carries no types
    """Checks that there is something to move, and that all of it is of one size."""

    def check_inputs(self, flat_inputs: list[Any]) -> None:
        """Refuse samples that torchvision would return as they are.

        Args:
            flat_inputs: The leaves of the sample.

        Raises:
            TypeError: If there is neither a tv_tensor nor a tensor among them.
            ImageShapeError: If image, masks and boxes are of different sizes.
        """
        _canvas(flat_inputs, type(self).__name__)


class CenterCropSquare(_Joint):
    """Cut the largest square out of the middle of image, masks and boxes.

    The square is that of :class:`torchxrayvision.transforms.XRayCenterCrop`. Boxes are cut at
    its border; a box that lies wholly outside keeps its row, with no area.

    Example:
        >>> image = tv_tensors.Image(torch.zeros(1, 6, 4))
        >>> CenterCropSquare()({"img": image})["img"].shape
        torch.Size([1, 4, 4])
    """

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The box to cut, from the size of the sample.

        Args:
            flat_inputs: The leaves of the sample.

        Returns:
            Keyword arguments of torchvision's ``crop``, in pixels.
        """
        top, left, side = crop_box(*_canvas(flat_inputs, type(self).__name__))
        return {"top": top, "left": left, "height": side, "width": side}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Cut one leaf.

        Args:
            inpt: Image, mask or boxes.
            params: What ``make_params`` returned.

        Returns:
            The leaf cut to the square, of its own type.
        """
        return functional.crop(inpt, **params)


class ResizeSquare(_Joint):
    """Resize image, masks and boxes to a square.

    The image gets the numbers of ``XRayResizer(size)``. A pixel of a 0/1 mask is set where at
    least half of what it covers was set; a mask that was not empty keeps at least one pixel.
    Masks with other values take the nearest pixel. Boxes are scaled.

    Args:
        size: Rows and columns of the result.

    Raises:
        ImageShapeError: If ``size`` is below 1.

    Example:
        >>> sample = {
        ...     "img": tv_tensors.Image(torch.full((1, 8, 8), 500.0)),
        ...     "mask": tv_tensors.Mask(torch.ones(1, 8, 8, dtype=torch.uint8)),
        ... }
        >>> ResizeSquare(2)(sample)["mask"]
        Mask([[[1, 1],
               [1, 1]]], dtype=torch.uint8)
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        try:
            self.size = operator.index(size)
        except TypeError:
            msg = f"the size of ResizeSquare is one whole number of pixels, not {size!r}"
            raise TypeError(msg) from None
        if self.size < 1:
            msg = f"the size of ResizeSquare is at least 1 pixel, not {size}"
            raise ImageShapeError(msg)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:  # noqa: ARG002 - torchvision's
        """Resize one leaf.

        Args:
            inpt: Image, mask or boxes.
            params: Nothing; the size is fixed.

        Returns:
            The leaf, of its own type; images are float32.
        """
        size = (self.size, self.size)
        if isinstance(inpt, tv_tensors.Mask):
            resized = _resize_mask(inpt.detach().cpu().numpy(), size)
        elif isinstance(inpt, tv_tensors.Image) or type(inpt) is torch.Tensor:
            resized = resize(inpt.detach().cpu().numpy(), size)
        else:
            return functional.resize(inpt, list(size))
        return tv_tensors.wrap(torch.from_numpy(resized).to(inpt.device), like=inpt)

    def extra_repr(self) -> str:
        """The argument, for ``repr``.

        Returns:
            ``size=...``.
        """
        return f"size={self.size}"


class RandomAffineXRay(v2.RandomAffine):  # type: ignore[misc]  # torchvision carries no types
    """Rotate, shift and scale image, masks and boxes by the same random amounts.

    The image is interpolated linearly and filled with air (-1024), masks take the nearest pixel
    and are filled with 0; a box becomes the upright box around the moved one. The draws come
    from torch's global generator, as those of every torchvision transform.

    Args:
        degrees: Largest rotation either way, or the range of rotations.
        translate: Largest shift as a share of the width and of the height, or None.
        scale: Range of the factor of size, or None.

    Example:
        >>> sample = {
        ...     "img": tv_tensors.Image(torch.zeros(1, 8, 8)),
        ...     "mask": tv_tensors.Mask(torch.ones(1, 8, 8, dtype=torch.uint8)),
        ... }
        >>> moved = RandomAffineXRay(degrees=(90, 90), translate=None, scale=None)(sample)
        >>> int(moved["mask"].sum())
        64
    """

    def __init__(
        self,
        degrees: float | tuple[float, float] = 45,
        translate: tuple[float, float] | None = (0.15, 0.15),
        scale: tuple[float, float] | None = (0.85, 1.15),
    ) -> None:
        super().__init__(
            degrees,
            translate=translate,
            scale=scale,
            interpolation=v2.InterpolationMode.BILINEAR,
            fill={tv_tensors.Mask: 0, "others": AIR},
        )


def _resize_mask(mask: np.ndarray[Any, Any], size: tuple[int, int]) -> np.ndarray[Any, Any]:
    if mask.size and mask.max() > 1:
        return nearest(mask, size)
    cover = resize(mask.astype(np.float32), size)
    resized = cover >= 0.5
    for index in np.ndindex(*mask.shape[:-2]):
        if mask[index].any() and not resized[index].any():
            # A finding smaller than a pixel must not turn a positive image into an empty mask.
            resized[index].flat[cover[index].argmax()] = True
    return resized.astype(mask.dtype)


def _canvas(flat_inputs: list[Any], name: str) -> tuple[int, int]:
    """Height and width of the sample, which all of its parts must share."""
    parts = [x for x in flat_inputs if isinstance(x, tv_tensors.TVTensor)]
    if not parts:
        parts = [x for x in flat_inputs if isinstance(x, torch.Tensor)][:1]
    if not parts:
        kinds = ", ".join(sorted({type(x).__name__ for x in flat_inputs})) or "nothing"
        msg = (
            f"{name} moves tv_tensors (Image, Mask, BoundingBoxes) and was given {kinds}; "
            "wrap the arrays, or use torchxrayvision.transforms.apply_transforms"
        )
        raise TypeError(msg)
    sizes = [(type(x).__name__, *functional.get_size(x)) for x in parts]
    if len({size[1:] for size in sizes}) > 1:
        found = ", ".join(f"{kind} {height} x {width}" for kind, height, width in sizes)
        msg = f"{name} needs image, masks and boxes of one size, not {found}"
        raise ImageShapeError(msg)
    return sizes[0][1], sizes[0][2]

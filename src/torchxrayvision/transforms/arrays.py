"""The transforms of one image: arrays or tensors of shape (1, H, W), one at a time.

They know nothing of masks and boxes. What moves an image together with its masks and boxes
is in ``_joint``.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, get_args, overload

import numpy as np

from torchxrayvision.errors import ImageShapeError, UnknownNameError, needs_package
from torchxrayvision.transforms.resampling import resize, resize_reduced

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from PIL.Image import Image

    from torchxrayvision.images import Reduction

Engine = Literal["skimage", "cv2", "torch"]

# Pixel types that OpenCV resizes as they are, rounding integers, so that a mask stays a mask.
CV2_TYPES: Final = frozenset(np.dtype(t) for t in ("u1", "u2", "i2", "f4", "f8"))


def crop_box(height: int, width: int) -> tuple[int, int, int]:
    """The largest square in the middle of an image.

    Where the rows or columns cannot be shared out evenly the square lies half a pixel towards
    the origin or away from it as ``H // 2 - side // 2`` rounds, as in version 1.

    Args:
        height: Rows of the image.
        width: Columns of the image.

    Returns:
        ``(top, left, side)`` in pixels: the square is ``image[top : top + side, left : left +
        side]``.

    Raises:
        ImageShapeError: If the image has no pixel.

    Example:
        >>> crop_box(2500, 2048)
        (226, 0, 2048)
    """
    side = min(height, width)
    if side < 1:
        msg = f"an image of {height} x {width} pixels has no centre; expected at least 1 x 1"
        raise ImageShapeError(msg)
    return height // 2 - side // 2, width // 2 - side // 2, side


def square_region(height: int, width: int, aspect: float = 1.0) -> tuple[int, int, int, int]:
    """The largest region in the middle of an image that is a square on the body.

    Args:
        height: Rows of the image.
        width: Columns of the image.
        aspect: Height of a pixel over its width.

    Returns:
        ``(top, left, rows, columns)`` in pixels; `crop_box` where pixels are square.

    Raises:
        ImageShapeError: If the image has no pixel.

    Example:
        >>> square_region(300, 560, aspect=2.0)
        (10, 0, 280, 560)
    """
    top, left, side = crop_box(height, width)
    if aspect == 1:
        return top, left, side, side
    rows = max(1, min(height, round(width / aspect)))
    columns = max(1, min(width, round(height * aspect)))
    return height // 2 - rows // 2, width // 2 - columns // 2, rows, columns


def prepare(
    pixels: NDArray[Any],
    scale: float,
    offset: float,
    size: int,
    aspect: float = 1.0,
    reduction: Reduction | None = None,
) -> NDArray[np.float32]:
    """Crop and resize stored pixels to what a model takes, without a float copy of the image.

    The same as scaling, then ``XRayCenterCrop()``, then ``XRayResizer(size)``.

    Args:
        pixels: Pixels as stored, shape (H, W), any integer or float type.
        scale: Factor from a pixel to its value.
        offset: Added after the factor, so that values lie in [-1024, 1024].
        size: Rows and columns of the result.
        aspect: Height of a pixel over its width; pixels that are not square are resampled to
            square ones.
        reduction: Where the pixels lie in the image of the file, if they are those of a reduced
            one; the result is that of the whole image as nearly as they allow.

    Returns:
        float32 array, shape (1, size, size), values in [-1024, 1024].

    Raises:
        ImageShapeError: If the pixels are not of shape (H, W) or ``size`` is below 1.

    Example:
        >>> prepare(np.full((6, 4), 255, np.uint8), 2048 / 255, -1024, 2)
        array([[[1024., 1024.],
                [1024., 1024.]]], dtype=float32)
    """
    if pixels.ndim != 2:
        msg = f"prepare takes pixels of shape (H, W), not {pixels.shape}"
        raise ImageShapeError(msg)
    if reduction is not None:
        region = square_region(reduction.height, reduction.width, aspect)
        return resize_reduced(pixels, size, region, reduction, scale=scale, offset=offset)[None]
    height, width = pixels.shape
    top, left, rows, columns = square_region(height, width, aspect)
    square = pixels[top : top + rows, left : left + columns]
    return resize(square[None], (size, size), scale=scale, offset=offset)


class XRayCenterCrop:
    """Cut the largest square out of the middle of an image.

    The result is a view of the input where the input is an array or a tensor, so nothing is
    copied. For an image with masks and boxes use
    :class:`torchxrayvision.transforms.CenterCropSquare`.

    Example:
        >>> XRayCenterCrop()(np.zeros((1, 6, 4), np.float32)).shape
        (1, 4, 4)
    """

    @overload
    def __call__(self, image: NDArray[Any]) -> NDArray[Any]: ...
    @overload
    def __call__(self, image: torch.Tensor) -> torch.Tensor: ...
    def __call__(self, image: Any) -> Any:
        """Crop one image.

        Args:
            image: Array or tensor of shape (C, H, W), any type and range.

        Returns:
            Shape (C, side, side) with ``side = min(H, W)``, of the type of the input; a view.

        Raises:
            ImageShapeError: If the image is not of shape (C, H, W) or has no pixel.
            TypeError: If ``image`` is neither an array nor a tensor.
        """
        _check_type(image, "XRayCenterCrop", "CenterCropSquare")
        if image.ndim != 3:
            raise ImageShapeError(_shape_message("XRayCenterCrop", "(C, H, W)", image))
        top, left, side = crop_box(*image.shape[1:])
        return image[:, top : top + side, left : left + side]

    def __repr__(self) -> str:
        return "XRayCenterCrop()"

    def crop_center(self, image: Any) -> Any:
        """The same as calling it, under the name of 1.5.7.

        Args:
            image: Array or tensor of shape (C, H, W), any type and range.

        Returns:
            Shape (C, side, side) with ``side = min(H, W)``, of the type of the input; a view.
        """
        return self(image)


class XRayResizer:
    """Resize an image to a square.

    For an image with masks and boxes use :class:`torchxrayvision.transforms.ResizeSquare`,
    under which masks stay 0 and 1; here a mask is an image like any other and gets soft edges.

    Args:
        size: Rows and columns of the result.
        engine: ``"skimage"`` gives the numbers of scikit-image (order 1, anti-aliased, zeros
            beyond the border), which the published models were trained on. ``"cv2"`` is
            OpenCV's area mean and needs the extra ``cv2``; integers come out rounded.
            ``"torch"`` is PyTorch's anti-aliased bilinear mean, on the device of the tensor.

    Raises:
        UnknownNameError: If there is no such engine.
        ImageShapeError: If ``size`` is below 1.
        DependencyError: On the first call, if the package of the engine is missing.

    Example:
        >>> XRayResizer(2)(np.full((1, 8, 6), 500, np.uint16))
        array([[[500., 500.],
                [500., 500.]]], dtype=float32)
    """

    def __init__(self, size: int, engine: Engine = "skimage") -> None:
        try:
            self.size = operator.index(size)
        except TypeError:
            msg = f"the size of XRayResizer is one whole number of pixels, not {size!r}"
            raise TypeError(msg) from None
        if self.size < 1:
            msg = f"the size of XRayResizer is at least 1 pixel, not {size}"
            raise ImageShapeError(msg)
        if engine not in get_args(Engine):
            raise UnknownNameError("resize engine", engine, get_args(Engine))
        self.engine = engine

    @overload
    def __call__(self, image: NDArray[Any]) -> NDArray[np.float32]: ...
    @overload
    def __call__(self, image: torch.Tensor) -> torch.Tensor: ...
    def __call__(self, image: Any) -> Any:
        """Resize one image.

        Args:
            image: Array or tensor of shape (1, H, W), any range. Boolean images take the
                nearest pixel under ``"skimage"``.

        Returns:
            float32, shape (1, size, size); a tensor, on the same device, where a tensor came.

        Raises:
            ImageShapeError: If the image is not of shape (1, H, W) or has no pixel.
            TypeError: If ``image`` is neither an array nor a tensor.
            DependencyError: If the package of the engine is missing.
        """
        _check_type(image, "XRayResizer", "ResizeSquare")
        if image.ndim != 3 or image.shape[0] != 1 or 0 in image.shape:
            raise ImageShapeError(_shape_message("XRayResizer", "(1, H, W)", image))
        if self.engine == "torch":
            return _resize_torch(image, self.size)
        resize_array = _resize_cv2 if self.engine == "cv2" else _resize_skimage
        if isinstance(image, np.ndarray):
            return resize_array(image, self.size)
        import torch

        array = image.detach().cpu()
        array = array.float() if array.dtype == torch.bfloat16 else array  # not a NumPy type
        return torch.from_numpy(resize_array(array.numpy(), self.size)).to(image.device)

    def __repr__(self) -> str:
        return f"XRayResizer(size={self.size}, engine={self.engine!r})"


class ToPILImage:
    """Turn an image into a PIL image of mode ``F``, for transforms that take PIL images.

    Example:
        >>> ToPILImage()(np.zeros((1, 6, 4), np.float32)).size
        (4, 6)
    """

    def __call__(self, image: NDArray[Any] | torch.Tensor) -> Image:
        """Convert one image.

        Args:
            image: Array or tensor of shape (1, H, W), any range.

        Returns:
            PIL image of mode ``F`` (float32) with the values as they are.

        Raises:
            ImageShapeError: If the image is not of shape (1, H, W).
            TypeError: If ``image`` is neither an array nor a tensor.
        """
        from PIL import Image as PILImage

        _check_type(image, "ToPILImage", None)
        if image.ndim != 3 or image.shape[0] != 1:
            raise ImageShapeError(_shape_message("ToPILImage", "(1, H, W)", image))
        array = image if isinstance(image, np.ndarray) else image.detach().cpu().float().numpy()
        return PILImage.fromarray(np.ascontiguousarray(array[0], dtype=np.float32))

    def __repr__(self) -> str:
        return "ToPILImage()"


def _resize_skimage(image: NDArray[Any], size: int) -> NDArray[np.float32]:
    return resize(image, (size, size))


def _resize_cv2(image: NDArray[Any], size: int) -> NDArray[np.float32]:
    with needs_package("opencv-python-headless", "XRayResizer(engine='cv2')", "cv2"):
        import cv2
    plane = image[0] if image.dtype in CV2_TYPES else image[0].astype(np.float32)
    resized = cv2.resize(plane, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, dtype=np.float32)[None]


def _resize_torch(image: Any, size: int) -> Any:
    import torch

    is_array = isinstance(image, np.ndarray)
    tensor = torch.from_numpy(np.ascontiguousarray(image, np.float32)) if is_array else image
    resized = torch.nn.functional.interpolate(
        tensor[None].float(), (size, size), mode="bilinear", align_corners=False, antialias=True
    )[0]
    return resized.numpy() if is_array else resized


def _check_type(image: object, name: str, joint: str | None) -> None:
    """Refuse what is neither an array nor a plain tensor, and say what to use instead."""
    instead = f"; for images with masks use torchxrayvision.transforms.{joint}" if joint else ""
    kind = type(image)
    if isinstance(image, Mapping) or kind.__module__.startswith("torchvision.tv_tensors"):
        msg = f"{name} takes one array or tensor, not a {kind.__name__}{instead}"
        raise TypeError(msg)
    torch = sys.modules.get("torch")  # no tensor can exist where torch was never imported
    if isinstance(image, np.ndarray) or (torch is not None and isinstance(image, torch.Tensor)):
        return
    msg = (
        f"{name} takes a NumPy array or a torch tensor of shape (1, H, W), not a {kind.__name__}; "
        "torchxrayvision.images.read_image reads a file to one"
    )
    raise TypeError(msg)


def _shape_message(name: str, expected: str, image: NDArray[Any] | torch.Tensor) -> str:
    shape = tuple(image.shape)
    advice = ""
    if len(shape) == 2:
        advice = "; add an axis with image[None]"
    elif len(shape) == 3 and 0 not in shape:
        advice = "; reduce colours or frames to one grey channel first"
    elif len(shape) == 4:
        advice = "; call it once for each image of the batch"
    return f"{name} takes one image of shape {expected}, not {shape}{advice}"

"""What every model does to its input first: check it, then bring it to the trained resolution."""

from __future__ import annotations

import math
import warnings
from typing import Final, Literal

import torch
from torch import Tensor
from torch.nn import functional

from torchxrayvision.errors import ImageRangeError, ImageRangeWarning, ImageShapeError

__all__ = ["ResizeRoute", "check_range", "check_shape", "resize", "standardize"]

ResizeRoute = Literal["antialias", "bilinear"]

# A radiograph in [-1024, 1024] never spans so little; one scaled to [0, 1] or standardised does.
_SMALL: Final = 10.0
# Interpolation and augmentation overshoot a little; another bit depth overshoots by thousands.
_LIMIT: Final = 1024.0 * 1.1
# Variance, at unit scale, far below that of any radiograph: nothing is divided by zero.
_FLAT: Final = 1e-6


def check_shape(x: Tensor, channels: int = 1) -> None:
    """Refuse anything but a batch of square images, grey unless a network takes other ones.

    Args:
        x: Any tensor.
        channels: What the first layer takes.

    Raises:
        ImageShapeError: If it is not floating point of shape (B, channels, S, S).
    """
    if x.dim() != 4:
        msg = f"expected a batch of shape (B, {channels}, H, W), got {tuple(x.shape)}"
        advice = "; add the batch axis with x[None]" if x.dim() == 3 else ""
        raise ImageShapeError(msg + advice)
    if x.shape[1] != channels > 1:
        msg = f"this network takes {channels} channels, (B, {channels}, H, W), got {tuple(x.shape)}"
        raise ImageShapeError(msg)
    if x.shape[1] != channels:
        msg = (
            f"expected one grey channel, (B, 1, H, W), got {tuple(x.shape)}; "
            "take the mean of the colour channels with x.mean(1, keepdim=True)"
        )
        raise ImageShapeError(msg)
    if x.shape[2] != x.shape[3]:
        msg = (
            f"height and width must be the same, got {x.shape[2]} != {x.shape[3]}; "
            "crop first with torchxrayvision.transforms.XRayCenterCrop()"
        )
        raise ImageShapeError(msg)
    if not x.is_floating_point():
        msg = (
            f"expected a floating point tensor in [-1024, 1024], got {x.dtype}; "
            "scale the stored values with torchxrayvision.utils.normalize(img, maxval)"
        )
        raise ImageShapeError(msg)


def _traced(x: Tensor) -> bool:
    """Whether the values cannot be looked at: export, compile, vmap or a meta tensor."""
    return (
        torch.compiler.is_compiling()
        or torch.compiler.is_exporting()
        or x.is_meta
        or torch._C._functorch.is_functorch_wrapped_tensor(x)
    )


def _looks_like(low: float, high: float) -> str:
    if low >= -_LIMIT and high <= _LIMIT and (low < -_SMALL or high > 255):
        return ""
    if low >= 0 and high <= 1:
        return "[0, 1]"
    if low >= -_SMALL and high <= _SMALL:
        return "[-1, 1] or standardised"
    if low >= 0 and high <= 255:
        return "[0, 255], 8 bit"
    if low >= 0 and high <= 65535:
        return "[0, 65535], 16 bit"
    return "" if low >= -_LIMIT and high <= _LIMIT else "unscaled stored values"


def check_range(x: Tensor, stacklevel: int = 3) -> None:
    """Warn when the values look like another scale than [-1024, 1024].

    The check costs one pass over the input, well under a thousandth of a forward pass. It is
    left out where values cannot be looked at: while tracing, compiling or under `vmap`.

    Args:
        x: Images, shape (B, 1, H, W).
        stacklevel: Frames up to the caller that the warning names.

    Raises:
        ImageRangeError: If a value is NaN or infinite.

    Warns:
        ImageRangeWarning: Names the scale that the values look like.
    """
    if x.numel() == 0 or _traced(x):
        return
    low_each, high_each = torch.aminmax(x.detach().flatten(1), dim=1)
    lows, highs = low_each.tolist(), high_each.tolist()
    for index, (low, high) in enumerate(zip(lows, highs, strict=True)):
        if not (math.isfinite(low) and math.isfinite(high)):
            msg = f"image {index} of the batch holds NaN or infinity; check how it was read"
            raise ImageRangeError(msg)
        guess = "" if low == high else _looks_like(low, high)
        if guess:
            warnings.warn(
                f"image {index} of the batch has values from {low:g} to {high:g}, which look like "
                f"{guess}, not [-1024, 1024]; "
                "scale with torchxrayvision.utils.normalize(img, maxval) "
                "or read with torchxrayvision.utils.load_image(path)",
                ImageRangeWarning,
                stacklevel=stacklevel,
            )
            return


def resize(x: Tensor, resolution: int, route: ResizeRoute = "antialias") -> Tensor:
    """Bring a batch of square images to the resolution a network was trained at.

    Args:
        x: Shape (B, 1, S, S), any floating dtype.
        resolution: Height and width to give, in pixels.
        route: `"antialias"` filters before sampling. `"bilinear"` samples four neighbours only,
            as 1.5.7's predecessors did before 2025; some published example values come from it.

    Returns:
        Shape (B, 1, resolution, resolution), dtype of `x`; `x` itself when nothing is to do.
    """
    if x.shape[-1] == resolution and x.shape[-2] == resolution:
        return x
    size = (resolution, resolution)
    if route == "bilinear":
        # Upsample's own default before anti-aliasing was half-pixel bilinear without a filter.
        return functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
    # The anti-aliased kernel lacks float16 and bfloat16 on the CPU.
    half = x.dtype in (torch.float16, torch.bfloat16)
    full = x.float() if half else x
    out = functional.interpolate(full, size=size, mode="bilinear", antialias=True)
    return out.to(x.dtype) if half else out


def standardize(x: Tensor) -> Tensor:
    """Bring each image to mean 0 and standard deviation 1.

    Args:
        x: Shape (B, 1, S, S) in [-1024, 1024], any floating dtype.

    Returns:
        Shape and dtype of `x`; zeros for an image of one value.
    """
    # In float32 and at unit scale, for the squares of half precision overflow or are too coarse.
    unit = (x.float() if x.dtype in (torch.float16, torch.bfloat16) else x) / 1024
    centred = unit - unit.mean((2, 3), keepdim=True)
    variance = centred.square().mean((2, 3), keepdim=True)
    return (centred / (variance + _FLAT).sqrt()).to(x.dtype)

"""Scales of values: the range and resolution of what goes in, the kinds of what comes out."""

from __future__ import annotations

import math
import os
import warnings
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Literal, cast, get_args

import numpy as np
import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional

from torchxrayvision.errors import (
    ImageRangeError,
    ImageRangeWarning,
    ImageShapeError,
    UnknownNameError,
    caller_stacklevel,
    counted,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torchxrayvision.models.base import XRayModel
    from torchxrayvision.weights import Preprocessing

ResizeRoute = Literal["antialias", "bilinear", "bicubic"]

# A radiograph in [-1024, 1024] never spans so little; one scaled to [0, 1] or standardised does.
_SMALL: Final = 10.0
# Interpolation and augmentation overshoot a little; another bit depth overshoots by thousands.
_LIMIT: Final = 1024.0 * 1.1
# Variance, at unit scale, far below that of any radiograph: nothing is divided by zero.
_FLAT: Final = 1e-6
# Mean and standard deviation of the channels of ImageNet in [0, 1].
_MEAN: Final = (0.485, 0.456, 0.406)
_DEVIATION: Final = (0.229, 0.224, 0.225)
_scale_known: ContextVar[bool] = ContextVar("_scale_known", default=False)


def prepared(x: Any, model: XRayModel) -> Tensor:
    """Images as one batch, checked, at the resolution of a model, still in [-1024, 1024].

    Args:
        x: Images, shape (B, 1, S, S), or one image (1, S, S); a tensor or a NumPy array.
        model: What they are for.

    Raises:
        ImageShapeError: If it is anything else; the message says what to type.
        ImageRangeError: If a value is NaN or infinite.
    """
    if isinstance(x, torch.fx.Proxy):  # nothing can be asked of what stands for an image
        resolution = getattr(model, "input_resolution", None)
        stand_in = cast("Tensor", x)
        return _prepared_later(stand_in, model._channels, resolution, model.resize_route)
    return at_resolution(checked(x, model), model)


def checked(x: Any, model: XRayModel) -> Tensor:
    """Images as one batch, checked for a model as in `prepared`, at their own size."""
    channels = model._channels
    batch = _as_batch(x, model, channels)
    check_shape(batch, channels)
    warn_normalization(batch)
    return batch


def at_resolution(x: Tensor, model: XRayModel) -> Tensor:
    """Checked images (B, 1, S, S) at the resolution of a model.

    Raises:
        ImageShapeError: If the model takes images of its resolution only.
    """
    resolution = getattr(model, "input_resolution", None)
    if resolution is None or model.resizes:
        return x if resolution is None else fix_resolution(x, resolution, model)
    if x.shape[-1] != resolution:
        msg = (
            f"{type(model).__name__} with these weights takes images of {resolution} x {resolution}"
            f" pixels, got {tuple(x.shape)}; resize them with "
            f"torchxrayvision.utils.fix_resolution(x, {resolution}), or encode them as they are "
            "with encode(x, check_resolution=False)"
        )
        raise ImageShapeError(msg)
    return x


def _as_batch(x: Any, model: XRayModel, channels: int) -> Tensor:
    """A tensor, with a batch axis where it is plain what is meant."""
    if isinstance(x, np.ndarray):
        like = next(model.parameters(), torch.zeros(0))
        floating = like.dtype if x.dtype.kind == "f" else None
        x = torch.as_tensor(np.require(x, requirements="W"), dtype=floating, device=like.device)
    if not isinstance(x, Tensor):
        name = type(x).__name__
        msg = f"a network takes a tensor of images (B, {channels}, H, W), got {name}"
        if isinstance(x, str | os.PathLike):
            msg += f" {str(x)!r}; for files: torchxrayvision.inference.predict({str(x)!r}, model)"
        raise ImageShapeError(msg)
    if x.dim() == 3 and len(x) == channels == 1:  # one image is a batch of one
        return x[None]
    return x[None, None] if x.dim() == 2 and model.takes_planes else x


@torch.fx.wrap
def _prepared_later(x: Tensor, channels: int, resolution: int | None, route: ResizeRoute) -> Tensor:
    """What a graph of torch.fx calls, as one step, for `prepared`."""
    check_shape(x, channels)
    check_range(x)
    return x if resolution is None else resize(x, resolution, route)


def warn_normalization(x: Tensor) -> None:
    """What models call: that of `utils` if a client has replaced it, else `check_range`."""
    check_range(x)


def fix_resolution(x: Tensor, resolution: int, model: XRayModel) -> Tensor:
    """What models call: that of `utils` if a client has replaced it, else `resize`."""
    return resize(x, resolution, model.resize_route)


def imagenet_scale(x: Tensor) -> Tensor:
    """From grey [-1024, 1024] to three channels in [0, 1], standardised as ImageNet is.

    Args:
        x: Shape (B, 1, S, S).

    Returns:
        Shape (B, 3, S, S), dtype of `x`.
    """
    return imagenet_standardize((x + 1024) / 2048)


def imagenet_standardize(x: Tensor) -> Tensor:
    """Standardise channels in [0, 1] as ImageNet is.

    Args:
        x: Shape (B, C, S, S) or (C, S, S), C of 1 or 3.

    Returns:
        Three channels, dtype of `x`.
    """
    shape = (3, 1, 1)
    mean = torch.tensor(_MEAN, dtype=x.dtype, device=x.device).reshape(shape)
    deviation = torch.tensor(_DEVIATION, dtype=x.dtype, device=x.device).reshape(shape)
    return (x - mean) / deviation


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
        missing = {2: "; add two axes with x[None, None]", 3: "; add the batch axis with x[None]"}
        advice = missing.get(x.dim(), "")
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


def check_range(x: Tensor) -> None:
    """Warn when the values look like another scale than [-1024, 1024].

    The check costs one pass over the input, well under a thousandth of a forward pass. It is
    left out where values cannot be looked at: while tracing, compiling or under `vmap`.

    Args:
        x: Images, shape (B, 1, H, W).

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
        if guess and not _scale_known.get():
            warnings.warn(
                f"image {index} of the batch has values from {low:g} to {high:g}, which look like "
                f"{guess}, not [-1024, 1024]; "
                "scale with torchxrayvision.utils.normalize(img, maxval) "
                "or read with torchxrayvision.utils.load_image(path)",
                ImageRangeWarning,
                stacklevel=caller_stacklevel(),
            )
            return


@contextmanager
def scale_is_known() -> Iterator[None]:
    """No `check_range` warns here: the images were read and scaled by this package.

    An image that uses little of its range would pass for another scale, and the warning could name
    no file; the row of the file notes it instead.
    """
    token = _scale_known.set(True)
    try:
        yield
    finally:
        _scale_known.reset(token)


def resize(x: Tensor, resolution: int, route: ResizeRoute = "antialias") -> Tensor:
    """Bring a batch of square images to the resolution a network was trained at.

    Args:
        x: Shape (B, 1, S, S), any floating dtype.
        resolution: Height and width to give, in pixels.
        route: `"antialias"` filters before sampling. `"bilinear"` samples four neighbours only,
            as 1.5.7's predecessors did before 2025; some published example values come from it.
            `"bicubic"` filters with the cubic kernel of Pillow and keeps the range, as
            torchvision's transforms of pictures do.

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
    if route == "bicubic":
        # The kernel overshoots at edges. Pillow, which has no values outside of the range, cuts
        # that off after each of its two passes, across and down.
        out = full
        for size in ((x.shape[-2], resolution), (resolution, resolution)):
            out = functional.interpolate(out, size=size, mode="bicubic", antialias=True)
            out = out.clamp(-1024, 1024)
    else:
        out = functional.interpolate(full, size=size, mode="bilinear", antialias=True)
    return out.to(x.dtype) if half else out


class Preprocess(nn.Module):
    """What a release does with its square pictures: keep the middle of them, standardised.

    Args:
        crop: Most pixels a side that are kept.
        mean: Of pixels in [0, 1].
        deviation: Of pixels in [0, 1].
    """

    def __init__(self, *, crop: int, mean: float, deviation: float) -> None:
        super().__init__()
        self.crop, self.mean, self.deviation = crop, mean, deviation

    @classmethod
    def of(cls, facts: Preprocessing) -> Preprocess:
        """The layer for what a record of weights says, whose colours are one grey here.

        Where mean and deviation differ between the colours, their means are taken: a grey image
        is standardised once, and the first layer of the network makes up for the rest.
        """
        return cls(crop=facts.crop, mean=facts.grey_mean, deviation=facts.grey_deviation)

    def forward(self, x: Tensor) -> Tensor:
        """From (B, 1, S, S) in [-1024, 1024] to (B, 1, crop, crop), standardised."""
        first = (x.shape[-1] - self.crop) // 2
        middle = x[..., first : first + self.crop, first : first + self.crop]
        return ((middle + 1024) / 2048 - self.mean) / self.deviation

    def extra_repr(self) -> str:
        """What `repr` shows of it."""
        return f"crop={self.crop}, mean={self.mean}, deviation={self.deviation}"


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


OutputKind = Literal["logit", "probability", "operating-point"]
"""What `output=` takes: the kinds of number that a classifier gives."""

OUTPUT_KINDS: Final[tuple[str, ...]] = get_args(OutputKind)
"""The kinds of output by name, from the network's own numbers to what is shown by default."""


def check_output_kind(kind: str) -> OutputKind:
    """Return the kind, or say which kinds there are.

    Args:
        kind: The word as the caller gave it.

    Returns:
        The word.

    Raises:
        UnknownNameError: If it is not one of `OUTPUT_KINDS`.
    """
    if kind not in OUTPUT_KINDS:
        raise UnknownNameError("output kind", kind, OUTPUT_KINDS)
    return cast("OutputKind", kind)


def op_norm(outputs: Tensor, op_threshs: Tensor) -> Tensor:
    """Rescale probabilities so that each finding's operating point lies at 0.5.

    Linear on both sides of the operating point t: p / 2t below it, 1 - (1 - p) / 2(1 - t) above.
    An untrained output has no operating point (NaN) and gives 0.5.

    Args:
        outputs: Probabilities in [0, 1], shape (B, P) or (P,).
        op_threshs: Operating points in (0, 1) or NaN, shape (P,).

    Returns:
        Values in [0, 1], shape and dtype of `outputs`.

    Raises:
        ImageShapeError: If the last axes differ.

    Example:
        >>> op_norm(torch.tensor([0.1, 0.6]), torch.tensor([0.2, float("nan")]))
        tensor([0.2500, 0.5000])

    Source:
        Cohen et al. Chester: a web delivered locally computed chest X-ray disease prediction
        system. 2019. https://arxiv.org/abs/1901.11210
    """
    if outputs.shape[-1] != op_threshs.shape[-1]:
        msg = (
            f"{counted(outputs.shape[-1], 'output does', 'outputs do')} not match "
            f"{counted(op_threshs.shape[-1], 'operating point')}; after replacing the "
            "classifier set op_threshs = None or use reset_classifier(n)"
        )
        raise ImageShapeError(msg)
    points = op_threshs.to(device=outputs.device, dtype=outputs.dtype)
    untrained = torch.isnan(points)
    # NaN in an unused branch of `where` would still poison the gradient, so it is replaced first.
    points = torch.where(untrained, 0.5, points)
    below = outputs / (points * 2)
    above = 1.0 - (1.0 - outputs) / ((1.0 - points) * 2)
    return torch.where(untrained, 0.5, torch.where(outputs < points, below, above))


def calibrate(logits: Tensor, kind: OutputKind, op_threshs: Tensor | None) -> Tensor:
    """Turn logits into the kind of output that was asked for.

    Args:
        logits: Shape (B, P).
        kind: `"logit"`, `"probability"` or `"operating-point"`.
        op_threshs: Operating points, shape (P,); needed for `"operating-point"` only.

    Returns:
        Shape and dtype of `logits`.

    Raises:
        ValueError: If operating points are asked for and there are none.
    """
    if kind == "logit":
        return logits
    probability = torch.sigmoid(logits)
    if kind == "probability":
        return probability
    if op_threshs is None:
        msg = (
            "output='operating-point' needs operating points and this model has none; "
            "ask for 'probability', or pass op_threshs"
        )
        raise ValueError(msg)
    return op_norm(probability, op_threshs)

"""Counterfactual images: what would have to look different for the network to say otherwise."""

from __future__ import annotations

import importlib.util
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from torchxrayvision.errors import DependencyError, ExplanationError, UnknownNameError
from torchxrayvision.explain.model import (
    at_rest,
    checked,
    probability,
    score,
    target_index,
    value_kind,
)
from torchxrayvision.models import resize
from torchxrayvision.pictures import annotate, grey

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from torchxrayvision.explain.model import Target

_FIRST: Final = 0.01  # share of the length of the code, too short a step to see
_HALVINGS: Final = 8  # the shift is then known to 0.4 %
# Decoders overshoot; a little more than the range of radiographs leaves them a gradient there.
_OVERSHOOT: Final = 1024 * 1.05
_SURE: Final = 0.02  # nobody waits for a probability of 0 or 1


class Autoencoder(Protocol):
    """What `latent_shift` needs; `autoencoders.ResNetAE` and `ieee8023.VQGAN` have it."""

    def encode(self, x: Tensor) -> Tensor:
        """Images (B, 1, S, S) in [-1024, 1024] to codes (B, ...)."""

    def decode(self, z: Tensor) -> Tensor:
        """Codes to images (B, 1, R, R), nominally in [-1024, 1024]."""


@dataclass(frozen=True, eq=False)
class Counterfactual:
    """An image, moved along the gradient of a target in the codes of an autoencoder.

    Attributes:
        shifts: Step along the gradient for each frame, in lengths of the code, shape (F,); from
            negative (less of the target) to positive (more).
        frames: Images, shape (F, R, R), float32 in [-1024, 1024].
        values: What the network says of each frame, shape (F,).
        reconstruction: The image at a shift of 0, shape (R, R).
        original_value: What the network says of the image itself.
        reached: Whether the change that was asked for was reached, downwards and upwards.
        kind: What the values are, `"probability"` or `"years"`.
    """

    shifts: Tensor
    frames: Tensor
    values: Tensor
    reconstruction: Tensor
    original_value: float
    reached: tuple[bool, bool]
    kind: str

    def heat(self, size: int | None = None) -> Tensor:
        """Where the frames differ from the image at a shift of 0.

        Args:
            size: Rows and columns of the result; None for those of the frames.

        Returns:
            float32, shape (size, size): the largest absolute difference over the frames.
        """
        largest = (self.frames - self.reconstruction).abs().amax(0)
        if size is None or size == largest.shape[-1]:
            return largest
        # Frames of more pixels than the result are filtered, so that no line falls between them.
        resized = functional.interpolate(
            largest[None, None], (size, size), mode="bilinear", antialias=True
        )
        return resized[0, 0]


def latent_shift(
    model: nn.Module,
    autoencoder: Autoencoder,
    x: Tensor,
    target: Target,
    *,
    change: float = 0.3,
    frames: int = 24,
    limit: float = 4.0,
    batch_size: int = 4,
) -> list[Counterfactual]:
    """Move each image towards less and more of a target until the network changes its mind.

    The code of an image is moved along the gradient of the logit; how far is searched, on both
    sides, until the probability has changed by `change`.

    Args:
        model: The network to explain.
        autoencoder: Encodes and decodes; its codes are differentiable.
        x: Images, shape (B, 1, S, S) in [-1024, 1024].
        target: Name or place of the output.
        change: Change of the probability (or of the years) to reach on each side.
        frames: Frames of the animation.
        limit: Longest shift, in lengths of the code.
        batch_size: Frames that are decoded together.

    Returns:
        One result per image. A side that cannot reach the change ends where it is nearest.

    Raises:
        ExplanationError: If the autoencoder gives images on which the logit does not depend.
        UnknownNameError: If the network has no such target.

    Source:
        Cohen et al. Gifsplanation via latent shift: a simple autoencoder approach to
        counterfactual generation for chest X-rays. MIDL 2021. https://arxiv.org/abs/2102.09475
    """
    index = target_index(model, target)
    with at_rest(model), _at_rest_too(autoencoder):
        return [
            _Search(model, autoencoder, image[None], index, batch_size).run(change, frames, limit)
            for image in checked(x)
        ]


def _at_rest_too(autoencoder: Autoencoder) -> AbstractContextManager[None]:
    return at_rest(autoencoder) if isinstance(autoencoder, nn.Module) else nullcontext()


class _Search:
    """One image, its code, and the line through the code along which images are looked at."""

    def __init__(
        self, model: nn.Module, autoencoder: Autoencoder, image: Tensor, index: int, batch: int
    ) -> None:
        self.model, self.autoencoder, self.index, self.batch = model, autoencoder, index, batch
        with torch.no_grad():
            self.original = probability(model, image, index).item()
            size = getattr(autoencoder, "input_resolution", None)
            fitting = image if size is None else resize(image, size)
            self.code = autoencoder.encode(fitting).detach()
        self.direction = self._direction()
        with torch.no_grad():
            self.start = self._value(0.0)

    def _direction(self) -> Tensor:
        """The gradient of the logit to the code, of the length of the code."""
        code = self.code.clone().requires_grad_()
        decoded = self.autoencoder.decode(code).clamp(-_OVERSHOOT, _OVERSHOOT)
        logit = score(self.model, decoded, self.index).sum()
        (gradient,) = torch.autograd.grad(logit, code, allow_unused=True)
        length = 0.0 if gradient is None else gradient.float().norm().item()
        if gradient is None or not length > 0:
            msg = (
                "the logit does not depend on the code of the autoencoder, so there is no "
                "direction to go; is it trained, and does decode() pass gradients?"
            )
            raise ExplanationError(msg)
        scale = self.code.float().norm().item() or 1.0
        direction: Tensor = (gradient.float() * (scale / length)).to(self.code.dtype)
        return direction

    def _images(self, shifts: Tensor) -> Tensor:
        steps = shifts.to(self.code).reshape(-1, *[1] * (self.code.dim() - 1))
        return self.autoencoder.decode(self.code + steps * self.direction).clamp(-1024, 1024)

    def _value(self, shift: float) -> float:
        images = self._images(torch.tensor([shift]))
        return float(probability(self.model, images, self.index).item())

    @torch.no_grad()
    def run(self, change: float, frames: int, limit: float) -> Counterfactual:
        """Find both ends, and decode the frames between them."""
        kind = value_kind(self.model)
        down, reached_down = self._end(-1, self._aim(-change, kind), limit)
        up, reached_up = self._end(1, self._aim(change, kind), limit)
        shifts = torch.linspace(-down, up, frames)
        images, values = [], []
        for some in torch.split(shifts, self.batch):
            decoded = self._images(some)
            values.append(probability(self.model, decoded, self.index).float().cpu())
            images.append(decoded[:, 0].float().cpu())
        middle = self._images(torch.zeros(1))[0, 0].float().cpu()
        return Counterfactual(
            shifts=shifts,
            frames=torch.cat(images),
            values=torch.cat(values),
            reconstruction=middle,
            original_value=self.original,
            reached=(reached_down, reached_up),
            kind=kind,
        )

    def _aim(self, change: float, kind: str) -> float:
        aim = self.start + change
        return aim if kind != "probability" else min(max(aim, _SURE), 1 - _SURE)

    def _end(self, sign: int, aim: float, limit: float) -> tuple[float, bool]:
        """The shortest shift on one side that reaches the aim, and whether there is one."""

        def there(value: float) -> bool:
            return sign * (value - aim) >= 0

        if there(self.start):
            return 0.0, True
        before, shift, best, nearest = 0.0, _FIRST, self.start, 0.0
        while before < limit:
            shift = min(shift, limit)
            value = self._value(sign * shift)
            if there(value):
                return self._bisect(sign, before, shift, there), True
            if sign * (value - best) > 0:
                best, nearest = value, shift
            before, shift = shift, 2 * shift
        return nearest, False

    def _bisect(
        self, sign: int, before: float, shift: float, there: Callable[[float], bool]
    ) -> float:
        for _ in range(_HALVINGS):
            middle = (before + shift) / 2
            if there(self._value(sign * middle)):
                shift = middle
            else:
                before = middle
        return shift


_PILLOW: Final = (".gif", ".webp")
_OPENCV: Final = ".mp4"


def check_animation(extension: str) -> None:
    """Refuse what `save_animation` cannot write, before frames are computed.

    Args:
        extension: Of the file, with its dot.

    Raises:
        UnknownNameError: If nothing writes such files.
        DependencyError: If what writes them is not installed.
    """
    if extension not in (*_PILLOW, _OPENCV):
        raise UnknownNameError("extension of an animation", extension, (*_PILLOW, _OPENCV))
    if extension == _OPENCV and importlib.util.find_spec("cv2") is None:
        raise DependencyError("opencv-python-headless", "an MP4 animation", "cv2")


def save_animation(
    counterfactual: Counterfactual,
    path: str | os.PathLike[str],
    *,
    title: str = "",
    size: int | None = None,
    fps: float = 12.0,
) -> Path:
    """Write a counterfactual as an animation that runs to both ends and back, for ever.

    Args:
        counterfactual: What `latent_shift` gave.
        path: `.gif` or `.webp`, or `.mp4` with the extra `cv2`. (The packages
            that bring an encoder for H.264 are under the GPL; OpenCV's MPEG-4 is not.)
        title: Put under each frame, before its value.
        size: Rows and columns of the image; None leaves those of the autoencoder.
        fps: Frames per second.

    Returns:
        The path.

    Raises:
        UnknownNameError: If the extension is another.
        DependencyError: If `.mp4` is asked for without OpenCV.
        ExplanationError: If OpenCV cannot write it.
    """
    path = Path(path)
    extension = path.suffix.lower()
    check_animation(extension)
    pictures = _pictures(counterfactual, title, size)
    order = [*range(len(pictures)), *range(len(pictures) - 2, 0, -1)]
    looped = [pictures[i] for i in order]
    if extension == _OPENCV:
        _save_mp4(looped, path, fps)
    else:
        _save_with_pillow(looped, path, fps)
    return path


def _pictures(
    counterfactual: Counterfactual, title: str, size: int | None
) -> list[NDArray[np.uint8]]:
    from PIL import Image

    pictures = []
    for frame, value in zip(counterfactual.frames, counterfactual.values.tolist(), strict=True):
        plane = grey(frame.numpy())
        if size is not None:
            resized = Image.fromarray(plane).resize((size, size), Image.Resampling.BICUBIC)
            plane = np.asarray(resized)
        # In small type a space alone is two pixels wide.
        label = f"{title}: {value:.2f}" if title else f"{value:.2f}"
        pictures.append(annotate(np.repeat(plane[..., None], 3, axis=2), label))
    return pictures


def _save_with_pillow(pictures: list[NDArray[np.uint8]], path: Path, fps: float) -> None:
    from PIL import Image

    # All is grey: one channel is a palette of 256 greys in a GIF, so no colour is approximated.
    first, *others = [Image.fromarray(picture[..., 0]) for picture in pictures]
    first.save(path, save_all=True, append_images=others, duration=round(1000 / fps), loop=0)


def _save_mp4(pictures: list[NDArray[np.uint8]], path: Path, fps: float) -> None:
    import cv2

    # MPEG-4 halves the resolution of colour, so that sides must be even.
    height, width = (n + n % 2 for n in pictures[0].shape[:2])
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
    if not writer.isOpened():
        msg = f"{path}: this build of OpenCV cannot write MP4 there; write a .gif or .webp"
        raise ExplanationError(msg)
    try:
        for picture in pictures:
            even = np.zeros((height, width, 3), np.uint8)
            even[: picture.shape[0], : picture.shape[1]] = picture
            writer.write(even)
    finally:
        writer.release()

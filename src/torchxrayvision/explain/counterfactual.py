"""Counterfactual images: what would have to look different for the network to say otherwise."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import torch
from torch import nn
from torch.nn import functional

from torchxrayvision.errors import ExplanationError
from torchxrayvision.explain.model import (
    at_rest,
    checked,
    probability,
    score,
    target_index,
    value_kind,
)
from torchxrayvision.models import resize

if TYPE_CHECKING:
    from collections.abc import Callable

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
        frames: Images of a film.
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
        """Find both ends, and make the film between them."""
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

"""Any network of the package on the fastest engine, called as the network itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from torchxrayvision.inference.engines.base import example
from torchxrayvision.inference.engines.choose import choose_engine, open_planned
from torchxrayvision.inference.engines.runtime import Plan, input_size
from torchxrayvision.models import XRayClassifier, at_resolution, check_shape

if TYPE_CHECKING:
    from collections.abc import Callable

    from torchxrayvision.inference.engines.runtime import Choice
    from torchxrayvision.models import XRayModel

    Answers = torch.Tensor | dict[str, torch.Tensor]


class Accelerated:
    """A network on an engine; made by `accelerate`.

    Args:
        batch_size: Images per call of the engine.
        plan: How it runs besides.

    Attributes:
        model: The network.
        choice: The engine and its arithmetic.
    """

    def __init__(
        self, model: XRayModel, batch_size: int, choice: Choice, plan: Plan | None = None
    ) -> None:
        self.model = model
        self.choice = choice
        self._engine = open_planned(model, batch_size, choice, plan or Plan())

    @property
    def batch_size(self) -> int:
        """Images of the next batch."""
        return len(self._engine.input)

    @property
    def overlaps(self) -> int:
        """Batches that may have been begun before the oldest of them is to be finished."""
        return self._engine.overlaps

    def __call__(self, x: torch.Tensor) -> Answers:
        """What `model(x)` gives, without gradients.

        Args:
            x: Any number of images, shape (N, 1, S, S) in [-1024, 1024]; larger or smaller ones
                are resized as the model does.

        Returns:
            float32 on the CPU: a tensor, or a dictionary where the model gives one.
        """
        check_shape(x)
        images = at_resolution(x.detach().float(), self.model)
        parts, done = [], 0
        while done < len(images):  # the size of batches may change meanwhile
            part = images[done : done + self.batch_size]
            parts.append(self._begin(part)())
            done += len(part)
        return self._named(tuple(torch.cat(each) for each in zip(*parts, strict=True)))

    def start(self, x: torch.Tensor) -> Callable[[], Answers]:
        """Begin with one batch.

        Args:
            x: At most `batch_size` images, see `__call__`.

        Returns:
            What waits for the end and gives what a call gives; called in the order of the batches,
            before more than `overlaps` others are begun.
        """
        check_shape(x)
        finish = self._begin(at_resolution(x.detach().float(), self.model))
        return lambda: self._named(finish())

    def close(self) -> None:
        """End; batches that were not finished are dropped."""
        self._engine.close()

    def _named(self, outputs: tuple[torch.Tensor, ...]) -> Answers:
        """Outputs of the engine as the model gives them."""
        if isinstance(self.model, XRayClassifier):
            return self.model.convert(outputs[0], self.model.output_kind)
        if len(outputs) > 1:
            return dict(zip(self._engine.wanted, outputs, strict=True))
        return outputs[0]

    def _begin(self, images: torch.Tensor) -> Callable[[], tuple[torch.Tensor, ...]]:
        count = len(images)
        self._engine.input[:count] = images.cpu().numpy()
        finish = self._engine.start()
        return lambda: tuple(given[:count].clone() for given in finish())


def accelerate(
    model: XRayModel,
    batch_size: int = 8,
    *,
    engine: str = "auto",
    precision: str = "exact",
    images: int = 1000,
    plan: Plan | None = None,
) -> Accelerated:
    """Any network of the package, on the engine that is fastest on this machine.

    Args:
        model: A classifier, segmentation network or autoencoder that names its resolution. It is
            left in evaluation mode, as the engine may run it as it is.
        batch_size: Images that go through the network together.
        engine: `"torch"`, `"onnx"`, `"openvino"`, or `"auto"`, which measures once a machine and
            network and remembers.
        precision: `"exact"`, or `"fast"`: probabilities within 0.01, masks with a Dice coefficient
            of 0.995, reconstructions with 50 dB.
        images: How many there are to do; `"auto"` does not convert a network for a run that torch
            ends in a minute, and torch compiles it only for one of more than ten.
        plan: How it runs besides; None keeps the size of batches.

    Returns:
        To be called as the model.

    Raises:
        UnknownNameError: If engine or precision are not among those.
        DependencyError: If the package of the engine is missing.

    Warns:
        PrecisionWarning: If `"fast"` is no faster here, or an engine is too far from PyTorch, so
            that it is not used.

    Example:
        >>> from torchxrayvision.models import get_model
        >>> model = get_model("resnet18", num_classes=2).eval()
        >>> model.input_resolution = 64
        >>> fast = accelerate(model, batch_size=2, engine="torch")
        >>> fast(torch.zeros(3, 1, 64, 64)).shape
        torch.Size([3, 2])
    """
    net = model.eval()
    choice = choose_engine(
        net, batch_size, engine, precision, images=images,
        sample=lambda: example(input_size(net), batch_size).numpy(),
        grows=plan is not None and plan.grows,
    )  # fmt: skip
    return Accelerated(net, batch_size, choice, plan)

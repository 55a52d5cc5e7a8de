"""What the classifiers of other groups share: explicit outputs, and named predictions."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any, ClassVar, Final

import torch
from torch import Tensor, nn

from torchxrayvision.errors import UnknownNameError
from torchxrayvision.models import Prediction, XRayModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchxrayvision.models import ResizeRoute

__all__ = ["BaselineClassifier", "imagenet_scale"]

# Mean and standard deviation of the channels of ImageNet in [0, 1].
_MEAN: Final = (0.485, 0.456, 0.406)
_DEVIATION: Final = (0.229, 0.224, 0.225)


def imagenet_scale(x: Tensor) -> Tensor:
    """From grey [-1024, 1024] to three channels in [0, 1], standardised as ImageNet is.

    Args:
        x: Shape (B, 1, S, S).

    Returns:
        Shape (B, 3, S, S), dtype of `x`.
    """
    shape = (1, 3, 1, 1)
    mean = torch.tensor(_MEAN, dtype=x.dtype, device=x.device).reshape(shape)
    deviation = torch.tensor(_DEVIATION, dtype=x.dtype, device=x.device).reshape(shape)
    return ((x + 1024) / 2048 - mean) / deviation


class BaselineClassifier(XRayModel):
    """Base of the classifiers of other groups.

    Input is a float tensor (B, 1, S, S) in [-1024, 1024], of any size S. Output is (B, P), of the
    kind that `output_kind` names.

    Attributes:
        kinds: Every kind of output that the network has.
        label: What `repr` shows, as in 1.5.7.
    """

    kinds: ClassVar[tuple[str, ...]]
    label: ClassVar[str]

    def __init__(
        self,
        *,
        targets: Sequence[str],
        input_resolution: int,
        output: str | None,
        default: str,
        resize_route: ResizeRoute,
    ) -> None:
        super().__init__(
            targets=targets, input_resolution=input_resolution, resize_route=resize_route
        )
        self._output_kind = default if output is None else self._check_kind(output)

    @property
    def output_kind(self) -> str:
        """What `forward` gives when it is not told: `output` of the constructor, else as 1.5.7."""
        return self._output_kind

    @classmethod
    def _check_kind(cls, kind: str) -> str:
        if kind not in cls.kinds:
            raise UnknownNameError(f"output kind of {cls.__name__}", kind, cls.kinds)
        return kind

    @abc.abstractmethod
    def _classify(self, x: Tensor) -> Tensor:
        """Raw outputs (B, P) of a prepared input."""

    @abc.abstractmethod
    def _convert(self, raw: Tensor, kind: str) -> Tensor:
        """From raw outputs to one of `kinds`."""

    def forward(self, x: Tensor, output: str | None = None) -> Tensor:
        """Predict.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].
            output: One of `kinds`; None means `output_kind`.

        Returns:
            Shape (B, P).

        Raises:
            UnknownNameError: If the network has no such output.
        """
        kind = self.output_kind if output is None else self._check_kind(output)
        raw = self._classify(self._prepare(x, stacklevel=6))  # two frames of nn.Module
        return self._convert(raw, kind)

    def predict(self, x: Tensor) -> Prediction:
        """Outputs by name: probabilities, or years where the network has nothing else.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].

        Returns:
            Target to values of shape (B,); none while there are no weights.
        """
        kind = "probability" if "probability" in self.kinds else self.kinds[0]
        values = self(x, output=kind)
        pairs = zip(self.targets, self.trained, strict=True)
        named = {name: values[:, i] for i, (name, known) in enumerate(pairs) if known}
        return Prediction(kind, named)

    def __repr__(self) -> str:
        return nn.Module.__repr__(self) if self.weights is None else self.label

    if TYPE_CHECKING:

        def __call__(self, x: Tensor, output: str | None = None, **kwargs: Any) -> Tensor: ...  # noqa: D102

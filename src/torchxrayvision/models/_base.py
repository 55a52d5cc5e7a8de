"""What every classifier does on top of `XRayModel`: one head, calibrated outputs."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from torchxrayvision.errors import ImageShapeError
from torchxrayvision.labels import DEFAULT_PATHOLOGIES
from torchxrayvision.models._calibration import OutputKind, calibrate, check_output_kind
from torchxrayvision.models._network import Prediction, XRayModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchxrayvision.models._input import ResizeRoute

__all__ = ["XRayClassifier", "default_targets"]


def default_targets(count: int) -> list[str]:
    """Names for the outputs of a network that nobody has trained.

    Args:
        count: Number of outputs.

    Returns:
        The 18 findings of the core models if there are 18 outputs, empty names otherwise.
    """
    return list(DEFAULT_PATHOLOGIES) if count == len(DEFAULT_PATHOLOGIES) else [""] * count


class XRayClassifier(XRayModel):
    """Base of the classifiers: one input contract, one output contract.

    Input is a float tensor (B, 1, S, S) in [-1024, 1024], of any size S: it is resized, filtered
    against aliasing, to the resolution of the weights. Output is (B, P).

    Attributes:
        targets: Names of the P outputs; an empty name marks an output that nobody trained.
        op_threshs: Operating points, shape (P,), or None. Set it to None for plain logits.
        apply_sigmoid: Whether `forward` gives probabilities where there are no operating points.
        output: What `forward` gives by default; None decides as 1.5.7 does.
    """

    architecture: ClassVar[str]
    op_threshs: Tensor | None
    output: OutputKind | None = None
    apply_sigmoid: bool = False

    def __init__(
        self,
        *,
        targets: Sequence[str],
        input_resolution: int | None,
        op_threshs: Tensor | Sequence[float] | None,
        apply_sigmoid: bool,
        resize_route: ResizeRoute = "antialias",
        output: str | None = None,
    ) -> None:
        super().__init__(
            targets=targets, input_resolution=input_resolution, resize_route=resize_route
        )
        self.output = None if output is None else check_output_kind(output)
        self.apply_sigmoid = apply_sigmoid
        # A buffer follows .to(device); as in 1.5.7 it is part of the state where it is set.
        self.register_buffer("op_threshs", None)
        if op_threshs is not None:
            self.set_operating_points(op_threshs)

    def set_operating_points(self, points: Tensor | Sequence[float]) -> None:
        """Calibrate `forward` to these points.

        Args:
            points: One probability in (0, 1) for each output, NaN where there is none; shape (P,).
        """
        self.op_threshs = torch.as_tensor(points, dtype=torch.float32)

    @property
    def _points(self) -> Tensor | None:
        """Operating points; None also where somebody deleted them."""
        return getattr(self, "op_threshs", None)

    @property
    def trained(self) -> tuple[bool, ...]:
        """For each output, whether it was trained and, where points are set, calibrated."""
        named = super().trained
        points = self._points
        if self.weights is None or points is None:
            return named
        known = (~torch.isnan(points)).tolist()
        return tuple(a and b for a, b in zip(named, known, strict=True))

    @property
    @abc.abstractmethod
    def head(self) -> nn.Linear:
        """The last layer, from embeddings to logits."""

    @abc.abstractmethod
    def _replace_head(self, layer: nn.Linear) -> None:
        """Put a layer in that place; nn.Module would register an assignment to a property."""

    def forward(self, x: Tensor, output: str | None = None) -> Tensor:
        """Predict.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].
            output: `"logit"`, `"probability"` or `"operating-point"`; None means `default_output`.

        Returns:
            Shape (B, P). An output that was never trained carries no information: see `trained`.
        """
        kind = self.default_output if output is None else check_output_kind(output)
        logits = self.head(self._pooled(self._prepare(x, stacklevel=6)))  # two frames of nn.Module
        return calibrate(logits, kind, self._points)

    def _pooled(self, x: Tensor) -> Tensor:
        """Features (B, D) of a prepared input, for the last layer."""
        return self._embed(x)

    @property
    def default_output(self) -> OutputKind:
        """What `forward` gives when it is not told: `output` of the constructor, else as in 1.5.7.

        That is operating points where there are any, else probabilities if `apply_sigmoid` is
        set, else logits.
        """
        if self.output is not None:
            return self.output
        if self._points is not None:
            return "operating-point"
        return "probability" if self.apply_sigmoid else "logit"

    def reset_classifier(self, num_classes: int, targets: Sequence[str] | None = None) -> None:
        """Put a fresh last layer in place, to fine-tune on other findings.

        The operating points go with the old layer, so `forward` gives logits afterwards.

        Args:
            num_classes: Number of outputs P.
            targets: Their names.

        Raises:
            ImageShapeError: If names and outputs differ in number.

        Example:
            >>> from torchxrayvision.models import DenseNet
            >>> model = DenseNet()
            >>> model.reset_classifier(2, ["Tuberculosis", "Silicosis"])
            >>> model(torch.full((1, 1, 224, 224), -1024.0)).shape
            torch.Size([1, 2])
        """
        names = default_targets(num_classes) if targets is None else list(targets)
        if len(names) != num_classes:
            msg = f"{len(names)} targets for {num_classes} outputs; give one name an output"
            raise ImageShapeError(msg)
        old = self.head
        fresh = nn.Linear(
            old.in_features, num_classes, device=old.weight.device, dtype=old.weight.dtype
        )
        self._replace_head(fresh)
        self.targets = names
        self.op_threshs = None
        self.output = None

    def predict(self, x: Tensor) -> Prediction:
        """Trained outputs by name, of the kind that `default_output` says.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].

        Returns:
            Target to values of shape (B,).
        """
        values = self(x)
        pairs = zip(self.targets, self.trained, strict=True)
        named = {name: values[:, i] for i, (name, trained) in enumerate(pairs) if trained}
        return Prediction(self.default_output, named)

    def _name(self) -> str:
        return self.architecture

    if TYPE_CHECKING:

        def __call__(self, x: Tensor, output: str | None = None, **kwargs: Any) -> Tensor: ...

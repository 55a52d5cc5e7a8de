"""What every model does: check the input, resize it, run the network, calibrate the outputs."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from torchxrayvision.errors import ImageShapeError, StateMismatchError
from torchxrayvision.labels import DEFAULT_PATHOLOGIES
from torchxrayvision.models._calibration import OutputKind, calibrate, check_output_kind
from torchxrayvision.models._input import ResizeRoute, check_range, check_shape, resize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["XRayClassifier", "default_targets", "load_strictly"]


def default_targets(count: int) -> list[str]:
    """Names for the outputs of a network that nobody has trained.

    Args:
        count: Number of outputs.

    Returns:
        The 18 findings of the core models if there are 18 outputs, empty names otherwise.
    """
    return list(DEFAULT_PATHOLOGIES) if count == len(DEFAULT_PATHOLOGIES) else [""] * count


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Put every tensor in its place, or say which do not fit.

    The tensors are assigned, not copied, so that a network built on the meta device costs
    neither the random initialisation nor its memory.

    Args:
        module: The network, on the meta device or any other.
        tensors: One for each name of `module.state_dict()`.
        source: What the error calls the file.

    Raises:
        StateMismatchError: If names or shapes differ; nothing was loaded then.
    """
    own = module.state_dict()
    differing = {
        name: (tuple(tensors[name].shape), tuple(value.shape))
        for name, value in own.items()
        if name in tensors and tensors[name].shape != value.shape
    }
    missing = [name for name in own if name not in tensors]
    unexpected = [name for name in tensors if name not in own]
    if missing or unexpected or differing:
        raise StateMismatchError(source, missing, unexpected, differing)
    same_dtype = {name: value.to(own[name].dtype) for name, value in tensors.items()}
    module.load_state_dict(same_dtype, strict=True, assign=True)


class XRayClassifier(nn.Module, abc.ABC):
    """Base of the classifiers: one input contract, one output contract.

    Input is a float tensor (B, 1, S, S) in [-1024, 1024], of any size S: it is resized, filtered
    against aliasing, to the resolution of the weights. Output is (B, P).

    Attributes:
        targets: Names of the P outputs; an empty name marks an output that nobody trained.
        trained: For each output, whether it was trained.
        input_resolution: Side in pixels that images are resized to, or None to take any size.
        op_threshs: Operating points, shape (P,), or None. Set it to None for plain logits.
        apply_sigmoid: Whether `forward` gives probabilities where there are no operating points.
        resize_route: `"antialias"`, or `"bilinear"` for the route from before 2025.
    """

    architecture: ClassVar[str]
    op_threshs: Tensor | None

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
        super().__init__()
        self.output = None if output is None else check_output_kind(output)
        self.targets = list(targets)
        self.input_resolution = input_resolution
        self.apply_sigmoid = apply_sigmoid
        self.resize_route: ResizeRoute = resize_route
        self.weights: str | None = None
        self.weights_filename_local: str | None = None
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
    def pathologies(self) -> list[str]:
        """The targets, under the name that the datasets use."""
        return self.targets

    @pathologies.setter
    def pathologies(self, names: Sequence[str]) -> None:
        self.targets = list(names)

    @property
    def trained(self) -> tuple[bool, ...]:
        """For each output, whether it was trained and, where points are set, calibrated."""
        if self.weights is None:
            return (False,) * len(self.targets)
        named = [bool(name) for name in self.targets]
        if self.op_threshs is None:
            return tuple(named)
        known = (~torch.isnan(self.op_threshs)).tolist()
        return tuple(a and b for a, b in zip(named, known, strict=True))

    @property
    @abc.abstractmethod
    def head(self) -> nn.Linear:
        """The last layer, from embeddings to logits."""

    @abc.abstractmethod
    def _replace_head(self, layer: nn.Linear) -> None:
        """Put a layer in that place; nn.Module would register an assignment to a property."""

    @abc.abstractmethod
    def _embed(self, x: Tensor) -> Tensor:
        """Pooled features (B, D) of an input that was checked and resized."""

    def prepare(self, x: Tensor) -> Tensor:
        """Check a batch and bring it to the resolution of the weights.

        Args:
            x: Images, shape (B, 1, S, S), floating point in [-1024, 1024].

        Returns:
            Shape (B, 1, R, R) with R the resolution of the weights; dtype of `x`.

        Raises:
            ImageShapeError: If the shape is another.
            ImageRangeError: If a value is NaN or infinite.

        Warns:
            ImageRangeWarning: If the values look like another scale.
        """
        return self._prepare(x, stacklevel=4)

    def _prepare(self, x: Tensor, stacklevel: int) -> Tensor:
        check_shape(x)
        check_range(x, stacklevel)
        if self.input_resolution is None:
            return x
        return resize(x, self.input_resolution, self.resize_route)

    def embed(self, x: Tensor) -> Tensor:
        """Pooled features of the last layer before the classifier.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].

        Returns:
            Shape (B, D), not negative.
        """
        return self._embed(self._prepare(x, stacklevel=4))

    def forward(self, x: Tensor, output: str | None = None) -> Tensor:
        """Predict.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].
            output: `"logit"`, `"probability"` or `"operating-point"`; None means `default_output`.

        Returns:
            Shape (B, P). An output that was never trained carries no information: see `trained`.
        """
        kind = self.default_output if output is None else check_output_kind(output)
        logits = self.head(self._embed(self._prepare(x, stacklevel=6)))  # two frames of nn.Module
        return calibrate(logits, kind, self.op_threshs)

    @property
    def default_output(self) -> OutputKind:
        """What `forward` gives when it is not told: `output` of the constructor, else as in 1.5.7.

        That is operating points where there are any, else probabilities if `apply_sigmoid` is
        set, else logits.
        """
        if self.output is not None:
            return self.output
        if self.op_threshs is not None:
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

    def __repr__(self) -> str:
        if self.weights is None:
            return super().__repr__()
        return f"XRV-{self.architecture}-{self.weights}"

    # nn.Module types calls as returning Any; users of a typed package deserve better.
    if TYPE_CHECKING:

        def __call__(self, x: Tensor, output: str | None = None, **kwargs: Any) -> Tensor: ...

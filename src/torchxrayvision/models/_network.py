"""What every network of the package does with its input, and what it says of its output."""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import Tensor, nn

from torchxrayvision.errors import StateMismatchError
from torchxrayvision.models._input import ResizeRoute, check_range, check_shape, resize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Prediction", "XRayModel", "draw_convolutions", "load_strictly"]


@dataclass(frozen=True)
class Prediction:
    """Named outputs of a model, and what they mean.

    Attributes:
        kind: `"probability"`, `"operating-point"` (probability relative to the operating point at
            0.5), `"logit"`, `"mask"` (probability of each pixel) or `"years"`.
        values: Target to its values, shape (B,), or (B, H, W) for masks; trained targets only.
    """

    kind: str
    values: Mapping[str, Tensor] = field(default_factory=dict)


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


def draw_convolutions(network: nn.Module, *, mode: Literal["fan_in", "fan_out"]) -> None:
    """Draw the weights of every convolution after He et al. 2015.

    On the meta device there is nothing to draw; to ask for it would load torch's compiler.

    Args:
        network: The network.
        mode: Whether the variance is kept on the way forward or on the way back.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")


class XRayModel(nn.Module, abc.ABC):
    """Base of every network: one input contract, and outputs that say what they are.

    Input is a float tensor (B, 1, S, S) in [-1024, 1024], of any size S: it is resized, filtered
    against aliasing, to the resolution of the weights, and rescaled to what the network takes.

    Attributes:
        targets: Names of the outputs; an empty name marks an output that nobody trained.
        input_resolution: Side in pixels that images are resized to, or None to take any size.
        resize_route: `"antialias"`, or `"bilinear"` for the route from before 2025.
        weights: Name of the loaded weights, or None.
        weights_filename_local: Path of their file, or None.
        output_names: What the results of `forward` are called in an exported graph.
    """

    output_names: ClassVar[tuple[str, ...]] = ("outputs",)
    # Of the class too: who deletes one, or restores a whole pickled module of 1.5.7, has these.
    input_resolution: int | None = None
    resize_route: ResizeRoute = "antialias"
    weights: str | None = None
    weights_filename_local: str | None = None

    def __init__(
        self,
        *,
        targets: Sequence[str],
        input_resolution: int | None,
        resize_route: ResizeRoute = "antialias",
    ) -> None:
        super().__init__()
        self.targets = list(targets)
        self.input_resolution = input_resolution
        self.resize_route = resize_route
        self.weights = self.weights_filename_local = None

    @property
    def pathologies(self) -> list[str]:
        """The targets, under the name that the datasets use."""
        return self.targets

    @pathologies.setter
    def pathologies(self, names: Sequence[str]) -> None:
        self.targets = list(names)

    @property
    def trained(self) -> tuple[bool, ...]:
        """For each output, whether it was trained."""
        return tuple(self.weights is not None and bool(name) for name in self.targets)

    def prepare(self, x: Tensor) -> Tensor:
        """Check a batch, resize it and rescale it to what the network takes.

        Args:
            x: Images, shape (B, 1, S, S), floating point in [-1024, 1024]; one alone may come as
                (1, S, S).

        Returns:
            Shape (B, C, R, R) with R the resolution of the weights; dtype of `x`.

        Raises:
            ImageShapeError: If the shape is another.
            ImageRangeError: If a value is NaN or infinite.

        Warns:
            ImageRangeWarning: If the values look like another scale.
        """
        return self._prepare(x, stacklevel=4)

    @property
    def _channels(self) -> int:
        """Channels of the images that this network takes."""
        return 1

    def _prepare(self, x: Tensor, stacklevel: int) -> Tensor:
        if x.dim() == 3 and len(x) == self._channels == 1:  # one image is a batch of one
            x = x[None]
        check_shape(x, self._channels)
        check_range(x, stacklevel)
        if self.input_resolution is not None:
            x = resize(x, self.input_resolution, self.resize_route)
        return self._rescale(x)

    def _rescale(self, x: Tensor) -> Tensor:
        """From [-1024, 1024] in one channel to the scale and channels of the network."""
        return x

    @abc.abstractmethod
    def _embed(self, x: Tensor) -> Tensor:
        """Pooled features (B, D) of a prepared input."""

    def embed(self, x: Tensor) -> Tensor:
        """Pooled features of the last layer before the outputs.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].

        Returns:
            Shape (B, D).
        """
        return self._embed(self._prepare(x, stacklevel=4))

    @abc.abstractmethod
    def predict(self, x: Tensor) -> Prediction:
        """Outputs by name, with their meaning.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].

        Returns:
            Values of the trained targets.
        """

    def __repr__(self) -> str:
        if self.weights is None:
            return super().__repr__()
        return f"XRV-{self._name()}-{self.weights}"

    def _name(self) -> str:
        return type(self).__name__

    # nn.Module types calls as returning Any; users of a typed package deserve better.
    if TYPE_CHECKING:

        def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor: ...

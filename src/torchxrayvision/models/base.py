"""What every network of the package does with its input, and what it says of its output."""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, get_args

import torch
from torch import Tensor, nn

from torchxrayvision.errors import ImageShapeError, StateMismatchError, UnknownNameError
from torchxrayvision.labels import DEFAULT_PATHOLOGIES
from torchxrayvision.models.inputs import ResizeRoute, check_range, check_shape, resize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "OUTPUT_KINDS",
    "OutputKind",
    "Prediction",
    "Segmenter",
    "XRayClassifier",
    "XRayModel",
    "calibrate",
    "check_output_kind",
    "default_targets",
    "draw_convolutions",
    "load_strictly",
    "op_norm",
]


# ---- From logits to the number a reader wants: a probability, or one relative to an operating
# point.

OutputKind = Literal["logit", "probability", "operating-point"]
OUTPUT_KINDS: Final[tuple[str, ...]] = get_args(OutputKind)


def check_output_kind(kind: str) -> OutputKind:
    """Return the kind, or say which kinds there are.

    Args:
        kind: The word as the caller gave it.

    Raises:
        UnknownNameError: If it is not one of `OUTPUT_KINDS`.
    """
    if kind == "logit":
        return "logit"
    if kind == "probability":
        return "probability"
    if kind == "operating-point":
        return "operating-point"
    raise UnknownNameError("output kind", kind, OUTPUT_KINDS)


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
            f"{outputs.shape[-1]} outputs do not match {op_threshs.shape[-1]} operating points; "
            "after replacing the classifier set op_threshs = None or use reset_classifier(n)"
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

        def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor: ...  # noqa: D102


# ---- What every classifier does on top of `XRayModel`: one head, calibrated outputs.


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

        def __call__(self, x: Tensor, output: str | None = None, **kwargs: Any) -> Tensor: ...  # noqa: D102


# ---- What the segmentation networks share: logits out, masks by name.


class Segmenter(XRayModel):
    """Base of the networks with a map of logits for each structure.

    Input is a float tensor (B, 1, S, S) in [-1024, 1024], of any size S. Output is (B, P, R, R),
    one map for each of the P targets at the resolution R of the network; structures overlap, so
    each has a probability of its own.
    """

    @abc.abstractmethod
    def _maps(self, x: Tensor) -> Tensor:
        """The last features (B, D, H, W) of a prepared input."""

    @abc.abstractmethod
    def _logits(self, maps: Tensor, side: int) -> Tensor:
        """Logits (B, P, side, side) from the last features."""

    def forward(self, x: Tensor) -> Tensor:
        """Segment.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].

        Returns:
            Logits, shape (B, P, R, R): above 0 where a structure is likelier than not.
        """
        return self._segment(x, stacklevel=6)  # two frames of nn.Module

    def _segment(self, x: Tensor, stacklevel: int) -> Tensor:
        prepared = self._prepare(x, stacklevel)
        return self._logits(self._maps(prepared), prepared.shape[-1])

    def _embed(self, x: Tensor) -> Tensor:
        return self._maps(x).mean((2, 3))

    def predict(self, x: Tensor) -> Prediction:
        """Probability of each structure in each pixel.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].

        Returns:
            Structure to its map, shape (B, R, R) at the resolution R of the network, in [0, 1];
            nothing if the network is untrained.
        """
        if self.weights is None:
            return Prediction("mask")
        maps = self._segment(x, stacklevel=5).sigmoid()
        return Prediction("mask", dict(zip(self.targets, maps.unbind(1), strict=True)))

"""What every network of the package does with its input, and what a classifier says of its output.

`XRayModel` checks and prepares images; `XRayClassifier` is the base of all that give findings, sex,
age or view: core, baseline and other libraries' networks alike.
"""

from __future__ import annotations

import abc
import contextlib
import math
import threading
import warnings
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import torch
import torch.fx
from torch import Tensor, nn

from torchxrayvision.errors import (
    ImageShapeError,
    StateMismatchError,
    UnknownNameError,
    XRVWarning,
    caller_stacklevel,
    counted,
)
from torchxrayvision.labels import DEFAULT_PATHOLOGIES
from torchxrayvision.models.compat import restore
from torchxrayvision.models.scaling import (
    OUTPUT_KINDS,
    OutputKind,
    ResizeRoute,
    calibrate,
    prepared,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray


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
    """Draw the weights of every convolution after He et al. 2015, keeping the variance one way.

    On the meta device there is nothing to draw; to ask for it would load torch's compiler.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")


class XRayModel(nn.Module, abc.ABC):
    """Base of every network: one input contract, and outputs that say what they are.

    Input is a float tensor (B, 1, S, S) in [-1024, 1024], of any size S: it is resized, filtered
    against aliasing, to the resolution of the weights, and rescaled to what the network takes.
    A single image (1, S, S) is a batch of one, and a NumPy array is taken as a tensor.

    Attributes:
        targets: Names of the outputs; an empty name marks an output that nobody trained.
        input_resolution: Side in pixels that images are resized to. As in 1.5.7 a network that
            takes any size lacks the attribute; None removes it.
        resize_route: `"antialias"`, or `"bilinear"` for the route from before 2025.
        weights: Name of the loaded weights, or None.
        weights_filename_local: Path of their file, or None.
        output_names: What the results of `forward` are called in an exported graph.
        label: What `repr` shows once there are weights, where 1.5.7 has a name of its own.
        takes_planes: Whether a bare plane (H, W) is an image too, as for the networks that 1.5.7
            fed by repeating it into three channels.
        resizes: Whether images of another size are resized; False refuses them.
        layers_of_157: Whether the layers of a network that 1.5.7 pickled whole are kept, since
            clients replaced some; they are built anew otherwise.
    """

    output_names: ClassVar[tuple[str, ...]] = ("outputs",)
    label: ClassVar[str] = ""
    takes_planes: ClassVar[bool] = False
    resizes: ClassVar[bool] = True
    layers_of_157: ClassVar[bool] = False
    input_resolution: int
    # Of the class too: who deletes one, or restores a whole pickled module of 1.5.7, has these.
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
        if input_resolution is not None:
            self.input_resolution = input_resolution
        self.resize_route = resize_route
        self.weights = self.weights_filename_local = None

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "input_resolution" and value is None:
            self.__dict__.pop(name, None)
        else:
            super().__setattr__(name, value)

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

    def prepare(self, x: Tensor | NDArray[np.floating]) -> Tensor:
        """Check a batch, resize it and rescale it to what the network takes.

        Args:
            x: Images, shape (B, 1, S, S), floating point in [-1024, 1024]; one alone may come as
                (1, S, S).

        Returns:
            Shape (B, C, R, R) with R the resolution of the weights; dtype of `x`.

        Raises:
            ImageShapeError: If the shape is another, or `x` is no array of images.
            ImageRangeError: If a value is NaN or infinite.

        Warns:
            ImageRangeWarning: If the values look like another scale.
        """
        return self._rescale(prepared(x, self))

    def fit_to(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the form that tensors are for, of a network that comes in several.

        Args:
            tensors: By the names of the network.
        """
        del tensors  # most come in one form

    @property
    def _channels(self) -> int:
        """Channels of the images that this network takes."""
        return 1

    def _rescale(self, x: Tensor) -> Tensor:
        """From [-1024, 1024] in one channel to the scale and channels of the network.

        A network of a release that prepares images in its own way has that as `preprocess`.
        """
        preprocess = getattr(self, "preprocess", None)
        return x if preprocess is None else preprocess(x)

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
        return self._embed(self.prepare(x))

    @abc.abstractmethod
    def predict(self, x: Tensor) -> Prediction:
        """Outputs by name, with their meaning.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].

        Returns:
            Values of the trained targets.
        """

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "resize_route" not in state and not self.layers_of_157:
            restore(self, state, load_strictly)
        else:
            super().__setstate__(state)  # type: ignore[no-untyped-call] # of torch

    def __repr__(self) -> str:
        if self.weights is None:
            return super().__repr__()
        return self.label or f"XRV-{self._name()}-{self.weights}"

    def _name(self) -> str:
        return type(self).__name__

    # nn.Module types calls as returning Any; users of a typed package deserve better.
    if TYPE_CHECKING:

        def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor: ...  # noqa: D102


class _Borrowers:
    """Who uses a model in evaluation mode now, and what it was in before the first of them came."""

    def __init__(self, model: nn.Module) -> None:
        self.count = 0
        self.modes = [(part, part.training) for part in model.modules()]
        parameter = next(model.parameters(), None)
        self.device = None if parameter is None else parameter.device


_borrowed: weakref.WeakKeyDictionary[nn.Module, _Borrowers] = weakref.WeakKeyDictionary()
_borrowing = threading.Lock()


@contextlib.contextmanager
def temporarily_eval(model: nn.Module, device: str | torch.device | None = None) -> Iterator[None]:
    """A model in evaluation mode; then each of its parts is as it was, on the device of before.

    Threads may use one model at the same time: it is given back when the last of them is done.

    Args:
        model: The model of a caller, who may be training it.
        device: Where it is to run; None leaves it where it is. The first of several threads
            decides.
    """
    with _borrowing:
        found = _borrowed.get(model)
        if found is None:
            found = _borrowed[model] = _Borrowers(model)
            model.eval()
            if device is not None:
                model.to(device)
        found.count += 1
    try:
        yield
    finally:
        with _borrowing:
            found.count -= 1
            if not found.count:
                del _borrowed[model]
                now = next(model.parameters(), None)
                if found.device is not None and now is not None and now.device != found.device:
                    model.to(found.device)
                for part, training in found.modes:
                    part.training = training  # not `train`, which sets the parts below too


def default_targets(count: int) -> list[str]:
    """Names for untrained outputs: of 18 the findings of the core models, else empty ones."""
    return list(DEFAULT_PATHOLOGIES) if count == len(DEFAULT_PATHOLOGIES) else [""] * count


def under_autocast() -> bool:
    """Whether the caller computes in mixed precision."""
    return torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")


class XRayClassifier(XRayModel):
    """Base of every classifier, core or baseline: one input contract, one output contract.

    Input is a float tensor (B, 1, S, S) in [-1024, 1024], of any size S: it is resized, filtered
    against aliasing, to the resolution of the weights. Output is (B, P), of one of `kinds`.

    A network of your own derives from this class and gives `_embed` and `head`; `inference`,
    `explain` and `training` then take it as they take the published ones.

    Args:
        targets: Names of the P outputs; an empty name marks an output that nobody trained.
        input_resolution: Side in pixels that the network sees; None takes any.
        op_threshs: Operating points, shape (P,), NaN where there is none; None for none.
        apply_sigmoid: Whether `forward` gives probabilities where there are no operating points.
        resize_route: How an image of another size is resized, see `fix_resolution`.
        output: What `forward` gives by default; None decides as 1.5.7 does.

    Attributes:
        targets: Names of the P outputs; an empty name marks an output that nobody trained.
        kinds: Every kind of output that the network has.
        raw_kind: What its last layer gives: one of `kinds`.
        exclusive: Whether the outputs exclude each other, so that their probabilities add to 1.
        default_kind: What `forward` gives, where that is not as with the core models.
        predicted_kind: What `predict` gives, where that is not what `forward` gives.
        op_threshs: Operating points, shape (P,), or None. Set it to None for plain logits. As in
            1.5.7 NaN marks an output that was not trained; `set_operating_points` leaves that open.
        apply_sigmoid: Whether `forward` gives probabilities where there are no operating points.
        output: What `forward` gives by default; None decides as 1.5.7 does.
        untrained: Names among `targets` whose output carries no information all the same: their
            training data held no example of both classes.
    """

    kinds: ClassVar[tuple[str, ...]] = OUTPUT_KINDS
    raw_kind: ClassVar[str] = "logit"
    exclusive: ClassVar[bool] = False
    default_kind: ClassVar[str] = ""
    predicted_kind: ClassVar[str] = ""
    architecture: ClassVar[str] = ""
    op_threshs: Tensor | None
    output: str | None = None
    apply_sigmoid: bool = False
    untrained: frozenset[str] = frozenset()
    _nan_is_untrained: bool = True

    def __init__(
        self,
        *,
        targets: Sequence[str],
        input_resolution: int | None,
        op_threshs: Tensor | Sequence[float] | None = None,
        apply_sigmoid: bool = False,
        resize_route: ResizeRoute = "antialias",
        output: str | None = None,
    ) -> None:
        super().__init__(
            targets=targets, input_resolution=input_resolution, resize_route=resize_route
        )
        self.output = None if output is None else self.check_kind(output)
        self.apply_sigmoid = apply_sigmoid
        # A buffer follows .to(device); as in 1.5.7 it is part of the state where it is set.
        self.register_buffer("op_threshs", None)
        if op_threshs is not None:
            self.op_threshs = torch.as_tensor(op_threshs, dtype=torch.float32)

    def set_operating_points(self, points: Tensor | Sequence[float] | Mapping[str, float]) -> None:
        """Calibrate `forward` to these points.

        Args:
            points: One probability in (0, 1) for each output, NaN where there is none; shape (P,).
                Or target to its point: the other targets keep those that they have.

        Raises:
            UnknownNameError: If a name is no target, or the network has no such output.
            ValueError: If there is not one point for each output.

        Warns:
            XRVWarning: If trained findings have no point while others do. They stay in every
                output; relative to operating points their values are NaN in named outputs.

        Example:
            >>> from torchxrayvision.models import ResNet
            >>> model = ResNet(num_classes=2, architecture="resnet18")
            >>> model.targets = ["Mass", "Edema"]
            >>> model.set_operating_points({"Mass": 0.25, "Edema": 0.5})
            >>> model.op_threshs
            tensor([0.2500, 0.5000])
        """
        self.check_kind("operating-point")
        if isinstance(points, Mapping):
            old = self._points
            listed = [math.nan] * len(self.targets) if old is None else old.tolist()
            for name, point in points.items():
                if not name or name not in self.targets:
                    raise UnknownNameError("target", name, filter(None, self.targets))
                listed[self.targets.index(name)] = point
            points = listed
        found = torch.as_tensor(points, dtype=torch.float32)
        if found.shape != (len(self.targets),):
            msg = (
                f"{tuple(found.shape)} operating points for "
                f"{counted(len(self.targets), 'output')}; "
                "give one for each, NaN where there is none, or a dictionary of target to point"
            )
            raise ValueError(msg)
        known = zip(self.targets, self.trained, strict=True)
        self.untrained = frozenset(name for name, known_ in known if self.weights and not known_)
        self.op_threshs, self._nan_is_untrained = found, False
        trained = zip(self.targets, self.trained, found.isnan().tolist(), strict=True)
        if lacking := [name for name, known, missing in trained if known and missing]:
            warnings.warn(
                f"no operating point for {', '.join(lacking)}: their values relative to operating "
                "points are NaN in tables; output='probability' has all",
                XRVWarning,
                stacklevel=caller_stacklevel(),
            )

    @property
    def _points(self) -> Tensor | None:
        """Operating points; None also where somebody deleted them."""
        return getattr(self, "op_threshs", None)

    @property
    def trained(self) -> tuple[bool, ...]:
        """For each output, whether it was trained."""
        named = zip(super().trained, self.targets, strict=True)
        known = [a and b not in self.untrained for a, b in named]
        points = self._points
        if self.weights is None or points is None or not self._nan_is_untrained:
            return tuple(known)
        return tuple(a and not b for a, b in zip(known, points.isnan().tolist(), strict=True))

    @property
    def head(self) -> nn.Linear:
        """The last layer, from embeddings to logits; networks of several heads have none."""
        layer: nn.Linear | None = getattr(self, "classifier", None)
        if layer is not None:
            return layer
        msg = f"{type(self).__name__} has no single last layer"
        raise AttributeError(msg)

    def _replace_head(self, layer: nn.Linear) -> None:
        """Put a layer in that place; nn.Module would register an assignment to a property."""
        if "classifier" not in self._modules:
            raise NotImplementedError
        self.register_module("classifier", layer)

    @property
    def features_width(self) -> int:
        """Number of features that `embed` gives, D."""
        return self.head.in_features

    def check_kind(self, kind: str | None) -> str:
        """The kind of output that is asked for.

        Args:
            kind: One of `kinds`, or None for that of `predict`.

        Raises:
            UnknownNameError: If the network has no such output.
        """
        if kind is None:
            return self._prediction_kind
        if kind not in self.kinds:
            raise UnknownNameError(f"output kind of {type(self).__name__}", kind, self.kinds)
        return kind

    @property
    def output_kind(self) -> str:
        """What `forward` gives when it is not told: `output` of the constructor, else as in 1.5.7.

        That is operating points where there are any, else probabilities if `apply_sigmoid` is
        set, else logits; networks of other groups have a default of their own.
        """
        if self.output is not None:
            return self.output
        if self.default_kind:
            return self.default_kind
        if self._points is not None:
            return "operating-point"
        return "probability" if self.apply_sigmoid else "logit"

    @property
    def default_output(self) -> str:
        """The same as `output_kind`."""
        return self.output_kind

    @property
    def _prediction_kind(self) -> str:
        return self.predicted_kind or self.output_kind

    def _last(self, features: Tensor) -> Tensor:
        """Raw outputs (B, P) from features (B, D)."""
        return cast("Tensor", self.head(features))

    def _features_and_raw(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, D) and raw outputs (B, P) of a prepared input, in one pass."""
        features = self._pooled(x)
        if not under_autocast():
            return features, self._last(features)
        # The few numbers at the end are computed in full, so that calibration keeps its precision.
        weight = next(self.parameters(), features)
        with torch.autocast(features.device.type, enabled=False):
            return features, self._last(features.to(weight.dtype))

    def features_and_raw(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What `embed` gives, and the outputs of the last layer, in one pass.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].

        Returns:
            Features (B, D), and raw outputs (B, P) of the kind `raw_kind`; see `convert`.
        """
        return self._features_and_raw(self.prepare(x))

    def convert(self, raw: Tensor, kind: str) -> Tensor:
        """Turn raw outputs into the kind that was asked for.

        Args:
            raw: Of the kind `raw_kind`, shape (B, P).
            kind: One of `kinds`.

        Returns:
            Shape and dtype of `raw`.

        Raises:
            ValueError: If operating points are asked for and there are none.
        """
        if kind == self.raw_kind:
            return raw
        if self.raw_kind == "probability":
            return torch.logit(raw, eps=torch.finfo(raw.dtype).eps)
        if self.exclusive:
            return raw.log_softmax(1) if kind == "log-probability" else raw.softmax(1)
        return calibrate(raw, cast("OutputKind", kind), self._points)

    def forward(self, x: Tensor, output: str | None = None) -> Tensor:
        """Predict.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].
            output: One of `kinds`, such as `"probability"`; None means `output_kind`.

        Returns:
            Shape (B, P). An output that was never trained carries no information: see `trained`.

        Raises:
            UnknownNameError: If the network has no such output.
        """
        raw = self._features_and_raw(self.prepare(x))[1]
        if isinstance(raw, torch.fx.Proxy):  # nothing can be asked of what stands for an output
            return _converted_later(raw, output, self.output_kind, self.kinds, self._points)
        return self.convert(raw, self.output_kind if output is None else self.check_kind(output))

    def _pooled(self, x: Tensor) -> Tensor:
        """Features (B, D) of a prepared input, for the last layer."""
        return self._embed(x)

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
            msg = f"{counted(len(names), 'target')} for {counted(num_classes, 'output')}"
            msg += "; give one name per output"
            raise ImageShapeError(msg)
        old = self.head
        fresh = nn.Linear(
            old.in_features, num_classes, device=old.weight.device, dtype=old.weight.dtype
        )
        self._replace_head(fresh)
        self.targets = names
        self.op_threshs = None
        self.output = None
        self.untrained = frozenset()
        self._nan_is_untrained = True

    def predict(self, x: Tensor) -> Prediction:
        """Trained outputs by name.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].

        Returns:
            Target to values of shape (B,), of the kind that `output_kind` says; networks of other
            groups give probabilities, or years where they have nothing else. NaN stands for a
            value relative to an operating point that is not set.
        """
        kind = self.check_kind(None)
        values = self.named_values(self(x, output=kind), kind)
        pairs = zip(self.targets, self.trained, strict=True)
        named = {name: values[:, i] for i, (name, trained) in enumerate(pairs) if trained}
        return Prediction(kind, named)

    def named_values(self, values: Tensor, kind: str) -> Tensor:
        """Outputs as they may stand beside their names.

        Args:
            values: Of that kind, shape (B, P).
            kind: One of `kinds`.

        Returns:
            The same; NaN where a value would be relative to an operating point that is not set,
            for which `forward` has 0.5, as in 1.5.7.
        """
        points = self._points
        if kind != "operating-point" or points is None:
            return values
        return values.masked_fill(points.to(values.device).isnan(), math.nan)

    def _name(self) -> str:
        return self.architecture

    if TYPE_CHECKING:

        def __call__(self, x: Tensor, output: str | None = None, **kwargs: Any) -> Tensor: ...  # noqa: D102


@torch.fx.wrap
def _converted_later(
    raw: Tensor, output: str | None, default: str, kinds: tuple[str, ...], points: Tensor | None
) -> Tensor:
    """What a graph of torch.fx calls, as one step, at the end of a classifier of findings."""
    kind = default if output is None else output
    if kind not in kinds:
        raise UnknownNameError("output kind", kind, kinds)
    return calibrate(raw, cast("OutputKind", kind), points)


Model = XRayClassifier
"""The name that 1.5.7 has for it."""

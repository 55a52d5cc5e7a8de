"""Networks of timm and torchvision on one grey channel, and which arguments a data file may give.

A checkpoint, a recipe or a graph names the network that its tensors belong to, together with the
arguments that shaped it. Those arguments reach `timm.create_model` and torchvision's builders,
which also take addresses, paths and pickles. So a file may only say what shapes a network, in small
numbers and in words from a list; whatever else it says is refused before the library sees it.
"""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from torch import Tensor, nn

from torchxrayvision.errors import CheckpointError, UnknownNameError, needs_package
from torchxrayvision.models.base import XRayClassifier, default_targets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torchxrayvision.models.scaling import ResizeRoute

    Rule = Callable[[Any], bool]

BACKBONES: Final = ("timm:", "torchvision:")
"""What the names of such networks start with."""


def _flag(value: Any) -> bool:
    return type(value) is bool


def _fraction(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and 0 <= value <= 1


def _whole(most: int) -> Rule:
    return lambda value: type(value) is int and 0 < value <= most


def _list_of(rule: Rule, most: int) -> Rule:
    return lambda value: (
        isinstance(value, list | tuple) and 0 < len(value) <= most and all(map(rule, value))
    )


def _either(*rules: Rule) -> Rule:
    return lambda value: any(rule(value) for rule in rules)


def _word(*words: str) -> Rule:
    return lambda value: type(value) is str and value in words


# The bounds leave room for every published network and end a file that asks for ten million layers.
_DEPTH: Final = _whole(128)
_WIDTH: Final = _whole(8192)
_SIDE: Final = _whole(4096)
_RATIO: Final[Rule] = lambda v: type(v) in (int, float) and 0 < v <= 64  # noqa: E731

_RESNET: Final[dict[str, Rule]] = {
    "groups": _whole(256),
    "width_per_group": _WIDTH,
    "zero_init_residual": _flag,
    "replace_stride_with_dilation": _list_of(_flag, 3),
}

# Architecture pattern to what a file may say for it, after the signatures of torchvision 0.21 to
# 0.29 and of timm 1.0; the first pattern that fits counts.
_ALLOWED: Final[tuple[tuple[str, dict[str, Rule]], ...]] = (
    ("torchvision:resnet*", _RESNET),
    ("torchvision:resnext*", _RESNET),
    ("torchvision:wide_resnet*", _RESNET),
    (
        "torchvision:densenet*",
        {"drop_rate": _fraction, "bn_size": _whole(64), "memory_efficient": _flag},
    ),
    ("torchvision:vgg*", {"dropout": _fraction, "init_weights": _flag}),
    ("torchvision:alexnet", {"dropout": _fraction}),
    ("torchvision:mnasnet*", {"dropout": _fraction}),
    ("torchvision:googlenet", {"aux_logits": _flag, "dropout": _fraction, "init_weights": _flag}),
    ("torchvision:inception*", {"aux_logits": _flag, "dropout": _fraction, "init_weights": _flag}),
    (
        "torchvision:mobilenet_v*",
        {"width_mult": _RATIO, "round_nearest": _whole(64), "dropout": _fraction},
    ),
    ("torchvision:efficientnet*", {"dropout": _fraction, "stochastic_depth_prob": _fraction}),
    ("torchvision:convnext*", {"stochastic_depth_prob": _fraction, "layer_scale": _fraction}),
    (
        "torchvision:vit_*",
        {"image_size": _SIDE, "dropout": _fraction, "attention_dropout": _fraction},
    ),
    (
        "torchvision:swin*",
        {"dropout": _fraction, "attention_dropout": _fraction},
    ),
    (
        "timm:*",
        {
            "img_size": _either(_SIDE, _list_of(_SIDE, 2)),
            "patch_size": _either(_whole(128), _list_of(_whole(128), 2)),
            "window_size": _either(_whole(128), _list_of(_whole(128), 2)),
            "embed_dim": _either(_WIDTH, _list_of(_WIDTH, 8)),
            "depth": _DEPTH,
            "depths": _list_of(_DEPTH, 8),
            "layers": _list_of(_DEPTH, 8),
            "dims": _list_of(_WIDTH, 8),
            "num_heads": _either(_whole(256), _list_of(_whole(256), 8)),
            "mlp_ratio": _RATIO,
            "base_width": _WIDTH,
            "cardinality": _whole(256),
            "growth_rate": _whole(256),
            "output_stride": _whole(32),
            "drop_rate": _fraction,
            "drop_path_rate": _fraction,
            "drop_block_rate": _fraction,
            "attn_drop_rate": _fraction,
            "proj_drop_rate": _fraction,
            "pos_drop_rate": _fraction,
            "patch_drop_rate": _fraction,
            "class_token": _flag,
            "qkv_bias": _flag,
            "qk_norm": _flag,
            "dynamic_img_size": _flag,
            "dynamic_img_pad": _flag,
            "global_pool": _word("avg", "max", "avgmax", "catavgmax", "token", "map", "fast"),
            "act_layer": _word("relu", "gelu", "silu", "swish", "hard_swish", "mish", "elu"),
            "norm_layer": _word("batchnorm", "batchnorm2d", "groupnorm", "layernorm"),
            "stem_type": _word("deep", "deep_tiered"),
        },
    ),
)

# Arguments by which timm and torchvision read another file or fetch one.
_LOADING: Final = ("pretrained*", "checkpoint*", "weights*", "cache_dir", "*url*", "*path", "hf_*")
_NO_FILES: Final = ("drop_path",)  # the only names of networks' shapes that look like one


def loads_weights(argument: str) -> bool:
    """Whether an argument makes the other library read a file or fetch one."""
    return argument not in _NO_FILES and any(fnmatchcase(argument, one) for one in _LOADING)


def allowed_arguments(architecture: str) -> Mapping[str, Rule]:
    """What a file may say for such a network: name of the argument to the rule of its value."""
    fitting = (rules for pattern, rules in _ALLOWED if fnmatchcase(architecture, pattern))
    return next(fitting, {})


def check_file_arguments(architecture: str, arguments: Mapping[str, Any], path: str) -> None:
    """Refuse arguments that a data file has no business to choose.

    Args:
        architecture: Name of the network in the file.
        arguments: What the file wants to pass to its constructor.
        path: What the error calls the file.

    Raises:
        CheckpointError: If an argument is not on the list for this network, or its value is not
            the small number, list or word that is expected there.
    """
    allowed = allowed_arguments(architecture)
    for name, value in arguments.items():
        shown = repr(name)[:60]
        if name not in allowed:
            known = ", ".join(sorted(allowed)) or "none"
            msg = f"{path}: the file may not set {shown} of {architecture!r}; it may set: {known}"
            raise CheckpointError(f"{msg}. Build the network yourself and load its tensors")
        if not allowed[name](value):
            msg = f"{path}: the file sets {shown} of {architecture!r} to {repr(value)[:60]}"
            raise CheckpointError(f"{msg}, which is not a value that shapes such a network")


class Backbone(XRayClassifier):
    """An image network of another library, fed with grey radiographs scaled to [-1, 1].

    It starts from random weights: those that the libraries offer are read by executing a pickle
    or without a checksum, which this package does not do.

    Args:
        architecture: `"timm:NAME"` (extra `train`) or `"torchvision:NAME"`.
        num_classes: Number of outputs P.
        op_threshs: Operating points, shape (P,).
        apply_sigmoid: Whether `forward` gives probabilities where there are no operating points.
        output: What `forward` gives by default; None decides as 1.5.7 does.
        resize_route: How inputs are brought to the trained resolution, see `XRayClassifier`.
        **kwargs: Passed to `timm.create_model` or to torchvision's builder. Those that read or
            fetch weights (`pretrained`, `checkpoint_path`, `weights` and the like) are refused.

    Raises:
        TypeError: If an argument would read or fetch weights, or the network does not take it.
        UnknownNameError: If the library has no such network.
        DependencyError: If timm is asked for and missing.

    Example:
        >>> model = Backbone("torchvision:resnet18", num_classes=2)
        >>> model.embed(torch.zeros(1, 1, 64, 64)).shape
        torch.Size([1, 512])
    """

    def __init__(
        self,
        architecture: str,
        *,
        num_classes: int = 18,
        op_threshs: Tensor | Sequence[float] | None = None,
        apply_sigmoid: bool = False,
        output: str | None = None,
        resize_route: ResizeRoute = "antialias",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            targets=default_targets(num_classes),
            input_resolution=None,
            op_threshs=op_threshs,
            apply_sigmoid=apply_sigmoid,
            resize_route=resize_route,
            output=output,
        )
        library, _, name = architecture.partition(":")
        if f"{library}:" not in BACKBONES:
            raise UnknownNameError("library of networks", library, ("timm", "torchvision"))
        if unsafe := sorted(filter(loads_weights, kwargs)):
            msg = f"{architecture} starts from random weights and does not take {unsafe}"
            raise TypeError(f"{msg}; pass a file to xrv.models.load_checkpoint instead")
        self.architecture = architecture  # type: ignore[misc] # one class, many networks
        build = _from_timm if library == "timm" else _from_torchvision
        self.arguments = dict(kwargs)
        self.body, width = build(name, kwargs)
        self.classifier = nn.Linear(width, num_classes)

    def _rescale(self, x: Tensor) -> Tensor:
        return x / 1024

    def _embed(self, x: Tensor) -> Tensor:
        features: Tensor = self.body(x)
        return features.flatten(1)


def _from_timm(name: str, kwargs: dict[str, Any]) -> tuple[nn.Module, int]:
    with needs_package("timm", "A network of timm", "train"):
        import timm
    if not timm.is_model(name):
        raise UnknownNameError("network of timm", name, timm.list_models())
    body: Any = timm.create_model(name, in_chans=1, num_classes=0, **kwargs)
    return body, int(body.num_features)


def _from_torchvision(name: str, kwargs: dict[str, Any]) -> tuple[nn.Module, int]:
    from torchvision import models

    # SqueezeNet ends in a convolution, so it has no features to put another layer on.
    known = [one for one in models.list_models(module=models) if "squeezenet" not in one]
    if name not in known:
        raise UnknownNameError("network of torchvision with a linear last layer", name, known)
    body: nn.Module = models.get_model(name, **kwargs)
    _take_grey(body)
    last, layer = [(n, m) for n, m in body.named_modules() if isinstance(m, nn.Linear)][-1]
    _put(body, last, nn.Identity())
    return body, layer.in_features


def _take_grey(body: nn.Module) -> None:
    """Put a convolution of one channel in the place of the first one."""
    name, colour = next((n, m) for n, m in body.named_modules() if isinstance(m, nn.Conv2d))
    grey = nn.Conv2d(
        1,
        colour.out_channels,
        colour.kernel_size,  # type: ignore[arg-type] # as the other convolution holds it
        colour.stride,  # type: ignore[arg-type]
        colour.padding,  # type: ignore[arg-type]
        bias=colour.bias is not None,
    )
    _put(body, name, grey)


def _put(body: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(body.get_submodule(parent), attribute, layer)

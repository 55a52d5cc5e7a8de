"""Networks of timm and torchvision on one grey channel, behind the interface of the classifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from torch import Tensor, nn

from torchxrayvision.errors import DependencyError, UnknownNameError
from torchxrayvision.models.arguments import loads_weights
from torchxrayvision.models.base import XRayClassifier, default_targets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchxrayvision.models.inputs import ResizeRoute

BACKBONES: Final = ("timm:", "torchvision:")
"""What the names of such networks start with."""


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

    @property
    def head(self) -> nn.Linear:
        """The last layer, from embeddings to logits."""
        return self.classifier

    def _replace_head(self, layer: nn.Linear) -> None:
        self.classifier = layer

    def _rescale(self, x: Tensor) -> Tensor:
        return x / 1024

    def _embed(self, x: Tensor) -> Tensor:
        features: Tensor = self.body(x)
        return features.flatten(1)


def _from_timm(name: str, kwargs: dict[str, Any]) -> tuple[nn.Module, int]:
    try:
        import timm
    except ImportError:
        raise DependencyError("timm", "A network of timm", "train") from None
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

"""Which layer of each network holds the last map, and where on an image its positions lie."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import torch
from torch import nn
from torch.nn import functional

from torchxrayvision.errors import ExplanationError, UnknownNameError
from torchxrayvision.models import Preprocess
from torchxrayvision.weights import get

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor
    from torch.utils.hooks import RemovableHandle


@dataclass(frozen=True)
class CamLayer:
    """The layer whose map a class activation map is made of.

    Args:
        path: Its name in `named_modules()`; `*` stands for every member of a list.
        rectify: Whether the network rectifies what the layer gives before it is pooled, in a
            function that is no layer of its own.
        head: Name of the linear layer that sees the mean of the map over its positions, or None
            where the outputs are another function of the map.
        call_of_target: Whether the layer runs once for each output, the first call for the first.
        finer: Name of an earlier layer, for gradients on images so small that the last map has
            fewer than 7 positions a side, the fewest that maps of activation were published with.
        cells: Whether the positions are equal cells of the image, as in a network that was taught
            cell by cell where findings are; False places them where the windows of the layers
            lie.

    Example:
        >>> CamLayer("backbone.layer4", head="fc").head
        'fc'
    """

    path: str
    rectify: bool = False
    head: str | None = None
    call_of_target: bool = False
    finer: str | None = None
    cells: bool = False


_BASELINES: Final = "torchxrayvision.baseline_models"
_DECLARED: Final = {
    "torchxrayvision.models.densenet.DenseNet": CamLayer("features", True, "classifier"),
    "torchxrayvision.models.resnet.ResNet": CamLayer(
        "model.layer4", head="model.fc", finer="model.layer3"
    ),
    # The mean over patches is normalised before the head.
    "torchxrayvision.models.evax.EvaX": CamLayer("grid"),
    # The mean of the members' probabilities is no linear function of their maps.
    f"{_BASELINES}.chexpert.DenseNet": CamLayer("members.*.features", rectify=True),
    f"{_BASELINES}.emory_hiti.RaceModel": CamLayer("model.layer4", head="model.fc.0"),
    # Each head sees the map after one more pass through the attention, its mean and its maximum.
    f"{_BASELINES}.jfhealthcare.DenseNet": CamLayer("model.attention_map", call_of_target=True),
    f"{_BASELINES}.mira.SexModel": CamLayer("model.layer4", head="model.fc"),
    # Maxima besides means, and two layers after them.
    f"{_BASELINES}.riken.AgeModel": CamLayer("model.layer4"),
    f"{_BASELINES}.xinario.ViewModel": CamLayer("model.layer4", head="model.fc"),
}
_STAGES: Final = CamLayer("body.layer4", head="classifier")
_FEATURES: Final = CamLayer("body.features", head="classifier")
# Families of `models.Backbone`, by how the name of the architecture starts. Heads are declared
# where the mean of the map is all that is left of it.
_FAMILIES: Final = {
    "torchvision:densenet": CamLayer("body.features", rectify=True, head="classifier"),
    "torchvision:efficientnet": _FEATURES,
    "torchvision:mobilenet_v2": _FEATURES,
    "torchvision:mobilenet_v3": CamLayer("body.features"),
    "torchvision:resnet": _STAGES,
    "torchvision:resnext": _STAGES,
    "torchvision:wide_resnet": _STAGES,
    "timm:densenet": _FEATURES,
    "timm:efficientnet": CamLayer("body.bn2", head="classifier"),
    "timm:convnext": CamLayer("body.stages"),
    "timm:resnet": _STAGES,
    "timm:resnext": _STAGES,
}


def cam_layer(model: nn.Module) -> CamLayer:
    """The declared layer of a classifier of this package.

    Args:
        model: The network.

    Returns:
        Its path in the network, and what is done to its output.

    Raises:
        ExplanationError: If none is declared for its class.

    Example:
        >>> from torchxrayvision.models import DenseNet
        >>> cam_layer(DenseNet()).path
        'features'
    """
    for kind in type(model).__mro__:
        found = _DECLARED.get(f"{kind.__module__}.{kind.__qualname__}")
        if found is not None:
            return replace(found, cells=True) if _taught_by_cells(model) else found
    name = str(getattr(model, "architecture", ""))
    for start, found in _FAMILIES.items():
        if name.startswith(start):
            return found
    known = ", ".join([*(n.removeprefix("torchxrayvision.") for n in _DECLARED), *_FAMILIES])
    msg = (
        f"no layer for class activation maps is declared for {type(model).__name__} {name}; pass "
        f"layer=CamLayer('name of the layer'). Declared: {known}"
    )
    raise ExplanationError(msg)


def _taught_by_cells(model: nn.Module) -> bool:
    """Whether the model has weights whose record says so."""
    name = getattr(model, "weights", None)
    if not isinstance(name, str):
        return False
    try:
        return get(name).cell_maps
    except UnknownNameError:  # a file of the user's own
        return False


def _modules(model: nn.Module, path: str) -> list[nn.Module]:
    before, star, after = path.partition(".*.")
    try:
        if star:
            return [
                member.get_submodule(after) for member in model.get_submodule(before).children()
            ]
        return [model.get_submodule(path)]
    except AttributeError as error:
        msg = f"{type(model).__name__} has no layer {path!r}: {error}"
        raise ExplanationError(msg) from error


class _Maps:
    """What the layers gave; filled while the network runs."""

    def __init__(self, layer: CamLayer, calls: list[list[Tensor]]) -> None:
        self._layer = layer
        self._calls = calls

    def of(self, index: int) -> list[Tensor]:
        """One map a module, shape (B, K, H, W), that output `index` depends on."""
        call = index if self._layer.call_of_target else -1
        if not self._calls or any(len(given) <= max(call, 0) for given in self._calls):
            msg = (
                f"the layer {self._layer.path!r} did not run; a model that reads its members from "
                "a file each time has none to look at: build it with keep='memory'"
            )
            raise ExplanationError(msg)
        maps = [given[call] for given in self._calls]
        if any(a.dim() != 4 for a in maps):
            msg = f"{self._layer.path!r} gives {tuple(maps[0].shape)}, not maps (B, K, H, W)"
            raise ExplanationError(msg)
        return maps


@contextmanager
def captured(model: nn.Module, layer: CamLayer) -> Iterator[_Maps]:
    """Keep what a layer gives while the network runs, and cut the graph of gradients there.

    A map that the network rectifies is kept as it is after that. A second rectification leaves
    it as it is, but has no gradient at zero; so zeros become the smallest positive number. What
    becomes of the maps is to be asked after the run.
    """
    modules = _modules(model, layer.path)
    calls: list[list[Tensor]] = [[] for _ in modules]
    handles: list[RemovableHandle] = []

    def keep(module: nn.Module, given: list[Tensor]) -> None:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            leaf = output.detach()
            if layer.rectify:
                leaf = leaf.clamp(min=torch.finfo(leaf.dtype).tiny)
            given.append(leaf.requires_grad_())
            return leaf.clone()  # the next layer may write over what it gets

        handles.append(module.register_forward_hook(hook))

    try:
        for module, given in zip(modules, calls, strict=True):
            keep(module, given)
        yield _Maps(layer, calls)
    finally:
        for handle in handles:
            handle.remove()


_WINDOWED: Final = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, Preprocess)


@dataclass(frozen=True)
class Axis:
    """One direction of a map: position `i` looks at the pixel `start + i * step` and around it."""

    start: float
    step: float

    def after(self, kernel: int, stride: int, padding: int, dilation: int) -> Axis:
        """The axis of what a layer with that window gives."""
        first = dilation * (kernel - 1) / 2 - padding
        return Axis(self.start + self.step * first, self.step * stride)

    def resized(self, scale: float) -> Axis:
        """The axis in pixels of an image that many times as large."""
        return Axis((self.start + 0.5) * scale - 0.5, self.step * scale)


_PIXELS: Final = Axis(0.0, 1.0)


class Positions:
    """Where the positions of maps of each size lie, from the windows of the layers before.

    A window of 3 pixels that moves by 2 and is padded by 1 on both sides lies around pixels 0, 2,
    4 and so on: the positions of a ResNet's last map look at the upper left quarter of the cell
    that they get when the map is enlarged over the image, half a cell from its middle.
    """

    def __init__(self) -> None:
        self._size: tuple[int, int] | None = None
        self._axes: dict[tuple[int, int], tuple[Axis, Axis]] = {}

    def watch(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Learn from one layer that ran; a forward hook."""
        before, after = _size(inputs[0]), _size(output)
        if self._size is None:
            self._size = before
            self._axes[before] = (_PIXELS, _PIXELS)
        known = self._axes.get(before)
        if known is None or after in self._axes:
            return
        if isinstance(module, Preprocess):  # keeps the middle: a window of one pixel, cut off
            windows = [(1, 1, (b - a) // 2, 1) for a, b in zip(before, after, strict=True)]
        else:
            names = ("kernel_size", "stride", "padding", "dilation")
            windows = list(zip(*(_pair(module, n) for n in names), strict=True))
        down, across = (axis.after(*window) for axis, window in zip(known, windows, strict=True))
        self._axes[after] = (down, across)

    def axes(self, cells: tuple[int, int], size: tuple[int, int]) -> tuple[Axis, Axis]:
        """Both axes, down and across, of a map of so many cells, in pixels of an image of `size`.

        Cells are of equal size where a layer of another kind came between.
        """
        seen = self._size or size
        down, across = self._axes.get(cells) or (
            _equal(seen[0], cells[0]),
            _equal(seen[1], cells[1]),
        )
        return down.resized(size[0] / seen[0]), across.resized(size[1] / seen[1])

    def enlarged(self, heat: Tensor, size: tuple[int, int]) -> Tensor:
        """A map as large as the image, linear between positions.

        Args:
            heat: Shape (B, H, W).
            size: Height and width of the image.

        Returns:
            Shape (B, height, width); the outermost positions reach to the edges.
        """
        cells = _size(heat)
        grid = [
            # As `grid_sample` counts: cell i of n reaches from 2i / n - 1 to 2(i + 1) / n - 1.
            (2 * (torch.arange(side, device=heat.device) - axis.start) / axis.step + 1) / count - 1
            for axis, side, count in zip(self.axes(cells, size), size, cells, strict=True)
        ]
        down, across = torch.meshgrid(*grid, indexing="ij")
        places = torch.stack([across, down], dim=-1).to(heat.dtype).expand(len(heat), -1, -1, -1)
        sampled = functional.grid_sample(
            heat[:, None], places, padding_mode="border", align_corners=False
        )
        return sampled[:, 0]


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]


def _equal(side: int, count: int) -> Axis:
    step = side / count
    return Axis((step - 1) / 2, step)


def _pair(module: nn.Module, name: str) -> tuple[int, int]:
    value = getattr(module, name, 1)  # pools have no dilation, or one
    if isinstance(value, str):  # the padding of a convolution
        kernels, dilations = _pair(module, "kernel_size"), _pair(module, "dilation")
        same = [d * (k - 1) // 2 for k, d in zip(kernels, dilations, strict=True)]
        return (same[0], same[1]) if value == "same" else (0, 0)
    return (value, value) if isinstance(value, int) else (value[0], value[1])


@contextmanager
def located(model: nn.Module) -> Iterator[Positions]:
    """Learn where the positions of maps lie while the network runs; to be asked afterwards."""
    positions = Positions()
    layers = [module for module in model.modules() if isinstance(module, _WINDOWED)]
    handles = [layer.register_forward_hook(positions.watch) for layer in layers]
    try:
        yield positions
    finally:
        for handle in handles:
            handle.remove()

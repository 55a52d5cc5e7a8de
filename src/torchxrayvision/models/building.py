"""Classifiers by their architecture, and architectures by the tensors of a file."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from torchxrayvision.errors import CheckpointError, counted
from torchxrayvision.models.densenet import DENSENETS, DenseNet, get_densenet_params
from torchxrayvision.models.encoder import Encoder
from torchxrayvision.models.evax import EVAX_SIZES, EvaX, EvaXDenseNet
from torchxrayvision.models.resnet import RESNETS, SMALL, WIDTH, ResNet
from torchxrayvision.models.zeroshot import ZERO_SHOT, ZeroShot

if TYPE_CHECKING:
    from torch import Tensor

    from torchxrayvision.models.base import XRayClassifier

EVAX: Final = (*EVAX_SIZES, "evax-densenet121")


def build_classifier(architecture: str, **kwargs: Any) -> XRayClassifier:
    """An untrained classifier of this package, by the name of its architecture."""
    if architecture == "evax-densenet121":
        return EvaXDenseNet(**kwargs)
    if architecture.startswith("dinov2-"):
        return Encoder(architecture=architecture, **kwargs)
    if architecture.startswith(tuple(ZERO_SHOT)):
        return ZeroShot(architecture=architecture, **kwargs)
    if architecture in EVAX:
        return EvaX(architecture=architecture, **kwargs)
    if architecture.startswith("resnet"):
        return ResNet(architecture=architecture, **kwargs)
    return DenseNet(**get_densenet_params(architecture), **kwargs)


def recognise(tensors: dict[str, Tensor], path: str) -> tuple[str, int]:
    """Architecture and number of outputs of a network, by the names and shapes of its tensors."""
    name, head = None, None
    if "classifier.weight" in tensors and "features.conv0.weight" in tensors:
        name, head = _densenet_of(tensors), "classifier.weight"
    elif "fc.weight" in tensors and "layer3.0.conv2.weight" in tensors:
        name, head = _resnet_of(tensors), "fc.weight"
    elif "cls_token" in tensors and "fc_norm.weight" in tensors:  # as the release has it
        name, head = _evax_of(tensors["cls_token"]), "head.weight"
    elif "body.cls_token" in tensors and "fc_norm.weight" in tensors:
        name, head = _evax_of(tensors["body.cls_token"]), "classifier.weight"
    last = None if head is None else tensors.get(head)
    if name is None or last is None or last.dim() != 2:
        some = ", ".join(list(tensors)[:3]) or "no tensor at all"
        msg = (
            f"{path}: not a DenseNet (121, 161, 169, 201), ResNet (18, 34, 50, 101) or EVA-X of "
            f"this package; it holds {counted(len(tensors), 'tensor')} ({some}, ...)"
        )
        raise CheckpointError(msg)
    return name, len(last)


def _densenet_of(tensors: dict[str, Tensor]) -> str | None:
    layer = re.compile(r"features\.denseblock(\d)\.denselayer\d+\.conv1\.weight")
    counts = Counter(m[1] for m in map(layer.fullmatch, tensors) if m)
    sizes = len(tensors["features.conv0.weight"]), tuple(counts[block] for block in "1234")
    known = ((p["num_init_features"], p["block_config"]) for p in DENSENETS.values())
    return dict(zip(known, DENSENETS, strict=True)).get(sizes)


def _resnet_of(tensors: dict[str, Tensor]) -> str | None:
    deep = "layer3.0.conv3.weight" in tensors  # where the blocks are bottlenecks
    depth = sum(k.startswith("layer3.") and k.endswith(".conv1.weight") for k in tensors)
    fitting = (n for n in RESNETS if (n not in SMALL) == deep)
    name = next((n for n in fitting if RESNETS[n][2] == depth), None)
    width = len(tensors["layer1.0.conv1.weight"])
    return name if name is None or width == WIDTH else f"{name}-width{width}"


def _evax_of(token: Tensor) -> str | None:
    return next((n for n, (width, _, _) in EVAX_SIZES.items() if width == token.shape[-1]), None)

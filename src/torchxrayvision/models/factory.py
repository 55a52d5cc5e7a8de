"""Models by name, and models from a file of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast, overload

import torch

from torchxrayvision.checkpoints import load_checkpoint as read_checkpoint
from torchxrayvision.checkpoints import state_dict_of
from torchxrayvision.errors import CheckpointError, UnknownNameError, XRVError
from torchxrayvision.facts import OwnFile
from torchxrayvision.models.backbone import BACKBONES, Backbone
from torchxrayvision.models.base import load_strictly
from torchxrayvision.models.building import EVAX, build_classifier, recognise
from torchxrayvision.models.densenet import DENSENETS, DenseNet
from torchxrayvision.models.encoder import ENCODERS, Encoder
from torchxrayvision.models.evax import EvaX, EvaXDenseNet
from torchxrayvision.models.loading import (
    apply_facts,
    apply_metadata,
    backbone_of,
    check_compat,
    file_arguments,
    normalise_names,
    preprocess_of,
    read_header_facts,
    split_width,
    stated_architecture,
)
from torchxrayvision.models.pretrained import class_of, from_pretrained
from torchxrayvision.models.resnet import RESNETS, Bottleneck, ResNet
from torchxrayvision.models.unet import UNet
from torchxrayvision.models.zeroshot import ZERO_SHOT, ZeroShot
from torchxrayvision.weights import fetch_weights, list_weights, warn_of_terms
from torchxrayvision.weights import get as get_entry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from torchxrayvision.models.base import XRayClassifier, XRayModel
    from torchxrayvision.models.scaling import ResizeRoute
    from torchxrayvision.weights import Weights, WeightsEnum

_UNTRAINED: Final = (*DENSENETS, *RESNETS, *EVAX, *ENCODERS, *ZERO_SHOT, "unet")


# How architectures start, and the class of their networks; the first that fits counts.
_NETWORKS: Final[tuple[tuple[tuple[str, ...], Any], ...]] = (
    (tuple(DENSENETS), DenseNet),
    (tuple(RESNETS), ResNet),
    (("evax-densenet121",), EvaXDenseNet),
    (("evax-",), EvaX),
    (("dinov2-",), Encoder),
    (tuple(ZERO_SHOT), ZeroShot),
)


def list_models() -> list[str]:
    """Every name that `get_model` takes: published weights first, then bare architectures.

    Returns:
        Names.

    Example:
        >>> list_models()[0]
        'densenet121-res224-all'
    """
    ours = [w.name for w in list_weights() if split_width(w.architecture, 0)[0] in _UNTRAINED]
    return ours + list(_UNTRAINED)


# A type checker learns from these names that the answer is not a classifier; any other text is.
@overload
def get_model(weights: Literal["unet", "demo-anatomy"], **kwargs: Any) -> UNet: ...


@overload
def get_model(weights: str | Weights | WeightsEnum, **kwargs: Any) -> XRayClassifier: ...


def get_model(weights: str | Weights | WeightsEnum, **kwargs: Any) -> XRayClassifier | UNet:
    """A model by the name of its weights, or an untrained one by its architecture.

    Args:
        weights: A name of `list_models`, an alias, an enum member, a name that `xrv weights add`
            gave, or `"timm:NAME"` or `"torchvision:NAME"` for a network of those libraries, see
            `Backbone`.
        **kwargs: Passed to `DenseNet`, `ResNet`, `EvaX`, `Encoder`, `ZeroShot`, `UNet` or
            `Backbone`.

    Returns:
        The model; in evaluation mode if it has weights.

    Raises:
        UnknownNameError: If nothing has that name.

    Warns:
        DemonstrationWarning: If the weights are there to try the package with.

    Example:
        >>> get_model("resnet50", num_classes=2).targets
        ['', '']
    """
    if isinstance(weights, str) and weights in _UNTRAINED:
        return UNet(**kwargs) if weights == "unet" else build_classifier(weights, **kwargs)
    if isinstance(weights, str) and weights.startswith(BACKBONES):
        return Backbone(weights, **kwargs)
    entry = get_entry(weights)
    if isinstance(entry.file, OwnFile):
        return cast("XRayClassifier", _own(entry, **kwargs))
    name = split_width(entry.architecture, 0)[0]
    if name == "unet":
        return UNet(weights=entry, **kwargs)
    for starts, network in _NETWORKS:
        if name.startswith(starts):
            made: XRayClassifier = network(weights=entry, **kwargs)
            return made
    advice = f"those are weights of {entry.architecture}, whose class is in baseline_models"
    if entry.architecture.startswith("autoencoder"):
        advice += " or autoencoders"
    raise UnknownNameError("model", entry.name, list_models(), advice)


def _own(
    entry: Weights,
    *,
    compat: str | None = None,
    output: str | None = None,
    resize_route: ResizeRoute | None = None,
    **others: Any,
) -> Any:
    """A network that the user added, of whatever kind it is; 1.5.7 has no numbers of it."""
    words = {name: others.pop(name) for name in ("findings", "prompts", "contrast")
             if name in others and entry.architecture.startswith(tuple(ZERO_SHOT))}  # fmt: skip
    if others:
        msg = f"{entry.name} is a saved network, which does not take {', '.join(others)}"
        raise TypeError(msg)
    check_compat(compat)
    fetch_weights(entry)  # which compares the bytes with those that were added
    model: Any = from_pretrained(Path(cast("OwnFile", entry.file).folder))
    model.weights = entry.name
    if words:
        model.set_findings(words.pop("findings", model.targets), **words)
    if output is not None:
        model.output = model.check_kind(output)
    if resize_route is not None:
        model.resize_route = resize_route
    warn_of_terms(entry)
    return model


def network_with(entry: Weights) -> XRayModel:
    """The network with some weights, of whatever kind: also an autoencoder, or of another group.

    Args:
        entry: The weights.
    """
    kind = None if isinstance(entry.file, OwnFile) else class_of(entry.architecture)
    if kind is None:
        return get_model(entry)
    made: XRayModel = (
        kind(str(fetch_weights(entry))) if entry.container == "zip" else kind(weights=entry)
    )  # an ensemble takes the file itself
    return made


def get_weights(weights: str, cache_dir: str | None = None) -> str:
    """Fetch published weights without building the model.

    Args:
        weights: Name or alias.
        cache_dir: Folder; None for the usual one.

    Returns:
        Path of the local file.
    """
    return str(fetch_weights(get_entry(weights), cache=cache_dir))


def load_checkpoint(
    path: str | Path,
    *,
    weights: str | Weights | WeightsEnum | None = None,
    targets: Sequence[str] | None = None,
    input_resolution: int | None = None,
    compat: str | None = None,
) -> XRayClassifier:
    """Load a classifier or encoder from a file of your own, without executing anything in it.

    Reads whole pickled modules, state dictionaries, DataParallel and Lightning checkpoints and
    safetensors; a DenseNet, ResNet or EVA-X is recognised by the tensors. A file of
    `save_checkpoint`, as training writes them, says its targets, resolution, preprocessing and
    operating points itself, and may hold an `Encoder` or a `Backbone`. The tensors of a saved
    `ZeroShot` are read with the files that lie beside them.

    Args:
        path: The file.
        weights: Published weights whose targets, resolution and operating points apply. Of an
            encoder or zero-shot network the file is that of the release, with the files of its
            folder.
        targets: Names of the outputs, if `weights` is not given; None takes those in the file,
            else the 18 findings of the core models if there are 18 outputs, else numbered names.
        input_resolution: Side in pixels that the network was trained at, if `weights` is not
            given; None takes that in the file, else 512 for a ResNet of 50 layers or more, that of
            the published EVA-X with as many outputs, else 224.
        compat: `"xrv-1.5"` for 1.5.7's operating points, with `weights`.

    Returns:
        The model in evaluation mode. Without `weights` its outputs are probabilities, unless the
        file says otherwise.

    Raises:
        CheckpointError: If the file is not one of these networks, or does not fit `weights`.
    """
    entry = None if weights is None else get_entry(weights)
    if entry is not None and entry.output in ("embedding", "similarity"):
        return get_model(entry, folder=path)
    checkpoint = read_checkpoint(path)
    stated = None if entry else stated_architecture(checkpoint.values, str(path))
    if stated is not None and stated.startswith(tuple(ZERO_SHOT)):
        return cast("XRayClassifier", from_pretrained(Path(path).parent))
    backbone = backbone_of(checkpoint.values, str(path)) if entry is None else None
    if backbone is not None:
        tensors = {k: v for k, v in checkpoint.tensors.items() if k != "op_threshs"}
        model = _meta_backbone(*backbone, tensors, str(path))
    else:
        tensors = normalise_names(state_dict_of(checkpoint))
        arguments = file_arguments(checkpoint.values, str(path))
        model = _meta_model(tensors, entry, stated, arguments, str(path))
        if isinstance(model, EvaX):
            model.fill_constants()
        if isinstance(model, EvaX | EvaXDenseNet | Encoder):
            tensors = model.own_names(tensors, str(path))
    network = model.model if isinstance(model, ResNet) else model
    load_strictly(network, tensors, source=str(path))
    facts = read_header_facts(checkpoint.values, len(model.targets), str(path))
    if entry is not None:
        apply_metadata(model, entry, compat)
        _prepare_as(model, entry)
    else:
        numbered = [t or f"output {i}" for i, t in enumerate(model.targets)]
        model.targets = list(targets or facts.get("targets", numbered))
        native = _native_side(model)
        model.input_resolution = input_resolution or facts.get("input_resolution", native)
        apply_facts(model, facts)
    model.weights = Path(path).stem
    return model.eval()


def _native_side(model: XRayClassifier) -> int:
    """The resolution that a network has where its file says nothing; EVA-X is prepared for it."""
    if isinstance(model, Encoder):
        return model.input_resolution
    if isinstance(model, EvaX | EvaXDenseNet):
        same = [w for w in list_weights() if w.architecture == model.architecture]
        alike = [w for w in same if len(w.targets) == len(model.targets)] or same
        _prepare_as(model, alike[0])
        return alike[0].input_resolution
    deep = isinstance(model, ResNet) and model.model.block is Bottleneck
    return 512 if deep else 224


def _prepare_as(model: XRayClassifier, entry: Weights) -> None:
    """Prepare images as the authors of weights do."""
    if isinstance(model, EvaX | EvaXDenseNet):
        model.preprocess = preprocess_of(entry)


def _meta_model(
    tensors: dict[str, Tensor],
    entry: Weights | None,
    stated: str | None,
    arguments: dict[str, Any],
    path: str,
) -> XRayClassifier:
    """The network that tensors belong to, without memory: every tensor is about to be replaced."""
    if stated is not None and stated.startswith("dinov2-"):
        with torch.device("meta"):
            head = tensors.get("classifier.bias")
            outputs = 0 if head is None else head.numel()
            return Encoder.of_arguments(stated, outputs, arguments, path)
    name, outputs = recognise(tensors, path)
    if entry is not None:
        name, outputs = entry.architecture, len(entry.targets)
    elif stated in EVAX:  # by its tensors alone the DenseNet is that of the core models
        name = stated
    with torch.device("meta"):
        return build_classifier(name, num_classes=outputs, apply_sigmoid=True)


def _meta_backbone(
    name: str, arguments: dict[str, Any], tensors: dict[str, Tensor], path: str
) -> XRayClassifier:
    head = tensors.get("classifier.bias")
    outputs = 0 if head is None else head.numel()
    try:
        with torch.device("meta"):
            return Backbone(name, num_classes=outputs, apply_sigmoid=True, **arguments)
    except XRVError:
        raise
    except Exception as error:  # whatever the other library makes of values that do not fit
        msg = f"{path}: {name} cannot be built with {arguments}: {str(error)[:200]}"
        raise CheckpointError(msg) from error

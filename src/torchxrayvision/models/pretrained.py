"""Saved networks as the ecosystem keeps them: a folder of `config.json` and `model.safetensors`.

What a network that takes texts needs besides, its tokeniser and its prompts, lies there too, as
data: files of fixed names, whose SHA-256 the configuration states.

`from_pretrained` takes such a folder, or the name of one on the Hub. The architecture that the
configuration names comes from a list, its arguments pass the checks that those of every file pass
(`check_file_arguments`), and the tensors are loaded strictly: nothing in a folder chooses code.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

import torch

from torchxrayvision.checkpoints import described_header, read_tensors, save_safetensors
from torchxrayvision.errors import (
    CheckpointError,
    ChecksumError,
    UnknownNameError,
    XRVError,
    counted,
)
from torchxrayvision.files import write_atomically
from torchxrayvision.models.backbone import BACKBONES, Backbone, check_file_arguments
from torchxrayvision.models.base import XRayClassifier, load_strictly
from torchxrayvision.models.building import EVAX, build_classifier, recognise
from torchxrayvision.models.densenet import DENSENETS
from torchxrayvision.models.encoder import ENCODERS, Encoder
from torchxrayvision.models.evax import EvaX
from torchxrayvision.models.loading import (
    aligned,
    apply_facts,
    header_of,
    normalise_names,
    operating_points,
    preprocessing_of,
    split_width,
)
from torchxrayvision.models.resnet import RESNETS
from torchxrayvision.models.scaling import Preprocess
from torchxrayvision.models.unet import Segmenter, UNet
from torchxrayvision.models.vit import vit_shape
from torchxrayvision.models.zeroshot import ZERO_SHOT, ZeroShot
from torchxrayvision.remote import HubAddress, fetch_from_hub, sha256_once
from torchxrayvision.weights import CONFIG_NAME, TENSORS_NAME, ModelConfig, Output, list_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from torchxrayvision.models.base import XRayModel
    from torchxrayvision.weights import Weights

_COMPACT: Final = "autoencoder-compact"
_COMPACT_ARGUMENTS: Final = ("width", "code", "levels", "dense")  # whose values the class checks
# Networks whose packages build on this one, by the name of their architecture.
_ELSEWHERE: Final = {
    "autoencoder-resnet50": "autoencoders.ResNetAE",
    "autoencoder-resnet101": "autoencoders.ResNetAE",
    _COMPACT: "autoencoders.CompactAE",
    "jfhealthcare-densenet121": "baseline_models.jfhealthcare.DenseNet",
    "emory_hiti-resnet34": "baseline_models.emory_hiti.RaceModel",
    "mira-resnet34": "baseline_models.mira.SexModel",
    "xinario-resnet50": "baseline_models.xinario.ViewModel",
    "riken-senet154": "baseline_models.riken.AgeModel",
    "chexpert-densenet121": "baseline_models.chexpert.DenseNet",
    "pspnet": "baseline_models.chestx_det.PSPNet",
    "unet-resnet50": "baseline_models.chestx_anatomy.UNetResNet50",
    "vqgan": "baseline_models.ieee8023.VQGAN",
}
_WIDEST: Final = 1024
_POINTS: Final = "op_threshs"
_RAW: Final = get_args(Output)
_GROUPS: Final = 3  # of the ensemble chexpert-densenet121, each of as many members
_HEADER: Final = "torchxrayvision.config"
_SEGMENTER: Final = "torchxrayvision.segmenter"
_CONFIG: Final = "config"
_TRANSFORMERS: Final = (*ENCODERS, *ZERO_SHOT)  # how the names of vision transformers start


def save_pretrained(
    model: XRayModel, folder: str | Path, *, facts: ModelConfig | None = None
) -> ModelConfig:
    """Write a network as `config.json` and `model.safetensors`.

    The same network gives the same bytes. Each file is whole or as it was, whatever stops the
    process; the tensors come first, so that a configuration never lies beside those of another.
    Of a `ZeroShot` the files of its tokeniser and `prompts.json`, its texts, lie beside them.

    Args:
        model: Any network of this package, trained here or published, or a `Backbone`.
        folder: Where to; made if it is missing. Its files are replaced.
        facts: Terms, reference, metrics, description and provenance to write beside the network's
            own facts; those of its published weights by default.

    Returns:
        What `config.json` says.

    Raises:
        CheckpointError: If the network could not be read back: an `Ensemble`, one of your own
            class, or a `Backbone` with arguments that no file may choose.

    Example:
        >>> import tempfile
        >>> from torchxrayvision.models import ResNet
        >>> folder = tempfile.mkdtemp()
        >>> model = ResNet(architecture="resnet18-width8", num_classes=1)
        >>> model.targets = ["Mass"]
        >>> save_pretrained(model, folder).architecture
        'resnet18-width8'
        >>> from_pretrained(folder).targets
        ['Mass']
    """
    folder = Path(folder)
    tensors = {k: v for k, v in model.state_dict().items() if k != _POINTS}
    config = _config_of(model, tensors, facts, str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    header = {"format": "pt", _HEADER: json.dumps({"architecture": config.architecture})}
    if isinstance(model, XRayClassifier):
        header |= header_of(model, getattr(model, "input_resolution", None))
    beside = model.companions() if isinstance(model, ZeroShot) else {}
    save_safetensors(folder / TENSORS_NAME, tensors, header)
    for name, content in beside.items():
        with write_atomically(folder / name) as part:
            part.write_bytes(content)
    files = {name: sha256_once(folder / name) for name in beside}
    config = replace(config, sha256=sha256_once(folder / TENSORS_NAME), files=files)
    with write_atomically(folder / CONFIG_NAME) as part:
        part.write_text(config.to_json(), "utf-8")
    return config


def _config_of(
    model: XRayModel, tensors: Mapping[str, Tensor], facts: ModelConfig | None, source: str
) -> ModelConfig:
    architecture = architecture_of(model, tensors)
    arguments = dict(getattr(model, "arguments", {}))
    _check_architecture(architecture, arguments, source)
    preprocess = getattr(model, "preprocess", None)
    known = facts or _published(model)
    blank = ModelConfig(architecture=architecture, targets=tuple(model.targets))
    own: dict[str, Any] = {
        "architecture": architecture,
        "arguments": arguments,
        "targets": tuple(model.targets),
        "untrained": _untrained(model),
        "input_resolution": getattr(model, "input_resolution", None),
        "resize_route": model.resize_route,
        "preprocessing": None if preprocess is None else preprocessing_of(preprocess),
        "raw": _raw(model),
        "weights": model.weights,
    }
    if isinstance(model, XRayClassifier):
        points = operating_points(model)
        own["operating_points"] = None if points is None else tuple(points)
        own |= {"output": model.output, "apply_sigmoid": bool(model.apply_sigmoid)}
    return replace(known or blank, **own)


def _untrained(model: XRayModel) -> tuple[str, ...]:
    if model.weights is None:
        return tuple(sorted(getattr(model, "untrained", ())))
    pairs = zip(model.targets, model.trained, strict=True)
    return tuple(name for name, known in pairs if name and not known)


def _raw(model: XRayModel) -> str:
    kind = getattr(model, "raw_kind", None) or getattr(model, "output_kind", "logit")
    return str(kind) if kind in _RAW else "logit"


def _published(model: XRayModel) -> ModelConfig | None:
    """The facts of the published weights that a network holds."""
    entry = next((e for e in list_weights() if e.name == model.weights), None)
    if entry is None:
        return None
    source: dict[str, Any] = {"url": entry.url, "sha256": entry.file.sha256}
    source |= {"container": entry.container, "weights": entry.name}
    if _has_new_outputs(model, entry):  # what was measured of the former ones is not true of these
        entry = replace(entry, metrics={}, metrics_source="", description="")
    return ModelConfig(
        architecture=entry.architecture,
        targets=entry.targets,
        trained_on=entry.trained_on,
        license=entry.license,
        reference=entry.reference,
        metrics={test: dict(rows) for test, rows in entry.metrics.items()},
        metrics_source=entry.metrics_source,
        description=entry.description,
        demonstration=entry.demonstration,
        cell_maps=entry.cell_maps,
        provenance={name: value for name, value in source.items() if value},
    )


def _has_new_outputs(model: XRayModel, entry: Weights) -> bool:
    """Whether `reset_classifier` took the place of the published last layer."""
    lost = entry.operating_points is not None and getattr(model, "op_threshs", None) is None
    return lost or tuple(model.targets) != tuple(entry.targets)


def architecture_of(model: XRayModel, tensors: Mapping[str, Tensor] | None = None) -> str:
    """The name by which `from_pretrained` builds such a network.

    Args:
        model: Any network.
        tensors: Its state, if it is at hand.

    Raises:
        CheckpointError: If it is of no class that can be built by name.
    """
    place = f"{type(model).__module__}.{type(model).__name__}"
    for name, known in _ELSEWHERE.items():
        package, _, kind = f"torchxrayvision.{known}".rpartition(".")
        if place.startswith(package) and place.endswith(f".{kind}"):
            return getattr(model, "architecture", "") or name
    if isinstance(model, UNet):
        return f"unet-width{model.model.last.in_channels}"
    stated = getattr(model, "architecture", "")
    if isinstance(model, Backbone) or stated in EVAX:
        return stated
    if isinstance(model, Encoder | ZeroShot):
        if not model.is_named():
            msg = f"this {stated} has a form of its own, which its name does not say"
            raise CheckpointError(f"{msg}; keep its state_dict with torchxrayvision.checkpoints")
        return stated
    if stated == "Ensemble":
        msg = "an ensemble is saved member by member: save_pretrained(member, folder) for each"
        raise CheckpointError(msg)
    if type(model).__module__.startswith("torchxrayvision.models."):
        held = model.state_dict() if tensors is None else tensors
        return recognise(normalise_names(held), type(model).__name__)[0]
    msg = f"{place} is a class of your own, which no file can name"
    raise CheckpointError(f"{msg}; keep its state_dict with torchxrayvision.checkpoints")


def _check_architecture(name: str, arguments: Mapping[str, Any], source: str) -> None:
    """Refuse what is on no list, before anything is built."""
    plain, width = split_width(name, 1)
    if name.startswith(BACKBONES):
        check_file_arguments(name, arguments, source)
        return
    if name.startswith(_TRANSFORMERS):  # which check their arguments themselves
        try:
            vit_shape(name)
        except UnknownNameError as error:
            raise CheckpointError(f"{source}: {error}") from error
        return
    known = (*DENSENETS, *RESNETS, *EVAX, "unet", *_TRANSFORMERS, *_ELSEWHERE)
    widened = plain in (*RESNETS, "unet") and name == f"{plain}-width{width}"
    if plain not in known or not (name == plain or widened) or not 1 <= width <= _WIDEST:
        msg = f"{source}: no network {name[:60]!r} in this package; it has {', '.join(known)}"
        raise CheckpointError(f"{msg}, and networks of timm and torchvision")
    if name == _COMPACT and set(arguments) <= set(_COMPACT_ARGUMENTS):
        return
    if arguments:
        raise CheckpointError(f"{source}: {name} takes no arguments from a file")


def from_pretrained(
    name: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
) -> XRayModel:
    """The network in a folder of `save_pretrained`, or in such a model on the Hub.

    Args:
        name: The folder, or ``"owner/name"`` or ``"hf://owner/name@revision"`` on the Hub. A
            folder of that name comes first.
        revision: Branch, tag or commit on the Hub; the newest of the main branch by default.
        cache_dir: Folder for the download; None for the usual one.

    Returns:
        The network in evaluation mode, with the outputs of the one that was saved, bit for bit.

    Raises:
        UnknownNameError: If it is neither a folder nor an address on the Hub.
        CheckpointError: If the files hold anything else than a network of this package.
        ChecksumError: If the tensors are not those that the configuration names.
        RemoteError: If they cannot be fetched.
    """
    folder = Path(name)
    if not folder.is_dir():
        if isinstance(name, Path):
            raise CheckpointError(f"{name}: there is no such folder")
        address = HubAddress.parse(name)
        if revision is not None:
            address = HubAddress.parse(f"{address.repo}@{revision.replace('/', '%2F')}")
        folder = fetch_from_hub(address, (CONFIG_NAME, TENSORS_NAME), cache=cache_dir)
        fetch_beside(HubAddress(address.repo, folder.name), folder, cache_dir)
    config = ModelConfig.read(folder / CONFIG_NAME)
    path = folder / TENSORS_NAME
    for name, digest in {TENSORS_NAME: config.sha256, **config.files}.items():
        _check_file(folder / name, digest)
    return _restored(config, path)


def fetch_beside(
    address: HubAddress, folder: Path, cache_dir: str | Path | None = None
) -> tuple[str, ...]:
    """Bring the other files that the configuration of a saved model on the Hub names.

    Args:
        address: With the commit as its revision.
        folder: Where that lies in the cache.
        cache_dir: As in `from_pretrained`.

    Returns:
        Their names.

    Raises:
        CheckpointError: If the configuration is not of this package.
        RemoteError: If they cannot be fetched.
    """
    files = tuple(ModelConfig.read(folder / CONFIG_NAME).files)
    if files:
        fetch_from_hub(HubAddress(address.repo, address.revision), files, cache=cache_dir)
    return files


def _check_file(path: Path, digest: str | None) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path}: the file does not exist; a saved model has it")
    if digest is not None and sha256_once(path) != digest:
        msg = f"{path}: its sha256 is {sha256_once(path)}, {CONFIG_NAME} names {digest}"
        raise ChecksumError(f"{msg}; the two are not of one model, or the copy is damaged")


def _restored(config: ModelConfig, path: Path) -> XRayModel:
    checkpoint = read_tensors(path)
    if checkpoint.container != "safetensors":
        raise CheckpointError(f"{path}: a {checkpoint.container}, not safetensors")
    model = _built(config, aligned(checkpoint.tensors), path)
    model.targets = list(config.targets)
    model.input_resolution = config.input_resolution  # type: ignore[assignment] # None removes it
    model.resize_route = config.resize_route  # type: ignore[assignment] # checked when it was read
    if config.preprocessing is not None and hasattr(model, "preprocess"):
        model.preprocess = Preprocess(**config.preprocessing)  # type: ignore[arg-type] # checked
    model.weights = config.weights
    if isinstance(model, XRayClassifier):
        model.weights = None  # outputs that have no operating point are told apart by name below
        _check_output(model, config, path)
        apply_facts(model, _facts(config))
        model.apply_sigmoid = config.apply_sigmoid
        model.weights = config.weights
    model.weights_filename_local = str(path)
    return model.eval()


def _check_output(model: XRayClassifier, config: ModelConfig, path: Path) -> None:
    try:
        model.check_kind(config.output)
    except UnknownNameError as error:
        raise CheckpointError(f"{path.with_name(CONFIG_NAME)}: {error}") from error


def _facts(config: ModelConfig) -> dict[str, Any]:
    points = config.operating_points
    return {
        "operating_points": None if points is None else list(points),
        "output": config.output,
        "untrained": config.untrained,
    }


def _built(config: ModelConfig, tensors: dict[str, Tensor], path: Path) -> XRayModel:
    """The network with the tensors in their places."""
    source = str(path.with_name(CONFIG_NAME))
    _check_architecture(config.architecture, config.arguments, source)
    try:
        model = _untrained_network(config, tensors, path)
    except XRVError:
        raise
    except Exception as error:  # whatever another library makes of values that do not fit
        msg = f"{source}: {config.architecture} cannot be built: {str(error)[:200]}"
        raise CheckpointError(msg) from error
    if len(model.targets) != len(config.targets):
        msg = f"{config.architecture} has {counted(len(model.targets), 'output')}"
        raise CheckpointError(f"{source}: {counted(len(config.targets), 'target')}, {msg}")
    model.fit_to(tensors)
    load_strictly(model, tensors, source=str(path))
    return model


def _untrained_network(config: ModelConfig, tensors: Mapping[str, Tensor], path: Path) -> XRayModel:
    name, count = config.architecture, len(config.targets)
    if name == "vqgan":  # its sizes are read off its tensors
        vqgan: XRayModel = _class(name)(ckpt_path=str(path))
        return vqgan
    if name.startswith(BACKBONES):  # their own constants need memory
        return Backbone(name, num_classes=count, **config.arguments)
    if name == "chexpert-densenet121":
        members = {k.split(".")[1] for k in tensors if k.startswith("members.")}
        ensemble: XRayModel = _class(name)(None, max(1, len(members) // _GROUPS))
        return ensemble
    with torch.device("meta"):  # every tensor is about to be replaced
        if name in _ELSEWHERE:
            model = _of_others(config)
        elif name.startswith(tuple(ZERO_SHOT)):
            model = ZeroShot.of_saved(config, path.parent)
        elif name.startswith(ENCODERS):
            model = Encoder.of_arguments(name, count, config.arguments, str(path.parent))
        elif split_width(name, 0)[0] == "unet":
            model = UNet(targets=config.targets, width=split_width(name, 16)[1])
        else:
            model = build_classifier(name, num_classes=count)
    if isinstance(model, EvaX):
        model.fill_constants()
    return model


def _of_others(config: ModelConfig) -> XRayModel:
    """A network whose package builds on this one."""
    name = config.architecture
    given: dict[str, Any] = {"weights": False}
    if name == _COMPACT:
        given = {**config.arguments, "input_resolution": config.input_resolution}
    elif name.startswith("autoencoder-"):
        given = {"architecture": name}
    model: XRayModel = _class(name)(**given)
    if isinstance(model, Segmenter) and model.targets != list(config.targets):
        model.reset_outputs(config.targets)
    return model


def save_segmenter(
    model: Segmenter, path: str | Path, *, facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write a segmentation network as one file, so that `load_segmenter` gives it back.

    Args:
        model: The network.
        path: Where to; by convention it ends in `.safetensors`. Replaced if it exists.
        facts: More to keep in the header: anything JSON holds.

    Returns:
        Everything that the header says.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "mine.safetensors")
        >>> save_segmenter(UNet(targets=["Heart"], width=4), path)["architecture"]
        'unet-width4'
        >>> load_segmenter(path).targets
        ['Heart']
    """
    tensors = dict(model.state_dict())
    try:
        config = _config_of(model, tensors, None, str(path))
    except CheckpointError:  # of the caller's own class, who keeps its code too
        config = ModelConfig(architecture=type(model).__name__, targets=tuple(model.targets))
    described = {
        "architecture": config.architecture,
        "targets": list(config.targets),
        **(facts or {}),
        _CONFIG: json.loads(config.to_json()),
    }
    save_safetensors(Path(path), tensors, described_header(_SEGMENTER, described))
    return described


def load_segmenter(path: str | Path) -> Segmenter:
    """A segmentation network from a file of `save_segmenter`, as `xrv train` writes them.

    Args:
        path: The file; nothing in it is executed.

    Returns:
        The network in evaluation mode.

    Raises:
        CheckpointError: If it holds anything else.
    """
    path = Path(path)
    try:
        held = json.loads(read_tensors(path).values[_SEGMENTER])
        config = ModelConfig.parse(json.dumps(held[_CONFIG]), str(path))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        msg = f"{path}: it does not say that it holds a segmentation network"
        advice = "`xrv train` with task = 'segmentation' writes such files"
        raise CheckpointError(f"{msg}; {advice}") from error
    model = _restored(replace(config, weights=path.stem), path)
    if not isinstance(model, Segmenter):
        raise CheckpointError(f"{path}: {type(model).__name__} is no segmentation network")
    return model


def reader_of(path: Path) -> Any:
    """What reads an autoencoder or a segmenter that `xrv train` wrote, or None for another file.

    Args:
        path: The file.
    """
    if _SEGMENTER in read_tensors(path).values:
        return load_segmenter
    package = importlib.import_module("torchxrayvision.autoencoders")
    return package.load_checkpoint if package.is_autoencoder_file(path) else None


def class_of(architecture: str) -> Any:
    """The class of a network whose package builds on this one, or None."""
    return _class(architecture) if architecture in _ELSEWHERE else None


def _class(name: str) -> Any:
    package, _, kind = f"torchxrayvision.{_ELSEWHERE[name]}".rpartition(".")
    return getattr(importlib.import_module(package), kind)

"""What the configuration files beside the tensors of a release say, as far as numbers depend on it.

The shape of a network follows from its tensors, but not the number of heads of an attention, its
activation, the constant of its norms, nor how images are standardised. Where a file beside the
tensors says so, it is right and not this package; a network that was saved here says so too. Only
numbers and words from a list are taken from it; whatever else it says, such as code to be run, is
not looked at.
"""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_args

from torchxrayvision.errors import CheckpointError, XRVWarning, caller_stacklevel
from torchxrayvision.facts import OwnFile
from torchxrayvision.models.vit import ACTIVATIONS
from torchxrayvision.weights import CONFIG_NAME, ModelConfig, Preprocessing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torchxrayvision.models.vit import VitShape
    from torchxrayvision.weights import Weights

_Shape = TypeVar("_Shape")  # `VitShape` or `TextShape`
_LARGEST: Final = 1 << 20  # bytes; such files hold a few hundred
_WIDEST: Final = 1 << 14  # pixels
_Resampling = Literal["bilinear", "bicubic"]
_RESAMPLING: Final[dict[int, _Resampling]] = {2: "bilinear", 3: "bicubic"}  # numbers of Pillow


def read_json(path: Path) -> dict[str, Any]:
    """A small JSON object.

    Raises:
        CheckpointError: If the file is something else.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise CheckpointError(f"{path}: {path.stat().st_size:,} bytes are no configuration")
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: no JSON of a configuration") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: a configuration is a JSON object")
    return found


def tensors_in(place: str | Path) -> Path:
    """The file of tensors of a release that a user has in a folder.

    Args:
        place: The folder, or the file.

    Raises:
        CheckpointError: If there is no such file.
    """
    path = Path(place)
    path = path / "model.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; name the folder that holds the release")
    return path


def files_beside(place: str | Path) -> dict[str, Path]:
    """The files of a release that a user has in a folder, by name.

    Args:
        place: The folder, or the file of tensors in it.

    Raises:
        CheckpointError: If it holds no tensors.
    """
    return {path.name: path for path in tensors_in(place).parent.iterdir() if path.is_file()}


def saved_config(entry: Weights | None) -> ModelConfig | None:
    """What a network that the user added says of itself; None of any other weights.

    Args:
        entry: The weights.

    Raises:
        CheckpointError: If its configuration cannot be read.
    """
    if entry is None or not isinstance(entry.file, OwnFile):
        return None
    return ModelConfig.read(Path(entry.file.folder) / CONFIG_NAME)


def stated_shape(shape: _Shape, beside: Mapping[str, Path], part: str = "") -> _Shape:
    """The shape of an encoder as `config.json` has it, where it says something.

    Args:
        shape: As this package knows it.
        beside: Name of each file of the release to its path.
        part: Section of it that describes the encoder, such as `"vision_config"`.

    Returns:
        The shape with its heads, activation and constant of norms.

    Raises:
        CheckpointError: If the file says what no such network can have.
    """
    path = beside.get("config.json")
    if path is None:
        return shape
    config = read_json(path)
    section = config.get(part, {}) if part else config
    if not isinstance(section, dict):
        raise CheckpointError(f"{path}: {part} is no JSON object")
    return described_shape(shape, section, str(path))


_FIELDS: Final = {
    "num_attention_heads": "heads",
    "hidden_act": "activation",
    "layer_norm_eps": "eps",
}


def described(shape: Any) -> dict[str, Any]:
    """Heads, activation and constant of norms, under the names of a `config.json`."""
    return {theirs: getattr(shape, ours) for theirs, ours in _FIELDS.items()}


def saved_arguments(shape: VitShape, facts: Preprocessing) -> dict[str, Any]:
    """What besides its name makes the numbers of an image encoder, as a file keeps it.

    Args:
        shape: Of the network.
        facts: How it standardises images.
    """
    return {**asdict(facts), **described(shape)}


def saved_form(
    shape: VitShape, arguments: Mapping[str, Any], path: str
) -> tuple[VitShape, Preprocessing]:
    """The shape and preprocessing that `saved_arguments` described.

    Args:
        shape: Of the network by its name.
        arguments: What a file says.
        path: What an error calls it.

    Raises:
        CheckpointError: If the file says what no such network can have.
    """
    try:
        facts = Preprocessing(
            crop=int(arguments["crop"]),
            mean=_number_or_three(arguments["mean"]),
            deviation=_number_or_three(arguments["deviation"]),
            resampling=arguments.get("resampling", "bicubic"),
        )
        good = 0 < facts.crop <= _WIDEST and all(
            math.isfinite(mean) and 0 < deviation < math.inf for mean, deviation in facts.colours()
        )
        if not good or facts.resampling not in get_args(_Resampling):
            raise ValueError(f"preprocessing is {facts}")
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{path}: it does not describe such a network: {str(error)[:200]}"
        raise CheckpointError(msg) from error
    return described_shape(shape, arguments, path), facts


def _number_or_three(value: Any) -> float | tuple[float, float, float]:
    if isinstance(value, list | tuple):
        red, green, blue = value
        return float(red), float(green), float(blue)
    return float(value)


def described_shape(shape: _Shape, section: Mapping[str, Any], path: str) -> _Shape:
    """A shape with what a file says of heads, activation and constant of norms.

    Args:
        shape: Of the same tensors.
        section: What the file says.
        path: What an error calls it.

    Raises:
        CheckpointError: If no such network can have that.
    """
    held: Any = shape
    taken = {**_heads(section, held.width), **_activation(section), **_constant(section)}
    if wrong := [name for name, value in taken.items() if value is None]:
        msg = f"{path}: {', '.join(wrong)} of a network of width {held.width} cannot be that"
        raise CheckpointError(msg)
    made: _Shape = replace(held, **taken)
    return made


def _heads(section: Mapping[str, Any], width: int) -> dict[str, Any]:
    heads = section.get("num_attention_heads")
    if heads is None:
        return {}
    fits = type(heads) is int and 0 < heads <= width and width % heads == 0
    return {"heads": heads if fits else None}


def _activation(section: Mapping[str, Any]) -> dict[str, Any]:
    word = section.get("hidden_act")
    return {} if word is None else {"activation": word if word in ACTIVATIONS else None}


def _constant(section: Mapping[str, Any]) -> dict[str, Any]:
    eps = section.get("layer_norm_eps")
    if eps is None:
        return {}
    return {"eps": eps if type(eps) in (int, float) and 0 < eps < 1e-2 else None}


def stated_preprocessing(facts: Preprocessing, beside: Mapping[str, Path]) -> Preprocessing:
    """How images are standardised, as `preprocessor_config.json` has it.

    Args:
        facts: As this package knows it.
        beside: Name of each file of the release to its path.

    Returns:
        With the mean, deviation and resampling that the file states.

    Raises:
        CheckpointError: If the file says what cannot be.

    Warns:
        XRVWarning: If it says something else than this package knew.
    """
    path = beside.get("preprocessor_config.json")
    if path is None:
        return facts
    config = read_json(path)
    made = facts
    if "image_mean" in config:
        made = replace(made, mean=_three_numbers(config["image_mean"], "image_mean", path))
    if "image_std" in config:
        made = replace(made, deviation=_three_numbers(config["image_std"], "image_std", path))
    if (number := config.get("resample")) in (2, 3):
        made = replace(made, resampling=_RESAMPLING[number])
    if made.colours() != facts.colours() or made.resampling != facts.resampling:
        warnings.warn(
            f"{path}: images are standardised by {made.mean} and {made.deviation} and resampled "
            f"by the {made.resampling} kernel, as this file says and not as this package knew",
            XRVWarning,
            stacklevel=caller_stacklevel(),
        )
    return made


def _three_numbers(value: Any, key: str, path: Path) -> tuple[float, float, float]:
    numbers = value if isinstance(value, list) else []
    good = [n for n in numbers if type(n) in (int, float) and math.isfinite(n) and abs(n) <= 255]
    if len(good) != 3 or len(numbers) != 3 or (key == "image_std" and min(good) <= 0):
        raise CheckpointError(f"{path}: {key} is {repr(value)[:60]}, not one number per colour")
    red, green, blue = map(float, good)
    return red, green, blue

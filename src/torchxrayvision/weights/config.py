"""`config.json`: what a folder of a saved model says of the network whose tensors lie beside it.

The file comes from anywhere, so that every field is checked here, and what shapes a network is
checked once more where it is built: a file never chooses code.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final, get_args

from torchxrayvision.errors import CheckpointError, WeightsError
from torchxrayvision.facts import License, Reference
from torchxrayvision.weights.registry import Output

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

CONFIG_NAME: Final = "config.json"
TENSORS_NAME: Final = "model.safetensors"
CARD_NAME: Final = "README.md"
PROMPTS_NAME: Final = "prompts.json"
COMPANION_NAMES: Final = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer_config.json",
    PROMPTS_NAME,
)
"""Files that may lie beside the tensors of a network that takes texts; all are data."""
NAMELESS: Final = ("embedding", "similarity")
"""Raw outputs that need no names: features, and what is compared with the user's own texts."""
LARGEST_CONFIG: Final = 1 << 20
NOT_STATED: Final = License(name="not stated", note="Nobody has stated terms for these weights.")
_LIBRARY: Final = "torchxrayvision"
_FORMAT: Final = 1
_MOST_TARGETS: Final = 10_000
_LONGEST: Final = 4_000  # characters of a text


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Facts of one saved network.

    Args:
        architecture: Name of the network, such as ``"densenet121"`` or ``"timm:resnet18"``.
        arguments: What shaped it besides, for networks of other libraries, encoders and networks
            that take texts.
        targets: Name of each output in order; none of a network that gives features, or that was
            saved without findings to look for.
        untrained: Those of them that carry no information.
        input_resolution: Side of the square input in pixels; None takes any.
        resize_route: How images are brought to it.
        preprocessing: ``crop``, ``mean`` and ``deviation``, where they are not only rescaled.
        raw: What the last layer gives.
        operating_points: For each output, None where there is none; None for no points at all.
        output: What `forward` gives by default, if that was chosen.
        apply_sigmoid: Whether it gives probabilities where there are no operating points.
        weights: Name of the weights; None for an untrained network.
        trained_on: Codes of the training sets.
        license: Terms; None where nobody has stated them.
        reference: What to cite.
        metrics: Area under the ROC curve, by test set and target.
        metrics_source: Where those numbers come from.
        description: One paragraph.
        demonstration: Whether they are there to try the package with.
        cell_maps: Whether maps are read by cells, see `Weights`.
        provenance: Where the tensors came from.
        sha256: Of the file of tensors.
        files: Other files beside the tensors, of `COMPANION_NAMES`, each with its SHA-256.

    Example:
        >>> config = ModelConfig(architecture="resnet18", targets=("Mass",), weights="mine")
        >>> ModelConfig.parse(config.to_json(), "config.json") == config
        True
    """

    architecture: str
    targets: tuple[str, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    untrained: tuple[str, ...] = ()
    input_resolution: int | None = None
    resize_route: str = "antialias"
    preprocessing: Mapping[str, float] | None = None
    raw: str = "logit"
    operating_points: tuple[float | None, ...] | None = None
    output: str | None = None
    apply_sigmoid: bool = False
    weights: str | None = None
    trained_on: tuple[str, ...] = ()
    license: License | None = None
    reference: Reference | None = None
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    metrics_source: str = ""
    description: str = ""
    demonstration: bool = False
    cell_maps: bool = False
    provenance: Mapping[str, Any] = field(default_factory=dict)
    sha256: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def takes(name: str, value: Any) -> bool:
        """Whether a field may have a value that came from a file.

        Args:
            name: Of the field.
            value: As JSON has it.
        """
        return _RULES[name](value)

    def to_json(self) -> str:
        """The text of the file; the same for the same facts."""
        held = {"library_name": _LIBRARY, "format": _FORMAT, **asdict(self)}
        return json.dumps(held, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def read(cls, path: Path) -> ModelConfig:
        """The facts in a file.

        Raises:
            CheckpointError: If it cannot be read, or holds anything else.
        """
        try:
            if path.stat().st_size > LARGEST_CONFIG:
                raise CheckpointError(f"{path}: larger than {LARGEST_CONFIG:,} bytes")
            return cls.parse(path.read_text("utf-8"), str(path))
        except FileNotFoundError as error:
            msg = f"{path}: the file does not exist; a saved model is a folder with {CONFIG_NAME}"
            raise CheckpointError(f"{msg} and {TENSORS_NAME}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{path}: cannot be read ({error})") from error

    @classmethod
    def parse(cls, text: str, source: str) -> ModelConfig:
        """The facts in a text.

        Args:
            text: JSON.
            source: What errors call it.

        Raises:
            CheckpointError: If it is no such file, naming the fields that are wrong.
        """
        try:
            held = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{source}: no JSON") from error
        if not isinstance(held, dict) or held.get("library_name") != _LIBRARY:
            shown = held.get("library_name") if isinstance(held, dict) else None
            msg = f"{source}: not of a network of this package (library_name {str(shown)[:60]!r})"
            raise CheckpointError(f"{msg}; `xrv weights add` takes the file of tensors alone")
        if held.get("format") != _FORMAT:
            msg = f"{source}: format {str(held.get('format'))[:20]!r}, this version reads {_FORMAT}"
            raise CheckpointError(msg)
        values = {f.name: held[f.name] for f in fields(cls) if f.name in held}
        wrong = [name for name, value in values.items() if not _RULES[name](value)]
        wrong += [name for name in ("architecture", "targets") if name not in values]
        if not wrong:
            config = cls(**{name: _typed(name, value) for name, value in values.items()})
            wrong = list(_contradictions(config))
        if wrong:
            raise CheckpointError(f"{source}: {' and '.join(wrong)}: not what is expected there")
        return config


def _contradictions(config: ModelConfig) -> list[str]:
    count, points = len(config.targets), config.operating_points
    wrong = [] if points is None or len(points) == count else ["operating_points"]
    if not set(config.untrained) <= set(config.targets):
        wrong.append("untrained")
    if not config.targets and config.raw not in NAMELESS:
        wrong.append("targets")
    crop = (config.preprocessing or {}).get("crop", 0)
    if crop > (config.input_resolution or crop):
        wrong.append("preprocessing")
    return wrong


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST and _is_shown(value)


def _is_shown(value: str) -> bool:
    return all(c.isprintable() or c == "\n" for c in value)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= _MOST_TARGETS and all(map(_text, value))


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _table(value: Any) -> bool:
    return isinstance(value, dict) and len(value) <= 200 and all(map(_text, value))


def _preprocessing(value: Any) -> bool:
    if value is None:
        return True
    keys = {"crop", "mean", "deviation"}
    if not isinstance(value, dict) or set(value) != keys or not all(map(_number, value.values())):
        return False
    crop, deviation = value["crop"], value["deviation"]
    return type(crop) is int and 0 < crop <= 1 << 14 and 0 < deviation <= 1e6


def _points(value: Any) -> bool:
    fits: Callable[[Any], bool] = lambda p: p is None or (_number(p) and 0 <= p <= 1)  # noqa: E731
    return value is None or (isinstance(value, list) and all(map(fits, value)))


def _license(value: Any) -> bool:
    if value is None:
        return True
    known = {f.name for f in fields(License)}
    if not _table(value) or not set(value) <= known or not value.get("name"):
        return False
    commercial = value.get("commercial")
    texts = all(_text(item) for name, item in value.items() if name != "commercial")
    return texts and (commercial is None or type(commercial) is bool)


def _reference(value: Any) -> bool:
    if value is None:
        return True
    known = {f.name for f in fields(Reference)}
    if not _table(value) or not {"authors", "title", "year"} <= set(value) <= known:
        return False
    return type(value["year"]) is int and all(_text(v) for k, v in value.items() if k != "year")


def _metrics(value: Any) -> bool:
    return _table(value) and all(
        _table(rows) and all(_number(area) and 0 <= area <= 1 for area in rows.values())
        for rows in value.values()
    )


def _digits(value: Any) -> bool:
    known = set("0123456789abcdef")
    return isinstance(value, str) and len(value) == 64 and set(value) <= known


def _sha256(value: Any) -> bool:
    return value is None or _digits(value)


_RULES: Final[dict[str, Callable[[Any], bool]]] = {
    "architecture": lambda v: _text(v) and 0 < len(v) <= 100,
    "arguments": _table,
    "targets": _texts,
    "untrained": _texts,
    "input_resolution": lambda v: v is None or (type(v) is int and 0 < v <= 1 << 14),
    "resize_route": lambda v: v in ("antialias", "bilinear", "bicubic"),
    "preprocessing": _preprocessing,
    "raw": lambda v: v in get_args(Output),
    "operating_points": _points,
    "output": lambda v: v is None or (_text(v) and len(v) <= 40),
    "apply_sigmoid": lambda v: type(v) is bool,
    "weights": lambda v: v is None or (_text(v) and 0 < len(v) <= 200),
    "trained_on": _texts,
    "license": _license,
    "reference": _reference,
    "metrics": _metrics,
    "metrics_source": _text,
    "description": _text,
    "demonstration": lambda v: type(v) is bool,
    "cell_maps": lambda v: type(v) is bool,
    "provenance": _table,
    "sha256": _sha256,
    "files": lambda v: _table(v) and set(v) <= {*COMPANION_NAMES} and all(map(_digits, v.values())),
}


def _typed(name: str, value: Any) -> Any:
    if name == "license" and value is not None:
        return License(**value)
    if name == "reference" and value is not None:
        return Reference(**value)
    return tuple(value) if isinstance(value, list) else value


def with_license(config: ModelConfig, license: License | None, source: str) -> ModelConfig:  # noqa: A002 - its name
    """The same under terms that somebody states, if it has none of its own.

    Args:
        config: The facts of a model.
        license: What is stated, or None.
        source: What errors call the model.

    Raises:
        WeightsError: If it is under other terms, which nobody but its owner may change.
    """
    held = config.license
    if license is None or held == license:
        return config
    if held is not None and held.name not in (NOT_STATED.name, license.name):
        msg = f"{source} is under {held.name}: --license is for weights that state no terms"
        raise WeightsError(msg)
    return replace(config, license=license)

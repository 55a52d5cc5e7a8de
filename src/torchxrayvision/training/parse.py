"""Recipes from files and plain dicts, and back; unknown keys are refused."""

from __future__ import annotations

import dataclasses
import json
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from torchxrayvision.errors import RecipeError, UnknownNameError
from torchxrayvision.training import recipe as _recipe
from torchxrayvision.training.recipe import PUBLISHED, STRONG, Augmentation, Recipe

if TYPE_CHECKING:
    import os

_PRESETS: Final = {"none": Augmentation(), "published": PUBLISHED, "strong": STRONG}
_NAMED: Final = {float: "a number", int: "a whole number", str: "text", bool: "true or false"}
_Made = TypeVar("_Made")


def load_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe from a file.

    Args:
        path: `.toml` or `.json`. Keys are the fields of `Recipe`; `augmentation`
            is a table, or one of the words `none`, `published`, `strong`, or a table with
            `preset` that changes one of them.

    Returns:
        The recipe.

    Raises:
        RecipeError: If the file cannot be read or a value does not fit.
        UnknownNameError: If a key is none of a recipe's.
    """
    path = Path(path)
    try:
        values = _read(path)
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror or error})") from error
    except RecipeError:  # a ValueError itself
        raise
    except (ValueError, RecursionError) as error:  # lists in lists in lists
        kind = path.suffix.removeprefix(".").upper()
        raise RecipeError(f"{path}: not valid {kind}: {error}") from error
    if not isinstance(values, Mapping):
        raise RecipeError(f"{path}: a recipe is a table of keys, got {type(values).__name__}")
    return recipe_from_dict(values)


def _read(path: Path) -> Any:
    match path.suffix.lower():
        case ".toml":
            return tomllib.loads(path.read_text("utf-8"))
        case ".json":
            return json.loads(path.read_text("utf-8"))
        case other:
            raise RecipeError(f"{path}: a recipe ends in .toml or .json, not {other!r}")


def recipe_from_dict(values: Mapping[str, Any]) -> Recipe:
    """Make a recipe of plain values.

    Args:
        values: As a file holds them, see `load_recipe`.

    Returns:
        The recipe.

    Raises:
        RecipeError: If a value does not fit.
        UnknownNameError: If a key is none of a recipe's.

    Example:
        >>> recipe_from_dict({"augmentation": "strong", "optimiser": {"lr": 1}}).optimiser.lr
        1.0
    """
    return _make(Recipe, values, "recipe")


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values for JSON; `recipe_from_dict` undoes it.

    Args:
        recipe: Any recipe.

    Returns:
        Nested dicts and lists.
    """
    plain: dict[str, Any] = _plain(recipe)
    return plain


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _make(cls: type[_Made], values: Mapping[str, Any], where: str) -> _Made:
    hints = typing.get_type_hints(cls, vars(_recipe))
    for key in values:
        if key not in hints:
            raise UnknownNameError(f"key of {where}", key, hints)
    made = {key: _value(hints[key], value, f"{where}.{key}") for key, value in values.items()}
    try:
        return cls(**made)
    except TypeError as error:
        raise RecipeError(f"{where}: {error}") from error


def _value(hint: Any, value: Any, where: str) -> Any:
    if hint is Augmentation:
        return _augmentation(value, where)
    if dataclasses.is_dataclass(hint):
        return _make(typing.cast("type[Any]", hint), _table(value, where), where)
    origin = typing.get_origin(hint)
    if origin is tuple:
        return _items(typing.get_args(hint), value, where)
    if origin is Mapping:
        return types.MappingProxyType(dict(_table(value, where)))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # A flag is an int to Python; nobody means epochs = true.
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise RecipeError(f"{where} is {_NAMED[hint]}, got {value!r}")
    return value


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise RecipeError(f"{where} is a table of keys, got {value!r}")
    return value


def _items(inner: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise RecipeError(f"{where} is a list, got {value!r}")
    kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
    if len(kinds) != len(value):
        raise RecipeError(f"{where} is a list of {len(kinds)} values, got {value!r}")
    pairs = enumerate(zip(kinds, value, strict=True))
    return tuple(_value(kind, one, f"{where}[{i}]") for i, (kind, one) in pairs)


def _augmentation(value: Any, where: str) -> Augmentation:
    changes = {"preset": value} if isinstance(value, str) else dict(_table(value, where))
    preset = changes.pop("preset", "none")
    if preset not in _PRESETS:
        raise UnknownNameError("augmentation", preset, _PRESETS)
    made = _make(Augmentation, changes, where)
    given = {key: getattr(made, key) for key in changes}
    return dataclasses.replace(_PRESETS[preset], **given)

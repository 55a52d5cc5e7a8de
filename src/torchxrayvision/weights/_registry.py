"""Every known checkpoint by name, and the view of them that 1.5.7's `model_urls` was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from torchxrayvision.errors import UnknownNameError
from torchxrayvision.weights._types import Weights, WeightsEnum

__all__ = [
    "get_weights_entry",
    "list_weights",
    "model_urls_view",
    "register",
]

_T = TypeVar("_T", Weights, type[WeightsEnum])

_by_name: dict[str, Weights] = {}
"""Names and aliases to records, in the order of registration."""


def register(entry: _T) -> _T:
    """Make weights known by their names and aliases; as a decorator, all members of an enum.

    Args:
        entry: A record, or a `WeightsEnum`.

    Returns:
        The same object.

    Raises:
        ValueError: If a name, an alias or the name of a file in the cache is already taken, or two
            members of the enum are the same record.
    """
    if isinstance(entry, Weights):
        _add([entry])
        return entry
    aliases = [key for key, member in entry.__members__.items() if key != member.name]
    if set(aliases) - {"DEFAULT"}:
        msg = f"{entry.__name__}: {aliases} repeat other members; only DEFAULT may"
        raise ValueError(msg)
    _add([member.value for member in entry])
    return entry


def _add(entries: list[Weights]) -> None:
    # All or nothing: a rejected enum leaves no half of itself behind.
    names = dict(_by_name)
    files = {known.file.filename: known.name for known in _by_name.values()}
    for entry in entries:
        for name in (entry.name, *entry.aliases):
            if name in names:
                msg = f"weights {entry.name!r}: the name {name!r} is taken by {names[name].name!r}"
                raise ValueError(msg)
            names[name] = entry
        other = files.setdefault(entry.file.filename, entry.name)
        if other != entry.name:
            msg = f"weights {entry.name!r}: {entry.file.filename} is the file of {other!r}"
            raise ValueError(msg)
    _by_name.update(names)


def get_weights_entry(name: str | Weights | WeightsEnum) -> Weights:
    """The record of that name.

    Args:
        name: Name or alias; a record or an enum member is taken as it is.

    Returns:
        The record.

    Raises:
        UnknownNameError: If nothing has that name.

    Example:
        >>> get_weights_entry("all").name
        'densenet121-res224-all'
    """
    if isinstance(name, WeightsEnum):
        record: Weights = name.value
        return record
    if isinstance(name, Weights):
        return name
    if isinstance(name, str) and name in _by_name:
        return _by_name[name]
    raise UnknownNameError("weights", name, _by_name)


def list_weights() -> list[Weights]:
    """Every registered record once, in the order of registration.

    Example:
        >>> [weights.name for weights in list_weights()][:2]
        ['densenet121-res224-all', 'densenet121-res224-nih']
    """
    return list(dict.fromkeys(_by_name.values()))


class _ModelUrls(Mapping[str, dict[str, Any]]):
    """The core weights in the shape of 1.5.7's `model_urls`; each look-up gives a new dictionary.

    The numbers are 1.5.7's own, also where this package corrects them.
    """

    def __getitem__(self, name: str) -> dict[str, Any]:
        entry = self._entries()[name]
        points, ppv80 = entry.compat_operating_points, entry.compat_ppv80
        view: dict[str, Any] = {"description": entry.description} if entry.description else {}
        view["weights_url"] = entry.url
        view["labels"] = list(entry.targets)
        if points is not None:
            view["op_threshs"] = list(points)
        if ppv80 is not None:
            view["ppv80_thres"] = list(ppv80)
        view["input_resolution"] = entry.input_resolution
        return view

    def __iter__(self) -> Iterator[str]:
        # 1.5.7 has the alias before the name.
        for name, entry in self._entries().items():
            if name == entry.name:
                yield from (*entry.aliases, name)

    def __len__(self) -> int:
        return len(self._entries())

    def __repr__(self) -> str:
        return f"model_urls({', '.join(self)})"

    @staticmethod
    def _entries() -> dict[str, Weights]:
        from torchxrayvision.weights._core import DenseNet121_Weights, ResNet50_Weights

        core = {member.value for enum in (DenseNet121_Weights, ResNet50_Weights) for member in enum}
        return {name: entry for name, entry in _by_name.items() if entry in core}


def model_urls_view() -> Mapping[str, dict[str, Any]]:
    """The core weights in the shape of 1.5.7's `torchxrayvision.models.model_urls`.

    Returns:
        A read-only mapping from each name and alias to a dictionary with ``weights_url``,
        ``labels``, ``op_threshs``, ``input_resolution`` and, where published, ``description``
        and ``ppv80_thres``.

    Example:
        >>> model_urls_view()["all"]["input_resolution"]
        224
    """
    return _ModelUrls()

"""Print the lowest version of every package that this one declares, for `make lowest`.

python tools/lowest_versions.py [EXTRA ...]
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
_BOUND = re.compile(r"([A-Za-z0-9_.-]+)>=([0-9.]+)(,<[0-9.]+)?")
_OWN = re.compile(r"torchxrayvision\[([a-z0-9-]+)\]")


def lowest(declared: Sequence[str]) -> list[str]:
    """`name==version` for each `name>=version`, the highest where several extras name a package."""
    found: dict[str, tuple[tuple[int, ...], str]] = {}
    for entry in declared:
        match = _BOUND.fullmatch(entry)
        if match is None:
            msg = f"a dependency without a lower bound, or with several: {entry}"
            raise ValueError(msg)
        name, version = match[1].lower().replace("_", "-"), match[2]
        parts = tuple(int(part) for part in version.split("."))
        found[name] = max(found.get(name, ((), "")), (parts, version))
    return [f"{name}=={version}" for name, (_, version) in found.items()]


def of_extra(extra: str, optional: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """What an extra declares, with what the extras in it do."""
    for entry in optional[extra]:
        inner = _OWN.fullmatch(entry)
        yield from of_extra(inner[1], optional) if inner else (entry,)


def main(*extras: str) -> None:
    """The command."""
    project = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]
    optional = project["optional-dependencies"]
    declared = [entry for extra in extras for entry in of_extra(extra, optional)]
    print(*lowest([*project["dependencies"], *declared]), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

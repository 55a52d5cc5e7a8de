"""Print the lowest version of every package that this one declares, for `make lowest`.

python tools/lowest_versions.py [EXTRA ...]
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
_BOUND = re.compile(r"([A-Za-z0-9_.-]+)>=([0-9.]+)$")


def lowest(declared: list[str]) -> list[str]:
    """`name==version` for each `name>=version`."""
    found = [_BOUND.fullmatch(entry) for entry in declared]
    if not all(found):
        msg = f"a dependency without a lower bound, or with more than one: {declared}"
        raise ValueError(msg)
    return [f"{match[1]}=={match[2]}" for match in found]


def main(*extras: str) -> None:
    """The command."""
    project = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]
    optional = project["optional-dependencies"]
    declared = [*project["dependencies"], *(name for extra in extras for name in optional[extra])]
    print(*dict.fromkeys(lowest(declared)), sep="\n")  # an extra may repeat what another has


if __name__ == "__main__":
    main(*sys.argv[1:])

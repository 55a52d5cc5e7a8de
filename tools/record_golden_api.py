"""Record the public names and signatures of TorchXRayVision 1.5.7.

    python tools/record_golden_api.py tests/golden/api.json

Run in an environment that holds torchxrayvision 1.5.7.
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from types import ModuleType

import torchxrayvision as xrv

MODULES = ("datasets", "models", "utils")


def signature(value: object) -> list[str] | None:
    """Parameter names in order, without `self`; None for a plain value."""
    if not callable(value):
        return None
    target = value.__init__ if inspect.isclass(value) else value
    names = list(inspect.signature(target).parameters)
    return names[1:] if inspect.isclass(value) else names


def members(module: ModuleType) -> dict[str, list[str] | None]:
    own = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not inspect.ismodule(value)
        and getattr(value, "__module__", module.__name__) == module.__name__
    }
    return {name: signature(value) for name, value in sorted(own.items())}


def main() -> None:
    golden = {name: members(getattr(xrv, name)) for name in MODULES}
    Path(sys.argv[1]).write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()

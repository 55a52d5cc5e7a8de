"""Processes in which importing torch or pandas fails, as where they are not installed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

BLOCK = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "pandas", "onnx", "onnxscript"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Block())
"""

NOT_INSTALLED = (
    BLOCK
    + """
import importlib.metadata

def version(name, known=importlib.metadata.version):
    if name in ("torch", "torchvision"):
        raise importlib.metadata.PackageNotFoundError(name)
    return known(name)

importlib.metadata.version = version
"""
)
"""As `BLOCK`, and nothing says that torch is installed."""


def environment(folder: Path, cache: Path) -> dict[str, str]:
    """The environment of such processes, and of those that they start in turn.

    Args:
        folder: For a `sitecustomize`, which Python imports when it starts.
        cache: The cache folder of the package.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(BLOCK)
    search = os.pathsep.join([str(folder), *sys.path])
    return {**os.environ, "PYTHONPATH": search, "XRV_CACHE_DIR": str(cache)}

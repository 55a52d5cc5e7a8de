"""Processes in which importing torch or pandas fails, as where they are not installed."""

from __future__ import annotations

import os
import subprocess
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

_COMMAND = "\nfrom torchxrayvision.cli import main\nmain()\n"


def run_without_torch(cache: Path, *arguments: object, code: int = 0, before: str = BLOCK) -> str:
    """Run the command in such a process.

    Args:
        cache: The cache folder of the package.
        arguments: Of the command.
        code: With which it must end; without a traceback in any case.
        before: `NOT_INSTALLED` or `BLOCK`.

    Returns:
        What it said, in one line.
    """
    done = subprocess.run(
        [sys.executable, "-c", before + _COMMAND, *map(str, arguments)],
        capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "XRV_CACHE_DIR": str(cache)},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return " ".join((done.stdout + done.stderr).split())


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

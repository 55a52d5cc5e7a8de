"""What the commands import before their first output: not what they do without."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from support.image_files import png, ramp

LOADED = """
import sys
from torchxrayvision.cli import main

try:
    main()
except SystemExit:
    pass
heavy = {"torch", "torchvision", "pandas", "pyarrow", "scipy", "sklearn", "matplotlib", "pydicom"}
print("loaded:", *sorted(heavy & set(sys.modules)))
"""


def loaded_by(*arguments: object) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    last = done.stdout.splitlines()[-1]
    assert last.startswith("loaded:"), done.stderr
    assert len(done.stdout.splitlines()) > 1, done.stderr  # the command said something
    return set(last.split()[1:])


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "1.png"
    path.write_bytes(png(ramp(64, 64, 255).astype(np.uint8), 8, 0))
    return path


@pytest.mark.parametrize("command", ["info", "check"])
def test_a_look_at_one_file_imports_neither_torch_nor_pandas(image, command):
    assert loaded_by(command, image) == set()


@pytest.mark.parametrize("given", [("evaluate",), ("datasets", "describe"), ("predict",)])
def test_help_imports_no_library_of_numbers(given):
    assert loaded_by(*given, "--help") == set()


def test_evaluation_imports_tables_and_nothing_more(tmp_path):
    rows = [f"{i}.png,{i % 2}" for i in range(40)]
    scores = [f"{i}.png,{i / 40}" for i in range(40)]
    tables = {"labels": rows, "predictions": scores}
    for name, lines in tables.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(["path,Effusion", *lines]))
    found = loaded_by("evaluate", tmp_path / "predictions.csv", tmp_path / "labels.csv")
    assert found <= {"pandas", "pyarrow"}

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


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )


def loaded_by(*arguments: object) -> set[str]:
    done = run(LOADED, *arguments)
    last = done.stdout.splitlines()[-1]
    assert last.startswith("loaded:"), done.stderr
    assert len(done.stdout.splitlines()) > 1, done.stderr  # the command said something
    return set(last.split()[1:])


def modules_after(*arguments: object) -> set[str]:
    """Names of all modules of this package that a command loads."""
    done = run(LOADED.replace("heavy & set(sys.modules)", "sys.modules"), *arguments)
    return {name for name in done.stdout.splitlines()[-1].split() if name.startswith("torchxray")}


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


def test_the_description_of_a_packaged_dataset_loads_its_table_and_no_other_release():
    found = loaded_by("datasets", "describe", "nih")
    assert found <= {"pandas", "pyarrow"}
    ours = modules_after("datasets", "describe", "nih")
    releases = {name.rpartition(".")[2] for name in ours if ".datasets.releases." in name}
    assert "nih" in releases
    assert not releases & {"chexpert", "padchest", "vindr", "mimic"}


@pytest.mark.parametrize("command", ["info", "check", "evaluate", "predict"])
def test_a_command_loads_no_other_command(command):
    ours = modules_after(command, "--help")
    commands = {n.rpartition(".")[2] for n in ours if n.startswith("torchxrayvision.cli.")}
    assert commands <= {command, "console", "options"}


def test_refusals_of_an_evaluation_come_before_any_table_is_read(tmp_path):
    there = tmp_path / "t.csv"
    there.write_text("kept")
    given = (tmp_path / "p.csv", tmp_path / "l.csv", "--output", there)
    for path in given[:2]:
        path.write_text("path,Mass\n")
    code = "import sys\nfrom torchxrayvision.cli import main\ntry:\n    main()\n"
    code += "except SystemExit as ended:\n    print(ended.code, 'pandas' in sys.modules)"
    done = run(code, "evaluate", *given)
    assert done.stdout.split() == ["2", "False"], done.stderr


def test_networks_import_torch_and_nothing_else_of_others():
    code = (
        "import sys, torch; before = set(sys.modules)\nimport torchxrayvision.models\n"
        "new = {n.partition('.')[0] for n in set(sys.modules) - before}\n"
        "print(*sorted(new - set(sys.stdlib_module_names)))"
    )
    assert run(code).stdout.split() == ["lazy_loader", "torchxrayvision"]

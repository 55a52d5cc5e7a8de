"""What type checkers say of a program that trains with torch's own tools."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
from typing import Any

from torch.utils.data import ConcatDataset, DataLoader, Subset

import torchxrayvision as xrv

nih = xrv.datasets.NIH_Dataset("images", views=["PA", "AP"], transform=xrv.datasets.XRayResizer(9))
own = xrv.datasets.CSV_Dataset("mine.csv")
merged = xrv.datasets.MergeDataset([nih, own])
for dataset in (nih, own, merged, nih[:100], merged[[1, 5]], Subset(nih, [0, 1]), nih + own):
    loader = DataLoader(dataset, batch_size=8, shuffle=True, collate_fn=xrv.datasets.collate)
everything: DataLoader[Any] = DataLoader(ConcatDataset([nih, own]), num_workers=2)
image = nih[0]["img"]
part: xrv.datasets.Dataset = nih[10:20]
"""
MYPY = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml")]
PYRIGHT = ["pyright", "--pythonpath", sys.executable]


@pytest.mark.parametrize("checker", [MYPY, PYRIGHT], ids=["mypy", "pyright"])
def test_datasets_go_into_a_dataloader_for_type_checkers(checker, tmp_path):
    if shutil.which(checker[0], path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") is None:
        pytest.skip(f"{checker[0]} is not installed")

    def check(text):
        (tmp_path / "program.py").write_text(text)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            [*checker, str(tmp_path / "program.py")],
            cwd=ROOT,  # where `make check` has left what mypy knows of torch
            env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
            check=False,
        )

    good = check(PROGRAM)
    assert good.returncode == 0, good.stdout + good.stderr
    wrong = check(PROGRAM + 'image = nih[0]["imgs"]\nDataLoader(xrv.datasets.NIH_Dataset)\n')
    assert wrong.returncode == 1
    assert wrong.stdout.count("error") >= 2

"""Names of `torchxrayvision.models`: all there, each loaded at first use."""

from __future__ import annotations

import ast
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from torchxrayvision import models

STUB = Path(models.__file__).with_suffix(".pyi")


def test_every_name_of_the_stub_is_there():
    lines = ast.parse(STUB.read_text("utf-8")).body
    names = [alias.asname for line in lines for alias in line.names]
    assert len(names) == len(set(names))
    assert set(models.__all__) < set(names)
    assert all(getattr(models, name) is not None for name in names)
    assert set(models.__all__) <= set(dir(models))


def test_importing_loads_what_is_used_and_no_more():
    code = """
import sys
import torchxrayvision.models as models
assert "torch" not in sys.modules
from torchxrayvision.models import DenseNet, _DenseLayer
assert models.Model.__name__ == "XRayClassifier"
assert models.model_urls["all"]["labels"]
loaded = {name.rpartition(".")[2] for name in sys.modules if name.startswith(models.__name__)}
assert "densenet" in loaded
assert not loaded & {"adding", "encoder", "evax", "publish", "vit", "zeroshot"}, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_class_is_pickled_by_its_name_and_its_former_one():
    assert pickle.loads(pickle.dumps(models.DenseNet)) is models.DenseNet
    former = b"ctorchxrayvision.models\n_DenseLayer\n."  # as 1.5.7 pickled it
    assert pickle.loads(former) is models.Layer


def test_a_name_that_is_nearly_right_is_told():
    with pytest.raises(AttributeError, match="did you mean DenseNet"):
        models.DensNet  # noqa: B018

"""Nothing in the package can execute what it reads: a walk over the source.

The checkpoint reader has no unpickler of its own to exempt, so the rule has no exception.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import torchxrayvision

SOURCE = Path(torchxrayvision.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

# By module: what may not be taken from it. "*" is the whole module.
FORBIDDEN = {
    "pickle": {"*"}, "_pickle": {"*"}, "cPickle": {"*"}, "cloudpickle": {"*"}, "dill": {"*"},
    "joblib": {"*"}, "shelve": {"*"}, "marshal": {"*"},
    "torch": {"load"}, "torch.serialization": {"load"}, "torch.jit": {"load"},
    "torch.package": {"*"}, "torch.hub": {"load", "load_state_dict_from_url"},
    "pandas": {"read_pickle"}, "yaml": {"load", "unsafe_load", "full_load", "load_all"},
    "runpy": {"*"}, "imp": {"*"}, "os": {"system", "popen"}, "tempfile": {"mktemp"},
    "openvino": {"*"}, "openvino_telemetry": {"*"},  # they call home
}  # fmt: skip
# What stands in a file for a reason, by module.
EXEMPT = {"inference/engines/runtime.py": "import openvino"}  # without its reports
BUILTINS = {"eval", "exec", "compile", "__import__"}


def dotted(node):
    """``a.b.c`` of an attribute or a name, else nothing."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (inner := dotted(node.value)):
        return f"{inner}.{node.attr}"
    return ""


def bad_name(name):
    module, _, last = name.rpartition(".")
    wholes = {m for m, names in FORBIDDEN.items() if "*" in names}
    return (
        last in FORBIDDEN.get(module, ())
        or name in wholes
        or any(name.startswith(f"{whole}.") for whole in wholes)
    )


class Finder(ast.NodeVisitor):
    def __init__(self):
        self.found = []
        self.aliases = {}

    def report(self, node, what):
        self.found.append(f"line {node.lineno}: {what}")

    def visit_Import(self, node):
        for alias in node.names:
            self.aliases[alias.asname or alias.name.partition(".")[0]] = (
                alias.name if alias.asname else alias.name.partition(".")[0]
            )
            if bad_name(alias.name):
                self.report(node, f"import {alias.name}")

    def visit_ImportFrom(self, node):
        for alias in node.names:
            name = f"{node.module}.{alias.name}"
            self.aliases[alias.asname or alias.name] = name
            if bad_name(name) or bad_name(node.module or ""):
                self.report(node, f"from {node.module} import {alias.name}")

    def visit_Attribute(self, node):
        name = dotted(node)
        first, _, rest = name.partition(".")
        full = f"{self.aliases.get(first, first)}.{rest}"
        if bad_name(full):
            self.report(node, full)
        self.generic_visit(node)

    def visit_Call(self, node):
        if isinstance(node.func, ast.Name) and node.func.id in BUILTINS:
            self.report(node, f"{node.func.id}()")
        if isinstance(node.func, ast.Attribute) and node.func.attr == "extractall":
            self.report(node, "extractall(), which writes where an archive says")
        for keyword in node.keywords:
            value = keyword.value
            if keyword.arg == "allow_pickle" and not (
                isinstance(value, ast.Constant) and value.value is False
            ):
                self.report(node, "allow_pickle")
            if keyword.arg == "verify" and getattr(value, "value", True) is False:
                self.report(node, "verify=False")
            if keyword.arg == "weights_only":
                self.report(node, "weights_only")
            if keyword.arg == "shell" and getattr(value, "value", True) is not False:
                self.report(node, "shell")
        self.generic_visit(node)


def unsafe(source):
    finder = Finder()
    finder.visit(ast.parse(source))
    return finder.found


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(SOURCE).as_posix())
def test_module_never_executes_what_it_reads(path):
    allowed = EXEMPT.get(path.relative_to(SOURCE).as_posix(), "nothing")
    found = unsafe(path.read_text(encoding="utf-8"))
    assert [what for what in found if not what.endswith(allowed)] == []


def test_the_walk_sees_the_whole_package():
    assert {"checkpoints/read.py", "errors.py"} <= {
        path.relative_to(SOURCE).as_posix() for path in FILES
    }


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load('x')",
        "import torch as t\nt.load('x', weights_only=True)",
        "from torch import load",
        "import torch.jit\ntorch.jit.load('x')",
        "from torch import jit\njit.load('x')",
        "import torch.hub as hub\nhub.load_state_dict_from_url('x')",
        "import pickle",
        "from pickle import Unpickler",
        "def f():\n    import cloudpickle",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import numpy as np\nnp.load('x', allow_pickle=flag)",
        "import pandas as pd\npd.read_pickle('x')",
        "import yaml\nyaml.load('x')",
        "import shelve",
        "import joblib",
        "from marshal import loads",
        "eval('1')",
        "exec('1')",
        "__import__('os')",
        "import os\nos.system('x')",
        "import subprocess\nsubprocess.run('x', shell=True)",
        "import requests\nrequests.get('x', verify=False)",
        "import tarfile\ntarfile.open('x').extractall('y')",
        "import openvino",
        "import tempfile\ntempfile.mktemp()",
    ],
)
def test_the_walk_would_see(source):
    assert unsafe(source)


@pytest.mark.parametrize(
    "source",
    [
        "import json\njson.load(f)",
        "import torch\ntorch.save(1, 'x')\nmodel.load_state_dict({})",
        "import yaml\nyaml.safe_load('x')",
        "import numpy as np\nnp.load('x', allow_pickle=False)",
        "model.eval()",
        "import re\nre.compile('x')",
        "import torch\ntorch.compile(m)",
    ],
)
def test_the_walk_lets_pass(source):
    assert unsafe(source) == []

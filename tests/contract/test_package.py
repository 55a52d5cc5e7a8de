"""Promises of the package as a whole: names, imports, docstrings, what the README shows."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import torchxrayvision as xrv

ROOT = Path(__file__).parents[2]
SOURCE = Path(xrv.__file__).parent
API_157 = json.loads((ROOT / "tests" / "golden" / "api.json").read_text())
MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages([str(SOURCE)], "torchxrayvision.")
    if not info.name.endswith("__main__")
)

# Names of 1.5.7 that have no counterpart, each with its reason.
GONE = {
    "datasets.thispath": "a folder of the wheel, an accident of import",
    "datasets.datapath": "a folder of the wheel; tables.path(name) gives a table",
    "utils.warning_log": "remembered per process what had been warned about; warnings are per call",
}


def test_exactly_the_listed_namespaces_are_public():
    for name in xrv.__all__:
        assert getattr(xrv, name) is not None
    with pytest.raises(AttributeError, match="datasets"):
        xrv.dataset  # noqa: B018


@pytest.mark.parametrize("module", MODULES)
def test_all_names_what_is_there(module):
    loaded = importlib.import_module(module)
    if not hasattr(loaded, "__all__"):
        assert not hasattr(loaded, "__path__"), "a package says what others may use"
        pytest.skip("a module without a list of names")
    assert sorted(set(loaded.__all__)) == sorted(loaded.__all__)
    for name in loaded.__all__:
        assert hasattr(loaded, name), name


@pytest.mark.parametrize("name", [f"{m}.{n}" for m, names in API_157.items() for n in names])
def test_every_name_of_157_exists_with_its_argument_order(name):
    if name in GONE:
        return
    module, attribute = name.split(".")
    value = getattr(getattr(xrv, module), attribute)
    expected = API_157[module][attribute]
    if not expected or expected[:1] == ["args"]:
        return
    is_tuple = inspect.isclass(value) and issubclass(value, tuple)
    target = value.__init__ if inspect.isclass(value) and not is_tuple else value
    names = [n for n in inspect.signature(target).parameters if n != "self"]
    assert names[: len(expected)] == expected


def heavy_after(statement):
    code = f"import sys; {statement}; print(*sorted(m for m in sys.modules if '.' not in m))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    heavy = {"torch", "torchvision", "pydicom", "skimage", "cv2", "pycocotools", "matplotlib"}
    heavy |= {"sklearn", "requests", "pooch", "scipy", "pandas", "PIL", "typer"}
    return heavy & set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    assert heavy_after("import torchxrayvision") == set()


@pytest.mark.parametrize("name", ["errors", "facts", "labels", "images", "remote", "weights"])
def test_lower_layers_do_not_load_torch_or_pandas(name):
    assert not heavy_after(f"import torchxrayvision.{name}") & {"torch", "pandas", "pydicom"}


def test_datasets_and_tables_do_without_torch():
    statement = (
        "import torchxrayvision as xrv; d = xrv.datasets.NIH_Dataset(None); "
        "d.totals(); d.labels; d.csv; repr(d)"
    )
    assert "torch" not in heavy_after(statement)


def test_networks_do_without_torchvision_and_the_compiler_of_torch(tmp_path):
    path = tmp_path / "network.safetensors"
    models = importlib.import_module("torchxrayvision.models")
    models.save_checkpoint(models.ResNet(architecture="resnet18-width8"), path)
    code = (
        "import sys; from torchxrayvision.models import DenseNet, load_checkpoint\n"
        f"load_checkpoint({str(path)!r}); DenseNet(8, (1, 1, 1, 1), 16)\n"
        "print({'torchvision', 'torch._dynamo'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n", done.stderr


def test_command_line_starts_without_torch():
    assert not heavy_after("import torchxrayvision.cli") & {"torch", "pandas"}


def test_the_package_runs_as_a_module():
    command = [sys.executable, "-m", "torchxrayvision", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"torchxrayvision {xrv.__version__}\n"
    failed = subprocess.run([*command[:3], "nothing"], capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert "nothing" in failed.stderr


def test_importing_changes_nothing_global():
    code = (
        "import warnings, random, logging, sys, numpy, torch\n"
        "def state(): return (list(warnings.filters), random.getstate(), list(sys.path),\n"
        "    numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist(),\n"
        "    list(logging.getLogger().handlers))\n"
        "import torchvision, pandas, pydicom, PIL.Image, typer, requests, pyarrow.parquet\n"
        "import lightning.pytorch, sklearn\n"
        "import rich.console\n"  # draws a random number when it is imported
        "before = state()\n"
        f"import importlib\nfor m in {MODULES!r}: importlib.import_module(m)\n"
        "after = state()\n"
        "for b, a in zip(before, after): assert b == a, (b, a)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_run(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loaded = importlib.import_module(module)
    names = {"torch": importlib.import_module("torch"), "np": importlib.import_module("numpy")}
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, _ = doctest.testmod(loaded, extraglobs=names, optionflags=flags)
    assert failed == 0


def public_callables():
    for module in MODULES:
        if ".cli" in module:
            continue
        loaded = importlib.import_module(module)
        for name in getattr(loaded, "__all__", ()):
            value = getattr(loaded, name)
            if inspect.isfunction(value) or inspect.isclass(value):
                yield f"{module}.{name}", value


@pytest.mark.parametrize(("name", "value"), list(public_callables()))
def test_docstrings_name_every_argument(name, value):
    text = inspect.getdoc(value) or ""
    assert text, f"{name} has no docstring"
    if "Args:" not in text:
        return
    section = re.split(r"\n(?=\S)", text.split("Args:")[1])[0]
    documented = re.findall(r"^    \*{0,2}(\w+)(?: \([^)]*\))?:", section, re.MULTILINE)
    is_tuple = inspect.isclass(value) and issubclass(value, tuple)
    target = value.__init__ if inspect.isclass(value) and not is_tuple else value
    accepted = [p for p in inspect.signature(target).parameters if p != "self"]
    unknown = [d for d in documented if d not in accepted]
    assert not unknown, f"{name} documents {unknown}, which it does not take"


def test_no_name_of_a_package_hides_a_module_of_it():
    for name in MODULES:
        loaded = importlib.import_module(name)
        if not hasattr(loaded, "__path__") or name.endswith(".cli"):
            continue
        modules = {info.name for info in pkgutil.iter_modules(loaded.__path__)}
        hidden = [
            n for n in modules & set(loaded.__all__) if not inspect.ismodule(getattr(loaded, n))
        ]
        assert not hidden, f"{name} exports {hidden}, which are modules of it too"


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


# Calls that are banned everywhere else, with the reason why here they change nothing for others.
ALLOWED = {
    "transforms/apply.py: random.seed": "lent to one call of a transform, then given back",
    "transforms/apply.py: np.random.seed": "lent to one call of a transform, then given back",
    "images/common.py: warnings.filterwarnings": "inside catch_warnings, for decoders only",
    "training/fitting.py: warnings.filterwarnings": "inside catch_warnings, for Lightning's code",
    "training/module.py: torch.manual_seed": "inside fork_rng, then the caller's state again",
}


def test_nothing_prints_seeds_or_silences():
    banned = re.compile(
        r"^(print|random\.seed|np\.random\.seed|torch\.manual_seed|warnings\.filterwarnings|"
        r"sys\.path\.(insert|append))$"
    )
    found = {
        f"{path.relative_to(SOURCE).as_posix()}: {call}"
        for path in SOURCE.rglob("*.py")
        for call in calls(ast.parse(path.read_text("utf-8")))
        if banned.match(call)
    }
    assert found == set(ALLOWED)


@pytest.mark.parametrize(
    "block", re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
)
def test_python_in_the_readme_compiles_and_names_what_exists(block):
    tree = ast.parse(block)
    for node in ast.walk(tree):
        text = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if re.fullmatch(r"xrv(\.\w+)+", text):
            value = xrv
            for part in text.split(".")[1:]:
                value = getattr(value, part)

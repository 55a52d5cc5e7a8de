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
import textwrap
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


def test_stubs_that_are_read_at_run_time_are_ascii():
    """lazy_loader opens them in the encoding of the system, which on Windows is no UTF-8."""
    stubs = sorted(SOURCE.rglob("*.pyi"))
    assert len(stubs) > 10
    assert [path.name for path in stubs if not path.read_bytes().isascii()] == []


NAMES_157 = [f"{m}.{n}" for m, names in API_157.items() for n in names]


def of_157(name):
    module, attribute = name.split(".")
    return getattr(getattr(xrv, module), attribute), API_157[module][attribute]


@pytest.mark.parametrize("name", [name for name in NAMES_157 if name not in GONE])
def test_every_name_of_157_exists(name):
    of_157(name)


def test_names_that_are_gone_are_those_of_157():
    assert set(GONE) <= set(NAMES_157)
    for name in GONE:
        with pytest.raises(AttributeError):
            of_157(name)


def with_known_arguments():
    for module, names in API_157.items():
        for name, expected in names.items():
            if expected and expected[:1] != ["args"] and f"{module}.{name}" not in GONE:
                yield f"{module}.{name}"


@pytest.mark.parametrize("name", list(with_known_arguments()))
def test_every_name_of_157_keeps_its_argument_order(name):
    value, expected = of_157(name)
    assert parameters_of(value)[: len(expected)] == expected


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


def parameters_of(value):
    is_tuple = inspect.isclass(value) and issubclass(value, tuple)
    target = value.__init__ if inspect.isclass(value) and not is_tuple else value
    return [name for name in inspect.signature(target).parameters if name != "self"]


def section(text, title):
    """The names that a section of a Google docstring describes."""
    if f"\n{title}:\n" not in text:
        return []
    body = re.split(r"\n(?=\S)", text.split(f"\n{title}:\n")[1])[0]
    entries = re.findall(r"^    ((?:\*{0,2}\w+(?:, )?)+)(?: \([^)]*\))?:", body, re.MULTILINE)
    return [name.strip("*") for entry in entries for name in entry.split(", ")]


def raised_by(function):
    """Errors that a function raises in its own lines."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    calls = (n.exc for n in ast.walk(tree) if isinstance(n, ast.Raise))
    names = {ast.unparse(call.func) for call in calls if isinstance(call, ast.Call)}
    return {name for name in names if name.endswith("Error")}


def lacking(value):
    """What the docstring of a function or class does not say."""
    text = inspect.getdoc(value) or ""
    described = [*section(text, "Args"), *section(text, "Attributes")]
    wanted = [name for name in parameters_of(value) if name not in ("args", "kwargs")]
    found = [f"Args: {name}" for name in wanted if name not in described]
    if inspect.isfunction(value):
        answer = inspect.signature(value).return_annotation
        silent = answer in (None, "None", "NoReturn") or re.search(r"\n(Returns|Yields):\n", text)
        found += [] if silent else ["Returns"]
        found += [f"Raises: {e}" for e in raised_by(value) if e not in section(text, "Raises")]
    return found


@pytest.mark.parametrize(("name", "value"), list(public_callables()))
def test_docstrings_name_no_argument_that_is_not_taken(name, value):
    text = inspect.getdoc(value) or ""
    assert text, f"{name} has no docstring"
    unknown = set(section(text, "Args")) - set(parameters_of(value))
    assert not unknown, f"{name} documents {unknown}, which it does not take"


# Tools of the other packages; their callers are in this project.
FOR_PACKAGES = {"checkpoints", "inputs", "remote"}


def of_public_namespaces():
    for name, value in public_callables():
        namespace = name.split(".")[1]
        inherits = inspect.isclass(value) and "__init__" not in vars(value)
        known = namespace in xrv.__all__ and namespace not in FOR_PACKAGES
        if name.count(".") == 2 and known and not inherits:
            yield pytest.param(value, id=name)


@pytest.mark.parametrize("value", list(of_public_namespaces()))
def test_docstrings_say_what_is_taken_given_and_raised(value):
    assert not lacking(value), f"the docstring lacks {lacking(value)}"


def test_a_docstring_without_sections_does_not_pass():
    def bare(one, two):
        """Do it."""
        raise ValueError(one)

    def told(one):
        """Do it.

        Args:
            one: A number.

        Returns:
            Another.

        Raises:
            ValueError: If it is odd.
        """
        raise ValueError(one)

    assert lacking(bare) == ["Args: one", "Args: two", "Returns", "Raises: ValueError"]
    assert lacking(told) == []


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
    "benchmark/shift.py: torch.manual_seed": "inside fork_rng, for weights and order of a training",
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

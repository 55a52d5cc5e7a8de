"""Pages of the API reference: one for each public name, made of what the packages export.

A package that loads lazily names its exports in `__init__.pyi`, the others in `__all__`. Nothing is
listed by hand, so a name that is exported has its page with the next build.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import types
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import torchxrayvision as xrv

ROOT = Path(xrv.__file__).parent


@dataclass(frozen=True)
class Name:
    """A public name: `torchxrayvision.models` and `DenseNet`."""

    module: str
    name: str
    kind: str  # class, exception, function, data, module

    @property
    def full(self):
        return f"{self.module}.{self.name}"


def public_packages():
    """Modules that users import from, in order of their names."""
    listed = [name for name in xrv.__all__ if name != "__version__"]
    stubs = [path.parent.name for path in ROOT.glob("*/__init__.pyi")]
    return [f"torchxrayvision.{name}" for name in sorted({*listed, *stubs})]


def public_modules():
    """The packages and what they export as modules, such as `baseline_models.mira`."""
    found = []
    for name in public_packages():
        found.append(name)
        module = importlib.import_module(name)
        found += [
            f"{name}.{inner}"
            for inner in exports(module)
            if isinstance(getattr(module, inner), types.ModuleType)
        ]
    return found


def exports(module):
    """What a module exports, without what it only passes on to the package itself."""
    return sorted(module.__all__)


@cache
def public_names():
    """Every public name that is no module."""
    return [
        Name(module, name, kind_of(getattr(importlib.import_module(module), name)))
        for module in public_modules()
        for name in exports(importlib.import_module(module))
        if not isinstance(getattr(importlib.import_module(module), name), types.ModuleType)
    ]


def kind_of(value):
    if inspect.isclass(value):
        return "exception" if issubclass(value, BaseException) else "class"
    return "function" if inspect.isroutine(value) else "data"


def origin(module, name):
    """The module whose text assigns the constant `name`, for the words that stand below it."""
    for path in (stub_of(module), source_of(module)):
        if path is None:
            continue
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        base = node.module or ""
                        whole = f"{module}.{base}" if node.level else base
                        return origin(whole.rstrip("."), alias.name)
            if name in assigned(node):
                return module, name
    return module, name


def home(item):
    """The full name that a value is described under where several modules export it."""
    value = getattr(importlib.import_module(item.module), item.name)
    where = getattr(value, "__module__", None) or item.module
    same = [
        other
        for other in public_names()
        if other.kind == item.kind
        and other.name == getattr(value, "__name__", item.name)
        and getattr(importlib.import_module(other.module), other.name) is value
    ]
    inside = [other.full for other in same if where.startswith(other.module)]
    return (inside or [item.full])[0]


def assigned(node):
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def stub_of(module):
    path = ROOT.parent / module.replace(".", "/") / "__init__.pyi"
    return path if path.is_file() else None


def source_of(module):
    base = ROOT.parent / module.replace(".", "/")
    found = [p for p in (base / "__init__.py", base.with_suffix(".py")) if p.is_file()]
    return found[0] if found else None


def words_below(module, name):
    """The string that follows a constant in its module, as docstrings of constants do."""
    where, called = origin(module, name)
    path = source_of(where)
    body = ast.parse(path.read_text("utf-8")).body if path else []
    for node, following in pairwise(body):
        if called in assigned(node) and isinstance(following, ast.Expr):
            value = following.value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                return inspect.cleandoc(value.value)
    return ""


def shown(value, most=600):
    """A constant as Python writes it, shortened."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]} ..."


# ------------------------------------------------------------------------------------- pages


def title(text, mark="="):
    return f"{text}\n{mark * len(text)}\n"


def name_page(item):
    """The page of one public name."""
    head = f".. currentmodule:: {item.module}\n"
    made = f"{title(item.name)}\n{head}\n"
    if item.kind == "data":
        value = getattr(importlib.import_module(item.module), item.name)
        words = words_below(item.module, item.name)
        lines = ["", *words.splitlines()] if words else []
        body = "\n".join(f"   {line}".rstrip() for line in lines)
        return (
            f"{made}.. data:: {item.name}\n{body}\n\n"
            f"   .. code-block:: python\n\n      {' '.join(shown(value).split())}\n"
        )
    described = home(item)
    options = "   :members:\n   :show-inheritance:\n" if item.kind != "function" else ""
    if described != item.full:  # described twice, indexed once
        made += f"The same as :doc:`{described} <{described}>`.\n\n"
        options += "   :no-index:\n"
    return f"{made}.. auto{item.kind}:: {item.name}\n{options}"


def module_page(module, names, inner):
    """The page of a module: its words, and a table of what it exports."""
    made = [title(module.removeprefix("torchxrayvision.")), f".. automodule:: {module}", ""]
    groups = [("class", "Classes"), ("function", "Functions"), ("data", "Constants")]
    groups.append(("exception", "Errors and warnings"))
    if inner:
        made += [title("Modules", "-"), *toctree([f"{name}.rst" for name in inner]), ""]
    for kind, heading in groups:
        chosen = [item for item in names if item.kind == kind]
        if not chosen:
            continue
        made += [title(heading, "-"), ".. list-table::", "   :widths: 30 70", ""]
        for item in chosen:
            made += [f"   * - :doc:`{item.name} <{item.full}>`", f"     - {summary(item)}"]
        made.append("")
    made += toctree([f"{item.name} <{item.full}>" for item in names], hidden=True)
    return "\n".join(made) + "\n"


def summary(item):
    value = getattr(importlib.import_module(item.module), item.name)
    words = (
        words_below(item.module, item.name) if item.kind == "data" else inspect.getdoc(value) or ""
    )
    return " ".join(words.split("\n\n")[0].split()).replace("**", r"\*\*")


def toctree(entries, hidden=False):
    options = ["   :hidden:"] if hidden else ["   :maxdepth: 1"]
    return [".. toctree::", *options, "", *(f"   {entry}" for entry in entries), ""]


def pages():
    """File name to text of the whole reference."""
    names = public_names()
    modules = public_modules()
    made = {f"{item.full}.rst": name_page(item) for item in names}
    for module in modules:
        own = [item for item in names if item.module == module]
        inner = [other for other in modules if other.rpartition(".")[0] == module]
        made[f"{module}.rst"] = module_page(module, own, inner)
    return made


def modules_with_summaries():
    """Of each package: its name and the first line of its words."""
    return [
        (module, (inspect.getdoc(importlib.import_module(module)) or "").split("\n\n")[0])
        for module in public_packages()
    ]

"""Who imports whom, read from the source: every import, also one inside a function."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Import:
    """One name that one module takes: `from target import name`, or `import target`."""

    module: str
    target: str
    name: str
    line: int


class Imports:
    """The imports of one package on disk.

    Args:
        root: The folder of the package; its name is the package's.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.top = root.name
        self.files = {self._module(path): path for path in sorted(root.rglob("*.py"))}

    def _module(self, path: Path) -> str:
        parts = path.relative_to(self.root.parent).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def is_package(self, module: str) -> bool:
        return module in self.files and self.files[module].name == "__init__.py"

    def area(self, module: str) -> str:
        """The package below the top one that a module belongs to; itself for a single module."""
        return ".".join(module.split(".")[:2])

    @functools.cache  # noqa: B019 - one instance per test process
    def exports(self, package: str) -> dict[str, str]:
        """The names that a package's `__init__` offers, each with the module that holds it."""
        path = self.files[package]
        found: dict[str, str] = {}
        stub = path.with_suffix(".pyi")
        tree = ast.parse((stub if stub.exists() else path).read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                target = self._absolute(node, package)
                for alias in node.names:
                    submodule = f"{target}.{alias.name}"
                    holder = submodule if submodule in self.files else target
                    found[alias.asname or alias.name] = holder
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found[node.name] = package
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found.update({t.id: package for t in targets if isinstance(t, ast.Name)})
        for name in self.public(tree):
            submodule = f"{package}.{name}"
            found.setdefault(name, submodule if submodule in self.files else package)
        return found

    @staticmethod
    def public(tree: ast.Module) -> list[str]:
        """The strings of `__all__`."""
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                return [v.value for v in ast.walk(node.value) if isinstance(v, ast.Constant)]
        return []

    def is_lazy(self, package: str) -> bool:
        return self.files[package].with_suffix(".pyi").exists() or package == self.top

    @staticmethod
    def _absolute(node: ast.ImportFrom, package: str) -> str:
        if not node.level:
            return node.module or ""
        base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1])
        return f"{base}.{node.module}" if node.module else base

    def of(self, path: Path, module: str) -> Iterator[Import]:
        """The imports of this package's modules in one file, those for type checkers left out."""
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        for node in _at_run_time(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.split(".")[0] == self.top:
                        yield Import(module, alias.name, "", node.lineno)
            elif isinstance(node, ast.ImportFrom):
                target = self._absolute(node, package)
                if target.split(".")[0] == self.top:
                    for alias in node.names:
                        yield Import(module, target, alias.name, node.lineno)

    def all(self) -> Iterator[Import]:
        for module, path in self.files.items():
            yield from self.of(path, module)

    def graph(self) -> dict[str, set[str]]:
        """Module to the modules that it imports; a name of a lazy package leads to its holder."""
        edges: dict[str, set[str]] = {module: set() for module in self.files}
        for found in self.all():
            edges[found.module].add(self._holder(found.target, found.name))
        return edges

    def _holder(self, target: str, name: str) -> str:
        submodule = f"{target}.{name}"
        if submodule in self.files:
            return submodule
        if target in self.files and self.is_package(target) and self.is_lazy(target):
            holder = self.exports(target).get(name, target)
            return self._holder(holder, name) if holder != target else target
        return target


def _at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    children = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        children = iter(node.orelse)
    for child in children:
        yield from _at_run_time(child)


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules that reach each other (Tarjan), and modules that import themselves."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        number[module] = low[module] = len(number)
        stack.append(module)
        for other in sorted(edges[module]):
            if other not in number:
                visit(other)
            if other in stack:
                low[module] = min(low[module], low[other])
        if low[module] == number[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1 or module in edges[module]:
                found.append(sorted(group))

    for module in sorted(edges):
        if module not in number:
            visit(module)
    return sorted(found)

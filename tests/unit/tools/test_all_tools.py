"""Every script in `tools/` loads, and explains itself where it takes arguments."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[3] / "tools"
SCRIPTS = sorted(path.relative_to(TOOLS).as_posix() for path in TOOLS.rglob("*.py"))
# Packages of the environment that holds 1.5.7, which the suite does not install.
OF_1_5_7 = {"skimage"}


@pytest.fixture
def load(monkeypatch):
    """Run a script as a module; the modules beside it that it imports go with the test."""
    monkeypatch.syspath_prepend(str(TOOLS))
    before = set(sys.modules)

    def loaded(script):
        spec = importlib.util.spec_from_file_location(f"tool_{Path(script).stem}", TOOLS / script)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        try:
            spec.loader.exec_module(module)
        except ModuleNotFoundError as error:
            if error.name not in OF_1_5_7:
                raise
            pytest.skip(f"runs in the environment of 1.5.7, needs {error.name}")
        return module

    yield loaded
    for name in set(sys.modules) - before:
        if str(TOOLS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.parametrize("script", SCRIPTS)
def test_it_loads_and_says_what_it_is_for(script, load):
    assert (load(script).__doc__ or "").strip()


@pytest.mark.parametrize("script", [s for s in SCRIPTS if "argparse" in (TOOLS / s).read_text()])
def test_it_explains_its_arguments(script, load, monkeypatch, capsys):
    module = load(script)
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    assert "usage:" in capsys.readouterr().out

"""The versions that `make lowest` installs are those that pyproject.toml declares."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("lowest", ROOT / "tools/lowest_versions.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_package_of_several_extras_has_the_highest_of_their_bounds(tool):
    declared = ["a_b>=1.9", "c>=0.0.18", "a-b>=1.10", "A-B>=1.2", "d>=3.0.4,<3.1"]
    assert tool.lowest(declared) == ["a-b==1.10", "c==0.0.18", "d==3.0.4"]


@pytest.mark.parametrize("entry", ["a", "a<2", "a~=1.0", "a>=1,!=1.1", "a>=1; extra == 'b'"])
def test_what_has_no_lowest_version_is_refused(tool, entry):
    with pytest.raises(ValueError, match="without a lower bound"):
        tool.lowest([entry])


def test_the_extra_all_holds_what_every_extra_of_users_does(tool, capsys):
    optional = {"all": ["torchxrayvision[one]", "x>=1"], "one": ["torchxrayvision[two]", "y>=2"],
                "two": ["z>=3"]}  # fmt: skip
    assert list(tool.of_extra("all", optional)) == ["z>=3", "y>=2", "x>=1"]
    tool.main("all")
    printed = capsys.readouterr().out.split()
    assert {one.partition("==")[0] for one in printed} > {
        "torch", "python-gdcm", "highdicom", "pynetdicom", "tokenizers", "huggingface-hub", "ray",
    }  # fmt: skip
    assert len(printed) == len({one.partition("==")[0] for one in printed})

"""Patterns as those of glob, and folders that links lead to: nothing is left out without a word."""

from __future__ import annotations

import errno
import glob
import os
import stat
from pathlib import Path

import pytest

from torchxrayvision.inputs import expand
from torchxrayvision.inputs.expansion import _matches as matches

FILES = ["a.png", ".h.png", "d1/b.png", "d1/.h/c.png", "d1/e/f.png", "d2/b.png", "d[3]/b.png"]
PATTERNS = [
    "*", "*.png", ".*", "**", "**/", "**/*", "**/*.png", "**/b.png", "*/b.png", "*/", "*/*/",
    "d?/*", "d[12]/b.png", "d1/**", "d1/**/f.png", "**/e/**/*.png", "d1//*.png", "./*/b.png",
    "no/*", "no/**", "a.png/*", "a.png/**", "*/../a.png", "[d]*/.h/*", "**/.h/*", "d[[]3]/*",
    "nul\0*", "nul\0/*",
]  # fmt: skip


@pytest.fixture
def films(tmp_path, monkeypatch):
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def forbid(monkeypatch):
    """Folders that may not be listed, also where the tests run as root."""
    real = os.scandir

    def name(ending):
        def guarded(path="."):
            if os.fspath(path).endswith(ending):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
            return real(path)

        patched.setattr(os, "scandir", guarded)

    with monkeypatch.context() as patched:
        yield name


def given(paths):
    return [source.given for source in expand(paths)]


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_matches_are_those_of_glob(films, pattern, absolute):
    pattern = f"{films}/{pattern}" if absolute else pattern
    failed = []
    expected = set() if "\0" in pattern else set(glob.glob(pattern, recursive=True))  # noqa: PTH207
    found = {name for name in matches(pattern, failed) if os.path.lexists(name)}
    assert found == {name for name in expected if os.path.lexists(name)}
    assert not failed


@pytest.mark.parametrize("pattern", ["*/*.png", "**/*.png", "**"])
def test_a_folder_that_a_pattern_cannot_list_is_a_row(films, forbid, pattern):
    forbid("d1")
    sources = {s.given: s.problem for s in expand([pattern])}
    assert sources.pop("d1") == "the folder cannot be listed (Permission denied)"
    assert {"d2/b.png", "d[3]/b.png"} <= set(sources)
    assert list(sources) == sorted(sources)
    assert not any(sources.values())


def test_a_folder_that_may_not_be_entered_is_a_row(films, monkeypatch):
    real = os.lstat

    def guarded(path, **kwargs):
        if os.fspath(path).startswith("d1"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
        return real(path, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(os, "lstat", guarded)
        sources = list(expand(["d?/b.png"]))
    assert [s.given for s in sources] == ["d1", "d2/b.png"]
    assert sources[0].problem == "the folder cannot be listed (Permission denied)"


@pytest.fixture
def linked(films, tmp_path_factory):
    """Links out of the folder, to a folder within, and back to where they lie."""
    other = tmp_path_factory.mktemp("other")
    (other / "far.png").write_bytes(b"")
    for link, target in (("out", other), ("d1/back", films), ("z2", films / "d2")):
        (films / link).symlink_to(target, target_is_directory=True)
    return films


def test_links_to_folders_are_followed_once(linked):
    found = [Path(name).relative_to(linked).as_posix() for name in given([linked])]
    assert found == [
        "a.png", "d1/b.png", "d1/e/f.png", "d2/b.png", "d[3]/b.png", "out/far.png",
    ]  # fmt: skip


def test_patterns_of_any_depth_follow_links_once(linked):
    expected = ["a.png", "d1/b.png", "d1/e/f.png", "d2/b.png", "d[3]/b.png", "out/far.png"]
    assert given(["**/*.png"]) == expected
    assert given(["**"]) == expected
    assert given(["**/far.png"]) == ["out/far.png"]


def test_folders_without_numbers_are_all_listed(films, monkeypatch):
    real = os.stat

    def unnumbered(path, **kwargs):
        status = list(real(path, **kwargs))
        status[stat.ST_INO] = 0
        return os.stat_result(status)

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", unnumbered)
        found = given([films])
    assert len(found) == 5

"""What an error of a missing package tells people to install."""

from __future__ import annotations

import importlib.metadata

import pytest

from torchxrayvision.errors import DependencyError, how_to_install, needs_package

DECLARED = [
    "torch>=2.7",
    "python-multipart>=0.0.18; extra == 'serve'",
    'starlette[full]>=0.46,<2; python_version < "4" and extra == "serve"',
    "uvicorn>=0.34; extra=='served'",
]


@pytest.fixture
def declared(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: DECLARED)


def test_the_packages_of_an_extra_are_named_as_the_distribution_declares_them(declared):
    wanted = 'pip install "python-multipart>=0.0.18" "starlette[full]>=0.46,<2"'
    assert how_to_install("serve", "starlette") == wanted
    error = DependencyError("starlette", "the service", "serve")
    assert str(error) == f"the service needs the package starlette of the extra serve: {wanted}"
    assert "torchxrayvision" not in str(error)  # an index may have another release of that name


def test_an_extra_that_the_distribution_lacks_leaves_the_package(declared):
    assert how_to_install("serv", "starlette") == 'pip install "starlette"'


@pytest.mark.parametrize("answer", [None, importlib.metadata.PackageNotFoundError])
def test_without_metadata_the_package_is_named_alone(monkeypatch, answer):
    def requires(name):
        if answer is not None:
            raise answer(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    assert how_to_install("serve", "starlette") == 'pip install "starlette"'


def test_an_import_that_fails_below_names_the_package_above(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: [])
    wanted = r'^X needs the package no_such of .* "no_such"$'
    with pytest.raises(DependencyError, match=wanted), needs_package("", "X", "serve"):
        import no_such.inner  # noqa: F401

"""Films that several tests look at, rendered once."""

import functools

import pytest

from torchxrayvision import phantom

SIZE = 128


@functools.cache
def film(index, view="PA", finding=None, severity=0.8, site="A", size=SIZE):
    """One film with one finding, or with none."""
    findings = {} if finding is None else {finding: severity}
    return phantom.simulate(
        index, seed=5, size=size, site=site, views=[view], findings=findings, others=False
    )


@pytest.fixture
def films():
    return film

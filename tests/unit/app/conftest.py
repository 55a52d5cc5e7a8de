"""Pages end with the module that opened them."""

import pytest

from support import page as pages


@pytest.fixture(scope="module", autouse=True)
def _close_pages():
    yield
    pages.OPEN.close()

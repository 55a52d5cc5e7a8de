"""The built site as readers meet it: search, lists with filters, phone, dark.

`make docs` builds it; without docs/_build/html these tests are skipped.
"""

from __future__ import annotations

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SITE = Path(__file__).parents[2] / "docs" / "_build" / "html"
pytestmark = pytest.mark.skipif(
    not (SITE / "index.html").is_file(), reason="no site: make docs builds it"
)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture(scope="module")
def address():
    handler = functools.partial(Quiet, directory=SITE)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("threshold", "gallery/what-outputs-mean.html"),
        ("PadChest", "cards/datasets/pc_dataset.html"),
        ("heatmap", "gallery/heatmaps.html"),
    ],
)
def test_search_finds(chromium, address, words, page):
    chromium.driver.get(f"{address}/search.html?q={words.replace(' ', '+')}")
    chromium.wait("document.querySelectorAll('#search-results li a').length > 0")
    chromium.wait("/[0-9]/.test(document.querySelector('.search-summary')?.textContent || '')")
    links = "[...document.querySelectorAll('#search-results li > a')]"
    found = chromium.value(f"{links}.map((a) => a.getAttribute('href'))")
    assert any(page in link for link in found), found[:20]


PAGES = ("index", "gallery/index", "get-started", "datasets", "weights", "gallery/heatmaps",
         "commands", "api/torchxrayvision.datasets.NIH_Dataset")  # fmt: skip


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_pages_fit_and_can_be_read(chromium, address, width, mode):
    chromium.size(width, 800, dark=mode == "dark", mobile=width < 600)
    for page in PAGES:
        chromium.driver.get(f"{address}/{page}.html")
        chromium.run("localStorage.setItem('mode', 'auto')")
        wide = chromium.value("document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, (page, wide)
        ink, paper = chromium.value(
            "[getComputedStyle(document.querySelector('article p')).color, "
            "getComputedStyle(document.body).backgroundColor]"
            ".map((c) => c.match(/[\\d.]+/g).slice(0, 3).reduce((a, b) => a + +b, 0))"
        )
        assert (ink > paper) == (mode == "dark"), (page, ink, paper)
        assert abs(ink - paper) > 300
    chromium.size(1280, 800)


def test_each_notebook_has_a_card_with_its_picture(chromium, address):
    chromium.driver.get(f"{address}/gallery/index.html")
    chromium.run("document.querySelectorAll('img').forEach((i) => { i.loading = 'eager'; })")
    pictures = "[...document.querySelectorAll('.sd-card img.xrv-thumbnail')]"
    chromium.wait(f"{pictures}.every((i) => i.complete)")
    cards = chromium.value("document.querySelectorAll('.sd-card').length")
    assert cards == len(list((SITE / "gallery").glob("*.html"))) - 1
    assert chromium.value(f"{pictures}.filter((i) => i.naturalWidth > 100).length") == cards


def test_lists_are_narrowed(chromium, address):
    chromium.driver.get(f"{address}/datasets.html")
    rows = "[...document.querySelectorAll('.xrv-filter tbody tr')].filter((r) => !r.hidden)"
    everything = chromium.value(f"{rows}.length")
    chromium.run(
        "const s = document.querySelector('[data-facet=finding]'); s.value = 'Tuberculosis';"
        "s.dispatchEvent(new Event('change', {bubbles: true}))"
    )
    names = chromium.value(f"{rows}.map((r) => r.querySelector('a').textContent)")
    assert "NLMTB_Dataset" in names
    assert len(names) < everything / 2
    said = chromium.value("document.querySelector('.xrv-count').textContent")
    assert said == f"{len(names)} of {everything}"
    chromium.driver.get(f"{address}/index.html")
    chromium.driver.get(f"{address}/datasets.html#access=download")
    assert 0 < chromium.value(f"{rows}.length") < everything

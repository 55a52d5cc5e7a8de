"""Follow every link of a built site to a file and an anchor; addresses elsewhere are left alone.

python tools/check_site.py docs/_build/html
"""

from __future__ import annotations

import argparse
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """What a page links to, and what can be linked to in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name == "id" or (name == "name" and tag == "a"):
                self.anchors.add(value or "")


def anchors_of(pages: dict[Path, Page], target: Path) -> set[str]:
    """What can be linked to in a page; a file that is no page takes any fragment."""
    return pages[target].anchors if target in pages else _Anything()


class _Anything(set[str]):
    def __contains__(self, value: object) -> bool:
        return True


def broken(root: Path) -> list[str]:
    """Every link within the site that leads nowhere."""
    root = root.resolve()
    # What themes keep in _static are templates, no pages.
    paths = [path for path in sorted(root.rglob("*.html")) if "_static" not in path.parts]
    pages = {path: Page(path.read_text("utf-8")) for path in paths}
    found = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            shown = f"{path.relative_to(root)}: {link}"
            if not target.is_relative_to(root) or not target.is_file():
                found.append(f"{shown}: no such file")
            elif parts.fragment and unquote(parts.fragment) not in anchors_of(pages, target):
                found.append(f"{shown}: no such place in it")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Print what is broken; exit code 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path, help="folder of the built site")
    found = broken(parser.parse_args(arguments).site)
    print(*(found or ["every link leads somewhere"]), sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

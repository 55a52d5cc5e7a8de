"""Pieces of Markdown for the pages that are made of data."""

from __future__ import annotations

import re
import textwrap

MADE = "<!-- Made by tools/build_docs.py out of the code: edit that. -->"


def table(header, rows, right=()):
    """A Markdown table; `right` are the columns to align right."""
    line = ["---:" if column in right else "---" for column in range(len(header))]
    lines = [header, line, *rows]
    return "\n".join("| " + " | ".join(cell(value) for value in row) + " |" for row in lines)


def cell(value):
    return str(value).replace("|", "\\|").replace("\n", " ")


def wrapped(*paragraphs):
    options = {"break_long_words": False, "break_on_hyphens": False}
    return "\n\n".join(textwrap.fill(text, 110, **options) for text in paragraphs)


def page(*parts):
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def anchor(heading):
    """The fragment that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def link(text, url):
    return f"[{text}]({url})" if url else text

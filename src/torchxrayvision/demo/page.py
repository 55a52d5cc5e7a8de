"""HTML out of Python values; text is escaped unless it is HTML already."""

from __future__ import annotations

from html import escape
from typing import Final

_VOID: Final = frozenset({"img", "meta"})


class Html(str):
    """Text that is HTML."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: str | float | None) -> Html:
    """One element.

    Args:
        name: Its tag.
        *children: Inside; text is escaped, `Html` is not.
        **attributes: A trailing underscore is dropped, others become hyphens; None leaves it out.

    Returns:
        The element.

    Example:
        >>> element("a", "R & D", href="x.html", class_="wide")
        '<a href="x.html" class="wide">R &amp; D</a>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{given}>")
    inner = "".join(
        child if isinstance(child, Html) else escape(child, quote=False) for child in children
    )
    return Html(f"<{name}{given}>{inner}</{name}>")


def table(head: list[str], rows: list[list[str]], caption: str, **attributes: str) -> Html:
    """A table whose first column names its rows, in a box that scrolls on narrow screens.

    Args:
        head: Of each column.
        rows: Cells, as many as columns.
        caption: What the table shows.
        **attributes: Of the table.

    Returns:
        The box with the table.
    """
    top = element("tr", *(element("th", text, scope="col") for text in head))
    body = [
        element(
            "tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:])
        )
        for row in rows
    ]
    inner = element(
        "table",
        element("caption", caption),
        element("thead", top),
        element("tbody", *body),
        **attributes,
    )
    # A box that scrolls must be reachable by keyboard, and then needs a name.
    return element("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def page(title: str, style: str, *body: str) -> str:
    """A whole document with its style inside.

    Args:
        title: Of the window.
        style: CSS.
        *body: Its content.

    Returns:
        The text of the file.
    """
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Html(style)),
    )
    return f"<!DOCTYPE html>\n{element('html', head, element('body', *body), lang='en')}\n"

"""Templates of reports: a package's own, on the shell and the style that all of them share.

A template begins with ``{% extends "shell.html" %}`` and fills the blocks ``title`` and ``body``;
``{% import "parts.html" as parts %}`` gives boxes that scroll on narrow screens, tables and notes.
Nothing is loaded from elsewhere: a page is one file, and opens without a network.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from torchxrayvision.provenance import html_meta

if TYPE_CHECKING:
    import jinja2

    from torchxrayvision.provenance import Provenance

_SHARED: Final = Path(__file__).parent


def environment(folder: Path) -> jinja2.Environment:
    """Where templates are found, with their filters.

    Args:
        folder: Of the package's own templates.

    Returns:
        It, with the filters ``meta`` (of a `Provenance`) and ``png`` (bytes to the address of a
        picture). Text is escaped, and a name that is not there is an error.
    """
    from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=ChoiceLoader([FileSystemLoader(folder), FileSystemLoader(_SHARED)]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    made.filters |= {"meta": _meta, "png": _png}
    return made


def _meta(provenance: Provenance) -> Any:
    from markupsafe import Markup

    return Markup(html_meta(provenance))


def _png(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"

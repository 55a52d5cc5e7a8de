"""The flow diagram of a study: what came in, what was left out and why, what was evaluated."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from torchxrayvision.errors import counted

if TYPE_CHECKING:
    from torchxrayvision.evaluation import Study

_BOX = 'rx="6" fill="none" stroke="var(--line, #dcdad5)" stroke-width="1.5"'


def flow_svg(study: Study) -> str:
    """The diagram as SVG, whose colours follow the page that it stands in.

    Args:
        study: What was evaluated.

    Returns:
        The element.
    """
    counts = dict(study.flow())
    patients = len(set(study.codes.tolist()))
    left = [
        ("predictions", counted(counts["predicted"], "image"), ""),
        ("with labels", counted(study.joined, "image"), ""),
        ("evaluated", counted(counts["evaluated"], "image"), counted(patients, "patient")),
    ]
    aside = [
        ("left out: without labels", f"{counts['without labels']:,}"),
        ("left out: could not be read", f"{counts['could not be read']:,}"),
    ]
    if study.set_aside:
        left.insert(2, ("read", counted(study.joined - study.unreadable, "image"), ""))
        aside.append(("used for the calibration", f"{study.set_aside:,}"))
    if study.labelled - study.joined:
        beside = counted(
            study.labelled - study.joined, "labelled image has", "labelled images have"
        )
        beside += " no predictions"
    else:
        beside = "every labelled image has predictions"
    parts, step = [], 92
    for place, (name, count, more) in enumerate(left):
        top = 8 + place * step
        parts.append(f'<rect x="8" y="{top}" width="190" height="58" {_BOX}/>')
        parts.append(_text(20, top + 23, name, strong=True))
        parts.append(_text(20, top + 43, f"{count}{', ' + more if more else ''}"))
        if place + 1 < len(left):
            parts.append(_line(103, top + 58, 103, top + step))
            what, number = aside[place]
            middle = top + 75
            parts.append(_line(103, middle, 232, middle))
            parts.append(f'<rect x="232" y="{middle - 20}" width="220" height="40" {_BOX}/>')
            parts.append(_text(244, middle + 5, f"{what}: {number}"))
    height = 8 + len(left) * step
    parts.append(_text(8, height - 8, beside))
    label = escape(
        f"Flow of images: {counts['predicted']} predicted, {counts['evaluated']} evaluated", True
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 460 {height}" role="img" '
        f'aria-label="{label}">{"".join(parts)}</svg>'
    )


def _text(x: int, y: int, text: str, *, strong: bool = False) -> str:
    weight = ' font-weight="600"' if strong else ""
    return (
        f'<text x="{x}" y="{y}"{weight} style="fill: var(--ink, #1b1f23); '
        f'font: {"600 " if strong else ""}13px system-ui, sans-serif">{escape(text)}</text>'
    )


def _line(x1: int, y1: int, x2: int, y2: int) -> str:
    return (
        f'<path d="M{x1} {y1} L{x2} {y2}" stroke="var(--soft, #5f6a72)" stroke-width="1.5" '
        'fill="none"/>'
    )

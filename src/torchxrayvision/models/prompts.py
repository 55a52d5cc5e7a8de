"""Texts that a zero-shot network compares an image with, as data.

Example:
    >>> prompts_of("Effusion")
    Prompts(positive=('pleural effusion',), negative=('no pleural effusion',))
    >>> prompts_of("cavity").negative
    ('no cavity',)
"""

from __future__ import annotations

import functools
import importlib.resources
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from torchxrayvision.errors import PromptError, UnknownNameError, XRVError
from torchxrayvision.models.configuration import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_MOST: Final = 100  # texts of a side
_LONGEST: Final = 1000  # letters


@dataclass(frozen=True, slots=True)
class Prompts:
    """What stands for a finding, and what for its absence.

    Args:
        positive: Texts that an image with the finding is close to; their mean is taken.
        negative: Texts that one without it is close to; empty where the image is compared with
            the other findings.
    """

    positive: tuple[str, ...]
    negative: tuple[str, ...] = ()


@functools.cache
def _packaged() -> dict[str, Any]:
    text = (importlib.resources.files("torchxrayvision") / "models" / "prompts.json").read_text(
        "utf-8"
    )
    found: dict[str, Any] = json.loads(text)
    return found


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())


def known_prompts() -> dict[str, Prompts]:
    """The texts that are installed with the package, by finding; others are made by templates."""
    return {name: prompts_of(name) for name in _packaged()["findings"]}


def prompts_of(finding: str, own: Mapping[str, Prompts] | None = None) -> Prompts:
    """The texts of a finding.

    Args:
        finding: A name, whatever its case and underscores, or a text of one's own, which then
            stands for itself.
        own: Texts that go before those of the package.

    Raises:
        PromptError: If the finding is empty or too long.
    """
    if not finding.strip() or len(finding) > _LONGEST:
        raise PromptError(f"a finding is a text of 1 to {_LONGEST} letters, got {finding[:60]!r}")
    for name, prompts in (own or {}).items():
        if _plain(name) == _plain(finding):
            return prompts
    data = _packaged()
    known: dict[str, dict[str, list[str]]] = data["findings"]
    entry = next((v for k, v in known.items() if _plain(k) == _plain(finding)), {})
    if "positive" in entry:
        return Prompts(tuple(entry["positive"]), tuple(entry["negative"]))
    terms = entry.get("terms", [finding.strip()])
    positive, negative = (
        tuple(template.format(term) for template in data["templates"][side] for term in terms)
        for side in ("positive", "negative")
    )
    return Prompts(positive, negative)


def read_prompts(path: Path) -> dict[str, Prompts]:
    """Texts of one's own, from a JSON file.

    Args:
        path: An object of finding to `positive` and `negative`, each a list of texts.

    Raises:
        PromptError: If the file holds something else.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> path = Path(tempfile.mkdtemp(), "prompts.json")
        >>> _ = path.write_text('{"Cavity": {"positive": ["cavity"], "negative": ["no cavity"]}}')
        >>> read_prompts(path)["Cavity"].positive
        ('cavity',)
    """
    try:
        found = read_json(path)
    except XRVError as error:
        raise PromptError(str(error)) from error
    made = {}
    for finding, sides in found.items():
        if not isinstance(sides, dict) or set(sides) - {"positive", "negative"}:
            msg = f'{path}: {finding[:60]!r} needs {{"positive": [...], "negative": [...]}}'
            raise PromptError(msg)
        made[finding] = Prompts(
            _texts(sides.get("positive"), f"{path}: positive texts of {finding[:60]!r}"),
            _texts(sides.get("negative", []), f"{path}: negative texts of {finding[:60]!r}", 0),
        )
    if not made:
        raise PromptError(f"{path} names no finding")
    return made


def _texts(value: Any, what: str, least: int = 1) -> tuple[str, ...]:
    good = isinstance(value, list) and all(
        isinstance(text, str) and 0 < len(text.strip()) <= _LONGEST for text in value
    )
    if not good or not least <= len(value) <= _MOST:
        msg = f"{what} must be a list of {least} to {_MOST} texts of at most {_LONGEST} letters"
        raise PromptError(msg)
    return tuple(value)


def check_findings(findings: Sequence[str]) -> list[str]:
    """Findings that may be columns of one table.

    Raises:
        UnknownNameError: If one stands twice.
        PromptError: If there is none.
    """
    names = [finding.strip() for finding in findings]
    if not names:
        raise PromptError("name at least one finding, such as 'pleural effusion'")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UnknownNameError("finding", twice[0], sorted(set(names)), "it is named twice")
    return names

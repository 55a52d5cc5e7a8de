r"""What made a file: read back from tables, pictures and pages that this package wrote.

Every table, mask, map and report says what made it: the command, the version of the package, the
weights and their hash, what the numbers are, the calibration, the preprocessing and the options
that matter. Parquet files hold it in their metadata, PNG files as text, JPEG files as a comment,
HTML pages in a ``meta`` element; CSV and JSON tables have a file ``<name>.provenance.json`` beside
them, which holds the SHA-256 of the table and is not believed of another one.

Example:
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = Path(folder, "findings.csv")
    ...     _ = table.write_text("path,Mass\n1.png,0.3\n")
    ...     Provenance(command="xrv predict", output="logit").write_beside(table, table)
    ...     read(table)["output"], output_kind(table)
    ('logit', 'logit')
"""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from torchxrayvision.errors import EvaluationError
from torchxrayvision.files import PROVENANCE_KEY, PROVENANCE_SUFFIX, Provenance, sha256_of

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

__all__ = [
    "Provenance",
    "html_meta",
    "jpeg_comment",
    "output_kind",
    "png_text",
    "read",
    "refuse_mixed",
]

_HEAD: Final = 2**20  # bytes of a page in which its head ends
_META: Final = re.compile(rf'<meta name="{PROVENANCE_KEY}" content="([^"]*)">')
_PICTURES: Final = (".png", ".jpg", ".jpeg")
_PAGES: Final = (".html", ".htm")


def png_text(provenance: Provenance) -> Any:
    """Provenance as text chunks of a PNG file.

    Args:
        provenance: What makes the picture.

    Returns:
        For Pillow's ``save(..., pnginfo=...)``.
    """
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("Software", provenance.package)
    text.add_text(PROVENANCE_KEY, provenance.to_json())
    return text


def jpeg_comment(provenance: Provenance) -> bytes:
    """Provenance as the comment of a JPEG file.

    Args:
        provenance: What makes the picture.

    Returns:
        For Pillow's ``save(..., comment=...)``.
    """
    return json.dumps({PROVENANCE_KEY: provenance.to_dict()}, sort_keys=True).encode("ascii")


def html_meta(provenance: Provenance) -> str:
    """Provenance as an element of the head of a page.

    Args:
        provenance: What makes the page.

    Returns:
        The element.

    Example:
        >>> html_meta(Provenance(command="xrv audit"))[:45]
        '<meta name="torchxrayvision" content="{&quot;'
    """
    return f'<meta name="{PROVENANCE_KEY}" content="{html.escape(provenance.to_json())}">'


def read(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What a file says of what made it.

    Args:
        path: A table, picture or page.

    Returns:
        The fields of `Provenance` that are known; None where the file says nothing, or what lies
        beside it is of another content: somebody changed the table since.

    Raises:
        OSError: If the file cannot be read.
    """
    file = Path(path)
    ending = file.suffix.lower()
    with file.open("rb"):
        pass  # an absent file is an error, and no file that says nothing
    if ending == ".parquet":
        return _of_parquet(file)
    if ending in _PICTURES:
        return _of_picture(file)
    if ending in _PAGES:
        with file.open("rb") as page:
            found = _META.search(page.read(_HEAD).decode("utf-8", "replace"))
        return None if found is None else _parsed(html.unescape(found[1]))
    return _of_json(file) or _beside(file)


def _parsed(text: str | bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("command"), str) else None


def _of_parquet(file: Path) -> dict[str, Any] | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(file).metadata or {}
    except pa.ArrowInvalid:
        return None
    return _parsed(metadata.get(PROVENANCE_KEY.encode(), b""))


def _of_picture(file: Path) -> dict[str, Any] | None:
    from PIL import Image

    try:
        with Image.open(file) as picture:
            said = picture.info
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    text = said.get(PROVENANCE_KEY)
    if isinstance(text, str):
        return _parsed(text)
    try:
        outer = json.loads(said.get("comment", b""))
    except (ValueError, TypeError, RecursionError):
        return None
    record = outer.get(PROVENANCE_KEY) if isinstance(outer, dict) else None
    return _parsed(json.dumps(record))


def _of_json(file: Path) -> dict[str, Any] | None:
    """The key of a JSON document that is an object; tables are arrays."""
    if file.suffix.lower() != ".json":
        return None
    with file.open("rb") as stream:
        if not stream.read(64).lstrip().startswith(b"{"):
            return None
    outer = None
    try:
        outer = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return None
    record = outer.get("provenance") if isinstance(outer, dict) else None
    return _parsed(json.dumps(record))


def _beside(file: Path) -> dict[str, Any] | None:
    beside = file.with_name(file.name + PROVENANCE_SUFFIX)
    if not beside.is_file():
        return None
    record = _parsed(beside.read_bytes())
    if record is None or record.pop("file_sha256", None) != sha256_of(file):
        return None
    return record


def output_kind(path: str | os.PathLike[str]) -> str | None:
    """What the numbers of a table of predictions are.

    Args:
        path: The table.

    Returns:
        ``"logit"``, ``"probability"``, ``"operating-point"``, with the hash of a calibration where
        one was applied; None where the file does not say.
    """
    record = read(path)
    if record is None or not isinstance(record.get("output"), str):
        return None
    kind: str = record["output"]
    calibration = record.get("calibration")
    if isinstance(calibration, dict):
        name = str(calibration.get("sha256", ""))[:12] or "unnamed"
        return f"{kind}, calibrated by {name}"
    return kind


def refuse_mixed(paths: Iterable[str | os.PathLike[str]]) -> str | None:
    """Refuse tables whose numbers are of different kinds, where they say so.

    A threshold on logits means something else on probabilities, and so do calibration and errors.

    Args:
        paths: Tables of predictions that are to be looked at together.

    Returns:
        The kind of those that say; None if none does.

    Raises:
        EvaluationError: If two kinds differ.
    """
    seen: dict[str, str] = {}
    for path in paths:
        kind = output_kind(path)
        if kind is not None:
            seen.setdefault(kind, str(path))
    if len(seen) > 1:
        kinds = " and ".join(f"{kind} ({path})" for kind, path in seen.items())
        msg = (
            f"the tables hold numbers of different kinds: {kinds}; predict again with the same "
            "--output-kind and calibration"
        )
        raise EvaluationError(msg)
    return next(iter(seen), None)

"""The orientation in an Exif block, whatever the file around it."""

from __future__ import annotations

from PIL import Image

from torchxrayvision.errors import ImageReadError
from torchxrayvision.images._guard import foreign

__all__ = ["orientation_of"]

_ORIENTATION = 274


def orientation_of(exif: bytes) -> int:
    """The orientation, 1 to 8; 1 where it is absent, undefined or damaged.

    Args:
        exif: The block, with or without ``Exif`` and two null bytes before it.
    """
    block = Image.Exif()
    try:
        with foreign("", ""):
            block.load(exif)
            value = block.get(_ORIENTATION, 1)
    except ImageReadError:  # a damaged block does not make the picture unreadable
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1

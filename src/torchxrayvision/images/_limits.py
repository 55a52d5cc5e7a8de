"""Budgets that a file must keep before any of its pixels is decoded."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from torchxrayvision.errors import ImageReadError, ImageTooLargeError

__all__ = ["DEFAULT_LIMITS", "Limits"]

# Below this many decoded bytes an extreme compression ratio does no harm: a blank film is small.
_HARMLESS_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a file may declare before it is refused; read from headers, never by decoding.

    The defaults let every radiograph through: the largest detectors have about 25 million pixels.

    Args:
        pixels: Most pixels (rows times columns) of one frame.
        file_bytes: Most bytes of the file; also of a deflated DICOM dataset once inflated.
        expansion: Most decoded bytes for each byte of the file, for pictures above 64 MiB decoded.
        frames: Most frames or pages.

    Raises:
        ValueError: If a limit is not a positive whole number.

    Example:
        >>> Limits(pixels=4096 * 4096).pixels
        16777216
    """

    pixels: int = 100_000_000
    file_bytes: int = 2**30
    expansion: int = 2_000
    frames: int = 10_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or value < 1:
                msg = f"{field.name} must be a positive whole number, got {value!r}"
                raise ValueError(msg)

    def check_bytes(self, path: str, size: int) -> None:
        """Refuse a file of ``size`` bytes that is empty or above the limit."""
        if size == 0:
            raise ImageReadError(path, "the file is empty")
        if size > self.file_bytes:
            reason = f"{size:,} bytes, above the limit of {self.file_bytes:,}"
            raise ImageTooLargeError(path, reason, "raise Limits.file_bytes if it is trusted")

    def check_picture(
        self, path: str, height: int, width: int, *, bits: int, stored: int, frames: int = 1
    ) -> None:
        """Refuse a declared picture that is empty or above a limit.

        Args:
            path: For the error.
            height: Declared rows.
            width: Declared columns.
            bits: Bits a pixel once decoded, all channels together.
            stored: Bytes of the file.
            frames: Declared frames or pages.
        """
        size = f"{width:,} x {height:,} pixels"
        if height < 1 or width < 1:
            raise ImageReadError(path, f"declares an empty picture of {size}")
        if height * width > self.pixels:
            reason = f"declares {size}, above the limit of {self.pixels:,}"
            raise ImageTooLargeError(path, reason, "raise Limits.pixels if it is trusted")
        if frames > self.frames:
            reason = f"declares {frames:,} frames, above the limit of {self.frames:,}"
            raise ImageTooLargeError(path, reason, "raise Limits.frames if it is trusted")
        decoded = math.ceil(height * width * bits / 8)
        if decoded > _HARMLESS_BYTES and decoded > self.expansion * stored:
            reason = f"declares {size} in {stored:,} bytes, {decoded // stored:,} decoded for each"
            raise ImageTooLargeError(path, reason, "the file is truncated or hostile")


DEFAULT_LIMITS = Limits()

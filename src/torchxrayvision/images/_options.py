"""What the caller asked for, in one value that every format takes."""

from __future__ import annotations

from dataclasses import dataclass

from torchxrayvision.errors import ImageReadError, UnsupportedImageError
from torchxrayvision.images._limits import DEFAULT_LIMITS, Limits

__all__ = ["Options"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The keyword arguments of `read_raster`, which documents them."""

    frame: int | None = None
    voi: bool = False
    fix_monochrome: bool = True
    limits: Limits = DEFAULT_LIMITS

    def check_frame(self, path: str, frames: int) -> int:
        """The frame to decode, counted from 0.

        Raises:
            UnsupportedImageError: If there are several and none is named.
            ImageReadError: If the one that is named does not exist.
        """
        if self.frame is None:
            if frames > 1:
                reason = f"holds {frames} frames"
                raise UnsupportedImageError(path, reason, "name one: frame=0 is the first")
            return 0
        if not 0 <= self.frame < frames:
            reason = f"frame {self.frame} was asked for; it has {frames}, counted from 0"
            raise ImageReadError(path, reason)
        return self.frame

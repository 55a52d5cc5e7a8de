"""Decode a JPEG with Pillow so that a scan that ends early is an error."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import JpegImagePlugin

from torchxrayvision.images._guard import quiet
from torchxrayvision.images._jpeg_scans import FRAMES, segments

if TYPE_CHECKING:
    from PIL import Image

    from torchxrayvision.images._codestream import CodeStream

__all__ = ["decode_jpeg", "lasts"]

# More than a decoder reads ahead, and too few to stand for more than a few blocks.
_AFTER = bytes(16)


class _EndsEarlyError(Exception):
    pass


class _Strict(io.BytesIO):
    """Bytes that do not end quietly: Pillow may have been told to go on without the rest."""

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        if not found and size:
            msg = "the scan ends before the last row"
            raise _EndsEarlyError(msg)
        return found


def decode_jpeg(data: bytes, stream: CodeStream) -> Image.Image:
    """Decode a JPEG of 8 bits.

    At an end marker libjpeg fills what is still missing with grey and says nothing. So the
    decoder of a single scan is not shown one: it then asks for more data where it needs some,
    and is done before it asks where all is there. A picture in several scans has to be shown its
    end; there only a scan that is missing altogether is known, by `CodeStream.fault`.

    Args:
        data: The code stream; anything may follow its end.
        stream: Its header.

    Raises:
        Exception: Of any type, for damage.
    """
    if stream.scan_end is not None:
        data = data[: stream.scan_end] + _AFTER
    image = JpegImagePlugin.JpegImageFile(_Strict(data))
    image.load()
    return image


def lasts(data: bytes, stream: CodeStream) -> bool:
    """Whether the only scan of a grey JPEG of any precision lasts to the last row.

    Entropy-coded data does not depend on the precision, so Pillow can walk through what it could
    not show: declared as 8 bits, the values come out wrong and the length comes out right.

    Args:
        data: The code stream.
        stream: Its header.

    Returns:
        True also where Pillow cannot tell: its libjpeg may lack the lossless process.
    """
    if stream.scan_end is None:
        return True
    eight = bytearray(data)
    for marker, start, _ in segments(data):
        if marker in FRAMES:
            eight[start] = 8
    try:
        with quiet():
            decode_jpeg(bytes(eight), stream)
    except _EndsEarlyError:
        return False
    except Exception:  # noqa: BLE001
        return True
    return True

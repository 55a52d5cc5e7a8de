"""Sizes that JPEG, JPEG-LS and JPEG 2000 code streams declare, read without decoding."""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = ["CodeStream", "read_codestream"]

# ITU-T T.81 table B.1 and T.87 section C.1.1: frame headers; C4, C8 and CC are not among them.
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_STANDALONE = {0x01, *range(0xD0, 0xD8)}
_SOS, _EOI = 0xDA, 0xD9
# In entropy-coded data a byte FF is followed by 00 or a restart marker, so these stand alone.
_SCAN, _END = bytes([0xFF, _SOS]), bytes([0xFF, _EOI])


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeStream:
    """What the frame header of a code stream says.

    Args:
        kind: ``"jpeg"``, ``"jpeg-ls"`` or ``"jpeg2000"``.
        process: Marker of the JPEG frame: 0 baseline, 1 extended, 2 progressive, 3 lossless.
        height: Rows.
        width: Columns.
        precision: Bits of a sample.
        components: Samples a pixel.
        scans: Scans after the first frame header; a JPEG may hold many to exhaust a decoder.
        ended: JPEG: whether an end marker follows the first scan.
    """

    kind: str
    process: int
    height: int
    width: int
    precision: int
    components: int
    scans: int = 1
    ended: bool = True


def read_codestream(data: bytes | memoryview) -> CodeStream | None:
    """The frame header of `data`, or None where there is none.

    Example:
        >>> head = bytes.fromhex("ffd8 ffc0 000b 08 0010 0020 01 011100 ffda")
        >>> read_codestream(head).width
        32
        >>> read_codestream(b"not a code stream") is None
        True
    """
    data = bytes(data)
    try:
        if data.startswith(b"\xff\x4f\xff\x51"):
            return _read_siz(data)
        if data.startswith(b"\xff\xd8"):
            return _read_sof(data)
    except (struct.error, IndexError):  # it ends inside the header
        return None
    return None


def _read_siz(data: bytes) -> CodeStream | None:
    """ITU-T T.800 section A.5.1: image size is reference grid less offset."""
    x1, y1, x0, y0 = struct.unpack_from(">4I", data, 8)
    (components,) = struct.unpack_from(">H", data, 40)
    precision = (data[42] & 0x7F) + 1
    if x1 <= x0 or y1 <= y0:
        return None
    return CodeStream(
        kind="jpeg2000",
        process=0,
        height=y1 - y0,
        width=x1 - x0,
        precision=precision,
        components=components,
    )


def _read_sof(data: bytes) -> CodeStream | None:
    position = 2
    while True:
        if data[position] != 0xFF:
            return None
        while data[position] == 0xFF:  # any number of fill bytes may come before a marker
            position += 1
        marker = data[position]
        position += 1
        if marker in (_SOS, _EOI):
            return None
        if marker in _STANDALONE or marker == 0:
            continue
        (length,) = struct.unpack_from(">H", data, position)
        if marker in _FRAMES:
            precision, height, width, components = struct.unpack_from(">BHHB", data, position + 2)
            scan = data.find(_SCAN, position + length)
            return CodeStream(
                kind="jpeg-ls" if marker == 0xF7 else "jpeg",
                process=marker & 0x0F if marker != 0xF7 else 0,
                height=height,
                width=width,
                precision=precision,
                components=components,
                scans=max(1, data.count(_SCAN, position + length)),
                ended=scan >= 0 and data.find(_END, scan) >= 0,
            )
        position += length

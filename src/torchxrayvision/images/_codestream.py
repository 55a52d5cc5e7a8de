"""Sizes that JPEG, JPEG-LS and JPEG 2000 code streams declare, read without decoding."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from torchxrayvision.images._jpeg_scans import FRAMES, read_scans, segments

__all__ = ["CodeStream", "read_codestream"]

_DRI, _JPEG_LS = 0xDD, 0xF7
_JP2 = b"\x00\x00\x00\x0cjP  \r\n\x87\n"


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
        scan_end: JPEG: where the only scan ends; None where the picture comes in several.
        fault: JPEG: what is missing, as a clause; empty where nothing is.
    """

    kind: str
    process: int
    height: int
    width: int
    precision: int
    components: int
    scans: int = 1
    scan_end: int | None = None
    fault: str = ""


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
            return _read_siz(data, 0)
        if data.startswith(_JP2):
            return _read_boxes(data)
        if data.startswith(b"\xff\xd8"):
            return _read_sof(data)
    except (struct.error, IndexError):  # it ends inside the header
        return None
    return None


def _read_boxes(data: bytes) -> CodeStream | None:
    """The code stream inside a JP2 or JPH file (ITU-T T.800 section I.4), which DICOM forbids."""
    position = 0
    while True:
        length, kind = struct.unpack_from(">I4s", data, position)
        header = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, position + 8)
            header = 16
        if kind == b"jp2c":
            return _read_siz(data, position + header)
        if length < header:  # 0: up to the end of the file, so that no code stream follows
            return None
        position += length


def _read_siz(data: bytes, start: int) -> CodeStream | None:
    """ITU-T T.800 section A.5.1: image size is reference grid less offset."""
    if data[start : start + 4] != b"\xff\x4f\xff\x51":
        return None
    x1, y1, x0, y0 = struct.unpack_from(">4I", data, start + 8)
    (components,) = struct.unpack_from(">H", data, start + 40)
    precision = (data[start + 42] & 0x7F) + 1
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
    restarts = False
    for marker, start, end in segments(data):
        if marker == _DRI:
            restarts = any(data[start:end])
        if marker not in FRAMES:
            continue
        precision, height, width, components = struct.unpack_from(">BHHB", data, start)
        scans = read_scans(data, end, frame=marker, components=components, restarts=restarts)
        return CodeStream(
            kind="jpeg-ls" if marker == _JPEG_LS else "jpeg",
            process=marker & 0x0F if marker != _JPEG_LS else 0,
            height=height,
            width=width,
            precision=precision,
            components=components,
            scans=scans.count,
            scan_end=scans.end,
            fault=scans.fault,
        )
    return None

"""Where the scans of a JPEG or JPEG-LS end, and whether any is missing, without decoding them."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FRAMES", "MOST_SCANS", "Scans", "read_scans", "segments"]

# ITU-T T.81 table B.1 and T.87 section C.1.1: frame headers; C4, C8 and CC are not among them.
FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
# Progressive encoders write about ten; hundreds only serve to keep a decoder busy.
MOST_SCANS = 100
_STANDALONE = {0x00, 0x01, *range(0xD0, 0xD8)}
_SOI, _EOI, _SOS, _DRI = 0xD8, 0xD9, 0xDA, 0xDD
_JPEG_LS, _PROGRESSIVE = 0xF7, 0xC2
_COEFFICIENTS = 64
_UNSEEN = 0xFF
# In entropy-coded data FF is followed by 00 (T.87: by less than 80) or is a restart marker, which
# is one only where a restart interval was defined: elsewhere decoders stop at it.
_MARKER = re.compile(rb"\xff([^\x00\xff])")
_MARKER_OR_RESTART = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
_MARKER_OF_JPEG_LS = re.compile(rb"\xff([\x80-\xcf\xd8-\xfe])")
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
_TURNS = bytes(range(0xD0, 0xD8))


@dataclass(kw_only=True, slots=True)
class Scans:
    """What follows the frame header.

    Args:
        count: Number of scans; not counted beyond `MOST_SCANS` and one.
        end: Where the entropy-coded data of the only scan ends; None with several scans.
        fault: What is missing, as a clause after "the JPEG"; empty where nothing is.
    """

    count: int = 0
    end: int | None = None
    fault: str = ""
    restarts: bool = False
    # Component to the lowest bit that is known of each coefficient.
    known: dict[int, bytearray] = field(default_factory=dict)


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker segments from SOI to the first scan header: marker, start and end of the body.

    It ends without an error where the data does.
    """
    position = 2
    try:
        while data[position] == 0xFF:
            while data[position] == 0xFF:  # any number of fill bytes may come before a marker
                position += 1
            marker = data[position]
            position += 1
            if marker in _STANDALONE:
                continue
            if marker == _EOI:
                return
            (length,) = struct.unpack_from(">H", data, position)
            yield marker, position + 2, position + length
            if marker == _SOS:
                return
            position += length
    except (struct.error, IndexError):
        return


def read_scans(data: bytes, position: int, *, frame: int, components: int, restarts: bool) -> Scans:
    """Walk from the end of the frame header to the end marker.

    Args:
        data: The code stream.
        position: End of the frame header.
        frame: Its marker.
        components: Components of the frame.
        restarts: Whether a restart interval was defined before it.
    """
    scans = Scans(restarts=restarts)
    try:
        _walk(data, position, frame, scans)
    except (struct.error, IndexError):
        scans.fault = "ends without its end marker"
    if scans.fault or scans.count > MOST_SCANS:
        return scans
    if len(scans.known) < components or any(any(bits) for bits in scans.known.values()):
        scans.fault = "lacks some of its scans"
    if scans.count > 1 or frame == _PROGRESSIVE:
        scans.end = None
    return scans


def _walk(data: bytes, position: int, frame: int, scans: Scans) -> None:
    start = 0  # of entropy-coded data
    while scans.count <= MOST_SCANS:
        place, marker = _next_marker(data, position, frame, scans)
        if start:
            scans.end = place if scans.count == 1 else None
            _check_turns(data, start, place, scans)
            start = 0
        position = place + 2
        if marker == _EOI:
            if not scans.count:
                raise IndexError
            return
        if marker == _SOI or marker in FRAMES:  # another picture follows a piece of this one
            raise IndexError
        if marker in _STANDALONE:
            continue
        (length,) = struct.unpack_from(">H", data, position)
        if marker == _DRI:
            scans.restarts = any(data[position + 2 : position + length])
        position += length
        if marker == _SOS:
            _take(data[position - length + 2 : position], frame, scans)
            start = position


def _next_marker(data: bytes, position: int, frame: int, scans: Scans) -> tuple[int, int]:
    if frame == _JPEG_LS:
        pattern = _MARKER_OF_JPEG_LS
    else:
        pattern = _MARKER_OR_RESTART if scans.restarts else _MARKER
    found = pattern.search(data, position)
    if found is None:
        raise IndexError
    return found.start(), found[1][0]


def _take(body: bytes, frame: int, scans: Scans) -> None:
    """Note which coefficients a scan brings (T.81 sections B.2.3 and G.1.1.1)."""
    scans.count += 1
    count = body[0]
    first, last, low = body[1 + 2 * count], body[2 + 2 * count], body[3 + 2 * count] & 15
    if frame != _PROGRESSIVE:
        first, last, low = 0, _COEFFICIENTS - 1, 0
    for component in body[1 : 1 + 2 * count : 2]:
        bits = scans.known.setdefault(component, bytearray([_UNSEEN] * _COEFFICIENTS))
        wanted = range(first, min(last, _COEFFICIENTS - 1) + 1)
        for coefficient in wanted:
            bits[coefficient] = low


def _check_turns(data: bytes, start: int, end: int, scans: Scans) -> None:
    """Restart markers count from 0 to 7 in turn; a decoder fills in what lies between others."""
    if not scans.restarts:
        return
    found = b"".join(_RESTART.findall(data, start, end))
    if found != (_TURNS * (len(found) // len(_TURNS) + 1))[: len(found)]:
        scans.fault = "lacks a piece: its restart markers do not follow each other"

"""Strict check of a grey JPEG before GDCM sees it.

GDCM ends the whole process on a header that contradicts itself. So the structure that ITU-T T.81
annex B prescribes for one grey frame in one scan is verified first; what is left to go wrong is
entropy-coded data, on which GDCM stays calm.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

__all__ = ["JpegStructureError", "check_markers"]

_SOF_EXTENDED, _SOF_BASELINE, _SOF_LOSSLESS = 0xC1, 0xC0, 0xC3
_DHT, _DQT, _DRI, _SOS, _EOI, _COM = 0xC4, 0xDB, 0xDD, 0xDA, 0xD9, 0xFE
_APPLICATION = range(0xE0, 0xF0)
_RESTART = range(0xD0, 0xD8)
_INNER_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)


class JpegStructureError(ValueError):
    """The markers of a code stream are not those of one grey frame in one scan."""


@dataclass(slots=True)
class _State:
    lossless: bool
    precision: int = 0
    component: int = -1
    quantisation: int = -1
    tables: set[tuple[int, int]] = field(default_factory=set)  # Huffman: class, number
    quantisers: set[int] = field(default_factory=set)
    restarts: bool = False


def check_markers(data: bytes, *, lossless: bool) -> None:
    """Verify every marker segment of a code stream.

    Args:
        data: The code stream, from SOI on; padding may follow EOI.
        lossless: Whether the process is lossless (SOF3), else sequential (SOF0, SOF1).

    Raises:
        JpegStructureError: If a segment is missing, doubled, misplaced or out of range.
    """
    state = _State(lossless=lossless)
    position = 2
    while True:
        marker, body, position = _segment(data, position)
        if marker == _SOS:
            _check_scan(body, state)
            _check_entropy(data, position, state)
            return
        _check_segment(marker, body, state)


def _segment(data: bytes, position: int) -> tuple[int, bytes, int]:
    if data[position : position + 1] != b"\xff":
        _fail("bytes between markers")
    while data[position : position + 1] == b"\xff":
        position += 1
    head = data[position : position + 3]
    if len(head) < 3:
        _fail("it ends inside the header")
    length = head[1] << 8 | head[2]
    end = position + 1 + length
    if length < 2 or end > len(data):
        _fail(f"segment {head[0]:02X} has length {length}")
    return head[0], data[position + 3 : end], end


def _check_segment(marker: int, body: bytes, state: _State) -> None:
    frames = (_SOF_LOSSLESS,) if state.lossless else (_SOF_BASELINE, _SOF_EXTENDED)
    if marker in frames:
        _check_frame(body, state)
    elif marker == _DHT:
        _check_huffman(body, state)
    elif marker == _DQT:
        _check_quantisers(body, state)
    elif marker == _DRI:
        if len(body) != 2:
            _fail("restart interval")
        state.restarts = body != b"\0\0"
    elif marker not in _APPLICATION and marker != _COM:
        _fail(f"marker {marker:02X}")


def _check_frame(body: bytes, state: _State) -> None:
    if state.component >= 0 or len(body) != 9:
        _fail("frame header")
    precision, height, width, count, component, sampling, table = struct.unpack(">BHHBBBB", body)
    allowed = range(2, 17) if state.lossless else (8, 12)
    factors = {sampling >> 4, sampling & 15}
    if precision not in allowed or count != 1 or not height or not width:
        _fail("frame header")
    if not factors <= {1, 2, 3, 4} or table > 3:
        _fail("sampling factors")
    state.precision, state.component, state.quantisation = precision, component, table


def _check_huffman(body: bytes, state: _State) -> None:
    while body:
        kind, number = body[0] >> 4, body[0] & 15
        counts, total = body[1:17], sum(body[1:17])
        values = body[17 : 17 + total]
        # Every code and the all-ones code that is left free fit into 16 bits (annex C).
        used = sum(count << (16 - length) for length, count in enumerate(counts, start=1))
        if kind > 1 or number > 3 or len(counts) != 16 or len(values) != total:
            _fail("Huffman table")
        if not 0 < total <= 256 or used >= 1 << 16:
            _fail("Huffman code")
        if kind == 0 and max(values) > 16:
            _fail("Huffman categories")
        state.tables.add((kind, number))
        body = body[17 + total :]


def _check_quantisers(body: bytes, state: _State) -> None:
    while body:
        wide, number = body[0] >> 4, body[0] & 15
        size = 128 if wide else 64
        if wide > 1 or number > 3 or len(body) < 1 + size:
            _fail("quantisation table")
        state.quantisers.add(number)
        body = body[1 + size :]


def _check_scan(body: bytes, state: _State) -> None:
    if len(body) != 6 or body[0] != 1 or state.component < 0 or body[1] != state.component:
        _fail("scan header")
    direct, alternating = body[2] >> 4, body[2] & 15
    first, last, approximation = body[3], body[4], body[5]
    if (0, direct) not in state.tables:
        _fail("Huffman table missing")
    if state.lossless:
        if not 1 <= first <= 7 or last or approximation >= state.precision:
            _fail("predictor")
        return
    if (1, alternating) not in state.tables or state.quantisation not in state.quantisers:
        _fail("table missing")
    # The rest of the header says (0, 63, 0); decoders take other values as if it did.


def _check_entropy(data: bytes, position: int, state: _State) -> None:
    scan = data[position:].rstrip(b"\0\xff")
    if scan.endswith(b"\xff\xd9") and scan.count(b"\xff") - scan.count(b"\xff\0") == 1:
        return  # the common case in a fraction of the time: no other marker
    for found in _INNER_MARKER.finditer(data, position):
        marker = found[1][0]
        if marker == _EOI:
            if data[found.end() :].strip(b"\0\xff"):
                _fail("bytes behind its end")
            return
        if marker not in _RESTART or not state.restarts:
            _fail(f"marker {marker:02X} in the scan")
    _fail("no end marker")


def _fail(what: str) -> None:
    msg = f"not a well-formed JPEG of one grey frame: {what}"
    raise JpegStructureError(msg)

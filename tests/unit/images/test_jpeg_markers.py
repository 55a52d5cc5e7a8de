"""The check that keeps contradicting JPEG headers away from GDCM, which would end the process."""

from __future__ import annotations

import numpy as np
import pytest

from support import image_files as build
from torchxrayvision.images.dicom.pixels import JpegStructureError, check_markers

PIXELS = (np.indices((16, 16)).sum(0) * 8).astype("uint8")
LOSSLESS = build.jpeg_lossless(PIXELS, 8)
SEQUENTIAL = build.jpeg(PIXELS)
RESTARTED = build.jpeg(PIXELS, restart_marker_blocks=1)


@pytest.mark.parametrize("padding", [b"", b"\0", b"\xff", b"\0\0\0"])
@pytest.mark.parametrize(
    ("data", "lossless"), [(LOSSLESS, True), (SEQUENTIAL, False), (RESTARTED, False)]
)
def test_well_formed_streams_pass(data, lossless, padding):
    check_markers(data + padding, lossless=lossless)


def changed(data, marker, offset, value):
    """One byte of the segment behind a marker, counted from the marker."""
    place = data.index(b"\xff" + bytes([marker])) + offset
    return data[:place] + bytes([value]) + data[place + 1 :]


SOF3, SOF0, DHT, DQT, SOS = 0xC3, 0xC0, 0xC4, 0xDB, 0xDA
BROKEN = {
    "length 0": (changed(LOSSLESS, SOF3, 3, 0), True, "length"),
    "length past the end": (changed(LOSSLESS, SOF3, 2, 255), True, "length"),
    "precision 1": (changed(LOSSLESS, SOF3, 4, 1), True, "frame"),
    "precision 17": (changed(LOSSLESS, SOF3, 4, 17), True, "frame"),
    "precision 9, sequential": (changed(SEQUENTIAL, SOF0, 4, 9), False, "frame"),
    "no rows": (changed(changed(LOSSLESS, SOF3, 6, 0), SOF3, 5, 0), True, "frame"),
    "two components": (changed(LOSSLESS, SOF3, 9, 2), True, "frame"),
    "sampling 0": (changed(LOSSLESS, SOF3, 11, 0x01), True, "sampling"),
    "sampling 5": (changed(LOSSLESS, SOF3, 11, 0x51), True, "sampling"),
    "quantiser 9": (changed(LOSSLESS, SOF3, 12, 9), True, "sampling"),
    "arithmetic frame": (changed(LOSSLESS, SOF3, 1, 0xCB), True, "marker CB"),
    "lossless frame as sequential": (LOSSLESS, False, "marker C3"),
    "sequential frame as lossless": (SEQUENTIAL, True, "marker C0|DB"),
    "Huffman class 2": (changed(LOSSLESS, DHT, 4, 0x20), True, "Huffman table"),
    "Huffman number 4": (changed(LOSSLESS, DHT, 4, 0x04), True, "Huffman table"),
    "Huffman counts past the segment": (changed(LOSSLESS, DHT, 9, 200), True, "Huffman table"),
    "Huffman code overfull": (changed(changed(LOSSLESS, DHT, 9, 13), DHT, 5, 4), True, "code"),
    "Huffman category 200": (changed(LOSSLESS, DHT, 21, 200), True, "categories"),
    "Huffman table of another number": (changed(LOSSLESS, DHT, 4, 1), True, "missing"),
    "quantiser of width 3": (changed(SEQUENTIAL, DQT, 4, 0x30), False, "quantisation"),
    "quantiser of another number": (changed(SEQUENTIAL, DQT, 4, 0x02), False, "missing"),
    "scan of two components": (changed(LOSSLESS, SOS, 4, 2), True, "scan"),
    "scan of another component": (changed(LOSSLESS, SOS, 5, 7), True, "scan"),
    "scan of another table": (changed(LOSSLESS, SOS, 6, 0x10), True, "missing"),
    "predictor 0": (changed(LOSSLESS, SOS, 7, 0), True, "predictor"),
    "predictor 8": (changed(LOSSLESS, SOS, 7, 8), True, "predictor"),
    "point transform 12": (changed(LOSSLESS, SOS, 9, 12), True, "predictor"),
    "marker in the scan": (
        changed(LOSSLESS, SOS, 12, 0xFF)[:-2] + b"\xff\xc4\xff\xd9",
        True,
        "in the",
    ),
    "restart without interval": (LOSSLESS[:-2] + b"\xff\xd0\xff\xd9", True, "marker D0"),
    "bytes behind the end": (LOSSLESS + b"more\xff\xd9", True, "behind"),
    "no end": (LOSSLESS[:-2], True, "no end"),
    "two frames": (LOSSLESS[:15] + LOSSLESS[2:], True, "frame"),
    "scan first": (LOSSLESS[:2] + LOSSLESS[LOSSLESS.index(b"\xff\xda") :], True, "scan"),
    "garbage between": (LOSSLESS[:15] + b"x" + LOSSLESS[15:], True, "between"),
    "only the start": (LOSSLESS[:2], True, "between"),
    "half a marker": (LOSSLESS[:4], True, "inside the header"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_streams_are_refused_with_the_reason(name):
    data, lossless, words = BROKEN[name]
    with pytest.raises(JpegStructureError, match=words):
        check_markers(data, lossless=lossless)

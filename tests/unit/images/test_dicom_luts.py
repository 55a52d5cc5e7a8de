"""Lookup tables of DICOM: their scale, and data that is shorter than declared."""

from __future__ import annotations

import numpy as np
import pytest

from support import image_files as build
from torchxrayvision.images import read_image, read_raster

PIXELS = np.arange(256).reshape(16, 16).astype("uint16")


def film(entries, bits, *, stored=8, **tags):
    return build.dicom(
        PIXELS, stored=stored, ModalityLUTSequence=build.lut(entries, bits=bits), **tags
    )


def packed(data, count):
    """A table of 8 bits, its entries as bytes."""
    sequence = build.lut([0], bits=8)
    sequence[0].LUTDescriptor = [count, 0, 8]
    sequence[0]["LUTData"].VR = "OW"
    sequence[0].LUTData = data
    return build.dicom(PIXELS, stored=8, ModalityLUTSequence=sequence)


@pytest.mark.parametrize("most", [100, 200, 255])
def test_scale_does_not_follow_the_largest_entry(most):
    entries = np.minimum(np.arange(256), most)
    expected = np.minimum(PIXELS, most) / 255 * 2048 - 1024
    for bits in (8, 16):
        np.testing.assert_allclose(read_image(film(entries.tolist(), bits))[0], expected, atol=1e-3)


def test_scale_is_that_of_the_descriptor():
    entries = list(range(256))
    assert read_raster(film(entries, 10)).to_array().max() == pytest.approx(
        255 / 1023 * 2048 - 1024, abs=1e-3
    )


def test_sixteen_bits_are_believed_where_entries_need_more_than_bits_stored():
    entries = [16 * value for value in range(256)]
    expected = PIXELS * 16 / 65535 * 2048 - 1024
    np.testing.assert_allclose(read_image(film(entries, 16))[0], expected, atol=1e-3)


@pytest.mark.parametrize("missing", [2, 10, 254])
def test_table_of_words_that_is_short_is_not_read_as_bytes(missing):
    """Values behind the end of a table map to its last entry (PS3.3 section C.11.1.1)."""
    words = np.arange(256).astype("<u2").tobytes()
    raster = read_raster(packed(words[:-missing], 256))
    last = 255 - missing // 2
    assert np.array_equal(raster.pixels, np.minimum(PIXELS, last))
    assert raster.info.notes == (f"a LUT has {last + 1} entries, 256 are declared",)


@pytest.mark.parametrize("count", [255, 256])
def test_table_of_bytes_is_read_with_and_without_its_padding(count):
    data = bytes(range(count)) + bytes(count % 2)
    expected = np.minimum(PIXELS, count - 1)
    assert np.array_equal(read_raster(packed(data, count)).pixels, expected)

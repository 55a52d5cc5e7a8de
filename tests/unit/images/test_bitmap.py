"""BMP, WebP and what is packed with gzip: values as Pillow wrote them, and damage by name."""

from __future__ import annotations

import gzip
import io
import struct

import numpy as np
import pytest
from PIL import Image

from support.image_files import png, ramp
from torchxrayvision.errors import ImageReadError, ImageTooLargeError, UnsupportedImageError
from torchxrayvision.images import Limits, read_image, read_info

GREY = ramp(20, 30, 255).astype(np.uint8)
COLOUR = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=2)


def saved(pixels, kind, mode=None, **options):
    stream = io.BytesIO()
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(stream, kind, **options)
    return stream.getvalue()


def scaled(values, peak=255):
    return np.asarray(values, np.float64)[None] / peak * 2048 - 1024


@pytest.mark.parametrize("kind", ["BMP", "WEBP"])
def test_colour_is_the_mean_and_grey_is_grey(kind):
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    np.testing.assert_allclose(read_image(saved(GREY, kind, **options)), scaled(GREY), atol=1e-3)
    found = read_image(saved(COLOUR, kind, **options))
    np.testing.assert_allclose(found, scaled(COLOUR.mean(axis=2)), atol=1e-3)


def test_bmp_of_one_bit_and_of_a_palette():
    bits = (GREY > 127).astype(np.uint8)
    np.testing.assert_allclose(read_image(saved(bits * 255, "BMP", "1")), scaled(bits, 1))
    indexed = saved(GREY // 64 * 64, "BMP", "P")
    np.testing.assert_allclose(read_image(indexed), scaled(GREY // 64 * 64), atol=1e-3)
    info = read_info(saved(GREY, "BMP"))
    assert (info.format, info.bits, info.height, info.width) == ("bmp", 8, 20, 30)


def test_an_animation_needs_a_frame():
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    stream = io.BytesIO()
    frames[0].save(stream, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    with pytest.raises(UnsupportedImageError, match="2 frames"):
        read_image(stream.getvalue())
    second = read_image(stream.getvalue(), frame=1)
    np.testing.assert_allclose(second, scaled(255 - GREY), atol=1e-3)


@pytest.mark.parametrize("kind", ["BMP", "WEBP"])
def test_every_cut_is_an_error(kind):
    data = saved(GREY, kind)
    for length in range(1, len(data) - 3, 7):  # the last row's filling is no picture
        with pytest.raises(ImageReadError):
            read_image(data[:length])


def test_a_declared_size_above_the_limit_is_refused_before_decoding():
    bmp = bytearray(saved(GREY, "BMP"))
    bmp[18:26] = struct.pack("<ii", 100_000, 100_000)
    lossless = b"\x2f" + struct.pack("<I", 16382 | 16382 << 14)
    body = b"WEBPVP8L" + struct.pack("<I", len(lossless) + 9) + lossless + bytes(9)
    for data in (bytes(bmp), b"RIFF" + struct.pack("<I", len(body)) + body):
        with pytest.raises(ImageReadError, match=r"above the limit|truncated"):
            read_image(data)
    with pytest.raises(ImageTooLargeError, match="599"):
        read_image(saved(GREY, "WEBP"), limits=Limits(pixels=599))


PNG = png(ramp(20, 30, 255), 8, 0)


def test_a_file_within_gzip_is_that_file(tmp_path):
    path = tmp_path / "a.png.gz"
    path.write_bytes(gzip.compress(PNG))
    assert np.array_equal(read_image(path), read_image(PNG))
    assert read_info(path).format == "png"


@pytest.mark.parametrize("at", [-8, -6])  # checksum, and length
def test_the_checksum_of_gzip_is_compared(at):
    data = bytearray(gzip.compress(PNG))
    data[at] ^= 1
    with pytest.raises(ImageReadError, match="gzip data is damaged"):
        read_image(bytes(data))


def test_what_gzip_must_not_hold():
    with pytest.raises(ImageReadError, match="gzip data ends early"):
        read_image(gzip.compress(PNG)[:-9])
    with pytest.raises(UnsupportedImageError, match="several parts"):
        read_image(gzip.compress(PNG) + gzip.compress(PNG))
    with pytest.raises(UnsupportedImageError, match="within a gzip file"):
        read_image(gzip.compress(gzip.compress(PNG)))
    with pytest.raises(ImageTooLargeError, match="bytes of gzip"):
        read_image(gzip.compress(bytes(200 * 2**20), 1))

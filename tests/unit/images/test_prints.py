"""Nothing that a decoder prints reaches standard error, and what others print still does."""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import struct
import subprocess
import sys
import threading
import zlib

import numpy as np
import pytest
from PIL import Image

from support import image_files as build
from torchxrayvision.errors import ImageReadError, ImageTooLargeError
from torchxrayvision.images import Limits, read_raster
from torchxrayvision.images.common import catch_prints

PIXELS = (np.add.outer(np.arange(64), np.arange(72)) * 30).astype("uint16")


def twelve_bits():
    """Flat grey in 12 bits, which GDCM tries in 8 first, and says so."""
    size = 64
    data = b"\xff\xd8\xff\xdb" + struct.pack(">HB", 67, 0) + bytes([1] * 64)
    data += b"\xff\xc1" + struct.pack(">HBHHB", 11, 12, size, size, 1) + b"\x01\x11\x00"
    for kind in (0x00, 0x10):
        data += b"\xff\xc4" + struct.pack(">HB", 20, kind) + bytes([1] + [0] * 15) + b"\0"
    data += b"\xff\xda" + struct.pack(">HB", 8, 1) + b"\x01\x00\x00\x3f\x00"
    stream = data + bytes(size * size // 64 * 2 // 8) + b"\xff\xd9"
    return build.encapsulated([stream], np.zeros((size, size), "uint16"), build.EXTENDED, stored=12)


def odd_jfif():
    """A version of JFIF that GDCM ends the process on, where it is let."""
    found = twelve_bits()
    place = found.index(b"\xff\xd8\xff\xdb") + 2
    segment = b"\xff\xe0\x00\x10JFIF\0\x7f\0\0\0\1\0\1\0\0"
    (length,) = struct.unpack_from("<I", found, place - 6)
    item = struct.pack("<I", length + len(segment))
    return found[: place - 6] + item + found[place - 2 : place] + segment + found[place:]


def cut_lossless():
    stream = build.jpeg_lossless(PIXELS, 12)
    cut = stream[: len(stream) // 2] + b"\xff\xd9"
    return build.encapsulated([cut], PIXELS, build.LOSSLESS, stored=12)


def damaged_jpeg_2000():
    found = build.dataset(PIXELS)
    found.compress(build.JPEG_2000_LOSSLESS, generate_instance_uid=False)
    data = bytearray(build.write(found, build.JPEG_2000_LOSSLESS))
    place = data.index(b"\xff\x93") + 40
    data[place : place + 60] = bytes(60)
    return bytes(data)


def damaged_tiff(compression):
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "TIFF", compression=compression)
    data = bytearray(file.getvalue())
    data[60:90] = b"\xff" * 30
    return bytes(data)


FILES = {"lzw": lambda: damaged_tiff("tiff_lzw"), "packbits": lambda: damaged_tiff("packbits")}
if importlib.util.find_spec("gdcm"):
    FILES |= {"twelve": twelve_bits, "lossless": cut_lossless, "jfif": odd_jfif}
if importlib.util.find_spec("openjpeg"):
    FILES["jpeg2000"] = damaged_jpeg_2000


@pytest.mark.parametrize("name", FILES)
def test_standard_error_stays_empty(name, tmp_path):
    path = tmp_path / "film"
    path.write_bytes(FILES[name]())
    code = (
        "import sys\nfrom torchxrayvision.images import read_raster\n"
        "try:\n    read_raster(sys.argv[1])\nexcept ValueError as error:\n    print(error)\n"
        "print('end')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert done.stdout.endswith("end\n")


def test_lines_of_decoders_are_logged_with_their_file(capfd, caplog):
    caplog.set_level(logging.DEBUG)
    with catch_prints("film.dcm") as lines:
        os.write(2, b"Corrupt JPEG data: bad Huffman code\nours: hello\n")
    assert lines == ["Corrupt JPEG data: bad Huffman code"]
    assert capfd.readouterr().err == "ours: hello\n"
    assert caplog.messages == ["film.dcm: Corrupt JPEG data: bad Huffman code"]


def test_threads_share_one_catch(capfd):
    inside, done = threading.Event(), threading.Event()

    def outer():
        with catch_prints("a"):
            inside.set()
            done.wait(5)

    thread = threading.Thread(target=outer)
    thread.start()
    inside.wait(5)
    with catch_prints("b") as lines:
        os.write(2, b"LZWDecode: Not enough data\n")
    os.write(2, b"while the other still decodes\n")
    done.set()
    thread.join()
    os.write(2, b"after\n")
    assert lines == ["LZWDecode: Not enough data"]
    assert capfd.readouterr().err == "while the other still decodes\nafter\n"


def test_closed_standard_error_is_no_obstacle(tmp_path):
    path = tmp_path / "film.tif"
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "TIFF", compression="tiff_lzw")
    path.write_bytes(file.getvalue())
    code = (
        "import os, sys\nos.close(2)\nfrom torchxrayvision.images import read_raster\n"
        "print(read_raster(sys.argv[1]).shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout == "(64, 72)\n"


# Budgets of small files ---------------------------------------------------------------------------


def hollow_png(side, depth, colour):
    """A small file that declares much, padded until no single ratio gives it away."""
    channels = build.PNG_CHANNELS[colour]
    packed = zlib.compress(bytes(1000))
    padding = bytes(side * side * channels * depth // 8 // 1900)
    chunks = [build.png_header(side, side, depth, colour), build.png_chunk(b"IDAT", packed)]
    chunks += [build.png_chunk(b"teSt", padding), build.png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(("depth", "colour"), [(8, 2), (16, 2), (16, 6)])
def test_small_files_of_much_memory_are_refused(depth, colour):
    data = hollow_png(9000, depth, colour)
    with pytest.raises(ImageTooLargeError, match=r"bytes decoded, above .*Limits\(decoded_bytes"):
        read_raster(data)


def test_budget_of_decoded_bytes_can_be_set():
    data = build.png(build.ramp(30, 40, 255, 3), 8, 2)
    with pytest.raises(ImageTooLargeError):
        read_raster(data, limits=Limits(decoded_bytes=4799))
    assert read_raster(data, limits=Limits(decoded_bytes=4800)).shape == (30, 40)


def test_passes_over_a_progressive_jpeg_are_limited():
    data = build.jpeg(build.ramp(80, 80, 255), progressive=True)
    with pytest.raises(ImageTooLargeError, match=r"progressive JPEG of \d+ scans"):
        read_raster(data, limits=Limits(pixels=80 * 80))
    assert read_raster(data, limits=Limits(pixels=80 * 80 * 4)).shape == (80, 80)


def test_chunks_of_a_png_are_limited():
    chunks = [build.png_chunk(b"teSt", b"")] * 100_002
    plain = build.png(build.ramp(4, 4, 255), 8, 0)
    with pytest.raises(ImageTooLargeError, match="100,000 chunks"):
        read_raster(plain[:33] + b"".join(chunks) + plain[33:])


# Values of headers --------------------------------------------------------------------------------


TAGS = {
    "SOPClassUID": b"\x08\x00\x16\x00",
    "PhotometricInterpretation": b"\x28\x00\x04\x00",
    "TransferSyntaxUID": b"\x02\x00\x10\x00",
}


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("name", ["SMITH^JOHN", "\x1b]0;title\x07", "4711 SMITH"])
def test_errors_and_notes_quote_no_text_of_the_header(tag, name):
    data = build.dicom(PIXELS)
    place = data.index(TAGS[tag])
    (length,) = struct.unpack_from("<H", data, place + 6)
    value = name.encode().ljust(length)[:length]
    data = data[: place + 8] + value + data[place + 8 + length :]
    for cut in (len(data), data.index(b"\x28\x00\x10\x00")):
        try:
            text = repr(read_raster(data[:cut]).info)
        except ImageReadError as error:
            text = f"{error!s} {error!r}"
        assert name.split("^")[0] not in text
        assert "SMITH" not in text

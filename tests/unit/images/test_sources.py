"""Paths, bytes and streams; limits; formats that are refused; nothing global is touched."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from support import image_files as build
from torchxrayvision.errors import (
    ImageNotFoundError,
    ImageReadError,
    ImageTooLargeError,
    UnsupportedImageError,
)
from torchxrayvision.images import (
    DEFAULT_LIMITS,
    Limits,
    Raster,
    read_image,
    read_info,
    read_raster,
    silence_decoders,
)

GREY = build.ramp(20, 30, 255)
PNG = build.png(GREY, 8, 0)


@pytest.fixture
def film(tmp_path):
    path = tmp_path / "film"
    path.write_bytes(PNG)
    return path


def test_all_kinds_of_source_give_the_same(film):
    expected = read_image(PNG)
    with film.open("rb") as stream:
        sources = [film, str(film), bytearray(PNG), memoryview(PNG), io.BytesIO(PNG), stream]
        for source in sources:
            assert np.array_equal(read_image(source), expected)


@pytest.mark.parametrize("source", [3, None, ["a"], GREY])
def test_other_sources_are_a_type_error(source):
    with pytest.raises(TypeError, match=type(source).__name__):
        read_image(source)


def test_stream_in_text_mode_is_a_type_error():
    with pytest.raises(TypeError, match="binary"):
        read_image(io.StringIO("text"))


def test_closed_stream_is_a_read_error():
    stream = io.BytesIO(PNG)
    stream.close()
    with pytest.raises(ImageReadError, match="closed"):
        read_image(stream)


class Trickle(io.RawIOBase):
    """A stream without a buffer: each read gives what has come in so far."""

    def __init__(self, data, size):
        self.data, self.size, self.given = data, size, 0

    def readable(self):
        return True

    def read(self, size=-1):
        piece = self.data[self.given : self.given + min(size, self.size)]
        self.given += len(piece)
        return piece


@pytest.mark.parametrize("size", [1, 100, 10**6])
def test_stream_that_gives_pieces_is_read_to_its_end(size):
    assert np.array_equal(read_image(Trickle(PNG, size)), read_image(PNG))
    with pytest.raises(ImageTooLargeError):
        read_image(Trickle(PNG, size), limits=Limits(file_bytes=len(PNG) - 1))
    endless = Trickle(PNG * 100, size)
    with pytest.raises(ImageTooLargeError):
        read_image(endless, limits=Limits(file_bytes=500))
    assert endless.given == 501


def test_missing_file_is_also_a_file_not_found_error(tmp_path):
    with pytest.raises(ImageNotFoundError, match="no such file") as caught:
        read_image(tmp_path / "none.png")
    assert isinstance(caught.value, FileNotFoundError)
    assert isinstance(caught.value, ImageReadError)
    assert str(tmp_path / "none.png") in str(caught.value)


def test_unreadable_places_are_read_errors(tmp_path):
    with pytest.raises(ImageReadError, match="folder"):
        read_image(tmp_path)
    with pytest.raises(ImageReadError, match="null"):
        read_image("a\0b")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ImageReadError, match="regular"):
            read_image(tmp_path / "pipe")  # and does not wait for a writer


def test_empty_file_is_named(tmp_path):
    path = tmp_path / "empty.png"
    path.touch()
    with pytest.raises(ImageReadError, match=r"empty\.png: the file is empty"):
        read_image(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x28\xb5\x2f\xfd" + b"\0" * 200, "Zstandard"),
        (b"PK\x03\x04" + b"\0" * 200, "zip"),
        (b"GIF89a" + b"\0" * 200, "GIF"),
        (b"BM" + b"\0" * 200, "BMP"),
        (b"RIFF" + b"\0" * 200, "WebP"),
        (b"%PDF-1.7" + b"\0" * 200, "PDF"),
        (b"\x93NUMPY\x01\0" + b"\0" * 200, "normalize"),
        (b"<!DOCTYPE html><html>not found</html>", "web page"),
        (b"\n <html><body>", "web page"),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n\0\0\0\x14ftypmjp2" + b"\0" * 200, "Motion JPEG 2000"),
    ],
)
def test_known_formats_are_refused_by_name(data, words):
    with pytest.raises(UnsupportedImageError, match=words):
        read_image(data)


@pytest.mark.parametrize(
    "data", [b"\0", b"hello", b"\x89PNG", os.urandom(0) + bytes(500), b"\xff" * 500]
)
def test_unknown_bytes_are_refused(data):
    with pytest.raises(ImageReadError, match="not a PNG, JPEG, TIFF or DICOM file"):
        read_image(data)


def test_default_limits_let_the_largest_films_through():
    assert DEFAULT_LIMITS.pixels > 50_000_000
    assert Limits() == DEFAULT_LIMITS


@pytest.mark.parametrize("field", ["pixels", "file_bytes", "expansion", "frames"])
@pytest.mark.parametrize("value", [0, -1, 1.5, None])
def test_limits_are_positive_whole_numbers(field, value):
    with pytest.raises(ValueError, match=field):
        Limits(**{field: value})


FILES = {
    "png": PNG,
    "jpeg": build.jpeg(GREY),
    "tiff": build.tiff(GREY, 8),
    "dicom": build.dicom(GREY.astype("uint8")),
}


@pytest.mark.parametrize("kind", FILES)
def test_pixel_limit_is_on_declared_size(kind):
    read_image(FILES[kind], limits=Limits(pixels=600))
    with pytest.raises(ImageTooLargeError, match="30 x 20 pixels, above the limit of 599"):
        read_image(FILES[kind], limits=Limits(pixels=599))


@pytest.mark.parametrize("kind", FILES)
def test_file_limit_comes_before_reading(kind, tmp_path):
    data = FILES[kind]
    path = tmp_path / "film"
    path.write_bytes(data)
    for source in (data, path, io.BytesIO(data)):
        with pytest.raises(ImageTooLargeError, match="bytes, above the limit"):
            read_image(source, limits=Limits(file_bytes=len(data) - 1))


def test_frame_limit():
    stack = np.zeros((4, 5, 6), "uint8")
    with pytest.raises(ImageTooLargeError, match="4 frames"):
        read_image(build.dicom(stack), frame=0, limits=Limits(frames=3))
    with pytest.raises(ImageReadError, match="too long"):
        read_image(build.tiff(list(stack), 8), frame=0, limits=Limits(frames=2))


def test_expansion_limit_spares_small_blank_films():
    blank = build.png(np.zeros((2048, 2048), int), 8, 0, filters=(0,))
    assert 2048 * 2048 / len(blank) > 500
    read_info(blank, limits=Limits(expansion=10))
    header = build.png_header(9000, 9000, 8, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + header
        + build.png_chunk(b"IDAT", b"x" * 100)
        + build.png_chunk(b"IEND", b"")
    )
    with pytest.raises(ImageTooLargeError, match="truncated or hostile"):
        read_image(bomb)


def test_size_above_pillows_own_bound_is_a_matter_of_our_limits(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for kind in ("png", "jpeg", "dicom"):  # Pillow's TIFF reader cannot be told otherwise
        assert read_image(FILES[kind]).shape == (1, 20, 30)


def test_truncated_files_are_refused_even_where_pillow_was_told_to_accept_them(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for kind in ("png", "jpeg", "tiff"):
        data = FILES[kind]
        with pytest.raises(ImageReadError):
            read_image(data[: len(data) * 2 // 3])


def test_errors_pickle_with_path_and_reason(film):
    film.write_bytes(PNG[:100])
    with pytest.raises(ImageReadError) as caught:
        read_image(film)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert str(again).startswith(f"{film}: ")


def test_raster_shape_and_values(film):
    raster = read_raster(film)
    assert isinstance(raster, Raster)
    assert raster.shape == (20, 30)
    values = raster.pixels * raster.scale + raster.offset
    np.testing.assert_allclose(raster.to_array()[0], values, atol=2e-4)


def test_warning_filters_are_as_before_after_reading_in_threads():
    before = list(warnings.filters)
    failures = []

    def work():
        for data in [*FILES.values(), build.dicom(GREY.astype("uint8"))[:400]] * 5:
            try:
                read_image(data)
            except ImageReadError:
                continue
            except Exception as error:  # noqa: BLE001 - 1.5.7 lacks the decoder or the tags
                failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert warnings.filters == before


class Noise(Warning):
    """A warning of a library that filters it when it is imported, as requests does."""


def test_a_filter_that_is_added_while_a_film_is_read_stays():
    with warnings.catch_warnings():
        with silence_decoders():
            warnings.simplefilter("ignore", Noise)
        assert ("ignore", None, Noise, None, 0) in warnings.filters


def test_a_reader_that_overlaps_catch_warnings_leaves_no_filter_behind():
    with warnings.catch_warnings():
        before = list(warnings.filters)
        reading, caught = silence_decoders(), warnings.catch_warnings()
        reading.__enter__()
        caught.__enter__()
        reading.__exit__(None, None, None)
        assert warnings.filters == before
        caught.__exit__(None, None, None)
        assert warnings.filters == before


def test_reading_a_picture_imports_neither_torch_nor_pydicom(film):
    code = (
        "import sys; from torchxrayvision.images import read_image, normalize;"
        "assert 'PIL' not in sys.modules;"
        f"read_image({str(film)!r});"
        "heavy = {'torch', 'pydicom', 'pandas', 'cv2', 'skimage'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env=environment)


def test_first_dicom_file_of_a_process_warns_nothing(tmp_path):
    """pydicom installs filters when it is imported; a reader must not undo or suffer them."""
    path = tmp_path / "damaged.dcm"
    data = bytearray(build.dicom(GREY.astype("uint8")))
    start = data.rindex(b"\xe0\x7f\x10\x00")
    data[start + 4 : start + 6] = b"\x4f\x9f"
    path.write_bytes(data)
    code = (
        "from torchxrayvision.images import read_image\n"
        "from torchxrayvision.errors import ImageReadError\n"
        f"try:\n    read_image({str(path)!r})\nexcept ImageReadError:\n    print('typed')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "typed"
    assert done.stderr == ""


def test_package_is_reached_by_its_public_names():
    import torchxrayvision.images as package

    assert all(hasattr(package, name) for name in package.__all__)
    assert Path(package.__file__).name == "__init__.py"

"""Headers that contradict the pixels, or lack what others default: the pixels win, with a note."""

from __future__ import annotations

import importlib.util
import struct

import numpy as np
import pytest

from support import image_files as build
from torchxrayvision.errors import ImageReadError, UnsupportedImageError
from torchxrayvision.images import read_info, read_raster

needs_gdcm = pytest.mark.skipif(not importlib.util.find_spec("gdcm"), reason="needs python-gdcm")
needs_charls = pytest.mark.skipif(not importlib.util.find_spec("jpeg_ls"), reason="needs pyjpegls")


def film(bits, shape=(60, 52)):
    """Smooth with noise, over nearly all of its range."""
    rows, columns = np.indices(shape) / 9
    noise = np.random.default_rng(0).normal(0, 0.004, shape)
    share = 0.5 + 0.45 * np.sin(rows) * np.cos(columns) + noise
    return np.round(np.clip(share, 0, 1) * (2**bits - 1)).astype("uint16")


def assert_film(raster, pixels, bits, *notes):
    assert np.array_equal(raster.pixels, pixels)
    np.testing.assert_allclose(
        raster.to_array()[0], pixels / (2**bits - 1) * 2048 - 1024, atol=3e-4
    )
    assert raster.info.bits == bits
    assert len(raster.info.notes) == len(notes)
    for note, found in zip(notes, raster.info.notes, strict=True):
        assert note in found


# High Bit and Bits Stored -------------------------------------------------------------------------


@pytest.mark.parametrize(("stored", "high"), [(12, 15), (12, 13), (10, 15), (14, 15), (12, 2)])
def test_high_bit_is_not_believed_where_values_are_right_aligned(stored, high):
    pixels = film(stored)
    raster = read_raster(build.dicom(pixels, stored=stored, HighBit=high))
    assert_film(raster, pixels, stored, f"High Bit {high} is ignored")


@pytest.mark.parametrize(("stored", "high"), [(12, 15), (10, 13), (10, 15)])
def test_high_bit_is_obeyed_where_values_reach_it(stored, high):
    pixels = film(stored)
    shifted = pixels << (high + 1 - stored) | 1
    raster = read_raster(build.dicom(shifted, stored=stored, HighBit=high))
    assert_film(raster, pixels, stored)


@pytest.mark.parametrize(("bits", "stored", "high"), [(12, 10, 15), (14, 12, 15), (12, 8, 11)])
def test_high_bit_is_not_believed_where_that_would_cut_off_low_bits_in_use(bits, stored, high):
    pixels = film(bits)
    raster = read_raster(build.dicom(pixels, stored=stored, HighBit=high))
    notes = (f"High Bit {high} is ignored: the values use", f"contradicted by pixels of {bits}")
    assert_film(raster, pixels, bits, *notes)


def test_high_bit_is_obeyed_beside_an_overlay_in_the_low_bits():
    pixels = film(12)
    overlay = np.zeros(pixels.shape, bool)
    overlay[10:30:2] = overlay[:, 5:20:3] = True
    raster = read_raster(build.dicom(pixels << 4 | overlay * np.uint16(8), stored=12, HighBit=15))
    assert_film(raster, pixels, 12)


@pytest.mark.parametrize(("bits", "stored"), [(12, 10), (14, 8), (10, 8)])
def test_values_that_go_on_above_bits_stored_are_not_wrapped(bits, stored):
    pixels = film(bits)
    raster = read_raster(build.dicom(pixels, stored=stored))
    assert_film(raster, pixels, bits, f"Bits Stored {stored} is contradicted by pixels of {bits}")


def test_overlays_in_the_high_bits_are_cut_off_as_before():
    pixels = film(12)
    overlay = np.zeros(pixels.shape, bool)
    overlay[10:30:2] = overlay[:, 5:20:3] = True
    raster = read_raster(build.dicom(pixels | overlay * np.uint16(0x1000), stored=12))
    assert_film(raster, pixels, 12)


@needs_gdcm
@pytest.mark.parametrize(("precision", "stored"), [(12, 10), (12, 8), (14, 12), (16, 12)])
def test_lossless_stream_tells_its_own_depth(precision, stored):
    pixels = film(precision)
    stream = build.jpeg_lossless(pixels, precision)
    data = build.encapsulated([stream], pixels, build.LOSSLESS, stored=stored)
    assert_film(read_raster(data), pixels, precision, f"Bits Stored {stored} is contradicted")


@needs_gdcm
def test_depth_of_a_stream_changes_nothing_where_the_values_fit():
    pixels = film(10)
    stream = build.jpeg_lossless(pixels, 16)
    raster = read_raster(build.encapsulated([stream], pixels, build.LOSSLESS, stored=10))
    assert_film(raster, pixels, 10)


@pytest.mark.parametrize("signed", [False, True])
def test_film_that_uses_little_of_its_range_is_noted(signed):
    raster = read_raster(build.dicom(film(12), signed=signed))
    (note,) = raster.notes
    assert note.startswith("uses only 5.")
    assert raster.info.notes == ()
    assert read_raster(build.dicom(film(12), stored=12)).notes == ()
    assert read_raster(build.png(film(12), 16, 0)).notes == (note,)


# Elements that are odd, or missing ----------------------------------------------------------------


def text(tag, vr, value):
    value += b" " * (len(value) % 2)
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def with_element(data, tag, vr, value):
    """A file with one more element, in its place."""
    place = data.index(b"\xe0\x7f\x10\x00")
    for later in (0x00281052, 0x00281053):
        found = data.find(struct.pack("<HH", later >> 16, later & 0xFFFF))
        if found > 0 and tag < later:
            place = min(place, found)
    return data[:place] + text(tag, vr, value) + data[place:]


@pytest.mark.parametrize(
    ("tag", "vr", "value", "note"),
    [
        (0x00281052, b"DS", b"-1000,5", ""),
        (0x00281053, b"DS", b"1,0", ""),
        (0x00281053, b"DS", b"SMITH^JOHN", "RescaleSlope is not a number"),
        (0x00281053, b"DS", b"nan", "RescaleSlope is not a number"),
        (0x00280120, b"US", b"", ""),
        (0x00281050, b"DS", b"abc", "WindowCenter is not a number"),
        (0x00281056, b"CS", b"SMITH^JOHN", ""),
    ],
)
def test_odd_optional_elements_do_not_spoil_the_film(tag, vr, value, note):
    data = with_element(build.dicom(film(12), stored=12), tag, vr, value)
    raster = read_raster(data, voi=True)
    assert_film(raster, film(12), 12, *([note] if note else []))
    assert "SMITH" not in str(raster.info)


@pytest.mark.parametrize("frames", ["1A", "x", "", "nan"])
def test_odd_number_of_frames_is_one(frames):
    found = build.dicom(film(12), stored=12)
    place = found.index(b"\x28\x00\x10\x00US")
    data = found[:place] + text(0x00280008, b"IS", frames.encode()) + found[place:]
    notes = ["NumberOfFrames"] if frames else []
    assert_film(read_raster(data), film(12), 12, *notes)


@pytest.mark.parametrize("high", [11, 15])
def test_missing_bits_stored_is_told_by_high_bit(high):
    found = build.dataset(film(12), HighBit=high)
    del found.BitsStored
    assert_film(read_raster(build.write(found)), film(12), high + 1, "BitsStored is missing")


def test_missing_bits_stored_and_high_bit_are_those_allocated():
    found = build.dataset(film(16))
    del found.BitsStored, found.HighBit
    assert_film(read_raster(build.write(found)), film(16), 16, "BitsStored is missing")


# What stands around the pixel data ----------------------------------------------------------------


@pytest.mark.parametrize(
    "stray",
    [
        struct.pack("<HH2sH", 0x7FE1, 0x0010, b"LO", 6) + b"MAKER ",
        struct.pack("<HHI", 0xFFFE, 0xE000, 10) + text(0x00186012, b"US", b"\1\0"),
        struct.pack("<HH2sH", 0x7FF1, 0x0011, b"SH", 2) + b"AB",
    ],
)
def test_elements_before_the_pixel_data_that_belong_behind_it(stray):
    data = build.dicom(film(12), stored=12)
    place = data.index(b"\xe0\x7f\x10\x00")
    assert_film(read_raster(data[:place] + stray + data[place:]), film(12), 12)


def encapsulated(items, syntax, pixels, *, end=b"\xfe\xff\xdd\xe0\0\0\0\0", **tags):
    """A file of the items given, the first of them the table of offsets."""
    data = build.encapsulated([b"\xff\xd8"], pixels, syntax, **tags)
    place = data.index(b"\xe0\x7f\x10\x00OB") + 12
    body = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
    return data[:place] + body + end


def even(data):
    return data + b"\0" * (len(data) % 2)


@pytest.mark.parametrize(
    "table", [b"", struct.pack("<I", 999), struct.pack("<3I", 0, 30, 60), b"\1\2", b"\xff" * 8]
)
@pytest.mark.parametrize("fragments", [1, 3])
def test_table_of_offsets_of_one_frame_is_not_asked(table, fragments):
    pixels = (film(8) & 0xFF).astype("uint8")
    stream = even(build.jpeg(pixels, quality=95))
    cuts = np.linspace(0, len(stream), fragments + 1).astype(int) // 2 * 2
    parts = [stream[a:b] for a, b in zip(cuts[:-1], [*cuts[1:-1], len(stream)], strict=True)]
    raster = read_raster(encapsulated([table, *parts], build.BASELINE, pixels))
    assert np.array_equal(raster.pixels, read_raster(stream).pixels)


@pytest.mark.parametrize("table", [b"", struct.pack("<2I", 0, 4444)])
@pytest.mark.parametrize("split", [False, True])
def test_frames_are_told_by_their_fragments(table, split):
    frames = np.stack([film(8), film(8)[::-1]]).astype("uint8")
    streams = [even(build.jpeg(frame, quality=95)) for frame in frames]
    items = [table]
    for stream in streams:
        items += [stream[:400], stream[400:]] if split else [stream]
    data = encapsulated(items, build.BASELINE, frames)
    for number, stream in enumerate(streams):
        found = read_raster(data, frame=number).pixels
        assert np.array_equal(found, read_raster(stream).pixels)


def test_frames_that_nothing_tells_are_refused():
    frames = np.stack([film(8), film(8)]).astype("uint8")
    data = encapsulated([b"", b"a" * 10, b"b" * 10, b"c" * 10], build.BASELINE, frames)
    with pytest.raises(ImageReadError, match="none tells where its frames begin"):
        read_raster(data, frame=1)


@pytest.mark.parametrize("tail", [b"\x20", b"\x00\xd3\x0c\x99", b"\xff\xd9", b"junk" * 9])
@pytest.mark.parametrize("kind", ["jpeg", "lossless", "jpeg-ls", "jpeg2000"])
def test_bytes_after_the_end_marker_are_no_part_of_the_picture(kind, tail):
    pixels = film(8).astype("uint8") if kind == "jpeg" else film(12)
    data, stream, syntax = stream_of(kind, pixels)
    raster = read_raster(encapsulated([b"", even(stream + tail)], syntax, pixels, **data))
    whole = read_raster(encapsulated([b"", even(stream)], syntax, pixels, **data))
    assert np.array_equal(raster.pixels, whole.pixels)
    if kind != "jpeg":
        assert np.array_equal(raster.pixels, pixels)


def stream_of(kind, pixels):
    """Tags, a code stream and its transfer syntax."""
    if kind == "jpeg":
        return {}, build.jpeg(pixels, quality=95), build.BASELINE
    if kind == "lossless":
        pytest.importorskip("gdcm")
        return {"stored": 12}, build.jpeg_lossless(pixels, 12), build.LOSSLESS
    syntax = build.JPEG_LS if kind == "jpeg-ls" else build.JPEG_2000_LOSSLESS
    pytest.importorskip("jpeg_ls" if kind == "jpeg-ls" else "openjpeg")
    found = build.dataset(pixels, stored=12)
    found.compress(syntax, generate_instance_uid=False)
    (length,) = struct.unpack_from("<I", found.PixelData, 4)
    (size,) = struct.unpack_from("<I", found.PixelData, 12 + length)
    return {"stored": 12}, found.PixelData[16 + length : 16 + length + size].rstrip(b"\0"), syntax


@pytest.mark.parametrize("kind", ["jpeg", "lossless", "jpeg-ls", "jpeg2000"])
@pytest.mark.parametrize(
    "declared",
    [build.BASELINE, build.LOSSLESS, build.JPEG_LS, build.JPEG_2000, build.RLE, build.EXPLICIT],
)
def test_code_stream_tells_its_kind(kind, declared):
    pixels = film(8).astype("uint8") if kind == "jpeg" else film(12)
    tags, stream, syntax = stream_of(kind, pixels)
    right = encapsulated([b"", even(stream)], syntax, pixels, **tags)
    place = right.index(b"UI", right.index(b"\x02\x00\x10\x00"))
    (size,) = struct.unpack_from("<H", right, place + 2)
    uid = declared.encode() + b"\0" * (len(declared) % 2)
    wrong = right[: place + 2] + struct.pack("<H", len(uid)) + uid + right[place + 4 + size :]
    raster = read_raster(wrong)
    assert np.array_equal(raster.pixels, read_raster(right).pixels)
    if declared != syntax and declared not in (build.JPEG_2000,):
        assert raster.info.notes[0].startswith("declared as ")


@pytest.mark.parametrize("syntax", [build.BASELINE, build.LOSSLESS, build.JPEG_LS])
def test_missing_end_of_the_pixel_data_is_noted(syntax):
    kind = {build.BASELINE: "jpeg", build.LOSSLESS: "lossless", build.JPEG_LS: "jpeg-ls"}[syntax]
    pixels = film(8).astype("uint8") if kind == "jpeg" else film(12)
    tags, stream, syntax = stream_of(kind, pixels)
    raster = read_raster(encapsulated([b"", even(stream)], syntax, pixels, end=b"", **tags))
    assert raster.info.notes == ("the end of the DICOM pixel data is not marked",)
    cut = encapsulated([b"", even(stream)], syntax, pixels, end=b"", **tags)[:-60]
    with pytest.raises(ImageReadError, match="truncated"):
        read_raster(cut)


# Decoders -----------------------------------------------------------------------------------------


@needs_gdcm
@needs_charls
def test_every_decoder_is_asked_and_named():
    pixels = film(16)
    tags, stream, syntax = stream_of("jpeg-ls", film(12))
    odd = encapsulated([b"", even(stream[:-2] + b"\0" + stream[-2:])], syntax, pixels, **tags)
    assert np.array_equal(read_raster(odd).pixels, film(12))
    cut = encapsulated([b"", even(stream[: len(stream) // 2] + b"\xff\xd9")], syntax, pixels)
    with pytest.raises(ImageReadError, match=r"pyjpegls: .*; gdcm: "):
        read_raster(cut)


@needs_gdcm
@pytest.mark.parametrize(("se", "ah"), [(63, 0), (0, 1), (1, 0), (255, 15)])
def test_scan_header_of_a_lossless_jpeg_as_some_scanners_write_it(se, ah):
    pixels = film(12)
    stream = bytearray(build.jpeg_lossless(pixels, 12))
    place = stream.index(b"\xff\xda") + 8
    stream[place], stream[place + 1] = se, stream[place + 1] & 15 | ah << 4
    data = build.encapsulated([bytes(stream)], pixels, build.LOSSLESS, stored=12)
    assert_film(read_raster(data), pixels, 12)


@pytest.mark.parametrize("stray", [b"\0\1\2", b"8BIM", b"\xff\x00", b"\0" * 300])
@pytest.mark.parametrize("dicom", [False, True])
def test_stray_bytes_between_the_segments_of_a_jpeg(stray, dicom):
    pixels = film(8).astype("uint8")
    plain = build.jpeg(pixels, quality=95)
    data = plain[:20] + stray + plain[20:]
    place = data.index(b"\xff\xc0")
    data = data[:place] + stray + data[place:]
    if dicom:
        data = build.encapsulated([data], pixels, build.BASELINE)
    assert np.array_equal(read_raster(data).pixels, read_raster(plain).pixels)


@needs_gdcm
def test_stray_bytes_in_a_lossless_jpeg():
    pixels = film(12)
    stream = build.jpeg_lossless(pixels, 12)
    place = stream.index(b"\xff\xc4")
    data = stream[:place] + b"\0\1\2" + stream[place:]
    assert_film(
        read_raster(build.encapsulated([data], pixels, build.LOSSLESS, stored=12)), pixels, 12
    )


def test_arithmetic_coding_is_named():
    stream = bytearray(build.jpeg(film(8)))
    stream[stream.index(b"\xff\xc0") + 1] = 0xC9
    data = build.encapsulated([bytes(stream)], film(8).astype("uint8"), build.BASELINE)
    with pytest.raises(UnsupportedImageError, match="arithmetic-coded"):
        read_raster(data)


# Pixels that are not square -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "aspect"),
    [
        ({"PixelSpacing": ["0.3", "0.15"]}, 2.0),
        ({"ImagerPixelSpacing": ["0.15", "0.3"]}, 0.5),
        ({"PixelAspectRatio": ["2", "1"]}, 2.0),
        ({"PixelSpacing": ["0.2", "0.2"], "PixelAspectRatio": ["2", "1"]}, 1.0),
        ({"PixelAspectRatio": ["1", "0"]}, 1.0),
        ({"PixelSpacing": ["0.14", "0.14001"]}, 1.0),
        ({"PixelSpacing": ["0.01", "50"]}, 1.0),
    ],
)
def test_aspect_of_dicom_pixels(tags, aspect):
    info = read_info(build.dicom(film(12), stored=12, **tags))
    assert info.aspect == aspect
    assert len(info.notes) == (aspect != 1)


def test_aspect_of_other_pixels():
    pixels = film(8)
    physical = (b"pHYs", struct.pack(">IIB", 200, 100, 1))
    assert read_info(build.png(pixels, 8, 0, extra=[physical])).aspect == 2.0
    assert read_info(build.jpeg(pixels, dpi=(300, 100))).aspect == 3.0
    assert read_info(build.jpeg(pixels, dpi=(72, 72))).aspect == 1.0
    turned = build.tiff(pixels, 8, tags={274: 6})
    assert read_info(turned).aspect == 1.0


# Notes in tables ----------------------------------------------------------------------------------


def test_notes_reach_the_check_of_a_file(tmp_path):
    from torchxrayvision.screening import iter_checks

    path = tmp_path / "film.dcm"
    path.write_bytes(build.dicom(film(12, (160, 140)), stored=12, HighBit=15))
    (found,) = iter_checks([path])
    messages = [remark.message for remark in found.remarks if remark.code == "header"]
    assert messages == ["High Bit 15 is ignored: no value uses the bits up to it"]


@pytest.mark.filterwarnings("error::torchxrayvision.errors.ImageRangeWarning")
def test_dark_film_is_noted_and_warns_of_no_scale(tmp_path):
    from torchxrayvision.inference import predict
    from torchxrayvision.models import get_model

    path = tmp_path / "film.dcm"
    path.write_bytes(build.dicom(film(12, (160, 140)), signed=True))
    model = get_model("resnet18", num_classes=2).eval()
    model.input_resolution = 64
    table = predict([path], model, engine="torch")
    assert table["error"].tolist() == [""]
    assert "of the range that the file declares" in table["check"][0]

"""DICOM: what the tags say is what comes out."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest

from support import image_files as build
from torchxrayvision.errors import DataWarning, ImageReadError, UnsupportedImageError
from torchxrayvision.images import read_image, read_info, read_raster, read_xray_dcm

SHAPE = (9, 14)


def pixels_of(top, dtype="uint16"):
    return build.ramp(*SHAPE, top).astype(dtype)


def assert_fraction(image, fraction):
    assert image.shape == (1, *SHAPE)
    np.testing.assert_allclose(image[0], np.asarray(fraction) * 2048 - 1024, atol=3e-4)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
@pytest.mark.parametrize("missing", [0, 1, 4])
def test_full_scale_is_bits_stored(dtype, missing):
    stored = np.dtype(dtype).itemsize * 8 - missing
    pixels = pixels_of(2**stored - 1, dtype)
    assert_fraction(read_image(build.dicom(pixels, stored=stored)), pixels / (2.0**stored - 1))


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32"])
@pytest.mark.parametrize("missing", [0, 4])
def test_signed_pixels_use_the_signed_range(dtype, missing):
    stored = np.dtype(dtype).itemsize * 8 - missing
    low = -(2 ** (stored - 1))
    pixels = (build.ramp(*SHAPE, 2**stored - 1) + low).astype(dtype)
    data = build.dicom(pixels, stored=stored, signed=True)
    assert_fraction(read_image(data), (pixels.astype(float) - low) / (2.0**stored - 1))
    assert read_info(data).signed


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("garbage", [0xF000, 0x5000])
def test_unused_high_bits_are_cut_off(signed, garbage):
    clean = pixels_of(4095)
    dirty = clean | np.uint16(garbage)
    image = read_image(build.dicom(dirty, stored=12, signed=signed))
    assert_fraction(image, ((clean + 2048) % 4096 if signed else clean) / 4095)


def test_high_bit_above_bits_stored_shifts_the_values():
    pixels = pixels_of(4095)
    data = build.dicom(pixels << 4 | 0x7, stored=12, HighBit=15)
    assert_fraction(read_image(data), pixels / 4095)


def test_odd_number_of_bytes_is_padded_away():
    pixels = build.ramp(3, 5, 255).astype("uint8")
    assert read_image(build.dicom(pixels)).shape == (1, 3, 5)


@pytest.mark.parametrize("fix", [True, False])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_monochrome1_is_inverted_unless_told_otherwise(photometric, fix):
    pixels = pixels_of(4095)
    data = build.dicom(pixels, stored=12, photometric=photometric)
    inverted = fix and photometric == "MONOCHROME1"
    expected = 1 - pixels / 4095 if inverted else pixels / 4095
    assert_fraction(read_image(data, fix_monochrome=fix), expected)
    # Code written for 1.5.7 expects its warning; no other way to read gives one.
    said = pytest.warns(DataWarning, match="MONOCHROME1 is inverted") if inverted else nullcontext()
    with said:
        read = read_xray_dcm(data, fix_monochrome=fix)
    assert np.array_equal(read, read_image(data, fix_monochrome=fix)[0])
    assert read_raster(data).pixels.dtype == np.uint16, "stored values are kept"


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("slope", "intercept"), [("1", "-1024"), ("0.25", "3"), ("-1", "4095")])
def test_linear_rescale_only_matters_by_the_sign_of_its_slope(slope, intercept, photometric):
    pixels = pixels_of(4095)
    data = build.dicom(
        pixels, stored=12, photometric=photometric, RescaleSlope=slope, RescaleIntercept=intercept
    )
    inverted = (photometric == "MONOCHROME1") != (float(slope) < 0)
    assert_fraction(read_image(data), 1 - pixels / 4095 if inverted else pixels / 4095)


def test_modality_lut_is_applied_and_wins_over_a_rescale():
    pixels = pixels_of(1023)
    table = 1023 - np.arange(1024)
    sequence = build.lut(table.tolist(), bits=10)
    data = build.dicom(pixels, stored=10, ModalityLUTSequence=sequence, RescaleSlope="3")
    assert_fraction(read_image(data), 1 - pixels / 1023)


def test_modality_lut_holds_its_end_values_outside():
    pixels = pixels_of(1023)
    table = np.arange(100, 200)
    sequence = build.lut(table.tolist(), first=500, bits=8)
    data = build.dicom(pixels, stored=10, ModalityLUTSequence=sequence)
    expected = table[np.clip(pixels.astype(int) - 500, 0, 99)]
    assert_fraction(read_image(data), expected / 255)


def test_modality_lut_on_signed_values_starts_below_zero():
    pixels = (build.ramp(*SHAPE, 4095) - 2048).astype("int16")
    table = np.arange(4096)
    sequence = build.lut(table.tolist(), first=(-2048) % 65536, bits=12)
    data = build.dicom(pixels, stored=12, signed=True, ModalityLUTSequence=sequence)
    assert_fraction(read_image(data), (pixels.astype(int) + 2048) / 4095)


def test_lut_range_is_what_its_entries_need():
    """Writers state 16 bits for a table of 10; the picture must not come out black."""
    pixels = pixels_of(1023)
    sequence = build.lut(list(range(1024)), bits=16)
    data = build.dicom(pixels, stored=10, ModalityLUTSequence=sequence)
    assert_fraction(read_image(data), pixels / 1023)


def test_lut_of_65536_entries_declares_zero():
    pixels = pixels_of(65535)
    sequence = build.lut([0], bits=16)
    sequence[0].LUTDescriptor = [0, 0, 16]
    sequence[0]["LUTData"].VR = "OW"
    sequence[0].LUTData = np.arange(65536)[::-1].astype("<u2").tobytes()
    data = build.dicom(pixels, ModalityLUTSequence=sequence)
    assert_fraction(read_image(data), 1 - pixels / 65535)


@pytest.mark.parametrize(
    ("packed", "syntax"),
    [
        ("u1", build.EXPLICIT),
        ("<u2", build.EXPLICIT),
        ("<u2", build.IMPLICIT),
        (">u2", build.BIG_ENDIAN),
    ],
)
def test_lut_data_as_bytes(packed, syntax):
    pixels = pixels_of(255)
    sequence = build.lut([0], bits=8)
    sequence[0].LUTDescriptor = [256, 0, 8]
    sequence[0]["LUTData"].VR = "OW"
    sequence[0].LUTData = (255 - np.arange(256)).astype(packed).tobytes()
    data = build.dicom(pixels, syntax, stored=8, ModalityLUTSequence=sequence)
    assert_fraction(read_image(data), 1 - pixels / 255)


def window(values, centre, width, function="LINEAR"):
    """PS3.3 section C.11.2.1.2 and C.11.2.1.3, output from 0 to 1, one value at a time."""
    out = []
    for x in np.ravel(values):
        if function == "SIGMOID":
            out.append(1 / (1 + np.exp(min(700, -4 * (x - centre) / width))))
        elif function == "LINEAR_EXACT":
            if x <= centre - width / 2:
                out.append(0)
            elif x > centre + width / 2:
                out.append(1)
            else:
                out.append((x - centre) / width + 0.5)
        elif x <= centre - 0.5 - (width - 1) / 2:
            out.append(0)
        elif x > centre - 0.5 + (width - 1) / 2:
            out.append(1)
        else:
            out.append((x - (centre - 0.5)) / (width - 1) + 0.5)
    return np.reshape(out, np.shape(values))


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("centre", "width"), [(2000, 1000), (2000.5, 1), (100, 4096)])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_window_follows_the_standard(function, centre, width, photometric):
    pixels = pixels_of(4095)
    data = build.dicom(
        pixels, stored=12, photometric=photometric,
        WindowCenter=str(centre), WindowWidth=str(width), VOILUTFunction=function,
    )  # fmt: skip
    expected = window(pixels.astype(float), centre, width, function)
    inverted = photometric == "MONOCHROME1"
    assert_fraction(read_image(data, voi=True), 1 - expected if inverted else expected)
    assert_fraction(read_image(data), 1 - pixels / 4095 if inverted else pixels / 4095)


@pytest.mark.parametrize(("slope", "intercept"), [(2.0, -1024.0), (-0.5, 100.0)])
def test_window_acts_on_rescaled_values(slope, intercept):
    pixels = pixels_of(4095)
    data = build.dicom(
        pixels, stored=12, RescaleSlope=str(slope), RescaleIntercept=str(intercept),
        WindowCenter="40", WindowWidth="800",
    )  # fmt: skip
    assert_fraction(read_image(data, voi=True), window(pixels * slope + intercept, 40, 800))


@pytest.mark.parametrize("dtype", ["int16", "uint32"])
def test_window_of_other_pixel_types(dtype):
    pixels = (build.ramp(*SHAPE, 4095) - (2000 if dtype == "int16" else 0)).astype(dtype)
    data = build.dicom(pixels, signed=dtype == "int16", WindowCenter="40", WindowWidth="800")
    assert_fraction(read_image(data, voi=True), window(pixels.astype(float), 40, 800))


def test_first_of_several_windows_is_used():
    pixels = pixels_of(4095)
    data = build.dicom(pixels, stored=12, WindowCenter=["40", "2000"], WindowWidth=["80", "4000"])
    assert_fraction(read_image(data, voi=True), window(pixels.astype(float), 40, 80))


def test_voi_lut_wins_over_the_window_and_acts_on_modality_values():
    pixels = pixels_of(1023)
    data = build.dicom(
        pixels, stored=10, RescaleSlope="1", RescaleIntercept="-100",
        VOILUTSequence=build.lut([0, 64, 128, 255], first=50, bits=8),
        WindowCenter="40", WindowWidth="80",
    )  # fmt: skip
    index = np.clip(pixels.astype(int) - 100 - 50, 0, 3)
    assert_fraction(read_image(data, voi=True), np.array([0, 64, 128, 255])[index] / 255)


def test_voi_without_a_window_changes_nothing():
    data = build.dicom(pixels_of(4095), stored=12)
    assert np.array_equal(read_image(data, voi=True), read_image(data))


def test_window_and_rescale_of_functional_groups():
    pixels = np.stack([pixels_of(4095), pixels_of(4095)[::-1]])
    shared = build.sequence_item(
        FrameVOILUTSequence=build.sequence_item(WindowCenter="40", WindowWidth="80"),
        PixelValueTransformationSequence=build.sequence_item(
            RescaleSlope="-1", RescaleIntercept="4095"
        ),
    )
    data = build.dicom(pixels, stored=12, SharedFunctionalGroupsSequence=shared)
    assert_fraction(read_image(data, frame=1), 1 - pixels[1] / 4095)
    assert_fraction(read_image(data, frame=1, voi=True), window(4095.0 - pixels[1], 40, 80))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("value", "limit"), [(0, None), (4095, None), (0, 50), (4095, 4000), (4000, 4095)]
)
def test_padding_becomes_air(photometric, value, limit):
    pixels = pixels_of(4095)
    tags = {} if limit is None else {"PixelPaddingRangeLimit": limit}
    data = build.dicom(pixels, stored=12, photometric=photometric, PixelPaddingValue=value, **tags)
    low, high = sorted([value, value if limit is None else limit])
    fraction = pixels / 4095 if photometric == "MONOCHROME2" else 1 - pixels / 4095
    padding = (pixels >= low) & (pixels <= high)
    assert padding.any()
    assert_fraction(read_image(data), np.where(padding, 0, fraction))


def test_padding_becomes_air_under_a_window_and_a_lut():
    pixels = pixels_of(1023)
    tags = {"stored": 10, "photometric": "MONOCHROME1", "PixelPaddingValue": 0}
    window_file = build.dicom(pixels, WindowCenter="512", WindowWidth="1024", **tags)
    lut_file = build.dicom(pixels, ModalityLUTSequence=build.lut(range(1024), bits=10), **tags)
    for image in (read_image(window_file, voi=True), read_image(lut_file)):
        assert (image[0][pixels == 0] == -1024).all()
        assert image.max() > 1000


@pytest.mark.parametrize("written", [-2000, 65536 - 2000])
def test_padding_of_signed_pixels_is_found_however_it_was_written(written):
    pixels = (build.ramp(*SHAPE, 4095) - 2048).astype("int16")
    pixels[0] = -2000
    found = build.dataset(pixels, signed=True)
    found.add_new(0x00280120, "SS" if written < 0 else "US", written)
    assert (read_image(build.write(found))[0, 0] == -1024).all()


def test_frames_need_a_number():
    pixels = np.stack([pixels_of(4095), pixels_of(4095)[::-1], pixels_of(100)])
    data = build.dicom(pixels, stored=12)
    assert read_info(data).frames == 3
    with pytest.raises(UnsupportedImageError, match=r"3 frames.*frame=0"):
        read_image(data)
    for number in range(3):
        assert_fraction(read_image(data, frame=number), pixels[number] / 4095)
    for number in (3, -1):
        with pytest.raises(ImageReadError, match="counted from 0"):
            read_image(data, frame=number)
    assert read_image(build.dicom(pixels[0]), frame=0).shape == (1, *SHAPE)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"photometric": "RGB", "SamplesPerPixel": 3}, "colour"),
        ({"photometric": "YBR_FULL"}, "colour"),
        ({"photometric": "PALETTE COLOR"}, "colour"),
        ({"SamplesPerPixel": 2}, "colour"),
        ({"BitsAllocated": 64}, "64 bits"),
        ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, "segmentation"),
        ({"FloatPixelData": b"\0" * 8}, "floating point"),
    ],
)
def test_valid_files_that_are_not_one_grey_picture_are_refused(tags, words):
    with pytest.raises(UnsupportedImageError, match=words):
        read_image(build.dicom(pixels_of(255, "uint8"), **tags))


def test_info_of_a_colour_file_is_given():
    info = read_info(build.dicom(pixels_of(255, "uint8"), photometric="RGB", SamplesPerPixel=3))
    assert (info.photometric, info.channels) == ("RGB", 3)


@pytest.mark.parametrize("tag", ["Rows", "Columns", "BitsAllocated"])
@pytest.mark.parametrize("empty", [False, True])
def test_missing_tags_are_named(tag, empty):
    with pytest.raises(ImageReadError, match=f"{tag} is missing"):
        read_image(without(tag, empty))


@pytest.mark.parametrize("tag", ["BitsStored", "PixelRepresentation", "PhotometricInterpretation"])
@pytest.mark.parametrize("empty", [False, True])
def test_missing_tags_that_readers_default_are_noted(tag, empty):
    raster = read_raster(without(tag, empty))
    assert np.array_equal(raster.pixels, pixels_of(4095))
    assert (raster.info.bits, raster.info.signed, raster.info.photometric) == (
        16, False, "MONOCHROME2",
    )  # fmt: skip
    (note,) = raster.info.notes
    assert note.startswith(f"the DICOM element {tag} is missing")


def without(tag, empty):
    found = build.dataset(pixels_of(4095))
    if empty:
        setattr(found, tag, "" if tag == "PhotometricInterpretation" else None)
    else:
        delattr(found, tag)
    return build.write(found)


@pytest.mark.parametrize(
    "tag", ["HighBit", "SamplesPerPixel", "Modality", "SOPClassUID", "SOPInstanceUID"]
)
def test_tags_that_are_not_needed_may_be_missing(tag):
    found = build.dataset(pixels_of(4095), stored=12)
    found.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    found.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
    delattr(found, tag)
    assert_fraction(read_image(build.write(found)), pixels_of(4095) / 4095)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"BitsStored": 17}, "17 bits stored"),
        ({"BitsStored": 0, "HighBit": 0}, "0 bits stored"),
        ({"Rows": 0}, "empty picture"),
        ({"Rows": 900}, "truncated"),
        ({"NumberOfFrames": "5"}, "5 frames"),
    ],
)
def test_impossible_tags_are_named(tags, words):
    with pytest.raises(ImageReadError, match=words):
        read_image(build.dicom(pixels_of(4095), **tags))


@pytest.mark.parametrize(
    ("tags", "note"),
    [
        ({"RescaleSlope": "0", "RescaleIntercept": "5"}, "Rescale Slope 0 is ignored"),
        ({"HighBit": 20}, "High Bit 20 is ignored: 16 of 16 bits are stored"),
        ({"HighBit": 3}, "High Bit 3 is ignored: 16 of 16 bits are stored"),
        (
            {"ModalityLUTSequence": build.sequence_item(LUTExplanation="x")},
            "a LUT without a valid LUT Descriptor is ignored",
        ),
        (
            {"ModalityLUTSequence": build.sequence_item(LUTDescriptor=[1, 0])},
            "a LUT without a valid LUT Descriptor is ignored",
        ),
        (
            {"ModalityLUTSequence": build.sequence_item(LUTDescriptor=[9, 0, 8])},
            "a LUT without LUT Data is ignored",
        ),
    ],
)
def test_elements_that_only_adjust_are_ignored_with_a_note(tags, note):
    raster = read_raster(build.dicom(pixels_of(4095), **tags))
    assert raster.info.notes == (note,)
    assert_fraction(raster.to_array(), pixels_of(4095) / 65535)


@pytest.mark.parametrize(
    ("entries", "bits", "peak"), [([1, 2, 300], 8, 511), ([1, 2, 3], 20, 3), ([1, 2, 3], 0, 3)]
)
def test_lut_whose_descriptor_has_the_wrong_bits_takes_those_it_needs(entries, bits, peak):
    sequence = build.lut(entries, bits=bits)
    raster = read_raster(build.dicom(pixels_of(4095), ModalityLUTSequence=sequence))
    expected = np.array(entries)[np.minimum(pixels_of(4095), 2)] / peak
    assert_fraction(raster.to_array(), expected)
    assert f"the descriptor says {bits}" in raster.info.notes[0]


@pytest.mark.parametrize(
    ("tags", "note"),
    [
        ({"WindowWidth": "0"}, "Window Width 0 is not allowed, the window is ignored"),
        ({"WindowWidth": "-5"}, "Window Width -5 is not allowed, the window is ignored"),
        ({"WindowWidth": "0.5"}, "Window Width 0.5 is not allowed, the window is ignored"),
        (
            {"WindowWidth": "9", "VOILUTFunction": "CUBIC"},
            "a VOI LUT Function that is not defined is taken for LINEAR",
        ),
    ],
)
def test_impossible_windows_matter_only_when_asked_for(tags, note):
    data = build.dicom(pixels_of(4095), WindowCenter="40", **tags)
    assert read_raster(data).info.notes == ()
    raster = read_raster(data, voi=True)
    assert raster.info.notes == (note,)
    if "VOILUTFunction" not in tags:
        assert np.array_equal(raster.to_array(), read_image(data))


def test_lut_data_shorter_than_declared_is_used_as_far_as_it_goes():
    sequence = build.lut(list(range(100)), bits=8)
    sequence[0].LUTDescriptor = [200, 0, 8]
    raster = read_raster(build.dicom(pixels_of(150), ModalityLUTSequence=sequence))
    assert_fraction(raster.to_array(), np.minimum(pixels_of(150), 99) / 255)
    assert raster.info.notes == ("a LUT has 100 entries, 200 are declared",)


def test_file_without_pixels_names_what_it_is():
    found = build.dataset(pixels_of(4095))
    for tag in ("PixelData", "Rows", "Columns"):
        delattr(found, tag)
    found.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    with pytest.raises(ImageReadError, match="Basic Text SR"):
        read_image(build.write(found))


@pytest.mark.parametrize(
    ("tags", "spacing"),
    [
        ({"PixelSpacing": ["0.2", "0.1"]}, (0.2, 0.1)),
        ({"ImagerPixelSpacing": ["0.2", "0.1"]}, (0.2, 0.1)),
        ({"PixelSpacing": ["0.2", "0.2"], "ImagerPixelSpacing": ["0.3", "0.3"]}, (0.2, 0.2)),
        ({"PixelSpacing": ["0", "0"], "ImagerPixelSpacing": ["0.3", "0.3"]}, (0.3, 0.3)),
        ({"PixelSpacing": ["0", "0"]}, None),
        ({"PixelSpacing": "0.2"}, None),
        ({}, None),
    ],
)
def test_pixel_spacing_is_in_millimetres_or_none(tags, spacing):
    assert read_info(build.dicom(pixels_of(4095), **tags)).pixel_spacing == spacing

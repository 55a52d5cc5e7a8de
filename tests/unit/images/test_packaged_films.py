"""The files that pydicom ships come out as pydicom, and GDCM where it can, decode them."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.pixels import pixel_array

from torchxrayvision.errors import ImageReadError, UnsupportedImageError
from torchxrayvision.images import read_info, read_raster

FOLDER = Path(str(get_testdata_file("CT_small.dcm", download=False))).parent
with warnings.catch_warnings(action="ignore"):  # pydicom has words for some of them
    HEADERS = {
        path.name: dcmread(path, force=True, stop_before_pixels=True)
        for path in sorted(FOLDER.glob("*.dcm"))
    }
    PICTURES = {
        name: header
        for name, header in HEADERS.items()
        if header.get("SamplesPerPixel") == 1 and header.get("BitsAllocated", 1) > 1
    }
# Two or more of pydicom, GDCM and DCMTK refuse them as well.
REFUSED = {
    "JPEG2000-embedded-sequence-delimiter.dcm": "tags say",
    "MR_truncated.dcm": "truncated",
}


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_stored_values_are_those_of_pydicom(name):
    header = PICTURES[name]
    if name in REFUSED:
        with pytest.raises(ImageReadError, match=REFUSED[name]):
            read_raster(FOLDER / name, frame=0)
        return
    if not str(header.PhotometricInterpretation).startswith("MONOCHROME"):
        with pytest.raises(UnsupportedImageError, match="colour"):
            read_raster(FOLDER / name, frame=0)
        return
    try:
        raster = read_raster(FOLDER / name, frame=0)
    except UnsupportedImageError as error:
        assert "pip install" in str(error)  # noqa: PT017
        pytest.skip("a decoder is not installed")
    try:
        with warnings.catch_warnings(action="ignore"):
            expected = pixel_array(dcmread(FOLDER / name, force=True), index=0)
    except (RuntimeError, AttributeError, ValueError) as error:
        pytest.skip(f"pydicom cannot decode it: {error}")
    padding = header.get("PixelPaddingValue")
    shown = np.ones(expected.shape, bool) if padding is None else expected != padding
    # Decoders of lossy JPEG may round the inverse transform differently.
    lossy = raster.info.transfer_syntax in (
        "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81",
    )  # fmt: skip
    apart = np.abs(raster.pixels.astype(int) - expected.astype(int))[shown]
    assert apart.max(initial=0) <= 2 * lossy
    info = read_info(FOLDER / name)
    assert (info.height, info.width) == raster.shape


def test_most_files_were_compared():
    assert len(PICTURES) >= 25

"""JPEG Extended of twelve bits, which pydicom has no freely licensed plugin for."""

from __future__ import annotations

import importlib
import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, SecondaryCaptureImageStorage

from torchxrayvision.errors import ImageReadError, UnsupportedImageError
from torchxrayvision.images._guard import foreign
from torchxrayvision.images._jpeg_markers import check_markers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from torchxrayvision.images._dicom_header import Header

__all__ = ["check_cell", "decode_twelve_bits", "stored_for_gdcm"]

_SYNTAX = "1.2.840.10008.1.2.4.51"
_CELLS = (8, 16)


def check_cell(header: Header, path: str) -> None:
    """Refuse pixel cells that no JPEG process has (PS3.5 sections 8.2.1 and A.4.1).

    GDCM ends the whole process on them, with an exception that Python never sees.
    """
    if header.allocated not in _CELLS:
        reason = f"JPEG pixel data with {header.allocated} bits allocated"
        raise ImageReadError(path, reason, "the standard allows 8 and 16: write the file again")


def stored_for_gdcm(header: Header) -> int:
    """Bits Stored as GDCM may be told them; the unused bits are cut off later.

    GDCM clears unused bits of 16-bit cells itself, and ends the process on those of 8-bit cells.
    """
    return 8 if header.allocated == 8 else header.stored


def decode_twelve_bits(frame: bytes, header: Header, path: str) -> NDArray[Any]:
    """Decode one frame of 12-bit JPEG Extended with GDCM.

    pydicom's own gdcm plugin declines this precision, and GDCM reads from a named file only. So
    the frame goes to a temporary file under tags that have been checked already.

    Args:
        frame: The code stream.
        header: The Image Pixel module.
        path: For errors.

    Returns:
        Shape (rows, columns), dtype of Bits Allocated.
    """
    try:
        gdcm = importlib.import_module("gdcm")
    except ImportError as error:
        reason = "JPEG Extended pixels of 12 bits need the package python-gdcm"
        advice = 'pip install "torchxrayvision[dicom]"'
        raise UnsupportedImageError(path, reason, advice) from error
    check_cell(header, path)
    with foreign(path, "the JPEG Extended pixel data is damaged or truncated"):
        check_markers(frame, lossless=False)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "frame.dcm"
            file.write_bytes(_wrap(frame, header))
            reader = gdcm.ImageReader()
            reader.SetFileName(str(file))
            if not reader.Read():
                raise ImageReadError(path, "GDCM cannot decode the JPEG Extended pixel data")
        text = reader.GetImage().GetBuffer()  # bytes, which SWIG hands over as a str
        kind = "i" if header.signed else "u"
        dtype = np.dtype(f"{kind}{header.allocated // 8}")
        pixels = np.frombuffer(text.encode("utf-8", "surrogateescape"), dtype)
        return pixels.reshape(header.rows, header.columns)


def _wrap(frame: bytes, header: Header) -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(_SYNTAX)
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = UID("2.25.1")
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = UID("2.25.1")
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = header.photometric
    dataset.Rows, dataset.Columns = header.rows, header.columns
    dataset.BitsAllocated, dataset.BitsStored = header.allocated, header.stored
    dataset.HighBit = header.stored - 1
    dataset.PixelRepresentation = int(header.signed)
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()

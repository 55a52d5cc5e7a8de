"""What a file is, by its first bytes. File names are never consulted."""

from __future__ import annotations

import struct

from torchxrayvision.errors import ImageReadError, UnsupportedImageError

__all__ = ["sniff"]

_READABLE = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),
    (b"MM\x00+", "tiff"),
)
_KNOWN = (
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", "decompress it first"),
    (b"\x1f\x8b", "a gzip archive", "decompress it first"),
    (b"BZh", "a bzip2 archive", "decompress it first"),
    (b"\xfd7zXZ\x00", "an xz archive", "decompress it first"),
    (b"PK\x03\x04", "a zip archive", "unpack it first"),
    (b"GIF8", "a GIF picture", "convert it to PNG"),
    (b"BM", "a BMP picture", "convert it to PNG"),
    (b"RIFF", "a WebP picture or another RIFF file", "convert it to PNG"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture outside DICOM", "convert it to PNG"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 code stream outside DICOM", "convert it to PNG"),
    (b"%PDF", "a PDF document", "export its picture as PNG"),
    (b"\x93NUMPY", "a NumPy array", "load it with numpy and call normalize(img, maxval)"),
)
_MARKUP = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<svg")


def sniff(data: bytes, path: str) -> str:
    """Name the format of `data`: ``"png"``, ``"jpeg"``, ``"tiff"`` or ``"dicom"``.

    Raises:
        UnsupportedImageError: If it is something else that can be named.
        ImageReadError: If it is nothing known.
    """
    if data[128:132] == b"DICM":  # before TIFF: a file of two personalities is a DICOM file
        return "dicom"
    for magic, kind in _READABLE:
        if data.startswith(magic):
            return kind
    if _bare_dicom(data):
        return "dicom"
    for magic, what, advice in _KNOWN:
        if data.startswith(magic):
            raise UnsupportedImageError(path, f"this is {what}", advice)
    if data[:512].lstrip().lower().startswith(_MARKUP):
        advice = "a download that failed often leaves such a page"
        raise UnsupportedImageError(path, "this is a web page or XML, not a picture", advice)
    raise ImageReadError(path, "not a PNG, JPEG, TIFF or DICOM file")


def _bare_dicom(data: bytes) -> bool:
    """Whether `data` starts with a data element of group 0002 or 0008 (no preamble).

    PS3.10 section 7.1 demands the preamble; files older than it, and files whose meta
    information was cut off, start with their first element.
    """
    if len(data) < 16:
        return False
    for order in ("<", ">"):
        group, element = struct.unpack_from(order + "HH", data)
        if group not in (0x0002, 0x0008) or element > 0x3000:
            continue
        if data[4:6].isalpha() and data[4:6].isupper():
            return True
        (length,) = struct.unpack_from(order + "I", data, 4)
        if length < 1024:  # the first element is a group length, a character set or a UID
            return True
    return False

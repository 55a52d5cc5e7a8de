"""Read a file of any format: its bytes, its format by content, its pixels."""

from __future__ import annotations

import os
import stat
import struct
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from torchxrayvision.errors import (
    DataWarning,
    ImageNotFoundError,
    ImageRangeError,
    ImageRangeWarning,
    ImageReadError,
    ImageShapeError,
    ImageTooLargeError,
    UnsupportedImageError,
    caller_stacklevel,
)
from torchxrayvision.images.common import DEFAULT_LIMITS, Limits, ReadOptions, third_party_decoder

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from torchxrayvision.images.common import ImageInfo, Raster

    Reader = Callable[[bytes, str, ReadOptions], Raster]
    Describer = Callable[[bytes, str, ReadOptions], ImageInfo]

ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO


def load(source: ImageSource, limits: Limits) -> tuple[bytes, str]:
    """All bytes of `source`, unpacked if it is a gzip file, and the name to give it in errors.

    Raises:
        ImageNotFoundError: If the path does not exist.
        ImageReadError: If it is not a regular file, empty, too large or unreadable.
        TypeError: If `source` is neither a path, bytes nor a binary file.
    """
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        data = _from_path(name, limits)
    elif isinstance(source, bytes | bytearray | memoryview):
        name, data = "<bytes>", bytes(source)
    elif hasattr(source, "read"):
        name = str(getattr(source, "name", "<stream>"))
        data = _from_stream(source, name, limits)
    else:
        msg = f"source must be a path, bytes or a binary file, got {type(source).__name__}"
        raise TypeError(msg)
    limits.check_bytes(name, len(data))
    if data.startswith(_GZIP):
        data = _unpacked(data, name, limits)
    return data, name


_GZIP = b"\x1f\x8b"
_HARMLESS_BYTES = 64 * 2**20
_MOST_PACKED = 200  # bytes for each byte of gzip; images have two to four


def _unpacked(data: bytes, name: str, limits: Limits) -> bytes:
    """What a gzip file such as ``image.dcm.gz`` holds; its checksum is verified."""
    most = min(limits.file_bytes, max(_HARMLESS_BYTES, _MOST_PACKED * len(data)))
    engine = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        content = engine.decompress(data, most + 1)
    except zlib.error as error:
        raise ImageReadError(name, f"the gzip data is damaged ({error})") from error
    if len(content) > most:
        reason = f"more than {most:,} bytes in {len(data):,} bytes of gzip"
        raise ImageTooLargeError(name, reason, "decompress it yourself if it is trusted")
    if not engine.eof:
        raise ImageReadError(name, "truncated: the gzip data ends early")
    if engine.unused_data.strip(b"\0"):
        raise UnsupportedImageError(name, "a gzip file of several parts", "decompress it first")
    limits.check_bytes(name, len(content))
    if content.startswith(_GZIP):
        raise UnsupportedImageError(name, "a gzip file within a gzip file", "decompress it first")
    return content


def _from_path(name: str, limits: Limits) -> bytes:
    try:
        status = Path(name).stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device would block or never end
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise ImageReadError(name, kind)
        limits.check_bytes(name, status.st_size)
        return Path(name).read_bytes()
    except FileNotFoundError as error:
        raise ImageNotFoundError(name, "no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        if isinstance(error, ImageReadError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ImageReadError(name, f"cannot be opened ({reason})") from error


def _from_stream(stream: BinaryIO, name: str, limits: Limits) -> bytes:
    pieces, wanted = [], limits.file_bytes + 1
    while wanted > 0:  # a stream without a buffer gives what it has at the moment
        try:
            data = stream.read(wanted)
        except (OSError, ValueError) as error:
            raise ImageReadError(name, f"cannot be read ({error})") from error
        if not isinstance(data, bytes | bytearray):
            given = type(data).__name__
            msg = f"source must be a file opened in binary mode, its read() gave {given}"
            raise TypeError(msg)
        if not data:
            break
        pieces.append(data)
        wanted -= len(data)
    return b"".join(pieces)


HEAD = 2048
"""First bytes of a file that `sniff` needs."""

_READABLE = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),
    (b"MM\x00+", "tiff"),
    (b"\xff\x4f\xff\x51", "jpeg2000"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "jpeg2000"),
)
_NO_PICTURES = (b"mjp2", b"mj2s", b"jpm ")  # brands of JPEG 2000 files
_TO_PNG = "convert it to PNG or TIFF, such as with ImageMagick: magick FILE FILE.png"
_TO_FRAME = "save the frame that you need as PNG, such as with FFmpeg: ffmpeg -i FILE FILE.png"
_FROM_ARRAY = "normalize(img, maxval) of torchxrayvision.images"
_FROM_NUMPY = f"load it with numpy in Python and call {_FROM_ARRAY}, or save it as 16-bit PNG"
_FROM_NIFTI = f"load it with nibabel in Python and call {_FROM_ARRAY}, or save it as 16-bit PNG"
_UNPACK = "unpack it first, or name it with the ending of its kind, such as .zip or .tar.gz"
# Where a signature is, the signature, what it is and what to do.
_KNOWN = (
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive", "decompress it first"),
    (0, _GZIP, "a gzip file within a gzip file", "decompress it first"),
    (0, b"BZh", "a bzip2 archive", "decompress it first"),
    (0, b"\xfd7zXZ\x00", "an xz archive", "decompress it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first"),
    (0, b"PK\x03\x04", "a zip archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"GIF8", "a GIF picture", "convert it to PNG"),
    (0, b"BM", "a BMP picture of an unknown kind", _TO_PNG),
    (0, b"RIFF", "a RIFF file and no WebP picture, such as an AVI video", _TO_FRAME),
    *((20, brand, "a Motion JPEG 2000 video", _TO_FRAME) for brand in (b"mjp2", b"mj2s")),
    (20, b"jpm ", "a JPEG 2000 document of several layers (JPM)", "export its picture as PNG"),
    (0, b"\xff\x0a", "a JPEG XL picture", _TO_PNG),
    (0, b"\x00\x00\x00\x0cJXL ", "a JPEG XL picture", _TO_PNG),
    (4, b"ftypavif", "an AVIF picture", _TO_PNG),
    *((4, b"ftyp" + brand, "a HEIC picture", _TO_PNG)
      for brand in (b"hei", b"hev", b"mif1", b"msf1")),
    (4, b"ftyp", "a video", _TO_FRAME),
    (0, b"\x1a\x45\xdf\xa3", "a Matroska or WebM video", _TO_FRAME),
    (0, b"\x00\x00\x01\xba", "an MPEG video", _TO_FRAME),
    (344, b"n+1\x00", "a NIfTI volume", _FROM_NIFTI),
    (344, b"ni1\x00", "the header of a NIfTI volume", _FROM_NIFTI),
    (4, b"n+2\x00", "a NIfTI volume", _FROM_NIFTI),
    (0, b"%PDF", "a PDF document", "export its picture as PNG"),
    (0, b"\x93NUMPY", "a NumPy array", _FROM_NUMPY),
    (0, b"\x89HDF", "an HDF5 file", "save its picture as 16-bit PNG"),
)  # fmt: skip
_MARKUP = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<svg")
# Media Storage SOP Class UID: Media Storage Directory Storage, PS3.10 section 8.6.
_DICOMDIR = b"\x02\x00\x02\x00UI\x14\x001.2.840.10008.1.3.10"
_DIB_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)


def sniff(data: bytes, path: str) -> str:
    """Name the format of `data`; of a gzip file, that of its content.

    Args:
        data: All bytes of a file, or its first `HEAD`.
        path: For the error.

    Returns:
        ``"png"``, ``"jpeg"``, ``"jpeg2000"``, ``"tiff"``, ``"dicom"``, ``"bmp"`` or ``"webp"``.

    Raises:
        UnsupportedImageError: If it is something else that can be named.
        ImageReadError: If it is nothing known.

    Example:
        >>> sniff(b"MM" + bytes([0, 43]) + bytes(4), "image")
        'tiff'
    """
    if data.startswith(_GZIP):
        data = _first_unpacked(data)
    if _is_dicom(data):
        if _DICOMDIR in data[:HEAD]:
            what = "this is a DICOMDIR, the table of contents of a disc"
            raise UnsupportedImageError(path, what, "name the folder that it lies in")
        return "dicom"
    if kind := _picture(data):
        return kind
    for at, magic, what, advice in _KNOWN:
        if data.startswith(magic, at):
            raise UnsupportedImageError(path, f"this is {what}", advice)
    if data[:512].lstrip().lower().startswith(_MARKUP):
        advice = "a download that failed often leaves such a page"
        raise UnsupportedImageError(path, "this is a web page or XML, not a picture", advice)
    raise ImageReadError(path, "not a PNG, JPEG, TIFF or DICOM file, nor JPEG 2000, BMP or WebP")


def _first_unpacked(data: bytes) -> bytes:
    try:
        return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(data[:HEAD], HEAD) or _GZIP
    except zlib.error:
        return _GZIP


def _picture(data: bytes) -> str | None:
    for magic, kind in _READABLE:
        if data.startswith(magic):
            other = kind == "jpeg2000" and data.startswith(_NO_PICTURES, 20) and data[0] == 0
            return None if other else kind
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in _DIB_HEADERS:
        return "bmp"
    return None


def _is_dicom(data: bytes) -> bool:
    if data[128:132] == b"DICM":  # before TIFF: a file of two personalities is a DICOM file
        return True
    return not data.startswith(tuple(magic for magic, _ in _READABLE)) and _bare_dicom(data)


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


_MOST_CHANNELS = 4


def normalize(img: ArrayLike, maxval: float, reshape: bool = False) -> NDArray[np.float32]:
    """Scale pixel values from [0, maxval] to [-1024, 1024].

    Args:
        img: Pixel values in [0, `maxval`]; any shape, or (H, W) or (H, W, C) with `reshape`.
        maxval: Largest value that the encoding allows: 255 for 8 bits, 65535 for 16 bits, 1 for
            fractions. Not the largest value present.
        reshape: Return (1, H, W): of a colour image the first channel, as TorchXRayVision
            1.5.7 does. `read_image` and `load_image` take the mean of the channels.

    Returns:
        float32 array of the shape of `img`, or (1, H, W).

    Raises:
        ImageRangeError: If a value is negative, above `maxval`, infinite or not a number, or if
            `maxval` is not positive.
        ImageShapeError: If `img` is empty, or not an image and `reshape` is set.

    Warns:
        ImageRangeWarning: If the values look like another scale: fractions in [0, 1] with a
            `maxval` above 1, or 8-bit values with a larger `maxval`.

    Example:
        >>> import numpy as np
        >>> normalize(np.array([[0, 255]], dtype=np.uint8), 255)
        array([[-1024.,  1024.]], dtype=float32)
        >>> normalize(np.array([[0.0, 1.0]]), 1, reshape=True).shape
        (1, 1, 2)
    """
    array = np.asarray(img)
    top = float(maxval)
    if not (np.isfinite(top) and top > 0):
        msg = f"maxval must be positive, got {maxval!r}; pass 255 for 8 bits, 65535 for 16 bits"
        raise ImageRangeError(msg)
    if array.size == 0:
        msg = f"img is empty, its shape is {array.shape}"
        raise ImageShapeError(msg)
    if reshape:
        array = _one_channel(array)
    _check_range(array, top)
    scaled = array.astype(np.float32)
    scaled /= np.float32(top)
    scaled *= 2
    scaled -= 1
    scaled *= 1024
    return scaled


def _one_channel(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 3 and array.shape[2] <= _MOST_CHANNELS:
        array = array[:, :, 0]
    if array.ndim != 2:
        msg = (
            f"img must have shape (H, W) or (H, W, C), got {array.shape}; "
            "leave reshape out if it is (1, H, W) already"
        )
        raise ImageShapeError(msg)
    return array[np.newaxis]


def _check_range(array: NDArray[Any], top: float) -> None:
    if array.dtype.kind not in "buif":
        msg = f"img must hold real numbers, its dtype is {array.dtype}"
        raise ImageRangeError(msg)
    highest = float(array.max())
    lowest = float(array.min()) if array.dtype.kind in "if" else 0.0
    if not (np.isfinite(highest) and np.isfinite(lowest)):
        msg = "img holds values that are infinite or not a number"
        raise ImageRangeError(msg)
    if highest > top:
        msg = f"img holds {highest:g}, above maxval={top:g}; pass the largest value of the encoding"
        raise ImageRangeError(msg)
    if lowest < 0:
        scaled = " It looks scaled to [-1024, 1024] already." if lowest <= -256 else ""
        msg = f"img holds {lowest:g}, and values must be in [0, {top:g}].{scaled}"
        raise ImageRangeError(msg)
    _warn_of_scale(array.dtype, highest, top)


def _warn_of_scale(dtype: np.dtype[Any], highest: float, top: float) -> None:
    fractions = dtype.kind in "bf" and 0 < highest <= 1 < top
    eight_bits = top > 255 and (dtype == np.uint8 or (dtype.kind == "f" and 1 < highest <= 255))
    if fractions or eight_bits:
        fitting = 1 if fractions else 255
        msg = (
            f"img holds values in [0, {highest:g}] of dtype {dtype} with maxval={top:g}: it "
            f"comes out almost black. If its scale is [0, {fitting}], pass maxval={fitting}"
        )
        warnings.warn(msg, ImageRangeWarning, stacklevel=caller_stacklevel())


# Damage that the format's own checks name no better; a batch must not end for it.
_UNEXPECTED = "cannot be read"


def read_raster(
    source: ImageSource,
    *,
    frame: int | None = None,
    voi: bool = False,
    fix_monochrome: bool = True,
    limits: Limits = DEFAULT_LIMITS,
    least_side: int | None = None,
) -> Raster:
    """Read one radiograph and keep its pixels as the file stores them.

    The format is told from the content: PNG, JPEG, JPEG 2000, TIFF, DICOM, BMP or WebP, and any of
    them packed with gzip. Black is 0 (of signed samples, the least value) and white is the largest
    value that the *declared* depth allows, whatever the values present, so a dark 16-bit image
    stays dark. Colour becomes the mean of the three channels, alpha is dropped, and
    Exif and TIFF orientation is applied. For DICOM see the module `torchxrayvision.images`.

    Args:
        source: Path, bytes, or file opened in binary mode.
        frame: Frame or page to read, counted from 0; needed where there are several.
        voi: DICOM: apply the VOI LUT, or else the first window, of the file.
        fix_monochrome: Show MONOCHROME1 and white-is-zero files with bone white and air black.
        limits: Refuse files that declare more than this.
        least_side: JPEG and JPEG 2000: decode an image no further than a network needs whose input
            has this many pixels a side: at a half, a quarter or an eighth of its sides, with at
            least twice as many left. `Raster.reduction` says where; `transforms.prepare` takes it.
            None decodes all. `limits` are those of the whole image.

    Returns:
        The raster; `Raster.to_array` gives float32, shape (1, H, W), in [-1024, 1024].

    Raises:
        ImageReadError: If the file is missing, damaged, truncated, of another format or hostile.
        ImageTooLargeError: If its declared size is above `limits`; no pixel was decoded.
        UnsupportedImageError: If it is valid but not one grey image, such as CMYK, colour
            DICOM, or several frames without `frame`.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("L", (3, 2), 255).save(file, "PNG")
        >>> raster = read_raster(file.getvalue())
        >>> raster.shape, raster.pixels.dtype.name, raster.info.bits
        ((2, 3), 'uint8', 8)
    """
    options = ReadOptions(
        frame=frame, voi=voi, fix_monochrome=fix_monochrome, limits=limits, least_side=least_side
    )
    data, path = load(source, limits)
    reader, _ = _functions(sniff(data, path))
    with third_party_decoder(path, _UNEXPECTED):
        return reader(data, path, options)


def read_image(
    source: ImageSource,
    *,
    frame: int | None = None,
    voi: bool = False,
    fix_monochrome: bool = True,
    limits: Limits = DEFAULT_LIMITS,
) -> NDArray[np.float32]:
    """Read one radiograph as the models take it.

    Args and errors are those of `read_raster`.

    Args:
        source: Path, bytes, or file opened in binary mode.
        frame: TIFF and DICOM: the page or frame to read, from 0; None where there is only one.
        voi: DICOM: apply the window or table that the file gives for display.
        fix_monochrome: DICOM: make air dark where the file shows it bright (MONOCHROME1).
        limits: Refuse files that declare more than this.

    Returns:
        float32, shape (1, H, W), values in [-1024, 1024].

    Raises:
        ImageReadError: As `read_raster`.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("L", (3, 2), 255).save(file, "PNG")
        >>> read_image(file.getvalue()).shape
        (1, 2, 3)
    """
    raster = read_raster(source, frame=frame, voi=voi, fix_monochrome=fix_monochrome, limits=limits)
    return raster.to_array()


def read_info(
    source: ImageSource, *, frame: int | None = None, limits: Limits = DEFAULT_LIMITS
) -> ImageInfo:
    """What the header of a file says; no pixel is decoded.

    Args:
        source: Path, bytes, or file opened in binary mode.
        frame: TIFF: the page to describe, else the first.
        limits: Refuse files that declare more than this.

    Returns:
        Format, size, depth and what else the header declares.

    Raises:
        ImageReadError: As `read_raster`, as far as the header tells.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("I;16", (3, 2)).save(file, "PNG")
        >>> info = read_info(file.getvalue())
        >>> info.format, info.bits, info.height, info.width
        ('png', 16, 2, 3)
    """
    data, path = load(source, limits)
    _, describer = _functions(sniff(data, path))
    with third_party_decoder(path, _UNEXPECTED):
        return describer(data, path, ReadOptions(frame=frame, limits=limits))


def load_image(fname: ImageSource) -> NDArray[np.float32]:
    """`read_image` by the name and signature of TorchXRayVision 1.5.7.

    Equal to 1.5.7 on 8-bit grey files. Where 1.5.7 was wrong, this is not: 16-bit and 1-bit
    files are scaled by their own depth, colour is the mean of the channels instead of red, and
    DICOM is read as `read_xray_dcm` reads it.

    Args:
        fname: Path of the file.

    Returns:
        float32, shape (1, H, W), values in [-1024, 1024].

    Raises:
        ImageReadError: As `read_raster`.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("L", (3, 2), 255).save(file, "JPEG")
        >>> load_image(file.getvalue()).shape
        (1, 2, 3)
    """
    return read_image(fname)


def read_xray_dcm(
    path: ImageSource, voi_lut: bool = False, fix_monochrome: bool = True
) -> NDArray[np.float32]:
    """Read a DICOM file, by the name and signature of TorchXRayVision 1.5.7.

    Args:
        path: Path of the file.
        voi_lut: Apply the VOI LUT, or else the first window, of the file.
        fix_monochrome: Invert MONOCHROME1, so that bone is white and air is black.

    Returns:
        float32, shape (H, W), values in [-1024, 1024].

    Raises:
        ImageReadError: As `read_raster`, or if the file is not DICOM.

    Warns:
        DataWarning: MONOCHROME1 was inverted, as 1.5.7 warns. `read_image` says nothing of it.

    Example:
        >>> from pydicom.data import get_testdata_file
        >>> read_xray_dcm(get_testdata_file("MR_small.dcm", download=False)).shape
        (64, 64)
    """
    options = ReadOptions(voi=voi_lut, fix_monochrome=fix_monochrome)
    data, name = load(path, options.limits)
    kind = sniff(data, name)
    if kind != "dicom":
        reason = f"a {kind.upper()} picture, not a DICOM file"
        raise ImageReadError(name, reason, "read it with read_image or load_image")
    reader, _ = _functions(kind)
    with third_party_decoder(name, _UNEXPECTED):
        raster = reader(data, name, options)
    if fix_monochrome and raster.info.photometric == "MONOCHROME1":
        msg = f"{name}: MONOCHROME1 is inverted to MONOCHROME2; fix_monochrome=False leaves it"
        warnings.warn(msg, DataWarning, stacklevel=2)
    image: NDArray[np.float32] = raster.to_array()[0]
    return image


def _functions(kind: str) -> tuple[Reader, Describer]:
    """What reads and what describes a format, imported when the first file of it is met."""
    match kind:
        case "png":
            from torchxrayvision.images.png import png_info, read_png

            return read_png, png_info
        case "jpeg":
            from torchxrayvision.images.jpeg import jpeg_info, read_jpeg

            return read_jpeg, jpeg_info
        case "tiff":
            from torchxrayvision.images.tiff import read_tiff, tiff_info

            return read_tiff, tiff_info
        case "jpeg2000":
            from torchxrayvision.images.jp2 import jp2_info, read_jp2

            return read_jp2, jp2_info
        case "bmp" | "webp":
            from torchxrayvision.images.bitmap import bitmap_info, read_bitmap

            return read_bitmap, bitmap_info
        case _:
            from torchxrayvision.images.dicom.read import dicom_info, read_dicom

            return read_dicom, dicom_info

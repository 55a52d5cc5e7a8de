"""One function a question, whatever the format of the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchxrayvision.errors import ImageReadError
from torchxrayvision.images._guard import foreign
from torchxrayvision.images._limits import DEFAULT_LIMITS, Limits
from torchxrayvision.images._options import Options
from torchxrayvision.images._sniff import sniff
from torchxrayvision.images._source import ImageSource, load

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from torchxrayvision.images._raster import ImageInfo, Raster

__all__ = ["load_image", "read_image", "read_info", "read_raster", "read_xray_dcm"]

# Damage that the format's own checks name no better; a batch must not end for it.
_UNEXPECTED = "cannot be read"


def read_raster(
    source: ImageSource,
    *,
    frame: int | None = None,
    voi: bool = False,
    fix_monochrome: bool = True,
    limits: Limits = DEFAULT_LIMITS,
) -> Raster:
    """Read one radiograph and keep its pixels as the file stores them.

    The format is told from the content: PNG, JPEG, TIFF or DICOM. Black is 0 and white is the
    largest value that the *declared* depth allows, whatever the values present, so a dark 16-bit
    picture stays dark. Colour becomes the mean of the three channels, alpha is dropped, and
    Exif and TIFF orientation is applied. For DICOM see the module `torchxrayvision.images`.

    Args:
        source: Path, bytes, or file opened in binary mode.
        frame: Frame or page to read, counted from 0; needed where there are several.
        voi: DICOM: apply the VOI LUT, or else the first window, of the file.
        fix_monochrome: Show MONOCHROME1 and white-is-zero files with bone white and air black.
        limits: Refuse files that declare more than this.

    Returns:
        The raster; `Raster.to_array` gives float32, shape (1, H, W), in [-1024, 1024].

    Raises:
        ImageReadError: If the file is missing, damaged, truncated, of another format or hostile.
        ImageTooLargeError: If its declared size is above `limits`; no pixel was decoded.
        UnsupportedImageError: If it is valid but not one grey picture, such as CMYK, colour
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
    options = Options(frame=frame, voi=voi, fix_monochrome=fix_monochrome, limits=limits)
    data, path = load(source, limits)
    reader = _reader(sniff(data, path))
    with foreign(path, _UNEXPECTED):
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

    Returns:
        float32, shape (1, H, W), values in [-1024, 1024].

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
    describer = _describer(sniff(data, path))
    with foreign(path, _UNEXPECTED):
        return describer(data, path, Options(frame=frame, limits=limits))


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

    Example:
        >>> from pydicom.data import get_testdata_file
        >>> read_xray_dcm(get_testdata_file("MR_small.dcm", download=False)).shape
        (64, 64)
    """
    options = Options(voi=voi_lut, fix_monochrome=fix_monochrome)
    data, name = load(path, options.limits)
    kind = sniff(data, name)
    if kind != "dicom":
        reason = f"a {kind.upper()} picture, not a DICOM file"
        raise ImageReadError(name, reason, "read it with read_image or load_image")
    reader = _reader(kind)
    with foreign(name, _UNEXPECTED):
        raster = reader(data, name, options)
    image: NDArray[np.float32] = raster.to_array()[0]
    return image


def _reader(kind: str) -> Callable[[bytes, str, Options], Raster]:
    match kind:  # each format is imported when the first file of it is met
        case "png":
            from torchxrayvision.images._png import read_png as reader
        case "jpeg":
            from torchxrayvision.images._jpeg import read_jpeg as reader
        case "tiff":
            from torchxrayvision.images._tiff import read_tiff as reader
        case _:
            from torchxrayvision.images._dicom import read_dicom as reader
    return reader


def _describer(kind: str) -> Callable[[bytes, str, Options], ImageInfo]:
    match kind:
        case "png":
            from torchxrayvision.images._png import png_info as describer
        case "jpeg":
            from torchxrayvision.images._jpeg import jpeg_info as describer
        case "tiff":
            from torchxrayvision.images._tiff import tiff_info as describer
        case _:
            from torchxrayvision.images._dicom import dicom_info as describer
    return describer

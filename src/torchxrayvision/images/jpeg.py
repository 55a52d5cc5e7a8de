"""JPEG (ITU-T T.81): grey and colour of 8 bits."""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from PIL import JpegImagePlugin

from torchxrayvision.errors import ImageReadError, ImageTooLargeError, UnsupportedImageError
from torchxrayvision.images.common import (
    ImageInfo,
    Raster,
    Reduction,
    aspect_of,
    halvings,
    linear_scale,
    third_party_decoder,
)
from torchxrayvision.images.pixels import grey_of, orientation_of, upright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image

    from torchxrayvision.images.common import Limits, ReadOptions

# ITU-T T.81 table B.1 and T.87 section C.1.1: frame headers; C4, C8 and CC are not among them.
FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
# Progressive encoders write about ten; hundreds only serve to keep a decoder busy.
MOST_SCANS = 100
_STANDALONE = {0x00, 0x01, *range(0xD0, 0xD8)}
_SOI, _EOI, _SOS, _DRI = 0xD8, 0xD9, 0xDA, 0xDD
_JPEG_LS, _PROGRESSIVE = 0xF7, 0xC2
_REMARKS = {*range(0xE0, 0xF0), 0xFE}
_COEFFICIENTS = 64
_UNSEEN = 0xFF
# In entropy-coded data FF is followed by 00 (T.87: by less than 80) or is a restart marker, which
# is one only where a restart interval was defined: elsewhere decoders stop at it.
_MARKER = re.compile(rb"\xff([^\x00\xff])")
_MARKER_OR_RESTART = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
_MARKER_OF_JPEG_LS = re.compile(rb"\xff([\x80-\xcf\xd8-\xfe])")
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
_TURNS = bytes(range(0xD0, 0xD8))


@dataclass(kw_only=True, slots=True)
class Scans:
    """What follows the frame header.

    Args:
        count: Number of scans; not counted beyond `MOST_SCANS` and one.
        end: Where the entropy-coded data of the only scan ends; None with several scans.
        after: Where the end marker ends.
        fault: What is missing, as a clause after "the JPEG"; empty where nothing is.
    """

    count: int = 0
    end: int | None = None
    after: int = 0
    fault: str = ""
    restarts: bool = False
    # Component to the lowest bit that is known of each coefficient.
    known: dict[int, bytearray] = field(default_factory=dict)


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker segments from SOI to the first scan header: marker, start and end of the body.

    Bytes that belong to no segment are passed over, as decoders do. It ends without an error
    where the data does.
    """
    position = 2
    while (found := _MARKER.search(data, position)) is not None:
        marker, position = found[1][0], found.end()
        if marker in _STANDALONE:
            continue
        if marker == _EOI or position + 2 > len(data):
            return
        (length,) = struct.unpack_from(">H", data, position)
        yield marker, position + 2, position + length
        if marker == _SOS:
            return
        position += max(2, length)


def without_stray_bytes(data: bytes, *, remarks: bool = True) -> bytes:
    """A JPEG whose header segments follow each other, as not all decoders look for the next.

    Anything but a JPEG is given back as it is. Segments of applications and comments, `remarks`,
    can be left out.
    """
    if not data.startswith(b"\xff\xd8"):
        return data
    pieces, end = [data[:2]], 2
    for marker, start, end in segments(data):
        if remarks or marker not in _REMARKS:
            pieces.append(bytes([0xFF, marker]) + data[start - 2 : end])
    if sum(map(len, pieces)) == end:
        return data
    return b"".join([*pieces, data[end:]])


def read_scans(data: bytes, position: int, *, frame: int, components: int, restarts: bool) -> Scans:
    """Walk from the end of a frame header, with this marker, to the end marker."""
    scans = Scans(restarts=restarts)
    try:
        _walk(data, position, frame, scans)
    except (struct.error, IndexError):
        scans.fault = "ends without its end marker"
    if scans.fault or scans.count > MOST_SCANS:
        return scans
    if len(scans.known) < components or any(any(bits) for bits in scans.known.values()):
        scans.fault = "lacks some of its scans"
    if scans.count > 1 or frame == _PROGRESSIVE:
        scans.end = None
    return scans


def _walk(data: bytes, position: int, frame: int, scans: Scans) -> None:
    start = 0  # of entropy-coded data
    while scans.count <= MOST_SCANS:
        place, marker = _next_marker(data, position, frame, scans)
        if start:
            scans.end = place if scans.count == 1 else None
            _check_turns(data, start, place, scans)
            start = 0
        position = place + 2
        if marker == _EOI:
            if not scans.count:
                raise IndexError
            scans.after = position
            return
        if marker == _SOI or marker in FRAMES:  # another image follows a piece of this one
            raise IndexError
        if marker in _STANDALONE:
            continue
        (length,) = struct.unpack_from(">H", data, position)
        if marker == _DRI:
            scans.restarts = any(data[position + 2 : position + length])
        position += length
        if marker == _SOS:
            _note_coefficients(data[position - length + 2 : position], frame, scans)
            start = position


def _next_marker(data: bytes, position: int, frame: int, scans: Scans) -> tuple[int, int]:
    if frame == _JPEG_LS:
        pattern = _MARKER_OF_JPEG_LS
    else:
        pattern = _MARKER_OR_RESTART if scans.restarts else _MARKER
    found = pattern.search(data, position)
    if found is None:
        raise IndexError
    return found.start(), found[1][0]


def _note_coefficients(body: bytes, frame: int, scans: Scans) -> None:
    """Note which coefficients a scan brings (T.81 sections B.2.3 and G.1.1.1)."""
    scans.count += 1
    count = body[0]
    first, last, low = body[1 + 2 * count], body[2 + 2 * count], body[3 + 2 * count] & 15
    if frame != _PROGRESSIVE:
        first, last, low = 0, _COEFFICIENTS - 1, 0
    for component in body[1 : 1 + 2 * count : 2]:
        bits = scans.known.setdefault(component, bytearray([_UNSEEN] * _COEFFICIENTS))
        wanted = range(first, min(last, _COEFFICIENTS - 1) + 1)
        for coefficient in wanted:
            bits[coefficient] = low


def _check_turns(data: bytes, start: int, end: int, scans: Scans) -> None:
    """Restart markers count from 0 to 7 in turn; a decoder fills in what lies between others."""
    if not scans.restarts:
        return
    found = b"".join(_RESTART.findall(data, start, end))
    if found != (_TURNS * (len(found) // len(_TURNS) + 1))[: len(found)]:
        scans.fault = "lacks a piece: its restart markers do not follow each other"


# More than a decoder reads ahead, and too few to stand for more than a few blocks.
_AFTER = bytes(16)


class _EndsEarlyError(Exception):
    pass


class _Strict(io.BytesIO):
    """Bytes that do not end quietly: Pillow may have been told to go on without the rest."""

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        if not found and size:
            msg = "the scan ends before the last row"
            raise _EndsEarlyError(msg)
        return found


def decode_jpeg(data: bytes, stream: CodeStream, factor: int = 1) -> Image.Image:
    """Decode a JPEG of 8 bits.

    At an end marker libjpeg fills what is still missing with grey and says nothing. So the
    decoder of a single scan is not shown one: it then asks for more data where it needs some,
    and is done before it asks where all is there. An image in several scans has to be shown its
    end; there only a scan that is missing altogether is known, by `CodeStream.fault`.

    Args:
        data: The code stream; anything may follow its end.
        stream: Its header.
        factor: 1, 2, 4 or 8: decode the means of squares of so many pixels a side, which their
            coefficients give; those at the right and lower border may be cut by it.

    Raises:
        Exception: Of any type, for damage.
    """
    if stream.scan_end is not None:
        data = data[: stream.scan_end] + _AFTER
    image = JpegImagePlugin.JpegImageFile(_Strict(data))
    if factor > 1 and image.size == (stream.width, stream.height):
        image.draft(None, (max(1, image.width // factor), max(1, image.height // factor)))
    image.load()
    return image


_SOT, _EOC = 0xFF90, b"\xff\xd9"
_JP2 = b"\x00\x00\x00\x0cjP  \r\n\x87\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeStream:
    """What the frame header of a code stream says.

    Args:
        kind: ``"jpeg"``, ``"jpeg-ls"`` or ``"jpeg2000"``.
        process: Marker of the JPEG frame: 0 baseline, 1 extended, 2 progressive, 3 lossless.
        height: Rows.
        width: Columns.
        precision: Bits of a sample.
        components: Samples a pixel.
        scans: Scans after the first frame header; a JPEG may hold many to exhaust a decoder.
        scan_end: JPEG: where the only scan ends; None where the image comes in several.
        end: Where its end marker ends; what follows is no part of it.
        fault: What is missing, as a clause; empty where nothing is.
    """

    kind: str
    process: int
    height: int
    width: int
    precision: int
    components: int
    scans: int = 1
    scan_end: int | None = None
    end: int | None = None
    fault: str = ""


def read_codestream(data: bytes | memoryview) -> CodeStream | None:
    """The frame header of `data`, or None where there is none.

    Example:
        >>> head = bytes.fromhex("ffd8 ffc0 000b 08 0010 0020 01 011100 ffda")
        >>> read_codestream(head).width
        32
        >>> read_codestream(b"not a code stream") is None
        True
    """
    data = bytes(data)
    try:
        if data.startswith(b"\xff\x4f\xff\x51"):
            return _read_siz(data, 0)
        if data.startswith(_JP2):
            return _read_boxes(data)
        if data.startswith(b"\xff\xd8"):
            return _read_sof(data)
    except (struct.error, IndexError):  # it ends inside the header
        return None
    return None


def _read_boxes(data: bytes) -> CodeStream | None:
    """The code stream inside a JP2 or JPH file (ITU-T T.800 section I.4), which DICOM forbids."""
    position = 0
    while True:
        length, kind = struct.unpack_from(">I4s", data, position)
        header = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, position + 8)
            header = 16
        if kind == b"jp2c":
            return _read_siz(data, position + header)
        if length < header:  # 0: up to the end of the file, so that no code stream follows
            return None
        position += length


def _read_siz(data: bytes, start: int) -> CodeStream | None:
    """ITU-T T.800 section A.5.1: image size is reference grid less offset."""
    if data[start : start + 4] != b"\xff\x4f\xff\x51":
        return None
    x1, y1, x0, y0 = struct.unpack_from(">4I", data, start + 8)
    (components,) = struct.unpack_from(">H", data, start + 40)
    precision = (data[start + 42] & 0x7F) + 1
    if x1 <= x0 or y1 <= y0:
        return None
    end = _end_of_tiles(data, start)
    return CodeStream(
        kind="jpeg2000",
        process=0,
        height=y1 - y0,
        width=x1 - x0,
        precision=precision,
        components=components,
        end=end,
        fault="" if end else "ends without its end marker",
    )


def _end_of_tiles(data: bytes, start: int) -> int | None:
    """Where the end marker ends; tile-parts say how long they are (ITU-T T.800 section A.4.2)."""
    position = start + 2
    while position + 4 <= len(data):
        marker, length = struct.unpack_from(">HH", data, position)
        if marker == _SOT:
            length = int.from_bytes(data[position + 6 : position + 10])
            if length == 0:  # the last one lasts up to the end marker
                found = data.rfind(_EOC, position)
                return found + 2 if found > 0 else None
            position += length
        else:
            position += 2 + length
        if data[position : position + 2] == _EOC:
            return position + 2
    return None


def _read_sof(data: bytes) -> CodeStream | None:
    restarts = False
    for marker, start, end in segments(data):
        if marker == _DRI:
            restarts = any(data[start:end])
        if marker not in FRAMES:
            continue
        precision, height, width, components = struct.unpack_from(">BHHB", data, start)
        scans = read_scans(data, end, frame=marker, components=components, restarts=restarts)
        return CodeStream(
            kind="jpeg-ls" if marker == _JPEG_LS else "jpeg",
            process=marker & 0x0F if marker != _JPEG_LS else 0,
            height=height,
            width=width,
            precision=precision,
            components=components,
            scans=scans.count,
            scan_end=scans.end,
            end=scans.after or None,
            fault=scans.fault,
        )
    return None


_APP0, _JFIF = 0xE0, b"JFIF\0"
_APP1, _EXIF = 0xE1, b"Exif\0\0"
_KINDS = {1: "MONOCHROME2", 3: "RGB", 4: "CMYK"}
_PROCESSES = {0: "baseline", 1: "extended", 2: "progressive"}
# A progressive image is kept as coefficients of 16 bits until its last scan was read, and each
# scan goes through all of them.
_COEFFICIENT_BITS = 16
_PASSES = 4


def jpeg_info(data: bytes, path: str, options: ReadOptions) -> ImageInfo:
    """What the header says."""
    return _info(_header(data, path, options), data)


def read_jpeg(data: bytes, path: str, options: ReadOptions) -> Raster:
    """The image, upright as its Exif orientation says."""
    data = without_stray_bytes(data)
    header = _header(data, path, options)
    options.check_frame(path, 1)
    _check_kind(header, path, options)
    info = _info(header, data)
    factor = 1 << halvings(info.height, info.width, options.least_side, info.aspect)
    with third_party_decoder(path, "the JPEG is damaged or truncated", quote=True):
        image = decode_jpeg(data, header, factor)
        if image.size != (-(-header.width // factor), -(-header.height // factor)):
            raise ImageReadError(path, "the JPEG declares two different sizes")
        pixels, peak = grey_of(image)
    scale, offset = linear_scale(0, peak)
    return Raster(
        pixels=upright(pixels, info.orientation), scale=scale, offset=offset, info=info,
        reduction=reduction_of_jpeg(info.height, info.width, factor, info.orientation),
    )  # fmt: skip


def reduction_of_jpeg(
    height: int, width: int, factor: int, orientation: int = 1
) -> Reduction | None:
    """Where the means that `decode_jpeg` gives lie; None for a factor of 1.

    Args:
        height: Rows of the image, upright.
        width: Columns of the image, upright.
        factor: Side of the squares.
        orientation: By which the means were turned.
    """
    if factor == 1:
        return None
    top, left = (n - -(-n // factor) * factor for n in (height, width))  # of mirrored squares
    return Reduction(
        height=height,
        width=width,
        factor=factor,
        top=top if orientation in (3, 4, 7, 8) else 0,
        left=left if orientation in (2, 3, 6, 7) else 0,
        blur=(factor**2 - 1) / 12,
    )


def _header(data: bytes, path: str, options: ReadOptions) -> CodeStream:
    header = read_codestream(data)
    if header is None:
        raise ImageReadError(path, "truncated: the JPEG holds no frame header")
    bits = header.precision * header.components
    if header.process == _PROGRESSIVE & 0x0F:
        bits += _COEFFICIENT_BITS * header.components
    options.limits.check_picture(path, header.height, header.width, bits=bits, stored=len(data))
    return header


def _info(header: CodeStream, data: bytes) -> ImageInfo:
    orientation, aspect = 1, 1.0
    exif = b""  # it comes before the first scan (Exif 3.0 section 4.7)
    for marker, start, end in segments(data):
        if marker == _APP1 and data[start : start + len(_EXIF)] == _EXIF:
            exif += data[start + len(_EXIF) : end]
        elif marker == _APP0 and data[start : start + len(_JFIF)] == _JFIF and end - start >= 12:
            across, down = struct.unpack_from(">HH", data, start + 8)  # pixels per unit of length
            aspect = aspect_of(across, down)
    orientation = orientation_of(exif) if exif else 1
    turned = orientation >= 5
    return ImageInfo(
        format="jpeg",
        height=header.width if turned else header.height,
        width=header.height if turned else header.width,
        bits=header.precision,
        photometric=_KINDS.get(header.components, "unknown"),
        channels=header.components,
        orientation=orientation,
        aspect=1 / aspect if turned else aspect,
    )


def _check_kind(header: CodeStream, path: str, options: ReadOptions) -> None:
    if header.kind != "jpeg" or header.process not in _PROCESSES:
        reason = "a lossless or arithmetic-coded JPEG, which is read only inside DICOM"
        raise UnsupportedImageError(path, reason, "convert it to PNG")
    if header.precision != 8:
        reason = f"a JPEG of {header.precision} bits, which is read only inside DICOM"
        raise UnsupportedImageError(path, reason, "convert it to a 16-bit PNG")
    if header.components not in (1, 3):
        reason = f"a JPEG of {header.components} channels (CMYK is for print)"
        raise UnsupportedImageError(path, reason, "convert it to grey")
    check_scans(header, path, options.limits)
    if header.fault:
        raise ImageReadError(path, f"truncated: the JPEG {header.fault}")


def check_scans(header: CodeStream, path: str, limits: Limits) -> None:
    """Refuse a JPEG whose scans only serve to keep a decoder busy."""
    if header.scans > MOST_SCANS:
        raise ImageTooLargeError(path, f"a JPEG of more than {MOST_SCANS} scans")
    passes = header.scans * header.height * header.width
    if header.process == _PROGRESSIVE & 0x0F and passes > _PASSES * limits.pixels:
        reason = f"a progressive JPEG of {header.scans} scans of {header.width} x {header.height}"
        raise ImageTooLargeError(path, f"{reason} pixels", "save it as a baseline JPEG")

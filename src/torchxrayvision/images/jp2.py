"""JPEG 2000 outside DICOM: files of boxes (JP2, JPX, JPH) and bare code streams.

The boxes say what the channels mean (ITU-T T.800 annex I); they are read here, and the decoder is
handed the code stream alone. What a file says twice has to agree.
"""

from __future__ import annotations

import importlib
import logging
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from torchxrayvision.errors import ImageReadError, ImageTooLargeError, UnsupportedImageError
from torchxrayvision.images.common import (
    ImageInfo,
    Raster,
    aspect_of,
    catch_prints,
    halvings,
    linear_scale,
    silence_decoders,
    third_party_decoder,
)
from torchxrayvision.images.jpeg import read_codestream
from torchxrayvision.images.jpeg2000 import (
    MOST_BITS,
    can_decode,
    check_pieces,
    decode_image,
    is_clipped,
    read_coding,
    reduction_of_jpeg2000,
    samples,
    with_sign,
)
from torchxrayvision.images.pixels import (
    grey_of,
    mean_of_channels,
    mean_of_palette,
    orientation_of,
    upright,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from torchxrayvision.images.common import ReadOptions, Reduction
    from torchxrayvision.images.jpeg import CodeStream
    from torchxrayvision.images.jpeg2000 import Coding

_CODE: Final = b"\xff\x4f\xff\x51"
_MOST_BOXES: Final = 10_000
_WAVELET: Final = 7  # the only type of compression that a JP2 file may have
_EXIF: Final = b"JpgTiffExif->JP2"  # the UUID under which ExifTool and others keep a block of Exif
_MOST_ENTRIES: Final = 256  # of a palette whose indices have 8 bits
_WHOLE_IMAGE: Final = 4  # bytes that OpenJPEG takes per sample
# Colour spaces by number (T.800 table I.10, T.801 table M.25) and by the header of a profile.
_GREY, _RGB, _YCC, _CMYK = "MONOCHROME2", "RGB", "sYCC", "CMYK"
_COLOURS: Final = {16: _RGB, 17: _GREY, 18: _YCC, 12: _CMYK}
_PROFILES: Final = {b"GRAY": _GREY, b"RGB ": _RGB, b"CMYK": _CMYK}
_PARTS: Final = {_GREY: 1, _RGB: 3, _YCC: 3, _CMYK: 4}
_TO_PNG: Final = "convert it to PNG"
_TO_GREY: Final = "convert it to grey"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Part:
    """A component of the code stream."""

    bits: int
    signed: bool
    across: int
    down: int


@dataclass(kw_only=True, slots=True)
class _Picture:
    boxed: bool
    headers: int = 0
    streams: list[tuple[int, int]] = field(default_factory=list)
    declared: tuple[int, ...] = ()  # rows, columns, components
    compression: int = _WAVELET
    colours: list[str] = field(default_factory=list)
    palette: NDArray[np.uint8] | None = None
    oddity: str = ""  # what of palette or channels is not read
    order: dict[int, int] = field(default_factory=dict)  # channel to its type: 0 for colour
    aspect: float = 1.0
    orientation: int = 1


def jp2_info(data: bytes, path: str, options: ReadOptions) -> ImageInfo:
    """What the header says."""
    picture = _parse(data, path)
    _, stream, parts = _code(data, picture, path, options)
    return _info(picture, stream, parts)


def read_jp2(data: bytes, path: str, options: ReadOptions) -> Raster:
    """The image, scaled by the declared bit depth; alpha is dropped."""
    picture = _parse(data, path)
    code, stream, parts = _code(data, picture, path, options)
    options.check_frame(path, len(picture.streams))
    if len(picture.streams) > 1:
        reason = f"a JPX file of {len(picture.streams)} code streams"
        raise UnsupportedImageError(path, reason, "save the one that you need as PNG")
    colour = _check_kind(picture, stream, parts, path)
    if not can_decode():
        reason = "JPEG 2000 needs a Pillow that was built with OpenJPEG, as its wheels are"
        raise UnsupportedImageError(path, reason, "pip install --force-reinstall pillow")
    info = _info(picture, stream, parts)
    reduction: Reduction | None = None
    if parts[0].bits > 8 and len(parts) > 1:
        pixels, low, peak = _deep(code, stream, parts[0], colour, path)
    else:
        coding, times = None, 0
        if picture.palette is None and colour != _YCC:  # indices and clipped sums have no means
            times = halvings(info.height, info.width, options.least_side, info.aspect)
            coding = _coding(code)
        image, times = _image(code, stream, coding, times, path)
        pixels, low, peak = _grey(image, picture, parts[0], colour)
        if times and coding is not None:
            turned = picture.orientation
            reduction = reduction_of_jpeg2000(info.height, info.width, times, coding, turned)
    scale, offset = linear_scale(low, peak)
    return Raster(
        pixels=upright(pixels, picture.orientation), scale=scale, offset=offset, info=info,
        reduction=reduction,
    )  # fmt: skip


def _info(picture: _Picture, stream: CodeStream, parts: list[_Part]) -> ImageInfo:
    turned = picture.orientation >= 5
    colour = _colour(picture, parts)
    kind = "PALETTE COLOR" if picture.palette is not None else _RGB if colour == _YCC else colour
    return ImageInfo(
        format="jpeg2000",
        height=stream.width if turned else stream.height,
        width=stream.height if turned else stream.width,
        bits=stream.precision,
        photometric=kind if kind in (*_PARTS, "PALETTE COLOR") else "unknown",
        channels=stream.components,
        signed=parts[0].signed,
        frames=len(picture.streams),
        orientation=picture.orientation,
        aspect=1 / picture.aspect if turned else picture.aspect,
    )


# ---- What the boxes say.


def _parse(data: bytes, path: str) -> _Picture:
    if data.startswith(_CODE):
        return _Picture(boxed=False, streams=[(0, len(data))])
    picture = _Picture(boxed=True)
    try:
        _read_boxes(data, picture, path)
    except ImageReadError as error:
        if not picture.streams or isinstance(error, ImageTooLargeError):
            raise
        _log.debug("what follows the code stream is no box: %s", error.reason)
    except (struct.error, IndexError):
        raise ImageReadError(path, "truncated inside a header box of the JPEG 2000 file") from None
    if not picture.streams:
        raise ImageReadError(path, "truncated: the JPEG 2000 file holds no code stream")
    if picture.headers != 1 or not picture.declared:
        raise ImageReadError(path, "the header box of the JPEG 2000 file is missing or doubled")
    return picture


def _read_boxes(data: bytes, picture: _Picture, path: str) -> None:
    for kind, start, end in _boxes(data, 0, len(data), path):
        if kind == b"jp2h":
            picture.headers += 1
            _read_header(data, start, end, picture, path)
        elif kind == b"jp2c":
            picture.streams.append((start, end))
        elif kind == b"uuid" and data[start : start + len(_EXIF)] == _EXIF:
            picture.orientation = orientation_of(data[start + len(_EXIF) : end])


def _boxes(data: bytes, start: int, end: int, path: str) -> Iterator[tuple[bytes, int, int]]:
    """Kind of each box, where its content begins and ends (T.800 section I.4)."""
    for _ in range(_MOST_BOXES):
        if end - start < 8:
            return
        length, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, start + 8)
            head = 16
        elif length == 0:  # the last one
            length = end - start
        shown = kind.decode("ascii") if kind.isalnum() else f"0x{kind.hex()}"
        if length < head:
            raise ImageReadError(path, f"the JPEG 2000 box {shown} is damaged: {length} bytes long")
        if length > end - start:
            raise ImageReadError(path, f"truncated inside the JPEG 2000 box {shown}")
        yield kind, start + head, start + length
        start += length
    raise ImageTooLargeError(path, f"a JPEG 2000 file of more than {_MOST_BOXES:,} boxes")


def _read_header(data: bytes, start: int, end: int, picture: _Picture, path: str) -> None:
    palette, mapping = b"", b""
    for kind, first, last in _boxes(data, start, end, path):
        body = data[first:last]
        match kind:
            case b"ihdr":
                height, width, channels, _, picture.compression = struct.unpack(">IIHBB", body[:12])
                picture.declared = height, width, channels
            case b"colr":
                picture.colours += _named_colour(body)
            case b"pclr":
                palette = body
            case b"cmap":
                mapping = body
            case b"cdef":
                picture.order = _channel_types(body)
            case b"res ":
                _read_resolution(body, picture, path)
    if palette:
        picture.palette, picture.oddity = _read_palette(palette, mapping)


def _named_colour(body: bytes) -> list[str]:
    """The colour space, or nothing where it belongs to a vendor."""
    method = body[0]
    if method == 1:
        (number,) = struct.unpack_from(">I", body, 3)
        return [_COLOURS.get(number, f"colour space {number}")]
    if method in (2, 3):
        return [_PROFILES.get(body[19:23], "a colour profile that is neither grey nor RGB")]
    return []


def _channel_types(body: bytes) -> dict[int, int]:
    (count,) = struct.unpack_from(">H", body)
    entries = [struct.unpack_from(">HHH", body, 2 + 6 * entry) for entry in range(count)]
    return {channel: 0 if kind == 0 and meant else kind or 1 for channel, kind, meant in entries}


def _read_palette(body: bytes, mapping: bytes) -> tuple[NDArray[np.uint8], str]:
    """Colours (N, 1 or 3), and what of them is not read."""
    count, columns = struct.unpack_from(">HB", body)
    depths, table = body[3 : 3 + columns], body[3 + columns :]
    usual = b"".join(struct.pack(">HBB", 0, 1, column) for column in range(columns))
    oddity = ""
    if set(depths) != {7} or columns not in (1, 3) or not 0 < count <= _MOST_ENTRIES:
        oddity = f"a palette of {count} colours of {columns} channels"
    elif mapping != usual:
        oddity = "a palette for some of its channels"
    elif len(table) < count * columns:
        raise IndexError
    if oddity:
        return np.zeros((1, 1), np.uint8), oddity
    return np.frombuffer(table, np.uint8, count * columns).reshape(count, columns), ""


def _read_resolution(body: bytes, picture: _Picture, path: str) -> None:
    """The form of a pixel, by the resolution of capture or else of display (section I.5.3.7)."""
    found = {}
    for kind, start, _ in _boxes(body, 0, len(body), path):
        if kind not in (b"resc", b"resd"):
            continue
        down, below, across, beneath, e_down, e_across = struct.unpack_from(">HHHHbb", body, start)
        if below and beneath:
            rows, columns = down / below * 10.0**e_down, across / beneath * 10.0**e_across
            found[kind] = aspect_of(columns, rows)  # both count points per metre
    picture.aspect = found.get(b"resc", found.get(b"resd", 1.0))


def _colour(picture: _Picture, parts: list[_Part]) -> str:
    """What the channels are; what is not read has a name that is none of `_PARTS`."""
    if not picture.boxed:
        names = {1: _GREY, 3: _RGB}
        return names.get(len(parts), f"{len(parts)} channels without a colour space")
    known = [colour for colour in picture.colours if colour in _PARTS]
    if known:
        return known[0]
    return picture.colours[0] if picture.colours else "a colour space of its maker"


# ---- What the code stream says.


def _code(
    data: bytes, picture: _Picture, path: str, options: ReadOptions
) -> tuple[bytes, CodeStream, list[_Part]]:
    """The first code stream, its header, and its components; within the limits."""
    start, end = picture.streams[0]
    code = data[start:end]
    stream = read_codestream(code) if code.startswith(_CODE) else None
    if stream is None:
        raise ImageReadError(path, "truncated: the JPEG 2000 code stream has no header")
    bits = 8 * _WHOLE_IMAGE * stream.components
    options.limits.check_picture(
        path, stream.height, stream.width, bits=bits, stored=len(data), frames=len(picture.streams)
    )
    check_pieces(code, path)
    sizes = code[42 : 42 + 3 * stream.components]
    if not sizes or int.from_bytes(code[4:6]) != 38 + len(sizes):
        raise ImageReadError(path, "the header of the JPEG 2000 code stream is damaged")
    parts = [
        _Part((sizes[at] & 0x7F) + 1, bool(sizes[at] & 0x80), sizes[at + 1], sizes[at + 2])
        for at in range(0, len(sizes), 3)
    ]
    if picture.boxed and picture.declared != (
        stream.height,
        stream.width,
        stream.components,
    ):
        raise ImageReadError(path, "the JPEG 2000 file declares two different sizes")
    return code, stream, parts


def _check_kind(picture: _Picture, stream: CodeStream, parts: list[_Part], path: str) -> str:
    """Refuse what is not read; the colour space."""
    colour = _colour(picture, parts)
    what = f"a JPEG 2000 picture of {len(parts)} channels"
    for wrong, reason, advice in (
        (picture.compression != _WAVELET, "a JPEG 2000 file without JPEG 2000 code", _TO_PNG),
        (colour == _CMYK, f"{what} (CMYK is for print)", _TO_GREY),
        (colour not in _PARTS, f"a JPEG 2000 picture of {colour}", _TO_GREY),
        (picture.oddity, f"a JPEG 2000 picture with {picture.oddity}", _TO_PNG),
        *_faults(parts, 1 if picture.palette is not None else _PARTS.get(colour, 1), picture),
    ):
        if wrong:
            raise UnsupportedImageError(path, reason, advice)
    if (picture.palette is not None or colour == _YCC) and (parts[0].bits > 8 or parts[0].signed):
        reason = f"a JPEG 2000 picture of {parts[0].bits} bits with a palette or in sYCC"
        raise UnsupportedImageError(path, reason, _TO_GREY)
    if stream.fault:
        raise ImageReadError(path, f"truncated: the JPEG 2000 code stream {stream.fault}")
    return colour


def _faults(parts: list[_Part], count: int, picture: _Picture) -> Iterator[tuple[bool, str, str]]:
    """What of the components is not read, where `count` of them are colours."""
    what, bits = "a JPEG 2000 picture", parts[0].bits
    yield bits > MOST_BITS, f"{what} of {bits} bits", "convert it to a 16-bit PNG"
    usual = count <= len(parts) <= count + 1 and _in_order(picture, count, len(parts))
    yield not usual, f"{what} of {len(parts)} channels in an unusual order", _TO_PNG
    sampled = {(part.across, part.down) for part in parts}
    yield sampled != {(1, 1)}, f"{what} whose channels are subsampled", _TO_PNG
    yield not _fit(parts, count), f"{what} whose channels differ in bits", _TO_PNG


def _in_order(picture: _Picture, count: int, channels: int) -> bool:
    """Whether the first channels are the colours and what follows is alpha."""
    if picture.palette is not None or not picture.order:
        return True
    return all((picture.order.get(at, 0) == 0) == (at < count) for at in range(channels))


def _fit(parts: list[_Part], count: int) -> bool:
    """Whether colours have the same bits, and alpha does not take the decoder to other ones."""
    colours = {(part.bits, part.signed) for part in parts[:count]}
    bits = {part.bits for part in parts}
    return len(colours) == 1 and (len(bits) == 1 or max(bits) <= 8)


def _coding(code: bytes) -> Coding | None:
    try:
        return read_coding(code)
    except (struct.error, IndexError):  # the decoder says what is wrong
        return None


# ---- Pixels.


def _image(
    code: bytes, stream: CodeStream, coding: Coding | None, times: int, path: str
) -> tuple[Image.Image, int]:
    """The decoded image, and how often its sides are halved."""
    times = 0 if coding is None else min(times, coding.levels)
    image = _reduced(code, stream, times) if times else None
    if image is not None:
        return image, times
    with third_party_decoder(path, "the JPEG 2000 pixel data is damaged", quote=True):
        image = decode_image(code, stream)
    return image, 0


def _reduced(code: bytes, stream: CodeStream, times: int) -> Image.Image | None:
    """The image at a fraction of its resolution, or nothing where it is to be decoded whole."""
    try:
        with silence_decoders():
            image = decode_image(code, stream, times)
    except Exception as error:  # noqa: BLE001 - damage, which decoding the whole image names
        _log.debug("a reduced JPEG 2000 image is decoded whole: %s", error)
        return None
    bands = (image,) if stream.components == 1 else image.split()
    colours, bits = bands[: 3 if len(bands) >= 3 else 1], stream.precision
    clipped = any(is_clipped(samples(band, bits), bits) for band in colours)
    return None if clipped else image


def _grey(
    image: Image.Image, picture: _Picture, part: _Part, colour: str
) -> tuple[NDArray[Any], int, int]:
    """Pixels (H, W), and the values of black and white in them."""
    bits = part.bits
    if colour in (_RGB, _YCC) and picture.palette is None:
        if colour == _YCC:
            image = Image.merge("YCbCr", image.split()[:3]).convert("RGB")
        pixels, white = grey_of(image)
        return pixels, 0, white // 255 * (((1 << bits) - 1) << (8 - bits))
    first = image if len(image.getbands()) == 1 else image.getchannel(0)
    values = samples(first, bits)
    if picture.palette is not None:
        colours = np.broadcast_to(picture.palette, (len(picture.palette), 3))
        pixels, white = mean_of_palette(values, colours)
        return pixels, 0, white
    low = -(1 << (bits - 1)) if part.signed else 0
    return with_sign(values, bits, signed=part.signed), low, low + (1 << bits) - 1


def _deep(
    code: bytes, stream: CodeStream, part: _Part, colour: str, path: str
) -> tuple[NDArray[Any], int, int]:
    """As `_grey`, of several channels of more than 8 bits, of which Pillow keeps no more."""
    try:
        openjpeg = importlib.import_module("openjpeg")
    except ImportError as error:
        reason = f"JPEG 2000 of {stream.components} channels of {part.bits} bits"
        reason += " needs the package pylibjpeg-openjpeg"
        advice = 'pip install "torchxrayvision[dicom]"'
        raise UnsupportedImageError(path, reason, advice) from error
    reason = "the JPEG 2000 pixel data is damaged"
    with third_party_decoder(path, reason, quote=True), catch_prints(path):
        pixels = np.asarray(openjpeg.decode(code))
    if pixels.shape != (stream.height, stream.width, stream.components):
        raise ImageReadError(path, f"the JPEG 2000 code decodes to shape {pixels.shape}")
    low = -(1 << (part.bits - 1)) if part.signed else 0
    peak = (1 << part.bits) - 1
    if colour == _GREY:
        return np.ascontiguousarray(pixels[:, :, 0]), low, low + peak
    shifted = (pixels.astype(np.int32) - low).astype(np.uint16)
    mean, white = mean_of_channels(shifted, peak)
    return mean, 0, white

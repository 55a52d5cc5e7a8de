"""Stored pixel values of one frame of a DICOM dataset (PS3.5 section 8 and annex A)."""

from __future__ import annotations

import importlib
import io
import re
import struct
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, SecondaryCaptureImageStorage

from torchxrayvision.errors import ImageReadError, ImageTooLargeError, UnsupportedImageError
from torchxrayvision.images.common import foreign
from torchxrayvision.images.dicom.dataset import pixel_element
from torchxrayvision.images.jpeg import MOST_SCANS, CodeStream, decode_jpeg, lasts, read_codestream
from torchxrayvision.images.pixels import pixels_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from torchxrayvision.images.dicom.dataset import Header

__all__ = [
    "JpegStructureError",
    "check_cell",
    "check_markers",
    "decode_twelve_bits",
    "stored_for_gdcm",
    "stored_values",
]


# ---- Strict check of a grey JPEG before GDCM sees it.
#
# GDCM ends the whole process on a header that contradicts itself. So the structure that ITU-T T.81
# annex B prescribes for one grey frame in one scan is verified first; what is left to go wrong is
# entropy-coded data, on which GDCM stays calm.

_SOF_EXTENDED, _SOF_BASELINE, _SOF_LOSSLESS = 0xC1, 0xC0, 0xC3
_DHT, _DQT, _DRI, _SOS, _EOI, _COM = 0xC4, 0xDB, 0xDD, 0xDA, 0xD9, 0xFE
_APPLICATION = range(0xE0, 0xF0)
_RESTART = range(0xD0, 0xD8)
_INNER_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)


class JpegStructureError(ValueError):
    """The markers of a code stream are not those of one grey frame in one scan."""


@dataclass(slots=True)
class _State:
    lossless: bool
    precision: int = 0
    component: int = -1
    quantisation: int = -1
    tables: set[tuple[int, int]] = field(default_factory=set)  # Huffman: class, number
    quantisers: set[int] = field(default_factory=set)
    restarts: bool = False


def check_markers(data: bytes, *, lossless: bool) -> None:
    """Verify every marker segment of a code stream.

    Args:
        data: The code stream, from SOI on; padding may follow EOI.
        lossless: Whether the process is lossless (SOF3), else sequential (SOF0, SOF1).

    Raises:
        JpegStructureError: If a segment is missing, doubled, misplaced or out of range.
    """
    state = _State(lossless=lossless)
    position = 2
    while True:
        marker, body, position = _segment(data, position)
        if marker == _SOS:
            _check_scan(body, state)
            _check_entropy(data, position, state)
            return
        _check_segment(marker, body, state)


def _segment(data: bytes, position: int) -> tuple[int, bytes, int]:
    if data[position : position + 1] != b"\xff":
        _fail("bytes between markers")
    while data[position : position + 1] == b"\xff":
        position += 1
    head = data[position : position + 3]
    if len(head) < 3:
        _fail("it ends inside the header")
    length = head[1] << 8 | head[2]
    end = position + 1 + length
    if length < 2 or end > len(data):
        _fail(f"segment {head[0]:02X} has length {length}")
    return head[0], data[position + 3 : end], end


def _check_segment(marker: int, body: bytes, state: _State) -> None:
    frames = (_SOF_LOSSLESS,) if state.lossless else (_SOF_BASELINE, _SOF_EXTENDED)
    if marker in frames:
        _check_frame(body, state)
    elif marker == _DHT:
        _check_huffman(body, state)
    elif marker == _DQT:
        _check_quantisers(body, state)
    elif marker == _DRI:
        if len(body) != 2:
            _fail("restart interval")
        state.restarts = body != b"\0\0"
    elif marker not in _APPLICATION and marker != _COM:
        _fail(f"marker {marker:02X}")


def _check_frame(body: bytes, state: _State) -> None:
    if state.component >= 0 or len(body) != 9:
        _fail("frame header")
    precision, height, width, count, component, sampling, table = struct.unpack(">BHHBBBB", body)
    allowed = range(2, 17) if state.lossless else (8, 12)
    factors = {sampling >> 4, sampling & 15}
    if precision not in allowed or count != 1 or not height or not width:
        _fail("frame header")
    if not factors <= {1, 2, 3, 4} or table > 3:
        _fail("sampling factors")
    state.precision, state.component, state.quantisation = precision, component, table


def _check_huffman(body: bytes, state: _State) -> None:
    while body:
        kind, number = body[0] >> 4, body[0] & 15
        counts, total = body[1:17], sum(body[1:17])
        values = body[17 : 17 + total]
        # Every code and the all-ones code that is left free fit into 16 bits (annex C).
        used = sum(count << (16 - length) for length, count in enumerate(counts, start=1))
        if kind > 1 or number > 3 or len(counts) != 16 or len(values) != total:
            _fail("Huffman table")
        if not 0 < total <= 256 or used >= 1 << 16:
            _fail("Huffman code")
        if kind == 0 and max(values) > 16:
            _fail("Huffman categories")
        state.tables.add((kind, number))
        body = body[17 + total :]


def _check_quantisers(body: bytes, state: _State) -> None:
    while body:
        wide, number = body[0] >> 4, body[0] & 15
        size = 128 if wide else 64
        if wide > 1 or number > 3 or len(body) < 1 + size:
            _fail("quantisation table")
        state.quantisers.add(number)
        body = body[1 + size :]


def _check_scan(body: bytes, state: _State) -> None:
    if len(body) != 6 or body[0] != 1 or state.component < 0 or body[1] != state.component:
        _fail("scan header")
    direct, alternating = body[2] >> 4, body[2] & 15
    first, last, approximation = body[3], body[4], body[5]
    if (0, direct) not in state.tables:
        _fail("Huffman table missing")
    if state.lossless:
        if not 1 <= first <= 7 or last or approximation >= state.precision:
            _fail("predictor")
        return
    if (1, alternating) not in state.tables or state.quantisation not in state.quantisers:
        _fail("table missing")
    # The rest of the header says (0, 63, 0); decoders take other values as if it did.


def _check_entropy(data: bytes, position: int, state: _State) -> None:
    scan = data[position:].rstrip(b"\0\xff")
    if scan.endswith(b"\xff\xd9") and scan.count(b"\xff") - scan.count(b"\xff\0") == 1:
        return  # the common case in a fraction of the time: no other marker
    for found in _INNER_MARKER.finditer(data, position):
        marker = found[1][0]
        if marker == _EOI:
            if data[found.end() :].strip(b"\0\xff"):
                _fail("bytes behind its end")
            return
        if marker not in _RESTART or not state.restarts:
            _fail(f"marker {marker:02X} in the scan")
    _fail("no end marker")


def _fail(what: str) -> None:
    msg = f"not a well-formed JPEG of one grey frame: {what}"
    raise JpegStructureError(msg)


# ---- JPEG Extended of twelve bits, which pydicom has no freely licensed plugin for.

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


_NATIVE = {
    "1.2.840.10008.1.2": "<",
    "1.2.840.10008.1.2.1": "<",
    "1.2.840.10008.1.2.1.99": "<",
    "1.2.840.10008.1.2.2": ">",
}
_EXTENDED = "1.2.840.10008.1.2.4.51"
_LOSSY = {"1.2.840.10008.1.2.4." + tail for tail in ("50", "51", "81", "91", "203")}
# The package that each family needs, and pydicom's plugins for it, the sturdiest on damage first.
_JPEG = ("pillow", ("pillow", "gdcm", "pylibjpeg"))
_LOSSLESS = ("python-gdcm", ("gdcm", "pylibjpeg"))
_JPEG_LS = ("pyjpegls", ("pyjpegls", "gdcm"))
_JPEG_2000 = ("pylibjpeg-openjpeg", ("pylibjpeg", "gdcm", "pillow"))
_RLE = ("pydicom", ("pydicom",))
_CODECS = {
    "1.2.840.10008.1.2.5": _RLE,
    **{f"1.2.840.10008.1.2.4.{tail}": _JPEG for tail in (50, 51)},
    **{f"1.2.840.10008.1.2.4.{tail}": _LOSSLESS for tail in (57, 70)},
    **{f"1.2.840.10008.1.2.4.{tail}": _JPEG_LS for tail in (80, 81)},
    **{f"1.2.840.10008.1.2.4.{tail}": _JPEG_2000 for tail in (90, 91, 201, 202, 203)},
}
# A lossy codec overshoots at edges; more than this share of pixels means a wrong Bits Stored.
_OVERSHOOT = 0.01
_END = b"\xff\xd9"  # EOI of JPEG and JPEG-LS, EOC of JPEG 2000


def stored_values(
    dataset: Dataset, syntax: str, header: Header, frame: int, path: str
) -> NDArray[Any]:
    """Decode one frame.

    Returns:
        Shape (rows, columns), native byte order, values within those of Bits Stored.

    Raises:
        ImageReadError: If pixel data is missing, truncated, damaged or not what the tags say.
        UnsupportedImageError: If no installed decoder reads the transfer syntax.
    """
    value, vr, encapsulated = pixel_element(dataset, path)
    if not value:
        raise ImageReadError(path, "truncated: the DICOM pixel data is missing or incomplete")
    if syntax in _NATIVE and not encapsulated:
        pixels = _native(value, vr, _NATIVE[syntax], header, frame, path)
        return _clean(pixels, header, lossless=True, path=path)
    if syntax not in _CODECS:
        _refuse(syntax, path)
    if not encapsulated:
        raise ImageReadError(path, "the DICOM transfer syntax is compressed, its pixel data is not")
    pixels = _encapsulated(dataset, value, syntax, header, frame, path)
    return _clean(pixels, header, lossless=syntax not in _LOSSY, path=path)


def _refuse(syntax: str, path: str) -> None:
    with foreign(path, "the DICOM transfer syntax is damaged"):
        name = UID(syntax).name
    if syntax in _NATIVE:
        raise ImageReadError(path, f"encapsulated pixel data under the transfer syntax {name}")
    raise UnsupportedImageError(path, f"no decoder for the DICOM transfer syntax {name!r}")


def _native(
    value: bytes, vr: str, order: str, header: Header, frame: int, path: str
) -> NDArray[Any]:
    count = header.rows * header.columns
    size = header.allocated // 8
    start = frame * count * size
    if len(value) < start + count * size:
        reason = f"truncated: {len(value):,} bytes of pixel data, {start + count * size:,} declared"
        raise ImageReadError(path, reason)
    kind = "i" if header.signed else "u"
    if size == 1 and order == ">" and vr == "OW":  # bytes swapped in pairs, PS3.5 section A.3
        swapped = np.frombuffer(value[: len(value) // 2 * 2], ">u2").astype("<u2").view(np.uint8)
        value = swapped.tobytes()
    pixels = np.frombuffer(value, f"{order}{kind}{size}", count, start)
    native = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    return native.reshape(header.rows, header.columns)


def _encapsulated(
    dataset: Dataset, value: bytes, syntax: str, header: Header, frame: int, path: str
) -> NDArray[Any]:
    one = _one_frame(dataset, value, header, frame, path)
    stream = _code_stream(one, syntax, header, path)
    codec = _CODECS[syntax]
    if codec is _LOSSLESS and stream is not None:
        check_cell(header, path)
        with foreign(path, "the lossless JPEG pixel data is damaged or truncated"):
            check_markers(one, lossless=True)
        pixels = _by_pydicom(one, syntax, header, path)
        _check_last_row(pixels, one, stream, path)
    elif stream is None or stream.kind != "jpeg" or codec is not _JPEG:
        pixels = _by_pydicom(one, syntax, header, path)
    elif stream.precision > 8 and syntax == _EXTENDED:
        pixels = decode_twelve_bits(one, header, path)
        _check_last_row(pixels, one, stream, path)
    else:
        pixels = _eight_bits(one, stream, header, path)
    if pixels.shape != (header.rows, header.columns):
        raise ImageReadError(path, f"the pixel data decodes to shape {pixels.shape}")
    return pixels


def _eight_bits(one: bytes, stream: CodeStream, header: Header, path: str) -> NDArray[Any]:
    if stream.precision != 8 or header.allocated != 8:
        reason = f"a JPEG of {stream.precision} bits a sample in cells of {header.allocated} bits"
        raise ImageReadError(path, f"{reason}, under a transfer syntax of 8")
    with foreign(path, "the JPEG pixel data is damaged or truncated"):
        pixels = pixels_of(decode_jpeg(one, stream))
    return pixels.view(np.int8) if header.signed else pixels


def _by_pydicom(one: bytes, syntax: str, header: Header, path: str) -> NDArray[Any]:
    decoder: Any = get_decoder(syntax)  # every member of _CODECS has one
    name = decoder.UID.name
    package, plugins = _CODECS[syntax]
    plugin = next((known for known in plugins if known in decoder.available_plugins), None)
    if plugin is None:
        reason = f"{name} pixels need the package {package}"
        raise UnsupportedImageError(path, reason, 'pip install "torchxrayvision[dicom]"')
    with foreign(path, f"the {name} pixel data is damaged or truncated"):
        pixels, _ = decoder.as_array(
            encapsulate([one], has_bot=False),
            raw=True,
            index=0,
            decoding_plugin=plugin,
            rows=header.rows,
            columns=header.columns,
            samples_per_pixel=1,
            photometric_interpretation=header.photometric,
            bits_allocated=header.allocated,
            bits_stored=stored_for_gdcm(header) if plugin == "gdcm" else header.stored,
            pixel_representation=int(header.signed),
            number_of_frames=1,
            pixel_keyword="PixelData",
            correct_unused_bits=False,
        )
    return np.asarray(pixels)


def _check_last_row(pixels: NDArray[Any], one: bytes, stream: CodeStream, path: str) -> None:
    """Refuse a scan that ends early, which GDCM fills up without a word.

    The filling is recognised by a last row that tells nothing new; films with a black margin have
    one too, and only then is the scan walked through a second time.
    """
    if _tells_nothing(pixels[-2:]) and not lasts(one, stream):
        raise ImageReadError(path, "truncated: the JPEG scan ends before the last row")


def _tells_nothing(rows: NDArray[Any]) -> bool:
    """Whether the last row is what any predictor of T.81 table H.1 expects, or of one value."""
    above, row = rows[0].astype(np.int64), rows[-1].astype(np.int64)
    a, b, c = row[:-1], above[1:], above[:-1]
    guesses = (a, b, c, a + b - c, a + ((b - c) >> 1), b + ((a - c) >> 1), (a + b) >> 1)
    modulus = 1 << 8 * rows.dtype.itemsize
    return any(not ((guess - row[1:]) % modulus).any() for guess in guesses)


def _one_frame(dataset: Dataset, value: bytes, header: Header, frame: int, path: str) -> bytes:
    with foreign(path, "the DICOM pixel data is damaged or truncated"):
        offsets = None
        if "ExtendedOffsetTable" in dataset and "ExtendedOffsetTableLengths" in dataset:
            offsets = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
        return get_frame(value, frame, extended_offsets=offsets, number_of_frames=header.frames)


def _code_stream(one: bytes, syntax: str, header: Header, path: str) -> CodeStream | None:
    """The header of the code stream, compared with the tags; None for RLE, which has none."""
    stream = read_codestream(one)
    if stream is None:
        if _CODECS[syntax] is _RLE:
            return None
        reason = "the DICOM pixel data is damaged or truncated: it holds no frame header"
        raise ImageReadError(path, f"{reason} of {UID(syntax).name}")
    if (stream.height, stream.width) != (header.rows, header.columns):
        reason = f"the code stream is {stream.width} x {stream.height} pixels"
        raise ImageReadError(path, f"{reason}, the tags say {header.columns} x {header.rows}")
    if stream.components != 1:
        raise ImageReadError(path, f"the code stream has {stream.components} channels, not one")
    if stream.precision > header.allocated:
        reason = f"the code stream has {stream.precision} bits a sample"
        raise ImageReadError(path, f"{reason}, the tags allocate {header.allocated}")
    if stream.scans > MOST_SCANS:
        raise ImageTooLargeError(path, f"a JPEG of more than {MOST_SCANS} scans")
    if not one.rstrip(b"\0\xff").endswith(_END):  # decoders would fill the rest with grey
        raise ImageReadError(path, "truncated: the code stream lacks its end marker")
    if stream.fault:
        raise ImageReadError(path, f"truncated: the code stream {stream.fault}")
    return stream


def _clean(pixels: NDArray[Any], header: Header, *, lossless: bool, path: str) -> NDArray[Any]:
    """Values of the stored bits alone.

    PS3.5 section 8.1.1: bits above the high bit belong to something else, such as the overlays
    of old files. A lossy codec has no such bits; there a value outside is an overshoot.
    """
    if header.stored == header.allocated:
        return pixels
    inside = int(pixels.max()) <= header.high
    if header.signed:
        inside = inside and header.low <= int(pixels.min())
    if inside and header.high_bit == header.stored - 1:
        return pixels
    if lossless:
        return _stored_bits(pixels, header)
    outside = np.count_nonzero((pixels < header.low) | (pixels > header.high)) / pixels.size
    if outside > _OVERSHOOT:
        reason = f"{outside:.0%} of the pixels lie outside the {header.stored} bits declared"
        raise ImageReadError(path, reason)
    clipped: NDArray[Any] = np.clip(pixels, header.low, header.high)
    return clipped


def _stored_bits(pixels: NDArray[Any], header: Header) -> NDArray[Any]:
    unsigned = np.dtype(f"u{pixels.dtype.itemsize}")
    mask = unsigned.type((1 << header.stored) - 1)
    bits: NDArray[Any] = (
        pixels.view(unsigned) >> unsigned.type(header.high_bit + 1 - header.stored) & mask
    )
    if not header.signed:
        return bits
    sign = unsigned.type(1 << (header.stored - 1))
    extended: NDArray[Any] = ((bits ^ sign) - sign).view(f"i{pixels.dtype.itemsize}")
    return extended

"""Stored pixel values of one frame of a DICOM dataset (PS3.5 section 8 and annex A)."""

from __future__ import annotations

import importlib
import io
import re
import struct
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from PIL import ImageFile
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, SecondaryCaptureImageStorage

from torchxrayvision.errors import ImageReadError, UnsupportedImageError, how_to_install
from torchxrayvision.images.common import catch_prints, third_party_decoder
from torchxrayvision.images.dicom.dataset import pixel_element
from torchxrayvision.images.jpeg import (
    CodeStream,
    check_scans,
    decode_jpeg,
    read_codestream,
    reduction_of_jpeg,
    without_stray_bytes,
)
from torchxrayvision.images.pixels import pixels_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from torchxrayvision.images.common import Limits, Reduction
    from torchxrayvision.images.dicom.dataset import Header, Tags

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
    """Verify every marker segment of a code stream, of SOF3 if lossless, else of SOF0 or SOF1.

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
    first, shift = body[3], body[5] & 15
    if (0, direct) not in state.tables:
        _fail("Huffman table missing")
    if state.lossless:
        # Decoders take no notice of the rest, Se and Ah, and some scanners leave others than 0.
        if not 1 <= first <= 7 or shift >= state.precision:
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


_CELLS = (8, 16)


def check_cell(header: Header, path: str) -> None:
    """Refuse pixel cells that no JPEG process has (PS3.5 sections 8.2.1 and A.4.1).

    GDCM ends the whole process on them, with an exception that Python never sees.
    """
    if header.allocated not in _CELLS:
        reason = f"JPEG pixel data with {header.allocated} bits allocated"
        raise ImageReadError(path, reason, "the standard allows 8 and 16: write the file again")


def stored_for_gdcm(header: Header, precision: int) -> int:
    """Bits Stored as GDCM may be told them; the unused bits are cut off later.

    GDCM clears unused bits of 16-bit cells itself, which the code stream may contradict, and ends
    the process on those of 8-bit cells.
    """
    return 8 if header.allocated == 8 else max(header.stored, precision)


def decode_twelve_bits(frame: bytes, stream: CodeStream, header: Header, path: str) -> NDArray[Any]:
    """Decode one frame of 12-bit JPEG Extended with GDCM: shape (rows, columns).

    pydicom's own gdcm plugin declines this precision, and GDCM reads from a named file only. So
    the frame goes to a temporary file under tags that have been checked already.
    """
    try:
        gdcm = importlib.import_module("gdcm")
    except ImportError as error:
        reason = "JPEG Extended pixels of 12 bits need the package python-gdcm"
        advice = how_to_install("dicom", "python-gdcm")
        raise UnsupportedImageError(path, reason, advice) from error
    check_cell(header, path)
    reason = "the JPEG Extended pixel data is damaged or truncated"
    with third_party_decoder(path, reason, quote=True), _complaints(path):
        check_markers(frame, lossless=False)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "frame.dcm"
            file.write_bytes(_wrap(frame, header, stored_for_gdcm(header, stream.precision)))
            reader = gdcm.ImageReader()
            reader.SetFileName(str(file))
            if not reader.Read():
                raise ImageReadError(path, "GDCM cannot decode the JPEG Extended pixel data")
        text = reader.GetImage().GetBuffer()  # bytes, which SWIG hands over as a str
        kind = "i" if header.signed else "u"
        dtype = np.dtype(f"{kind}{header.allocated // 8}")
        pixels = np.frombuffer(text.encode("utf-8", "surrogateescape"), dtype)
        return pixels.reshape(header.rows, header.columns)


def _wrap(frame: bytes, header: Header, stored: int) -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(_EXTENDED)
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = UID("2.25.1")
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = UID("2.25.1")
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = header.photometric
    dataset.Rows, dataset.Columns = header.rows, header.columns
    dataset.BitsAllocated, dataset.BitsStored = header.allocated, stored
    dataset.HighBit = stored - 1
    dataset.PixelRepresentation = int(header.signed)
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


# What libjpeg says of a scan; of bytes before the end marker alone nothing is lost.
_DAMAGE = re.compile(
    r"Premature end|Corrupt JPEG data(?!: \d+ extraneous bytes before marker 0xd9)"
)
_gdcm = threading.Lock()


@contextmanager
def _complaints(path: str) -> Iterator[None]:
    """Take what GDCM prints about a JPEG scan for an error.

    It fills a scan that ends early with grey, and only prints that it did.

    Raises:
        ImageReadError: If it complained of damage.
    """
    with _gdcm, catch_prints(path) as lines:  # it keeps other threads waiting anyway
        yield
    if any("premature end" in line for line in lines):
        raise ImageReadError(path, "truncated: the JPEG scan ends before the last row")
    if any(_DAMAGE.match(line) for line in lines):
        raise ImageReadError(path, "the JPEG scan is damaged")


_IMPLICIT, _EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
_NATIVE = {
    _IMPLICIT: "<",
    _EXPLICIT: "<",
    "1.2.840.10008.1.2.1.99": "<",
    "1.2.840.10008.1.2.2": ">",
}
_RLE = "1.2.840.10008.1.2.5"
_JPEG = ("1.2.840.10008.1.2.4.50", _EXTENDED := "1.2.840.10008.1.2.4.51")
_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_JPEG_LS = ("1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.80")
_JPEG_2000 = tuple(f"1.2.840.10008.1.2.4.{tail}" for tail in (91, 90, 201, 202, 203))
_LOSSY = {*_JPEG, _JPEG_LS[0], _JPEG_2000[0], _JPEG_2000[-1]}
# The package that each family needs, and pydicom's plugins for it, the sturdiest on damage first.
_PLUGINS = {
    _RLE: ("pydicom", ("pydicom",)),
    **dict.fromkeys(_LOSSLESS, ("python-gdcm", ("gdcm", "pylibjpeg"))),
    **dict.fromkeys(_JPEG_LS, ("pyjpegls", ("pyjpegls", "gdcm"))),
    **dict.fromkeys(_JPEG_2000, ("pylibjpeg-openjpeg", ("pylibjpeg", "gdcm", "pillow"))),
}
# A lossy codec overshoots at edges; more than this share of pixels means a wrong Bits Stored.
_OVERSHOOT = 0.01
_ROWS_LOOKED_AT = 256
_ITEM, _DELIMITER = 0xE000FFFE, 0xE0DDFFFE
_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51")  # of a JPEG or JPEG-LS, of a JPEG 2000


def stored_values(
    tags: Tags, syntax: str, header: Header, frame: int, limits: Limits, times: int = 0
) -> tuple[NDArray[Any], Header, str, Reduction | None]:
    """Decode one frame.

    Where the tags and the pixels contradict each other the pixels are followed, with a note.

    Args:
        tags: The dataset.
        syntax: Transfer syntax UID as declared; empty where the file does not say.
        header: The Image Pixel module.
        frame: Counted from 0.
        limits: Of the scans of a JPEG.
        times: How often the sides may be halved, where the decoder saves work by it.

    Returns:
        Shape (rows, columns) or that halved, native byte order, values within those of Bits
        Stored; the module as the pixels are; the transfer syntax as it is; where reduced pixels
        lie, or None.

    Raises:
        ImageReadError: If pixel data is missing, truncated, damaged or not what the tags say.
        UnsupportedImageError: If no installed decoder reads the transfer syntax.
    """
    value, vr, encapsulated = pixel_element(tags)
    if not value:
        reason = "truncated: the DICOM pixel data is missing or incomplete"
        raise ImageReadError(tags.path, reason)
    if not encapsulated:
        order = _NATIVE.get(syntax) or ("<" if tags.little else ">")
        pixels = _native(value, vr, order, header, frame, tags.path)
        if syntax not in _NATIVE:
            tags.note(f"declared as {_name(syntax)}, its pixels are not compressed")
        return *_within_depth(pixels, header, tags, lossless=True), syntax, None
    data = without_stray_bytes(_frame_bytes(value, header, frame, tags.path))
    stream = read_codestream(data)
    actual = _actual_syntax(stream, data, syntax, tags)
    if stream is not None:
        _check_stream(stream, header, tags.path, limits)
        data = data[: stream.end]
        if stream.kind == "jpeg2000":
            from torchxrayvision.images.jpeg2000 import check_pieces

            check_pieces(data[max(0, data.find(_STARTS[1])) :], tags.path)
    reduced = _reduced(data, stream, actual, header, tags.path, times)
    if reduced is not None:
        pixels, reduction = reduced
    else:
        pixels, reduction = _decode(data, stream, actual, header, tags.path), None
        if pixels.shape != (header.rows, header.columns):
            raise ImageReadError(tags.path, f"the pixel data decodes to shape {pixels.shape}")
    lossless = actual not in _LOSSY
    precision = 0 if stream is None else stream.precision
    within = _within_depth(pixels, header, tags, lossless=lossless, precision=precision)
    return *within, actual, reduction


def _reduced(
    data: bytes, stream: CodeStream | None, syntax: str, header: Header, path: str, times: int
) -> tuple[NDArray[Any], Reduction | None] | None:
    """A frame at a fraction of its resolution, or nothing where that saves no work or is not safe.

    What contradicts Bits Stored is told from the whole image only.
    """
    fits = header.high_bit == header.stored - 1
    if not times or stream is None or stream.precision > header.stored or not fits:
        return None
    if syntax in _JPEG_2000:
        from torchxrayvision.images.jpeg2000 import decode_reduced

        return decode_reduced(data, stream, times, signed=header.signed)
    if syntax in _JPEG and stream.process < 3 and stream.precision == header.allocated == 8:
        factor = 1 << times
        pixels = _decode(data, stream, syntax, header, path, factor)
        if pixels.shape == (-(-header.rows // factor), -(-header.columns // factor)):
            return pixels, reduction_of_jpeg(header.rows, header.columns, factor)
    return None


def syntax_of_pixels(tags: Tags, header: Header) -> str:
    """The transfer syntax of encapsulated pixel data that no meta information declares."""
    data = _frame_bytes(pixel_element(tags)[0], header, 0, tags.path)
    return _actual_syntax(read_codestream(data), data, "", tags)


def _name(syntax: str) -> str:
    return str(UID(syntax).name)  # the UID itself where it is unknown


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


def _frame_bytes(value: bytes, header: Header, frame: int, path: str) -> bytes:
    """The code stream of one frame (PS3.5 section A.4).

    Tables of offsets are not believed where they say nothing new: one frame takes all fragments,
    and as many fragments as frames are one each. Else code streams tell where frames begin.
    """
    items = _items(value, path)
    table, fragments = items[:1], items[1:]
    if header.frames == 1:
        return b"".join(value[start:end] for start, end in fragments)
    if len(fragments) == header.frames:
        start, end = fragments[frame]
        return value[start:end]
    starts = [n for n, (start, _) in enumerate(fragments) if value.startswith(_STARTS, start)]
    if len(starts) != header.frames and table:
        first, last = table[0]
        offsets = np.frombuffer(value, "<u4", (last - first) // 4, first) + last + 8
        places = {start: n for n, (start, _) in enumerate(fragments)}
        starts = [places.get(int(offset), -1) for offset in offsets]
    if len(starts) != header.frames or starts != sorted({*starts}) or min(starts) < 0:
        reason = f"{len(fragments)} fragments of pixel data, and none tells where its frames begin"
        raise ImageReadError(path, f"{header.frames} frames in {reason}")
    last = starts[frame + 1] if frame + 1 < header.frames else len(fragments)
    return b"".join(value[start:end] for start, end in fragments[starts[frame] : last])


def _items(value: bytes, path: str) -> list[tuple[int, int]]:
    """First and last byte, half open, of each item: the offset table and the fragments."""
    items: list[tuple[int, int]] = []
    position = 0
    while position + 8 <= len(value):
        tag, length = struct.unpack_from("<II", value, position)
        if tag == _DELIMITER:
            break
        position += 8
        if tag != _ITEM:
            raise ImageReadError(path, "the items of the DICOM pixel data are damaged")
        if position + length > len(value):
            raise ImageReadError(path, "truncated inside an item of the DICOM pixel data")
        items.append((position, position + length))
        position += length
    return items


def _actual_syntax(stream: CodeStream | None, data: bytes, syntax: str, tags: Tags) -> str:
    """The transfer syntax of the code stream, whatever was declared."""
    if stream is None:
        if syntax == _RLE or (syntax not in _PLUGINS and _is_rle(data)):
            fitting: tuple[str, ...] = (_RLE,)
        else:
            _refuse(syntax, tags.path)
    elif stream.kind == "jpeg":
        fitting = _LOSSLESS if stream.process == 3 else _JPEG[stream.process > 0 :] + _JPEG
    else:
        fitting = _JPEG_LS if stream.kind == "jpeg-ls" else _JPEG_2000
    if syntax in fitting:
        return syntax
    if syntax:
        tags.note(f"declared as {_name(syntax)}, its pixels are {_name(fitting[0])}")
    return fitting[0]


def _is_rle(data: bytes) -> bool:
    """Whether a frame begins as PS3.5 section G.5 says: a count, offsets that ascend, zeros."""
    if len(data) < 64:
        return False
    count, *offsets = struct.unpack_from("<16I", data)
    used = offsets[:count]
    return 1 <= count <= 4 and used[0] == 64 and used == sorted(used) and not any(offsets[count:])


def _refuse(syntax: str, path: str) -> NoReturn:
    name = _name(syntax)
    if syntax in (*_JPEG, *_PLUGINS):
        reason = "the DICOM pixel data is damaged or truncated: it holds no frame header"
        raise ImageReadError(path, f"{reason} of {name}")
    if syntax in _NATIVE or not syntax:
        reason = f"encapsulated pixel data of no known kind under the transfer syntax {name}"
        raise ImageReadError(path, reason)
    raise UnsupportedImageError(path, f"no decoder for the DICOM transfer syntax {name!r}")


def _check_stream(stream: CodeStream, header: Header, path: str, limits: Limits) -> None:
    """Compare the header of the code stream with the tags."""
    if (stream.height, stream.width) != (header.rows, header.columns):
        reason = f"the code stream is {stream.width} x {stream.height} pixels"
        raise ImageReadError(path, f"{reason}, the tags say {header.columns} x {header.rows}")
    if stream.components != 1:
        raise ImageReadError(path, f"the code stream has {stream.components} channels, not one")
    if stream.precision > header.allocated:
        reason = f"the code stream has {stream.precision} bits a sample"
        raise ImageReadError(path, f"{reason}, the tags allocate {header.allocated}")
    check_scans(stream, path, limits)
    if stream.fault:  # decoders would fill the rest with grey
        raise ImageReadError(path, f"truncated: the code stream {stream.fault}")


def _decode(
    data: bytes, stream: CodeStream | None, syntax: str, header: Header, path: str, factor: int = 1
) -> NDArray[Any]:
    """Stored values of a frame; of a JPEG of 8 bits means of squares of `factor` pixels a side."""
    if stream is not None and syntax in _JPEG_2000:
        found = _in_parallel(data, stream, header)
        if found is not None:
            return found
    if stream is None or syntax not in (*_JPEG, *_LOSSLESS):
        return _by_pydicom(data, stream, syntax, header, path)
    if stream.process > 3:
        reason = f"an arithmetic-coded or hierarchical JPEG (process {stream.process})"
        raise UnsupportedImageError(path, reason)
    if stream.process == 3 or stream.precision > 8:  # for GDCM, which an odd JFIF version ends
        data = without_stray_bytes(data, remarks=False)
    if stream.process == 3:
        check_cell(header, path)
        with third_party_decoder(path, "the lossless JPEG pixel data is damaged", quote=True):
            check_markers(data, lossless=True)
        return _by_pydicom(data, stream, syntax, header, path)
    if stream.precision > 8:
        return decode_twelve_bits(data, stream, header, path)
    if header.allocated != 8:
        reason = f"a JPEG of {stream.precision} bits a sample in cells of {header.allocated} bits"
        raise ImageReadError(path, reason)
    with third_party_decoder(path, "the JPEG pixel data is damaged or truncated", quote=True):
        pixels = pixels_of(decode_jpeg(data, stream, factor))
    return pixels.view(np.int8) if header.signed else pixels


def _in_parallel(data: bytes, stream: CodeStream, header: Header) -> NDArray[Any] | None:
    from torchxrayvision.images.jpeg2000 import decode_in_parallel

    if -(-stream.precision // 8) * 8 != header.allocated:
        return None
    return decode_in_parallel(data, stream, signed=header.signed)


def _by_pydicom(
    data: bytes, stream: CodeStream | None, syntax: str, header: Header, path: str
) -> NDArray[Any]:
    """Decode with the first of pydicom's plugins that can; the others may be less strict."""
    decoder: Any = get_decoder(syntax)
    package, known = _PLUGINS[syntax]
    plugins = [plugin for plugin in known if plugin in decoder.available_plugins]
    if ImageFile.LOAD_TRUNCATED_IMAGES and "pillow" in plugins:  # it would go on without the rest
        plugins.remove("pillow")
    if not plugins:
        reason = f"{_name(syntax)} pixels need the package {package}"
        raise UnsupportedImageError(path, reason, how_to_install("dicom", package))
    failures = []
    for plugin in plugins:
        stored = header.stored
        if plugin == "gdcm":
            stored = stored_for_gdcm(header, stream.precision if stream else 0)
        try:
            return _by_plugin(decoder, plugin, data, header, stored, path)
        except ImageReadError as error:
            failures.append(f"{plugin}: {error.reason}")
    reason = f"the {_name(syntax)} pixel data is damaged or truncated"
    raise ImageReadError(path, f"{reason}; {'; '.join(failures)}")


def _by_plugin(
    decoder: Any, plugin: str, data: bytes, header: Header, stored: int, path: str
) -> NDArray[Any]:
    quiet = _complaints(path) if plugin == "gdcm" else catch_prints(path)
    with third_party_decoder(path, "it cannot decode them", quote=True), quiet:
        pixels, _ = decoder.as_array(
            encapsulate([data], has_bot=False),
            raw=True,
            index=0,
            decoding_plugin=plugin,
            rows=header.rows,
            columns=header.columns,
            samples_per_pixel=1,
            photometric_interpretation=header.photometric,
            bits_allocated=header.allocated,
            bits_stored=stored,
            pixel_representation=int(header.signed),
            number_of_frames=1,
            pixel_keyword="PixelData",
            correct_unused_bits=False,
        )
    return np.asarray(pixels)


def _within_depth(
    pixels: NDArray[Any], header: Header, tags: Tags, *, lossless: bool, precision: int = 0
) -> tuple[NDArray[Any], Header]:
    """Values of the stored bits alone, and the bits that are stored.

    PS3.5 section 8.1.1: bits above the high bit belong to something else, such as the overlays
    of old files. They are cut off unless the pixels show that they are part of the values. High
    Bit is obeyed only where the values need it: pydicom and GDCM do not look at it at all. Of a
    lossy codec a value outside is an overshoot. `precision` is what the code stream declares.
    """
    if header.stored == header.allocated:
        return pixels, header
    low, high = int(pixels.min()) if header.signed else 0, int(pixels.max())
    shifted = header.high_bit != header.stored - 1
    if header.low <= low and high <= header.high:
        if shifted:
            tags.note(f"High Bit {header.high_bit} is ignored: no value uses the bits up to it")
        return pixels, header
    if lossless and shifted:
        if not _low_bits_count(pixels, header):
            return _stored_bits(pixels, header), header
        tags.note(f"High Bit {header.high_bit} is ignored: the values use the bits below it")
        header = replace(header, high_bit=header.stored - 1)
    # A stream of as many bits as the cells says nothing of what they hold.
    telling = precision if header.stored < precision < header.allocated else 0
    if not lossless:
        outside = np.count_nonzero((pixels < header.low) | (pixels > header.high)) / pixels.size
        if outside <= _OVERSHOOT:
            clipped: NDArray[Any] = np.clip(pixels, header.low, header.high)
            return clipped, header
    elif not telling and not _high_bits_carry(pixels, header.stored):
        return _stored_bits(pixels, header), header
    depth = telling or max(high.bit_length(), (~low).bit_length()) + header.signed
    tags.note(f"Bits Stored {header.stored} is contradicted by pixels of {depth} bits")
    return pixels, replace(header, stored=depth, high_bit=depth - 1)


def _low_bits_count(pixels: NDArray[Any], header: Header) -> bool:
    """Whether the bits that High Bit leaves below the values are part of them, and no overlay.

    They are the same everywhere in an image whose values are aligned with the upper end, but for an
    overlay, which is one of them. Part of the values, they take nearly every pattern.
    """
    shift = header.high_bit + 1 - header.stored
    below = (pixels & pixels.dtype.type((1 << shift) - 1)).astype(np.int64)
    patterns = np.bincount(below.ravel())
    usual = np.count_nonzero(patterns > pixels.size >> (shift + 3))
    return bool(shift > 1 and 4 * usual > 3 << shift)


def _high_bits_carry(pixels: NDArray[Any], stored: int) -> bool:
    """Whether bits above those stored continue the values, as digits do, and are no overlay.

    Between neighbouring pixels that differ in these bits the lower bits then wrap around, so that
    the whole values are closer to each other, as shares of their ranges, than the lower bits.
    """
    rows = pixels[:: max(1, pixels.shape[0] // _ROWS_LOOKED_AT)].astype(np.int64)
    differing = (rows[:, 1:] >> stored) != (rows[:, :-1] >> stored)
    if not differing.any():
        return False
    whole = np.abs(np.diff(rows, axis=1))[differing].mean() / (np.abs(rows).max() + 1)
    lower = np.abs(np.diff(rows & ((1 << stored) - 1), axis=1))[differing].mean() / (1 << stored)
    return bool(2 * whole < lower)


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

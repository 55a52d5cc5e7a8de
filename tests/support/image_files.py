"""Image files of every kind, built byte by byte where no library writes them.

Used by the tests and by ``tools/record_golden_images.py``: numpy, Pillow and pydicom only.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np

PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)


def ramp(height, width, top, channels=1):
    """Values from 0 to `top` that touch both ends, differ in every direction and are fixed."""
    size = height * width * channels
    values = (np.arange(size, dtype=np.int64) * 7919) % (top + 1)
    values[0], values[-1] = 0, top
    shape = (height, width) if channels == 1 else (height, width, channels)
    return values.reshape(shape)


# PNG ------------------------------------------------------------------------------------------


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width, height, depth, colour, interlace=0):
    return png_chunk(
        b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    )


def png(pixels, depth, colour, *, interlace=0, palette=None, extra=(), filters=(0, 1, 2, 3, 4)):
    """A PNG of any colour type and depth, with every row filter in turn and optional Adam7."""
    channels = PNG_CHANNELS[colour]
    pixels = np.asarray(pixels).reshape(*np.shape(pixels)[:2], channels)
    passes = ADAM7 if interlace else ((0, 0, 1, 1),)
    raw = b""
    for row, column, down, right in passes:
        part = pixels[row::down, column::right]
        if part.size:
            raw += _png_rows(part, depth, channels, filters)
    height, width = pixels.shape[:2]
    body = [b"\x89PNG\r\n\x1a\n", png_header(width, height, depth, colour, interlace)]
    body += [png_chunk(kind, data) for kind, data in extra]
    if palette is not None:
        body.append(png_chunk(b"PLTE", np.asarray(palette, np.uint8).tobytes()))
    packed = zlib.compress(raw, 6)
    half = len(packed) // 2  # two chunks, as most writers make several
    body += [png_chunk(b"IDAT", packed[:half]), png_chunk(b"IDAT", packed[half:])]
    return b"".join([*body, png_chunk(b"IEND", b"")])


def _png_rows(part, depth, channels, filters):
    lines = [_pack(row.reshape(-1), depth) for row in part]
    step = max(1, depth * channels // 8)
    before, out = bytes(len(lines[0])), b""
    for number, line in enumerate(lines):
        kind = filters[number % len(filters)]
        out += bytes([kind]) + _png_filter(kind, line, before, step)
        before = line
    return out


def _pack(row, depth):
    if depth == 16:
        return row.astype(">u2").tobytes()
    if depth == 8:
        return row.astype(np.uint8).tobytes()
    bits = (row[:, None].astype(np.uint8) >> np.arange(depth - 1, -1, -1).astype(np.uint8)) & 1
    return np.packbits(bits.reshape(-1)).tobytes()


def _png_filter(kind, line, before, step):
    now = np.frombuffer(line, np.uint8).astype(int)
    up = np.frombuffer(before, np.uint8).astype(int)
    left = np.concatenate([np.zeros(step, int), now])[: len(now)]
    corner = np.concatenate([np.zeros(step, int), up])[: len(now)]
    if kind == 4:
        guess = left + up - corner
        distances = np.stack([abs(guess - left), abs(guess - up), abs(guess - corner)])
        predicted = np.choose(distances.argmin(0), [left, up, corner])
    else:
        predicted = [np.zeros_like(now), left, up, (left + up) // 2][kind]
    return ((now - predicted) % 256).astype(np.uint8).tobytes()


# TIFF -----------------------------------------------------------------------------------------


def tiff(
    pages, bits, *, order="<", photometric=1, compression=1, big=False, tags=None, signed=False
):
    """A TIFF or BigTIFF of one strip a page; `pages` is one array or a list of arrays."""
    pages = pages if isinstance(pages, list) else [pages]
    mark = b"II" if order == "<" else b"MM"
    head = mark + (
        struct.pack(order + "HHHQ", 43, 8, 0, 16) if big else struct.pack(order + "HI", 42, 8)
    )
    out = bytearray(head)
    word, pointer, entry = ("Q", "Q", 20) if big else ("H", "I", 12)
    for number, page in enumerate(pages):
        strip = tiff_strip(page, bits, order, compression)
        channels = 1 if page.ndim == 2 else page.shape[2]
        values = {
            256: page.shape[1], 257: page.shape[0], 258: [bits] * channels, 259: compression,
            262: photometric, 273: 0, 277: channels, 278: page.shape[0], 279: len(strip),
            339: [2 if signed else 1] * channels, **(tags or {}),
        }  # fmt: skip
        values = {
            tag: v if isinstance(v, list) else [v] for tag, v in values.items() if v is not None
        }
        size = struct.calcsize("<" + word) + entry * len(values) + struct.calcsize("<" + pointer)
        extra = bytearray()
        start = len(out) + size
        wide = struct.calcsize("<" + pointer)
        for tag, value in values.items():
            if 2 * len(value) > wide and tag not in (273, 279):
                extra += struct.pack(f"{order}{len(value)}H", *value)
        values[273] = [start + len(extra)]
        directory = bytearray(struct.pack(order + word, len(values)))
        used = start
        for tag in sorted(values):
            value = values[tag]
            kind, code = (4, "I") if tag in (256, 257, 273, 279) else (3, "H")
            packed = struct.pack(f"{order}{len(value)}{code}", *value)
            if len(packed) > wide:
                packed, used = struct.pack(order + pointer, used), used + len(packed)
            directory += struct.pack(order + "HH" + pointer, tag, kind, len(value))
            directory += packed.ljust(wide, b"\0")
        after = start + len(extra) + len(strip)
        after += after % 2
        following = after if number + 1 < len(pages) else 0
        directory += struct.pack(order + pointer, following)
        extra = bytearray()
        for tag in sorted(values):
            if 2 * len(values[tag]) > wide and tag not in (273, 279):
                extra += struct.pack(f"{order}{len(values[tag])}H", *values[tag])
        out += directory + extra + strip
        out += bytes(len(out) % 2)
    return bytes(out)


def tiff_strip(page, bits, order, compression):
    rows = page.reshape(page.shape[0], -1)
    if bits in (8, 16, 32):
        raw = rows.astype(
            f"{order}u{bits // 8}" if rows.min() >= 0 else f"{order}i{bits // 8}"
        ).tobytes()
    elif bits == 12:
        raw = b"".join(_pack_twelve(row) for row in rows)
    else:
        raw = b"".join(_pack(row, bits) for row in rows)
    if compression in (8, 32946):
        return zlib.compress(raw)
    if compression == 32773:  # PackBits, every run a literal
        runs = [raw[start : start + 128] for start in range(0, len(raw), 128)]
        return b"".join(bytes([len(run) - 1]) + run for run in runs)
    return raw


def _pack_twelve(row):
    row = np.append(row, [0] * (len(row) % 2)).astype(int)
    first, second = row[::2], row[1::2]
    parts = [first >> 4, (first & 15) << 4 | second >> 8, second & 255]
    return np.stack(parts, 1).astype(np.uint8).tobytes()


# JPEG -----------------------------------------------------------------------------------------


def jpeg(pixels, **options):
    """An 8-bit JPEG by Pillow."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(file, "JPEG", **options)
    return file.getvalue()


def jpeg_lossless(pixels, precision):
    """A lossless JPEG (ITU-T T.81 annex H): predictor 1, one Huffman table of 5-bit codes."""
    pixels = np.asarray(pixels).astype(int)
    height, width = pixels.shape
    bits = []
    for row in range(height):
        for column in range(width):
            if column:
                guess = pixels[row, column - 1]
            else:
                guess = pixels[row - 1, 0] if row else 1 << (precision - 1)
            difference = int(pixels[row, column] - guess)
            difference = (difference + 32768) % 65536 - 32768
            size = abs(difference).bit_length() if difference != -32768 else 16
            bits.append(f"{size:05b}")
            if 0 < size < 16:
                extra = difference if difference > 0 else difference + (1 << size) - 1
                bits.append(f"{extra:0{size}b}")
    stream = "".join(bits)
    stream += "1" * (-len(stream) % 8)
    scan = int(stream, 2).to_bytes(len(stream) // 8, "big").replace(b"\xff", b"\xff\x00")
    table = bytes([0]) + bytes([0, 0, 0, 0, 17]) + bytes(11) + bytes(range(17))
    return (
        b"\xff\xd8"
        + b"\xff\xc3" + struct.pack(">HBHHB", 11, precision, height, width, 1) + bytes([1, 0x11, 0])
        + b"\xff\xc4" + struct.pack(">H", 2 + len(table)) + table
        + b"\xff\xda" + struct.pack(">HB", 8, 1) + bytes([1, 0, 1, 0, 0])
        + scan + b"\xff\xd9"
    )  # fmt: skip


# DICOM ----------------------------------------------------------------------------------------

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
BASELINE = "1.2.840.10008.1.2.4.50"
EXTENDED = "1.2.840.10008.1.2.4.51"
LOSSLESS = "1.2.840.10008.1.2.4.57"
LOSSLESS_SV1 = "1.2.840.10008.1.2.4.70"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_LS_NEAR = "1.2.840.10008.1.2.4.81"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
JPEG_2000 = "1.2.840.10008.1.2.4.91"
RLE = "1.2.840.10008.1.2.5"


def dataset(pixels, *, stored=None, photometric="MONOCHROME2", signed=False, **tags):
    """A pydicom dataset around native pixels; a tag given as None is left out."""
    from pydicom.dataset import Dataset, FileMetaDataset

    pixels = np.asarray(pixels)
    shape = pixels.shape
    found = Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = EXPLICIT
    allocated = pixels.dtype.itemsize * 8
    values = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1",
        "SOPInstanceUID": "2.25.1",
        "Modality": "CR",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": photometric,
        "Rows": shape[-2],
        "Columns": shape[-1],
        "BitsAllocated": allocated,
        "BitsStored": stored or allocated,
        "HighBit": (stored or allocated) - 1,
        "PixelRepresentation": int(signed),
    }
    if pixels.ndim == 3:
        values["NumberOfFrames"] = shape[0]
    for name, value in {**values, **tags}.items():
        if value is not None:
            setattr(found, name, value)
    found.PixelData = pixels.tobytes() + bytes(pixels.nbytes % 2)
    found["PixelData"].VR = "OW" if allocated > 8 else "OB"
    return found


def write(found, syntax=EXPLICIT, *, preamble=True, meta=True):
    """The bytes of a dataset in an uncompressed transfer syntax, whole or bare."""
    found.file_meta.TransferSyntaxUID = syntax
    file = io.BytesIO()
    if syntax == BIG_ENDIAN and found["PixelData"].VR == "OW":
        size = found.BitsAllocated // 8
        found.PixelData = np.frombuffer(found.PixelData, f"<u{size}").astype(f">u{size}").tobytes()
    found.save_as(file, enforce_file_format=True)
    data = file.getvalue()
    if not meta:
        length = struct.unpack_from("<I", data, 140)[0]
        return data[144 + length :]
    return data if preamble else data[132:]


def dicom(pixels, syntax=EXPLICIT, *, preamble=True, meta=True, **tags):
    """A DICOM file of native pixels."""
    return write(dataset(pixels, **tags), syntax, preamble=preamble, meta=meta)


def encapsulated(frames, pixels, syntax, **tags):
    """A DICOM file of code streams, `pixels` giving shape and dtype."""
    from pydicom.encaps import encapsulate

    found = dataset(pixels, **tags)
    found.PixelData = encapsulate(list(frames))
    found["PixelData"].VR = "OB"
    found["PixelData"].is_undefined_length = True
    return write(found, syntax)


def sequence_item(**tags):
    """A one-item sequence."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    item = Dataset()
    for name, value in tags.items():
        setattr(item, name, value)
    return Sequence([item])


def lut(entries, first=0, bits=16):
    """A Modality or VOI LUT Sequence."""
    item = sequence_item(LUTDescriptor=[len(entries) % 65536, first, bits], LUTData=list(entries))
    for name in ("LUTDescriptor", "LUTData"):
        item[0][name].VR = "US"
    return item

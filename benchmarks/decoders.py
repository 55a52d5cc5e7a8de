"""Which maintained decoder is fastest for grey PNG, on one thread and on two?

Simulated films of 1024 x 1024 and 2500 x 2048 in 8 and 16 bits, as PNG that Pillow wrote with its
usual settings. CPU milliseconds per file, of one thread and of two that decode at the same time:
where the second is larger, threads disturb each other. "inflate" undoes the compression only; the
rest of a decoder's time is the row filters. `pip install isal kornia-rs imagecodecs` for all rows.

    python benchmarks/decoders.py [--damaged]

`--damaged` feeds each decoder files whose compressed stream was cut or changed while the checksum
of the chunk fits, in a process of its own, and counts what it does.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import random
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from _films import grey_film

REPEATS = 7
DAMAGED = 300
Decode = Callable[[bytes], Any]


def this_package() -> Decode:
    from torchxrayvision.images import read_raster

    return lambda data: read_raster(data).pixels


def pillow() -> Decode:
    return lambda data: np.asarray(Image.open(io.BytesIO(data)))


def torchvision() -> Decode:
    import torch
    from torchvision.io import decode_png

    def decode(data: bytes) -> Any:
        return decode_png(torch.frombuffer(bytearray(data), dtype=torch.uint8))[0].numpy()

    return decode


def opencv() -> Decode:
    import cv2

    def decode(data: bytes) -> Any:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if found is None:
            raise ValueError
        return found

    return decode


def imagecodecs() -> Decode:
    from imagecodecs import png_decode

    return lambda data: png_decode(data)


def kornia() -> Decode:
    from kornia_rs import io as kornia_io

    def decode(data: bytes) -> Any:
        width, height, bits = struct.unpack_from(">IIB", data, 16)
        read = kornia_io.decode_image_png_u16 if bits == 16 else kornia_io.decode_image_png_u8
        return read(data, (height, width), "mono")[..., 0]

    return decode


def inflate_zlib() -> Decode:
    return lambda data: zlib.decompress(compressed(data))


def inflate_isal() -> Decode:
    from isal import isal_zlib

    return lambda data: isal_zlib.decompress(compressed(data))


DECODERS = {
    "this package": this_package,
    "Pillow": pillow,
    "torchvision": torchvision,
    "OpenCV": opencv,
    "imagecodecs": imagecodecs,
    "kornia-rs": kornia,
    "inflate by zlib": inflate_zlib,
    "inflate by ISA-L": inflate_isal,
}


def compressed(data: bytes) -> bytes:
    """The bodies of the IDAT chunks."""
    position, parts = 8, []
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IDAT":
            parts.append(data[position + 8 : position + 8 + length])
        position += 12 + length
    return b"".join(parts)


def files() -> dict[str, bytes]:
    made = {}
    for shape in ((1024, 1024), (2500, 2048)):
        for bits in (8, 16):
            stream = io.BytesIO()
            Image.fromarray(grey_film(0, shape, bits)).save(stream, "png")
            size = len(stream.getvalue()) / 1e6
            made[f"{shape[0]} x {shape[1]}, {bits} bits, {size:.1f} MB"] = stream.getvalue()
    return made


def cpu(decode: Decode, data: bytes, threads: int) -> float:
    """CPU milliseconds per file, median."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(decode, [data] * threads))
        found = []
        for _ in range(REPEATS):
            begun = time.process_time()
            list(pool.map(decode, [data] * 2 * threads))
            found.append((time.process_time() - begun) / (2 * threads) * 1e3)
    return median(found)


def speed() -> None:
    films = files()
    print(f"| decoder | {' | '.join(films)} |\n| --- |{' ---: |' * len(films)}")
    for name, make in DECODERS.items():
        try:
            decode = make()
        except ImportError as error:
            print(f"| {name} | {error} |{' |' * (len(films) - 1)}")
            continue
        cells = [f"{cpu(decode, d, 1):.1f} / {cpu(decode, d, 2):.1f}" for d in films.values()]
        print(f"| {name} | {' | '.join(cells)} |")


def damaged() -> list[bytes]:
    """Small files with wrong compressed streams and right checksums."""
    rows = b"".join(b"\0" + bytes(range(30)) for _ in range(24))
    whole, rng = zlib.compress(rows), random.Random(0)
    streams = []
    for number in range(DAMAGED):
        stream = bytearray(whole)
        if number % 3:
            stream[rng.randrange(len(stream))] ^= 1 << rng.randrange(8)
        else:
            del stream[rng.randrange(2, len(stream)) :]
        streams.append(bytes(stream))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30, 24, 8, 0, 0, 0, 0))
    ends = (b"\x89PNG\r\n\x1a\n" + header, chunk(b"IEND", b""))
    return [ends[0] + chunk(b"IDAT", stream) + ends[1] for stream in streams]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def judge(name: str, file: bytes, queue: Any) -> None:
    decode, expected = DECODERS[name](), np.tile(np.arange(30, dtype=np.uint8), (24, 1))
    try:
        found = decode(file)
    except Exception:  # noqa: BLE001 - Ray raises just that
        queue.put("refused")
    else:
        queue.put("right picture" if np.array_equal(found, expected) else "wrong picture, no word")


def robustness() -> None:
    """One process a file, forked, so that a crash is seen and ends nothing."""
    context = multiprocessing.get_context("fork")
    for name in list(DECODERS)[:6]:
        try:
            DECODERS[name]()
        except ImportError:
            continue
        counts: Counter[str] = Counter()
        for file in damaged():
            queue = context.SimpleQueue()
            process = context.Process(target=judge, args=(name, file, queue))
            process.start()
            process.join()
            counts[queue.get() if process.exitcode == 0 else "crashed"] += 1
        print(f"{name}: {dict(counts)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--damaged", action="store_true")
    robustness() if parser.parse_args().damaged else speed()

"""Which decoder of JPEG 2000 uses several processors, and do all give the same pixels?

A simulated film of 3000 x 2500 in 12 bits, lossless, decoded by OpenJPEG in three wheels with one
thread and with one per processor: wall and CPU milliseconds, least of seven. Then the same film
outside DICOM to the input of a network, whole (`exact`) and no further than needed (`fast`).
`pip install imagecodecs` for all rows.

    python benchmarks/jpeg2000.py [--damaged N]

`--damaged` gives N damaged code streams to Pillow and to pylibjpeg-openjpeg, which decodes where
one thread is to be used, and counts how often they agree.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from _films import grey_film

REPEATS = 7
SHAPE = (3000, 2500)
VARIABLE = "OPJ_NUM_THREADS"
Decode = Callable[[bytes], Any]


def pylibjpeg() -> Decode:
    decode: Decode = importlib.import_module("openjpeg").decode
    return decode


def pillow() -> Decode:
    from torchxrayvision.images.jpeg import read_codestream
    from torchxrayvision.images.jpeg2000 import decode_image, samples

    def decode(data: bytes) -> Any:
        stream = read_codestream(data)
        assert stream is not None
        return samples(decode_image(data, stream), stream.precision)

    return decode


def imagecodecs() -> Decode:
    decode = importlib.import_module("imagecodecs").jpeg2k_decode
    return lambda data: decode(data, numthreads=int(os.environ[VARIABLE]))


def timed(make: Callable[[], Any]) -> tuple[float, float, Any]:
    """Least wall and CPU milliseconds, and what was made."""
    walls, processors, made = [], [], None
    for _ in range(REPEATS):
        wall, processor = time.perf_counter(), time.process_time()
        made = make()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return 1000 * min(walls), 1000 * min(processors), made


def encoded(pixels: np.ndarray, bits: int) -> bytes:
    stream: bytes = importlib.import_module("openjpeg").encode(pixels, bits_stored=bits)
    return stream


def boxed(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG2000")
    return file.getvalue()


def show_threads(pixels: np.ndarray) -> None:
    data = encoded(pixels, 12)
    print(f"{'':24s}{'threads':>8s}{'wall ms':>9s}{'CPU ms':>8s}")
    for name, get in (
        ("pylibjpeg-openjpeg", pylibjpeg), ("Pillow", pillow), ("imagecodecs", imagecodecs),
    ):  # fmt: skip
        for threads in (1, os.cpu_count() or 1):
            os.environ[VARIABLE] = str(threads)
            try:
                decode = get()
            except ImportError:
                print(f"{name:24s} not installed")
                break
            wall, processor, found = timed(lambda decode=decode: decode(data))
            assert np.array_equal(found, pixels)
            print(f"{name:24s}{threads:8d}{wall:9.0f}{processor:8.0f}")


def show_files(pixels: np.ndarray) -> None:
    from torchxrayvision.images import read_raster
    from torchxrayvision.transforms import prepare

    os.environ[VARIABLE] = "1"
    grey = (pixels >> 4).astype(np.uint8)
    print(f"\n{'CPU ms to 224 pixels':24s}{'exact':>8s}{'fast':>8s}")
    for name, data in {
        "8 bits": boxed(grey), "12 bits": encoded(pixels, 12), "RGB": boxed(np.dstack([grey] * 3)),
    }.items():  # fmt: skip

        def read(side: int | None, data: bytes = data) -> Any:
            r = read_raster(data, least_side=side)
            return prepare(r.pixels, r.scale, r.offset, 224, r.info.aspect, r.reduction)

        exact, fast = (timed(lambda side=side: read(side))[1] for side in (None, 224))
        print(f"{name:24s}{exact:8.0f}{fast:8.0f}")


def damage(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    place = rng.randrange(len(changed))
    match rng.randrange(4):
        case 0:
            for _ in range(rng.choice((1, 2, 5, 20))):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
        case 1:
            del changed[place : place + rng.choice((1, 2, 10, 100))]
        case 2:
            return bytes(changed[: max(100, place)]) + b"\xff\xd9"
        case 3:
            other = rng.randrange(len(changed))
            changed[place : place + 20] = changed[other : other + 20]
    return bytes(changed)


def show_damaged(count: int) -> None:
    from torchxrayvision.images.jpeg import read_codestream

    os.environ[VARIABLE] = "2"
    film, rng = grey_film(2, (96, 80), bits=16), random.Random(1)
    seeds = [encoded(film >> 4, 12), encoded((film >> 8).astype(np.uint8), 8)]
    for options in ({"tile_size": (32, 32)}, {"irreversible": True, "quality_layers": [8, 4]},
                    {"plt": True, "num_resolutions": 3}, {"progression": "RPCL"}):  # fmt: skip
        file = io.BytesIO()
        Image.fromarray(film).save(file, "JPEG2000", no_jp2=True, **options)
        seeds.append(file.getvalue())
    found: Counter[str] = Counter()
    for _ in range(count):
        data = damage(rng.choice(seeds), rng)
        stream = read_codestream(data)
        if stream is None or stream.fault or stream.components != 1 or stream.precision > 16:
            found["refused by its header"] += 1
            continue
        if stream.height * stream.width > 10**6:
            found["too large"] += 1
            continue
        found[_compared(data)] += 1
    print("\n" + "\n".join(f"{name:48s}{number:6d}" for name, number in found.most_common()))


def _compared(data: bytes) -> str:
    results = []
    for get in (pillow, pylibjpeg):
        try:
            results.append(get()(data))
        except Exception as error:  # noqa: BLE001 - whatever a decoder raises
            results.append(type(error).__name__)
    failed = [isinstance(result, str) for result in results]
    if any(failed):
        return "both fail" if all(failed) else "Pillow fails" if failed[0] else "pylibjpeg fails"
    return "the same pixels" if np.array_equal(*results) else "other pixels"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--damaged", type=int, default=0, metavar="N")
    given = parser.parse_args()
    if given.damaged:
        show_damaged(given.damaged)
    else:
        image = grey_film(1, SHAPE, bits=16) >> 4
        show_threads(image)
        show_files(image)

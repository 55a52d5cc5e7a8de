"""No pairing of a JPEG and the tags around it may end the process, as GDCM does if it is let.

All files are read in another process, which would otherwise take the tests with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from support import image_files as build
from torchxrayvision.errors import ImageReadError
from torchxrayvision.images import read_raster

PIXELS = np.add.outer(np.arange(16), np.arange(18)) * 100
pytest.importorskip("gdcm")


def extended(precision):
    """JPEG Extended; of 12 bits it shows another picture than of 8, which is no matter here."""
    data = bytearray(build.jpeg(PIXELS // 16))
    place = data.index(b"\xff\xc0")
    data[place + 1], data[place + 4] = 0xC1, precision
    return bytes(data)


def lossless(precision):
    return build.jpeg_lossless(PIXELS % (1 << precision), precision)


STREAMS = {
    **{f"lossless {bits}": (build.LOSSLESS_SV1, lossless(bits)) for bits in (2, 7, 8, 12, 16)},
    **{f"extended {bits}": (build.EXTENDED, extended(bits)) for bits in (8, 12)},
    "lossless 12 as extended": (build.EXTENDED, lossless(12)),
    "lossless 12 as jpeg-ls": (
        build.LOSSLESS,
        lossless(12).replace(b"\xff\xc3", b"\xff\xf7"),
    ),
    "extended 12 as lossless": (build.LOSSLESS_SV1, extended(12)),
}


def pairings():
    """A name and a file for each."""
    for kind, (syntax, stream) in STREAMS.items():
        for allocated in (8, 16, 32):
            cells = PIXELS.astype(f"u{allocated // 8}")
            for stored in (bits for bits in (1, 7, 8, 9, 12, 16, 17, 32) if bits <= allocated):
                for high in {stored - 1, allocated - 1}:
                    for signed, samples in ((0, 1), (1, 1), (0, 3)):
                        tags = {"stored": stored, "HighBit": high, "SamplesPerPixel": samples}
                        name = f"{kind} in {allocated}, {stored}, {high}, {signed}, {samples}"
                        yield (
                            name,
                            build.encapsulated([stream], cells, syntax, signed=signed, **tags),
                        )


def read_all():
    """The body of the other process: a line for each pairing, written in two steps."""
    for name, data in pairings():
        sys.stdout.write(f"\n{name}: ")
        sys.stdout.flush()
        try:
            pixels = read_raster(data).pixels.astype(int)
        except ImageReadError as error:
            sys.stdout.write(str(error))
        else:
            precision = int(name.split()[1])
            whole = np.array_equal(pixels, PIXELS % (1 << precision))
            sys.stdout.write("as encoded" if whole else "read")


@pytest.fixture(scope="module")
def outcomes():
    folders = [*sys.path, str(Path(__file__).parent)]
    done = subprocess.run(
        [sys.executable, "-c", "import test_dicom_cells as cells; cells.read_all()"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()[1:]
    assert done.returncode == 0, f"{lines[-1:]} ended it: {done.stderr[-300:]}"
    return dict(line.split(": ", 1) for line in lines)


def test_every_pairing_is_read_or_refused(outcomes):
    assert list(outcomes) == [name for name, _ in pairings()]
    assert 100 < sum(words in ("read", "as encoded") for words in outcomes.values()) < 500


@pytest.mark.parametrize("kind", ["lossless 2", "lossless 8", "lossless 16", "extended 12"])
def test_cells_of_32_bits_are_refused_with_the_rule(kind, outcomes):
    words = outcomes[f"{kind} in 32, 12, 11, 0, 1"]
    assert "32 bits allocated; the standard allows 8 and 16" in words


@pytest.mark.parametrize("bits", [7, 8])
def test_cells_of_8_bits_may_be_partly_used(bits, outcomes):
    assert outcomes[f"lossless {bits} in 8, {bits}, {bits - 1}, 0, 1"] == "as encoded"


@pytest.mark.parametrize("bits", [12, 16])
def test_samples_wider_than_their_cells_are_refused(bits, outcomes):
    words = outcomes[f"lossless {bits} in 8, 8, 7, 0, 1"]
    assert f"{bits} bits a sample, the tags allocate 8" in words
    assert outcomes[f"lossless {bits} in 16, {bits}, {bits - 1}, 0, 1"] == "as encoded"


def test_streams_of_another_process_do_not_come_to_gdcm(outcomes):
    assert "JPEG-LS" in outcomes["lossless 12 as jpeg-ls in 16, 12, 11, 0, 1"]

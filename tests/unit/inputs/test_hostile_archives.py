"""Archives and names that lie: a row that says so, and no other row is lost or wrong."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import tarfile

import numpy as np
import pytest
from PIL import Image

from support.inputs import loaded, square
from torchxrayvision.inputs import ReadOptions, expand, prefetch, printable


def picture(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 36), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "BMP")  # nothing in it tells a changed pixel
    return stream.getvalue()


def tar(names=("0.bmp", "1.bmp", "2.bmp"), form=tarfile.PAX_FORMAT):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = len(picture(number))
            archive.addfile(info, io.BytesIO(picture(number)))
    return stream.getvalue()


def resealed(data, at, size):
    """A tar whose entry at an offset claims another size, under a right checksum."""
    data = bytearray(data)
    data[at + 124 : at + 136] = size
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    return bytes(data)


@pytest.mark.parametrize(("ending", "pack"), [
    (".tar.gz", gzip.compress), (".tar.bz2", bz2.compress), (".tar.xz", lzma.compress),
])  # fmt: skip
def test_no_image_of_a_damaged_stream_is_trusted(tmp_path, ending, pack):
    data = pack(tar())
    path = tmp_path / f"films{ending}"
    path.write_bytes(data)
    whole = {f.given: image for f, image in prefetch(expand([path]), square(16))}
    assert len(whole) == 3
    rng = random.Random(0)
    for _ in range(40):
        damaged = bytearray(data)
        damaged[rng.randrange(20, len(data) - 20)] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        outcomes = dict(prefetch(expand([path]), square(16), ReadOptions(workers=1)))
        assert any(isinstance(image, str) for image in outcomes.values())
        for file, image in outcomes.items():
            assert isinstance(image, str) or np.array_equal(image, whole[file.given])


@pytest.mark.parametrize("size", [b"\x80" + bytes(3) + b"\xff" * 8, b"77777777777\0"])
def test_an_entry_that_asks_for_memory_ends_its_archive_only(tmp_path, size):
    path = tmp_path / "films.tar"
    path.write_bytes(resealed(tar(["x" * 150 + ".bmp"], tarfile.GNU_FORMAT), 0, size))
    (tmp_path / "after.bmp").write_bytes(picture(1))
    first, second = expand([path, tmp_path / "after.bmp"])
    assert "an entry of" in first.problem
    assert not isinstance(loaded(second, 8), str)


def test_an_entry_of_negative_size_does_not_lead_back_for_ever(tmp_path):
    path = tmp_path / "films.tar"
    path.write_bytes(resealed(tar(), 0, b"\xff" * 11 + b"\x00"))
    (row,) = expand([path])
    assert "cannot be listed to its end" in row.problem


def test_zeros_without_end_behind_a_compressed_tar_are_not_read_for_ever(tmp_path, monkeypatch):
    from torchxrayvision.inputs import archives

    monkeypatch.setattr(archives, "_BEHIND", 2**22)
    path = tmp_path / "films.tar.gz"
    path.write_bytes(gzip.compress(tar() + bytes(2**23)))
    *_, last = expand([path])
    assert "behind the mark of its end" in last.problem


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("name", ["pipe", "films.zip", "films.tar.gz"])
def test_a_pipe_is_never_opened(tmp_path, name):
    os.mkfifo(tmp_path / name)
    (tmp_path / "a.bmp").write_bytes(picture(1))
    found = list(expand([tmp_path], strict=True))
    assert {f.problem for f in found} == {"", "not a regular file"}
    (named,) = expand([tmp_path / name])
    assert loaded(named, 8) == "not a regular file"


def test_names_do_not_move_the_cursor(tmp_path):
    name = "\x1b]0;owned\x07\r\n\u202egnp.\x9b2J.bmp"
    (tmp_path / name).write_bytes(picture(1))
    (file,) = expand([tmp_path])
    assert file.given.isprintable()
    assert not isinstance(loaded(file, 8), str)  # the name on disk is kept
    assert printable("Größe 7/胸部.png") == "Größe 7/胸部.png"

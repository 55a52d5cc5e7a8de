"""Archives that are damaged, cut, or hold links: what is in them is accounted for."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.inputs import loaded as load
from torchxrayvision.inputs import expand

NAMES = ["0.png", "1.png", "2.png", "3.png"]
BLOCK = tarfile.BLOCKSIZE


def picture(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 36), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def plain(entries=()):
    """A tar of four pictures and entries (type, name, target); offsets of headers, and the end."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for number, name in enumerate(NAMES):
            info = tarfile.TarInfo(name)
            info.size = len(picture(number))
            archive.addfile(info, io.BytesIO(picture(number)))
        for kind, name, target in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
        end = archive.offset
    stream.seek(0)
    with tarfile.open(fileobj=stream) as archive:
        offsets = [info.offset for info in archive]
    return bytearray(stream.getvalue()), offsets, end


def written(folder, data, ending):
    import bz2
    import gzip
    import lzma

    pack = {".tar": bytes, ".tar.gz": gzip.compress, ".tar.bz2": bz2.compress,
            ".tar.xz": lzma.compress}[ending]  # fmt: skip
    path = folder / f"films{ending}"
    path.write_bytes(pack(bytes(data)))
    return path


def damaged(how):
    data, offsets, end = plain()
    match how:
        case "header":
            data[offsets[2] + 20] ^= 0x55
        case "within a header":
            del data[offsets[2] + 100 :]
        case "between entries":
            del data[offsets[2] :]
        case "hole":
            data[offsets[2] : offsets[2] + BLOCK] = bytes(BLOCK)
        case "mark":
            del data[end:]
            return data, NAMES
    return data, NAMES[:2]


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tar.bz2", ".tar.xz"])
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("header", "bad checksum"),
        ("within a header", "truncated header"),
        ("between entries", "stops without the mark of its end"),
        ("hole", "zeros where an entry should be"),
        ("mark", "stops without the mark of its end"),
    ],
)
def test_the_rest_of_a_damaged_tar_is_a_row(tmp_path, ending, how, said):
    data, left = damaged(how)
    path = written(tmp_path, data, ending)
    sources = list(expand([path]))
    assert [s.given for s in sources] == [*(f"{path}/{name}" for name in left), str(path)]
    assert sources[-1].problem.startswith("the archive cannot be listed to its end (")
    assert said in sources[-1].problem


def test_whole_tars_end_without_a_row(tmp_path):
    data, _, end = plain()
    for name, content in (
        ("padded", data),
        ("bare", data[: end + 2 * BLOCK]),
        ("old", data[: end + BLOCK]),
    ):
        path = tmp_path / f"{name}.tar"
        path.write_bytes(content)
        assert len(list(expand([path]))) == len(NAMES)
    empty = tmp_path / "empty.tar"
    tarfile.open(empty, "w").close()
    assert not list(expand([empty]))


def test_long_names_are_no_damage(tmp_path):
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "films.tar", "w", format=form) as archive:
            info = tarfile.TarInfo("é" * 150 + ".png")
            archive.addfile(info, io.BytesIO())
        assert len(list(expand([tmp_path / "films.tar"]))) == 1


HARD = [
    (tarfile.LNKTYPE, "again.png", "1.png"),
    (tarfile.LNKTYPE, "noending", "2.png"),
    (tarfile.LNKTYPE, "once more.png", "again.png"),
    (tarfile.LNKTYPE, "absent.png", "elsewhere.png"),
    (tarfile.LNKTYPE, "notes", "readme"),
    (tarfile.LNKTYPE, ".hidden.png", "1.png"),
]  # fmt: skip


def test_hard_links_in_a_tar_are_the_films_that_they_name(tmp_path):
    path = written(tmp_path, plain(HARD)[0], ".tar")
    found = {s.given.removeprefix(f"{path}/"): s for s in expand([path])}
    linked = {"again.png": 1, "noending": 2, "once more.png": 1}
    assert list(found) == [*NAMES, *linked, "absent.png"]
    for name, number in linked.items():
        assert np.array_equal(load(found[name], 24), load(found[f"{number}.png"], 24))
    assert found["absent.png"].problem == (
        "a link to elsewhere.png inside an archive; unpack the archive and name the folder"
    )


def test_hard_links_in_a_compressed_tar_are_rows_that_say_what_to_do(tmp_path):
    path = written(tmp_path, plain(HARD)[0], ".tar.gz")
    sources = list(expand([path]))[len(NAMES) :]
    assert [Path(s.given).name for s in sources] == [
        "again.png", "noending", "once more.png", "absent.png",
    ]  # fmt: skip
    assert all(s.problem.endswith("unpack the archive and name the folder") for s in sources)


def test_symbolic_links_to_films_and_films_with_holes_are_rows(tmp_path):
    links = [
        (tarfile.SYMTYPE, "link.png", "1.png"),
        (tarfile.SYMTYPE, "link", "2.png"),
        (tarfile.SYMTYPE, "tool", "/bin/sh"),
        (tarfile.DIRTYPE, "folder.png", ""),
        (tarfile.GNUTYPE_SPARSE, "holes.png", ""),
    ]
    path = written(tmp_path, plain(links)[0], ".tar")
    sources = list(expand([path]))[len(NAMES) :]
    assert [s.given.removeprefix(f"{path}/") for s in sources] == ["link.png", "link", "holes.png"]
    assert [s.problem.partition(" inside")[0] for s in sources] == [
        "a link to 1.png", "a link to 2.png", "a file stored with holes",
    ]  # fmt: skip


def test_a_zip_entry_without_a_name_is_a_film_all_the_same(tmp_path):
    path = tmp_path / "films.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", picture(1))
        info = zipfile.ZipInfo("x")
        info.filename = ""
        archive.writestr(info, picture(2))
    first, second = expand([path])
    assert (first.given, second.given) == (f"{path}/", f"{path}/a.png")
    assert not isinstance(load(first, 8), str)

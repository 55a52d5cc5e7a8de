"""From names to images: folders, patterns, lists, tables and archives."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from support.inputs import loaded as load
from support.inputs import square
from torchxrayvision.inputs import Archives, ReadOptions, expand, prefetch
from torchxrayvision.runs import read_manifest, write_manifest

TARS = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}
NAMES = ["b/2.png", "b/1.png", "a.png", "noending"]


def picture(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 36), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


PICTURES = {name: picture(number) for number, name in enumerate(NAMES)}
OTHERS = {"readme.txt": b"text", ".hidden.png": picture(9), "__MACOSX/._a.png": b"attributes"}


def given(paths):
    return [source.given for source in expand(paths)]


def write_tar(path, content=None):
    with tarfile.open(path, TARS["".join(path.suffixes)]) as archive:
        for name, data in (content or {**PICTURES, **OTHERS}).items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return path


def write_zip(path, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in {**PICTURES, **OTHERS}.items():
            archive.writestr(name, data)
    return path


def test_named_files_are_kept_whatever_they_are(tmp_path):
    odd = tmp_path / "notes.txt"
    names = [str(odd), str(tmp_path / "absent.png")]
    assert given(names) == names


def test_folders_are_walked_in_order_by_name_and_content(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    content = {
        "b/1.PNG": b"",
        "b/0": b"\0" * 128 + b"DICM",
        "a.jpeg": b"cut",
        "c": b"\x89PNG\r\n\x1a\n",
        "readme.txt": b"text",
        "labels.csv": b"a,b",
        ".hidden/x.png": b"",
        ".y.png": b"",
    }
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    found = [Path(name).relative_to(tmp_path).as_posix() for name in given([tmp_path])]
    assert found == ["a.jpeg", "c", "b/0", "b/1.PNG"]


def test_files_are_listed_lazily(tmp_path):
    def endless():
        while True:
            yield tmp_path / "x.png"

    assert next(iter(expand(endless()))).given == str(tmp_path / "x.png")


def test_a_folder_that_may_not_be_listed_is_a_row(tmp_path, monkeypatch):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(picture(1))
    real = os.scandir

    def guarded(path):  # the tests may run as root, whom permissions do not stop
        if os.fspath(path).endswith(f"{os.sep}b"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return real(path)

    with monkeypatch.context() as patched:  # the folder of the test is removed by it too
        patched.setattr(os, "scandir", guarded)
        sources = list(expand([tmp_path]))
    assert [Path(s.given).relative_to(tmp_path).as_posix() for s in sources] == [
        "a/1.png", "b", "c/1.png",
    ]  # fmt: skip
    assert sources[1].problem == "the folder cannot be listed (Permission denied)"
    assert load(sources[1], 8) == sources[1].problem


def test_patterns_match_in_order_and_say_when_they_match_nothing(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.png", "a.png", "a.txt", "deep/c.png"):
        (tmp_path / name).write_bytes(b"")
    found = [Path(name).relative_to(tmp_path).as_posix() for name in given([f"{tmp_path}/*.png"])]
    assert found == ["a.png", "b.png"]
    deep = [Path(n).relative_to(tmp_path).as_posix() for n in given([f"{tmp_path}/**/*.png"])]
    assert deep == ["a.png", "b.png", "deep/c.png"]
    (nothing,) = expand([f"{tmp_path}/*.dcm"])
    assert nothing.problem == "the pattern matches no file"


def test_a_file_with_brackets_in_its_name_is_no_pattern(tmp_path):
    path = tmp_path / "film[1].png"
    path.write_bytes(b"")
    (source,) = expand([path])
    assert (source.given, source.problem) == (str(path), "")


def test_lists_name_files_and_folders_but_no_lists(tmp_path):
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "1.png").write_bytes(b"")
    listed = tmp_path / "list.txt"
    listed.write_bytes(f"x.png\r\n\n{tmp_path}/films\n@list.txt\n".encode() + b"caf\xe9.png")
    assert given([f"@{listed}"]) == [
        "x.png", str(tmp_path / "films" / "1.png"), "@list.txt", "caf\\xe9.png",
    ]  # fmt: skip
    sources = list(expand([f"@{listed}"]))
    assert os.fsencode(sources[-1].path) == b"caf\xe9.png"  # the name on disk is kept


def test_an_absent_list_is_a_row(tmp_path):
    for name in ("@no.txt", "@no.parquet", "no.parquet", "@no.csv", "no.csv"):
        at, name = name.startswith("@") * "@", name.removeprefix("@")
        (source,) = expand([f"{at}{tmp_path}/{name}"])
        assert "cannot be read" in source.problem


@pytest.mark.parametrize("prefix", ["", "@"])
@pytest.mark.parametrize(
    "columns",
    [
        {"path": ["a.png", None, "b.png"], "other": list("xyz")},
        {"file": ["a.png", "", "b.png"], "age": [1, 2, 3]},
    ],
)
def test_tables_of_paths(tmp_path, prefix, columns):
    table = tmp_path / "t.parquet"
    pd.DataFrame(columns).to_parquet(table)
    sources = list(expand([f"{prefix}{table}"]))
    assert [s.given for s in sources] == ["a.png", str(table), "b.png"]
    assert sources[1].problem == "a row without a path"


def test_a_table_without_paths_says_what_it_has(tmp_path):
    pd.DataFrame({"a": ["x"], "b": ["y"]}).to_parquet(tmp_path / "t.parquet")
    (source,) = expand([tmp_path / "t.parquet"])
    assert "named path; it has a, b" in source.problem
    (tmp_path / "t.csv").write_text("a,b\nx,y\n")
    (source,) = expand([tmp_path / "t.csv"])
    assert "named path; it has a, b" in source.problem


@pytest.mark.parametrize("prefix", ["", "@"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])  # spreadsheets write a byte order mark
def test_tables_of_paths_as_csv(tmp_path, prefix, mark):
    table = tmp_path / "t.csv"
    table.write_text(f'{mark}label,path\n1,"a, b.png"\n0,\n2\n1,c.png\n', encoding="utf-8")
    sources = list(expand([f"{prefix}{table}"]))
    assert [s.given for s in sources] == ["a, b.png", str(table), str(table), "c.png"]
    assert [bool(s.problem) for s in sources] == [False, True, True, False]


@pytest.mark.parametrize("ending", TARS)
def test_images_of_tars_in_the_order_of_the_archive(tmp_path, ending):
    path = write_tar(tmp_path / f"films{ending}")
    assert given([path]) == [f"{path}/{name}" for name in NAMES]
    check_images(path, NAMES)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_images_of_zips_in_alphabetical_order(tmp_path, method):
    path = write_zip(tmp_path / "films.zip", method)
    assert given([path]) == [f"{path}/{name}" for name in sorted(NAMES)]
    check_images(path, sorted(NAMES))


def check_images(path, names):
    expected = {name: load(next(expand([path])), 24, data) for name, data in PICTURES.items()}
    done = prefetch(expand([path]), square(24), ReadOptions(workers=2), ahead=3)
    found = [image for _, image in done]
    assert all(np.array_equal(expected[n], image) for n, image in zip(names, found, strict=True))


def test_zip_methods_that_are_not_read_say_so(tmp_path):
    path = write_zip(tmp_path / "films.zip", zipfile.ZIP_LZMA)
    sources = list(expand([path]))
    assert len(sources) == 3  # the content of a name without ending cannot be looked at
    assert "deflate; unpack the archive" in load(sources[0], 8)


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".zip"])
def test_an_archive_cut_short_is_accounted_for(tmp_path, ending):
    path = tmp_path / f"films{ending}"
    noise = np.random.default_rng(0).bytes(40_000)
    content = {"a.png": picture(1), "b.png": noise, "c.png": picture(2)}
    if ending == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
    else:
        write_tar(path, content)
    path.write_bytes(path.read_bytes()[:20_000])
    sources = list(expand([path]))
    assert "cannot be listed to its end" in sources[-1].problem
    if ending != ".zip":  # whose directory is at its end
        assert sources[0].given == f"{path}/a.png"


@pytest.mark.parametrize("writer", [write_zip, write_tar])
def test_an_archive_that_changed_is_not_read_at_old_places(tmp_path, writer):
    path = tmp_path / ("films.zip" if writer is write_zip else "films.tar")
    source = next(expand([writer(path)]))
    with path.open("ab") as file:
        file.write(b"more")
    assert load(source, 8) == "the archive changed after it was listed"


def test_damage_inside_a_zip_is_found_by_its_checksum(tmp_path):
    path = write_zip(tmp_path / "films.zip", zipfile.ZIP_STORED)
    source = next(expand([path]))
    data = bytearray(path.read_bytes())
    data[source.member.offset + 30 + len("a.png") + 60] ^= 1
    status = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert load(source, 8) == "damaged zip entry (its CRC-32 differs)"


def test_a_zip_entry_that_grows_beyond_its_size_is_refused(tmp_path):
    import dataclasses

    path = tmp_path / "films.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(1_000_000))
    (source,) = expand([path])
    small = dataclasses.replace(source, member=dataclasses.replace(source.member, size=100))
    assert "101 of 100 bytes" in load(small, 8)


def test_compressed_tars_are_read_once_when_asked_in_order(tmp_path, monkeypatch):
    from torchxrayvision.inputs import archives as _archives

    path = write_tar(tmp_path / "films.tar.gz")
    sources = list(expand([path]))
    opened = []
    real = _archives._open
    monkeypatch.setattr(_archives, "_open", lambda *a: opened.append(a) or real(*a))
    reader = Archives()
    assert [reader.read(s.path, s.member) for s in sources] == list(PICTURES.values())
    assert len(opened) == 1
    assert reader.read(sources[0].path, sources[0].member) == PICTURES[NAMES[0]]  # and back
    reader.close()


def test_plain_members_are_read_at_their_place(tmp_path):
    for path in (write_tar(tmp_path / "films.tar"), write_zip(tmp_path / "films.zip")):
        found = {s.given.removeprefix(f"{path}/"): s for s in expand([path])}
        assert {n: Archives().read(s.path, s.member) for n, s in found.items()} == PICTURES


def test_a_list_on_disk_gives_back_every_source(tmp_path):
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")
    (tmp_path / "films" / "line\nbreak.png").write_bytes(b"")
    paths = [
        tmp_path / "films", write_tar(tmp_path / "a.tar.gz"), write_zip(tmp_path / "a.zip"),
        tmp_path / "absent*", "named.png",
    ]  # fmt: skip
    sources = list(expand(paths))
    manifest = write_manifest(tmp_path / "list", sources)
    assert manifest.count == len(sources) == 12
    assert list(read_manifest(tmp_path / "list")) == sources
    assert list(read_manifest(tmp_path / "list", 3, 7)) == sources[3:7]
    assert write_manifest(tmp_path / "again", reversed(sources)).digest != manifest.digest

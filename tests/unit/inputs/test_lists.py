"""Lists and tables of paths: a row a name, whatever the others are and whoever wrote the file."""

from __future__ import annotations

import errno
import os
import stat
import zipfile

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.inputs import loaded as load
from torchxrayvision.inputs import expand
from torchxrayvision.runs import write_manifest

LONG = "x" * 5000 + ".png"


def given(paths):
    return [source.given for source in expand(paths)]


@pytest.fixture
def closed(tmp_path, monkeypatch):
    """A folder that may not be entered, also where the tests run as root."""
    folder = tmp_path / "closed"
    folder.mkdir()
    real = os.stat

    def guarded(path, *args, **kwargs):
        if not isinstance(path, int) and os.fspath(path).startswith(f"{folder}{os.sep}"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
        return real(path, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", guarded)
        yield folder


@pytest.mark.parametrize("ending", [".txt", ".csv", ".parquet"])
def test_names_that_cannot_be_looked_up_are_rows_and_the_others_go_on(tmp_path, closed, ending):
    names = ["a.png", f"{closed}/b.png", f"{closed}/*.png", LONG, "*" + LONG, "nul\0.png", "c.png"]
    path = tmp_path / f"list{ending}"
    if ending == ".txt":
        path.write_text("\n".join(names))
    elif ending == ".csv":
        pd.DataFrame({"path": names}).to_csv(path, index=False)
    else:
        pd.DataFrame({"path": names}).to_parquet(path)
    sources = list(expand([f"@{path}"]))
    shown = [name.replace("\0", r"\x00") for name in names]  # a terminal obeys some
    assert [s.given for s in sources] == shown
    assert not any("list cannot be read" in s.problem for s in sources)
    assert all(isinstance(load(source, 8), str) for source in sources)


def test_a_zip_without_readable_names_is_one_row_among_the_others(tmp_path):
    path = tmp_path / "odd.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("é.png", b"")
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xff\xff"))
    sources = list(expand(["a.png", path, "b.png"]))
    assert [s.given for s in sources] == ["a.png", str(path), "b.png"]
    assert "cannot be listed to its end ('utf-8' codec" in sources[1].problem


def test_what_whoever_takes_the_sources_throws_is_not_swallowed(tmp_path):
    (tmp_path / "list.txt").write_text("a.png\nb.png\n")
    sources = expand([f"@{tmp_path}/list.txt"])
    next(sources)
    with pytest.raises(OSError, match="theirs"):
        sources.throw(OSError("theirs"))


def test_the_mark_of_utf_8_is_no_part_of_the_first_name(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("\ufeffa.png\nb.png\n", encoding="utf-8")
    assert given([f"@{path}"]) == ["a.png", "b.png"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
@pytest.mark.parametrize("ending", [".txt", ".csv"])
def test_utf_16_says_what_to_do(tmp_path, encoding, ending):
    path = tmp_path / f"list{ending}"
    mark = "\ufeff" * (encoding != "utf-16")
    path.write_text(f"{mark}path\na.png\n", encoding=encoding)
    (source,) = expand([f"@{path}"])
    assert source.problem.endswith("cannot be read (it is UTF-16; save it as UTF-8)")


@pytest.mark.parametrize(
    "text", ["path;Mass\na,b.png;1\n", "path\tMass\na,b.png\t1\n", "sep=;\npath;Mass\na,b.png;1\n"]
)
def test_paths_in_a_csv_file_of_a_spreadsheet_in_other_countries(tmp_path, text):
    path = tmp_path / "list.csv"
    path.write_text(text, encoding="utf-8")
    assert given([path]) == ["a,b.png"]


def test_a_header_in_latin_1_can_be_said_and_written(tmp_path):
    path = tmp_path / "list.csv"
    path.write_bytes("größe;pfad\n".encode("latin-1"))
    (source,) = expand([path])
    assert r"named path; it has gr\xf6\xdfe, pfad" in source.problem
    write_manifest(tmp_path / "list", [source])


def test_names_in_latin_1_are_those_of_the_files(tmp_path):
    path = tmp_path / "list.csv"
    path.write_bytes("größe,path\n1,ö.png\n".encode("latin-1"))
    (source,) = expand([path])
    assert os.fsencode(source.path) == b"\xf6.png"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_list_may_come_through_a_pipe(tmp_path):
    import threading

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    writer = threading.Thread(target=pipe.write_text, args=["a.png\nb.png\n"])
    writer.start()
    assert given([f"@{pipe}"]) == ["a.png", "b.png"]
    writer.join()


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)
def test_paths_in_parquet_of_any_type_of_strings(tmp_path, kind):
    path = tmp_path / "t.parquet"
    try:
        paths = pa.array(["a.png", "b.png"]).cast(kind)
        pq.write_table(pa.table({"sex": ["F", "M"], "path": paths}), path)
    except pa.ArrowNotImplementedError:
        pytest.skip("this version of pyarrow writes no such strings")
    assert given([path]) == ["a.png", "b.png"]


def test_a_column_path_of_another_type_is_not_passed_over(tmp_path):
    path = tmp_path / "t.parquet"
    pd.DataFrame({"path": [1, 2], "sex": ["F", "M"]}).to_parquet(path)
    (source,) = expand([path])
    assert "its column path holds int64, not strings" in source.problem

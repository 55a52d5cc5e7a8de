from pathlib import Path

from torchxrayvision.inference import expand


def test_named_files_are_kept_whatever_they_are(tmp_path):
    odd = tmp_path / "notes.txt"
    given = [str(odd), str(tmp_path / "absent.png")]
    assert [s.given for s in expand(given)] == given


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
    found = [Path(s.given).relative_to(tmp_path).as_posix() for s in expand([tmp_path])]
    assert found == ["a.jpeg", "c", "b/0", "b/1.PNG"]


def test_files_are_listed_lazily(tmp_path):
    def endless():
        while True:
            yield tmp_path / "x.png"

    assert next(iter(expand(endless()))).given == str(tmp_path / "x.png")

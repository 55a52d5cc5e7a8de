"""Files that are whole or as they were, whatever stops the writing."""

from __future__ import annotations

import hashlib
import io
import os

import pytest

from torchxrayvision.files import FileState, put_in_place, sha256_of, write_atomically


@pytest.fixture
def synced(monkeypatch):
    """What was forced to the disk, by inode."""
    found = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda f: found.append(os.fstat(f).st_ino) or real(f))
    return found


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_appears_whole_under_its_name(tmp_path, synced, durable):
    target = tmp_path / "a.npz"
    target.write_bytes(b"old")
    with write_atomically(target, durable=durable) as part:
        assert (part.parent, part.suffix) == (tmp_path, ".npz")
        part.write_bytes(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]
    assert synced == ([target.stat().st_ino, tmp_path.stat().st_ino] if durable else [])


@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError, ValueError])
def test_whatever_stops_the_writing_the_old_file_stays(tmp_path, fault):
    target = tmp_path / "a.csv"
    target.write_bytes(b"old")

    def interrupted():
        with write_atomically(target) as part:
            part.write_bytes(b"half")
            raise fault

    with pytest.raises(fault):
        interrupted()
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


def test_two_writers_do_not_meet(tmp_path):
    target = tmp_path / ("x" * 200 + ".json")
    with write_atomically(target) as one, write_atomically(target) as two:
        assert one != two
        one.write_text("1")
        two.write_text("2")
    assert target.read_text() == "1"  # the outer one ends last
    assert list(tmp_path.iterdir()) == [target]


def test_an_absent_file_cannot_be_put_in_place(tmp_path):
    with pytest.raises(FileNotFoundError):
        put_in_place(tmp_path / "absent", tmp_path / "a")


def test_the_state_shows_every_way_to_change_a_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"1")
    states = [FileState.of(path)]
    path.write_bytes(b"22")
    states.append(FileState.of(path))
    os.utime(path, ns=(0, states[0].mtime_ns))
    states.append(FileState.of(path))
    (tmp_path / "b").write_bytes(b"22")
    (tmp_path / "b").replace(path)
    os.utime(path, ns=(0, states[0].mtime_ns))
    states.append(FileState.of(path))
    assert len(set(states)) == 4
    assert states[2].content == states[3].content == (2, states[0].mtime_ns)
    with path.open("rb") as file:
        assert FileState.of(file.fileno()) == states[3]


def test_a_hash_of_bytes_paths_and_open_files(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"film" * 100_000)
    expected = hashlib.sha256(b"film" * 100_000).hexdigest()
    with path.open("rb") as file:
        sources = [path, str(path), path.read_bytes(), memoryview(path.read_bytes()), file]
        assert {sha256_of(source) for source in sources} == {expected}
    assert sha256_of(io.BytesIO(b"")) == hashlib.sha256().hexdigest()

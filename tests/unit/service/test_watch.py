import os

import pytest

from support.service_runs import image, settled, until
from torchxrayvision.errors import OverloadError
from torchxrayvision.service import Watch
from torchxrayvision.service.watch import FolderWatch


@pytest.fixture
def taken():
    return []


def watch(tmp_path, taken, accept=None, **settings):
    (tmp_path / "in").mkdir(exist_ok=True)
    rules = Watch(folder=tmp_path / "in", settle=0.0, **settings)
    return FolderWatch(rules, accept or taken.append, lambda *_, **__: None, 1 << 20)


def test_files_are_taken_once_and_stay(tmp_path, taken):
    found = watch(tmp_path, taken)
    (tmp_path / "in" / "a.dcm").write_bytes(b"a")
    (tmp_path / "in" / "below").mkdir()
    (tmp_path / "in" / "below" / "b").write_bytes(b"b")
    assert found.look() == 2
    assert found.look() == 0
    assert taken == [b"a", b"b"]
    assert (tmp_path / "in" / "a.dcm").exists()
    (tmp_path / "in" / "a.dcm").write_bytes(b"new")
    assert found.look() == 1
    assert taken[-1] == b"new"


def test_files_that_are_still_written_are_left(tmp_path, taken):
    (tmp_path / "in").mkdir()
    found = FolderWatch(
        Watch(folder=tmp_path / "in", settle=0.05), taken.append, lambda *_, **__: None, 1 << 20
    )
    file = tmp_path / "in" / "a.dcm"
    for size in range(1, 4):
        file.write_bytes(b"x" * size)
        assert found.look() == 0
    assert until(found.look, 5)
    assert taken == [b"xxx"]


def test_hidden_partial_large_and_special_files_are_left(tmp_path, taken):
    found = watch(tmp_path, taken)
    folder = tmp_path / "in"
    for name in (".hidden", "a.part", "b.tmp"):
        (folder / name).write_bytes(b"x")
    (folder / ".git").mkdir()
    (folder / ".git" / "c").write_bytes(b"x")
    (folder / "large").write_bytes(bytes((1 << 20) + 1))
    os.mkfifo(folder / "pipe")
    assert found.look() == 0
    assert taken == []


def test_what_is_not_taken_for_now_is_taken_later(tmp_path, taken):
    full = [True]

    def accept(data):
        if full:
            raise OverloadError("full")
        taken.append(data)

    found = watch(tmp_path, taken, accept)
    (tmp_path / "in" / "a").write_bytes(b"a")
    for _ in range(2):
        with pytest.raises(OverloadError):
            found.look()
    full.clear()
    assert found.look() == 1


def test_files_are_removed_only_when_told_and_taken(tmp_path, taken):
    found = watch(tmp_path, taken, remove=True)
    (tmp_path / "in" / "a").write_bytes(b"a")
    found.look()
    assert not (tmp_path / "in" / "a").exists()


def test_a_folder_goes_through_the_service(running, tmp_path, archive, events):
    (tmp_path / "in").mkdir()
    folder = {"folder": str(tmp_path / "in"), "every": 0.05, "settle": 0.0}
    service = running(watch=[folder], targets=[archive.target()])
    (tmp_path / "in" / "Planted^Name.dcm").write_bytes(image(1))
    (tmp_path / "in" / "notes.txt").write_bytes(b"hello")
    assert until(lambda: service.queue.counts()["delivered"])
    assert settled(service)
    assert len(archive.held) == 2
    assert until(lambda: events("watch_left"))
    assert "Planted" not in str(events())

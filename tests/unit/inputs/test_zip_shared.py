"""One zip for many readers: threads, forked processes, pickles, and a file that is replaced."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
import zipfile

import pytest

from torchxrayvision.inputs import Archives

NAMES = ["a", "b", "c", "d"]


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(NAMES):
        (tmp_path / f"{name}.png").write_bytes(bytes([number]) * 5000 + name.encode())
    return tmp_path


@pytest.fixture
def archive(folder):
    path = folder / "all.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in NAMES:
            file.write(folder / f"{name}.png", f"train/{name}.png")
    return path


def member(archives, path, name):
    return archives.read(path, archives.find(path, name))


def read_in_child(archives, path, connection):
    connection.send_bytes(member(archives, path, "train/c.png"))


@pytest.mark.parametrize("method", ["fork", "thread"])
def test_an_archive_reads_on_in_other_processes_and_threads(archive, folder, method):
    handle = Archives()
    wanted = {name: (folder / f"{name}.png").read_bytes() for name in NAMES}
    assert member(handle, archive, "train/a.png") == wanted["a"]
    if method == "thread":
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(4) as pool:
            names = [NAMES[i % 4] for i in range(40)]
            read = list(pool.map(lambda name: member(handle, archive, f"train/{name}.png"), names))
        assert read == [wanted[name] for name in names]
    else:
        context = multiprocessing.get_context("fork")
        here, there = context.Pipe()
        children = [
            context.Process(target=read_in_child, args=(handle, archive, there)) for _ in range(3)
        ]
        for child in children:
            child.start()
        parent = [member(handle, archive, f"train/{name}.png") for name in NAMES for _ in range(5)]
        assert [here.recv_bytes() for _ in children] == [wanted["c"]] * 3
        for child in children:
            child.join()
        assert parent == [wanted[name] for name in NAMES for _ in range(5)]
    handle.close()


def test_an_open_archive_pickles_and_reads_on(archive, folder):
    handle = Archives()
    member(handle, archive, "train/a.png")
    again = pickle.loads(pickle.dumps(handle))
    assert member(again, archive, "train/b.png") == (folder / "b.png").read_bytes()
    handle.close()
    assert member(handle, archive, "train/b.png") == member(
        again, archive, "train/b.png"
    )  # it opens itself again
    handle.close()
    again.close()


def test_an_archive_that_was_replaced_is_opened_anew(archive, tmp_path):
    archive = shutil.copy(archive, tmp_path / "other.zip")
    handle = Archives()
    assert "train/b.png" in handle.names(archive)
    with zipfile.ZipFile(tmp_path / "new.zip", "w") as file:
        file.writestr("only.txt", b"new")
    (tmp_path / "new.zip").replace(archive)
    assert handle.names(archive) == ["only.txt"]
    assert member(handle, archive, "only.txt") == b"new"
    handle.close()


def test_an_archive_lists_members_and_refuses_others(archive):
    handle = Archives()
    assert "train/d.png" in handle.names(archive)
    assert handle.find(archive, "train/e.png") is None
    handle.close()

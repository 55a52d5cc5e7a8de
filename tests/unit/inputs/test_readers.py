"""Files that hang, crash, change or vanish: each is a row, and the others are not harmed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from support import long_run
from support.inputs import loaded as load
from support.inputs import square
from torchxrayvision.errors import StalledError
from torchxrayvision.inference.prediction import first_images
from torchxrayvision.inputs import InputFile, Readers, ReadOptions, expand
from torchxrayvision.inputs import isolate as _isolate
from torchxrayvision.inputs import load as _load
from torchxrayvision.inputs import readers as _readers

SIZE = 32


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return long_run.write_films(tmp_path_factory.mktemp("films"), 12)


@pytest.fixture
def sources(films):
    return list(expand([films]))


def pool(workers, limit=60.0, *, isolate=False):
    options = ReadOptions(workers=workers, time_limit=limit, isolate=isolate)
    return Readers(square(SIZE), options)


def outcomes(sources, *, workers=2, limit=60.0, isolate=False, ahead=5):
    with pool(workers, limit, isolate=isolate) as readers:
        return [outcome for _, outcome in readers.map(sources, ahead)]


def errors(results):
    return {i: r for i, r in enumerate(results) if isinstance(r, str)}


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize("workers", [1, 3])
def test_images_come_in_order_and_are_those_of_one_thread(sources, workers, isolate):
    expected = [load(source, SIZE) for source in sources]
    found = outcomes(sources, workers=workers, isolate=isolate)
    assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))


def test_no_more_is_read_ahead_than_was_said(sources):
    begun = []
    with Readers(lambda file, _: begun.append(file), ReadOptions(workers=2)) as readers:
        results = readers.map(sources, ahead=3)
        next(results)
        time.sleep(0.05)
        assert len(begun) <= 3


def test_a_thread_that_hangs_is_left_behind(sources, monkeypatch):
    release = threading.Event()
    real = _load.read_raster

    def hang(path, **options):
        if path in (sources[3].path, sources[4].path):
            release.wait(60)
        return real(path, **options)

    monkeypatch.setattr(_load, "read_raster", hang)
    monkeypatch.setattr(_readers, "_POLL_SECONDS", 0.02)
    begun = time.monotonic()
    found = outcomes(sources, workers=1, limit=0.2)
    release.set()
    assert errors(found) == dict.fromkeys((3, 4), "reading took longer than 0.2 s")
    assert time.monotonic() - begun < 20
    assert np.array_equal(found[11], load(sources[11], SIZE))


def test_a_storage_that_hangs_ends_the_run(sources, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(_load, "read_raster", lambda *_, **__: release.wait(60))
    monkeypatch.setattr(_readers, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(_readers, "_MOST_STUCK", 4)
    monkeypatch.setattr(_readers, "_SHUTDOWN_SECONDS", 0.1)
    with pytest.raises(StalledError, match="same command"):
        outcomes(sources, workers=1, limit=0.02)
    release.set()


@pytest.mark.parametrize("fault", [ZeroDivisionError("x"), SystemExit(3), MemoryError()])
def test_whatever_a_decoder_raises_is_a_row(sources, monkeypatch, fault):
    def faulty(path, **options):
        if path == sources[5].path:
            raise fault
        return original(path, **options)

    original = _load.read_raster
    monkeypatch.setattr(_load, "read_raster", faulty)
    found = errors(outcomes(sources))
    assert list(found) == [5]
    assert type(fault).__name__ in found[5]


# What a child runs in the place of the real decoder, by the name of the file.
FAULTY = """
import os, sys, time
from torchxrayvision.inputs import load as _load
real = _load.read_raster
def faulty(path, **options):
    name = str(path)
    if "00003" in name:
        os.kill(os.getpid(), 11)
    if "00005" in name:
        time.sleep(60)
    if "00007" in name and not os.path.exists(marker):
        open(marker, "w").close()
        os._exit(9)
    print("a decoder prints on standard output")
    os.write(1, b"and in C")
    return real(path, **options)
marker = sys.argv[1]
_load.read_raster = faulty
import runpy
runpy.run_module("torchxrayvision.inputs.isolate", run_name="__main__")
"""


@pytest.fixture
def faulty_child(monkeypatch, tmp_path):
    real = subprocess.Popen

    def faulty(command, **options):
        marker = str(tmp_path / "died-once")
        return real([sys.executable, "-c", FAULTY, marker], stderr=subprocess.DEVNULL, **options)

    monkeypatch.setattr(_isolate.subprocess, "Popen", faulty)
    monkeypatch.setattr(_readers, "_POLL_SECONDS", 0.05)


@pytest.mark.usefixtures("faulty_child")
def test_the_first_images_are_read_as_all_are(sources):
    reading = ReadOptions(isolate=True, time_limit=5.0)
    images = first_images(sources[3:], SIZE, 2, reading)  # of which one crashes and one hangs
    assert np.array_equal(images, np.stack([load(sources[i], SIZE) for i in (4, 6)]))


@pytest.mark.usefixtures("faulty_child")
def test_a_child_that_crashes_or_hangs_costs_its_file_only(sources, tmp_path):
    found = outcomes(sources, workers=2, limit=5.0, isolate=True)
    assert errors(found) == {
        3: "the process that read it died (signal 11)",
        5: "reading took longer than 5 s",
    }
    assert (tmp_path / "died-once").exists()  # and the file was read by the next child
    assert np.array_equal(found[7], load(sources[7], SIZE))


def test_a_child_killed_from_outside_loses_nothing(sources):
    children = []
    with pool(1, isolate=True) as readers:
        found = []
        for _, outcome in readers.map(sources, ahead=1):
            found.append(outcome)
            child = readers._workers[0]._process._child
            if len(found) in (2, 7):
                os.kill(child.pid, signal.SIGKILL)
            children.append(child.pid)
    assert not errors(found)
    assert len(set(children)) == 3
    assert child.poll() is not None  # none is left running


def test_children_do_without_torch():
    code = (
        "import sys, torchxrayvision.inputs.isolate;"
        "print(*({'torch', 'torchvision', 'pandas', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_file_that_changes_while_it_is_read_is_read_again(films, tmp_path, monkeypatch):
    target = tmp_path / "a.png"
    names = sorted(films.glob("*/*.png"))
    shutil.copy(names[0], target)
    original = _load.read_raster
    later = iter(names[1:2])

    def meddled(path, **options):
        raster = original(path, **options)
        for name in later:
            shutil.copy(name, target)
        return raster

    monkeypatch.setattr(_load, "read_raster", meddled)
    expected = load(InputFile(names[1], "b"), SIZE)
    assert np.array_equal(load(InputFile(target, "a"), SIZE), expected)


def test_a_file_that_never_rests_is_a_row(films, tmp_path, monkeypatch):
    target = tmp_path / "a.png"
    shutil.copy(next(films.glob("*/*.png")), target)
    original = _load.read_raster

    def meddled(path, **options):
        try:
            return original(path, **options)
        finally:
            with target.open("ab") as file:
                file.write(b"\0")

    monkeypatch.setattr(_load, "read_raster", meddled)
    assert load(InputFile(target, "a"), SIZE) == "the file changed while it was read"


def test_a_file_that_vanishes_is_a_row(sources, tmp_path):
    assert load(InputFile(tmp_path / "gone.png", "gone.png"), SIZE) == "no such file"


def test_a_float_picture_that_holds_nan_is_a_row(tmp_path):
    from PIL import Image

    pixels = np.zeros((40, 40), np.float32)
    pixels[10:20, 10:20] = np.nan
    Image.fromarray(pixels).save(tmp_path / "a.tiff")
    assert isinstance(load(InputFile(tmp_path / "a.tiff", "a"), SIZE), str)


def test_memory_is_not_held_for_what_was_handed_out(sources):
    with pool(2, isolate=False) as readers:
        for _ in readers.map(sources * 20, ahead=4):
            assert len(readers._pending) <= 4


@pytest.mark.parametrize("isolate", [False, True])
def test_closing_early_ends_the_workers(sources, isolate):
    with pool(2, isolate=isolate) as readers:
        next(readers.map(sources * 50, ahead=8))
        workers = list(readers._workers)
    assert not any(worker.thread.is_alive() for worker in workers)


def test_the_name_of_a_source_is_not_its_path(films):
    assert load(InputFile(Path("/nowhere"), "x", problem="the folder cannot be listed"), SIZE) == (
        "the folder cannot be listed"
    )

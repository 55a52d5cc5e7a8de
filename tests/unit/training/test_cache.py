"""Images decoded once: nothing stale, nothing lost, nothing half done."""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import os
import shutil
import signal
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from support.tiny import Tiny, as_image, picture, rows, tiny, write_pictures
from torchxrayvision.datasets import (
    MergeDataset,
    Phantom_Dataset,
    SubsetDataset,
    patient_keys,
    relabel_dataset,
)
from torchxrayvision.datasets.images import ZipFiles
from torchxrayvision.errors import DatasetError, ImageReadError
from torchxrayvision.images import read_image
from torchxrayvision.training import ImageCache, PreparedImages
from torchxrayvision.training.images import cache as cache_module
from torchxrayvision.training.images import pool as pool_module
from torchxrayvision.training.images import sources as sources_module
from torchxrayvision.transforms import XRayCenterCrop, XRayResizer

SIZE = 6


@pytest.fixture
def films(tmp_path):
    return write_pictures(tmp_path / "films")


@pytest.fixture
def build(tmp_path):
    def built(dataset, size=SIZE, **kwargs):
        return ImageCache.build(dataset, size, folder=tmp_path / "cache", workers=1, **kwargs)

    return built


@pytest.fixture
def decoded(monkeypatch):
    """One entry for each image that is decoded from now on."""
    seen = []
    original = cache_module._Prepare.prepared

    def counting(self, image):
        seen.append(image.shape)
        return original(self, image)

    monkeypatch.setattr(cache_module._Prepare, "prepared", counting)
    return seen


@pytest.fixture
def opened(monkeypatch):
    """The files whose bytes are read from now on."""
    seen = []
    original = sources_module._bytes

    def counting(images, line, release):
        seen.append(images.name(line))
        return original(images, line, release)

    monkeypatch.setattr(sources_module, "_bytes", counting)
    return seen


@pytest.fixture
def settled(monkeypatch):
    """The files of a test count as written long ago."""
    monkeypatch.setattr(sources_module, "_TICK_NS", 0)


def exact(index):
    return XRayResizer(SIZE)(XRayCenterCrop()(as_image(index)))


@pytest.mark.parametrize(("dtype", "step"), [("uint8", 2048 / 255), ("uint16", 2048 / 65535)])
def test_it_holds_what_the_dataset_gives_to_half_a_level(films, build, dtype, step):
    dataset = tiny(films)
    cache = build(dataset, dtype=dtype)
    assert len(cache) == len(dataset) == 4
    assert cache.names == ("Mass", "Edema")
    for index in range(4):
        image, labels, position = cache[index]
        assert position == index
        assert np.abs(image - exact(index)).max() <= step / 2 + 1e-3
        np.testing.assert_array_equal(labels, dataset.labels[index])
    assert cache.patient_ids.tolist() == patient_keys(dataset).tolist()
    assert pd.factorize(cache.patient_ids)[0].tolist() == [0, 0, 1, 2]


def test_a_second_opening_decodes_nothing(films, build, decoded):
    build(tiny(films))
    assert len(decoded) == 4
    decoded.clear()
    build(tiny(films)).verify(sources=True)
    assert decoded == []


def test_labels_are_those_of_now(films, build, decoded):
    build(tiny(films))
    decoded.clear()
    table = rows()
    table["mass"] = [0.0, 0.0, 0.0, 0.0]
    assert build(tiny(films, kwargs={"csvpath": table})).labels[:, 0].tolist() == [0, 0, 0, 0]
    assert decoded == []


def test_a_changed_file_is_never_served_stale(films, build):
    before = build(tiny(films))
    path = films / "b.png"
    status = path.stat()
    Image.fromarray(255 - picture(1)).save(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as a careless copy leaves it
    after = build(tiny(films))
    assert after.digest != before.digest
    assert np.abs(after[1][0] - before[1][0]).max() > 100


@pytest.mark.parametrize("other", ["size", "dtype", "order"])
def test_another_preparation_or_order_is_another_array(films, build, other):
    first = build(tiny(films))
    changed = {
        "size": lambda: build(tiny(films), size=SIZE + 1),
        "dtype": lambda: build(tiny(films), dtype="uint16"),
        "order": lambda: build(SubsetDataset(tiny(films), [3, 2, 1, 0])),
    }[other]()
    assert changed.digest != first.digest
    if other == "order":
        np.testing.assert_array_equal(changed[0][0], first[3][0])


@pytest.mark.parametrize(("cohort", "patients"), [("another", 6), ("", 3)])
def test_merged_releases_share_the_patients_of_one_cohort(films, build, cohort, patients):
    cache = build(MergeDataset([tiny(films), tiny(films, cohort=cohort)]))
    assert len(cache) == 8
    assert len(set(cache.patient_ids.tolist())) == patients


def test_patients_are_compared_between_caches_of_other_datasets(films, build, tmp_path):
    mine, again = build(tiny(films)), build(SubsetDataset(tiny(films), [3, 1]))
    assert again.patient_ids.tolist() == mine.patient_ids[[3, 1]].tolist()  # codes were 1 and 0
    cohort = build(tiny(films, cohort="one")), build(tiny(films, cohort="another"))
    assert not set(cohort[0].patient_ids.tolist()) & set(cohort[1].patient_ids.tolist())
    assert cohort[0].shared_patients(cohort[1]) == 0
    assert mine.shared_patients(again) == 2


def test_caches_with_other_findings_share_their_patients(build):
    one = build(Phantom_Dataset(n=9, size=32, views=["PA"]))
    other = Phantom_Dataset(n=9, size=32, views=["AP"])
    relabel_dataset(["Mass"], other, silent=True)
    two = build(other)
    assert one.names != two.names
    shared = len({*one._dataset.csv["patientid"]} & {*other.csv["patientid"]})
    assert shared
    assert one.shared_patients(two) == shared


def test_images_without_patients_are_known_by_what_is_in_them(films, build):
    one, other = (build(tiny(films, columns={})) for _ in range(2))
    assert len(set(one.patient_ids.tolist())) == 4
    assert one.patient_ids.tolist() == other.patient_ids.tolist()
    assert one.shared_patients(build(tiny(films))) == 4  # by their images: one of them says whose
    assert not set(one.patient_ids.tolist()) & set(build(tiny(films)).patient_ids.tolist())


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        (["a", "b", "b"], ["b", "x", "y"], 1),
        ([5, 6, 6], [6, 7, 8], 1),
        ([5, 6, 6], [6.0, float("nan"), 8], 1),
        (["a", None, None], ["c", None, None], 0),
        (None, None, 0),
        (None, [0, 1, 2], 0),
        (["007", "1", "2"], ["7", "3", "4"], 0),
    ],
)
def test_patients_of_arrays_are_compared_as_they_were_given(first, second, shared):
    rng = np.random.default_rng(0)
    one, other = (
        PreparedImages(rng.integers(0, 255, (3, 4, 4), dtype=np.uint8), patient_ids=ids)
        for ids in (first, second)
    )
    assert one.shared_patients(other) == shared
    assert len(np.intersect1d(one.patient_ids, other.patient_ids)) == shared


def stop_after_three(build, films):
    """Stop a build at its third image, as an interrupt from the keyboard does."""

    class Killed(BaseException):
        pass

    def killed(done, total):
        if done == 3:
            raise Killed

    with pytest.raises(Killed):
        build(tiny(films), progress=killed)


def test_what_was_done_before_a_stop_is_not_done_again(films, build, decoded, settled):
    stop_after_three(build, films)
    decoded.clear()
    calls = []
    cache = build(tiny(films), progress=lambda *done: calls.append(done))
    assert len(decoded) == 1
    assert calls == [(4, 4)]
    cache.verify()


def test_a_killed_process_leaves_what_it_had_done_to_the_next(films, tmp_path, build, decoded):
    child = multiprocessing.get_context("fork").Process(
        target=_build_until, args=(films, tmp_path / "cache", 3)
    )
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    build(tiny(films)).verify()
    assert len(decoded) == 1


def test_a_file_that_changed_between_a_kill_and_the_next_is_decoded_again(
    films, build, decoded, settled
):
    stop_after_three(build, films)
    Image.fromarray(255 - picture(1)).save(films / "b.png")
    decoded.clear()
    cache = build(tiny(films))
    cache.verify(sources=True)
    assert len(decoded) == 2
    assert np.abs(cache[1][0] + exact(1)).max() < 10


def _build_until(films, folder, last):
    def progress(done, total):
        if done == last:
            os.kill(os.getpid(), signal.SIGKILL)

    ImageCache.build(tiny(films), SIZE, folder=folder, workers=1, progress=progress)


def test_processes_that_build_at_once_decode_each_image_once(films, tmp_path):
    context = multiprocessing.get_context("fork")
    gate, queue = context.Barrier(3), context.Queue()
    children = [
        context.Process(target=_build_at_once, args=(films, tmp_path / "cache", gate, queue))
        for _ in range(3)
    ]
    for child in children:
        child.start()
    results = [queue.get(timeout=60) for _ in children]
    for child in children:
        child.join()
    assert sorted(done for done, _ in results) == [0, 0, 4]
    assert len({digest for _, digest in results}) == 1


def _build_at_once(films, folder, gate, queue):
    done = []
    original = cache_module._Prepare.prepared

    def counting(self, image):
        done.append(image.shape)
        return original(self, image)

    cache_module._Prepare.prepared = counting  # in this process alone
    gate.wait()
    cache = ImageCache.build(tiny(films), SIZE, folder=folder, workers=1)
    cache.verify()
    queue.put((len(done), cache.digest))


def unfinished(cache):
    """The folder of an array as a kill just before its end leaves it."""
    records = np.memmap(cache.folder / "rows.bin", pool_module._ROW, "r+")
    assert records["on_disk"][:4].tolist() == [1, 1, 1, 1]
    records["on_disk"] = 0
    records.flush()
    return cache.folder


def flip(path, row):
    with path.open("rb+") as file:
        file.seek(row * SIZE * SIZE)
        first = file.read(1)[0]
        file.seek(row * SIZE * SIZE)
        file.write(bytes([first ^ 1]))


def test_bytes_that_never_reached_the_disk_are_made_again(films, build, decoded, settled):
    folder = unfinished(build(tiny(films)))
    flip(folder / "images.bin", 2)
    decoded.clear()
    build(tiny(films)).verify()
    assert len(decoded) == 1
    build(tiny(films)).verify()
    assert len(decoded) == 1


def test_a_truncated_array_is_started_afresh(films, build, decoded):
    folder = unfinished(build(tiny(films)))
    (folder / "images.bin").write_bytes(b"\x93NUMPY")
    decoded.clear()
    build(tiny(films)).verify()
    assert len(decoded) == 4


@pytest.mark.parametrize("look", ["item", "batch", "subset", "fingerprint of pixels", "verify"])
def test_a_damaged_image_is_not_given_out(films, build, decoded, settled, look):
    flip(build(tiny(films)).folder / "images.bin", 1)
    cache = build(tiny(films))
    cache[0]
    with pytest.raises(DatasetError, match=r"image 1 is not what was prepared.*verify=True"):
        {
            "item": lambda: cache[1],
            "batch": lambda: cache.batch([0, 1]),
            "subset": lambda: cache.subset([1]).batch([0]),
            "fingerprint of pixels": lambda: PreparedImages._digest_pixels(cache, hashlib.sha256()),
            "verify": cache.verify,
        }[look]()
    decoded.clear()
    mended = build(tiny(films), verify=True)
    mended.verify(sources=True)
    assert len(decoded) == 1
    assert mended.digest == cache.digest
    assert np.abs(mended[1][0] - exact(1)).max() < 5


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("images.bin", b"\x93NUMPY"),
        ("images.bin", None),
        ("rows.bin", b""),
        ("rows.bin", None),
        ("rows.bin", b"{"),
    ],
)
def test_a_damaged_array_is_prepared_again(films, build, decoded, caplog, name, data):
    folder = build(tiny(films)).folder
    (folder / name).unlink()
    if data is not None:
        (folder / name).write_bytes(data)
    again = build(tiny(films))
    again.verify(sources=True)
    assert again.folder == folder
    assert "a damaged array is prepared again" in caplog.text
    assert len(decoded) == 8


def test_what_is_whole_in_a_damaged_array_is_used(films, build, decoded):
    folder = build(tiny(films)).folder
    os.truncate(folder / "images.bin", 3 * SIZE * SIZE + 1)
    build(tiny(films)).verify(sources=True)
    assert len(decoded) == 5


def test_places_of_another_process_are_not_written_over(films, build, decoded):
    """Arrays that are open stay as they are, whatever is added or was lost beside them."""
    before = build(tiny(films))
    shown = [before[row][0].copy() for row in range(4)]
    (before.folder / "rows.bin").unlink()
    Image.fromarray(255 - picture(1)).save(films / "b.png")
    after = build(tiny(films))
    after.verify(sources=True)
    for row in range(4):
        np.testing.assert_array_equal(before[row][0], shown[row])
    assert len(decoded) == 8


def test_an_array_of_another_order_shares_the_images(films, build, decoded):
    cache, other = build(tiny(films)), build(SubsetDataset(tiny(films), [3, 2, 1, 0]))
    np.testing.assert_array_equal(cache[0][0], other[3][0])
    assert (other.folder, len(decoded)) == (cache.folder, 4)


def test_a_touched_file_is_read_and_the_same_array_served(films, build, decoded, opened, settled):
    before = build(tiny(films))
    decoded.clear()
    opened.clear()
    build(tiny(films))
    assert opened == []
    os.utime(films / "b.png")
    after = build(tiny(films))
    assert (opened, decoded) == (["b.png"], [])
    assert after.digest == before.digest
    opened.clear()
    build(tiny(films))
    assert opened == []


def test_a_file_written_just_now_is_read_again(films, build, opened):
    build(tiny(films))
    opened.clear()
    build(tiny(films))  # it may have been written twice within a tick of the clock
    assert opened == ["a.png", "b.png", "c.png", "d.png"]


def test_of_changed_files_only_those_are_decoded(films, build, decoded, settled):
    before = build(tiny(films))
    Image.fromarray(255 - picture(1)).save(films / "b.png")
    decoded.clear()
    after = build(tiny(films))
    assert len(decoded) == 1
    assert after.digest != before.digest
    for row in (0, 2, 3):
        np.testing.assert_array_equal(after[row][0], before[row][0])
    assert np.abs(after[1][0] - before[1][0]).max() > 100


def test_a_file_that_changed_back_gives_the_first_array(films, build, decoded):
    before, data = build(tiny(films)), (films / "b.png").read_bytes()
    Image.fromarray(255 - picture(1)).save(films / "b.png")
    build(tiny(films))
    (films / "b.png").write_bytes(data)
    decoded.clear()
    assert build(tiny(films)).digest == before.digest
    assert decoded == []


def test_the_same_size_and_time_do_not_hide_a_change(films, build, decoded, settled):
    path = films / "b.png"
    Image.fromarray(picture(1)).save(path, compress_level=0)
    before, status = build(tiny(films)), path.stat()
    Image.fromarray(255 - picture(1)).save(path, compress_level=0)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    with pytest.raises(DatasetError, match=r"b\.png is not what image 1 was made of"):
        before.verify(sources=True)
    assert build(tiny(films)).digest != before.digest


def test_a_change_that_no_state_shows_is_found_by_verifying(films, build, settled, monkeypatch):
    """Damage of a disk, or a file system that keeps no time of the entry."""
    original = sources_module.stamp_of
    monkeypatch.setattr(sources_module, "stamp_of", lambda path: (*original(path)[:1], 1, 1, 1))
    path = films / "b.png"
    Image.fromarray(picture(1)).save(path, compress_level=0)
    before = build(tiny(films))
    Image.fromarray(255 - picture(1)).save(path, compress_level=0)
    stale = build(tiny(films))
    assert stale.digest == before.digest
    with pytest.raises(DatasetError, match=r"b\.png is not what image 1 was made of"):
        stale.verify(sources=True)
    after = build(tiny(films), verify=True)
    assert after.digest != before.digest
    after.verify(sources=True)


def test_the_same_files_elsewhere_are_not_decoded(films, build, decoded, tmp_path):
    before = build(tiny(films))
    shutil.copytree(films, tmp_path / "moved")
    decoded.clear()
    assert build(tiny(tmp_path / "moved")).digest == before.digest
    assert decoded == []
    assert before.folder == build(tiny(films)).folder


def test_parts_of_other_arrays_are_copied(films, build, decoded):
    build(tiny(films))
    decoded.clear()
    cache = build(MergeDataset([SubsetDataset(tiny(films), [2, 0]), tiny(films)]))
    cache.verify(sources=True)
    assert decoded == []
    assert np.abs(cache[0][0] - exact(2)).max() < 5


def test_an_array_that_is_removed_is_not_missed(films, build, decoded):
    first = build(tiny(films))
    shutil.rmtree(first.folder)
    decoded.clear()
    cache = build(SubsetDataset(tiny(films), [3, 1]))
    cache.verify(sources=True)
    assert len(decoded) == 2
    first.verify()  # what is open stays


def test_another_preparation_uses_nothing_of_an_earlier_one(films, build, decoded, monkeypatch):
    before = build(tiny(films))
    monkeypatch.setattr(pool_module, "PREPARATION", "2: otherwise")
    decoded.clear()
    after = build(tiny(films))
    assert after.digest != before.digest
    assert len(decoded) == 4


def test_another_reader_makes_other_images_of_the_same_bytes(films, build):
    before = build(tiny(films))
    negative = replace(Tiny.spec.images, reader=_negative)
    after = build(tiny(films, images=negative))
    assert after.digest != before.digest
    assert np.abs(after[0][0] + before[0][0]).max() < 10


def _negative(source):
    return -read_image(source)


def test_what_is_known_of_files_may_be_lost_or_damaged(films, build, decoded, settled):
    folder = build(tiny(films)).folder
    known = folder.parent / "files.sqlite"
    decoded.clear()
    for data in (b"", b"no archive", known.read_bytes()[:-40]):
        known.write_bytes(data)
        assert build(tiny(films)).folder == folder
    known.unlink()
    assert build(tiny(films)).folder == folder
    assert decoded == []


def test_a_cache_that_cannot_be_written_can_be_read(films, build, decoded, settled, monkeypatch):
    build(tiny(films))
    os.utime(films / "b.png")
    decoded.clear()

    def refused(self, *args, **kwargs):
        raise PermissionError("the folder is read-only")

    monkeypatch.setattr("filelock.FileLock.acquire", refused)
    monkeypatch.setattr(sources_module.FileLedger, "_write", refused)
    build(tiny(films)).verify()
    assert decoded == []


def test_a_file_that_is_being_written_is_refused(films, build, monkeypatch):
    counter = itertools.count()
    original = sources_module.stamp_of
    monkeypatch.setattr(
        sources_module, "stamp_of", lambda path: (next(counter), *original(path)[1:])
    )
    with pytest.raises(ImageReadError, match="changed while it was read"):
        build(tiny(films))


def zipped(films, path):
    with zipfile.ZipFile(path, "w") as archive:
        for film in sorted(films.iterdir()):
            archive.write(film, film.name)
    return path


def test_members_of_an_archive_are_known_by_their_bytes(
    films, build, decoded, opened, settled, tmp_path
):
    archive = zipped(films, tmp_path / "films.zip")
    kwargs = {"images": ZipFiles("{name}.png", argument="archive")}
    dataset = tiny(kwargs={"places": {"archive": archive}}, **kwargs)
    before = build(dataset)
    before.verify(sources=True)
    # The same bytes as files were another reader's; as members they have the same content.
    assert build(tiny(films)).digest == before.digest
    decoded.clear()
    opened.clear()
    build(dataset)
    assert opened == []
    Image.fromarray(255 - picture(1)).save(films / "b.png")
    zipped(films, archive)
    after = build(dataset)  # its archive is open still, and opened anew
    assert len(decoded) == 1
    assert np.abs(after[1][0] - before[1][0]).max() > 100


def test_simulated_images_are_known_by_what_they_are_computed_from(build, decoded):
    before = build(Phantom_Dataset(n=2, size=32))
    before.verify(sources=True)
    decoded.clear()
    build(Phantom_Dataset(n=2, size=32), verify=True)
    assert decoded == []
    assert build(Phantom_Dataset(n=2, size=32, seed=1)).digest != before.digest


def test_an_unreadable_image_stops_or_is_left_out(films, build):
    (films / "c.png").write_bytes(b"no image")
    with pytest.raises(ImageReadError, match=r"c\.png"):
        build(tiny(films))
    cache = build(tiny(films), skip_unreadable=True)
    assert list(cache.unreadable) == [2]
    assert len(cache) == 3
    assert [cache[i][1].tolist()[0] for i in (0, 1)] == [1.0, 0.0]
    np.testing.assert_array_equal(cache.patient_ids, patient_keys(tiny(films))[[0, 1, 3]])
    again = build(tiny(films), skip_unreadable=True)
    assert again.unreadable == cache.unreadable
    with pytest.raises(ImageReadError, match=r"c\.png"):
        build(tiny(films))
    assert "c.png" in cache.unreadable[2]


def test_any_number_of_threads_gives_the_same_array(films, tmp_path):
    before = torch.get_rng_state()
    one, two = (
        ImageCache.build(tiny(films), SIZE, folder=tmp_path / str(n), workers=n) for n in (1, 2)
    )
    assert (one.folder / "images.bin").read_bytes() == (two.folder / "images.bin").read_bytes()
    assert torch.equal(torch.get_rng_state(), before)


def test_the_former_name_of_patient_ids_works_with_a_warning(films, build):
    cache = build(tiny(films))
    with pytest.warns(DeprecationWarning, match="patient_ids"):
        np.testing.assert_array_equal(cache.groups, cache.patient_ids)


def test_transforms_are_refused(films, build):
    dataset = tiny(films, kwargs={"transform": XRayCenterCrop()})
    with pytest.raises(DatasetError, match="leave both out"):
        build(dataset)


def test_a_subset_shares_the_array_and_has_its_own_fingerprint(films, build):
    cache = build(tiny(films))
    part = cache.subset(cache.patient_ids == cache.patient_ids[0])
    assert len(part) == 2
    assert part.fingerprint() != cache.fingerprint()
    assert cache.subset([0, 1]).fingerprint() == part.fingerprint()
    assert part.with_findings(["Edema", "Hernia"]).labels.shape == (2, 2)
    with pytest.raises(DatasetError, match="none of Hernia"):
        part.with_findings(["Hernia"])


@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 3, 4, 4), (4, 4)])
def test_arrays_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="must be of shape"):
        PreparedImages(np.zeros(shape, np.uint8), np.zeros((2, 1)), ["Mass"])


@pytest.mark.skipif(os.name == "nt", reason="links need privileges there")
def test_the_cache_is_private_and_writes_through_no_planted_link(films, build, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.write_bytes(b"what is not ours")
    first = build(tiny(films))
    (images,) = (tmp_path / "cache").glob("*/images.bin")
    assert images.parent.stat().st_mode & 0o077 == 0
    assert len(first) == len(tiny(films))
    shutil.rmtree(images.parent)
    images.parent.mkdir()
    images.symlink_to(theirs)
    with pytest.raises(OSError, match=r"images\.bin"):
        build(tiny(films))
    assert theirs.read_bytes() == b"what is not ours"

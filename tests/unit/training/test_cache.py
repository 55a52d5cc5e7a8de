"""Images decoded once: nothing stale, nothing lost, nothing half done."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from support.tiny import as_image, picture, rows, tiny, write_pictures
from torchxrayvision.datasets import MergeDataset, SubsetDataset
from torchxrayvision.errors import DatasetError, ImageReadError
from torchxrayvision.training import ImageCache, PreparedImages
from torchxrayvision.training import _cache as cache_module
from torchxrayvision.transforms import XRayCenterCrop, XRayResizer

SIZE = 6


@pytest.fixture
def films(tmp_path):
    return write_pictures(tmp_path / "films")


@pytest.fixture
def build(tmp_path):
    def built(dataset, size=SIZE, **kwargs):
        return ImageCache.build(dataset, size, folder=tmp_path / "cache", workers=0, **kwargs)

    return built


@pytest.fixture
def decoded(monkeypatch):
    """The rows that are decoded from now on."""
    seen = []
    original = cache_module._Prepare.__getitem__

    def counting(self, row):
        seen.append(row)
        return original(self, row)

    monkeypatch.setattr(cache_module._Prepare, "__getitem__", counting)
    return seen


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
    assert cache.groups.tolist() == [0, 0, 1, 2]


def test_a_second_opening_decodes_nothing(films, build, decoded):
    build(tiny(films))
    assert sorted(decoded) == [0, 1, 2, 3]
    decoded.clear()
    build(tiny(films)).verify()
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
    assert after.folder != before.folder
    assert np.abs(after[1][0] - before[1][0]).max() > 100


@pytest.mark.parametrize("other", ["size", "dtype", "order"])
def test_another_preparation_or_order_is_another_array(films, build, other):
    first = build(tiny(films))
    changed = {
        "size": lambda: build(tiny(films), size=SIZE + 1),
        "dtype": lambda: build(tiny(films), dtype="uint16"),
        "order": lambda: build(SubsetDataset(tiny(films), [3, 2, 1, 0])),
    }[other]()
    assert changed.folder != first.folder
    if other == "order":
        np.testing.assert_array_equal(changed[0][0], first[3][0])


def test_merged_datasets_keep_their_patients_apart(films, build):
    cache = build(MergeDataset([tiny(films), tiny(films)]))
    assert len(cache) == 8
    assert len(set(cache.groups.tolist())) == 6


def test_what_was_done_before_a_kill_is_not_done_again(films, build, decoded, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(done, total):
        if done == 3:
            raise Killed

    with pytest.raises(Killed):
        build(tiny(films), progress=killed)
    decoded.clear()
    calls = []
    cache = build(tiny(films), progress=lambda *done: calls.append(done))
    assert decoded == [3]
    assert calls == [(4, 4)]
    cache.verify()
    assert not list(cache.folder.parent.glob("*.part"))


def test_bytes_that_never_reached_the_disk_are_made_again(films, build, decoded):
    cache = build(tiny(films))
    part = cache.folder.with_name(f"{cache.folder.name}.part")
    shutil.move(cache.folder, part)
    (part / "index.json").unlink()
    pixels = np.lib.format.open_memmap(part / "images.npy", mode="r+")
    pixels[2] = 0
    pixels.flush()
    del pixels
    decoded.clear()
    build(tiny(films)).verify()
    assert decoded == [2]


def test_a_truncated_array_is_started_afresh(films, build, decoded):
    cache = build(tiny(films))
    part = cache.folder.with_name(f"{cache.folder.name}.part")
    part.mkdir()
    (part / "images.npy").write_bytes(b"\x93NUMPY")
    shutil.rmtree(cache.folder)
    decoded.clear()
    build(tiny(films)).verify()
    assert len(decoded) == 4


def test_damage_is_found(films, build):
    cache = build(tiny(films))
    pixels = np.lib.format.open_memmap(cache.folder / "images.npy", mode="r+")
    pixels[1, 0, 0] ^= 1
    pixels.flush()
    with pytest.raises(DatasetError, match="image 1"):
        cache.verify()
    np.save(cache.folder / "images.npy", np.zeros((4, 3, 3), np.uint8))
    with pytest.raises(DatasetError, match="instead of"):
        build(tiny(films))


def test_an_unreadable_image_stops_or_is_left_out(films, build):
    (films / "c.png").write_bytes(b"no image")
    with pytest.raises(ImageReadError, match=r"c\.png"):
        build(tiny(films))
    cache = build(tiny(films), skip_unreadable=True)
    assert list(cache.unreadable) == [2]
    assert len(cache) == 3
    assert [cache[i][1].tolist()[0] for i in (0, 1)] == [1.0, 0.0]
    np.testing.assert_array_equal(cache.groups, [0, 0, 2])
    again = build(tiny(films), skip_unreadable=True)
    assert again.unreadable == cache.unreadable
    with pytest.raises(DatasetError, match="1 images cannot be read"):
        build(tiny(films))
    assert "c.png" in json.loads((cache.folder / "index.json").read_text())["unreadable"]["2"]


def test_two_processes_give_the_same_array(films, tmp_path):
    before = torch.get_rng_state()
    one, two = (
        ImageCache.build(tiny(films), SIZE, folder=tmp_path / str(n), workers=n) for n in (0, 2)
    )
    assert (one.folder / "images.npy").read_bytes() == (two.folder / "images.npy").read_bytes()
    assert torch.equal(torch.get_rng_state(), before)


def test_transforms_are_refused(films, build):
    dataset = tiny(films, kwargs={"transform": XRayCenterCrop()})
    with pytest.raises(DatasetError, match="leave both out"):
        build(dataset)


def test_a_subset_shares_the_array_and_has_its_own_fingerprint(films, build):
    cache = build(tiny(films))
    part = cache.subset(cache.groups == 0)
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

"""A checkpoint is parsed once; its copy is used as long as it is what was written."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from torchxrayvision.checkpoints import cache as store
from torchxrayvision.checkpoints.cache import load_checkpoint, load_tensors
from torchxrayvision.checkpoints.read import read_safetensors, read_tensors, save_safetensors
from torchxrayvision.checkpoints.values import Unreadable
from torchxrayvision.errors import CheckpointError


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def source(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 4), nn.Linear(4, 4))
    net[3].weight = net[2].weight
    value = {
        "epoch": 3,
        "tasks": {"Edema": 0},
        "state_dict": net.state_dict(),
        "flags": torch.tensor([True, False]),
        "half": torch.ones(3).bfloat16(),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 4),
        "strided": torch.arange(6.0).reshape(2, 3).t(),
        "sparse": torch.eye(2).to_sparse(),
    }
    path = tmp_path / "net.pt"
    torch.save(value, path)
    return path


def copies(cache):
    return sorted((cache / "tensors").glob("*.safetensors"))


def count(monkeypatch, name):
    """Replace a function of the store by one that counts its calls."""
    calls, original = [], getattr(store, name)

    def counted(*args, **kwargs):
        if not isinstance(args[0], bytes):  # the hash of a name reads no file
            calls.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(store, name, counted)
    return calls


def count_hashes(monkeypatch):
    calls, original = [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *a: calls.append(a) or original(*a))
    return calls


def assert_equal(first, second):
    assert list(first) == list(second)
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype
        assert torch.equal(tensor, second[name]), name


def in_memory(tensors):
    """The same tensors, whatever becomes of their file."""
    return {name: tensor.clone() for name, tensor in tensors.items()}


def test_second_load_parses_and_hashes_nothing_and_is_equal(source, cache, monkeypatch):
    first = load_checkpoint(source, cache=cache)
    parses, hashes = count(monkeypatch, "read_tensors"), count_hashes(monkeypatch)
    second = load_checkpoint(source, cache=cache)
    assert (parses, hashes) == ([], [])
    assert_equal(first.tensors, second.tensors)
    for field in ("path", "container", "values", "skipped", "groups", "globals"):
        assert getattr(first, field) == getattr(second, field), field
    assert second.values == {"epoch": 3, "tasks": {"Edema": 0}}
    assert list(second.skipped) == ["sparse"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists what is mapped")
def test_the_first_load_maps_the_copy_too(tmp_path, cache):
    torch.save({"w": torch.ones(1 << 18)}, tmp_path / "net.pt")
    tensor = load_tensors(tmp_path / "net.pt", cache=cache)["w"]
    assert tensor.all()
    for line in Path("/proc/self/maps").read_text().splitlines():
        places, *_, name = line.split()
        first, stop = (int(place, 16) for place in places.split("-"))
        if first <= tensor.data_ptr() < stop:
            assert name == str(copies(cache)[0])
            return
    raise AssertionError(tensor.data_ptr())


def test_copy_is_named_after_the_hash_of_its_source(source, cache):
    load_tensors(source, cache=cache)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert [path.stem for path in copies(cache)] == [digest]


def test_default_cache_is_the_packages_own(source, tmp_path, monkeypatch):
    from torchxrayvision.remote import cache_dir

    load_tensors(source)
    assert len(copies(cache_dir())) == 1


def test_tied_tensors_stay_one_and_are_written_once(source, cache):
    for _ in range(2):
        tensors = load_tensors(source, cache=cache)
        assert tensors["state_dict.2.weight"] is tensors["state_dict.3.weight"]
    kept, _ = read_safetensors(copies(cache)[0])
    assert "state_dict.3.weight" not in kept


def test_changing_a_mapped_tensor_changes_no_file(source, cache):
    load_tensors(source, cache=cache)
    before = copies(cache)[0].read_bytes()
    mapped = load_tensors(source, cache=cache)
    mapped["state_dict.0.weight"].zero_()
    assert copies(cache)[0].read_bytes() == before
    assert load_tensors(source, cache=cache)["state_dict.0.weight"].any()


def test_copy_is_a_safetensors_file_for_others(source, cache):
    from safetensors.torch import load_file

    ours = load_tensors(source, cache=cache)
    theirs = load_file(copies(cache)[0])
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x55
    path.write_bytes(data)


DAMAGES = {
    "flipped in the data": lambda p: flip(p, -3),
    "flipped in the header": lambda p: flip(p, 40),
    "cut": lambda p: p.write_bytes(p.read_bytes()[:-10]),
    "longer": lambda p: p.write_bytes(p.read_bytes() + b"\0"),
    "empty": lambda p: p.write_bytes(b""),
    "gone": lambda p: p.unlink(),
    "of another": lambda p: write_other(p),
    "seal gone": lambda p: p.with_suffix(".json").unlink(),
    "seal no json": lambda p: p.with_suffix(".json").write_text("{"),
    "seal a list": lambda p: p.with_suffix(".json").write_text("[]"),
}


def write_other(path):
    save_safetensors(path, {"w": torch.ones(2)}, {"torchxrayvision": "{}"})


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_copy_is_detected_and_rebuilt(damage, source, cache, monkeypatch):
    expected = in_memory(load_tensors(source, cache=cache))
    damage(copies(cache)[0])
    parses = count(monkeypatch, "read_tensors")
    assert_equal(load_tensors(source, cache=cache), expected)
    assert len(parses) == 1
    assert_equal(load_tensors(source, cache=cache), expected)
    assert len(parses) == 1


def test_copy_sealed_under_another_source_is_rebuilt(source, cache, monkeypatch):
    """The header says whose copy it is, so that a renamed pair is not believed."""
    expected = load_tensors(source, cache=cache)
    other = source.with_name("other.pt")
    torch.save({"w": torch.zeros(3)}, other)
    load_tensors(other, cache=cache)
    kept = {path.stem: path for path in copies(cache)}
    mine = hashlib.sha256(source.read_bytes()).hexdigest()
    theirs = next(stem for stem in kept if stem != mine)
    for suffix in (".safetensors", ".json"):
        (cache / "tensors" / f"{theirs}{suffix}").replace(cache / "tensors" / f"{mine}{suffix}")
    assert_equal(load_tensors(source, cache=cache), expected)


def test_touched_copy_is_hashed_once_and_kept(source, cache, monkeypatch):
    load_tensors(source, cache=cache)
    os.utime(copies(cache)[0], ns=(1, 1))
    parses, hashes = count(monkeypatch, "read_tensors"), count_hashes(monkeypatch)
    load_tensors(source, cache=cache)
    load_tensors(source, cache=cache)
    assert parses == []
    assert len(hashes) == 1


def test_changed_source_is_read_again(source, cache):
    load_tensors(source, cache=cache)
    torch.save({"w": torch.ones(2)}, source)
    assert list(load_tensors(source, cache=cache)) == ["w"]
    assert len(copies(cache)) == 2


def test_source_replaced_with_same_size_and_time_is_read_again(tmp_path, cache):
    path, other = tmp_path / "a.pt", tmp_path / "b.pt"
    torch.save({"w": torch.zeros(4)}, path)
    torch.save({"w": torch.ones(4)}, other)
    other.write_bytes(other.read_bytes().ljust(path.stat().st_size))
    load_tensors(path, cache=cache)
    stamp = path.stat()
    os.utime(other, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    other.replace(path)
    assert load_tensors(path, cache=cache)["w"].tolist() == [1, 1, 1, 1]


def test_same_bytes_elsewhere_use_the_same_copy(source, cache, monkeypatch):
    load_tensors(source, cache=cache)
    twin = source.with_name("twin.pt")
    twin.write_bytes(source.read_bytes())
    parses = count(monkeypatch, "read_tensors")
    assert load_checkpoint(twin, cache=cache).path == str(twin)
    assert parses == []


LOAD = """
import sys
from torchxrayvision.checkpoints import load_tensors
print(load_tensors(sys.argv[1], cache=sys.argv[2])["w"].tolist())
"""


@pytest.mark.parametrize("swapped", ["source", "copy"])
def test_size_and_time_do_not_vouch_for_a_file_in_another_process(tmp_path, cache, swapped):
    source = tmp_path / "net.pt"
    torch.save({"w": torch.zeros(4)}, source)
    load_tensors(source, cache=cache)
    path = source if swapped == "source" else copies(cache)[0]
    before = path.stat()
    (tmp_path / "other").mkdir()
    torch.save({"w": torch.ones(4)}, tmp_path / "other" / "net.pt")
    data = path.read_bytes()
    changed = (
        (tmp_path / "other" / "net.pt").read_bytes()
        if swapped == "source"
        else data[:-16] + torch.ones(4).numpy().tobytes()
    )
    assert len(changed) == len(data)
    path.write_bytes(changed)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(source), str(cache)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str([1.0 if swapped == "source" else 0.0] * 4)


@pytest.mark.skipif(os.name == "nt", reason="rights are another matter on Windows")
@pytest.mark.parametrize("how", ["writable by all", "of another user"])
def test_copies_that_others_may_have_put_there_are_not_used(source, cache, caplog, how):
    expected = in_memory(load_tensors(source, cache=cache))
    folder = cache / "tensors"
    if how == "writable by all":
        folder.chmod(0o777)
    elif os.geteuid() == 0:
        os.chown(folder, 12345, -1)
    else:
        pytest.skip("only root can give a folder away")
    # Copy and seal of other tensors, which fit each other.
    write_other(copies(cache)[0])
    sealed = hashlib.sha256(copies(cache)[0].read_bytes()).hexdigest()
    copies(cache)[0].with_suffix(".json").write_text(json.dumps({"sha256": sealed}))
    with caplog.at_level(logging.WARNING, logger="torchxrayvision"):
        assert_equal(load_tensors(source, cache=cache), expected)
    assert "belongs to others" in caplog.text


@pytest.mark.skipif(os.name == "nt", reason="rights are another matter on Windows")
def test_the_folder_of_the_copies_is_private(source, cache):
    load_tensors(source, cache=cache)
    assert [path.stat().st_mode & 0o777 for path in (cache, cache / "tensors")] == [0o700] * 2


def test_unwritable_cache_only_means_no_copy(source, tmp_path, caplog):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    expected = read_tensors(source).tensors
    with caplog.at_level(logging.WARNING, logger="torchxrayvision"):
        assert_equal(load_tensors(source, cache=blocked), expected)
    assert "no copy" in caplog.text
    assert blocked.read_text().startswith("a file")


def test_full_disk_leaves_no_partial_copy(source, cache, monkeypatch, caplog):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with caplog.at_level(logging.WARNING, logger="torchxrayvision"):
        assert load_tensors(source, cache=cache)
    assert "No space left" in caplog.text
    assert [p for p in (cache / "tensors").iterdir() if p.is_file()] == []


def test_abandoned_partial_copies_are_swept(source, cache):
    folder = cache / "tensors"
    folder.mkdir(parents=True)
    old, new = folder / ".x.old.part", folder / ".x.new.part"
    for part in (old, new):
        part.write_bytes(b"x")
    long_ago = time.time() - 3 * 24 * 3600
    os.utime(old, (long_ago, long_ago))
    load_tensors(source, cache=cache)
    assert (old.exists(), new.exists()) == (False, True)


def test_dtype_that_safetensors_lacks_means_no_copy(tmp_path, cache):
    path = tmp_path / "c.pt"
    torch.save({"w": torch.ones(2, dtype=torch.complex128)}, path)
    for _ in range(2):
        assert load_tensors(path, cache=cache)["w"].dtype is torch.complex128
    assert copies(cache) == []


def test_safetensors_source_needs_no_copy(tmp_path, cache):
    from safetensors.torch import save_file

    save_file({"w": torch.ones(2)}, tmp_path / "s.safetensors")
    assert list(load_tensors(tmp_path / "s.safetensors", cache=cache)) == ["w"]
    assert not cache.exists()


@pytest.mark.parametrize("make", ["missing", "folder", "empty", "text"])
def test_bad_source_is_a_checkpoint_error_and_leaves_no_copy(make, tmp_path, cache):
    path = tmp_path / "x.pt"
    {"missing": lambda: None, "folder": path.mkdir, "empty": path.touch,
     "text": lambda: path.write_text("weights")}[make]()  # fmt: skip
    with pytest.raises(CheckpointError, match=r"x\.pt"):
        load_tensors(path, cache=cache)
    assert copies(cache) == []


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool,
     torch.uint16, torch.complex64, torch.float8_e4m3fn],
    ids=str,
)  # fmt: skip
def test_safetensors_writer_and_reader_agree(dtype, tmp_path):
    tensors = {
        "a": torch.tensor([1, 0, 1]).to(dtype),  # an odd number of bytes before the next
        "b": torch.tensor([[1, 0], [0, 1]]).to(dtype),
        "c": torch.tensor(1).to(dtype),
        "d": torch.empty(0, 2, dtype=dtype),
    }
    path = tmp_path / "t.safetensors"
    save_safetensors(path, tensors, {"k": "v"})
    found, metadata = read_safetensors(path)
    assert metadata == {"k": "v"}
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == dtype
        assert found[name].shape == tensor.shape
        ours, theirs = (t.reshape(-1).view(torch.uint8) for t in (found[name], tensor))
        assert torch.equal(ours, theirs)


def test_a_header_that_nobody_would_read_is_not_written(tmp_path):
    path = tmp_path / "t.safetensors"
    with pytest.raises(Unreadable, match="header"):
        save_safetensors(path, {"w": torch.ones(2)}, {"k": "v" * (17 << 20)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="rights are another matter on Windows")
def test_a_written_file_has_the_rights_of_any_new_file(tmp_path):
    save_safetensors(tmp_path / "t.safetensors", {"w": torch.ones(2)}, {})
    (tmp_path / "other").touch()
    rights = [p.stat().st_mode for p in tmp_path.iterdir()]
    assert rights[0] == rights[1]


def test_unaligned_safetensors_are_read(tmp_path):
    header = json.dumps(
        {"a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
         "b": {"dtype": "F64", "shape": [2], "data_offsets": [3, 19]}}
    ).encode()  # fmt: skip
    raw = torch.tensor([1.5, -2.5], dtype=torch.float64).numpy().tobytes()
    path = tmp_path / "u.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\1\2\3" + raw)
    found = read_tensors(path).tensors
    assert found["b"].tolist() == [1.5, -2.5]
    assert found["a"].tolist() == [1, 2, 3]

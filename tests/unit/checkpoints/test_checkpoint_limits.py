"""What is no checkpoint is refused by name, within limits, and keeps nothing alive."""

from __future__ import annotations

import collections
import os
import random
import struct
import subprocess
import sys

import pytest
import torch

from torchxrayvision.checkpoints.read import Checkpoint, Limits, read_tensors
from torchxrayvision.errors import CheckpointError

from . import hostile as asm
from .torch_files import CONTAINERS, network, save


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: None, "does not exist"),
        (lambda p: p.mkdir(), "a folder"),
        (lambda p: p.symlink_to(p.with_name("gone")), "does not exist"),
        (lambda p: p.symlink_to(p), "cannot be read"),
        (lambda p: p.write_bytes(b""), "empty"),
        (lambda p: os.mkfifo(p), "not a regular file"),
        (lambda p: p.write_bytes(b"<!DOCTYPE html><p>404"), "web page"),
        (lambda p: p.write_text("weights"), "no file of torch.save"),
        (lambda p: save({"epoch": 1}, p), "holds no tensors"),
    ],
    ids=["missing", "folder", "dangling", "loop", "empty", "fifo", "html", "text", "no tensors"],
)
def test_what_is_no_checkpoint_is_named_as_what_it_is(make, reason, tmp_path):
    path = tmp_path / "x.pt"
    make(path)
    with pytest.raises(CheckpointError, match=reason) as caught:
        read_tensors(str(path))
    assert str(caught.value).startswith(str(path))


def test_an_error_keeps_nothing_of_the_file_alive(tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(asm.legacy(asm.with_honest(b"h\x63")))
    with pytest.raises(CheckpointError) as caught:
        read_tensors(path)
    assert caught.value.__cause__.__traceback__ is None
    assert caught.value.__cause__.__context__ is None


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(file_bytes=100), "bytes; the limit is 100"),
        (Limits(pickle_bytes=50), "bytes"),
        (Limits(text_bytes=3), "string"),
        (Limits(operations=40), "more than 40"),
        (Limits(depth=1), "nested deeper than 1"),
        (Limits(tensors=1), "more than 1"),
        (Limits(members=2), "members"),
    ],
    ids=lambda value: (
        next((k for k, v in vars(value).items() if v != getattr(Limits(), k)), "")
        if isinstance(value, Limits)
        else ""
    ),
)
def test_each_limit_is_kept(limits, reason, tmp_path):
    path = save({"net": network().state_dict()}, tmp_path / "l.pt")
    with pytest.raises(CheckpointError, match=reason):
        read_tensors(path, limits=limits)


def test_copies_count_against_their_limit(tmp_path):
    path = save({"a": torch.ones(1, 1000).expand(1000, 1000)}, tmp_path / "e.pt")
    assert read_tensors(path).tensors["a"].shape == (1000, 1000)
    with pytest.raises(CheckpointError, match="unfold to 4000000 bytes"):
        read_tensors(path, limits=Limits(copied_bytes=1 << 20))


def honest_files():
    yield "legacy", asm.legacy(asm.with_honest(b"N"))
    yield "zip", asm.zipped(asm.with_honest(b"N"))
    yield "script", asm.scripted(asm.with_honest(b"N"))


@pytest.mark.parametrize(("container", "good"), [*honest_files()], ids=[*CONTAINERS, "script"])
def test_flipped_bytes_and_cuts_give_tensors_or_a_checkpoint_error(container, good, tmp_path):
    chance, path = random.Random(0), tmp_path / "f.pt"
    outcomes = collections.Counter()
    for _ in range(400):
        data = bytearray(good)
        for _ in range(chance.choice((1, 1, 2, 8))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        path.write_bytes(data)
        try:
            outcomes[type(read_tensors(path))] += 1
        except CheckpointError:
            outcomes[CheckpointError] += 1
    assert outcomes[CheckpointError] > 100
    assert set(outcomes) <= {CheckpointError, Checkpoint}


def test_importing_the_reader_does_not_import_torch_or_pickle_machinery():
    code = (
        "import sys\n"
        "import torchxrayvision.checkpoints.read, torchxrayvision.checkpoints.cache\n"
        "print([m for m in ('torch', 'numpy', 'pickletools') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_numel_of_a_legacy_storage_is_checked_before_memory_is_taken(tmp_path):
    stream = asm.proto() + asm.dict_of(("w", asm.tensor(source=asm.storage(numel=1 << 40)))) + b"."
    data = asm.legacy(stream, storages=(("0", 1 << 40, struct.pack("<f", 1.0)),))
    (tmp_path / "n.pt").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"declares 4398046511104 bytes where 4 are left"):
        read_tensors(tmp_path / "n.pt")

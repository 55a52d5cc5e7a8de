"""Weights that are in a file leave the memory, and are there again when somebody asks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from torchxrayvision.checkpoints import load_tensors
from torchxrayvision.inference.engines import pages
from torchxrayvision.inference.engines.pages import drop_clean_pages

SIDE = 1024  # of a weight, so that it takes 4 MB
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists mappings")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(pages, "_WORTH", 0)


@pytest.fixture
def values():
    return torch.rand(SIDE, SIDE)


@pytest.fixture
def mapped(tmp_path, values):
    """A network whose tensors are mapped from a file."""
    save_file({"weight": values, "bias": torch.ones(SIDE)}, tmp_path / "net.safetensors")
    with torch.device("meta"):
        network = nn.Linear(SIDE, SIDE)
    network.load_state_dict(load_tensors(tmp_path / "net.safetensors"), assign=True)
    return network


def resident(tensor):
    """Bytes of the mapping of a tensor that are in memory."""
    found = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, *words = line.split()
        if not name.endswith(":"):
            first, stop = (int(word, 16) for word in name.split("-"))
            found = first <= tensor.data_ptr() < stop
        elif found and name == "Rss:":
            return int(words[0]) * 1024
    raise AssertionError(tensor.data_ptr())


@linux
def test_pages_go_and_the_values_come_back(mapped, values):
    assert torch.equal(mapped.weight, values)
    place = mapped.weight.data_ptr()
    assert resident(mapped.weight) > mapped.weight.nbytes
    assert drop_clean_pages(mapped) > 0.99 * mapped.weight.nbytes
    assert resident(mapped.weight) < 0.1 * mapped.weight.nbytes
    assert mapped.weight.data_ptr() == place
    assert torch.equal(mapped.weight, values)


@linux
def test_what_somebody_wrote_stays(mapped, values):
    with torch.no_grad():
        mapped.weight[SIDE // 2, 7] = 5
    assert torch.equal(mapped.weight[0], values[0])
    assert drop_clean_pages(mapped) == 0
    assert mapped.weight[SIDE // 2, 7] == 5


@linux
def test_a_page_that_was_swapped_out_is_one_that_somebody_wrote():
    lines = [
        "7000-9000 rw-p 00000000 08:01 17 /a b.safetensors", "Anonymous: 0 kB", "Swap: 4 kB",
        "9000-b000 rw-p 00002000 08:01 17 /a b.safetensors", "Anonymous: 0 kB", "Swap: 0 kB",
        "b000-d000 rw-p 00000000 00:00 0 [heap]", "Anonymous: 0 kB", "Swap: 0 kB",
        "d000-f000 rw-p 00000000 00:00 0", "Anonymous: 0 kB", "Swap: 0 kB",
        "f000-10000 r--p 00000000 08:01 18 /c", "Anonymous: 4 kB", "Swap: 0 kB",
        "10000-12000 r--p 00000000 08:01 19 /d", "Anonymous: 0 kB", "Swap: 0 kB",
    ]  # fmt: skip
    assert list(pages._untouched(lines)) == [(0x9000, 0xB000), (0x10000, 0x12000)]


def test_a_network_that_is_in_no_file_stays(values):
    network = nn.Linear(SIDE, SIDE)
    with torch.no_grad():
        network.weight.copy_(values)
    assert drop_clean_pages(network) == 0
    assert torch.equal(network.weight, values)


def test_a_system_without_the_list_drops_nothing(mapped, values, monkeypatch, tmp_path):
    monkeypatch.setattr(pages, "_MAPPINGS", tmp_path / "none")
    assert drop_clean_pages(mapped) == 0
    assert torch.equal(mapped.weight, values)


def test_a_small_network_is_not_worth_it(mapped, monkeypatch):
    monkeypatch.setattr(pages, "_WORTH", 64 << 20)
    monkeypatch.setattr(pages, "_untouched", None)
    assert drop_clean_pages(mapped) == 0

"""Names of the network's own state are found in files of any maker."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torchxrayvision.checkpoints.read import (
    Checkpoint,
    pick,
    read_tensors,
    state_dict_of,
    strip_prefix,
)
from torchxrayvision.errors import CheckpointError

from .torch_files import assert_same, network, save


def of(*names, groups=(), skipped=None):
    tensors = {name: torch.zeros(1) for name in names}
    return Checkpoint(
        path="x.pt", tensors=tensors, container="zip", groups=groups, skipped=skipped or {}
    )


def test_strip_prefix_takes_the_first_that_all_names_have():
    tensors = of("model.a", "model.b").tensors
    assert list(strip_prefix(tensors)) == ["a", "b"]
    assert list(strip_prefix(of("module.model.a").tensors, "module.model.")) == ["a"]


@pytest.mark.parametrize("names", [("module.a", "b"), ("module.",), ()])
def test_strip_prefix_refuses_what_not_all_names_have(names):
    with pytest.raises(CheckpointError, match="not every name"):
        strip_prefix(of(*names).tensors, "module.")


def test_pick_names_what_there_is():
    with pytest.raises(CheckpointError, match=r"no tensors below 'net'.*'optimizer', 'state_dict'"):
        pick(of("state_dict.a", "optimizer.b").tensors, "net")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda net: net,
        lambda net: net.state_dict(),
        lambda net: {"state_dict": net.state_dict(), "optimizer": {"state": {0: torch.ones(1)}}},
        lambda net: {"model_state": {f"module.{k}": v for k, v in net.state_dict().items()}},
        lambda net: {"model": net, "epoch": 3},
        lambda net: {"checkpoint": {"model": {"state_dict": net.state_dict()}}},
        lambda net: {"unheard of": net.state_dict(), "epoch": 3},
        lambda net: nn.DataParallel(net),
    ],
    ids=["module", "bare", "lightning", "parallel state", "module in dict", "deep", "only", "dp"],
)
def test_state_dict_of_finds_the_network(wrap, tmp_path):
    net = network()
    checkpoint = read_tensors(save(wrap(net), tmp_path / "w.pt"))
    assert_same(state_dict_of(checkpoint), net.state_dict())


def test_state_dict_of_keeps_a_name_that_only_looks_like_a_wrapper(tmp_path):
    state = {"model.weight": torch.ones(1), "model.bias": torch.ones(1)}
    assert list(state_dict_of(read_tensors(save(state, tmp_path / "m.pt")))) == list(state)


def test_state_dict_of_does_not_choose_between_groups(tmp_path):
    value = {"generator": {"w": torch.ones(1)}, "critic": {"w": torch.ones(1)}}
    with pytest.raises(CheckpointError, match=r"'critic', 'generator'; choose one with pick"):
        state_dict_of(read_tensors(save(value, tmp_path / "g.pt")))

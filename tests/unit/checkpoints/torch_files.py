"""Files written by torch itself, and how to compare what is read from them."""

from __future__ import annotations

import torch
from torch import nn

CONTAINERS = ("legacy", "zip")


def save(value, path, container="zip", **kwargs):
    torch.save(value, path, _use_new_zipfile_serialization=container == "zip", **kwargs)
    return path


def same(ours, theirs):
    """Equal in dtype, shape and every bit."""
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        return False
    raw = theirs.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return torch.equal(ours.reshape(-1).view(torch.uint8), raw)


def assert_same(ours, theirs):
    assert list(ours) == list(theirs)
    assert [name for name in ours if not same(ours[name], theirs[name])] == []


class Block(nn.Module):
    """Parameters, buffers of both kinds, a missing bias, and attributes that are no state."""

    def __init__(self, width=4):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 2)
        self.register_buffer("mask", torch.ones(width, dtype=torch.bool))
        self.register_buffer("scratch", torch.zeros(7), persistent=False)
        self.register_buffer("absent", None)
        self.plain = torch.full((3,), 9.0)
        self.names = ["a", "b"]

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).mean((2, 3)))


def network():
    torch.manual_seed(0)
    block = Block()
    block.norm.running_mean.normal_()
    return block

"""Synthetic checkpoints in the containers that published weights use."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import torch

from support.synthetic import fill
from torchxrayvision.facts import RemoteFile
from torchxrayvision.models import DenseNet, ResNet
from torchxrayvision.weights import Weights, get


def synthetic(network: torch.nn.Module) -> torch.nn.Module:
    """The network with tensors from a seed, in evaluation mode."""
    values = fill({k: tuple(v.shape) for k, v in network.state_dict().items()})
    network.load_state_dict({k: torch.from_numpy(v) for k, v in values.items()})
    return network.eval()


def write(name: str, folder: Path) -> Path:
    """The file of published weights, with synthetic tensors, in the container of that release."""
    entry = get(name)
    target = folder / entry.file.filename
    if entry.architecture.startswith("resnet"):
        torch.save(synthetic(ResNet().model).state_dict(), target)
    else:
        # The releases are whole modules in the stream that torch wrote before 1.6.
        torch.save(synthetic(DenseNet()), target, _use_new_zipfile_serialization=False)
    return target


def published(name: str, folder: Path) -> Weights:
    """An entry like the published one whose file is the synthetic one in `folder`."""
    path = write(name, folder)
    content = path.read_bytes()
    file = RemoteFile(
        url=get(name).file.url,
        filename=path.name,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
    )
    return dataclasses.replace(get(name), file=file)

"""What code written for 1.5.7 takes from the modules of models, puts into them, or has pickled."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import torchxrayvision as xrv
from support.networks import synthetic
from torchxrayvision.baseline_models import chestx_det, mira
from torchxrayvision.errors import CheckpointError, UnpinnedDownloadWarning
from torchxrayvision.models import DenseNet


def small():
    net = synthetic(DenseNet(8, (1, 1, 1, 1), 8, num_classes=2)).eval()
    net.input_resolution = 64
    return net


def images(size=64):
    generator = torch.Generator().manual_seed(0)
    return torch.rand((1, 1, size, size), generator=generator) * 2048 - 1024


@pytest.mark.parametrize(
    ("module", "name", "size"),
    [
        ("utils", "fix_resolution", 80),
        ("utils", "warn_normalization", 64),
        ("models", "op_norm", 64),
    ],
)
def test_a_replaced_function_counts_until_it_is_put_back(monkeypatch, module, name, size):
    net, place, calls = small(), getattr(xrv, module), []
    net.op_threshs = torch.tensor([0.3, 0.4])
    before, original = net(images(size)), getattr(place, name)

    def replacement(*args):
        calls.append(args)
        return original(*args)

    with monkeypatch.context() as patched:
        patched.setattr(place, name, replacement)
        assert torch.equal(net(images(size)), before)
        assert len(calls) == 1
        assert name != "fix_resolution" or calls[0][1:] == (64, net)
    assert torch.equal(net(images(size)), before)
    assert len(calls) == 1


def test_a_replaced_download_and_cache_folder_count_and_no_file_is_taken_in_silence(
    monkeypatch, tmp_path
):
    asked = []

    def download(url, path):
        asked.append((url, path))
        Path(path).write_bytes(b"no weights")

    monkeypatch.setenv("XRV_OFFLINE", "1")
    monkeypatch.setattr(xrv.utils, "get_cache_dir", lambda: f"{tmp_path}/")
    monkeypatch.setattr(xrv.utils, "download", download)
    with pytest.warns(UnpinnedDownloadWarning), pytest.raises(CheckpointError, match="nih"):
        DenseNet(weights="nih")
    (asked_for,) = asked
    assert asked_for[0].startswith("https://")
    assert asked_for[1].startswith(str(tmp_path))
    with pytest.warns(UserWarning, match="transform="), monkeypatch.context() as patched:
        patched.setattr(xrv.datasets, "normalize", lambda *_: None)


def test_names_that_modules_carried_are_found_and_others_are_not():
    assert xrv.models.nn is nn
    assert xrv.utils.np is xrv.models.np
    assert xrv.models.utils is xrv.utils
    assert xrv.models.datasets is xrv.datasets
    assert xrv.datasets.xrv is xrv
    assert xrv.datasets.transforms.Compose  # torchvision's
    assert xrv.autoencoders._ResNetAE is xrv.autoencoders.ResNetAE
    assert not hasattr(xrv.models, "pd")
    assert chestx_det.pspnet(14).aux_cls.out_channels == 14
    assert mira.SexModel.targets == ["Male", "Female"]


def test_dense_layers_are_built_indexed_and_iterated():
    layer = xrv.models.DenseNet(num_classes=2).features.denseblock4.denselayer16
    assert [type(part).__name__ for part in layer][::3] == ["BatchNorm2d", "BatchNorm2d"]
    assert layer[-1] is layer.conv2
    assert len(xrv.models._DenseBlock(2, 64, 4, 32, 0)) == 2
    transition = xrv.models._Transition(64, 32)
    assert transition(torch.zeros(1, 64, 8, 8)).shape == (1, 32, 4, 4)
    assert not isinstance(transition, xrv.models._DenseBlock)


@pytest.mark.parametrize("compat", [None, "xrv-1.5"])
def test_a_seed_gives_the_head_of_157_on_request(compat, tmp_path):
    from support.networks import published

    entry = published("densenet121-res224-nih", tmp_path)
    torch.manual_seed(0)
    DenseNet(weights=None)  # draws as 1.5.7 does before the weights come
    expected = torch.rand(2)
    torch.manual_seed(0)
    untouched = torch.rand(2)
    torch.manual_seed(0)
    DenseNet(weights=entry, compat=compat, cache_dir=str(tmp_path))
    assert torch.equal(torch.rand(2), untouched if compat is None else expected)


def as_157_pickles(model, path, layers):
    """A whole file of a model with the attributes that 1.5.7 had, and layers of other classes."""
    state = dict(model.__dict__)
    kept = {"training", "_parameters", "_buffers", "_modules", "targets"}
    for name in [n for n in state if not n.startswith("_") and n not in kept]:
        del model.__dict__[name]
    for module in list(model.modules())[1:]:
        if (old := layers.get(type(module).__name__)) is not None:
            module.__class__ = old
    torch.save(model, path)


def test_whole_networks_of_other_layers_are_built_anew(tmp_path):
    stand_ins = sys.modules["torchxrayvision.baseline_models.chestx_det.ptsemseg.pspnet"]
    model = synthetic(chestx_det.PSPNet(weights=False)).eval()
    model.input_resolution = 64
    expected = model(images())
    # As 1.5.7 names them: classes that this package has not, found where its modules were.
    old = type("pspnet2", (nn.Module,), {"__module__": stand_ins.__name__})
    stand_ins.pspnet2 = old
    try:
        as_157_pickles(model, tmp_path / "whole.pt", {"PyramidNet": old})
    finally:
        del stand_ins.pspnet2
    again = torch.load(tmp_path / "whole.pt", weights_only=False)
    assert type(again.model).__name__ == "PyramidNet"
    assert again.input_resolution == 512
    again.input_resolution = 64
    assert torch.equal(again(images()), expected)
    assert all(again.trained)


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        if index > 2:
            raise IndexError(index)
        return {"img": torch.full((1, 4, 4), float(index))}


class Large(nn.Module):
    def forward(self, x):
        return torch.full((len(x), 1), 2**24 + 1)


@pytest.mark.parametrize(
    ("model", "dtype", "last"),
    [
        (Large(), "int64", 2**24 + 1),
        (lambda x: x.double().mean((2, 3)), "float64", 2),
        (lambda x: x.bfloat16().mean((2, 3)), "float32", 2),
    ],
)
def test_infer_keeps_types_and_takes_functions(model, dtype, last):
    found = xrv.utils.infer(model, Images(), threads=0)
    assert (found.dtype, found.shape, found[-1, 0]) == (dtype, (3, 1), last)


def test_fix_resolution_takes_colours_single_images_and_networks_of_any_size():
    assert xrv.utils.fix_resolution(torch.rand(1, 3, 50, 50), 20).shape == (1, 3, 20, 20)
    assert xrv.utils.fix_resolution(torch.rand(3, 50, 50), 20).shape == (1, 3, 20, 20)
    assert xrv.utils.fix_resolution(torch.rand(1, 1, 50, 50), None).shape == (1, 1, 50, 50)
    with pytest.raises(ValueError, match="XRayCenterCrop"):
        xrv.utils.fix_resolution(torch.rand(1, 1, 50, 60), 20)


def test_a_plane_is_an_image_for_networks_of_three_channels():
    plane, model = images(224)[0, 0], mira.SexModel(weights=False).eval()
    assert torch.equal(model(plane), model(plane[None, None]))

"""What code written for 1.5.7 does with a model, besides calling it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from support.networks import published, synthetic
from torchxrayvision import models
from torchxrayvision.errors import ImageShapeError
from torchxrayvision.labels import DEFAULT_PATHOLOGIES
from torchxrayvision.models import DenseNet, ResNet
from torchxrayvision.models.densenet import Layer


def small(**options):
    """A DenseNet of few layers, in evaluation mode, with weights that are no chance."""
    return synthetic(DenseNet(8, (1, 1, 1, 1), 8, num_classes=3, **options)).eval()


def images(channels=1, count=2):
    generator = torch.Generator().manual_seed(0)
    return torch.rand((count, channels, 64, 64), generator=generator) * 2048 - 1024


def test_three_channels_go_into_networks_that_take_three():
    assert small(in_channels=3)(images(3)).shape == (2, 3)
    grown = small()
    grown.features.conv0 = nn.Conv2d(3, 8, 7, 2, 3, bias=False)
    assert grown(images(3)).shape == (2, 3)
    residual = ResNet(num_classes=2, architecture="resnet18-width8").eval()
    residual.model.conv1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False)
    assert residual(images(3)).shape == (2, 2)
    with pytest.raises(ImageShapeError, match="takes 3 channels"):
        grown(images(1))
    with pytest.raises(ImageShapeError, match="one grey channel"):
        small()(images(3))


def test_one_image_is_a_batch_of_one():
    model = small()
    torch.testing.assert_close(model(images()[0]), model(images())[:1])
    with pytest.raises(ImageShapeError, match=r"x\[None\]"):
        model(images(4)[0])


class Halved(DenseNet):
    def features2(self, x):
        return super().features2(x) / 2


def test_features_that_are_replaced_reach_the_outputs(monkeypatch):
    model = small()
    model.input_resolution = 32  # the replacement meets a prepared image
    expected = model.classifier(model.embed(images()) / 2)
    original = model.features2
    model.features2 = lambda x: original(x) / 2
    torch.testing.assert_close(model(images()), expected)
    del model.features2
    assert not torch.allclose(model(images()), expected)
    model.__class__ = Halved
    torch.testing.assert_close(model(images()), expected)
    model.__class__ = DenseNet
    whole = DenseNet.features2
    monkeypatch.setattr(DenseNet, "features2", lambda self, x: whole(self, x) / 2)
    torch.testing.assert_close(model(images()), expected)


def test_names_of_the_class_and_sizes_of_the_usual_network():
    assert DenseNet.targets == ResNet.targets == list(DEFAULT_PATHOLOGIES)
    assert models.get_densenet_params("densenet") == models.get_densenet_params("densenet121")


def test_what_is_deleted_is_as_if_it_had_not_been_set():
    model = small(op_threshs=[0.2, 0.3, 0.4], apply_sigmoid=True)
    del model.op_threshs
    torch.testing.assert_close(model(images()), model(images(), output="probability"))
    assert model.trained == (False, False, False)
    del model.apply_sigmoid
    torch.testing.assert_close(model(images()), model(images(), output="logit"))


def test_weights_keep_their_number_of_outputs(tmp_path):
    entry = published("densenet121-res224-nih", tmp_path)
    with pytest.raises(ValueError, match=r"18 outputs, num_classes=14.*reset_classifier\(14\)"):
        DenseNet(weights=entry, num_classes=14)


class _OldBlock(nn.Sequential):
    pass


class _OldLayer(nn.Sequential):
    pass


def test_whole_modules_of_1_5_7_are_found_by_torch_load(tmp_path, monkeypatch):
    model = small()
    expected = model(images())
    for name in ("input_resolution", "resize_route", "weights", "weights_filename_local",
                 "output", "apply_sigmoid"):  # fmt: skip
        model.__dict__.pop(name, None)  # nobody had them then
    for module in model.modules():
        if isinstance(module, Layer):
            module.__class__ = _OldLayer
        elif type(module) is nn.Sequential and "denselayer1" in module._modules:
            module.__class__ = _OldBlock
    with monkeypatch.context() as patched:
        for old, name in ((_OldBlock, "_DenseBlock"), (_OldLayer, "_DenseLayer")):
            old.__module__, old.__qualname__ = "torchxrayvision.models", name
            patched.setattr(models, name, old)
        torch.save(model, tmp_path / "whole.pt")
    again = torch.load(tmp_path / "whole.pt", weights_only=False)
    torch.testing.assert_close(again(images()), expected)

"""Maps are laid over images where the layers looked."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from torchxrayvision import explain
from torchxrayvision.explain.layers import Axis, captured, located
from torchxrayvision.explain.model import score
from torchxrayvision.models import DenseNet, ResNet, get_model

SIDE = 224
WIDE = 608  # the last layer of a ResNet-18 looks at 435 pixels
# What sees the image as it is: the small ResNets bring it to mean 0 first.
NETWORKS = [
    (lambda: ResNet(architecture="resnet18-width8").model, "layer4", Axis(0, 32)),
    (lambda: ResNet(architecture="resnet18-width8").model, "layer2", Axis(0, 8)),
    (lambda: DenseNet(8, (1, 1, 1, 1), 8).features, "norm5", Axis(14, 32)),
]


def blurring(network):
    """The network with windows that weigh all pixels alike, so that a gradient has their middle."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
    return network.eval()


@pytest.mark.parametrize(("build", "path", "axis"), NETWORKS)
def test_a_position_lies_in_the_middle_of_what_it_looks_at(build, path, axis):
    network = blurring(build())
    # Positive, so that no rectification is in the way of the gradient.
    seen = torch.rand(1, 1, WIDE, WIDE, generator=torch.Generator().manual_seed(0)) * 1000
    seen.requires_grad_()
    held = []
    hook = network.get_submodule(path).register_forward_hook(lambda *given: held.append(given[2]))
    with located(network) as positions:
        network(seen)
    hook.remove()
    cells = held[0].shape[-2:]
    down, across = positions.axes(tuple(cells), (WIDE, WIDE))
    assert down == across == axis
    middle = cells[0] // 2
    (slope,) = torch.autograd.grad(held[0][0, :, middle, middle].sum(), seen)
    share = slope[0, 0].abs() / slope.abs().sum()
    pixels = torch.arange(WIDE, dtype=torch.float32)
    for along in (share.sum(1), share.sum(0)):
        assert (along @ pixels).item() == pytest.approx(axis.start + middle * axis.step, abs=2)


def test_images_that_the_network_resizes_keep_their_own_pixels():
    network = ResNet(architecture="resnet18-width8", num_classes=2).eval()
    network.input_resolution = 64
    with located(network) as positions, torch.no_grad():
        network(torch.zeros(1, 1, 128, 128))
    # Two pixels became one, so pixel 0 of the network lies between pixels 0 and 1.
    assert positions.axes((2, 2), (128, 128)) == (Axis(0.5, 64), Axis(0.5, 64))


def test_maps_of_a_size_that_no_window_gave_have_equal_cells():
    with located(nn.Identity()) as positions:
        pass
    assert positions.axes((4, 2), (32, 32)) == (Axis(3.5, 8), Axis(7.5, 16))
    heat = torch.rand(2, 4, 4)
    usual = nn.functional.interpolate(heat[:, None], (32, 32), mode="bilinear")[:, 0]
    torch.testing.assert_close(positions.enlarged(heat, (32, 32)), usual)


@pytest.mark.parametrize("padding", ["same", "valid", 0, (1, 2)])
def test_paddings_by_name_and_by_number(padding):
    network = nn.Sequential(nn.Conv2d(1, 1, 5, padding=padding), nn.AvgPool2d(2))
    with located(network) as positions:
        cells = network(torch.zeros(1, 1, 33, 33)).shape[-2:]
    pads = {"same": (2, 2), "valid": (0, 0), 0: (0, 0), (1, 2): (1, 2)}[padding]
    starts = [2 - pad + 0.5 for pad in pads]
    assert positions.axes(tuple(cells), (33, 33)) == tuple(Axis(start, 2) for start in starts)


def test_a_point_is_enlarged_to_where_it_lies():
    network = ResNet(architecture="resnet18-width8", num_classes=2).eval()
    layer = explain.CamLayer("model.layer4")
    with located(network) as positions, captured(network, layer), torch.no_grad():
        score(network, torch.zeros(1, 1, SIDE, SIDE), 0)
    heat = torch.zeros(1, 7, 7)
    heat[0, 2, 5] = 1
    large = positions.enlarged(heat, (SIDE, SIDE))[0]
    assert divmod(int(large.argmax()), SIDE) == (64, 160)
    assert large[64, 160] == pytest.approx(1)
    assert large[80, 160] == pytest.approx(0.5, abs=1e-5)


@pytest.mark.filterwarnings("ignore::torchxrayvision.errors.DemonstrationWarning")
def test_networks_that_were_taught_by_cells_have_cells():
    assert not explain.cam_layer(ResNet(architecture="resnet18-width8")).cells
    model = get_model("demo").eval()
    layer = explain.cam_layer(model)
    assert layer.cells
    x = torch.rand(1, 1, 288, 288, generator=torch.Generator().manual_seed(0)) * 2048 - 1024
    heat = explain.class_activation_map(model, x, "Mass", upsample=False)
    usual = nn.functional.interpolate(heat[:, None], (288, 288), mode="bilinear")[:, 0]
    found = explain.class_activation_map(model, x, "Mass")
    torch.testing.assert_close(found, usual, atol=1e-4, rtol=1e-4)
    windows = explain.class_activation_map(model, x, "Mass", layer=replace(layer, cells=False))
    assert not torch.allclose(windows, usual, atol=1e-2)

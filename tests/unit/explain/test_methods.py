"""Every method finds the evidence of networks in which it is known, and leaves no trace."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import nn

from support.evidence import EVIDENCE, LAYER, SIDE, Planted, image, mask
from torchxrayvision import explain
from torchxrayvision.errors import (
    DependencyError,
    ExplanationError,
    ImageShapeError,
    UnknownNameError,
)
from torchxrayvision.explain.layers import located
from torchxrayvision.models import DenseNet, ResNet

# Rollout follows the attention of transformers: see tests/unit/explain/test_transformers.py.
METHODS = tuple(name for name in explain.METHODS if name != "rollout")
CAMS = ("cam", "gradcam", "gradcam++")


def heat_of(method, model, x, target, **options):
    if method in CAMS:
        options["layer"] = LAYER
    # Single pixels of a gradient are equal or noisy; what counts is the region.
    smooth = 0.05 if method in ("gradients", "ig") else 0.0
    return explain.attribute(model, x, target, method, smooth=smooth, **options)


@pytest.fixture
def small():
    """A DenseNet with random weights that maps 64 x 64 pixels to 2 x 2 positions."""
    torch.manual_seed(1)
    return DenseNet(8, (1, 1, 1, 1), 8, num_classes=3).eval()


@pytest.fixture
def films():
    generator = torch.Generator().manual_seed(2)
    return torch.rand(2, 1, 64, 64, generator=generator) * 2048 - 1024


@pytest.mark.parametrize("target", EVIDENCE)
@pytest.mark.parametrize("method", METHODS)
def test_the_strongest_evidence_is_where_it_was_planted(method, target):
    heat = heat_of(method, Planted(), image(), target)
    assert heat.shape == (1, SIDE, SIDE)
    assert heat.dtype == torch.float32
    region = mask(target)
    assert region[heat[0] == heat.max()].all()
    share = heat.clamp(min=0)[0, region].sum() / heat.clamp(min=0).sum()
    assert share > 0.5


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_is_its_images_one_by_one(method):
    x = torch.cat([image(), image().flip(3)])
    model = Planted()
    both = heat_of(method, model, x, "bright")
    each = torch.cat([heat_of(method, model, one[None], "bright") for one in x])
    torch.testing.assert_close(both, each, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_points_where_float32_does(method):
    heat = heat_of(method, Planted().bfloat16(), image().bfloat16(), "dark")
    assert heat.dtype == torch.float32
    assert mask("dark")[heat[0] == heat.max()].all()


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_left_behind(method, around, small, films):
    small.train()
    small.features.denseblock1.eval()
    small.classifier.weight.requires_grad_(False)
    films.requires_grad_()
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    modes = [module.training for module in small.modules()]
    wanted = [parameter.requires_grad for parameter in small.parameters()]
    random = torch.get_rng_state()
    with around():
        explain.attribute(small, films, 0, method)
    assert [module.training for module in small.modules()] == modes
    assert [parameter.requires_grad for parameter in small.parameters()] == wanted
    assert all(parameter.grad is None for parameter in small.parameters())
    assert films.grad is None
    for module in small.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
    assert torch.equal(random, torch.get_rng_state())
    for name, tensor in small.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_hooks_go_when_the_network_fails():
    model = Planted()
    with pytest.raises(RuntimeError):
        explain.grad_cam(model, torch.zeros(1, 2, SIDE, SIDE), "bright", layer=LAYER)
    assert not model.features._forward_hooks


def test_activation_map_shares_the_logit_out(small, films):
    small.op_threshs = torch.tensor([0.1, 0.5, 0.9])  # the default output is no logit then
    for target in range(3):
        heat = explain.class_activation_map(small, films, target, upsample=False)
        logits = heat.mean((1, 2)) + small.classifier.bias[target]
        expected = small(films, output="logit")[:, target]
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("build", [lambda: DenseNet(8, (1, 1, 1, 1), 8, num_classes=3), ResNet])
def test_grad_cam_is_the_positive_part_of_the_activation_map(build, films):
    torch.manual_seed(0)
    model = build().eval()
    model.head.weight.data.abs_()
    exact = explain.class_activation_map(model, films, 1, upsample=False)
    positive = (exact / exact[0].numel()).relu()
    with located(model) as positions, torch.no_grad():
        model(films)
    expected = positions.enlarged(positive, (64, 64))
    found = explain.grad_cam(model, films, 1, layer=explain.cam_layer(model))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)
    assert found.any()


def test_gradients_reach_positions_that_the_rectification_cut(small, films):
    """At a map of zeros, too, the logit rises with the weight of the channel."""
    small.features.norm5.bias.data.fill_(-1e3)
    small.features.norm5.weight.data.fill_(0)
    small.classifier.weight.data.fill_(2.0)
    from torchxrayvision.explain.cam import _maps_and_gradients

    maps, gradients, _ = _maps_and_gradients(small, films, 0, None)
    assert maps.max() < 1e-30
    torch.testing.assert_close(gradients, torch.full_like(gradients, 2 / maps[0, 0].numel()))


def test_grad_cam_agrees_with_captum(films):
    from captum.attr import LayerGradCam

    torch.manual_seed(0)
    model = ResNet(num_classes=2).eval()
    model.head.weight.data.abs_()
    theirs = LayerGradCam(model, model.model.layer4).attribute(
        films, target=1, relu_attributions=True
    )
    with located(model) as positions, torch.no_grad():
        model(films)
    theirs = positions.enlarged(theirs[:, 0].detach(), (64, 64))
    assert theirs.any()
    ours = explain.grad_cam(model, films, 1, layer=explain.cam_layer(model))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.max()))


class _Squares(nn.Module):
    """Two maps of 2 x 2 and a logit that is no linear function of them."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Identity()
        self.factors = torch.tensor([1.5, -0.5])

    def forward(self, x):
        maps = self.features(x)
        return ((maps**2).sum((2, 3)) * self.factors).sum(1, keepdim=True)


def test_plus_plus_weights_are_those_of_the_formula():
    maps = np.array([[[0.2, 1.0], [0.0, 0.5]], [[1.0, 0.1], [0.3, 0.0]]])
    gradients = 2 * maps * np.array([1.5, -0.5])[:, None, None]
    weights = np.zeros(2)
    for k in range(2):
        for i in range(2):
            for j in range(2):
                g = gradients[k, i, j]
                below = 2 * g**2 + maps[k].sum() * g**3
                alpha = g**2 / below if below else 0.0
                weights[k] += alpha * max(g, 0.0)
    expected = np.maximum((weights[:, None, None] * maps).sum(0), 0)
    found = explain.grad_cam_plus_plus(
        _Squares(), torch.tensor(maps[None], dtype=torch.float32), 0,
        layer=explain.CamLayer("features"),
    )  # fmt: skip
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("baseline", ["blur", "mirror", 0.0, -1024.0, "tensor"])
def test_integrated_gradients_add_up_to_the_difference(baseline):
    model, x = Planted(), image(2)
    given = torch.full_like(x, 100.0) if baseline == "tensor" else baseline
    heat = explain.integrated_gradients(model, x, "bright", baseline=given, steps=64)
    empty = {"blur": explain.blurred(x, SIDE / 8), "mirror": x.flip(3)}.get(baseline)
    if empty is None:
        empty = torch.zeros_like(x) + given
    with torch.no_grad():
        difference = (model(x) - model(empty))[:, 0]
    torch.testing.assert_close(heat.sum((1, 2)), difference, rtol=0.01, atol=0.01)


def test_input_gradients_are_the_slope():
    model, x = Planted(), image()
    signed = explain.input_gradients(model, x, "dark", signed=True)
    step = torch.zeros_like(x)
    step[..., 12, 44] = 1.0
    with torch.no_grad():
        rise = (model(x + step) - model(x))[0, 1].item()
    assert signed[0, 12, 44].item() == pytest.approx(rise, rel=0.05)
    assert rise < 0
    torch.testing.assert_close(explain.input_gradients(model, x, "dark"), signed.abs())


def test_occlusion_is_the_fall_of_the_logit():
    model, x = Planted(), image()
    heat = explain.occlusion(model, x, "bright", window=16, stride=16, baseline=0.0)
    covered = x.clone()
    covered[:, :, 48:64, 0:16] = 0.0
    with torch.no_grad():
        fall = (model(x) - model(covered))[0, 0]
    torch.testing.assert_close(heat[0, 48:64, 0:16], fall.expand(16, 16))


def test_small_images_are_occluded_by_single_pixels():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 1, bias=False))
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    heat = explain.occlusion(model, x, 0, baseline=0.0)
    torch.testing.assert_close(heat.flatten(), model[1].weight[0].detach() * x.flatten())


@pytest.mark.parametrize("method", ["ig", "occlusion"])
def test_without_captum_the_extra_is_named(method, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(DependencyError, match='pip install "captum'):
        explain.attribute(Planted(), image(), "bright", method)


@pytest.mark.parametrize("method", ["cam", "gradcam", "gradcam++", "gradients"])
def test_other_methods_do_without_captum(method, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    assert heat_of(method, Planted(), image(), "bright").any()


def test_wrong_requests_are_refused(small, films):
    with pytest.raises(UnknownNameError, match="did you mean 'gradcam'"):
        explain.attribute(small, films, 0, "gradcan")
    with pytest.raises(UnknownNameError, match="bright, dark, corner"):
        explain.grad_cam(Planted(), image(), "mass", layer=LAYER)
    with pytest.raises(UnknownNameError, match="unknown target 3"):
        explain.grad_cam(small, films, 3)
    with pytest.raises(UnknownNameError, match="unknown target -1"):
        explain.grad_cam(small, films, -1)
    with pytest.raises(ImageShapeError, match=r"x\[None\]"):
        explain.grad_cam(small, films[0], 0)
    with pytest.raises(UnknownNameError, match="baseline"):
        explain.integrated_gradients(small, films, 0, baseline="blurr")


def test_layers_are_declared_and_never_guessed(films):
    with pytest.raises(ExplanationError, match="is declared for Planted"):
        explain.grad_cam(Planted(), image(), "bright")
    with pytest.raises(ExplanationError, match="no layer 'bakbone'"):
        explain.grad_cam(Planted(), image(), "bright", layer=explain.CamLayer("bakbone"))
    with pytest.raises(ExplanationError, match="not linear"):
        explain.class_activation_map(
            Planted(), image(), "bright", layer=explain.CamLayer("features")
        )
    with pytest.raises(ExplanationError, match="is a _Cells, not a linear layer"):
        explain.class_activation_map(
            Planted(), image(), "bright", layer=explain.CamLayer("features", head="features")
        )
    with pytest.raises(ExplanationError, match="not maps"):
        explain.grad_cam(Planted(), image(), "bright", layer=explain.CamLayer("classifier"))
    with pytest.raises(ImageShapeError, match="only classifiers"):
        explain.input_gradients(nn.Identity(), image(), 0)


def test_only_the_fine_tuned_head_counts(small, films):
    small.reset_classifier(2, ["Tuberculosis", "Silicosis"])
    heat = explain.class_activation_map(small, films, "Silicosis", upsample=False)
    logits = heat.mean((1, 2)) + small.classifier.bias[1]
    torch.testing.assert_close(logits, small(films)[:, 1])


@pytest.mark.parametrize("method", ["gradcam", "gradcam++"])
def test_shifts_find_what_lies_between_positions(method):
    """A spot on the corner of four cells: without shifts the point is the middle of one."""
    x = torch.full((2, 1, SIDE, SIDE), 0.0)
    x[0, :, 27:37, 43:53] = 1000.0
    x[1, :, 11:21, 11:21] = 1000.0
    heat = explain.attribute(Planted(), x, "bright", method, layer=LAYER, shifts=4)
    coarse = explain.attribute(Planted(), x, "bright", method, layer=LAYER)
    assert heat.shape == coarse.shape == (2, SIDE, SIDE)
    for shown, centre in zip(heat, [(31.5, 47.5), (15.5, 15.5)], strict=True):
        places = (shown >= shown.max() * 0.999).nonzero().float().mean(0)
        assert (places - torch.tensor(centre)).abs().max() <= 2
    assert (coarse[0] > 0.5 * coarse[0].max()).sum() > (heat[0] > 0.5 * heat[0].max()).sum()

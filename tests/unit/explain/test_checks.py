"""Faithfulness curves, and the check with random weights, on cases whose outcome is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from support.evidence import LAYER, SIDE, Planted, image, mask
from torchxrayvision import explain
from torchxrayvision.errors import ImageShapeError, UnknownNameError
from torchxrayvision.models import DenseNet


def test_curves_tell_a_true_map_from_a_false_one():
    model, x = Planted(), image(2)
    true = explain.grad_cam(model, x, "dark", layer=LAYER)
    good = explain.deletion_insertion(model, x, "dark", true)
    bad = explain.deletion_insertion(model, x, "dark", -true)
    noise = torch.rand(true.shape, generator=torch.Generator().manual_seed(0))
    random = explain.deletion_insertion(model, x, "dark", noise)
    assert (good.deletion_auc < random.deletion_auc).all()
    assert (random.deletion_auc < bad.deletion_auc).all()
    assert (good.insertion_auc > random.insertion_auc).all()
    assert (random.insertion_auc > bad.insertion_auc).all()


def test_curves_begin_and_end_with_the_image_and_the_baseline():
    model, x = Planted(), image(2)
    heat = torch.rand(2, SIDE, SIDE)
    curves = explain.deletion_insertion(
        model, x, "bright", heat, baseline=0.0, steps=7, batch_size=3
    )
    assert curves.fractions.tolist() == pytest.approx([i / 7 for i in range(8)])
    with torch.no_grad():
        full = model(x).sigmoid()[:, 0]
        empty = model(torch.zeros_like(x)).sigmoid()[:, 0]
    for first, last, curve in (
        (full, empty, curves.deletion),
        (empty, full, curves.insertion),
    ):
        assert curve.shape == (2, 8)
        torch.testing.assert_close(curve[:, 0], first)
        torch.testing.assert_close(curve[:, -1], last)


def test_areas_are_those_of_trapezoids():
    curves = explain.Curves(
        torch.tensor([0.0, 0.5, 1.0]),
        torch.tensor([[1.0, 0.5, 0.0]]),
        torch.tensor([[0.0, 1.0, 1.0]]),
    )
    assert curves.deletion_auc.tolist() == [0.5]
    assert curves.insertion_auc.tolist() == [0.75]


def test_pixels_go_in_the_order_of_the_map():
    """The logit is the sum of the pixels, so each step is seen."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    with torch.no_grad():
        model[1].weight.fill_(1.0)
        model[1].bias.zero_()
    x = torch.tensor([0.5, 1.0, 2.0, 4.0]).reshape(1, 1, 2, 2)
    heat = torch.tensor([0.0, 3.0, 1.0, 2.0]).reshape(1, 2, 2)
    curves = explain.deletion_insertion(model, x, 0, heat, baseline=0.0, steps=4)
    assert curves.deletion.logit()[0].tolist() == pytest.approx([7.5, 6.5, 2.5, 0.5, 0], abs=1e-3)
    assert curves.insertion.logit()[0].tolist() == pytest.approx([0, 1, 5, 7, 7.5], abs=1e-3)


def test_maps_of_another_shape_are_refused():
    with pytest.raises(ImageShapeError, match="do not fit"):
        explain.deletion_insertion(Planted(), image(), "dark", torch.zeros(1, 8, 8))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(5)
    model = DenseNet(8, (2, 2, 2, 2), 16, num_classes=2).eval()
    model.classifier.bias.data.fill_(0.1)
    return model


def edges(_model, x, _target):
    """A "map" that never asks the network."""
    down = (x[:, 0, 1:, :-1] - x[:, 0, :-1, :-1]).abs()
    right = (x[:, 0, :-1, 1:] - x[:, 0, :-1, :-1]).abs()
    return nn.functional.pad(down + right, (0, 1, 0, 1))


def test_an_edge_detector_fails_the_check(network):
    report = explain.randomisation_check(network, image(2), 0, edges)
    assert not report.passed
    assert report.similarity == pytest.approx([1.0] * 8)
    assert "failed" in str(report)


def early_grad_cam(model, x, target):
    """Of a layer of 8 x 8 positions: the last one has 2 x 2, whose ranks chance decides."""
    return explain.grad_cam(model, x, target, layer=explain.CamLayer("features.denseblock2"))


@pytest.mark.parametrize("method", ["gradients", early_grad_cam])
def test_maps_of_the_network_pass_the_check(network, method):
    report = explain.randomisation_check(network, image(4), 0, method)
    assert report.passed, str(report)
    assert len(report.stages) == len(report.similarity) == 8
    assert report.stages[-1] == "features.conv0"
    assert "passed" in str(report)


def test_similarities_are_means_over_the_draws(network):
    def check(**options):
        return explain.randomisation_check(network, image(2), 0, stages=3, **options).similarity

    first, second = check(draws=1, seed=4), check(draws=1, seed=5)
    assert first != second
    expected = [(a + b) / 2 for a, b in zip(first, second, strict=True)]
    assert check(draws=2, seed=4) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("options", [{"draws": 0}, {"stages": 0}])
def test_a_check_of_nothing_is_refused(network, options):
    with pytest.raises(ValueError, match="at least 1"):
        explain.randomisation_check(network, image(), 0, **options)


def test_layers_become_random_from_the_output_to_the_input(network):
    seen = []

    def spy(model, x, target):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return explain.input_gradients(model, x, target)

    report = explain.randomisation_check(network, image(1), 0, spy, stages=1000, draws=1)
    assert report.stages[0] == "classifier"
    first, second, last = seen[0], seen[1], seen[-1]
    changed = {name for name in first if not torch.equal(first[name], second[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    assert all(not torch.equal(first[n], last[n]) for n in first if n.endswith("weight")
               and first[n].dim() > 1)  # fmt: skip
    assert not last["features.norm5.running_mean"].any()


def test_the_network_itself_stays_as_it_is(network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    explain.randomisation_check(network, image(1), 0, stages=2)
    other = explain.randomised(network, seed=1)
    assert torch.equal(random, torch.get_rng_state())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(module._forward_pre_hooks for module in network.modules())
    weight = other.features.conv0.weight
    assert not torch.equal(weight, network.features.conv0.weight)
    assert torch.equal(weight, explain.randomised(network, seed=1).features.conv0.weight)
    assert not torch.equal(weight, explain.randomised(network, seed=2).features.conv0.weight)
    assert torch.isfinite(other(image(1))).all()


def test_a_random_network_no_longer_points():
    x = image()
    heat = explain.grad_cam(explain.randomised(Planted(), seed=1), x, "dark", layer=LAYER)
    assert not mask("dark")[heat[0] == heat.max()].all()


def test_constant_maps_are_judged():
    """The same constant before and after says nothing of the network; a new one is a change."""
    same = explain.randomisation_check(
        Planted(), image(), 0, lambda m, x, t: torch.ones(1, 8, 8), stages=1
    )
    assert not same.passed
    calls = []

    def flat_later(_model, x, _target):
        calls.append(1)
        return x[:, 0] if len(calls) == 1 else torch.zeros(1, SIDE, SIDE)

    assert explain.randomisation_check(Planted(), image(), 0, flat_later, stages=1).passed


def test_unknown_targets_are_refused(network):
    with pytest.raises(UnknownNameError, match="target"):
        explain.randomisation_check(network, image(), 7)

"""Ensembles: who counts for what, what each member sees, and how much they disagree."""

import copy

import pytest
import torch

from support.networks import synthetic
from torchxrayvision.errors import UnknownNameError
from torchxrayvision.models import Ensemble, EvaX, ResNet, get_model


def member(targets, seed, *, weights="made", points=None):
    """A small network of its own tensors, as if it had been trained."""
    torch.manual_seed(seed)
    net = ResNet(architecture="resnet18-width8", num_classes=len(targets)).eval()
    net.targets, net.weights, net.input_resolution = list(targets), weights, 64
    if points is not None:
        net.op_threshs = torch.tensor(points)
    return net


def images(count=2, size=64):
    generator = torch.Generator().manual_seed(3)
    return torch.rand(count, 1, size, size, generator=generator) * 2048 - 1024


def probability(net, x, target):
    return net(x, output="probability")[:, net.targets.index(target)]


def test_a_finding_is_the_mean_of_those_that_were_trained_on_it():
    one = member(["Mass", "Edema"], 1)
    other = member(["Edema", "Hernia", "Nodule"], 2, points=[0.3, 0.4, float("nan")])
    both = Ensemble([one, other], weights=[1, 3])
    x = images()
    assert both.targets == ["Mass", "Edema", "Hernia"]  # nobody was trained on Nodule
    assert both.trained == (True, True, True)
    found = both(x)
    torch.testing.assert_close(found[:, 0], probability(one, x, "Mass"))
    mean = (probability(one, x, "Edema") + 3 * probability(other, x, "Edema")) / 4
    torch.testing.assert_close(found[:, 1], mean)
    torch.testing.assert_close(found[:, 2], probability(other, x, "Hernia"))
    torch.testing.assert_close(both(x, output="logit").sigmoid(), found)


def test_members_see_images_at_their_own_resolution():
    one, other = member(["Mass"], 1), member(["Mass"], 2)
    other.input_resolution = 96
    both = Ensemble([one, other])
    assert both.input_resolution == 96
    x = images(1, 96)
    mean = (probability(one, x, "Mass") + probability(other, x, "Mass")) / 2
    torch.testing.assert_close(both(x)[:, 0], mean)


def test_views_are_what_their_names_say():
    net, x = member(["Mass"], 1), images()
    mirrored = Ensemble([net], views=("whole", "mirror"))
    expected = (probability(net, x, "Mass") + probability(net, x.flip(3), "Mass")) / 2
    torch.testing.assert_close(mirrored(x)[:, 0], expected)
    seen = []
    copied = copy.deepcopy(net)
    copied.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    crops = list(Ensemble([net], views=("crops",))._seen(x))
    assert [crop.shape for crop in crops] == [x.shape] * 5
    # A mark in the corner that only one crop keeps.
    marked = torch.full((1, 1, 64, 64), -1024.0)
    marked[..., -2:, -2:] = 1024
    kept = [bool(c.max() > 0) for c in Ensemble([net], views=("crops",))._seen(marked)]
    assert kept == [False, False, False, False, True]


def test_spread_is_the_deviation_of_those_who_answer():
    one, other = member(["Mass", "Edema"], 1), member(["Edema"], 2)
    both, x = Ensemble([one, other]), images()
    spread = both.spread(x)
    apart = (probability(one, x, "Edema") - probability(other, x, "Edema")).abs() / 2
    torch.testing.assert_close(spread[:, 1], apart)
    assert (spread[:, 0] == 0).all()
    assert Ensemble([one, one]).spread(x).max() < 1e-6


def test_operating_points_of_its_own():
    both, x = Ensemble([member(["Mass"], 1), member(["Mass"], 2)]), images()
    both.set_operating_points({"Mass": 0.4})
    value, mean = both(x, output="operating-point"), both(x, output="probability")
    assert ((value > 0.5) == (mean > 0.4)).all()


def test_an_ensemble_predicts_names_and_embeds():
    both = Ensemble([member(["Mass"], 1), member(["Mass"], 2)], views=("whole", "mirror"))
    x = images()
    prediction = both.predict(x)
    assert prediction.kind == "probability"
    assert torch.equal(prediction.values["Mass"], both(x)[:, 0])
    assert both.embed(x).shape == (2, 4 * 64)


def test_an_ensemble_exports(tmp_path):
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 8):
        pytest.skip("torch 2.7 cannot export the concatenation of views of any batch size")
    from torchxrayvision.inference import export

    both = Ensemble([member(["Mass"], 1), member(["Mass"], 2)], views=("whole", "mirror"))
    assert export(both, "torch-export", tmp_path / "both.pt2").difference < 1e-4


def test_networks_of_both_kinds_go_together():
    pytest.importorskip("timm", reason="the network of EVA-X is timm's: extra models")
    both = Ensemble([member(["Mass"], 1), synthetic_evax()])
    assert both(images(1, 256)).shape == (1, 2)
    assert both.input_resolution == 256


def synthetic_evax():
    net = synthetic(EvaX(num_classes=2))
    net.targets, net.weights = ["Mass", "Edema"], "made"
    return net


def test_names_of_weights_are_members():
    with pytest.warns(match="demonstration"):
        both = Ensemble(["demo"], views=("whole", "mirror"))
    with pytest.warns(match="demonstration"):
        alone = get_model("demo")
    assert both.targets == alone.targets
    assert both.weights == "resnet18-res144-demo"


def test_runs_tell_ensembles_apart():
    from torchxrayvision.runs import fingerprint

    one, other = member(["Mass"], 1), member(["Mass"], 2)
    moved = copy.deepcopy(other)
    moved.resize_route = "bilinear"
    different = [
        one,
        Ensemble([one]),
        Ensemble([one], views=("whole", "mirror")),
        Ensemble([one, other]),
        Ensemble([one, moved]),
        Ensemble([one, other], weights=[1, 2]),
    ]
    assert len({fingerprint(model) for model in different}) == len(different)
    assert fingerprint(Ensemble([one, other])) == fingerprint(Ensemble([one, other]))


def test_what_is_no_ensemble_is_refused():
    net = member(["Mass"], 1)
    with pytest.raises(ValueError, match="one positive weight per member"):
        Ensemble([])
    with pytest.raises(ValueError, match="one positive weight per member"):
        Ensemble([net], weights=[0])
    with pytest.raises(ValueError, match="view"):
        Ensemble([net], views=())
    with pytest.raises(UnknownNameError, match="mirror"):
        Ensemble([net], views=("miror",))

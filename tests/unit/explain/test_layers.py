"""The declared layer of every classifier is the last map that its outputs depend on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torchxrayvision import explain
from torchxrayvision.baseline_models import chexpert, emory_hiti, jfhealthcare, mira, riken, xinario
from torchxrayvision.baseline_models.riken import net as _net
from torchxrayvision.errors import ExplanationError
from torchxrayvision.explain.model import value_kind
from torchxrayvision.models import ResNet, get_model

SIDE = 64


def small_riken():
    """AgeModel with one block a stage; the 113 million parameters would cost seconds."""
    with torch.device("meta"):
        model = riken.AgeModel(weights=None)
    model.model = _net.Network((1, 1, 1, 1), _net.concat_head(16))
    return model


BUILDERS = {
    "densenet": lambda: get_model("densenet121", num_classes=2),
    "resnet": lambda: get_model("resnet50", num_classes=2),
    "chexpert": lambda: chexpert.DenseNet(weights_zip=None, num_models=1),
    "compact": lambda: ResNet(architecture="resnet18-width16", num_classes=2),
    "torchvision:densenet121": lambda: get_model("torchvision:densenet121", num_classes=2),
    "torchvision:efficientnet_b0": lambda: get_model("torchvision:efficientnet_b0", num_classes=2),
    "torchvision:mobilenet_v2": lambda: get_model("torchvision:mobilenet_v2", num_classes=2),
    "emory_hiti": lambda: emory_hiti.RaceModel(weights=None),
    "jfhealthcare": lambda: jfhealthcare.DenseNet(weights=None),
    "mira": lambda: mira.SexModel(weights=None),
    "riken": small_riken,
    "xinario": lambda: xinario.ViewModel(weights=None),
}
INEXACT = ("chexpert", "jfhealthcare", "riken")


@pytest.fixture(scope="module")
def films():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 1, SIDE, SIDE, generator=generator) * 2048 - 1024


@pytest.fixture(scope="module", params=BUILDERS)
def case(request):
    torch.manual_seed(3)
    model = BUILDERS[request.param]().eval()
    if hasattr(model, "input_resolution"):
        model.input_resolution = SIDE  # the networks take any; small ones keep this fast
    return request.param, model


@pytest.fixture
def exact(case):
    """The model in float64, so that small differences of untrained networks are seen."""
    case[1].double()
    yield case
    case[1].float()


@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "gradients"])
def test_every_classifier_is_explained(case, films, method):
    _, model = case
    target = len(model.targets) - 1
    heat = explain.attribute(model, films, target, method)
    assert heat.shape == (2, SIDE, SIDE)
    assert torch.isfinite(heat).all()
    assert (heat >= 0).all()
    if method == "gradients":
        assert heat.any()


def test_gradient_of_the_last_map_is_that_of_finite_differences(exact, films):
    """Adding to the map where its gradient is positive raises the logit by what that says."""
    name, model = exact
    film = films[:1].double()
    from torchxrayvision.explain.layers import captured
    from torchxrayvision.explain.model import at_rest, score

    layer = explain.cam_layer(model)
    index = 1 if name == "jfhealthcare" else 0
    with at_rest(model), captured(model, layer) as captures:
        total = score(model, film, index).sum()
        maps = captures.of(index)
        gradients = torch.autograd.grad(total, maps)
    assert all(a.dim() == 4 and a.shape[2] > 1 for a in maps)
    assert any(g.any() for g in gradients)
    path = layer.path.replace("*", "0")
    module, calls = model.get_submodule(path), []
    rise = gradients[0].relu()
    rise = 1e-2 * maps[0].norm() * rise / rise.norm()
    last_call = index + 1 if layer.call_of_target else 1

    def move(_module, _inputs, output):
        calls.append(output)
        output = output.relu() if layer.rectify else output
        return output + rise if len(calls) == last_call else None

    handle = module.register_forward_hook(move)
    with torch.no_grad():
        moved = score(model, film, index).sum()
    handle.remove()
    expected = (rise * gradients[0]).sum().item()
    assert expected > 0
    assert (moved - total).item() == pytest.approx(expected, rel=0.1)


def test_activation_maps_are_exact_or_refused(case, films):
    name, model = case
    if name in INEXACT:
        with pytest.raises(ExplanationError, match="use grad_cam"):
            explain.class_activation_map(model, films, 0)
        return
    heat = explain.class_activation_map(model, films, 1, upsample=False)
    head = model.get_submodule(explain.cam_layer(model).head)
    logits = model(films, output="logit")[:, 1]
    torch.testing.assert_close(heat.mean((1, 2)) + head.bias[1], logits, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("timm:resnet10t", True),
        ("timm:efficientnet_b0", True),
        ("timm:convnext_atto", False),
        ("torchvision:mobilenet_v3_small", False),
    ],
)
def test_networks_of_other_libraries_have_declared_layers(name, exact, films):
    if name.startswith("timm"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    model = get_model(name, num_classes=1).eval()
    assert torch.isfinite(explain.grad_cam_plus_plus(model, films, 0)).all()
    assert explain.input_gradients(model, films, 0).any()
    if not exact:
        with pytest.raises(ExplanationError, match="use grad_cam"):
            explain.class_activation_map(model, films, 0)
        return
    heat = explain.class_activation_map(model, films, 0, upsample=False)
    logits = model(films, output="logit")[:, 0]
    torch.testing.assert_close(heat.mean((1, 2)) + model.head.bias, logits, rtol=1e-4, atol=1e-4)


def test_attention_is_looked_at_after_as_many_passes_as_the_head_saw(films):
    torch.manual_seed(0)
    model = jfhealthcare.DenseNet(weights=None).eval()
    model.input_resolution = SIDE
    net, seen = model.model, []
    from torchxrayvision.explain.layers import captured
    from torchxrayvision.explain.model import score

    with torch.no_grad():
        attended = net.backbone(model.prepare(films))
        for _ in model.targets:
            attended = net.attention_map(attended)
            seen.append(attended)
        for index, expected in enumerate(seen):
            with captured(model, explain.cam_layer(model)) as captures:
                score(model, films, index)
                (found,) = captures.of(index)
            torch.testing.assert_close(found, expected)


def test_ensemble_that_is_read_member_by_member_says_what_to_do(films):
    model = chexpert.DenseNet(weights_zip=None, num_models=1).eval()
    model.input_resolution = SIDE
    del model.members[:]  # as with keep="zip"
    model._each = lambda x: iter([])
    model._features_and_raw = lambda x: (torch.zeros(len(x), 0), torch.full((len(x), 5), 0.5))
    with pytest.raises(ExplanationError, match="keep='memory'"):
        explain.grad_cam(model, films, "Edema")


def test_age_is_explained_in_years(case):
    name, model = case
    assert value_kind(model) == ("years" if name == "riken" else "probability")
    assert value_kind(nn.Identity()) == "probability"


@pytest.mark.parametrize(("side", "path"), [(64, "model.layer3"), (224, "model.layer4")])
def test_small_images_are_explained_at_a_finer_map(side, path):
    torch.manual_seed(0)
    model = ResNet(architecture="resnet18-width16", num_classes=2).eval()
    x = torch.rand(1, 1, side, side) * 2048 - 1024
    expected = explain.grad_cam(model, x, 1, layer=explain.CamLayer(path))
    torch.testing.assert_close(explain.grad_cam(model, x, 1), expected)
    exact = explain.class_activation_map(model, x, 1, upsample=False)
    assert exact.shape == (1, side // 32, side // 32)


@pytest.mark.parametrize("method", ["gradcam", "gradcam++"])
def test_maps_of_several_layers_count_alike(method):
    torch.manual_seed(0)
    model = ResNet(architecture="resnet18-width16", num_classes=2).eval()
    x = torch.rand(2, 1, 64, 64) * 2048 - 1024
    layers = explain.CamLayer("model.layer2"), explain.CamLayer("model.layer3", cells=True)
    each = [explain.attribute(model, x, 1, method, layer=layer, shifts=2) for layer in layers]
    largest = [heat.amax((1, 2), keepdim=True) for heat in each]
    assert all(most.min() > 0 for most in largest)
    expected = (each[0] / largest[0] + each[1] / largest[1]) / 2
    found = explain.attribute(model, x, 1, method, layer=layers, shifts=2)
    torch.testing.assert_close(found, expected)


def test_layers_without_evidence_leave_the_map_empty():
    torch.manual_seed(0)
    model = ResNet(architecture="resnet18-width16", num_classes=2).eval()
    torch.nn.init.zeros_(model.model.fc.weight)
    x = torch.rand(1, 1, 64, 64) * 2048 - 1024
    heat = explain.grad_cam(model, x, 1, layer=[explain.CamLayer("model.layer3")] * 2)
    assert not heat.any()
    with pytest.raises(ExplanationError, match="no layer was given"):
        explain.grad_cam(model, x, 1, layer=[])


def test_models_that_derive_from_ours_keep_the_layer():
    class Mine(mira.SexModel):
        pass

    with torch.device("meta"):
        assert explain.cam_layer(Mine(weights=None)).path == "model.layer4"

"""What the classifiers of other groups promise. A new one is added to BUILDERS and nothing else."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from PIL import Image
from torch.func import vmap

from support.baselines import shapes_of, values
from torchxrayvision import baseline_models, explain
from torchxrayvision.baseline_models import (
    chexpert,
    emory_hiti,
    jfhealthcare,
    mira,
    riken,
    xinario,
)
from torchxrayvision.baseline_models.riken.net import Network, concat_head
from torchxrayvision.errors import ImageShapeError, StateMismatchError, UnknownNameError
from torchxrayvision.inference import predict
from torchxrayvision.models import XRayClassifier
from torchxrayvision.models.base import load_strictly
from torchxrayvision.models.densenet import dense_features

SIZE = 64


def shallow_ensemble():
    """Members of the published form with far fewer layers."""
    model = chexpert.DenseNet(weights_zip=None, num_models=1)
    for member in model.members:
        member.features = dense_features(8, (1, 1, 1, 1), 16, in_channels=3)
        width = member.features[-1].num_features
        member.classifier = torch.nn.Linear(width, member.classifier.out_features)
    return model


def shallow_attention():
    """The heads of the published network on a backbone of a few layers."""
    model = jfhealthcare.DenseNet(weights=None)
    features = dense_features(8, (1, 1, 1, 1), 16, in_channels=3)
    widen = torch.nn.Conv2d(features[-1].num_features, 1024, kernel_size=1)
    model.model.backbone.features = torch.nn.Sequential(features, widen)
    return model


def shallow_senet():
    with torch.device("meta"):
        model = riken.AgeModel(weights=None)
    model.model = Network((1, 1, 1, 1), concat_head(16))
    return model


BUILDERS = {
    "chexpert": shallow_ensemble,
    "emory_hiti": lambda: emory_hiti.RaceModel(weights=None),
    "jfhealthcare": shallow_attention,
    "mira": lambda: mira.SexModel(weights=None),
    "riken": shallow_senet,
    "xinario": lambda: xinario.ViewModel(weights=None),
}


def images(count, size=SIZE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, size, size, generator=generator) * 2048 - 1024


@pytest.fixture(scope="module", params=list(BUILDERS))
def model(request):
    net = BUILDERS[request.param]()
    filled = values(request.param, shapes_of(net))
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            value.copy_(filled[name])
    net.input_resolution = SIZE
    return net.eval()


@pytest.fixture(scope="module")
def trained(model):
    """A copy that passes for one with weights."""
    net = copy.deepcopy(model)
    net.weights = "mine"
    return net


def test_every_classifier_is_tested():
    found = {
        name
        for name in baseline_models.__all__
        for value in vars(getattr(baseline_models, name)).values()
        if isinstance(value, type) and value is not XRayClassifier
        if issubclass(value, XRayClassifier)
    }
    assert found == set(BUILDERS)


def test_every_kind_of_output_has_one_column_a_target(model):
    x = images(2)
    for kind in model.kinds:
        value = model(x, output=kind)
        assert value.shape == (2, len(model.targets))
        assert torch.isfinite(value).all()
    torch.testing.assert_close(model(x), model(x, output=model.output_kind))


def test_kinds_of_output_agree_with_each_other(model):
    if model.kinds == ("years",):
        pytest.skip("an age has no other kind of output")
    x = images(2)
    logits, probabilities = model(x, output="logit"), model(x, output="probability")
    exclusive = type(model).__name__ != "DenseNet"
    expected = logits.softmax(1) if exclusive else logits.sigmoid()
    torch.testing.assert_close(probabilities, expected)
    if "log-probability" in model.kinds:
        torch.testing.assert_close(model(x, output="log-probability"), probabilities.log())


def test_unknown_kind_is_refused_by_name(model):
    with pytest.raises(UnknownNameError, match=model.kinds[0]):
        model(images(1), output="percent")


def test_a_batch_gives_what_single_images_give(model):
    x = images(3)
    singles = torch.cat([model(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(model(x), singles, atol=1e-4, rtol=1e-4)
    assert not torch.equal(singles[0], singles[1])


@pytest.mark.parametrize("size", [32, 129])
def test_any_square_size_is_taken(model, size):
    assert model(images(1, size)).shape == (1, len(model.targets))


def test_other_than_square_is_refused(model):
    with pytest.raises(ImageShapeError, match="crop"):
        model(torch.zeros(1, 1, 64, 70))


def test_embeddings_are_one_vector_an_image(model):
    x = images(2)
    features = model.embed(x)
    assert features.dim() == 2
    assert features.shape[0] == 2
    torch.testing.assert_close(model.embed(x[1:]), features[1:], atol=1e-4, rtol=1e-4)


def test_gradients_reach_every_parameter_and_the_input(model):
    net = copy.deepcopy(model).train()
    # One weight an output: probabilities that sum to 1 have no gradient of their plain sum.
    x = images(4).requires_grad_()
    weigh = torch.linspace(1, 2, len(net.targets))
    (net(x) * weigh).square().sum().backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without
    assert x.grad.abs().sum() > 0


def test_full_backward_hooks_on_every_layer_work(model):
    net = copy.deepcopy(model)
    seen = set()
    layers = {n: m for n, m in net.named_modules() if next(m.children(), None) is None}
    for name, module in layers.items():
        module.register_full_backward_hook(lambda *_, name=name: seen.add(name))
    net(images(1).requires_grad_()).sum().backward()
    assert seen == set(layers)


def test_a_forward_hook_sees_what_the_layer_gave(model):
    net = copy.deepcopy(model)
    kept = []
    for norm in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.register_forward_hook(lambda _, __, out: kept.append((out, out.clone())))
    net(images(1))
    assert kept
    assert all(torch.equal(held, given) for held, given in kept)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_floating_dtypes_follow(model, dtype):
    net = copy.deepcopy(model).to(dtype)
    out = net(images(1, 80).to(dtype))
    assert out.dtype == dtype
    tolerance = 1e-3 if dtype == torch.float64 else 0.3
    torch.testing.assert_close(out.float(), model(images(1, 80)), atol=tolerance, rtol=tolerance)


def test_vmap_gives_what_a_batch_gives(model):
    x = images(2)
    mapped = vmap(lambda image: model(image[None])[0])(x)
    torch.testing.assert_close(mapped, model(x), atol=1e-4, rtol=1e-4)


def test_export_gives_the_same_outputs(model):
    batch = torch.export.Dim("batch", min=1, max=16)
    exported = torch.export.export(model, (images(2, 80),), dynamic_shapes={"x": {0: batch}})
    torch.testing.assert_close(exported.module()(images(3, 80)), model(images(3, 80)))


def test_state_goes_there_and_back(model):
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        parameter.data.zero_()
    assert not torch.equal(other(images(1)), model(images(1)))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(images(1)), model(images(1)))


def test_models_pickle(model):
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again(images(1)), model(images(1)))
    assert again.targets == model.targets


def test_wrong_tensors_are_refused_by_name_and_nothing_is_loaded(model):
    net = copy.deepcopy(model)
    before = net(images(1))
    state = dict(net.state_dict())
    first = next(iter(state))
    state["stranger"] = state.pop(first)
    last = next(name for name in reversed(state) if name.endswith("weight"))
    state[last] = torch.zeros(7)
    with pytest.raises(StateMismatchError, match="stranger") as caught:
        load_strictly(net, state, "file.pt")
    assert caught.value.missing == (first,)
    assert caught.value.unexpected == ("stranger",)
    assert list(caught.value.shapes) == [last]
    assert torch.equal(net(images(1)), before)


def test_untrained_models_say_so_and_predict_nothing(model):
    assert not any(model.trained)
    assert not model.predict(images(1)).values
    assert len(repr(model).splitlines()) > 10


def test_predictions_are_named_and_mean_one_thing(trained):
    prediction = trained.predict(images(2))
    assert list(prediction.values) == trained.targets == trained.pathologies
    assert prediction.kind == ("years" if trained.kinds == ("years",) else "probability")
    values_ = torch.stack(list(prediction.values.values()), 1)
    torch.testing.assert_close(values_, trained(images(2), output=prediction.kind))


def test_label_is_that_of_157(trained):
    assert (
        repr(trained)
        == {
            "chexpert": "CheXpert-DenseNet121-ensemble",
            "emory_hiti": "Emory-HITI-RaceModel-resnet34",
            "jfhealthcare": "jfhealthcare-DenseNet121",
            "mira": "MIRA-SexModel-resnet34",
            "riken": "riken-age-prediction",
            "xinario": "xinario-view-prediction",
        }[type(trained).__module__.rpartition(".")[2]]
    )


def test_calling_changes_no_random_state(model):
    before = torch.random.get_rng_state()
    model(images(1, 80))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_inference_takes_it_as_it_takes_the_core_models(trained, engine, tmp_path, monkeypatch):
    if engine == "onnx":
        pytest.importorskip("onnxruntime")
        monkeypatch.setenv("XRV_CACHE_DIR", str(tmp_path / "cache"))
    x = images(2).round()
    for index, image in enumerate(x):
        grey = ((image[0] + 1024) / 8).clamp(0, 255).round().to(torch.uint8)
        Image.fromarray(grey.numpy()).save(tmp_path / f"{index}.png")
        x[index] = grey / 255 * 2048 - 1024
    table = predict(sorted(tmp_path.glob("*.png")), trained, engine=engine)
    assert list(table.columns) == ["path", "error", *trained.targets, "check"]
    with torch.no_grad():
        expected = torch.stack(list(trained.predict(x).values.values()), 1)
    found = torch.tensor(table[trained.targets].to_numpy())
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(UnknownNameError, match=trained.kinds[0]):
        predict(tmp_path / "0.png", trained, output="operating-point")


def test_explanations_take_it_as_they_take_the_core_models(trained):
    maps = explain.attribute(trained, images(2), target=trained.targets[0], method="gradients")
    assert maps.shape == (2, SIZE, SIZE)

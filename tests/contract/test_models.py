"""What every model promises. A new model is added to BUILDERS and to nothing else."""

from __future__ import annotations

import copy
import pickle
import re

import pytest
import torch
from torch.func import vmap

from support.networks import synthetic
from torchxrayvision.errors import ImageShapeError, StateMismatchError
from torchxrayvision.models import (
    OUTPUT_KINDS,
    DenseNet,
    Encoder,
    EvaX,
    EvaXDenseNet,
    ResNet,
    list_models,
)
from torchxrayvision.models.base import load_strictly
from torchxrayvision.weights import list_weights

POINTS = torch.tensor([0.3, float("nan"), 0.6])
SMALL = {"growth_rate": 8, "block_config": (2, 2, 2, 2), "num_init_features": 16}
BUILDERS = {
    "densenet": lambda: DenseNet(**SMALL, num_classes=3, op_threshs=POINTS),
    "resnet18": lambda: ResNet(architecture="resnet18-width8", num_classes=3, op_threshs=POINTS),
    "resnet50": lambda: ResNet(num_classes=3, op_threshs=POINTS),
    "evax-tiny": lambda: EvaX(num_classes=3, op_threshs=POINTS, apply_sigmoid=False),
    "evax-densenet121": lambda: EvaXDenseNet(num_classes=3, op_threshs=POINTS, apply_sigmoid=False),
    **{
        name: lambda name=name: Encoder(
            architecture=f"{name}-width64-depth2", num_classes=3, op_threshs=POINTS
        )
        for name in ("dinov2-base14", "dinov2-base14-reg4", "dinov2-large16-reg4")
    },
}
ZERO_SHOT = {"chexficient-base14", "clip-base16", "siglip-so400m14"}
"""Their findings are texts: tests/contract/test_zero_shot.py."""
# timm multiplies by the matrix of queries, keys and values without calling its layer, attends in
# one fused step, and looks positions up in a table.
PASSED_BY = (".attn.qkv", ".attn.attn_drop", ".rope")
FIXED = tuple(name for name in BUILDERS if name.startswith(("evax-", "dinov2-")))
"""Their preprocessing belongs to one resolution."""
SIZE = 64


def images(count, size=SIZE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, size, size, generator=generator) * 2048 - 1024


@pytest.fixture(scope="module", params=list(BUILDERS))
def model(request):
    net = synthetic_parts(BUILDERS[request.param]())
    if request.param not in FIXED:
        net.input_resolution = SIZE
    return net


def synthetic_parts(net):
    points, net.op_threshs = net.op_threshs, None
    synthetic(net)
    net.op_threshs = points
    return net


def test_every_architecture_is_tested_or_a_deeper_one_of_a_tested_family():
    published = {entry.name for entry in list_weights()}
    bare = [n for n in list_models() if n not in {*published, *ZERO_SHOT, "unet"}]
    assert {family(name) for name in bare} == {family(name) for name in BUILDERS}


def family(name):
    """What a name is without its size."""
    if name.startswith("dinov2-"):
        return re.sub(r"small|base|large", "", name)
    return re.sub(r"(\d+|-tiny|-small|-base)$", "", name)


def test_output_has_one_column_a_target(model):
    assert model(images(2)).shape == (2, len(model.targets)) == (2, 3)


@pytest.mark.parametrize("kind", OUTPUT_KINDS)
def test_output_kinds_agree_with_each_other(model, kind):
    x = images(2)
    logits = model(x, output="logit")
    value = model(x, output=kind)
    if kind == "probability":
        torch.testing.assert_close(value, logits.sigmoid())
    if kind == "operating-point":
        assert (value[:, 1] == 0.5).all()
        assert ((value > 0.5) == (logits.sigmoid() > POINTS))[:, [0, 2]].all()
    assert torch.isfinite(value).all()


def test_a_batch_gives_what_single_images_give(model):
    x = images(3)
    singles = torch.cat([model(x[i : i + 1], output="logit") for i in range(3)])
    torch.testing.assert_close(model(x, output="logit"), singles, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [32, 100, 129])
def test_any_square_size_is_taken(model, size):
    assert model(images(1, size)).shape == (1, 3)


def test_other_than_square_is_refused(model):
    with pytest.raises(ImageShapeError, match="crop"):
        model(torch.zeros(1, 1, 64, 70))


def test_embeddings_are_vectors_that_the_head_turns_into_logits(model):
    x = images(2)
    features = model.embed(x)
    assert features.shape == (2, model.head.in_features)
    torch.testing.assert_close(model.head(features), model(x, output="logit"))


def test_gradients_reach_every_parameter_and_the_input(model):
    net = copy.deepcopy(model).train()
    x = images(2).requires_grad_()
    net(x, output="logit").square().sum().backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without
    assert x.grad.abs().sum() > 0


def test_full_backward_hooks_on_every_layer_work(model):
    net = copy.deepcopy(model)
    seen = set()
    # Dense layers take a list of tensors, which torch's hooks do not look into; layers below them
    # take tensors.
    layers = {n: m for n, m in net.named_modules() if next(m.children(), None) is None}
    if isinstance(net, EvaX | Encoder):
        layers = {n: m for n, m in layers.items() if not n.endswith(PASSED_BY)}
    for name, module in layers.items():
        module.register_full_backward_hook(lambda *_, name=name: seen.add(name))
    net(images(1).requires_grad_(), output="logit").sum().backward()
    assert seen == set(layers)


def test_a_forward_hook_sees_what_the_layer_gave(model):
    net = copy.deepcopy(model)
    norms = (torch.nn.BatchNorm2d, torch.nn.LayerNorm)
    norm = [m for m in net.modules() if isinstance(m, norms)][-1]
    kept = []
    norm.register_forward_hook(lambda _, __, out: kept.append((out, out.clone())))
    net(images(1))
    assert torch.equal(*kept[0])
    assert (kept[0][0] < 0).any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_floating_dtypes_follow(model, dtype):
    net = copy.deepcopy(model).to(dtype)
    out = net(images(1, 80).to(dtype), output="probability")
    assert out.dtype == dtype
    reference = model(images(1, 80), output="probability")
    torch.testing.assert_close(out.float(), reference.float(), atol=0.05, rtol=0)
    assert net(images(1).to(dtype)).dtype == dtype


# torch attends to one image after another there, and says so.
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap_gives_what_a_batch_gives(model):
    x = images(3, 80)
    mapped = vmap(lambda image: model(image[None])[0])(x)
    torch.testing.assert_close(mapped, model(x), atol=1e-4, rtol=1e-4)


def test_export_gives_the_same_outputs(model):
    x = images(2, 80)
    batch = torch.export.Dim("batch", min=1, max=16)
    exported = torch.export.export(model, (x,), dynamic_shapes={"x": {0: batch}})
    torch.testing.assert_close(exported.module()(images(5, 80)), model(images(5, 80)))


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
def test_compile_gives_the_same_outputs(model):
    compiled = torch.compile(model)
    torch.testing.assert_close(compiled(images(2)), model(images(2)), atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("fresh_compiler")
def test_compile_without_a_code_generator_traces_whole(model):
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images(2, 80)), model(images(2, 80)))


def test_state_goes_there_and_back(model):
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        parameter.data.zero_()
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
    head = next(k for k in state if k.endswith(("classifier.bias", "fc.bias")))
    state["stranger"] = state.pop(first)
    state[head] = torch.zeros(7)
    with pytest.raises(StateMismatchError, match="stranger") as caught:
        load_strictly(net, state, "file.pt")
    assert caught.value.missing == (first,)
    assert caught.value.unexpected == ("stranger",)
    assert caught.value.shapes == {head: ((7,), (3,))}
    assert torch.equal(net(images(1)), before)


def test_fresh_classifier_gives_logits_of_the_new_findings(model):
    net = copy.deepcopy(model)
    net.reset_classifier(2, ["Tuberculosis", "Silicosis"])
    assert net(images(1)).shape == (1, 2)
    assert net.default_output == "logit"
    assert net.pathologies == ["Tuberculosis", "Silicosis"]
    assert net.trained == (False, False)


def test_untrained_models_say_so(model):
    assert model.trained == (False, False, False)
    assert len(model.targets) == 3


def test_calling_changes_no_random_state(model):
    before = torch.random.get_rng_state()
    model(images(1, 80))
    assert torch.equal(before, torch.random.get_rng_state())


def test_predictions_are_named_and_leave_out_untrained_outputs(model):
    net = copy.deepcopy(model)
    net.targets, net.weights = ["Mass", "Hernia", ""], "mine"
    assert net.trained == (True, False, False)
    prediction = net.predict(images(2))
    assert prediction.kind == "operating-point"
    assert list(prediction.values) == ["Mass"]
    assert torch.equal(prediction.values["Mass"], net(images(2))[:, 0])

"""What segmentation networks and autoencoders promise. A new one is added to BUILDERS only."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from support.dense import state_of
from torchxrayvision.autoencoders import ResNetAE50
from torchxrayvision.baseline_models.chestx_anatomy import UNetResNet50
from torchxrayvision.baseline_models.chestx_det import PSPNet
from torchxrayvision.baseline_models.ieee8023 import VQGAN
from torchxrayvision.baseline_models.ieee8023.net import Config, Net
from torchxrayvision.errors import ImageShapeError, StateMismatchError
from torchxrayvision.inference.engines.conversion import describe
from torchxrayvision.models import UNet
from torchxrayvision.models.base import load_strictly

TINY = Config(
    width=32,
    channels=(32, 64),
    encoder_blocks=1,
    decoder_blocks=2,
    attention=(False, True),
    code=4,
    words=32,
    word=4,
)


def tiny_vqgan(folder):
    torch.save({"state_dict": state_of(Net(TINY))}, folder / "tiny.ckpt")
    return VQGAN(ckpt_path=str(folder / "tiny.ckpt"))


def filled(build, residual=".bn3."):
    with torch.device("meta"):
        net = build()
    load_strictly(net, state_of(net, residual=residual), "synthetic")
    return net.eval()


BUILDERS = {
    "autoencoder": lambda _: filled(ResNetAE50),
    "pspnet": lambda _: filled(lambda: PSPNet(weights=False), ".cb3."),
    "unet": lambda _: filled(lambda: UNetResNet50(weights=False)),
    "vqgan": tiny_vqgan,
    "compact-unet": lambda _: filled(lambda: UNet(targets=["Heart", "Spine"], width=4)),
}
# Input, output and channels: the autoencoder takes images as they are, and its output is smaller
# where a stage rounds down.
SIDES = {
    "autoencoder": (None, 32, 1),
    "pspnet": (64, 64, 14),
    "unet": (64, 64, 159),
    "compact-unet": (48, 48, 2),
}
# A codebook learns from a loss of its own; nothing reaches it through the image.
OUT_OF_REACH = {"model.quantize.embedding.weight"}
AUXILIARY = {"convbnrelu4_aux", "aux_cls"}  # a head of training, kept for state dicts of 1.5.7


@pytest.fixture(scope="module", params=list(BUILDERS))
def model(request, tmp_path_factory):
    net = BUILDERS[request.param](tmp_path_factory.mktemp(request.param))
    net.input_resolution, net.side, net.channels = SIDES.get(request.param, (32, 32, 1))
    net.weights = "mine"
    return net


def images(count, size=80, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, size, size, generator=generator) * 2048 - 1024


def run(model, x):
    result = model(x)
    return result["out"] if isinstance(result, dict) else result


def quiet(model, x):
    with torch.no_grad():
        return run(model, x)


def assert_close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-4 * theirs.abs().mean().item(), rtol=1e-4)


@pytest.mark.parametrize("size", [32, 100])
def test_any_square_size_gives_maps_of_one_size(model, size):
    side = 128 if size == 100 and not model.resizes else model.side
    expected = (2, model.channels, side, side)
    assert quiet(model, images(2, size)).shape == expected


def test_other_than_square_is_refused(model):
    with pytest.raises(ImageShapeError, match="crop"):
        model(torch.zeros(1, 1, 64, 70))


def test_loaded_models_are_in_evaluation_mode(model):
    assert not model.training


def test_a_batch_gives_what_single_images_give(model):
    x = images(3)
    singles = torch.cat([quiet(model, x[i : i + 1]) for i in range(3)])
    assert_close(quiet(model, x), singles)


def test_predictions_are_named_maps(model):
    with torch.no_grad():
        prediction = model.predict(images(2))
    assert prediction.kind == ("mask" if model.channels > 1 else "image")
    assert list(prediction.values) == model.targets
    for values in prediction.values.values():
        assert values.shape == (2, model.side, model.side)
        assert torch.isfinite(values).all()
        assert prediction.kind == "image" or ((values >= 0) & (values <= 1)).all()


def test_an_exported_file_says_what_it_gives(model):
    said = describe(model, model.side)["outputs"]
    kind = "logit" if model.channels > 1 else "image"
    with torch.no_grad():
        given = model(images(1))
    if isinstance(given, dict):
        assert said == {"z": "code", "out": kind}
        assert list(given) == list(said)
    else:
        assert said == {"outputs": kind}


def test_embeddings_are_vectors(model):
    with torch.no_grad():
        features = model.embed(images(2))
    assert features.shape[0] == 2
    assert features.dim() == 2


def test_gradients_reach_every_parameter_and_the_input(model):
    net = copy.deepcopy(model).train()
    x = images(2).requires_grad_()
    run(net, x).square().mean().backward()
    without = {name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()}
    without = {name for name in without if not AUXILIARY & set(name.split("."))}
    assert without - OUT_OF_REACH == set()
    assert x.grad.abs().sum() > 0


def test_full_backward_hooks_on_every_layer_work(model):
    net = copy.deepcopy(model).requires_grad_(False)
    seen = set()
    layers = {n: m for n, m in net.named_modules() if next(m.children(), None) is None}
    layers = {n: m for n, m in layers.items() if list(m.parameters()) and "embedding" not in n}
    layers = {n: m for n, m in layers.items() if not AUXILIARY & set(n.split("."))}
    for name, module in layers.items():
        module.register_full_backward_hook(lambda *_, name=name: seen.add(name))
    run(net, images(1).requires_grad_()).sum().backward()
    assert seen == set(layers)


def test_a_forward_hook_sees_what_the_layer_gave(model):
    kept = []
    norms = (torch.nn.BatchNorm2d, torch.nn.GroupNorm)
    handles = [
        module.register_forward_hook(lambda *a: kept.append((a[2], a[2].sum())))
        for module in model.modules()
        if isinstance(module, norms)
    ]
    quiet(model, images(1))
    for handle in handles:
        handle.remove()
    assert kept
    assert all(torch.equal(out.sum(), total) for out, total in kept)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_floating_dtypes_follow(model, dtype):
    net = copy.deepcopy(model).to(dtype)
    out = quiet(net, images(1).to(dtype))
    assert out.dtype == dtype
    assert torch.isfinite(out).all()
    if dtype == torch.float64:
        assert_close(out.float(), quiet(model, images(1)))


def test_export_gives_the_same_outputs(model):
    net = copy.deepcopy(model).requires_grad_(False)
    batch = torch.export.Dim("batch", min=1, max=16)
    exported = torch.export.export(net, (images(2),), dynamic_shapes={"x": {0: batch}})
    assert_close(quiet(exported.module(), images(3)), quiet(model, images(3)))


def test_models_pickle_with_their_state(model):
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(quiet(again, images(1)), quiet(model, images(1)))
    assert again.targets == model.targets
    assert list(again.state_dict()) == list(model.state_dict())


def test_wrong_tensors_are_refused_by_name_and_nothing_is_loaded(model):
    state = dict(model.state_dict())
    before = quiet(model, images(1))
    first, *_, last = (name for name in state if not name.endswith("tracked"))
    state["stranger"] = state.pop(first)
    state[last] = torch.zeros(7)
    with pytest.raises(StateMismatchError, match="stranger") as caught:
        load_strictly(model, state, "file.pt")
    assert caught.value.missing == (first,)
    assert caught.value.unexpected == ("stranger",)
    assert list(caught.value.shapes) == [last]
    assert torch.equal(quiet(model, images(1)), before)


def test_calling_changes_no_random_state(model):
    before = torch.random.get_rng_state()
    quiet(model, images(1))
    assert torch.equal(before, torch.random.get_rng_state())


def test_an_untrained_model_predicts_nothing(model):
    if isinstance(model, VQGAN):
        pytest.skip("it has no untrained form: its sizes come from the tensors")
    net = copy.copy(model)
    net.weights = None
    assert net.predict(images(1)).values == {}

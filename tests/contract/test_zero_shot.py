"""What every zero-shot network promises. A new one is added to BUILDERS and nothing else."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch.func import vmap

from torchxrayvision.errors import ImageShapeError, StateMismatchError
from torchxrayvision.models import ZeroShot, list_models, load_strictly
from torchxrayvision.weights import list_weights

pytest.importorskip("timm", reason="image encoders are timm's: extra zero-shot")

NAMES = ("chexficient-base14", "clip-base16", "siglip-so400m14")
BUILDERS = {name: lambda n=name: ZeroShot(architecture=f"{n}-width64-depth2") for name in NAMES}


def images(count, size=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, size, size, generator=generator) * 2048 - 1024


@pytest.fixture(scope="module", params=list(BUILDERS))
def model(request):
    torch.manual_seed(0)
    net = BUILDERS[request.param]().eval()
    with torch.no_grad():
        for value in net.body.parameters():
            value.add_(torch.randn_like(value) * 0.05)
    # Texts need the tokeniser of a release; their vectors stand here for three findings.
    vectors = torch.nn.functional.normalize(torch.randn(2, 3, net.features_width), dim=2)
    net.positive, net.negative = vectors
    net.targets = ["Effusion", "Edema", "No Finding"]
    return net


def test_every_network_is_tested():
    published = {entry.name for entry in list_weights()}
    listed = {name for name in list_models() if name in NAMES}
    assert listed == set(BUILDERS)
    assert {e.architecture for e in list_weights() if e.output == "similarity"} == set(BUILDERS)
    assert published & {"chexficient", "xrayclip", "medsiglip-448"} == {
        "chexficient", "xrayclip", "medsiglip-448",
    }  # fmt: skip


def test_scores_are_a_rising_function_of_similarities(model):
    raw = model(images(2), output="similarity")
    scores = model(images(2))
    assert scores.shape == raw.shape == (2, 3)
    assert ((scores > 0) & (scores < 1)).all()
    assert raw.abs().max() <= 2
    assert torch.equal(scores.argsort(0), raw.argsort(0))


def test_a_batch_gives_what_single_images_give(model):
    x = images(3)
    singles = torch.cat([model(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(model(x), singles, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [32, 129])
def test_any_square_size_is_taken(model, size):
    assert model(images(1, size)).shape == (1, 3)


def test_other_than_square_is_refused(model):
    with pytest.raises(ImageShapeError, match="crop"):
        model(torch.zeros(1, 1, 64, 70))


def test_embeddings_are_directions(model):
    features = model.embed(images(2))
    assert features.shape == (2, model.features_width)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2))


def test_gradients_reach_the_input_and_the_image_encoder(model):
    net = copy.deepcopy(model)
    x = images(2).requires_grad_()
    net(x, output="similarity").square().sum().backward()
    without = [n for n, p in net.body.named_parameters() if p.grad is None or not p.grad.any()]
    # Where a token is pooled, the last bias of keys cancels in the softmax; nothing else does.
    assert not without
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_floating_dtypes_follow(model, dtype):
    net = copy.deepcopy(model).to(dtype)
    out = net(images(1).to(dtype), output="similarity")
    assert out.dtype == dtype
    reference = model(images(1), output="similarity")
    torch.testing.assert_close(out.float(), reference, atol=0.05, rtol=0)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap_gives_what_a_batch_gives(model):
    x = images(2)
    mapped = vmap(lambda image: model(image[None])[0])(x)
    torch.testing.assert_close(mapped, model(x), atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("fresh_compiler")
def test_compile_without_a_code_generator_traces_whole(model):
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images(2)), model(images(2)))


def test_models_pickle_and_copy(model):
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(again(images(1)), model(images(1)))
        assert again.targets == model.targets


def test_wrong_tensors_are_refused_by_name(model):
    net = copy.deepcopy(model)
    state = dict(net.state_dict())
    first = next(iter(state))
    state["stranger"] = state.pop(first)
    with pytest.raises(StateMismatchError) as caught:
        load_strictly(net, state, "file.safetensors")
    assert caught.value.missing == (first,)
    assert caught.value.unexpected == ("stranger",)


def test_calling_changes_no_random_state(model):
    before = torch.random.get_rng_state()
    model(images(1))
    assert torch.equal(before, torch.random.get_rng_state())

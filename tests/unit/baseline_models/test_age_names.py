"""Tensors of a scripted network, whatever its attributes are called."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from support.baselines import described, shapes_of, values
from torchxrayvision.baseline_models import riken
from torchxrayvision.baseline_models.riken import names as _names
from torchxrayvision.baseline_models.riken import net as _net
from torchxrayvision.checkpoints.read import read_tensors
from torchxrayvision.errors import StateMismatchError
from torchxrayvision.models.base import load_strictly

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*torch.jit.*:FutureWarning",  # archives are made here as the release's was
    "ignore:.*torch.jit.*:DeprecationWarning",
)

LAYERS = (1, 2, 1, 1)


class Wrapped(nn.Module):
    """The network below a name."""

    def __init__(self, net):
        super().__init__()
        self.model = net

    def forward(self, x):
        return self.model(x)


class Fastai(nn.Sequential):
    """The names of a fastai learner: positions in a body and in a head."""

    def __init__(self, net):
        stages = (net.layer0, net.layer1, net.layer2, net.layer3, net.layer4)
        super().__init__(nn.Sequential(*stages), nn.Sequential(Pool(), nn.Flatten(), *net.head))


class Pool(nn.Module):
    def forward(self, x):
        pool = nn.functional
        return torch.cat([pool.adaptive_max_pool2d(x, 1), pool.adaptive_avg_pool2d(x, 1)], 1)


class Port(nn.Module):
    """The names of ports of the Caffe release, and one layer at the end."""

    def __init__(self, net):
        super().__init__()
        for stage in range(5):
            setattr(self, f"layer{stage}", getattr(net, f"layer{stage}"))
        self.last_linear = net.head[1]

    def forward(self, x):
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.layer0(x)))))
        return self.last_linear(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Foreign(nn.Module):
    """Names that nobody foresaw, in the order of the network."""

    def __init__(self, net):
        super().__init__()
        self.alpha, self.beta = net.layer0, net.layer1
        self.gamma, self.delta, self.epsilon = net.layer2, net.layer3, net.layer4
        self.zeta = net.head

    def forward(self, x):
        x = self.epsilon(self.delta(self.gamma(self.beta(self.alpha(x)))))
        return self.zeta(Pool()(x).flatten(1))


def network(head):
    with torch.device("meta"):  # drawing random tensors takes longer than all else here
        net = _net.Network(LAYERS, head())
    load_strictly(net, values("riken", shapes_of(net)), "synthetic")
    return net.eval()


def concat(hidden):
    return lambda: _net.concat_head(hidden)


@pytest.fixture(autouse=True)
def _shallow(monkeypatch):
    monkeypatch.setattr(riken, "LAYERS", LAYERS)


def scripted(module, folder):
    path = folder / "age.pt"
    torch.jit.trace(module, torch.zeros(1, 3, 64, 64), check_trace=False).save(path)
    return path


@pytest.mark.parametrize(
    ("head", "wrap"),
    [
        (concat(128), Wrapped),
        (concat(512), Fastai),
        (_net.plain_head, Port),
        (concat(512), Foreign),
    ],
    ids=["below a name", "fastai", "port", "by position"],
)
def test_archive_is_read_under_any_names(head, wrap, tmp_path):
    net = network(head)
    module = wrap(net).eval()
    path = scripted(module, tmp_path)
    assert read_tensors(path).container == "torchscript"
    entry = described("riken-age-senet154", path)
    model = riken.AgeModel(weights=entry, cache_dir=str(tmp_path))
    model.input_resolution = 64
    x = torch.linspace(-1024, 1024, 64 * 64).reshape(1, 1, 64, 64)
    with torch.no_grad():
        expected = module(model.prepare(x))
        torch.testing.assert_close(model(x), expected)
    assert model.trained == (True,)
    for name, value in net.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(model.model.state_dict()[name], value), name


def test_archive_of_another_network_is_refused_with_names(tmp_path):
    class Shorter(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.layer0 = net.layer0

        def forward(self, x):
            return self.layer0(x)

    path = scripted(Shorter(network(concat(512))), tmp_path)
    entry = described("riken-age-senet154", path)
    with pytest.raises(StateMismatchError) as caught:
        riken.AgeModel(weights=entry, cache_dir=str(tmp_path))
    assert "layer1.0.conv1.weight" in caught.value.missing


def test_counters_that_an_archive_leaves_out_are_not_missed():
    net = network(concat(8))
    kept = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    named = _names.own_names(kept, net)
    assert named.keys() == net.state_dict().keys()


def test_positions_are_not_trusted_where_a_shape_differs():
    net = network(concat(8))
    foreign = {
        f"x{i}.{k.rpartition('.')[2]}": v for i, (k, v) in enumerate(net.state_dict().items())
    }
    assert _names.own_names(foreign, net).keys() == net.state_dict().keys()
    first = next(iter(foreign))
    foreign[first] = torch.zeros(3)
    assert _names.own_names(foreign, net).keys() == foreign.keys()


def test_published_network_has_the_parameters_of_its_paper():
    with torch.device("meta"):
        net = _net.Network(_net.LAYERS, nn.Sequential(nn.Dropout(), nn.Linear(2048, 1000)))
    assert sum(p.numel() for p in net.parameters()) == 115_088_984

"""The zip of the CheXpert ensemble: which members, which outputs, and what is refused."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
import torch

from support.baselines import CHEXPERT_TASKS
from torchxrayvision.baseline_models import chexpert
from torchxrayvision.baseline_models.chexpert import archive as _archive
from torchxrayvision.baseline_models.chexpert import net as _net
from torchxrayvision.errors import CheckpointError, UnknownNameError
from torchxrayvision.models.densenet import dense_features

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "baselines.json").read_text())


def features():
    return dense_features(8, (1, 1, 1, 1), 16, in_channels=3)


@pytest.fixture(autouse=True)
def _shallow(monkeypatch):
    """Members of four layers instead of 121."""

    monkeypatch.setattr(_net, "densenet121_features", features)
    monkeypatch.setattr(_net, "_CHANNELS", features()[-1].num_features)


def member(group, **changes):
    outputs = len(CHEXPERT_TASKS) * (3 if group.three_class else 1)
    net = torch.nn.Module()
    net.features = features()
    net.classifier = torch.nn.Linear(net.features[-1].num_features, outputs)
    state = {f"module.model.{k}": v for k, v in net.state_dict().items()}
    tasks = {name: place for place, name in enumerate(CHEXPERT_TASKS)}
    return {"ckpt_info": {}, "model_state": state, "task_sequence": tasks} | changes


def write(path, contents, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in contents.items():
            stream = io.BytesIO()
            torch.save(content, stream)
            archive.writestr(name, stream.getvalue())
    return path


def contents(num_models, **changes):
    return {
        name: member(group, **changes)
        for group in _net.GROUPS
        for name in _archive.member_names(group)[:num_models]
    }


def x(count=2):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 1, 64, 64, generator=generator) * 2048 - 1024


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "all.zip", contents(2))


def test_members_are_those_that_157_opens_in_its_order():
    names = [name for group in _net.GROUPS for name in _archive.member_names(group)]
    assert names == GOLDEN["chexpert"]["members"]
    assert len(set(names)) == 90


def test_ensemble_is_a_module_that_moves_and_trains(path):
    model = chexpert.DenseNet(path, num_models=2)
    assert not model.training
    assert len(model.members) == 6
    assert sum(p.numel() for p in model.parameters()) > 0
    assert model.to(torch.float64)(x().double()).dtype == torch.float64
    assert model.weights_filename_local == str(path)


def test_reading_members_for_each_batch_gives_the_same(path):
    kept = chexpert.DenseNet(path, num_models=2)
    streamed = chexpert.DenseNet(path, num_models=2, keep="zip")
    assert not list(streamed.parameters())
    with torch.no_grad():
        torch.testing.assert_close(streamed(x()), kept(x()))
        torch.testing.assert_close(streamed.features(x()), kept.features(x()))
    assert all(streamed.trained)


def test_streaming_holds_one_member_at_a_time(path, monkeypatch):
    import gc
    import weakref

    alive = []
    read = _archive.Archive.read

    def counting(self, group, name):
        gc.collect()
        assert sum(ref() is not None for ref in alive) <= 1
        made = read(self, group, name)
        alive.append(weakref.ref(made))
        return made

    model = chexpert.DenseNet(path, num_models=2, keep="zip")
    monkeypatch.setattr(_archive.Archive, "read", counting)
    with torch.no_grad():
        model(x(1))
    assert len(alive) == 6


def test_fewer_models_are_the_first_of_each_group(path):
    full = chexpert.DenseNet(path, num_models=2)
    one = chexpert.DenseNet(path, num_models=1)
    expected = torch.cat([m(one.prepare(x())) for m in list(full.members)[::2]], 1)
    torch.testing.assert_close(one(x()), expected[:, [0, 2, 4, 1, 3]])


def test_three_classes_weigh_positive_against_uncertain():
    group = _net.GROUPS[1]
    assert group.rows({"Cardiomegaly": 1, "Pleural Effusion": 4}) == [4, 5, 13, 14]
    net = _net.Member(group, 15)
    net.rows.copy_(torch.tensor([4, 5, 13, 14]))
    logits = torch.randn(3, 15)
    net.classifier = torch.nn.Identity()
    net.embed = lambda _: logits
    expected = torch.stack([(logits[:, 5] - logits[:, 4]), (logits[:, 14] - logits[:, 13])], 1)
    torch.testing.assert_close(net(None), expected.sigmoid())


def test_without_a_zip_the_error_says_where_to_get_it():
    with pytest.raises(CheckpointError, match="academictorrents"):
        chexpert.DenseNet()


@pytest.mark.parametrize("count", [0, 31])
def test_number_of_models_is_checked(count):
    with pytest.raises(UnknownNameError, match="num_models"):
        chexpert.DenseNet(None, num_models=count)


def test_unknown_way_of_keeping_is_refused():
    with pytest.raises(UnknownNameError, match="memory"):
        chexpert.DenseNet(None, keep="disk")


def test_missing_zip_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.zip"):
        chexpert.DenseNet(tmp_path / "none.zip")


@pytest.mark.parametrize("keep", ["memory", "zip"])
def test_zip_of_something_else_is_refused_with_the_member_it_lacks(tmp_path, keep):
    other = write(tmp_path / "other.zip", {"a.pt": {"weight": torch.zeros(1)}})
    with pytest.raises(CheckpointError, match=r"iter_336000.*a\.pt"):
        chexpert.DenseNet(other, keep=keep)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_sequence": {"Edema": 0}}, "task_sequence"),
        ({"task_sequence": dict.fromkeys(CHEXPERT_TASKS, 0)}, "task_sequence"),
        ({"model_state": {"module.model.features.conv0.weight": torch.zeros(1)}}, "missing"),
        ({"model_state": {"features.conv0.weight": torch.zeros(1)}}, "model"),
    ],
    ids=["too few findings", "two in one place", "other tensors", "other prefix"],
)
def test_member_that_is_another_network_is_refused_by_name(tmp_path, changes, message):
    wrong = write(tmp_path / "wrong.zip", contents(1, **changes))
    with pytest.raises(CheckpointError, match=message):
        chexpert.DenseNet(wrong, num_models=1)


def test_damaged_member_is_refused(tmp_path):
    path = write(tmp_path / "all.zip", contents(1), zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[5000:5100] = b"\0" * 100
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"all\.zip"):
        chexpert.DenseNet(path, num_models=1)

import copy
from collections import OrderedDict

import pytest
import torch

from support.networks import published, synthetic, write
from torchxrayvision.errors import CheckpointError, StateMismatchError, UnknownNameError
from torchxrayvision.models import (
    DenseNet,
    ResNet,
    UNet,
    get_densenet_params,
    get_model,
    get_weights,
    list_models,
    load_checkpoint,
)
from torchxrayvision.weights import list_weights

SMALL = {"growth_rate": 8, "block_config": (2, 2, 2, 2), "num_init_features": 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def chex(folder):
    return published("densenet121-res224-chex", folder)


@pytest.fixture(scope="module")
def dense(chex, folder):
    return DenseNet(weights=chex, cache_dir=str(folder))


def film():
    return torch.linspace(-1024, 1024, 224 * 224).reshape(1, 1, 224, 224)


def test_loaded_model_carries_the_facts_of_its_weights(dense, chex):
    assert dense.targets == dense.pathologies == list(chex.targets)
    assert dense.input_resolution == 224
    assert not dense.training
    assert repr(dense) == "XRV-DenseNet121-densenet121-res224-chex"
    assert dense.default_output == "operating-point"


def test_untrained_outputs_are_marked_and_constant(dense, chex):
    assert dense.trained == tuple(chex.trained)
    assert sum(dense.trained) == 11
    values = dense(film())[0]
    assert all(values[i] == 0.5 for i, known in enumerate(dense.trained) if not known)


def test_loading_draws_no_random_number_and_keeps_parameters_real(chex, folder):
    before = torch.random.get_rng_state()
    model = DenseNet(weights=chex, cache_dir=str(folder))
    assert torch.equal(before, torch.random.get_rng_state())
    assert not any(p.is_meta for p in [*model.parameters(), *model.buffers()])


def test_loaded_parameters_can_be_trained(chex, folder):
    model = DenseNet(weights=chex, cache_dir=str(folder)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    before = model.classifier.weight.clone()
    model(film(), output="logit").sum().backward()
    optimizer.step()
    assert not torch.equal(model.classifier.weight, before)
    again = DenseNet(weights=chex, cache_dir=str(folder))
    assert torch.equal(again.classifier.weight, before)


def test_users_of_157_may_drop_the_calibration(dense):
    model = copy.deepcopy(dense)
    model.op_threshs = None
    torch.testing.assert_close(model(film()), dense(film(), output="logit"))
    model.apply_sigmoid = True
    torch.testing.assert_close(model(film()), dense(film(), output="probability"))


def test_users_of_157_may_replace_the_classifier(dense):
    model = copy.deepcopy(dense)
    model.classifier = torch.nn.Linear(1024, 1)
    model.op_threshs = None
    assert model(film()).shape == (1, 1)


def test_chosen_output_and_points_override_those_of_the_weights(chex, folder):
    points = torch.full((18,), 0.25)
    model = DenseNet(weights=chex, cache_dir=str(folder), op_threshs=points, output="probability")
    assert model.default_output == "probability"
    assert torch.equal(model.op_threshs, points)


def test_resnet_points_are_corrected_unless_157_is_asked_for(folder):
    entry = published("resnet50-res512-all", folder)
    model = ResNet(weights=entry, cache_dir=str(folder))
    compat = ResNet(weights=entry, cache_dir=str(folder), compat="xrv-1.5")
    assert compat.op_threshs[0] == pytest.approx(0.51570356)
    assert model.op_threshs[0] == pytest.approx(0.0628, abs=1e-4)
    torch.testing.assert_close(model.op_threshs.sigmoid(), compat.op_threshs, equal_nan=True)
    torch.testing.assert_close(
        model(film(), output="probability"), compat(film(), output="probability")
    )


def test_features_have_the_shapes_of_157(dense):
    assert dense.features(film()).shape == (1, 1024, 7, 7)
    assert dense.features2(film()).shape == (1, 1024)
    assert ResNet().features(film()).shape == (1, 2048)
    assert len(DenseNet().state_dict()) == 727
    assert sum(p.numel() for p in DenseNet().parameters()) == 6_966_034
    assert sum(p.numel() for p in ResNet().parameters()) == 23_538_642
    assert len(ResNet().model.state_dict()) == 320


def test_older_resize_route_is_available_by_name(chex, folder):
    x = torch.rand(1, 1, 300, 300, generator=torch.Generator().manual_seed(0)) * 2048 - 1024
    old = DenseNet(weights=chex, cache_dir=str(folder), resize_route="bilinear")
    new = DenseNet(weights=chex, cache_dir=str(folder))
    assert not torch.allclose(old(x, output="logit"), new(x, output="logit"))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: DenseNet(weights="resnet50-res512-all"), "densenet weights"),
        (lambda: ResNet(weights="all"), "resnet weights"),
        (lambda: get_model("densenet"), "densenet121-res224-all"),
        (lambda: get_densenet_params("densenet264"), "densenet121"),
        (lambda: ResNet(architecture="resnet18-widthy"), "resnet50"),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(call, match):
    with pytest.raises(UnknownNameError, match=match):
        call()


def test_unknown_compat_is_refused(chex, folder):
    with pytest.raises(UnknownNameError, match=r"xrv-1\.5"):
        DenseNet(weights=chex, cache_dir=str(folder), compat="1.5.7")


PUBLISHED = {entry.name for entry in list_weights()}


@pytest.mark.parametrize(
    "name", [n for n in list_models() if "-" not in n and n != "unet" and n not in PUBLISHED]
)
def test_bare_architectures_are_built(name):
    with torch.device("meta"):
        model = get_model(name, num_classes=2)
    assert model.head.out_features == 2


def test_a_bare_unet_takes_the_names_of_its_structures():
    assert get_model("unet", targets=["Heart"], width=4).targets == ["Heart"]


def test_widths_are_part_of_an_architecture():
    net = ResNet(architecture="resnet34-width16", num_classes=2)
    assert net.model.conv1.out_channels == 16
    assert net.head.in_features == 128
    assert sum(len(getattr(net.model, f"layer{i}")) for i in (1, 2, 3, 4)) == 16


def test_other_unets_are_refused_by_the_compact_one():
    with pytest.raises(UnknownNameError, match="demo-anatomy"):
        UNet(weights="chestx_anatomy-unet-resnet50")
    with pytest.raises(UnknownNameError, match="model"):
        get_model("chestx_anatomy-unet-resnet50")


def test_weights_are_fetched_without_a_model(folder, monkeypatch, chex):
    monkeypatch.setattr("torchxrayvision.models.factory.get_entry", lambda _: chex)
    assert get_weights("chex", cache_dir=str(folder)) == str(folder / chex.file.filename)


def states(model):
    plain = OrderedDict(model.state_dict())
    return {
        "state_dict": plain,
        "nested": {"state_dict": plain, "epoch": 3},
        "lightning": {"state_dict": {f"model.{k}": v for k, v in plain.items()}, "epoch": 3},
        "dataparallel": {f"module.{k}": v for k, v in plain.items()},
        "module": model,
        "wrapped module": torch.nn.DataParallel(model),
    }


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("container", list(states(torch.nn.Identity())))
def test_own_checkpoint_loads_from_every_container(container, legacy, tmp_path):
    model = synthetic(DenseNet(num_classes=4))
    path = tmp_path / "mine.pt"
    torch.save(states(model)[container], path, _use_new_zipfile_serialization=not legacy)
    loaded = load_checkpoint(path, targets=["a", "b", "c", "d"])
    torch.testing.assert_close(loaded(film()), model(film(), output="probability"))
    assert loaded.targets == ["a", "b", "c", "d"]
    assert all(loaded.trained)
    assert not loaded.training


def test_own_checkpoint_may_take_the_place_of_published_weights(tmp_path, chex):
    path = write("densenet121-res224-chex", tmp_path)
    loaded = load_checkpoint(path, weights="chex")
    assert loaded.targets == list(chex.targets)
    assert loaded.default_output == "operating-point"


def test_saved_state_of_a_calibrated_model_loads(dense, tmp_path):
    path = tmp_path / "calibrated.pt"
    torch.save(dense.state_dict(), path)
    torch.testing.assert_close(load_checkpoint(path)(film()), dense(film(), output="probability"))


@pytest.mark.parametrize("name", ["densenet169", "resnet101"])
def test_architecture_is_recognised(name, tmp_path):
    path = tmp_path / "deep.pt"
    torch.save(get_model(name, num_classes=1).state_dict(), path)
    assert sum(p.numel() for p in load_checkpoint(path).parameters()) == sum(
        p.numel() for p in get_model(name, num_classes=1).parameters()
    )


def test_other_networks_are_refused_with_what_was_found(tmp_path):
    path = tmp_path / "other.pt"
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(CheckpointError, match="weight"):
        load_checkpoint(path)


def test_checkpoint_of_another_size_does_not_take_the_place(tmp_path):
    path = tmp_path / "four.pt"
    torch.save(DenseNet(num_classes=4).state_dict(), path)
    with pytest.raises(StateMismatchError, match=r"classifier\.bias \(4,\) instead of \(18,\)"):
        load_checkpoint(path, weights="all")

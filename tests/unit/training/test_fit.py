"""What a run leaves behind, and what it refuses."""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import math
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from support.training_runs import NAMES, data, parts, recipe, run, tiny_net
from torchxrayvision import evaluation, provenance
from torchxrayvision.checkpoints import read_tensors
from torchxrayvision.datasets import Phantom_Dataset, SubsetDataset
from torchxrayvision.errors import DatasetError, DependencyError, RecipeError, UnknownNameError
from torchxrayvision.files import sha256_of
from torchxrayvision.models import DenseNet, add_weights, load_checkpoint
from torchxrayvision.training import (
    Augmentation,
    ImageCache,
    Loss,
    Optimiser,
    PreparedImages,
    Recipe,
    Schedule,
    Source,
    Split,
    few_shot,
    fit,
    linear_probe,
    prepare,
)
from torchxrayvision.training.images.prepared import from_stored
from torchxrayvision.training.module import Training
from torchxrayvision.training.network import network_of
from torchxrayvision.training.objectives import auroc_of
from torchxrayvision.training.reports import split_table
from torchxrayvision.training.state import pack, unpack


def fit_quickly(out, train=None, validation=None, *, network=None, **changes):
    train = parts()[0] if train is None else train
    usual = {"epochs": 1, "ema": 0.0, "patience": 0, "augmentation": Augmentation()}
    return fit(
        recipe(**{**usual, **changes}), train, validation, out=out, network=network, progress=False
    )


def test_a_run_learns_and_says_what_it_did(tmp_path):
    before = list(warnings.filters)
    level = logging.getLogger("lightning.pytorch").level
    result = run(
        tmp_path, resume=False, epochs=12, optimiser=Optimiser(lr=0.05), loggers=("csv",),
        net={"dropout": 0.0}, augmentation=Augmentation(), ema=0.0,
    )  # fmt: skip
    assert list(warnings.filters) == before
    assert logging.getLogger("lightning.pytorch").level == level
    assert result.auroc["Mass"] > 0.95
    assert result.mean_auroc == max(figures["val_auroc"] for figures in result.history)
    described = json.loads((tmp_path / "best.json").read_text())
    assert described["targets"] == list(NAMES)
    assert described["input_resolution"] == 16
    assert described["metrics"]["val_auroc"] == pytest.approx(result.mean_auroc)
    assert described["recipe"]["epochs"] == 12
    assert described["data"]["train"]["images"] == 28
    with (tmp_path / "csv" / "version_0" / "metrics.csv").open() as file:
        logged = [row["val_auroc"] for row in csv.DictReader(file) if row["val_auroc"]]
    assert len(logged) == result.epochs


def test_the_callers_generators_are_left_alone(tmp_path):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    fit_quickly(tmp_path, network=tiny_net())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


def test_weights_load_with_targets_and_resolution(tmp_path, monkeypatch):
    result = fit_quickly(tmp_path, model="resnet18-width32", batch_size=14)
    assert result.best == result.last
    assert result.mean_auroc != result.mean_auroc
    model = load_checkpoint(result.last)
    assert model.targets == list(NAMES)
    assert model.input_resolution == 16
    assert not model.training
    images = torch.full((1, 1, 16, 16), -1024.0)
    assert model(images).shape == (1, 2)
    again = network_of(recipe(weights=str(result.last), model="resnet18-width32"), NAMES)
    assert torch.equal(again.head.weight, model.head.weight)
    fewer = network_of(recipe(weights=str(result.last), model="resnet18-width32"), ["Hernia"])
    assert fewer.targets == ["Hernia"]
    monkeypatch.setenv("XRV_CACHE_DIR", str(tmp_path / "cache"))
    add_weights(result.last, "mine")  # a name of one's own is a name of weights
    named = network_of(recipe(model="mine"), NAMES)
    assert torch.equal(named.head.weight, model.head.weight)
    assert network_of(recipe(model="mine"), ["Hernia"]).targets == ["Hernia"]
    with pytest.raises(RecipeError, match="hold a ResNet"):
        network_of(recipe(weights=str(result.last), model="densenet121"), NAMES)


@pytest.mark.parametrize("name", ["torchvision:mobilenet_v3_small", "timm:resnet10t"])
def test_backbones_of_other_libraries_come_back(tmp_path, name):
    if name.startswith("timm"):
        pytest.importorskip("timm")
    result = fit_quickly(tmp_path, model=name, resolution=32, train=data(8, size=32))
    model = load_checkpoint(result.last)
    assert model.architecture == name
    assert model(torch.full((1, 1, 40, 40), -1024.0)).shape == (1, 2)


def test_the_same_seed_gives_the_same_network_and_another_does_not():
    one, two, other = (
        network_of(recipe(model="resnet18-width32", seed=seed), NAMES).head.weight
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_head_only_leaves_features_and_their_statistics(tmp_path):
    net = tiny_net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    result = fit_quickly(tmp_path, network=net, trainable="head", optimiser=Optimiser(lr=0.1))
    after = read_tensors(result.last).tensors
    for name, value in before.items():
        assert torch.equal(after[name], value) != name.startswith("classifier"), name


@pytest.mark.parametrize("precision", ["bf16-mixed"])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_optimisers_and_precisions_run(tmp_path, name, precision):
    result = fit_quickly(
        tmp_path, *parts(), network=tiny_net(), precision=precision,
        optimiser=Optimiser(name=name, clip=1.0), augmentation=Augmentation(mixup=0.3),
        loss=Loss(positive_weights="sqrt", smoothing=0.1), loggers=("tensorboard",),
    )  # fmt: skip
    assert math.isfinite(result.history[0]["val_loss"])
    assert list(tmp_path.glob("tensorboard/version_0/events*"))


def test_labels_that_are_no_probability_are_refused(tmp_path):
    images, labels = parts()[0].batch(range(28))
    labels[3, 0] = -1  # uncertain, in the tables of some releases
    odd = PreparedImages(images, labels, NAMES)
    with pytest.raises(DatasetError, match=r"got \[-1.0\] for Mass; make them NaN"):
        fit_quickly(tmp_path / "a", odd, None, network=tiny_net())
    labels[3, 0] = 0.4
    soft = PreparedImages(images, labels, NAMES)
    fit_quickly(tmp_path / "b", soft, parts()[1], network=tiny_net())
    with pytest.raises(DatasetError, match=r"got \[0.4"):
        fit_quickly(tmp_path / "c", parts()[0], soft, network=tiny_net())
    features = np.zeros((28, 2))
    for probe in (
        lambda: linear_probe(features, labels, NAMES),
        lambda: few_shot(features, labels, NAMES, (features, labels)),
    ):
        with pytest.raises(DatasetError, match="for Mass"):
            probe()


def test_images_to_judge_by_alone_are_not_ignored(tmp_path):
    with pytest.raises(RecipeError, match="give both, or neither"):
        fit(recipe(), None, parts()[1], out=tmp_path)


def test_labels_that_are_all_missing_do_no_harm(tmp_path):
    images, _ = parts()[0].batch(range(28))
    blank = PreparedImages(images, np.full((28, 2), np.nan), NAMES)
    net = tiny_net(dropout=0.0)
    result = fit_quickly(
        tmp_path, blank.subset(range(14)), blank.subset(range(14, 28)), network=net
    )
    assert math.isnan(result.mean_auroc)
    assert all(bool(torch.isfinite(v).all()) for v in read_tensors(result.best).tensors.values())


def test_schedules_warm_up_and_fall():
    train, _ = parts()
    for kind, end in (("cosine", 0.1), ("linear", 0.1), ("constant", 1.0)):
        how = recipe(epochs=10, schedule=Schedule(kind=kind, warmup=0.2, floor=0.1))
        module = Training(tiny_net(), how, train, None, {})
        shares = [module._lr_factor(step) for step in range(71)]
        assert shares[0] == pytest.approx(1 / 14)
        assert shares[13] == pytest.approx(1)
        assert shares[70] == pytest.approx(end)
        assert max(shares) == 1


def test_the_area_agrees_with_counting_pairs():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(30, 1)), rng.integers(0, 2, (30, 1)).astype(float)
    scores[:10] = np.round(scores[:10])  # ties
    labels[::7] = np.nan
    positive, negative = scores[labels[:, 0] == 1, 0], scores[labels[:, 0] == 0, 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    found = auroc_of(torch.from_numpy(scores).float(), torch.from_numpy(labels))
    assert found == [pytest.approx(wins.mean(), abs=1e-6)]


def test_states_of_any_plain_kind_come_back():
    tensor = torch.arange(48.0).reshape(1, 3, 4, 4).to(memory_format=torch.channels_last)
    state = {"a": [1, (2.5, None)], 3: {"!": tensor}, "inf": -math.inf, "empty": {}, "t": "x"}
    tree, tensors = pack(state)
    back = unpack(json.loads(json.dumps(tree, allow_nan=False)), tensors)
    assert torch.equal(back[3]["!"], tensor)
    assert back[3]["!"].stride() == tensor.stride()
    del back[3], state[3]
    assert back == state
    with pytest.raises(ValueError, match=r"a set at 'x\.y'"):
        pack({"x": {"y": {1}}})


def phantom_recipe(**changes):
    source = Source(name="Phantom_Dataset", args={"n": 24, "size": 64})
    return Recipe(datasets=(source,), findings=("Effusion",), resolution=32, **changes)


def test_datasets_are_merged_prepared_and_split_by_patient(tmp_path):
    two = phantom_recipe().datasets * 2
    how = dataclasses.replace(phantom_recipe(split=Split(fractions=(0.5, 0.3))), datasets=two)
    train, validation = prepare(how, cache=tmp_path, workers=1)
    whole = 2 * len(Phantom_Dataset(**two[0].args))
    assert 0 < len(validation) < len(train) < whole
    assert not set(train.patient_ids.tolist()) & set(validation.patient_ids.tolist())
    assert train.names == ("Effusion",)
    assert train.size == 32


def test_findings_of_the_core_models_may_be_without_labels(tmp_path):
    how = dataclasses.replace(phantom_recipe(), findings=("Effusion", "Lung Lesion"))
    train, _ = prepare(how, cache=tmp_path, workers=1)
    assert np.isnan(train.labels[:, 1]).all()
    assert not np.isnan(train.labels[:, 0]).any()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"datasets": ()}, RecipeError, "names no dataset"),
        (
            {"findings": ("Cardiomegaly", "Efusion")},
            UnknownNameError,
            "'Efusion'; did you mean 'Effusion'",
        ),
        ({"datasets": (Source(name="Fantom"),)}, UnknownNameError, "Fantom"),
        (
            {"datasets": (Source(name="Phantom_Dataset", args={"count": 1}),)},
            RecipeError,
            "Phantom_Dataset: .*count",
        ),
        (
            {"datasets": (Source(name="Phantom_Dataset", args={"transform": "x"}),)},
            RecipeError,
            "transform does not belong",
        ),
        ({"split": Split(kind="official")}, ValueError, "no official split"),
    ],
)
def test_datasets_that_do_not_fit_are_refused(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        prepare(dataclasses.replace(phantom_recipe(), **changes), cache=tmp_path, workers=1)


def test_findings_that_are_nowhere_are_refused(tmp_path):
    with pytest.raises(ValueError, match="none of Hernia"):
        fit_quickly(tmp_path, findings=("Hernia",))
    with pytest.raises(RecipeError, match="no image is left"):
        fit_quickly(tmp_path, data().subset([]))


def test_without_lightning_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    with pytest.raises(DependencyError, match=r'extra train: pip install .*"lightning'):
        fit_quickly(tmp_path, network=tiny_net())


def test_importing_loads_no_lightning_and_no_torch_for_a_recipe():
    code = (
        "import sys; from torchxrayvision.training import Recipe, load_recipe; Recipe();"
        "import torchxrayvision.training as t; assert 'torch' not in sys.modules;"
        "t.fit, t.prepare, t.ImageCache;"
        "assert not {'lightning', 'sklearn', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_densenets_go_through_as_well():
    model = network_of(Recipe(model="densenet121", findings=("Mass",)), ["Mass"])
    assert isinstance(model, DenseNet)
    assert model.input_resolution == 224


def array(rows, ids=None, **kwargs):
    images, labels = data().batch(rows)
    return PreparedImages(images, labels, NAMES, ids, **kwargs)


def merged(tmp_path, rows, seed=0):
    dataset = Phantom_Dataset(n=30, size=32, seed=seed)
    return ImageCache.build(SubsetDataset(dataset, rows), 16, folder=tmp_path / "cache", workers=1)


@pytest.mark.parametrize("kind", ["same object", "rows", "patients", "ids", "copy", "test"])
def test_parts_with_patients_in_common_are_refused(tmp_path, kind):
    whole = data()  # two images per patient
    one, other = {
        "same object": lambda: (whole, whole),
        "rows": lambda: (whole.subset(range(20)), whole.subset(range(18, 40))),
        "patients": lambda: (whole.subset(range(19)), whole.subset(range(19, 40))),
        "ids": lambda: (array(range(4), ["a", "b", "b", "c"]), array([7, 8], ["d", "c"])),
        "copy": lambda: (array(range(4)), array(range(4))),
        "test": lambda: (whole.subset(range(20)), whole.subset(range(20, 30))),
    }[kind]()
    test = whole.subset(range(29, 40)) if kind == "test" else None
    with pytest.raises(RecipeError, match=r"have (1 patient|[0-9]+ patients|the same images)"):
        fit(recipe(), one, other, out=tmp_path, test=test, network=tiny_net())
    assert not (tmp_path / "recipe.json").exists()


def test_patients_in_common_are_seen_across_caches(tmp_path):
    patients = merged(tmp_path, range(30)).patient_ids
    apart = next(row for row in range(11, 30) if patients[row] not in patients[:row])
    first, second = merged(tmp_path, range(apart)), merged(tmp_path, range(apart, 30))
    assert first.shared_patients(second) == 0
    assert first.shared_patients(merged(tmp_path, range(apart - 1, 30))) == 1
    assert first.shared_patients(merged(tmp_path, range(30), seed=1)) == 0
    assert first.shared_patients(merged(tmp_path, range(30)).subset([0])) == 1


def test_a_number_in_the_table_of_parts_is_one_patient_in_all_of_them(tmp_path):
    parts = {"train": merged(tmp_path, range(9)), "test": merged(tmp_path, range(9), seed=1)}
    people = [images._dataset.csv["patientid"].tolist() for images in parts.values()]
    table = split_table({**parts, "again": parts["train"].subset([8])})
    assert table["part"].tolist() == ["train"] * 9 + ["test"] * 9 + ["again"]
    wanted = pd.factorize(np.array([*people[0], *people[1], people[0][8]]))[0]
    assert table["patient"].tolist() == wanted.tolist()


def test_a_run_leaves_its_split_predictions_and_intervals(tmp_path):
    whole, seen = data(60), []
    train, validation, test = (whole.subset(range(*rows)) for rows in ((28,), (28, 44), (44, 60)))
    result = fit(
        recipe(epochs=3, patience=0), train, validation, test=test, out=tmp_path,
        network=tiny_net(), progress=False, on_epoch=seen.append,
    )  # fmt: skip
    assert [figures["epoch"] for figures in seen] == [0, 1, 2]
    assert all(figures["train_loss"] > 0 for figures in seen)
    assert seen[result.best_epoch]["val_auroc"] == result.mean_auroc
    split = pd.read_csv(tmp_path / "split.csv", dtype=str)
    assert split["path"].tolist() == [str(row) for row in range(60)]
    assert split["part"].value_counts().to_dict() == {"train": 28, "validation": 16, "test": 16}
    assert split["patient"].tolist() == [str(row // 2) for row in range(60)]
    kept = tiny_net()
    kept.load_state_dict(read_tensors(result.best).tensors)
    for part, images in (("validation", validation), ("test", test)):
        predicted = pd.read_csv(tmp_path / f"predictions-{part}.csv", dtype={"path": str})
        assert predicted["path"].tolist() == images.paths
        made = provenance.read(tmp_path / f"predictions-{part}.csv")
        assert (made["command"], made["output"]) == ("xrv train", "probability")
        assert made["inputs"] == {"part": part, "images": 16}
        with torch.inference_mode():
            pixels = from_stored(torch.from_numpy(images.batch(range(16))[0]))
            expected = kept.eval()(pixels, output="probability").numpy()
        np.testing.assert_allclose(predicted[list(NAMES)], expected, atol=1e-6)
        table = result.intervals[result.intervals["part"] == part].set_index("finding")
        truth, score = images.labels[:, 0], predicted["Mass"]
        assert table.loc["Mass", "auroc"] == pytest.approx(evaluation.auroc(truth, score))
        assert ("chose the epoch" in table.loc["Mass", "note"]) == (part == "validation")
    for name in ("split.csv", "auroc.csv"):
        said = provenance.read(tmp_path / name)
        assert said["command"] == "xrv train"
        assert said["options"] == {"weights_file_sha256": sha256_of(result.best)}
    written = pd.read_csv(tmp_path / "auroc.csv")
    assert written["auroc"].tolist() == pytest.approx(result.intervals["auroc"], nan_ok=True)
    mass = result.intervals.query("part == 'validation' and finding == 'Mass'")["auroc"].item()
    assert mass == pytest.approx(result.auroc["Mass"])


def test_the_part_that_the_split_leaves_out_is_predicted_once(tmp_path):
    source = Source(name="Phantom_Dataset", args={"n": 24, "size": 32})
    wanted = recipe(
        datasets=(source,), findings=("Effusion",), split=Split(fractions=(0.5, 0.25)),
        epochs=1, patience=0, model="resnet18-width32",
    )  # fmt: skip
    result = fit(wanted, out=tmp_path / "run", cache=tmp_path / "cache", progress=False)
    split = pd.read_csv(tmp_path / "run" / "split.csv", dtype=str)
    assert set(split["part"]) == {"train", "validation", "test"}
    assert sorted(split["path"]) == sorted(set(split["path"]))
    assert len(split) == 24
    assert split.groupby("patient")["part"].nunique().max() == 1
    assert set(result.intervals["part"]) == {"validation", "test"}

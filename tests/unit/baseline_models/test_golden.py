"""Outputs of 1.5.7 on synthetic weights, recorded by tools/record_golden_baselines.py.

Each file here has the container and the names that the release has.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from support.baselines import (
    CHEXPERT_TASKS,
    SIZES,
    batch,
    described,
    ensemble_zip,
    record,
    shapes_of,
    values,
    weighing,
)
from torchxrayvision.baseline_models import chexpert, emory_hiti, jfhealthcare, mira, riken, xinario
from torchxrayvision.models.base import load_strictly

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "baselines.json").read_text())
TOLERANCE = 1e-4


def tensors_of(name, network):
    return values(name, shapes_of(network))


class Callback:
    """What a trainer of the user's own leaves in a checkpoint; nothing here imports it."""


def jfhealthcare_file(folder):
    unused = {
        "backbone.classifier.weight": (1000, 1024),
        "backbone.classifier.bias": (1000,),
        "attention_map.channel_attention.fc1.weight": (512, 1024),
        "attention_map.spatial_attention.gamma": (1,),
    }
    shapes = shapes_of(jfhealthcare.DenseNet(weights=None).model) | unused
    path = folder / "jf.pth"
    torch.save(OrderedDict(values("jfhealthcare", shapes)), path)
    return jfhealthcare.DenseNet, described("jfhealthcare-densenet121", path)


def emory_file(folder):
    network = emory_hiti.RaceModel(weights=None).model
    path = folder / "race.pt"
    torch.save({f"module.{k}": v for k, v in tensors_of("emory_hiti", network).items()}, path)
    return emory_hiti.RaceModel, described("emory_hiti-race-resnet34", path)


def mira_file(folder):
    network = mira.SexModel(weights=None).model
    state = {f"model.{k}": v for k, v in tensors_of("mira", network).items()}
    content = {
        "epoch": 13,
        "global_step": 7125,
        "callbacks": {Callback: {"best": torch.tensor(0.5)}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(4)}}, "param_groups": []}],
        "hyper_parameters": {"lr": 1e-4},
        "state_dict": OrderedDict(state),
    }
    path = folder / "sex.ckpt"
    torch.save(content, path)
    return mira.SexModel, described("mira-sex-resnet34", path)


def xinario_file(folder):
    shapes = shapes_of(xinario.ViewModel(weights=None).model)
    shapes |= {"fc.weight": (1000, 2048), "fc.bias": (1000,)}
    path = folder / "view.pt"
    torch.save(OrderedDict(values("xinario", shapes)), path)
    return xinario.ViewModel, described("xinario-view-resnet50", path)


def chexpert_file(folder):
    path = folder / "chexpert.zip"
    write_ensemble(path)
    return lambda **_: chexpert.DenseNet(path, num_models=2), None


def write_ensemble(path):
    """Two members of each group, as the recorder numbers them."""
    names = GOLDEN["chexpert"]["members"]
    untrained = chexpert.DenseNet(weights_zip=None, num_models=1).members[0]
    body = {k: v for k, v in shapes_of(untrained).items() if k.startswith("features.")}
    members = {}
    for position, (group, index) in enumerate((g, i) for g in range(3) for i in range(2)):
        outputs = len(CHEXPERT_TASKS) * (3 if group == 1 else 1)
        shapes = {
            **body,
            "classifier.weight": (outputs, 1024),
            "classifier.bias": (outputs,),
        }
        members[names[30 * group + index]] = values("chexpert", shapes, seed=position)
    ensemble_zip(path, members)


FILES = {
    "chexpert": chexpert_file,
    "jfhealthcare": jfhealthcare_file,
    "emory_hiti": emory_file,
    "mira": mira_file,
    "xinario": xinario_file,
}


@pytest.fixture(scope="module", params=list(FILES))
def case(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    build, entry = FILES[request.param](folder)
    model = build(weights=entry, cache_dir=str(folder))
    sizes = SIZES[request.param]
    found = record(model, sizes, weighing(len(model.targets)))
    return model, found, GOLDEN[request.param]


def test_outputs_equal_those_of_157_at_two_sizes_and_two_batch_sizes(case):
    _, found, golden = case
    for key in golden.keys() - {"gradient", "members"}:
        torch.testing.assert_close(
            torch.tensor(found[key]), torch.tensor(golden[key]), atol=TOLERANCE, rtol=TOLERANCE
        )


def test_gradient_to_the_input_equals_that_of_157(case):
    _, found, golden = case
    for part, value in golden["gradient"].items():
        scale = golden["gradient"]["abs"]
        assert found["gradient"][part] == pytest.approx(value, abs=1e-3 * scale), part


def test_golden_outputs_depend_on_the_image(case):
    _, _, golden = case
    first, second = next(v for k, v in golden.items() if k.startswith("2x"))
    assert max(abs(a - b) for a, b in zip(first, second, strict=True)) > 10 * TOLERANCE


def test_loaded_model_says_what_it_is(case):
    model, _, _ = case
    assert not model.training
    assert all(model.trained)
    assert not any(t.is_meta for t in [*model.parameters(), *model.buffers()])
    assert "\n" not in repr(model)
    assert Path(model.weights_filename_local).is_file()
    assert list(model.predict(torch.zeros(1, 1, 64, 64)).values) == model.targets


# --- the network of riken: 113 million parameters, so without a file, and at one size


def test_age_network_gives_what_the_network_of_its_paper_gives():
    """Recorded from 1.5.7 on an archive of timm's SENet-154 with the head of fastai."""
    golden = GOLDEN["riken"]
    with torch.device("meta"):
        model = riken.AgeModel(weights=None)
    load_strictly(model.model, tensors_of("riken", model.model), "synthetic")
    x = batch(1, 401)
    with torch.no_grad():
        found = model.eval()(x)
    torch.testing.assert_close(found, torch.tensor(golden["1x401"]), atol=TOLERANCE, rtol=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
def test_age_model_gives_outputs_and_gradients_of_157(tmp_path):
    """The same through an archive as large as the release's, at two sizes and batch sizes."""
    with torch.device("meta"):
        network = riken.AgeModel(weights=None).model
    load_strictly(network, tensors_of("riken", network), "synthetic")
    path = tmp_path / "age.pt"
    traced = torch.jit.trace(network.eval(), torch.zeros(1, 3, 64, 64), check_trace=False)
    traced.save(path)
    del network, traced
    entry = described("riken-age-senet154", path)
    model = riken.AgeModel(weights=entry, cache_dir=str(tmp_path))
    found, golden = record(model, SIZES["riken"], weighing(1)), GOLDEN["riken"]
    for key in ("1x401", "2x320"):
        torch.testing.assert_close(
            torch.tensor(found[key]), torch.tensor(golden[key]), atol=TOLERANCE, rtol=TOLERANCE
        )
    for part, value in golden["gradient"].items():
        assert found["gradient"][part] == pytest.approx(value, abs=1e-3 * golden["gradient"]["abs"])

"""Outputs of 1.5.7 on synthetic weights, recorded by tools/record_golden_models.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from support.networks import published
from support.synthetic import film
from torchxrayvision.images import read_raster
from torchxrayvision.models import DenseNet, get_model
from torchxrayvision.transforms import prepare

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "models.json").read_text())
TOLERANCE = {"operating-point": 1e-5, "logit": 2e-4, "features": 2e-4}


@pytest.fixture(scope="module", params=list(GOLDEN))
def case(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    entry = published(request.param, folder)
    model = get_model(entry, cache_dir=str(folder), compat="xrv-1.5")
    return model, GOLDEN[request.param]


def compare(model, image, expected):
    x = torch.from_numpy(image)[None]
    with torch.inference_mode():
        features = model.embed(x)
        found = {
            "operating-point": model(x)[0],
            "logit": model(x, output="logit")[0],
            "features": features[0, :8],
        }
    for kind, values in found.items():
        np.testing.assert_allclose(values, expected[kind], atol=TOLERANCE[kind], rtol=1e-5)
    assert float(features.double().sum()) == pytest.approx(expected["features_sum"], rel=1e-5)


def test_outputs_equal_those_of_157_at_and_around_the_trained_size(case):
    model, golden = case
    for key, expected in golden["arrays"].items():
        size, seed = map(int, key.split(":"))
        image = (film(size, size, seed).astype(np.float32) / 255 * 2048 - 1024)[None]
        compare(model, image, expected)


def test_gradient_to_the_input_equals_that_of_157(case):
    model, golden = case
    size = model.input_resolution
    image = (film(size, size, 1).astype(np.float32) / 255 * 2048 - 1024)[None]
    x = torch.from_numpy(image)[None].requires_grad_()
    model(x)[0, 7].backward()
    assert float(x.grad.double().abs().sum()) == pytest.approx(golden["gradient"]["abs"], rel=1e-3)
    assert float(x.grad.double().sum()) == pytest.approx(golden["gradient"]["sum"], rel=1e-2)


@pytest.mark.shared
def test_real_films_give_the_numbers_of_157(case, shared):
    model, golden = case
    for name, expected in golden["films"].items():
        raster = read_raster(shared / "samples" / name)
        image = prepare(raster.pixels, raster.scale, raster.offset, model.input_resolution)
        compare(model, image, expected)


def test_a_seed_draws_the_untrained_densenet_of_157():
    expected = GOLDEN["densenet121-res224-all"]["untrained"]
    torch.manual_seed(0)
    model = DenseNet()
    assert model.features.conv0.weight.flatten()[:4].tolist() == pytest.approx(expected["conv0"])
    drawn = model.classifier.weight.flatten()[:4].tolist()
    assert drawn == pytest.approx(expected["classifier"])
    spread = [float(p.detach().double().norm()) for p in model.parameters()]
    assert spread == pytest.approx(expected["spread"], rel=1e-6)

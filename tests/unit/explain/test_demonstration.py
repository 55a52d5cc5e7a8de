"""The pointing game on simulated radiographs with the weights that ship."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from torchxrayvision.explain import attribute, randomisation_check
from torchxrayvision.models import get_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::torchxrayvision.errors.DemonstrationWarning"),
]

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "pointing_game.py"
FILMS = 30


@pytest.fixture(scope="module")
def game():
    """The benchmark as a module, so that what is measured is written once."""
    spec = importlib.util.spec_from_file_location("pointing_game", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize("method", ["gradcam", "ig"])
@pytest.mark.parametrize("finding", ["Effusion", "Mass", "Nodule", "Cardiomegaly", "Pneumothorax"])
def test_explanations_point_into_the_finding(game, finding, method):
    (row,) = game.measure(get_model("demo"), FILMS, [finding], [method])
    assert row.accuracy >= 0.8, row
    assert row.low > row.chance, row
    assert row.random_weights < row.accuracy - 0.3, row


@pytest.mark.parametrize("method", ["gradcam", "ig"])
def test_maps_depend_on_what_the_weights_learnt(game, method):
    model = get_model("demo")
    x, _ = game.films("Effusion", 8, model.input_resolution)

    def explain(network, films, target):
        return attribute(network, films, target, method, **game.options_of(method, target))

    report = randomisation_check(model, x, "Effusion", explain)
    assert report.passed, str(report)

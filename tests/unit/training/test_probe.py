"""Probes: chosen by patient, honest about what is missing, and good as a last layer."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from support.training_runs import data, tiny_net
from torchxrayvision.autoencoders import CompactAE
from torchxrayvision.errors import DependencyError
from torchxrayvision.training import embed, few_shot, linear_probe

NAMES = ["Mass", "Edema", "Hernia"]


@pytest.fixture(scope="module")
def cases():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(160, 12)) * np.arange(1, 13) + 5
    labels = np.full((160, 3), np.nan)
    labels[:, 0] = features[:, 0] - 5 + 0.3 * rng.normal(size=160) > 0
    labels[:, 1] = rng.integers(0, 2, 160)
    labels[::4, 1] = np.nan
    labels[:, 2] = 0
    return features, labels


def test_a_finding_in_the_features_is_found_and_noise_is_not(cases):
    features, labels = cases
    probe = linear_probe(features, labels, NAMES, np.arange(160) // 2)
    assert probe.auroc[0] > 0.95
    assert abs(probe.auroc[1] - 0.5) < 0.2
    assert probe.strength[1] <= probe.strength[0]
    assert np.isnan([probe.auroc[2], probe.bias[2], probe.strength[2]]).all()
    assert ((probe.logits(features)[:, 0] > 0) == (labels[:, 0] == 1)).mean() > 0.9


def test_patients_on_both_sides_would_have_flattered():
    rng = np.random.default_rng(1)
    person = np.repeat(np.arange(30), 6)
    # Features know the patient, not the finding, which each patient has or has not.
    features = rng.normal(size=(30, 25))[person] + 0.01 * rng.normal(size=(180, 25))
    labels = rng.integers(0, 2, 30)[person].astype(float)[:, None]
    apart = linear_probe(features, labels, ["Mass"], person)
    mixed = linear_probe(features, labels, ["Mass"])
    assert mixed.auroc[0] > 0.95
    assert apart.auroc[0] < 0.8


def test_it_becomes_the_last_layer(cases):
    model, images = tiny_net(), data()
    features = embed(model, images, batch_size=7)
    assert features.shape == (40, 6)
    labels = np.column_stack([images.labels, np.zeros(40)])
    probe = linear_probe(features, labels, NAMES)
    probe.put_on(model)
    assert model.targets == ["Mass", "Edema", ""]
    pixels = torch.stack([torch.from_numpy(images[i][0]) for i in range(40)])
    with torch.inference_mode():
        logits = model(pixels, output="logit")
    np.testing.assert_allclose(logits[:, :2], probe.logits(features)[:, :2], rtol=1e-3, atol=1e-3)


def test_few_shots_get_better_with_more_cases_and_repeat(cases):
    features, labels = cases
    train, test = slice(0, 100), (features[100:], labels[100:])
    how = {"shots": (1, 16, 500), "repeats": 8}
    table = few_shot(features[train], labels[train], NAMES, test, **how)
    mass = table[table["finding"] == "Mass"].set_index("k")
    assert list(mass.index) == [1, 16]
    assert mass.loc[16, "auroc"] > mass.loc[1, "auroc"]
    assert ((mass["low"] <= mass["auroc"]) & (mass["auroc"] <= mass["high"])).all()
    assert "Hernia" not in set(table["finding"])
    again = few_shot(features[train], labels[train], NAMES, test, **how)
    assert table.equals(again)


def test_without_scikit_learn_the_error_names_the_extra(cases, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DependencyError, match=r'scikit-learn.*pip install .*"scikit-learn'):
        linear_probe(*cases, NAMES)


def test_networks_without_a_last_layer_have_features_too():
    images = data(5, size=32)
    vectors = embed(CompactAE(width=4, code=3, levels=2, input_resolution=32), images)
    assert vectors.shape[0] == 5
    assert np.isfinite(vectors).all()

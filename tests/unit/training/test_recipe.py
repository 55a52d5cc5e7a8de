"""Recipes: read, refused, written back."""

from __future__ import annotations

import dataclasses
import json

import pytest

from torchxrayvision.errors import RecipeError, UnknownNameError
from torchxrayvision.training import (
    PUBLISHED,
    STRONG,
    Augmentation,
    Recipe,
    Source,
    load_recipe,
    recipe_from_dict,
    recipe_to_dict,
)

TOML = """
findings = ["Mass", "Edema"]
model = "torchvision:resnet18"
epochs = 3
augmentation = { preset = "strong", flip = 0.5 }

[[datasets]]
name = "Phantom_Dataset"
args = { n = 20, size = 64 }

[split]
fractions = [0.5, 0.25]

[optimiser]
lr = 1
"""


def test_a_file_becomes_a_recipe_and_back(tmp_path):
    (tmp_path / "run.toml").write_text(TOML)
    recipe = load_recipe(tmp_path / "run.toml")
    assert recipe.datasets == (Source(name="Phantom_Dataset", args={"n": 20, "size": 64}),)
    assert recipe.augmentation == dataclasses.replace(STRONG, flip=0.5)
    assert recipe.split.fractions == (0.5, 0.25)
    assert recipe.optimiser.lr == 1.0
    (tmp_path / "run.json").write_text(json.dumps(recipe_to_dict(recipe)))
    assert load_recipe(tmp_path / "run.json") == recipe


def test_the_published_recipe_is_the_default():
    assert Recipe().augmentation == PUBLISHED
    assert Augmentation(rotation=45, translation=0.15, scale=0.15) == PUBLISHED


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "unknown key of recipe 'epoch'; did you mean 'epochs'"),
        ({"optimiser": {"rate": 3}}, "unknown key of recipe.optimiser 'rate'"),
        ({"datasets": [{"nam": "x"}]}, r"unknown key of recipe.datasets\[0\] 'nam'"),
        ({"augmentation": "stronger"}, "unknown augmentation 'stronger'; did you mean 'strong'"),
    ],
)
def test_unknown_keys_are_refused_with_the_known(values, message):
    with pytest.raises(UnknownNameError, match=message):
        recipe_from_dict(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": "3"}, "recipe.epochs is a whole number, got '3'"),
        ({"epochs": True}, "recipe.epochs is a whole number, got True"),
        ({"epochs": 0}, "epochs must lie in"),
        ({"ema": 1.0}, "ema must lie in"),
        ({"precision": "8"}, "precision must be one of"),
        ({"loggers": ["wandb"]}, "csv and tensorboard"),
        ({"findings": ["Mass", "Mass"]}, "more than once"),
        ({"datasets": {"name": "x"}}, "recipe.datasets is a list"),
        ({"datasets": [{"args": {}}]}, "name"),
        ({"split": {"fractions": [0.5]}}, "a list of 2 values"),
        ({"split": "official"}, "recipe.split is a table"),
        ({"augmentation": {"rotation": 400}}, "rotation must lie in"),
    ],
)
def test_values_that_do_not_fit_are_refused(values, message):
    with pytest.raises(RecipeError, match=message):
        recipe_from_dict(values)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "epochs = ", "not valid TOML"),
        ("a.json", "[1]", "a table of keys"),
        ("a.txt", "", "ends in .toml or .json"),
        ("gone.toml", None, "cannot be read"),
    ],
)
def test_files_that_are_no_recipe_are_refused(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(tmp_path / name)

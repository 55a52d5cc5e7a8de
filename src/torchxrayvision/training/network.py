"""The network of a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchxrayvision.errors import CheckpointError, RecipeError
from torchxrayvision.training.module import seeded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchxrayvision.models import XRayClassifier
    from torchxrayvision.training.recipe import Recipe


def network_of(
    recipe: Recipe, findings: Sequence[str], given: XRayClassifier | None = None
) -> XRayClassifier:
    """Build it, with one output per finding, the same at every call.

    Args:
        recipe: Names the model, and the weights to start from.
        findings: Names of the outputs.
        given: A network to use in the place of the named one.

    Returns:
        The network, at the recipe's resolution.

    Raises:
        RecipeError: If a checkpoint is of another network than the recipe names.
        UnknownNameError: If nothing has the model's name.
        CheckpointError: If the weights cannot be read.
    """
    import torch

    with seeded(recipe.seed, 0):
        net = _start(recipe, len(findings)) if given is None else given
        untrained = net.weights is None and net.head.out_features == len(findings)
        if untrained:
            net.targets = list(findings)
        elif list(net.targets) != list(findings):
            net.reset_classifier(len(findings), list(findings))
    net.op_threshs = None  # those of other weights would not hold
    net.apply_sigmoid = True
    net.input_resolution = recipe.resolution
    net.weights = net.weights_filename_local = None
    if recipe.channels_last:
        net.to(memory_format=torch.channels_last)
    return net.train()


def _start(recipe: Recipe, outputs: int) -> XRayClassifier:
    from torchxrayvision.models import (
        BACKBONES,
        ResNet,
        check_file_arguments,
        get_model,
        load_checkpoint,
    )
    from torchxrayvision.weights import list_weights

    if recipe.weights:
        net = load_checkpoint(recipe.weights)
        named = _family(recipe.model)
        if named and named not in net.architecture.lower():
            msg = f"weights {recipe.weights!r} hold a {net.architecture}, model is {recipe.model!r}"
            raise RecipeError(f"{msg}; name the one that they are of")
        return net
    args: dict[str, Any] = dict(recipe.model_args)
    if recipe.model.startswith(BACKBONES):
        try:  # before the run, since what it trains is saved with them
            check_file_arguments(recipe.model, args, "recipe")
        except CheckpointError as error:
            raise RecipeError(f"model_args: {error}") from error
    published = {name for entry in list_weights() for name in (entry.name, *entry.aliases)}
    if recipe.model in published:
        return get_model(recipe.model, **args)
    if recipe.model.startswith("resnet") and "-width" in recipe.model:
        return ResNet(architecture=recipe.model, num_classes=outputs, **args)
    return get_model(recipe.model, num_classes=outputs, **args)


def _family(model: str) -> str:
    if ":" in model:
        return model
    return next((name for name in ("densenet", "resnet") if model.startswith(name)), "")

"""The network of a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchxrayvision.errors import CheckpointError, RecipeError, UnknownNameError
from torchxrayvision.training.module import seeded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchxrayvision.autoencoders import Autoencoder
    from torchxrayvision.models import XRayClassifier, XRayModel
    from torchxrayvision.training.recipe import Recipe


def network_for(
    recipe: Recipe, findings: Sequence[str], given: XRayModel | None = None
) -> XRayModel:
    """The network of a recipe, ready to train.

    Args:
        recipe: Names the task, the model, and the weights to start from.
        findings: Names of the outputs of a classifier.
        given: A network to use in the place of the named one.

    Returns:
        The network, at the recipe's resolution.

    Raises:
        RecipeError: If the network is not of the task, or not of the weights.
    """
    from torchxrayvision.autoencoders import Autoencoder
    from torchxrayvision.models import XRayClassifier

    kind = Autoencoder if recipe.task == "reconstruction" else XRayClassifier
    if given is not None and not isinstance(given, kind):
        msg = f"task = {recipe.task!r} trains an {kind.__name__}, got {type(given).__name__}"
        raise RecipeError(msg)
    if recipe.task == "reconstruction":
        return autoencoder_of(recipe, given)  # type: ignore[arg-type] # it is one
    return network_of(recipe, findings, given)  # type: ignore[arg-type] # likewise


def autoencoder_of(recipe: Recipe, given: Autoencoder | None = None) -> Autoencoder:
    """Build an autoencoder, the same at every call.

    Args:
        recipe: Names the model, and the weights to start from.
        given: A network to use in the place of the named one.

    Returns:
        The network, at the recipe's resolution.

    Raises:
        RecipeError: If it cannot be built, or draws images of another size than the recipe's.
        UnknownNameError: If there is no autoencoder of the model's name.
        CheckpointError: If the weights cannot be read.
    """
    import torch

    with seeded(recipe.seed, 0):
        net = _autoencoder(recipe) if given is None else given
    net.weights = net.weights_filename_local = None
    net.input_resolution = side = recipe.resolution
    net.eval()
    try:
        with torch.no_grad():
            drawn = net(torch.zeros(1, 1, side, side))["out"].shape[-1]
    except (RuntimeError, ValueError) as error:
        raise RecipeError(f"{recipe.model} takes no images of {side} pixels: {error}") from error
    if drawn != side:
        msg = f"{recipe.model} draws {drawn} pixels of {side}; choose a resolution that comes back"
        raise RecipeError(f"{msg}, such as 32, 128, 224 or 320 for a ResNet")
    if recipe.channels_last:
        net.to(memory_format=torch.channels_last)
    return net.train()


def _autoencoder(recipe: Recipe) -> Autoencoder:
    from torchxrayvision.autoencoders import get_autoencoder, list_autoencoders, load_checkpoint

    if recipe.weights:
        net = load_checkpoint(recipe.weights)
        if recipe.model in list_autoencoders() and recipe.model != net.architecture:
            msg = (
                f"weights {recipe.weights!r} hold an {net.architecture}, model is {recipe.model!r}"
            )
            raise RecipeError(f"{msg}; name the one that they are of")
        return net
    args: dict[str, Any] = dict(recipe.model_args)
    if recipe.model == "autoencoder-compact":
        args.setdefault("input_resolution", recipe.resolution)
    try:
        return get_autoencoder(recipe.model, **args)
    except UnknownNameError:
        raise
    except (TypeError, ValueError) as error:
        raise RecipeError(f"model_args: {error}") from error


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

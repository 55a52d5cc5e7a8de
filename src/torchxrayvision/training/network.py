"""The network of a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from torchxrayvision.errors import CheckpointError, RecipeError, UnknownNameError
from torchxrayvision.training.module import seeded
from torchxrayvision.training.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchxrayvision.autoencoders import Autoencoder
    from torchxrayvision.models import Segmenter, XRayClassifier, XRayModel


def network_for(
    recipe: Recipe, findings: Sequence[str], given: XRayModel | None = None
) -> XRayModel:
    """The network of a recipe, ready to train.

    Args:
        recipe: Names the task, the model, and the weights to start from.
        findings: Names of the outputs of a classifier or segmenter.
        given: A network to use in the place of the named one.

    Returns:
        The network, at the recipe's resolution.

    Raises:
        RecipeError: If the network is not of the task, or not of the weights.
    """
    from torchxrayvision.autoencoders import Autoencoder
    from torchxrayvision.models import Segmenter, XRayClassifier

    kinds: dict[str, Any] = {
        "classification": XRayClassifier, "reconstruction": Autoencoder, "segmentation": Segmenter,
    }  # fmt: skip
    kind = kinds[recipe.task]
    if given is not None and not isinstance(given, kind):
        article = "an" if kind is Autoencoder else "a"
        msg = f"task = {recipe.task!r} trains {article} {kind.__name__}, got {type(given).__name__}"
        raise RecipeError(msg)
    if recipe.task == "reconstruction":
        return autoencoder_of(recipe, given)
    if recipe.task == "segmentation":
        return segmenter_of(recipe, findings, given)
    return network_of(recipe, findings, given)


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
    _prepare(net, recipe)
    side = recipe.resolution
    net.eval()
    try:
        with torch.no_grad():
            drawn = net(torch.zeros(1, 1, side, side))["out"].shape[-1]
    except (RuntimeError, ValueError) as error:
        raise RecipeError(f"{recipe.model} takes no images of {side} pixels: {error}") from error
    if drawn != side:
        msg = f"{recipe.model} draws {drawn} pixels of {side}; choose a resolution that comes back"
        raise RecipeError(f"{msg}, such as 32, 128, 224 or 320 for a ResNet")
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


_OTHERS: Final = ("pspnet", "unet-resnet50")  # untrained, without arguments


def segmenter_of(
    recipe: Recipe, structures: Sequence[str], given: Segmenter | None = None
) -> Segmenter:
    """Build a segmentation network, with one output per structure, the same at every call.

    Args:
        recipe: Names the model, and the weights to start from.
        structures: Names of the outputs.
        given: A network to use in the place of the named one.

    Returns:
        The network, at the recipe's resolution.

    Raises:
        RecipeError: If it cannot be built, or the images are mirrored while sides are told apart.
        UnknownNameError: If nothing has the model's name.
        CheckpointError: If the weights cannot be read.
    """
    sided = [name for name in structures if name.split()[0].lower() in ("left", "right")]
    if sided and recipe.augmentation.flip:
        msg = f"augmentation.flip mirrors images, which makes {sided[0]!r} another structure"
        raise RecipeError(f"{msg}; leave it out")
    with seeded(recipe.seed, 0):
        net = _segmenter(recipe, structures) if given is None else given
        if list(net.targets) != list(structures):
            net.reset_outputs(structures)
    _prepare(net, recipe)
    return net.train()


def _segmenter(recipe: Recipe, structures: Sequence[str]) -> Segmenter:
    from torchxrayvision.models import Segmenter, UNet, class_of, load_segmenter, network_with
    from torchxrayvision.weights import get_weights_entry

    if recipe.weights:
        net = load_segmenter(recipe.weights)
        if recipe.model not in ("", Recipe.model) and type(net) is not _segmenter_class(recipe):
            msg = f"weights {recipe.weights!r} hold a {type(net).__name__}, model is"
            raise RecipeError(f"{msg} {recipe.model!r}; name the one that they are of")
        return net
    args: dict[str, Any] = dict(recipe.model_args)
    try:
        if recipe.model == "unet":
            return UNet(targets=structures, **args)
        if recipe.model in _OTHERS:
            made: Segmenter = class_of(recipe.model)(weights=False, **args)
            return made
    except TypeError as error:
        raise RecipeError(f"model_args: {error}") from error
    if args:
        raise RecipeError(f"model_args: {recipe.model} comes with weights and takes none")
    found = network_with(get_weights_entry(recipe.model))
    if not isinstance(found, Segmenter):
        msg = f"model {recipe.model!r} is no segmentation network; name unet, {', '.join(_OTHERS)}"
        raise RecipeError(f"{msg}, or the weights of one, such as demo-anatomy")
    return found


def _segmenter_class(recipe: Recipe) -> Any:
    from torchxrayvision.models import UNet, class_of

    return class_of(recipe.model) if recipe.model in _OTHERS else UNet


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
    with seeded(recipe.seed, 0):
        net = _start(recipe, len(findings)) if given is None else given
        untrained = net.weights is None and net.head.out_features == len(findings)
        if untrained:
            net.targets = list(findings)
        elif list(net.targets) != list(findings):
            net.reset_classifier(len(findings), list(findings))
    net.op_threshs = None  # those of other weights would not hold
    net.apply_sigmoid = True
    _prepare(net, recipe)
    return net.train()


def _prepare(net: XRayModel, recipe: Recipe) -> None:
    """What every network that is trained has: new weights, a resolution, an order in memory."""
    import torch

    net.weights = net.weights_filename_local = None
    net.input_resolution = recipe.resolution
    if recipe.channels_last:
        net.to(memory_format=torch.channels_last)


def _start(recipe: Recipe, outputs: int) -> XRayClassifier:
    from torchxrayvision.models import (
        BACKBONES,
        ResNet,
        check_file_arguments,
        get_model,
        load_checkpoint,
    )
    from torchxrayvision.weights import list_weights, own_weights

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
    entries = [*list_weights(), *own_weights()]
    known = {name for entry in entries for name in (entry.name, *entry.aliases)}
    if recipe.model in known:
        return get_model(recipe.model, **args)
    if recipe.model.startswith("resnet") and "-width" in recipe.model:
        return ResNet(architecture=recipe.model, num_classes=outputs, **args)
    return get_model(recipe.model, num_classes=outputs, **args)


def _family(model: str) -> str:
    if ":" in model:
        return model
    return next((name for name in ("densenet", "resnet") if model.startswith(name)), "")

"""From the datasets that a recipe names to the images that train and validate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from torchxrayvision.datasets import (
    MergeDataset,
    get_dataset_class,
    official_splits,
    relabel_dataset,
    split_by_patient,
)
from torchxrayvision.errors import RecipeError, UnknownNameError
from torchxrayvision.labels import DEFAULT_PATHOLOGIES
from torchxrayvision.training.images.cache import ImageCache
from torchxrayvision.training.images.masks import MaskedImages

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from numpy.typing import NDArray

    from torchxrayvision.inputs import ReadOptions
    from torchxrayvision.training.images.masks import MaskKind
    from torchxrayvision.training.images.prepared import PreparedImages
    from torchxrayvision.training.recipe import Recipe, Source


def prepare(
    recipe: Recipe,
    *,
    cache: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    reading: ReadOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[PreparedImages, PreparedImages]:
    """Build the datasets of a recipe, merge them, decode every image once, and split.

    Args:
        recipe: Names datasets, findings and split.
        cache: Folder of prepared images; None for the package's cache folder.
        workers: Threads that read and prepare; None for one per processor.
        reading: Limits for reading a file; its `workers`, if given, replace those above.
        progress: Called with (done, total) while images are prepared.

    Returns:
        Images that train, and images that validate.

    Raises:
        RecipeError: If there is no dataset, or its arguments do not fit.
        DatasetError: If the split does not fit the data.
        UnknownNameError: If there is no dataset or official part of a name, or a finding that
            none of the datasets labels, nor the core models.
    """
    train, validation, _ = prepare_parts(
        recipe, cache=cache, workers=workers, reading=reading, progress=progress
    )
    return train, validation


def prepare_parts(
    recipe: Recipe,
    *,
    cache: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    reading: ReadOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[PreparedImages, PreparedImages, PreparedImages | None]:
    """As `prepare`, with the part that the split leaves out.

    Args:
        recipe: Names datasets, findings and split.
        cache: Folder of prepared images; None for the package's cache folder.
        workers: Threads that read and prepare; None for one per processor.
        reading: Limits for reading a file; its `workers`, if given, replace those above.
        progress: Called with (done, total) while images are prepared.

    Returns:
        Images that train, that validate, and that are in neither part; None if there are none.

    Raises:
        RecipeError: If there is no dataset, or its arguments do not fit.
        DatasetError: If the split does not fit the data.
        UnknownNameError: If there is no dataset, official part or finding of a name.
    """
    if not recipe.datasets:
        raise RecipeError("the recipe names no dataset; add one, or give fit the images")
    sources = [_dataset(source) for source in recipe.datasets]
    if recipe.task == "segmentation":
        for source in sources:
            _ask_for_masks(source, recipe.segmentation.masks)
    findings = _findings(recipe, sources)
    for source in sources:
        relabel_dataset(findings, source, silent=True)
    whole = MergeDataset(sources)
    train, validation = _rows(whole, sources, recipe)
    size = recipe.cache_resolution or recipe.resolution
    images: PreparedImages
    if recipe.task == "segmentation":
        images = MaskedImages.build(
            whole, size, recipe.findings, masks=cast("MaskKind", recipe.segmentation.masks),
            folder=cache, workers=workers, reading=reading, progress=progress,
        )  # fmt: skip
    else:
        images = ImageCache.build(
            whole, size, folder=cache, workers=workers, reading=reading, progress=progress
        )
    left_out = np.setdiff1d(np.arange(len(whole)), np.concatenate([train, validation]))
    test = images.subset(left_out) if len(left_out) else None
    return images.subset(train), images.subset(validation), test


def _ask_for_masks(dataset: Any, kind: str) -> None:
    """Let the samples of a dataset have masks, which its arguments in a recipe need not say."""
    flag = "semantic_masks" if kind == "anatomy" else "pathology_masks"
    if hasattr(dataset, flag):
        setattr(dataset, flag, True)


def _findings(recipe: Recipe, sources: list[Any]) -> tuple[str, ...]:
    anatomy = recipe.task == "segmentation" and recipe.segmentation.masks == "anatomy"
    if recipe.task == "reconstruction" or anatomy:
        return ()
    labelled = tuple(dict.fromkeys(str(n) for source in sources for n in source.pathologies))
    # The list of the core models may hold what these datasets do not label; a slip may not.
    known = tuple(dict.fromkeys((*labelled, *DEFAULT_PATHOLOGIES)))
    for name in recipe.findings:
        if name not in known:
            raise UnknownNameError("finding", name, known)
    return recipe.findings or labelled


def _dataset(source: Source) -> Any:
    cls = get_dataset_class(source.name)
    barred = {"transform", "data_aug"} & set(source.args)
    if barred:
        msg = f"{source.name}: {', '.join(sorted(barred))} does not belong into a recipe; images "
        raise RecipeError(msg + "are cropped and resized once, and augmented as it says")
    try:
        return cls(**source.args)
    except TypeError as error:
        raise RecipeError(f"{source.name}: {error}") from error


def _rows(
    whole: MergeDataset, sources: list[Any], recipe: Recipe
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    split = recipe.split
    if split.kind == "patients":
        parts = split_by_patient(whole, split.fractions, split.seed)
        return parts[0].idxs, parts[1].idxs
    if split.kind == "images":
        order = np.random.default_rng(split.seed).permutation(len(whole))
        first, second = (round(len(whole) * share) for share in np.cumsum(split.fractions))
        return np.sort(order[:first]), np.sort(order[first:second])
    starts = np.cumsum([0, *(len(source) for source in sources)])
    train: list[NDArray[np.int64]] = []
    validation: list[NDArray[np.int64]] = []
    for start, source in zip(starts, sources, strict=False):
        named = official_splits(source)
        for name, rows in ((split.train, train), (split.validation, validation)):
            if name not in named:
                raise UnknownNameError(f"part of {type(source).__name__}", name, named)
            rows.append(named[name].idxs + start)
    return np.concatenate(train), np.concatenate(validation)

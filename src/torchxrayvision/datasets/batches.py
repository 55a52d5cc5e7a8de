"""Batches of samples, with masks and boxes: `collate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.errors import ImageShapeError

if TYPE_CHECKING:
    from collections.abc import Sequence

_MASKS = ("pathology_masks", "semantic_masks")


def collate(samples: Sequence[Any]) -> dict[str, Any]:
    """Batch samples of any dataset; for ``DataLoader(..., collate_fn=collate)``.

    torch's own collation drops masks when the first sample has none, and fails when keys differ.

    Args:
        samples: From one dataset or a merge; images of one size.

    Returns:
        ``idx`` int64 (B,), ``lab`` float32 (B, P), ``img`` float32 (B, 1, H, W). For each kind of
        mask that some sample has: a dict from key to (B, 1, H, W), zero where a sample lacks the
        key, and ``<kind>_given``, a dict from key to bool (B,), so that a loss can tell "no mask"
        from "empty". ``bbox``: a list of B tensors (n, 4). ``source``, ``site`` int64 (B,). Other
        keys: a list.

    Raises:
        ImageShapeError: If the images differ in size; resize them in `transform`.
    """
    import torch

    batch: dict[str, Any] = {}
    keys = dict.fromkeys(key for sample in samples for key in sample)
    for key in keys:
        values = [sample.get(key) for sample in samples]
        if key in _MASKS:
            batch[key], batch[f"{key}_given"] = _masks(values)
        elif key in ("img", "lab", "lab-old"):
            batch[key] = _stack(values, key)
        elif key in ("idx", "source", "site") and None not in values:
            batch[key] = torch.tensor([int(value) for value in values])
        elif key == "bbox":
            empty = np.zeros((0, 4), dtype=np.float32)
            boxes = [empty if value is None else value for value in values]
            batch[key] = [_tensor(value).reshape(-1, 4).float() for value in boxes]
        else:
            batch[key] = values
    return batch


def _tensor(value: Any) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        return value.as_subclass(torch.Tensor)
    return torch.as_tensor(np.asarray(value))


def _stack(values: list[Any], key: str) -> Any:
    import torch

    tensors = [_tensor(value) for value in values]
    shapes = sorted({tuple(tensor.shape) for tensor in tensors})
    if len(shapes) > 1:
        advice = (
            "pass transform=XRayResizer(512) to the dataset"
            if key == "img"
            else "call relabel_dataset on each dataset"
        )
        msg = f"samples of one batch have {key} of shapes {shapes}; {advice}"
        raise ImageShapeError(msg)
    return torch.stack(tensors)


def _masks(values: list[dict[Any, Any] | None]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    import torch

    given_masks = [value or {} for value in values]
    masks, given = {}, {}
    for key in sorted({key for value in given_masks for key in value}, key=str):
        first = _tensor(next(value[key] for value in given_masks if key in value))
        blank = torch.zeros_like(first)
        column = [_tensor(value[key]) if key in value else blank for value in given_masks]
        masks[key] = _stack(column, "masks")
        given[key] = torch.tensor([key in value for value in given_masks])
    return masks, given

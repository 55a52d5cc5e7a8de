"""The helper functions of 1.5.7 under their old names; nothing inside the package imports them."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchxrayvision.deprecation import carried_names, count_replacements
from torchxrayvision.images import load_image, normalize, read_xray_dcm

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

__all__ = [
    "download",
    "fix_resolution",
    "get_cache_dir",
    "in_notebook",
    "infer",
    "load_image",
    "normalize",
    "read_xray_dcm",
    "warn_normalization",
]

_log = logging.getLogger(__name__)
__getattr__ = carried_names(__name__, "np requests skimage sys torch tqdm warnings")
count_replacements(__name__)


def get_cache_dir() -> str:
    """Folder of downloaded weights, ending with a separator as in 1.5.7.

    Returns:
        `XRV_CACHE_DIR` if it is set, else `~/.torchxrayvision/models_data/`.
    """
    from torchxrayvision.remote import default_cache_dir

    return os.path.join(default_cache_dir(), "")  # noqa: PTH118 - a Path cannot end with a separator


def in_notebook() -> bool:
    """Whether the code runs in a Jupyter notebook.

    Returns:
        True in the kernel of a notebook.
    """
    import sys

    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})


def download(url: str, filename: str) -> None:
    """Fetch a file whose checksum is not known; see `torchxrayvision.remote.fetch` for others.

    Args:
        url: Address, https.
        filename: Where to put it.

    Raises:
        RemoteError: If it cannot be fetched; nothing is left at `filename` then.

    Warns:
        UnpinnedDownloadWarning: The content was trusted on first use.
    """
    from torchxrayvision.facts import RemoteFile
    from torchxrayvision.remote import fetch

    target = Path(filename)
    fetch(RemoteFile(url=url, filename=target.name), cache=target.parent)


def fix_resolution(x: Tensor, resolution: int | None, model: Any = None) -> Tensor:
    """Bring a batch of images to a resolution, filtered against aliasing.

    Args:
        x: Images, shape (B, C, S, S), or one image (C, S, S).
        resolution: Side to give, in pixels; None leaves them as they are.
        model: The model that they are for, whose `resize_route` counts if it has one.

    Returns:
        Shape (B, C, resolution, resolution).

    Raises:
        ImageShapeError: If the images are not square.
    """
    from torchxrayvision.errors import ImageShapeError
    from torchxrayvision.models import resize

    x = x[None] if x.dim() == 3 else x
    if x.dim() != 4 or x.shape[2] != x.shape[3]:
        msg = (
            f"expected square images, (B, C, S, S), got {tuple(x.shape)}; "
            "crop first with torchxrayvision.transforms.XRayCenterCrop()"
        )
        raise ImageShapeError(msg)
    if resolution is None:
        return x
    if tuple(x.shape[-2:]) != (resolution, resolution):
        _log.info("resizing %d x %d images to %d", x.shape[-2], x.shape[-1], resolution)
    return resize(x, resolution, getattr(model, "resize_route", "antialias"))


def warn_normalization(x: Tensor) -> None:
    """Warn if images look as if they were not scaled to [-1024, 1024].

    Args:
        x: Images, shape (B, 1, H, W).

    Raises:
        ImageRangeError: If a value is NaN or infinite.

    Warns:
        ImageRangeWarning: Names the scale that the values look like.
    """
    from torchxrayvision.models import check_range

    check_range(x)


def infer(
    model: Callable[[Tensor], Tensor], dataset: Any, threads: int = 4, device: str = "cpu"
) -> NDArray[Any]:
    """Outputs of a model for every item of a dataset, in its order.

    Args:
        model: A network, which is in evaluation mode and on the device for the call and is as it
            was afterwards, or any function of a batch.
        dataset: Map-style, items with `"img"` of one size.
        threads: Worker processes that read items, also the batch size, as in 1.5.7.
        device: Where the network runs.

    Returns:
        Shape (N, P), of the type that the model gives; float32 for bfloat16, which NumPy lacks.
    """
    import torch
    from torch.utils.data import DataLoader

    from torchxrayvision.models import temporarily_eval

    loader = DataLoader(
        dataset,
        batch_size=max(1, threads),
        num_workers=threads,
        collate_fn=_images_only,
    )
    with contextlib.ExitStack() as stack:
        if isinstance(model, torch.nn.Module):
            stack.enter_context(temporarily_eval(model, device))
        stack.enter_context(torch.inference_mode())
        outputs = torch.cat([model(batch.to(device)).cpu() for batch in loader])
    if outputs.dtype is torch.bfloat16:
        outputs = outputs.float()
    result: NDArray[Any] = outputs.numpy()
    return result


def _images_only(items: list[dict[str, Any]]) -> Tensor:
    import torch

    return torch.stack([torch.as_tensor(item["img"]) for item in items])

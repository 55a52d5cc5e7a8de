"""From a file to an explanation in the geometry of that file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from torchxrayvision.explain.attribution import attribute
from torchxrayvision.explain.counterfactual import latent_shift
from torchxrayvision.explain.model import at_rest, probability, target_index, value_kind
from torchxrayvision.explain.perturb import smoothed
from torchxrayvision.explain.pointing import evidence_box
from torchxrayvision.images import read_raster
from torchxrayvision.pictures import annotate, overlay, scale_of
from torchxrayvision.transforms import Placement, prepare

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray
    from torch import nn

    from torchxrayvision.explain.counterfactual import Autoencoder, Counterfactual
    from torchxrayvision.explain.model import Target

__all__ = ["Explanation", "explain_file"]

# Evidence that is scattered over single pixels is blurred by this share of the side to be seen.
_SMOOTH: Final = {"gradients": 0.02, "ig": 0.02, "counterfactual": 0.01}
_RESOLUTION: Final = 512  # for networks that take any


@dataclass(frozen=True, eq=False)
class Explanation:
    """What speaks for a target in one radiograph.

    Attributes:
        path: The file.
        target: Name of the target, or its place.
        method: Name of the method.
        value: What the network says, see `kind`.
        kind: `"probability"` or `"years"`.
        image: The radiograph, float32 (H, W) in [-1024, 1024], upright.
        heat: Evidence, float32 (H, W); NaN outside the square that the network saw.
        placement: Where that square lies.
        counterfactual: The film, if that was the method.
    """

    path: str
    target: str
    method: str
    value: float
    kind: str
    image: NDArray[np.float32]
    heat: NDArray[np.float32]
    placement: Placement
    counterfactual: Counterfactual | None = None

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """Left, top, right, bottom of the region of the strongest evidence, pixels, half open."""
        return evidence_box(self.heat)

    @property
    def peak(self) -> tuple[int, int]:
        """Row and column of the strongest evidence."""
        row, column = divmod(int(np.nanargmax(self.heat)), self.heat.shape[1])
        return row, column

    @property
    def title(self) -> str:
        """The target, what the network says of it, and the method."""
        return f"{self.target}: {self.kind} {self.value:.3g} ({self.method})"

    def picture(self, *, boxes: bool = False, opacity: float = 0.65) -> NDArray[np.uint8]:
        """The overlay at the resolution of the file, with a legend below.

        Args:
            boxes: Whether to draw the box around the strongest evidence.
            opacity: Of the strongest colour.

        Returns:
            uint8, shape (H + legend, W, 3).
        """
        top = scale_of(self.heat)
        laid = overlay(self.image, self.heat, opacity=opacity, limit=top)
        box = self.box if boxes else None
        low = -top if np.nanmin(self.heat) < 0 else 0.0
        return annotate(laid, self.title, low=low, high=top, boxes=[box] if box else [])


def explain_file(
    path: str | os.PathLike[str],
    model: nn.Module,
    target: Target,
    method: str = "gradcam",
    *,
    autoencoder: Autoencoder | None = None,
    smooth: float | None = None,
    **options: Any,
) -> Explanation:
    """Explain one file: read, crop, resize, explain, and undo resizing and cropping of the map.

    Args:
        path: PNG, JPEG, TIFF or DICOM.
        model: The network.
        target: Name or place of the output.
        method: One of `METHODS`, or `"counterfactual"`.
        autoencoder: Needed for `"counterfactual"`.
        smooth: Blur of the map as a share of the side; None for 0.02 where evidence is scattered
            over single pixels, none for other methods.
        **options: Passed to the method.

    Returns:
        The explanation, in the geometry of the file.

    Raises:
        ImageReadError: If the file cannot be read.
        UnknownNameError: If there is no such method or target.
        TypeError: If a counterfactual is asked for without an autoencoder.
    """
    index = target_index(model, target)
    raster = read_raster(path)
    size = getattr(model, "input_resolution", None) or _RESOLUTION
    aspect = raster.info.aspect
    like = next(model.parameters(), torch.zeros(0))
    prepared = torch.from_numpy(prepare(raster.pixels, raster.scale, raster.offset, size, aspect))
    x = prepared[None].to(like)
    with at_rest(model), torch.no_grad():
        value = probability(model, x, index).item()
    blur = _SMOOTH.get(method, 0.0) if smooth is None else smooth
    film = None
    if method == "counterfactual":
        if autoencoder is None:
            msg = "method='counterfactual' needs autoencoder=, such as autoencoders.ResNetAE(...)"
            raise TypeError(msg)
        (film,) = latent_shift(model, autoencoder, x, target, **options)
        heat = smoothed(film.heat(size)[None], blur)
    else:
        heat = attribute(model, x, target, method, smooth=blur, **options)
    placement = Placement.in_middle(*raster.shape, aspect=aspect)
    names = list(getattr(model, "targets", ()))
    return Explanation(
        path=str(path),
        target=(names[index] if names else "") or f"output {index}",
        method=method,
        value=value,
        kind=value_kind(model),
        image=raster.to_array()[0],
        heat=placement.to_picture(heat[0].cpu().numpy(), outside=float("nan")),
        placement=placement,
        counterfactual=film,
    )

"""How much evidence gets the strongest colour, and how little gets none.

A map that ends at its own strongest evidence glows whatever there is. Here the scale belongs to the
network, the finding and the method: it is the strongest evidence in six simulated radiographs, half
of them with the finding, so that pictures of different runs can be compared.
"""

from __future__ import annotations

import json
import logging
import math
from typing import TYPE_CHECKING, Any, Final

import torch

from torchxrayvision import __version__
from torchxrayvision.explain.attribution import attribute, smoothed
from torchxrayvision.explain.counterfactual import latent_shift
from torchxrayvision.explain.model import at_rest, target_index
from torchxrayvision.files import sha256_of, write_atomically
from torchxrayvision.models import scale_is_known
from torchxrayvision.pictures import scale_of
from torchxrayvision.runs import fingerprint
from torchxrayvision.transforms import prepare

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor, nn

    from torchxrayvision.explain.counterfactual import Autoencoder, Counterfactual
    from torchxrayvision.explain.model import Target

_log = logging.getLogger(__name__)

COUNTERFACTUAL: Final = "counterfactual"
RESOLUTION: Final = 512  # for networks that take any
# Evidence that is scattered over single pixels is blurred by this share of the side to be seen.
_SMOOTH: Final = {"gradients": 0.02, "ig": 0.02, COUNTERFACTUAL: 0.01}
_NOTHING: Final = 1e-3  # in units of the logit: no reason to look anywhere
_INVISIBLE: Final = 4.0  # of 2,048 levels of grey: half a level of 8 bits
_LEAST: Final = 100.0  # floors that a scale has at least, for networks that simulations leave cold
_HALF_RANGE: Final = 1024.0
_PLAIN: Final = frozenset({"cam", "gradcam", "gradcam++", "occlusion"})
_REFERENCES: Final = 6
_SEED: Final = 20260


def blur_of(method: str) -> float:
    """Blur that maps of a method need, as a share of their side.

    Args:
        method: One of `METHODS`, or `"counterfactual"`.

    Returns:
        0 where evidence is not scattered over single pixels.
    """
    return _SMOOTH.get(method, 0.0)


def size_of(model: nn.Module) -> int:
    """Side of the images that a network explains, in pixels."""
    return int(getattr(model, "input_resolution", None) or RESOLUTION)


def evidence_floor(method: str, size: int = 224, smooth: float | None = None) -> float:
    """Evidence below which a map says nothing, whatever its own strongest is.

    For maps in units of the logit it is a thousandth of it: of the whole for a position of the last
    map and for a window that is covered; for pixels, of what all pixels under the blur give
    together, and for gradients if these changed by half the range. A counterfactual that moves no
    pixel by half a level of grey of an 8-bit screen shows nothing.

    Args:
        method: One of `METHODS`, or `"counterfactual"`.
        size: Side of the network's images in pixels.
        smooth: Blur of the map as a share of the side; None for that of the method.

    Returns:
        The floor, in the units of the map.

    Example:
        >>> evidence_floor("gradcam"), evidence_floor("counterfactual")
        (0.001, 4.0)
        >>> evidence_floor("ig") < evidence_floor("ig", smooth=0.0)
        True
    """
    if method in _PLAIN:
        return _NOTHING
    if method == COUNTERFACTUAL:
        return _INVISIBLE
    sigma = size * (blur_of(method) if smooth is None else smooth)
    pixels = max(1.0, 4 * math.pi * sigma**2)  # that count in a blurred one, by their weights
    return _NOTHING / pixels / (_HALF_RANGE if method == "gradients" else 1.0)


def evidence_of(
    model: nn.Module,
    x: Tensor,
    target: Target,
    method: str,
    *,
    autoencoder: Autoencoder | None = None,
    smooth: float | None = None,
    **options: Any,
) -> tuple[Tensor, Counterfactual | None]:
    """The map of one image, blurred as its method needs.

    Args:
        model: The network.
        x: Shape (1, 1, S, S) in [-1024, 1024].
        target: Name or place of the output.
        method: One of `METHODS`, or `"counterfactual"`.
        autoencoder: Needed for `"counterfactual"`.
        smooth: Blur of the map as a share of the side; None for that of the method.
        **options: Passed to the method.

    Returns:
        Evidence, shape (S, S); the frames of a counterfactual, if that was the method.

    Raises:
        UnknownNameError: If there is no such method or target.
        TypeError: If a counterfactual is asked for without an autoencoder.
    """
    blur = blur_of(method) if smooth is None else smooth
    if method == COUNTERFACTUAL:
        if autoencoder is None:
            msg = "method='counterfactual' needs autoencoder=, such as autoencoders.ResNetAE(...)"
            raise TypeError(msg)
        with scale_is_known():
            (shifted,) = latent_shift(model, autoencoder, x, target, **options)
        return smoothed(shifted.heat(x.shape[-1])[None], blur)[0], shifted
    with scale_is_known():
        return attribute(model, x, target, method, smooth=blur, **options)[0], None


def evidence_scale(
    model: nn.Module,
    target: Target,
    method: str = "gradcam",
    *,
    autoencoder: Autoencoder | None = None,
) -> float:
    """Evidence that gets the strongest colour, the same for every image.

    It is remembered in the cache folder, so that a network is asked once per finding and method.

    Args:
        model: The network.
        target: Name or place of the output.
        method: One of `METHODS`, or `"counterfactual"`.
        autoencoder: Needed for `"counterfactual"`.

    Returns:
        The strongest evidence in six simulated radiographs, at least 100 times `evidence_floor`.

    Raises:
        UnknownNameError: If there is no such method or target.
        TypeError: If a counterfactual is asked for without an autoencoder.

    Example:
        >>> from torchxrayvision.models import DenseNet
        >>> model = DenseNet(num_classes=2).eval()
        >>> model.input_resolution = 32
        >>> evidence_scale(model, 0) >= 100 * evidence_floor("gradcam")
        True
    """
    index = target_index(model, target)
    names = list(getattr(model, "targets", ()))
    name, size = (names[index] if names else ""), size_of(model)
    coder = "" if autoencoder is None else fingerprint(autoencoder)
    about = (__version__, _SEED, fingerprint(model), coder, index, name, method, size)
    key = sha256_of(json.dumps(about).encode())[:24]
    known = _remembered().get(key)
    if isinstance(known, float) and 0 < known < math.inf:
        return known
    like = next(model.parameters(), torch.zeros(0))
    found = []
    with at_rest(model):
        for image in _references(name, size):
            x = image.to(like)
            heat, _ = evidence_of(model, x, index, method, autoencoder=autoencoder)
            found.append(scale_of(heat.float().cpu().numpy()))
    finite = [value for value in found if math.isfinite(value)]
    scale = max([*finite, _LEAST * evidence_floor(method, size)])
    _remember(key, scale)
    return scale


def _references(finding: str, size: int) -> Iterator[Tensor]:
    """Simulated radiographs, every other one with the finding, shape (1, 1, size, size)."""
    from torchxrayvision.phantom import FINDINGS, simulate

    for number in range(_REFERENCES):
        given = {finding: float(number % 2)} if finding in FINDINGS else None
        image = simulate(number, seed=_SEED, views=("PA",), findings=given).image
        yield torch.from_numpy(prepare(image[0], 1.0, 0.0, size))[None]


def _place() -> Path:
    from torchxrayvision.remote import cache_dir

    return cache_dir() / "explain" / "scales.json"


def _remembered() -> dict[str, Any]:
    try:
        entries = json.loads(_place().read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _remember(key: str, scale: float) -> None:
    """Keep a scale; a folder that cannot be written costs the memory only."""
    from torchxrayvision.remote import make_folder

    place = _place()
    try:
        make_folder(place.parent)
        with write_atomically(place, durable=False) as part:
            part.write_text(json.dumps({**_remembered(), key: scale}, indent=1), "utf-8")
    except OSError as error:
        _log.info("%s: %s", place, error)

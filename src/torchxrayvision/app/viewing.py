"""An image as a viewer takes it: its stored values in 8 or 16 bits, and how they are shown."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.images import silence_decoders

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from torchxrayvision.images import Raster

_TAGS: Final = (
    "WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction",
    "RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence", "ViewPosition",
    "Modality", "BodyPartExamined",
)  # fmt: skip
_DARKEST, _BRIGHTEST = 0.005, 0.995
_LEVELS: Final = 65535
_LONGEST: Final = 40  # characters of a text of a header that is shown


def plane_of(raster: Raster) -> tuple[NDArray[Any], float, float]:
    """The stored values as unsigned numbers of 8 or 16 bits.

    Args:
        raster: The image.

    Returns:
        uint8 or uint16, shape (H, W), and what makes stored values of them: ``base + step * x``.
        `step` is 1, and nothing is lost, wherever the stored values span at most 16 bits.

    Example:
        >>> from torchxrayvision.images import ImageInfo, Raster
        >>> info = ImageInfo(format="png", height=1, width=2, bits=16, photometric="MONOCHROME2")
        >>> pixels = np.array([[-5, 7]], np.int16)
        >>> plane, base, step = plane_of(Raster(pixels=pixels, scale=1, offset=0, info=info))
        >>> plane.tolist(), base, step
        ([[0, 12]], -5.0, 1.0)
    """
    pixels = raster.pixels
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels), 0.0, 1.0
    low, high = float(pixels.min()), float(pixels.max())
    if pixels.dtype.kind in "iu" and high - low <= _LEVELS:
        if pixels.dtype == np.uint16:
            return np.ascontiguousarray(pixels), 0.0, 1.0
        return (pixels.astype(np.int64) - int(low)).astype(np.uint16), low, 1.0
    step = (high - low) / _LEVELS or 1.0
    return np.rint((pixels.astype(np.float64) - low) / step).astype(np.uint16), low, step


def header_of(data: bytes) -> dict[str, Any]:
    """What of a DICOM header a viewer uses; nothing that names a patient.

    Args:
        data: The file.

    Returns:
        The windows, how stored values become those that windows speak of, and a few codes; a
        damaged header gives what can be read of it.
    """
    from pydicom import dcmread

    facts: dict[str, Any] = {"windows": [], "slope": 1.0, "intercept": 0.0}
    try:
        with silence_decoders():
            header = dcmread(
                io.BytesIO(data), force=True, stop_before_pixels=True, specific_tags=list(_TAGS)
            )
            facts["windows"] = _windows(header)
            if "ModalityLUTSequence" not in header:
                slope, intercept = (
                    _number(header, "RescaleSlope"),
                    _number(header, "RescaleIntercept"),
                )
                facts["slope"], facts["intercept"] = slope or 1.0, intercept or 0.0
            for name, tag in (("view", "ViewPosition"), ("modality", "Modality"),
                              ("bodyPart", "BodyPartExamined")):  # fmt: skip
                facts[name] = str(header.get(tag) or "")[:_LONGEST]
    except Exception:  # noqa: BLE001 - a damaged header may raise anything, and shows the image
        return facts
    return facts


def _values(header: Any, tag: str) -> list[Any]:
    value = header.get(tag)
    if value is None or value == "":
        return []
    several = isinstance(value, list | tuple) or type(value).__name__ == "MultiValue"
    return list(value) if several else [value]


def _number(header: Any, tag: str) -> float | None:
    for value in _values(header, tag):
        number = float(value)
        return number if math.isfinite(number) else None
    return None


def _windows(header: Any) -> list[dict[str, Any]]:
    names = _values(header, "WindowCenterWidthExplanation")
    exact = str(header.get("VOILUTFunction") or "LINEAR") == "LINEAR_EXACT"
    found = []
    pairs = zip(_values(header, "WindowCenter"), _values(header, "WindowWidth"), strict=False)
    for index, (centre, width) in enumerate(pairs):
        centre, width = float(centre), float(width)
        if not (math.isfinite(centre) and math.isfinite(width) and width > 0):
            continue
        # PS3.3 C.11.2.1.2.1: LINEAR reaches black half a value and white half a value earlier.
        low, high = centre - width / 2, centre + width / 2
        if not exact and width > 1:
            high -= 1
        name = str(names[index])[:_LONGEST] if index < len(names) else ""
        found.append({"name": name, "low": low, "high": high})
    return found


def facts_of(raster: Raster, header: dict[str, Any] | None) -> dict[str, Any]:
    """All that a viewer needs besides the pixels, for JSON.

    Args:
        raster: The image.
        header: What `header_of` gives, for a DICOM file.

    Returns:
        Among others `low` and `high`, stored values that are shown black and white at first, and
        `windows`, those of the header, in stored values too.
    """
    plane, base, step = plane_of(raster)
    info = raster.info
    header = header or {"windows": [], "slope": 1.0, "intercept": 0.0}
    slope, intercept = header["slope"], header["intercept"]
    sample = raster.pixels[::4, ::4].astype(np.float64)
    low, high = (float(value) for value in np.quantile(sample, (_DARKEST, _BRIGHTEST)))
    full = sorted((value - raster.offset) / raster.scale for value in (-1024.0, 1024.0))
    windows = []
    for window in header["windows"]:
        ends = sorted((window[end] - intercept) / slope for end in ("low", "high"))
        windows.append({"name": window["name"], "low": ends[0], "high": ends[1]})
    return {
        "height": raster.shape[0], "width": raster.shape[1], "bits": info.bits,
        "format": info.format, "photometric": info.photometric, "aspect": info.aspect,
        "spacing": info.pixel_spacing, "notes": list(raster.notes),
        "bytes": plane.dtype.itemsize, "base": base, "step": step,
        # White is the smallest value where the file says so; slopes below 0 turn windows round.
        "inverted": raster.scale < 0, "slope": slope, "intercept": intercept,
        "auto": [low, max(high, low + step)], "full": full, "windows": windows,
        "view": header.get("view", ""), "modality": header.get("modality", ""),
        "bodyPart": header.get("bodyPart", ""),
        "least": float(raster.pixels.min()), "most": float(raster.pixels.max()),
    }  # fmt: skip

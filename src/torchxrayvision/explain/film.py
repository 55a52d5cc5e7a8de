"""Counterfactuals as films."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from torchxrayvision.errors import DependencyError, ExplanationError, UnknownNameError
from torchxrayvision.pictures import annotate, grey

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from torchxrayvision.explain.counterfactual import Counterfactual

_PILLOW: Final = (".gif", ".webp")
_OPENCV: Final = ".mp4"


def check_film(ending: str) -> None:
    """Refuse what `save_film` cannot write, before frames are computed.

    Args:
        ending: Extension of the file, with its dot.

    Raises:
        UnknownNameError: If nothing writes such files.
        DependencyError: If what writes them is not installed.
    """
    if ending not in (*_PILLOW, _OPENCV):
        raise UnknownNameError("film ending", ending, (*_PILLOW, _OPENCV))
    if ending == _OPENCV and importlib.util.find_spec("cv2") is None:
        raise DependencyError("opencv-python-headless", "an MP4 film", "cv2")


def save_film(
    counterfactual: Counterfactual,
    path: str | os.PathLike[str],
    *,
    title: str = "",
    size: int | None = None,
    fps: float = 12.0,
) -> Path:
    """Write a counterfactual as a film that runs to both ends and back, for ever.

    Args:
        counterfactual: What `latent_shift` gave.
        path: `.gif` or `.webp`, or `.mp4` with the extra `cv2`. (The packages
            that bring an encoder for H.264 are under the GPL; OpenCV's MPEG-4 is not.)
        title: Put under each frame, before its value.
        size: Rows and columns of the image; None leaves those of the autoencoder.
        fps: Frames a second.

    Returns:
        The path.

    Raises:
        UnknownNameError: If the ending is another.
        DependencyError: If `.mp4` is asked for without OpenCV.
        ExplanationError: If OpenCV cannot write it.
    """
    path = Path(path)
    ending = path.suffix.lower()
    check_film(ending)
    pictures = _pictures(counterfactual, title, size)
    order = [*range(len(pictures)), *range(len(pictures) - 2, 0, -1)]
    looped = [pictures[i] for i in order]
    if ending == _OPENCV:
        _save_mp4(looped, path, fps)
    else:
        _save_animation(looped, path, fps)
    return path


def _pictures(
    counterfactual: Counterfactual, title: str, size: int | None
) -> list[NDArray[np.uint8]]:
    from PIL import Image

    pictures = []
    for frame, value in zip(counterfactual.frames, counterfactual.values.tolist(), strict=True):
        plane = grey(frame.numpy())
        if size is not None:
            resized = Image.fromarray(plane).resize((size, size), Image.Resampling.BICUBIC)
            plane = np.asarray(resized)
        # In small type a space alone is two pixels wide.
        label = f"{title}: {value:.2f}" if title else f"{value:.2f}"
        pictures.append(annotate(np.repeat(plane[..., None], 3, axis=2), label))
    return pictures


def _save_animation(pictures: list[NDArray[np.uint8]], path: Path, fps: float) -> None:
    from PIL import Image

    # All is grey: one channel is a palette of 256 greys in a GIF, so no colour is approximated.
    first, *others = [Image.fromarray(picture[..., 0]) for picture in pictures]
    first.save(path, save_all=True, append_images=others, duration=round(1000 / fps), loop=0)


def _save_mp4(pictures: list[NDArray[np.uint8]], path: Path, fps: float) -> None:
    import cv2

    # MPEG-4 halves the resolution of colour, so that sides must be even.
    height, width = (n + n % 2 for n in pictures[0].shape[:2])
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
    if not writer.isOpened():
        msg = f"{path}: this build of OpenCV cannot write MP4 there; write a .gif or .webp"
        raise ExplanationError(msg)
    try:
        for picture in pictures:
            even = np.zeros((height, width, 3), np.uint8)
            even[: picture.shape[0], : picture.shape[1]] = picture
            writer.write(even)
    finally:
        writer.release()

"""The most certain errors of a study, with their images and maps."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from torchxrayvision.evaluation import Study
    from torchxrayvision.inputs import InputFile
    from torchxrayvision.models import XRayClassifier

_SIDE: Final = 320  # pixels of a picture in the page


@dataclass(frozen=True)
class Mistake:
    """A row on the wrong side of its threshold.

    Attributes:
        image: As the predictions name it.
        finding: Which.
        score: What the network said.
        threshold: On the same scale.
        present: Whether the labels say that the finding is there.
        certainty: Share of the rows of its class that lie less far on the wrong side.
        picture: JPEG of the image, where it was given.
        heat: JPEG of the image with the evidence for the finding, where weights were given.
        reason: Why there is no picture.
    """

    image: str
    finding: str
    score: float
    threshold: float
    present: bool
    certainty: float
    picture: bytes = b""
    heat: bytes = b""
    reason: str = ""

    @property
    def kind(self) -> str:
        """What sort of error it is."""
        return "missed" if self.present else "false alarm"


def find_mistakes(study: Study, thresholds: Mapping[str, float], number: int = 6) -> list[Mistake]:
    """The errors furthest on the wrong side, two at most of a finding and kind, each image once.

    Args:
        study: What is evaluated.
        thresholds: Finding to threshold; findings without one have no errors.
        number: How many; half of them are misses, where there are as many.

    Returns:
        Misses first, the most certain of either kind before the others.
    """
    found: list[Mistake] = []
    for j, name in enumerate(study.findings):
        limit = thresholds.get(name)
        if limit is None:
            continue
        truth, given = study.labels[:, j], study.scores[:, j]
        for side in (1, 0):
            rows = np.flatnonzero(truth == side)
            wrong = rows[(given[rows] < limit) if side else (given[rows] >= limit)]
            order = np.argsort(given[wrong] if side else -given[wrong], kind="stable")[:3]
            # The share of everything on the other class's side that is less extreme.
            others = np.sort(given[truth == 1 - side])
            for row in wrong[order]:
                beaten = np.searchsorted(others, given[row]) / max(len(others), 1)
                certainty = float(1 - beaten if side else beaten)
                made = Mistake(
                    study.images[row], name, float(given[row]), float(limit), bool(side), certainty
                )
                found.append(made)
    found.sort(key=lambda one: -one.certainty)
    taken: list[Mistake] = []
    for present in (True, False):  # half of them are misses, which matter more than they score
        most = len(taken) + number // 2
        for one in (each for each in found if each.present == present):
            alike = (one.finding, one.present)
            same = sum((other.finding, other.present) == alike for other in taken)
            if same < 2 and all(other.image != one.image for other in taken):
                taken.append(one)
            if len(taken) == most:
                break
    return taken


def with_pictures(
    mistakes: Sequence[Mistake], images: Sequence[str], model: XRayClassifier | None
) -> list[Mistake]:
    """Add the images, found by their file names, and the evidence in them.

    Args:
        mistakes: From `find_mistakes`.
        images: Files, folders or archives, as `xrv predict` takes them.
        model: The network that predicted, for maps; None for images alone.

    Returns:
        The same, those whose image is not there or cannot be read with a reason.
    """
    from pathlib import PurePath

    from torchxrayvision.inputs import expand

    wanted = {PurePath(one.image).name for one in mistakes}
    files: dict[str, InputFile] = {}
    for file in expand(list(images)):
        if PurePath(file.given).name in wanted:
            files.setdefault(file.given, file)
    by_name = {PurePath(given).name: file for given, file in files.items()}
    return [
        _shown(one, files.get(one.image) or by_name.get(PurePath(one.image).name), model)
        for one in mistakes
    ]


def _shown(one: Mistake, file: InputFile | None, model: XRayClassifier | None) -> Mistake:
    from dataclasses import replace

    from torchxrayvision.errors import ImageReadError
    from torchxrayvision.inputs import read_file
    from torchxrayvision.pictures import grey, overlay

    if file is None:
        return replace(one, reason="the image is not among those given")
    try:
        raster = read_file(file)
    except ImageReadError as error:
        return replace(one, reason=str(error))
    picture = jpeg(grey(raster.to_array()))
    if model is None or one.finding not in model.targets:
        return replace(one, picture=picture)
    from torchxrayvision.explain import explain_raster

    explained = explain_raster(one.image, raster, model, one.finding)
    heat = overlay(explained.image, explained.heat, limit=explained.limit)
    return replace(one, picture=picture, heat=jpeg(heat))


def jpeg(picture: NDArray[np.uint8]) -> bytes:
    """A picture as a small JPEG."""
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()

"""What the demonstration found, as the report shows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from torchxrayvision.demo.folder import Truth
    from torchxrayvision.evaluation import Interval
    from torchxrayvision.models import Segmenter, XRayClassifier

    Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class CloseUp:
    """One image with what the networks say of it.

    Attributes:
        path: The file.
        finding: Whose evidence is shown.
        score: Of that finding.
        present: Whether the image shows it.
        image: Picture, uint8 (H, W).
        outlines: With the structures and the cardiothoracic ratio, uint8 (H, W, 3).
        heat: With the evidence in colour and the true extent as an outline, uint8 (H, W, 3).
        ratio: Cardiothoracic ratio as measured; NaN where it cannot be.
    """

    path: str
    finding: str
    score: float
    present: bool
    image: Picture
    outlines: Picture
    heat: Picture
    ratio: float


@dataclass(frozen=True)
class Demo:
    """All that the report shows.

    Attributes:
        folder: Where everything was written.
        truth: What is known of the images.
        scores: Predictions by path: ``error`` and one column per finding.
        measured: By path: ``cardiothoracic_ratio``, and Dice of ``Lungs`` and ``Heart``; NaN for
            lateral images and the broken one.
        thumbnails: Path to a small picture of the image.
        close_ups: Images looked at closely.
        mistake: The image for which a finding that is absent has the highest score.
        auroc: Table of `torchxrayvision.evaluation.auroc_table`, of frontal images.
        ratio_error: Mean distance of measured from true cardiothoracic ratio.
        dice: Structure to its mean Dice.
        classifier: Network that predicted.
        segmenter: Network that segmented.
        seconds: Step to the seconds it took.
    """

    folder: Path
    truth: Truth
    scores: pd.DataFrame
    measured: pd.DataFrame
    thumbnails: dict[str, Picture]
    close_ups: list[CloseUp]
    mistake: CloseUp | None
    auroc: pd.DataFrame
    ratio_error: Interval
    dice: dict[str, Interval]
    classifier: XRayClassifier
    segmenter: Segmenter
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def report(self) -> Path:
        """The page."""
        return self.folder / "report.html"

    @property
    def findings(self) -> list[str]:
        """Findings that are both simulated and predicted."""
        return [name for name in self.scores.columns if name in self.truth.labels.columns]

"""`xrv probe --report`: what features know, as one page with its table and its figure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from torchxrayvision.csvtext import write_frame
from torchxrayvision.errors import DependencyError
from torchxrayvision.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd

    from torchxrayvision.files import Provenance

_ALL: Final = "all"
_MEAN: Final = "mean"


@dataclass(frozen=True)
class ProbeStudy:
    """Everything that the page is made of.

    Attributes:
        table: From `training.learning_curve`.
        features: Numbers of the features of an image.
        counted: Images and patients of both sides, as a sentence.
        sides: How it was decided who is tested, as a sentence.
        seeds: Draws of each number of patients.
        provenance: What makes the page.
        title: Of the page.
    """

    table: pd.DataFrame
    features: int
    counted: str
    sides: str
    seeds: int
    provenance: Provenance
    title: str

    @property
    def cards(self) -> list[tuple[str, str, str]]:
        """The figures at the top: the mean AUROC from few patients and from all."""
        part = self.table[self.table["finding"] == _MEAN]
        if not len(part):
            part = self.table[self.table["per_class"] == _ALL].head(1)
        steps = part.to_dict("records")
        return [
            (f"{row['finding']} AUROC, {_who(str(row['per_class']))}", f"{row['auroc']:.3f}",
             _ends(row))
            for row in ([steps[0], steps[-1]] if len(steps) > 1 else steps)
        ]  # fmt: skip

    @property
    def methods(self) -> list[tuple[str, str]]:
        """What was done, for the methods of a paper."""
        weights = self.provenance.weights
        of = f"the network {weights}" if weights else "a network that the table does not name"
        return [
            ("Features", f"{self.features} numbers per image of {of}, which stayed as it is."),
            ("Images and patients", self.counted),
            ("Who is tested", self.sides),
            (
                "Probes",
                "One logistic regression per finding. Features are scaled by the mean and spread "
                "of the training images. The strength of the L2 penalty is chosen by "
                "cross-validation over patients within the images that were drawn; with one "
                "patient of each class there is no choice, and C is 1. Of each patient drawn one "
                f"image is used, and each number of patients is drawn {self.seeds} times. Each "
                "draw adds patients to the smaller ones of its seed. The last probe is fitted to "
                "all training images.",
            ),
            (
                "Intervals",
                "95 %, over the patients of the test, for the mean over the draws; images of one "
                "patient count as alike as they are. They do not hold how much the choice of "
                "training patients changes the result: the lowest and the highest of the draws "
                "show that. Where too few patients are there, no interval is given; probes.csv "
                "says why.",
            ),
            (
                "Mean",
                "Over the findings that have every number of patients, so that its points can be "
                "compared with each other.",
            ),
        ]

    @property
    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows of text."""
        head = ["finding", "patients of each class", "with the finding", "without it", "images"]
        head += ["positives", "AUROC", "of the draws"]
        return head, [
            [
                str(row["finding"]), str(row["per_class"]),
                *(_number(row[name]) for name in ("with_finding", "without", "n", "positives")),
                f"{row['auroc']:.3f} {_ends(row)}",
                "" if row["seeds"] == 1 else f"{row['lowest']:.3f} to {row['highest']:.3f}",
            ]
            for row in self.table.to_dict("records")
        ]  # fmt: skip


def _who(step: str) -> str:
    if step == _ALL:
        return "all patients"
    return f"{step} patient{'s' if step != '1' else ''} of each class"


def _number(value: Any) -> str:
    return "" if value is None or math.isnan(value) else f"{int(value):,}"


def _ends(row: Any) -> str:
    given = not math.isnan(row["low"])
    return f"[{row['low']:.3f}, {row['high']:.3f}]" if given else "(no interval)"


def write_probe_report(study: ProbeStudy, folder: Path) -> Path:
    """Write the folder: ``index.html``, ``probes.csv`` and ``figures/learning-curve.svg``.

    Args:
        study: What was fitted and tested.
        folder: Where to; made if it is not there.

    Returns:
        The page.

    Raises:
        DependencyError: If matplotlib or jinja2 is missing.
        OSError: If the folder cannot be written.
    """
    try:
        import jinja2  # noqa: F401
    except ImportError:
        raise DependencyError("jinja2", "a report", "report") from None
    from torchxrayvision.pages import environment
    from torchxrayvision.plots import learning_curve

    shown = learning_curve(study.table)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    write_frame(study.table, folder / "probes.csv", study.provenance)
    shown.save(folder / "figures" / "learning-curve.svg")
    page = (
        environment(Path(__file__).parent)
        .get_template("probes.html")
        .render(
            study=study,
            provenance=study.provenance,
            figure=shown.svg("AUROC of probes against the patients that they were fitted to"),
        )
    )
    target = folder / "index.html"
    with write_atomically(target) as part:
        part.write_text(page, encoding="utf-8")
    return target

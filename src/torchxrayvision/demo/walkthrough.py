"""The demonstration from start to end: images, predictions, masks, heatmaps, figures, report."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from torchxrayvision.demo.folder import Truth, make_folder
from torchxrayvision.demo.results import CloseUp, Demo

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    import pandas as pd
    from numpy.typing import NDArray

    from torchxrayvision.evaluation import Interval
    from torchxrayvision.models import Segmenter, XRayClassifier
    from torchxrayvision.segmentation import Segmentation

    Picture = NDArray[np.uint8]

IMAGES: Final = 60
"""Radiographs that the demonstration makes where nobody says otherwise."""

SEED: Final = 2027
"""Of simulated patients on whom the networks were not trained; each finding is on four or more."""

SIZE: Final = 512
"""Side of the images in pixels."""

THUMBNAIL: Final = 176
CLOSE_UP: Final = 420
_SHOWN: Final = ("Effusion", "Cardiomegaly", "Pneumothorax", "Mass", "Consolidation", "Edema")
_CLOSE_UPS: Final = 3
_FRONTAL: Final = ("PA", "AP")
_STRUCTURES: Final = ("Lungs", "Heart")
_TRUTH_COLOUR: Final = (80, 220, 255)
_COLOURS: Final = {
    **dict.fromkeys(("Left Lung", "Right Lung"), (95, 175, 255)),
    "Heart": (255, 95, 95),
}


def run(
    folder: str | os.PathLike[str],
    *,
    n: int = IMAGES,
    seed: int = SEED,
    size: int = SIZE,
    classifier: str | XRayClassifier = "demo",
    segmenter: str | Segmenter = "demo-anatomy",
    progress: Callable[[str], None] | None = None,
) -> Demo:
    """Simulate radiographs, predict, segment, explain, evaluate, and write a report of it.

    Nothing is downloaded. In the folder: ``report.html``, ``predictions.csv``, ``measures.csv``,
    ``auroc.csv``, ``contact-sheet.png`` and the images with their truth in ``films``.

    Args:
        folder: New or empty.
        n: Images, at least 12.
        seed: Of the simulation; not one that the demonstration weights were trained on.
        size: Side of the images in pixels.
        classifier: Weights, or a network.
        segmenter: Weights, or a network.
        progress: Called with the name of each step as it begins.

    Returns:
        What was found.

    Raises:
        DatasetError: If the folder is not empty, or `n` is too small.
    """
    from torchxrayvision.demo.report import write_report
    from torchxrayvision.errors import DatasetError
    from torchxrayvision.models import get_model
    from torchxrayvision.segmentation import get_segmenter

    if n < 12:
        msg = f"a demonstration needs 12 images or more, got n={n}"
        raise DatasetError(msg)
    home = Path(folder).expanduser()
    clock = _Clock(progress)
    with clock("simulate radiographs"):
        truth = make_folder(home / "films", n, seed, size)
    with clock("load the networks"):
        net = get_model(classifier) if isinstance(classifier, str) else classifier
        cutter = get_segmenter(segmenter) if isinstance(segmenter, str) else segmenter
    with clock("predict findings"):
        scores = _predict(truth, net)
    with clock("segment and measure"):
        measured, thumbnails = _segment(truth, cutter)
    with clock("explain"):
        close_ups, mistake = _close_ups(truth, scores, net, cutter)
    with clock("evaluate"):
        auroc, ratio_error, dice = _evaluate(truth, scores, measured)
    demo = Demo(
        home, truth, scores, measured, thumbnails, close_ups, mistake, auroc, ratio_error, dice,
        net, cutter, clock.seconds,
    )  # fmt: skip
    with clock("write the report"):
        _write_tables(demo)
        write_report(demo)
    return demo


class _Clock:
    """Announces steps and notes how long they take."""

    def __init__(self, progress: Callable[[str], None] | None) -> None:
        self.progress = progress
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        if self.progress is not None:
            self.progress(step)
        start = time.perf_counter()
        yield
        self.seconds[step] = time.perf_counter() - start


def _predict(truth: Truth, net: XRayClassifier) -> pd.DataFrame:
    from torchxrayvision.inference import predict

    table = predict(truth.folder / "images", net, engine="torch", check="off")
    table["path"] = [Path(path).relative_to(truth.folder).as_posix() for path in table["path"]]
    return table.set_index("path").loc[truth.labels.index]


def _segment(truth: Truth, net: Segmenter) -> tuple[pd.DataFrame, dict[str, Picture]]:
    """Measures of each frontal image, and a thumbnail of every image that can be read."""
    import pandas as pd

    from torchxrayvision.segmentation import segment

    rows, thumbnails = [], {}
    files = [truth.folder / path for path in truth.facts.index]
    for path, result in zip(truth.facts.index, segment(files, net, batch_size=4), strict=True):
        row = dict.fromkeys(("cardiothoracic_ratio", *_STRUCTURES), math.nan)
        if result.picture is not None:
            thumbnails[path] = _fitted(result.picture, THUMBNAIL)
            if truth.fact(path, "view") in _FRONTAL:
                row = _measured(truth, path, result)
        rows.append(row)
    return pd.DataFrame(rows, index=truth.facts.index), thumbnails


def _measured(truth: Truth, path: str, result: Segmentation) -> dict[str, float]:
    from torchxrayvision.evaluation import dice
    from torchxrayvision.measures import structure

    found = {"cardiothoracic_ratio": result.measures()["cardiothoracic_ratio"]}
    for name in _STRUCTURES:
        parts = ("Left Lung", "Right Lung") if name == "Lungs" else (name,)
        known = [mask for part in parts if (mask := truth.structure(path, part)) is not None]
        if result.masks is not None and known:
            found[name] = dice(structure(result.masks, name), np.logical_or.reduce(known))
    return found


def _close_ups(
    truth: Truth, scores: pd.DataFrame, net: XRayClassifier, cutter: Segmenter
) -> tuple[list[CloseUp], CloseUp | None]:
    """The clearest image of some findings, and the worst false alarm."""
    frontal = truth.facts["view"].isin(_FRONTAL) & (scores["error"] == "")
    chosen: list[tuple[str, str]] = []
    for finding in (name for name in _SHOWN if name in scores and name in truth.labels):
        taken = [path for path, _ in chosen]
        rows = frontal & (truth.labels[finding] == 1) & ~scores.index.isin(taken)
        if rows.any() and len(chosen) < _CLOSE_UPS:
            chosen.append((str(scores.loc[rows, finding].idxmax()), finding))
    shown = [_close_up(truth, scores, net, cutter, *pair) for pair in chosen]
    names = [name for name in scores.columns if name in truth.labels]
    absent = (truth.labels[names] == 0) & frontal.to_numpy()[:, None]
    alarms = scores[names].where(absent).to_numpy(np.float64)
    if np.isnan(alarms).all():
        return shown, None
    row, column = divmod(int(np.nanargmax(alarms)), len(names))
    return shown, _close_up(truth, scores, net, cutter, str(scores.index[row]), names[column])


def _close_up(
    truth: Truth,
    scores: pd.DataFrame,
    net: XRayClassifier,
    cutter: Segmenter,
    path: str,
    finding: str,
) -> CloseUp:
    from torchxrayvision.errors import ExplanationError, ImageReadError
    from torchxrayvision.explain import explain_file
    from torchxrayvision.pictures import draw_outlines, outline, overlay
    from torchxrayvision.segmentation import segment

    file = truth.folder / path
    (result,) = segment(file, cutter)
    if result.masks is None or result.picture is None:  # it was read before
        raise ImageReadError(file, result.error)
    widths = result.cardiothoracic()
    masks = {name: mask for name, mask in result.masks.items() if name in _COLOURS}
    colours = [_COLOURS[name] for name in masks]
    outlines = draw_outlines(result.picture, masks, colours, widths, thickness=2)
    try:
        evidence = explain_file(file, net, finding, "cam")
    except ExplanationError:  # the head is not linear in the mean of a map
        evidence = explain_file(file, net, finding, "gradcam")
    heat = overlay(result.picture, np.maximum(evidence.heat, 0))
    mask = truth.mask(path, finding)
    if mask is not None:
        heat[outline(mask, 2)] = _TRUTH_COLOUR
    return CloseUp(
        path,
        finding,
        float(np.asarray(scores.loc[path, finding])),
        mask is not None or finding in truth.present(path),
        _fitted(result.picture, CLOSE_UP),
        _fitted(outlines, CLOSE_UP),
        _fitted(heat, CLOSE_UP),
        math.nan if widths is None else widths.ratio,
    )


def _fitted(picture: Picture, side: int) -> Picture:
    """A picture whose longer side is at most so many pixels."""
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=None)
    return np.asarray(image)


def _evaluate(
    truth: Truth, scores: pd.DataFrame, measured: pd.DataFrame
) -> tuple[pd.DataFrame, Interval, dict[str, Interval]]:
    from torchxrayvision.evaluation import auroc_table, mean_interval

    # The demonstration weights have seen frontal images only.
    read = ((scores["error"] == "") & truth.facts["view"].isin(_FRONTAL)).to_numpy()
    names = [name for name in scores.columns if name in truth.labels]
    patients = truth.facts["patientid"].astype(str).to_numpy()
    auroc = auroc_table(
        truth.labels.loc[read, names].to_numpy(),
        scores.loc[read, names].to_numpy(),
        names,
        patients[read],
    )
    off = measured["cardiothoracic_ratio"] - truth.facts["cardiothoracic_ratio"]
    dice = {name: mean_interval(measured[name], patients) for name in _STRUCTURES}
    return auroc, mean_interval(off.abs(), patients), dice


def _write_tables(demo: Demo) -> None:
    from PIL import Image

    from torchxrayvision.pictures import contact_sheet

    demo.scores.to_csv(demo.folder / "predictions.csv")
    demo.measured.to_csv(demo.folder / "measures.csv")
    demo.auroc.to_csv(demo.folder / "auroc.csv", index=False)
    names = list(demo.thumbnails)
    titles = [", ".join(demo.truth.present(name)) or "no finding" for name in names]
    thumbnails = [demo.thumbnails[name] for name in names]
    picture = contact_sheet(thumbnails, titles, columns=10, titles_below=True)
    Image.fromarray(picture).save(demo.folder / "contact-sheet.png")

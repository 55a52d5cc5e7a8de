"""Whether explanations lie where radiologists marked a finding: pointing game and IoU."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.benchmark.running import names_of
from torchxrayvision.datasets import patients
from torchxrayvision.errors import DatasetError, ExplanationError
from torchxrayvision.evaluation import (
    effective_rows,
    iou,
    mean_interval,
    patient_codes,
    wilson_interval,
)
from torchxrayvision.explain import METHODS, attribute, pointing_game
from torchxrayvision.files import sha256_of
from torchxrayvision.runs import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from torchxrayvision.models import XRayClassifier

_BINS: Final = 256
# Gradients are noise between neighbouring pixels: as `xrv explain` draws them, they are blurred.
_SMOOTH: Final = {"gradients": 0.02, "ig": 0.02}


def otsu_region(heat: ArrayLike) -> NDArray[np.bool_]:
    """The pixels of the strongest evidence: above the threshold that parts the map in two best.

    Args:
        heat: Shape (H, W); evidence against the finding, below 0, counts as none.

    Returns:
        bool (H, W); empty where no pixel speaks for the finding.

    Example:
        >>> otsu_region([[0.0, 0.1], [0.1, 0.9]]).tolist()
        [[False, False], [False, True]]

    Source:
        Otsu. A threshold selection method from gray-level histograms. IEEE Transactions on
        Systems, Man, and Cybernetics 9, 1979.
    """
    values = np.maximum(np.nan_to_num(np.asarray(heat, np.float64)), 0.0)
    top = float(values.max(initial=0.0))
    if top == 0:
        return np.zeros(values.shape, bool)
    counts, edges = np.histogram(values, _BINS, (0.0, top))
    middles = (edges[1:] + edges[:-1]) / 2
    below, above = np.cumsum(counts), counts.sum() - np.cumsum(counts)
    sums = np.cumsum(counts * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    best = int(np.nanargmax(np.where((below > 0) & (above > 0), apart, -1.0)))
    return np.asarray(values >= edges[best + 1], bool)


def localise(
    model: XRayClassifier,
    rows: Any,
    cache: Path,
    *,
    methods: Sequence[str] = METHODS,
    on_progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Explain every marked finding of a dataset by every method, and compare with the marks.

    The pointing game asks whether the strongest evidence lies in the mask; IoU compares the mask
    with what Otsu's threshold leaves of the map. Both are computed at the side that the network
    takes. What was explained before is read from the cache, so a run that was stopped resumes.

    Args:
        model: In evaluation mode.
        rows: A dataset with ``pathology_masks``, prepared for the network.
        cache: Folder for the scores of each image.
        methods: Of `explain.METHODS`; one that the network has no layer for is left out.
        on_progress: Called with the images done and to do.

    Returns:
        One row per method and finding, and the mean over findings: ``method``, ``finding``,
        ``n`` (marked images), ``hits`` (share), ``hits_low``, ``hits_high``, ``chance`` (share of
        the image that is marked), ``iou``, ``iou_low``, ``iou_high``, ``findings`` and ``reason``.

    Raises:
        DatasetError: If no image has a mask of a finding that the model knows, or no method can
            explain the network.

    Source:
        Saporta et al. Benchmarking saliency methods for chest X-ray interpretation. Nature Machine
        Intelligence 4, 2022. Zhang et al. Top-down neural attention by excitation backprop. ECCV
        2016.
    """
    names = names_of(rows)
    able, refused = _able(model, methods)
    if not able:
        msg = f"no method explains {type(model).__name__}: {'; '.join(refused.values())}"
        raise DatasetError(msg)
    about = json.dumps([fingerprint(model), names, list(able), model.input_resolution])
    cache.mkdir(parents=True, exist_ok=True)
    file = cache / f"localise-{sha256_of(about.encode())[:24]}.jsonl"
    done = [*_lines(file)]
    with file.open("w", encoding="utf-8") as stream:  # without a line that was cut off
        stream.writelines(json.dumps(record) + "\n" for record in done)
    with file.open("a", encoding="utf-8") as stream:
        for index in range(len(done), len(rows)):
            record = _scores(model, rows[index], list(rows.pathologies), able)
            stream.write(json.dumps(record) + "\n")
            stream.flush()
            done.append(record)
            if on_progress is not None:
                on_progress(index + 1, len(rows))
    try:
        people = patient_codes(patients(rows), len(rows))
    except DatasetError:
        people = patient_codes(None, len(rows))
    return _table(done, people, able)


def _able(model: XRayClassifier, methods: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Methods that explain the network, and why the others do not."""
    import torch

    size = int(model.input_resolution)
    target = next(n for n, good in zip(model.targets, model.trained, strict=True) if good)
    able, refused = [], {}
    for method in methods:
        try:
            attribute(model, torch.zeros(1, 1, size, size), target, method, **_quick(method))
            able.append(method)
        except ExplanationError as error:
            refused[method] = str(error)
    return able, refused


def _quick(method: str) -> dict[str, Any]:
    """Options under which it is soon known whether a method explains a network."""
    return {"ig": {"steps": 1}, "occlusion": {"window": 64, "stride": 64}}.get(method, {})


def _lines(file: Path) -> Iterator[list[dict[str, Any]]]:
    """Scores of the images that are done, up to a line that is cut off."""
    if not file.is_file():
        return
    for line in file.read_text("utf-8").splitlines(keepends=True):
        if not line.endswith("\n"):
            return
        yield json.loads(line)


def _scores(
    model: XRayClassifier, sample: dict[str, Any], findings: list[str], methods: Sequence[str]
) -> list[dict[str, Any]]:
    """Every marked finding of one image by every method."""
    import torch

    device = next(model.parameters()).device
    image = torch.from_numpy(np.asarray(sample["img"], np.float32))[None].to(device)
    known = {n for n, good in zip(model.targets, model.trained, strict=True) if good}
    found = []
    for place, marked in sorted(sample.get("pathology_masks", {}).items()):
        name = findings[int(place)]
        mask = np.asarray(marked, np.float32).reshape(image.shape[-2:]) >= 0.5
        if name not in known or not mask.any():
            continue
        for method in methods:
            heat = attribute(model, image, name, method, smooth=_SMOOTH.get(method, 0.0))
            values = heat[0].detach().float().cpu().numpy()
            game = pointing_game([values], [mask])
            shared = iou(otsu_region(values), mask)
            found.append(
                {"finding": name, "method": method, "hit": game.accuracy, "iou": shared,
                 "chance": game.chance}
            )  # fmt: skip
    return found


def _table(
    done: list[list[dict[str, Any]]], people: NDArray[np.int64], methods: Sequence[str]
) -> pd.DataFrame:
    import pandas as pd

    flat = [{**each, "row": row} for row, scores in enumerate(done) for each in scores]
    if not flat:
        msg = "no image has a mask of a finding that the model knows"
        raise DatasetError(msg)
    table = pd.DataFrame(flat)
    rows = []
    for method in methods:
        ours = table[table["method"] == method]
        parts = [_row(part, people) for _, part in ours.groupby("finding", sort=True)]
        rows += [{"method": method, **part} for part in parts]
        mean = {name: float(np.mean([part[name] for part in parts])) for name in _AVERAGED}
        rows.append({"method": method, "finding": "mean", "n": len(ours), **mean,
                     "findings": len(parts)})  # fmt: skip
    columns = [
        "method", "finding", "n", "hits", "hits_low", "hits_high", "chance", "iou", "iou_low",
        "iou_high", "findings", "reason",
    ]  # fmt: skip
    made = pd.DataFrame(rows).reindex(columns=columns)
    return made.assign(reason=made["reason"].fillna(""))


_AVERAGED: Final = ("hits", "chance", "iou")


def _row(part: pd.DataFrame, people: NDArray[np.int64]) -> dict[str, Any]:
    """One method and finding; intervals count patients."""
    codes = people[part["row"].to_numpy()]
    hits = part["hit"].to_numpy(float)
    shared = mean_interval(part["iou"].to_numpy(float), codes)
    size = effective_rows(hits >= 0.5, np.ones(len(hits), bool), codes)
    enough = len(set(codes.tolist())) >= _LEAST
    ends = wilson_interval(float(hits.mean()) * size, size) if enough else (math.nan, math.nan)
    few = "" if enough else f"too few patients for an interval: fewer than {_LEAST}"
    within = enough and not shared.reason
    return {
        "finding": str(part["finding"].iloc[0]), "n": len(part), "hits": float(hits.mean()),
        "hits_low": ends[0], "hits_high": ends[1], "chance": float(part["chance"].mean()),
        "iou": shared.value, "iou_low": max(shared.low, 0.0) if within else math.nan,
        "iou_high": min(shared.high, 1.0) if within else math.nan, "findings": 1,
        "reason": few or shared.reason,
    }  # fmt: skip


_LEAST: Final = 5

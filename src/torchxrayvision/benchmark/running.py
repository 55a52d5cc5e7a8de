"""A benchmark from the rows to the table: predictions that are kept, AUROCs with intervals."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from torchxrayvision.datasets import (
    Dataset,
    Split,
    describe_split,
    find_official_split,
    get_dataset_class,
    patients,
)
from torchxrayvision.errors import DatasetError, counted
from torchxrayvision.evaluation import MEAN, auroc_table
from torchxrayvision.files import sha256_of, write_atomically
from torchxrayvision.inputs import ReadOptions, prefetch
from torchxrayvision.runs import fingerprint
from torchxrayvision.transforms import XRayCenterCrop, XRayResizer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from torchxrayvision.benchmark.protocols import Protocol, Published
    from torchxrayvision.models import XRayClassifier

_BATCH: Final = 16
_SAVE_EVERY: Final = 20  # batches


@dataclass(kw_only=True, eq=False)
class Cell:
    """One model on one dataset.

    Attributes:
        weights: Name of the weights.
        dataset: Name of the dataset.
        table: One row per finding and the mean: ``finding``, ``n``, ``positives``, ``auroc``,
            ``low``, ``high``, ``reason``; ``published``, ``model``, ``inside`` and ``source``
            where a number was published for these weights.
        split: Counts and hashes of the rows.
        problems: How the rows differ from those of the protocol.
        weights_sha256: See `runs.fingerprint`.
        failed: Images that could not be read and are left out.
    """

    weights: str
    dataset: str
    table: pd.DataFrame
    split: Split
    problems: list[str] = field(default_factory=list)
    weights_sha256: str = ""
    failed: int = 0

    @property
    def outside(self) -> list[str]:
        """Findings whose published number and ours exclude each other."""
        if self.problems or "inside" not in self.table:
            return []
        return [str(f) for f in self.table.loc[self.table["inside"] == "outside", "finding"]]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "weights": self.weights,
            "weights_sha256": self.weights_sha256,
            "dataset": self.dataset,
            "split": asdict(self.split),
            "problems": self.problems,
            "failed": self.failed,
            "findings": self.table.to_dict("records"),
        }


def _problems(protocol: Protocol, found: Split) -> list[str]:
    if protocol.part:
        official = find_official_split(protocol.dataset, protocol.part)
        return [] if official is None else official.problems(found)
    problems = []
    if protocol.images and found.images != protocol.images:
        problems.append(f"images {found.images}, not {protocol.images}")
    known = protocol.images_sha256
    if known and found.images_sha256 not in known:
        problems.append(f"sha256 of the images {found.images_sha256}, not {' or '.join(known)}")
    return problems


def rows_of(protocol: Protocol, arguments: Mapping[str, Any], size: int | None = None) -> Any:
    """The dataset of a protocol, all views and images, and the part that is tested on.

    Args:
        protocol: The benchmark.
        arguments: For the constructor, such as ``imgpath``.
        size: Side that images are cropped and resized to; None for images as they are.
    """
    import inspect

    cls = get_dataset_class(protocol.dataset)
    accepted = inspect.signature(cls).parameters
    given = dict(arguments)
    usual = {"views": "*", "unique_patients": False, "pathology_masks": False}
    given |= {k: v for k, v in usual.items() if k in accepted and k not in given}
    if "imgpath" in accepted:
        given.setdefault("imgpath", None)
    if size is not None:
        given["transform"] = _Square(size)
    dataset = cls(**given)
    return dataset.official_split(protocol.part) if protocol.part else dataset


class _Square:
    """The centre square at the side that a network takes, as `xrv predict` prepares it."""

    def __init__(self, size: int) -> None:
        self._crop, self._resize = XRayCenterCrop(), XRayResizer(size)

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(self._resize(self._crop(image)), np.float32)


def plan(protocol: Protocol, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a benchmark needs, and whether it is there; no image is read.

    Args:
        protocol: The benchmark.
        arguments: What the user gave for the constructor of the dataset.

    Returns:
        ``dataset``, ``part``, ``needs`` (arguments that are missing), ``images``, ``problems`` of
        the rows, and ``images_missing`` (True, False, or None where no folder was given).

    Example:
        >>> from torchxrayvision.benchmark import get_protocol
        >>> found = plan(get_protocol("siim"), {})
        >>> found["needs"], found["images"], found["problems"]
        (['imgpath'], 12047, [])
    """
    needs = [n for n in ("imgpath", *protocol.arguments) if arguments.get(n) is None]
    found: dict[str, Any] = {
        "benchmark": protocol.name, "title": protocol.title, "dataset": protocol.dataset,
        "part": protocol.part, "needs": needs, "images": None, "problems": [],
        "images_missing": None, "note": protocol.note,
    }  # fmt: skip
    if set(needs) & set(protocol.arguments):
        return found
    rows = rows_of(protocol, arguments)
    split = describe_split(rows)
    found |= {"images": split.images, "problems": _problems(protocol, split)}
    found["images_sha256"] = split.images_sha256
    if arguments.get("imgpath") is not None:
        inner = getattr(rows, "dataset", rows)
        chosen = getattr(rows, "idxs", range(len(rows)))
        try:
            images, context = inner.spec.images, inner._context
            images.place(context)
            found["images_missing"] = sum(
                not images.exists(inner._row(int(i)), context) for i in chosen
            )
        except DatasetError as error:
            found["problems"] = [*found["problems"], str(error)]
    return found


def scores_of(
    model: XRayClassifier,
    rows: Dataset,
    cache: Path,
    *,
    reading: ReadOptions | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Outputs of a model for every row of a dataset, kept in a file so that a run resumes.

    Args:
        model: In evaluation mode.
        rows: Whose samples are prepared for the network.
        cache: Folder of the file; its name holds the hashes of weights and rows.
        reading: `time_limit` and `workers` count.
        on_progress: Called with the rows done and to do.

    Returns:
        float32 (N, P), NaN for images that could not be read.
    """
    import torch

    split = describe_split(rows)
    order = sha256_of("\n".join(names_of(rows)).encode())
    key = sha256_of(f"{fingerprint(model)} {order} {model.input_resolution}".encode())[:24]
    cache.mkdir(parents=True, exist_ok=True)
    place, state = cache / f"{key}.f32", cache / f"{key}.json"
    count, width = len(rows), len(model.targets)
    done = 0
    if state.is_file() and place.is_file() and place.stat().st_size == 4 * count * width:
        done = int(json.loads(state.read_text("utf-8"))["done"])
    mode: Literal["r+", "w+"] = "r+" if done else "w+"
    scores: Any = np.memmap(place, np.float32, mode, shape=(count, width))

    def save(so_far: int) -> None:
        scores.flush()
        about = {"done": so_far, "rows": count, "images_sha256": split.images_sha256}
        with write_atomically(state) as part:
            part.write_text(json.dumps(about), "utf-8")

    device = next(model.parameters()).device
    samples = prefetch(range(done, count), lambda at, _: rows[at]["img"], reading or ReadOptions())
    batch: list[NDArray[np.float32] | None] = []
    for at, image in samples:
        batch.append(None if isinstance(image, str) else np.asarray(image, np.float32))
        if len(batch) < _BATCH and at < count - 1:
            continue
        made = np.full((len(batch), width), np.nan, np.float32)
        good = [i for i, one in enumerate(batch) if one is not None]
        if good:
            images = np.stack([one for one in batch if one is not None])
            with torch.inference_mode():
                made[good] = model(torch.from_numpy(images).to(device)).float().cpu().numpy()
        scores[at + 1 - len(batch) : at + 1] = made
        batch.clear()
        if (at + 1) % (_BATCH * _SAVE_EVERY) == 0 or at == count - 1:
            save(at + 1)
        if on_progress is not None:
            on_progress(at + 1, count)
    return np.array(scores)


def names_of(rows: Any) -> list[str]:
    """The image of each row of a dataset or of a part of one."""
    inner = getattr(rows, "dataset", rows)
    chosen = getattr(rows, "idxs", range(len(rows)))
    return [inner.image_path(int(i)) for i in chosen]


def benchmark(
    protocol: Protocol,
    model: XRayClassifier,
    arguments: Mapping[str, Any],
    cache: Path,
    *,
    name: str = "",
    reading: ReadOptions | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Cell:
    """Carry out a benchmark for one model.

    Args:
        protocol: Which one.
        model: In evaluation mode.
        arguments: For the constructor of the dataset: ``imgpath`` and the tables.
        cache: Folder of predictions that are kept, see `scores_of`.
        name: Of the weights; those of the model if empty.
        reading: See `scores_of`.
        on_progress: See `scores_of`.

    Returns:
        The table, with published numbers beside ours.

    Raises:
        DatasetError: If a table or an argument is missing, or model and labels share no finding.
    """
    rows = rows_of(protocol, arguments, int(model.input_resolution))
    scores = scores_of(model, rows, cache, reading=reading, on_progress=on_progress)
    cell = measured(model, rows, scores, protocol.findings)
    cell.weights = name or str(model.weights)
    cell.dataset = protocol.dataset
    cell.problems = _problems(protocol, cell.split)
    cell.table = _compared(cell.table, cell.weights, protocol.published)
    return cell


def measured(
    model: XRayClassifier, rows: Any, scores: NDArray[np.float32], findings: Sequence[str] = ()
) -> Cell:
    """AUROC of each finding that a model and a dataset share, with intervals.

    Args:
        model: Whose outputs these are.
        rows: A dataset.
        scores: (N, P), NaN for images that could not be read.
        findings: Which ones; empty for all.

    Returns:
        The cell of one model and one dataset.

    Raises:
        DatasetError: If they share no finding.
    """
    trained = [n for n, good in zip(model.targets, model.trained, strict=True) if good]
    shared = [n for n in (findings or rows.pathologies) if n in trained and n in rows.pathologies]
    if not shared:
        msg = f"the model knows none of {list(findings or rows.pathologies)}; it has {trained}"
        raise DatasetError(msg)
    labels = np.asarray(rows.labels)[:, [list(rows.pathologies).index(n) for n in shared]]
    values = scores[:, [model.targets.index(n) for n in shared]]
    good = ~np.isnan(values).any(axis=1)
    try:
        people = patients(rows)[good]
    except DatasetError:  # SIIM does not say whose images they are
        people = None
    table = auroc_table(labels[good], values[good], shared, people)
    return Cell(
        weights=str(model.weights), dataset=type(rows).__name__, table=table,
        split=describe_split(rows), weights_sha256=fingerprint(model), failed=int((~good).sum()),
    )  # fmt: skip


def _compared(table: pd.DataFrame, weights: str, published: Sequence[Published]) -> pd.DataFrame:
    """The table with what was published for these weights."""
    from torchxrayvision.weights import get

    try:
        known = get(weights).name
    except ValueError:
        known = weights
    numbers = {p.finding: p for p in published if p.weights and p.weights == known}
    if not numbers:
        return table
    rows = []
    for row in table.to_dict("records"):
        said = numbers.get(row["finding"])
        if said is None:
            rows.append({"published": np.nan, "model": "", "inside": "", "source": ""})
            continue
        if said.low is not None and said.high is not None:
            inside = said.low <= row["auroc"] <= said.high
        else:
            inside = row["low"] <= said.auroc <= row["high"]
        word = "inside" if inside else "outside"
        rows.append(
            {"published": said.auroc, "model": said.model, "inside": word, "source": said.source}
        )
    added: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    return table.assign(**added)


def markdown(cells: Sequence[Cell]) -> str:
    """The matrix of weights and datasets, each cell with its interval and number of images.

    Args:
        cells: In any order.

    Returns:
        A table in Markdown.
    """
    datasets = list(dict.fromkeys(cell.dataset for cell in cells))
    lines = [
        "| weights | " + " | ".join(datasets) + " |",
        "| --- |" + " ---: |" * len(datasets),
    ]
    for weights in dict.fromkeys(cell.weights for cell in cells):
        found = {cell.dataset: cell for cell in cells if cell.weights == weights}
        texts = [_text(found[name]) if name in found else "" for name in datasets]
        lines.append(f"| {weights} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def _text(cell: Cell) -> str:
    row = cell.table[cell.table["finding"] == MEAN].iloc[0]
    if np.isnan(row["auroc"]):
        return str(row["reason"])
    ends = f"[{row['low']:.3f}, {row['high']:.3f}]" if not row["reason"] else str(row["reason"])
    over = f"{counted(int(row['n']), 'image')}, {counted(int(row['findings']), 'finding')}"
    return f"{row['auroc']:.3f} {ends} ({over})"

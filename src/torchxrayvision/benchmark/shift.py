"""Covariate shift on simulated sites: AUROC against the correlation of site and label.

Two sites show the same patients' findings in another look. A small network is trained on mixtures
in which the site says more or less about the label, and tested on patients it has not seen, mixed
the same way (in distribution), the opposite way (out of distribution), and evenly.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from torchxrayvision.datasets import CovariateDataset, Phantom_Dataset, SubsetDataset, patients
from torchxrayvision.errors import DatasetError
from torchxrayvision.evaluation import mean_auroc
from torchxrayvision.files import sha256_of, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pandas as pd
    import torch
    from numpy.typing import NDArray

TESTS: Final = ("same", "even", "opposite")
"""How the test is mixed, beside the training."""

_SPLITS: Final = (0.6, 0.05, 0.35)
_BATCH: Final = 32
_CHANNELS: Final = ((1, 12), (12, 24), (24, 32), (32, 48))
_RATE: Final = 4e-3


@dataclass(frozen=True, kw_only=True)
class Shift:
    """What is simulated and trained.

    Args:
        finding: That the network learns.
        sites: Of `Phantom_Dataset`.
        size: Side of the images, pixels.
        drawn: Images drawn per site, most of which are never rendered.
        pool: Rendered, of each site and label.
        steps: Ratios from 0 to 1, evenly spaced.
        seeds: Splits, mixtures and first weights of each ratio.
        epochs: Passes over the training images.
    """

    finding: str = "Effusion"
    sites: tuple[str, str] = ("A", "B")
    size: int = 64
    drawn: int = 2400
    pool: int = 150
    steps: int = 11
    seeds: int = 5
    epochs: int = 30

    @classmethod
    def of(cls, items: Sequence[str]) -> Shift:
        """From texts such as ``"seeds=2"``.

        Args:
            items: Name and value of fields that are numbers.

        Returns:
            The others are as they are.

        Raises:
            DatasetError: If there is no such number.

        Example:
            >>> Shift.of(["seeds=2"]).seeds
            2
        """
        numbers = [f.name for f in fields(cls) if isinstance(f.default, int)]
        given: dict[str, Any] = {}
        for item in items:
            name, _, value = item.partition("=")
            if name not in numbers or not value.isdecimal() or int(value) < 1 + (name == "steps"):
                msg = f"covariate-shift takes the numbers {', '.join(numbers)}, got {item!r}"
                raise DatasetError(msg)
            given[name] = int(value)
        return cls(**given)

    @property
    def ratios(self) -> list[float]:
        """Shares of positives from the second site, and of negatives from the first."""
        return [round(float(ratio), 4) for ratio in np.linspace(0, 1, self.steps)]

    @property
    def trainings(self) -> int:
        """How many networks are trained."""
        return self.steps * self.seeds


def covariate_shift(
    shift: Shift,
    cache: Path,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Train and test on every mixture; what was rendered and scored before is not done again.

    Args:
        shift: What is simulated and trained.
        cache: Folder for the images and for the scores of each network.
        on_progress: Called with the networks trained and to train.

    Returns:
        One row per ratio and test: ``ratio``, ``test`` (of `TESTS`), ``auroc`` (mean over the
        seeds), ``low`` and ``high`` (95 % over patients) and ``images`` of the test.

    Raises:
        DatasetError: If too few of the images drawn have the finding.
    """
    import pandas as pd
    import torch

    sides = [_chosen(shift, site) for site in (0, 1)]
    targets = [s.labels[:, list(s.pathologies).index(shift.finding)] for s in sides]
    cache.mkdir(parents=True, exist_ok=True)
    pixels = torch.from_numpy(_pixels(shift, sides, cache))
    truth = np.concatenate(targets)
    first, second = (patients(side) for side in sides)
    people = np.concatenate([first, second + first.max() + 1])
    done, rows = 0, []
    for ratio in shift.ratios:
        # A column a seed; NaN where an image is not in that seed's test.
        labels = {test: np.full((len(truth), shift.seeds), np.nan) for test in TESTS}
        scores = np.zeros((len(truth), shift.seeds))
        for seed in range(shift.seeds):
            parts = _Parts(shift, sides, targets, seed)
            trained = parts.rows("train", ratio)
            scores[:, seed] = _scores(shift, pixels, truth, trained, (ratio, seed), cache)
            # Tests mix the opposite way of their ratio.
            for test, mixed in zip(TESTS, (1 - ratio, 0.5, ratio), strict=True):
                tested = parts.rows("test", mixed)
                labels[test][tested, seed] = truth[tested]
            done += 1
            if on_progress is not None:
                on_progress(done, shift.trainings)
        for test in TESTS:
            area = mean_auroc(labels[test], scores, people)
            rows.append((ratio, test, area.value, area.low, area.high, area.n))
    return pd.DataFrame(rows, columns=["ratio", "test", "auroc", "low", "high", "images"])


def _chosen(shift: Shift, site: int) -> SubsetDataset:
    """As many images with the finding as without it."""
    drawn = Phantom_Dataset(
        shift.drawn, seed=100 + site, size=shift.size, site=shift.sites[site], views=["PA"]
    )
    target = drawn.labels[:, list(drawn.pathologies).index(shift.finding)]
    rows = np.concatenate([np.flatnonzero(target == label)[: shift.pool] for label in (0, 1)])
    if len(rows) < 2 * shift.pool:
        msg = (
            f"{len(rows)} of {2 * shift.pool} images at site {shift.sites[site]}; give more than "
            f"drawn={shift.drawn}, or less than pool={shift.pool}"
        )
        raise DatasetError(msg)
    return SubsetDataset(drawn, rows)


def _pixels(shift: Shift, sides: Sequence[Any], cache: Path) -> NDArray[np.float32]:
    """Every image, (N, 1, S, S) in [-1, 1]."""

    def render() -> NDArray[np.float32]:
        images = [side[i]["img"] for side in sides for i in range(len(side))]
        return np.asarray(np.stack(images) / np.float32(1024), np.float32)

    about = {name: asdict(shift)[name] for name in ("finding", "sites", "size", "drawn", "pool")}
    return _kept(cache, "images", about, render)


def _kept(
    cache: Path, name: str, about: object, make: Callable[[], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """An array from a file whose name holds the hash of what it depends on; made if absent."""
    key = sha256_of(json.dumps(about, sort_keys=True).encode())[:16]
    file = cache / f"{name}-{key}.npy"
    if file.is_file():
        return np.asarray(np.load(file, allow_pickle=False), np.float32)
    made = make()
    buffer = io.BytesIO()
    np.save(buffer, made, allow_pickle=False)
    with write_atomically(file) as part:
        part.write_bytes(buffer.getvalue())
    return made


class _Parts:
    """Which images are trained and tested on, by the split of a seed."""

    def __init__(
        self, shift: Shift, sides: Sequence[Any], targets: Sequence[NDArray[Any]], seed: int
    ) -> None:
        self._shift, self._sides, self._targets, self._seed = shift, sides, targets, seed

    def rows(self, mode: Literal["train", "test"], ratio: float) -> NDArray[np.int64]:
        """Places among all images, those of the first site first."""
        (first, second), (ours, theirs) = self._sides, self._targets
        mixed = CovariateDataset(
            first, ours, second, theirs, ratio=ratio, mode=mode, seed=self._seed, splits=_SPLITS,
            by_patient=True,
        )  # fmt: skip
        return np.asarray(mixed.site * 2 * self._shift.pool + mixed.imageids, np.int64)


def _scores(
    shift: Shift,
    pixels: torch.Tensor,
    truth: NDArray[Any],
    trained: NDArray[np.int64],
    which: tuple[float, int],
    cache: Path,
) -> NDArray[np.float32]:
    """Outputs for every image of a network trained on some, kept in a file, (N,)."""
    import torch

    def make() -> NDArray[np.float32]:
        labels = torch.from_numpy(truth[trained]).float()
        net = _trained(pixels[trained], labels, which[1], shift.epochs)
        with torch.inference_mode():
            return np.asarray(net(pixels)[:, 0].numpy(), np.float32)

    return _kept(cache, "scores", [asdict(shift), *which], make)


def _trained(x: torch.Tensor, y: torch.Tensor, seed: int, epochs: int) -> torch.nn.Module:
    """Four strided convolutions and a linear head on their mean.

    Trained by AdamW on random shifts, with a learning rate that falls to nothing, and random
    numbers of its own.
    """
    import torch
    from torch import nn

    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for before, after in _CHANNELS:
            layers.append(nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False))
            layers += [nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(_CHANNELS[-1][1], 1)]
        net = nn.Sequential(*layers).train()
        batch = min(_BATCH, len(x))
        steps = epochs * (len(x) // batch)
        optimizer = torch.optim.AdamW(net.parameters(), lr=_RATE, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
        for _ in range(epochs):
            order = torch.randperm(len(x))[: steps // epochs * batch]
            for rows in torch.split(order, batch):
                down, right = torch.randint(-3, 4, (2,)).tolist()
                moved = torch.roll(x[rows], (down, right), (2, 3))
                loss = nn.functional.binary_cross_entropy_with_logits(net(moved)[:, 0], y[rows])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
    return net.eval()

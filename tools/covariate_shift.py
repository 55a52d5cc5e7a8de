"""Covariate shift on simulated sites: AUROC against the correlation of site and label.

    python tools/covariate_shift.py --cache films.npz

Two sites show the same patients' findings in another look. A small network is trained on mixtures
in which the site says more or less about the label, and tested on patients it has not seen, mixed
the same way (in distribution), the opposite way (out of distribution), and evenly. Writes the table
and the figure of docs/covariate-shift.md; minutes on one core, of which rendering is most.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from torchxrayvision.datasets import CovariateDataset, Phantom_Dataset, SubsetDataset
from torchxrayvision.datasets.split import patients
from torchxrayvision.evaluation import mean_auroc

FINDING = "Effusion"
SITES = ("A", "B")
SIZE = 64
DRAWN = 2400  # films drawn a site, most of which are never rendered
POOL = 150  # rendered, of each site and label
RATIOS = tuple(round(0.1 * step, 1) for step in range(11))
SPLITS = (0.6, 0.05, 0.35)
SEEDS = 5
EPOCHS = 30
BATCH = 32
DOCS = Path(__file__).parents[1] / "docs"
TESTS = ("same", "even", "opposite")


def choose(site: int) -> SubsetDataset:
    """As many films with the finding as without it."""
    drawn = Phantom_Dataset(DRAWN, seed=100 + site, size=SIZE, site=SITES[site], views=["PA"])
    target = drawn.labels[:, drawn.pathologies.index(FINDING)]
    rows = np.concatenate([np.flatnonzero(target == label)[:POOL] for label in (0, 1)])
    if len(rows) < 2 * POOL:
        raise SystemExit(f"{len(rows)} films at site {SITES[site]}; raise DRAWN")
    return SubsetDataset(drawn, rows)


def render(films: SubsetDataset) -> np.ndarray:
    """Pixels of every film, float32 (N, 1, SIZE, SIZE) in [-1, 1]."""
    return np.stack([films[i]["img"] for i in range(len(films))]) / np.float32(1024)


class Net(nn.Sequential):
    """Four strided convolutions and a linear head on their mean."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for before, after in ((1, 12), (12, 24), (24, 32), (32, 48)):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 1))


def train(x: torch.Tensor, y: torch.Tensor, seed: int) -> Net:
    """Adam on random shifts, with a learning rate that falls to nothing."""
    torch.manual_seed(seed)
    net = Net().train()
    steps = EPOCHS * (len(x) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x))[: steps // EPOCHS * BATCH].split(BATCH):
            down, right = torch.randint(-3, 4, (2,)).tolist()
            batch = torch.roll(x[rows], (down, right), (2, 3))
            loss = nn.functional.binary_cross_entropy_with_logits(net(batch)[:, 0], y[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def mixture(films: list[Any], targets: list[np.ndarray], **kwargs: Any) -> CovariateDataset:
    return CovariateDataset(
        films[0], targets[0], films[1], targets[1], splits=SPLITS, by_patient=True, **kwargs
    )


def rows_of(dataset: CovariateDataset) -> np.ndarray:
    """Places of its samples among all films, those of the first site first."""
    return dataset.site * 2 * POOL + dataset.imageids


def run(films: list[Any], pixels: np.ndarray) -> pd.DataFrame:
    """One row a ratio and test: mean AUROC over seeds, patients resampled for the interval."""
    targets = [f.labels[:, list(f.pathologies).index(FINDING)] for f in films]
    x, truth = torch.from_numpy(pixels), np.concatenate(targets)
    first, second = (patients(f) for f in films)
    people = np.concatenate([first, second + first.max() + 1])
    rows = []
    for ratio in RATIOS:
        # A column a seed; NaN where a film is not in that seed's test.
        labels = {test: np.full((len(x), SEEDS), np.nan) for test in TESTS}
        scores = np.zeros((len(x), SEEDS))
        for seed in range(SEEDS):
            how = {"films": films, "targets": targets, "seed": seed}
            training = rows_of(mixture(**how, ratio=ratio, mode="train"))
            net = train(x[training], torch.from_numpy(truth[training]).float(), seed)
            with torch.inference_mode():
                scores[:, seed] = net(x)[:, 0].numpy()
            # Tests mix the opposite way of their ratio.
            for test, mixed in zip(TESTS, (1 - ratio, 0.5, ratio), strict=True):
                tested = rows_of(mixture(**how, ratio=mixed, mode="test"))
                assert not set(people[tested]) & set(people[training])
                labels[test][tested, seed] = truth[tested]
        for test in TESTS:
            area = mean_auroc(labels[test], scores, people)
            rows.append((ratio, test, area.value, area.low, area.high, area.n))
        print(f"ratio {ratio:.1f}", *(f"{row[1]} {row[2]:.3f}" for row in rows[-3:]), flush=True)
    return pd.DataFrame(rows, columns=["ratio", "test", "auroc", "low", "high", "films"])


def draw(table: pd.DataFrame, path: Path) -> None:
    """The figure."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    mpl.rcParams.update({"svg.hashsalt": "covariate-shift", "font.size": 11})
    figure, axes = plt.subplots(figsize=(7, 4.4), layout="constrained")
    names = {
        "same": ("in distribution", "#0b6b74", "o"),
        "even": ("site says nothing in the test", "#8a8f94", "s"),
        "opposite": ("out of distribution", "#c2452d", "^"),
    }
    for test, (name, colour, marker) in names.items():
        part = table[table["test"] == test]
        axes.fill_between(part["ratio"], part["low"], part["high"], color=colour, alpha=0.18, lw=0)
        axes.plot(part["ratio"], part["auroc"], color=colour, marker=marker, ms=5, label=name)
    axes.axhline(0.5, color="#777777", lw=0.8, ls=":")
    axes.set(
        xlabel="ratio in training: share of positives from site B, and of negatives from site A",
        ylabel=f"AUROC, {FINDING}",
        xticks=RATIOS,
        ylim=(-0.02, 1.02),
        xlim=(-0.02, 1.02),
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower center")
    figure.savefig(path, dpi=160)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, help="keeps the rendered films between runs")
    cache = parser.parse_args().cache
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    films = [choose(0), choose(1)]
    if cache is not None and cache.exists():
        pixels = np.load(cache)["pixels"]
    else:
        pixels = np.concatenate([render(f) for f in films])
        if cache is not None:
            np.savez(cache, pixels=pixels)
    table = run(films, pixels)
    (DOCS / "images").mkdir(exist_ok=True)
    table.to_csv(DOCS / "covariate-shift.csv", index=False, float_format="%.4f")
    draw(table, DOCS / "images" / "covariate-shift.png")


if __name__ == "__main__":
    main()

"""Do the explanations of the demonstration weights point at the findings of simulated radiographs?

The pointing game (Zhang et al. 2016) on films that hold one finding each, beside other films of the
same finding explained after the weights became random: those must fall to the chance rate.

    python benchmarks/pointing_game.py [--films 50] [--weights demo] [--tolerance 0.03] [--json OUT]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from torchxrayvision import explain
from torchxrayvision.models import get_model
from torchxrayvision.phantom import simulate

FINDINGS = ("Effusion", "Mass", "Nodule", "Cardiomegaly", "Pneumothorax")
METHODS = ("gradcam", "ig")
# Without shifts the point is the middle of one of the few positions of a map. Without a blur it is
# that of the noisiest pixel of a gradient; and a blurred baseline still holds an effusion or a
# large heart, the mirror image does not.
OPTIONS = {
    "gradcam": {"shifts": 4},
    "gradcam++": {"shifts": 4},
    "ig": {"smooth": 0.04, "baseline": "mirror"},
}
# A position of the map that is declared is 16 pixels wide at 144 pixels, a nodule 6 to 11: what is
# smaller than a position is read from a finer map too. Which of the two alone points better differs
# from one training to the next, both together point well after each.
FINE = {
    "Nodule": (explain.CamLayer("model.layer2"), explain.CamLayer("model.layer3", cells=True)),
}
SEED = 2021  # of films that no weights were trained on
SEVERITIES = (0.4, 1.0)


@dataclass(frozen=True)
class Row:
    """One finding, one method."""

    finding: str
    method: str
    n: int
    accuracy: float
    low: float
    high: float
    chance: float
    random_weights: float


def films(finding: str, count: int, size: int) -> tuple[torch.Tensor, list[np.ndarray]]:
    """Frontal films with one finding whose mask is not empty: images (N, 1, S, S), and masks."""
    images, masks, index = [], [], 0
    severities = np.random.default_rng(SEED)
    while len(images) < count:
        severity = float(severities.uniform(*SEVERITIES))
        film = simulate(
            index,
            seed=SEED,
            size=size,
            views=("PA", "AP"),
            findings={finding: severity},
            others=False,
        )
        index += 1
        mask = film.masks.get(finding)
        if mask is not None and mask.any():
            images.append(torch.from_numpy(film.image))
            masks.append(mask)
    return torch.stack(images), masks


def options_of(method: str, finding: str) -> dict[str, Any]:
    """How a method is used here for a finding."""
    options = OPTIONS.get(method, {})
    if method.startswith("gradcam") and finding in FINE:
        return options | {"layer": FINE[finding]}
    return options


def points(model, x, finding, method, masks, tolerance: float = 0.0) -> explain.PointingGame:
    """Explain film by film, so that memory stays small, and play the game."""
    options = options_of(method, finding)
    heats = [
        explain.attribute(model, film[None], finding, method, **options)[0].numpy() for film in x
    ]
    return explain.pointing_game(heats, masks, tolerance=tolerance * x.shape[-1])


def measure(
    model,
    count: int,
    findings=FINDINGS,
    methods=METHODS,
    size: int | None = None,
    tolerance: float = 0.0,
) -> list[Row]:
    """Play the game for each finding and method, with the model and with random weights.

    Args:
        model: A classifier that knows the findings.
        count: Films a finding.
        findings: Their names.
        methods: Of `explain.METHODS`.
        size: Side of the films; None for twice what the model was trained at, to which it resizes.
        tolerance: Share of the side by which a point may miss the mask; 0.03 in the publication.
    """
    size = size or 2 * (model.input_resolution or 112)
    random = explain.randomised(model, seed=0)
    rows = []
    for finding in findings:
        x, masks = films(finding, count, size)
        for method in methods:
            game = points(model, x, finding, method, masks, tolerance)
            chance = points(random, x, finding, method, masks, tolerance)
            rows.append(
                Row(
                    finding,
                    method,
                    game.n,
                    game.accuracy,
                    game.low,
                    game.high,
                    game.chance,
                    chance.accuracy,
                )
            )
    return rows


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| finding | method | n | hits | 95 % interval | chance | random weights |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {r.finding} | {r.method} | {r.n} | {r.accuracy:.2f} | {r.low:.2f} to {r.high:.2f} | "
        f"{r.chance:.2f} | {r.random_weights:.2f} |"
        for r in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--films", type=int, default=50, help="of each finding")
    parser.add_argument("--weights", default="demo")
    parser.add_argument("--findings", nargs="*", default=FINDINGS, help="all five if not given")
    parser.add_argument("--tolerance", type=float, default=0.0, help="share of the side")
    parser.add_argument("--json", help="write the rows here")
    arguments = parser.parse_args()
    model = get_model(arguments.weights)
    known = [finding for finding in arguments.findings if finding in model.targets]
    rows = measure(model, arguments.films, known, tolerance=arguments.tolerance)
    print(table(rows))
    for finding in set(arguments.findings) - set(known):
        print(f"\nThese weights do not know {finding}.")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:  # noqa: PTH123 - a script
            json.dump([asdict(row) for row in rows], file, indent=1)


if __name__ == "__main__":
    main()

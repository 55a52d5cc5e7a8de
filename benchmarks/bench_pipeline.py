"""How much faster does a folder of radiographs become a table than in 1.5.7?

200 PNG files of real size through DenseNet121 to a CSV file, the whole process from its start to
its end: a script around 1.5.7 (_pipeline_1_5_7.py), `xrv predict`, and a script around torchvision
with a data loader (_pipeline_by_hand.py). `xrv predict` runs as on the first day, when nothing is
known of the machine, and with the engine that `accelerate` found fastest for each precision, its
network already converted; "fast" is measured where the processor has a faster arithmetic than
float32.

The weights come from a seed and reach both versions through a file that 1.5.7 writes here.

    python benchmarks/bench_pipeline.py --baseline-python PATH
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from _alternate import Timings, main, quick
from _films import described, write_films
from bench_models import old_densenet, released

HERE = Path(__file__).parent
SHAPES = [(1024, 1024)] * 150 + [(2500, 2048)] * 50
FIRST, CONVERTED, FAST = "exact, first day", "exact, network converted", "fast, network converted"


def prepare(folder: Path) -> None:
    write_films(folder / "films", [SHAPES[0], SHAPES[-1]] * 4 if quick() else SHAPES)


def run(command: list[str], **environment: str) -> list[float]:
    begun = time.perf_counter()
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return [time.perf_counter() - begun]


def version_1(out: Path) -> Timings:
    films, weights = out.parent / "films", out.parent / "weights"
    old_densenet(weights)  # writes the file
    script = [sys.executable, str(HERE / "_pipeline_1_5_7.py"), str(weights)]
    seconds = run([*script, str(films), str(out / "table.csv")])
    return dict.fromkeys((FIRST, CONVERTED, FAST), seconds)


def this_package(out: Path) -> Timings:
    films, cache = out.parent / "films", out.parent / "cache"
    weights = released(out, "-best.pt")
    engine = fastest(weights, cache, "exact")
    xrv = [str(Path(sys.executable).parent / "xrv"), "predict", str(films)]
    xrv += ["--checkpoint", str(weights), "--output-kind", "logit", "--overwrite"]
    timings = {}
    cases = [
        (FIRST, ["--engine", "auto"], out / "empty"),
        (CONVERTED, ["--engine", engine], cache),
    ]
    if has_faster_arithmetic():
        engine = fastest(weights, cache, "fast")
        cases.append((FAST, ["--engine", engine, "--precision", "fast"], cache))
    for case, options, place in cases:
        table = ["--output", str(out / f"{case}.csv")]
        timings[case] = run([*xrv, *options, *table], XRV_CACHE_DIR=str(place))
    timings.setdefault(FAST, timings[CONVERTED])
    return timings


def fastest(weights: Path, cache: Path, precision: str) -> str:
    """The engine that is fastest for batches of eight; converts the network where that is new.

    It asks for a long run: for one that torch ends in a minute, nothing is converted.
    """
    os.environ["XRV_CACHE_DIR"] = str(cache)
    from torchxrayvision.inference import accelerate
    from torchxrayvision.models import load_checkpoint

    network = load_checkpoint(weights)
    return accelerate(network, 8, precision=precision, images=100_000).choice.engine


def has_faster_arithmetic() -> bool:
    import torch

    from torchxrayvision.inference.engines.base import TorchEngine
    from torchxrayvision.inference.engines.onnx import OpenVinoEngine

    return bool(TorchEngine.arithmetics(torch.device("cpu")) or OpenVinoEngine.arithmetics())


def by_hand(out: Path) -> Timings:
    films = out.parent / "films"
    script = [sys.executable, str(HERE / "_pipeline_by_hand.py")]
    return {FIRST: run([*script, str(films), str(out / "table.csv")])}


def check(old: Path, new: Path) -> str:
    expected, found = read(old / "table.csv"), read(new / f"{CONVERTED}.csv")
    first = read(new / f"{FIRST}.csv")
    worst = [max(np.abs(one[k] - expected[k]).max() for k in expected) for one in (first, found)]
    lines = [described(old.parent / "films") + "."]
    lines.append(
        f"Largest difference of a probability from 1.5.7: first day {worst[0]:.1e}, "
        f"converted {worst[1]:.1e}."
    )
    if not has_faster_arithmetic():
        lines.append("This processor has no faster arithmetic than float32: fast is exact.")
    return "\n".join(lines)


def read(path: Path) -> dict[str, np.ndarray]:
    """File name to the probabilities of the 18 findings."""
    with path.open(newline="") as file:
        head, *rows = csv.reader(file)
    findings = [n for n, name in enumerate(head) if name not in ("path", "error", "check")]
    logits = {Path(row[0]).name: np.array([row[n] for n in findings], float) for row in rows}
    return {name: 1 / (1 + np.exp(-values)) for name, values in logits.items()}


if __name__ == "__main__":
    main(
        __doc__,
        version_1,
        this_package,
        by_hand=by_hand,
        prepare=prepare,
        settings={"default threads": {}},
        check=check,
    )

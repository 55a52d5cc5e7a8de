"""Make the demonstration weights and their cards: `src/torchxrayvision/weights/data`.

    python tools/build_demo_weights.py --nih ../shared/data/nih-mini --work /tmp/demo-weights

It renders simulated radiographs; trains the classifier on simulations, and on where their findings
are; then on all of the real patients, and five times over on four fifths of them, to test it on the
others: from scratch, with the simulations, and taught by those two, and that again, which is what
ships; trains the anatomy network; and writes what it measured. Two processes of one thread each.
What ships is trained after an hour on two cores (two on slower ones), and with it the first of the
five folds that test it; the others take as long again, or half more. Each stage leaves its result
in --work, so that a broken run goes on where it stopped. `tools/build_demo_graphs.py` comes after.

The real films are the first of NIH ChestX-ray14 with a label or not, at 320 pixels: a folder
with `labels.csv` (image, labels, view) and `images-320/*.jpg`. Provided by the NIH Clinical Center,
https://nihcc.app.box.com/v/ChestXray-NIHCC; Wang et al., CVPR 2017.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from demo_weights.plan import FOLDS, TEST_SEED, TRAIN_SEED, Plan

FOLDS_AND_ALL = (None, *range(FOLDS))  # None leaves no patients out: what ships
DATA = Path(__file__).parents[1] / "src" / "torchxrayvision" / "weights" / "data"


def main():
    """Run the stages in order."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nih", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=DATA)
    parser.add_argument("--simulator", default="this package", help="what the cards call it")
    arguments = parser.parse_args()
    plan = Plan(work=arguments.work, nih=arguments.nih, simulator=arguments.simulator)
    plan.work.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"  # inherited by the two processes
    started = time.monotonic()
    films(plan)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        start, anatomy = (pool.submit(run, plan, (stage,)) for stage in ("pretrain", "anatomy"))
        # Needs no start, so that the second processor has work until there is one.
        early = {fold: pool.submit(run, plan, ("scratch", fold)) for fold in (None, 0, 1)}
        start.result()
        learning = []
        for fold in FOLDS_AND_ALL:
            if fold in early:
                early[fold].result()
            learning.append(pool.submit(run, plan, ("learn", fold)))
        ships, *tests = learning
        anatomy.result()
        ships.result()
        say("what ships is trained", started)
        for stage in tests:
            stage.result()
    say("what tests it is trained", started)
    finish(plan, arguments.out)


def say(what, started):
    """Print what is done, and after how long."""
    print(f"{what} after {(time.monotonic() - started) / 60:.0f} minutes", flush=True)


def films(plan):
    """The real and simulated films, as files that every process maps."""
    from demo_weights.films import real, render

    if not (plan.work / "real.npz").exists():
        save(plan.work / "real.npz", real(plan.nih))
    for name, count, seed, outlined in (
        ("held-out", plan.held_out, TEST_SEED, plan.held_out // 4),
        ("simulated", plan.simulations, TRAIN_SEED, plan.outlined),
    ):
        if not (plan.work / f"{name}.npz").exists():
            started = time.monotonic()
            cases, places, large, masks = render(count, seed, outlined)
            save(plan.work / f"{name}-anatomy.npz", None, pixels=large, masks=masks)
            save(plan.work / f"{name}-places.npz", None, places=places)
            save(plan.work / f"{name}.npz", cases)
            print(f"{name}: {count} films in {time.monotonic() - started:.0f} s", flush=True)


def save(path, cases, **arrays):
    """Write arrays, whole or not at all."""
    arrays |= {} if cases is None else vars(cases)
    part = path.with_suffix(".part.npz")
    np.savez(part, **arrays)
    part.replace(path)


def load(plan, name):
    """The films of that name."""
    from demo_weights.films import Films

    with np.load(plan.work / f"{name}.npz") as stored:
        return Films(**stored)


def run(plan, job):
    """One stage, in a process of its own."""
    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    from demo_weights import classify

    stage, *rest = job
    started = time.monotonic()
    if stage == "anatomy":
        outlines(plan)
    elif stage == "pretrain":
        with np.load(plan.work / "simulated-places.npz") as stored:
            classify.pretrain(plan, load(plan, "simulated"), stored["places"])
    elif stage == "scratch":
        classify.scratch(plan, load(plan, "real"), *rest)
    else:
        classify.learn(plan, load(plan, "real"), load(plan, "simulated"), *rest)
    print(f"{' '.join(map(str, job))}: {(time.monotonic() - started) / 60:.1f} min", flush=True)


def outlines(plan):
    """Train the anatomy network."""
    import torch

    from demo_weights import outline

    if not (plan.work / "anatomy.pt").exists():
        with np.load(plan.work / "simulated-anatomy.npz") as stored:
            network = outline.train(stored["pixels"], stored["masks"], plan.anatomy_epochs)
        torch.save(network.model.state_dict(), plan.work / "anatomy.pt")


def finish(plan, out):
    """Measure everything, and write files and cards."""
    from demo_weights import report

    for line in report.write_all(plan, out, load):
        print(line, flush=True)


if __name__ == "__main__":
    main()

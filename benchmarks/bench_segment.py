"""How much faster do files become masks of organs than in 1.5.7, with the same masks?

PNG files of two real sizes through PSPNet (14 structures, 512 x 512) on all cores, one film after
the other. 1.5.7 as its documentation shows it: read, normalise, crop, resize, network, sigmoid,
threshold; its masks are those of the square that the network saw. This package
(`segmentation.segment`, engine chosen by measurement) takes every mask back to the geometry of its
file as well. A row is the time of a film, all films of the size together. The network is loaded,
and converted, before the clock starts; the memory of converting is in the peak of the first round.

The tensors come from a seed as in bench_models.py, so masks are speckle and no organs, which is the
worst case for taking them back; what is compared is whether both versions draw the same.

A row of its own is all that `xrv segment` does, which 1.5.7 cannot: mask files, label map, overlay,
areas and measures, with the packaged network `demo-anatomy`, which finds the organs of these films.

    python benchmarks/bench_segment.py --baseline-python PATH
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from _alternate import Timings, main, quick
from _films import described, write_films
from bench_models import masks, new_pspnet, old_pspnet

SHAPES = [(1024, 1024), (2500, 2048)]
EACH, THRESHOLD = 3, 0.5
EXACT, FAST = "exact", "fast"
WRITTEN = "demo-anatomy, everything written"


def named(shape: tuple[int, int], what: str) -> str:
    return f"{shape[0]} x {shape[1]}, {what}"


def prepare(folder: Path) -> None:
    for shape in SHAPES:
        write_films(folder / f"films-{shape[0]}", [shape] * (1 if quick() else EACH))


def films(out: Path, shape: tuple[int, int]) -> list[Path]:
    return sorted((out.parent / f"films-{shape[0]}").glob("*.png"))


def version_1(out: Path) -> Timings:
    import skimage.io
    import torch
    import torchvision

    import torchxrayvision as xrv

    net = old_pspnet(out.parent / "weights")
    transform = torchvision.transforms.Compose(
        [xrv.datasets.XRayCenterCrop(), xrv.datasets.XRayResizer(512)]
    )

    def logits(path: Path) -> np.ndarray:
        image = xrv.datasets.normalize(skimage.io.imread(path), 255)[None]
        return np.asarray(net(torch.from_numpy(transform(image))[None]))[0]

    timings: Timings = {}
    with torch.no_grad():
        logits(films(out, SHAPES[0])[0])
        for shape in SHAPES:
            answers = []
            begun = time.perf_counter()
            for path in films(out, shape):
                answers.append(logits(path))
                found = 1 / (1 + np.exp(-answers[-1])) >= THRESHOLD
                assert found.shape == (14, 512, 512)
            seconds = [(time.perf_counter() - begun) / len(answers)]
            np.save(out / f"{shape[0]}-{EXACT}.npy", np.stack(answers))
            timings |= {named(shape, what): seconds for what in (EXACT, FAST)}
    return timings


def this_package(out: Path) -> Timings:
    import warnings

    os.environ["XRV_CACHE_DIR"] = str(out.parent / "cache")  # where converted networks go

    from torchxrayvision.errors import XRVWarning
    from torchxrayvision.inference import accelerate

    warnings.simplefilter("ignore", XRVWarning)
    net = new_pspnet(out)
    choices = {what: str(accelerate(net, 1, precision=what).choice) for what in (EXACT, FAST)}
    (out / "choices.txt").write_text("; ".join(f"{k}: {v}" for k, v in choices.items()))
    timings: Timings = {}
    for shape in SHAPES:
        for what in (EXACT, FAST):
            if what == FAST and choices[FAST] == choices[EXACT]:
                timings[named(shape, FAST)] = timings[named(shape, EXACT)]
                shutil.copy(out / f"{shape[0]}-{EXACT}.npy", out / f"{shape[0]}-{FAST}.npy")
                continue
            seconds, maps = drawn(net, films(out, shape), what)
            timings[named(shape, what)] = seconds
            np.save(out / f"{shape[0]}-{what}.npy", maps)
        timings[named(shape, WRITTEN)] = written(films(out, shape), out / "written")
    return timings


def drawn(net: Any, paths: list[Path], precision: str) -> tuple[list[float], np.ndarray]:
    """Seconds of a film, and logits of the square that the network saw.

    One film goes before: opening the engine does not count, as building the network in 1.5.7 does
    not.
    """
    from torchxrayvision.segmentation import segment

    maps = []
    results = segment([paths[0], *paths], net, engine="auto", precision=precision)
    next(results)
    begun = time.perf_counter()
    for result in results:
        whole = [result.masks[name] for name in result.masks]
        assert whole[0].shape == result.picture.shape
        maps.append(np.stack([result.masks.of_square(name) for name in result.masks]))
    seconds = (time.perf_counter() - begun) / len(paths)
    square = np.stack(maps).astype(np.float64)
    return [seconds], np.log(square.clip(1e-7) / (1 - square).clip(1e-7))


def written(paths: list[Path], folder: Path) -> list[float]:
    """Seconds of a film with everything that `xrv segment` writes."""
    from torchxrayvision.segmentation import SegmentationWriter, segment
    from torchxrayvision.segmentation.networks import get_segmenter

    shutil.rmtree(folder, ignore_errors=True)
    net = get_segmenter("demo-anatomy")
    results = segment(paths, net, engine="auto")
    begun = time.perf_counter()
    with SegmentationWriter(folder, net.targets) as writer:
        for result in results:
            writer.write(result)
    return [(time.perf_counter() - begun) / len(paths)]


def check(old: Path, new: Path) -> str:
    lines = [f"Engines chosen: {(new / 'choices.txt').read_text()}."]
    for shape in SHAPES:
        expected = np.load(old / f"{shape[0]}-{EXACT}.npy").astype(np.float64)
        lines += ["", described(old.parent / f"films-{shape[0]}") + "; from 1.5.7 to:", ""]
        for what in (EXACT, FAST):
            found = np.load(new / f"{shape[0]}-{what}.npy")
            lines.append(f"- {what}, {len(found)} films: {masks(expected, found)}")
    return "\n".join(lines)


if __name__ == "__main__":
    main(
        __doc__,
        version_1,
        this_package,
        prepare=prepare,
        settings={"default threads": {}},
        check=check,
    )

"""How much faster do the images of a training epoch come than in 1.5.7?

500 PNG files of 1024 x 1024 in the layout of NIH, at 224 x 224, in batches of 32: data only, no
step of a network is in. 1.5.7 and this package without a cache read the same dataset through the
same transforms and a DataLoader with two workers, started anew each epoch. From the decode-once
cache (`training.ImageCache`) an epoch is shuffled, gathered and turned into float32 as the training
loop does it, in the process that trains; what making the cache costs once has its own row.

    python benchmarks/bench_epoch.py --baseline-python PATH
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from _alternate import Timings, main, quick, timed
from _films import described, write_films

FILMS, SIZE, BATCH, WORKERS = 500, 224, 32, 2
TABLE = "Data_Entry_2017_v2020.csv"
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
PLAIN, CACHED = "an epoch without a cache", "an epoch from the cache"
BUILT = "making the cache"


def prepare(folder: Path) -> None:
    paths = write_films(folder / "films", [(1024, 1024)] * (32 if quick() else FILMS))
    rows = [
        f"{path.name},No Finding,0,{number},50,M,PA,2682,2749,0.143,0.143"
        for number, path in enumerate(paths)
    ]
    (folder / "films" / TABLE).write_text("\n".join([HEADER, *rows]) + "\n")


def nih(films: Path, **options: Any) -> Any:
    import torchxrayvision as xrv

    dataset = xrv.datasets.NIH_Dataset(
        imgpath=str(films), csvpath=str(films / TABLE), views=["PA"], **options
    )
    dataset.check_paths = False
    return dataset


def without_cache(films: Path) -> tuple[list[float], np.ndarray]:
    """Seconds of one epoch, and the first images."""
    import torch
    import torchvision

    import torchxrayvision as xrv

    crop_and_resize = [xrv.datasets.XRayCenterCrop(), xrv.datasets.XRayResizer(SIZE)]
    dataset = nih(films, transform=torchvision.transforms.Compose(crop_and_resize))
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=BATCH, shuffle=True, num_workers=WORKERS
    )
    begun = time.perf_counter()
    seen = sum(len(batch["img"]) for batch in loader)
    seconds = time.perf_counter() - begun
    assert seen == len(dataset)
    return [seconds], np.stack([dataset[row]["img"] for row in range(8)])


def version_1(out: Path) -> Timings:
    seconds, images = without_cache(out.parent / "films")
    np.save(out / "images.npy", images)
    return {PLAIN: seconds, CACHED: seconds}


def this_package(out: Path) -> Timings:
    import shutil

    import torch

    from torchxrayvision.training import ImageCache
    from torchxrayvision.training.images.prepared import from_stored

    films = out.parent / "films"
    seconds, images = without_cache(films)
    np.save(out / "images.npy", images)
    shutil.rmtree(out / "cache", ignore_errors=True)
    begun = time.perf_counter()
    cache = ImageCache.build(nih(films), SIZE, folder=out / "cache", workers=WORKERS)
    built = time.perf_counter() - begun
    np.save(out / "cached.npy", from_stored(np.asarray(cache.batch(range(8))[0])))

    def epoch() -> None:
        order = np.random.default_rng(0).permutation(len(cache))
        seen = 0
        for start in range(0, len(order), BATCH):
            pixels, _ = cache.batch(order[start : start + BATCH])
            seen += len(from_stored(torch.from_numpy(pixels)))
        assert seen == len(cache)

    return {PLAIN: seconds, CACHED: timed(epoch, 5), BUILT: [built]}


def check(old: Path, new: Path) -> str:
    expected = np.load(old / "images.npy")
    plain = np.abs(np.load(new / "images.npy") - expected).max()
    cached = np.abs(np.load(new / "cached.npy") - expected).max()
    return (
        f"{described(old.parent / 'films')}.\nLargest difference of a pixel from 1.5.7, on the "
        f"range of 2048: {plain:.1e} without a cache, {cached:.1f} from the cache, which keeps "
        "8 bits."
    )


if __name__ == "__main__":
    main(
        __doc__,
        version_1,
        this_package,
        prepare=prepare,
        settings={"two workers": {"OMP_NUM_THREADS": "1"}},
        check=check,
    )

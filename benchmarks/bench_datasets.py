"""How much faster and smaller are the datasets than in 1.5.7?

The eight datasets whose tables are packaged, with every view and every image: built one after
another and kept, their totals, all of them relabelled and merged, and masks looked up by image:
the first use, in which this package makes its index of names, and after.
Times are CPU time of the process, threads included, since the machine may do other things.

"memory of all eight" is what they add to a process that has imported everything. "memory of a
worker" is what a merge of NIH, CheXpert and PadChest adds to a process that was spawned, as a
DataLoader on macOS and Windows does it, once it has looked at paths and labels all over it.

    python benchmarks/bench_datasets.py --baseline-python PATH
"""

from __future__ import annotations

import importlib
import inspect
import multiprocessing
import os
import pickle
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _alternate import THREADS, Timings, main

NAMES = {
    "NIH": "NIH_Dataset",
    "RSNA": "RSNA_Pneumonia_Dataset",
    "NIH-Google": "NIH_Google_Dataset",
    "PadChest": "PC_Dataset",
    "CheXpert": "CheX_Dataset",
    "OpenI": "Openi_Dataset",
    "SIIM": "SIIM_Pneumothorax_Dataset",
    "VinDr": "VinBrain_Dataset",
}
EVERYTHING = {"views": "*", "unique_patients": False, "pathology_masks": True}
APART = 5_000  # rows between the items that a worker looks at
LOOKUPS = 100
# The shape of a file, in whose pixels the boxes are; at 512 most of them lie outside.
SHAPES = {"512 x 512": (1, 512, 512), "2880 x 2304": (1, 2880, 2304)}


def cpu(function: Callable[[], Any]) -> tuple[list[float], Any]:
    """CPU seconds of a call, as a case wants them, and what it returned."""
    start = time.process_time()
    result = function()
    return [time.process_time() - start], result


def resident() -> float:
    """Memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def modules() -> Any:
    """The datasets, and with them all that building imports."""
    datasets = importlib.import_module("torchxrayvision").datasets
    for name in ("pandas", "pyarrow.parquet", "pyarrow.compute"):
        try:
            importlib.import_module(name)
        except ImportError:  # 1.5.7 does without pyarrow
            continue
    return datasets


def build(datasets: Any, name: str, folder: str) -> Any:
    cls = getattr(datasets, NAMES[name])
    known = inspect.signature(cls).parameters
    chosen = {key: value for key, value in EVERYTHING.items() if key in known}
    return cls(imgpath=folder, **chosen)


def relabelled(datasets: Any, members: list[Any]) -> list[Any]:
    for member in members:
        datasets.relabel_dataset(datasets.default_pathologies, member, silent=True)
    return members


def masks_of_vindr(vindr: Any) -> Timings:
    """Masks by the names of images, the same ones in both versions: the first use, and after."""
    names = sorted(vindr.csv["image_id"])

    def look_up(part: list[str], shape: tuple[int, ...]) -> None:
        for name in part:
            vindr.get_mask_dict(name, shape)

    cases: Timings = {}
    for size, shape in SHAPES.items():
        turns = {"the next": names[LOOKUPS : 2 * LOOKUPS]}
        if not cases:
            turns = {"the first": names[:LOOKUPS], **turns}
        for which, part in turns.items():
            case = f"masks of {which} {LOOKUPS} images of VinDr, {size}"
            cases[case], _none = cpu(lambda part=part, shape=shape: look_up(part, shape))
    return cases


class Unpickled:
    """A dataset that a worker unpickles itself, so that it can take the memory before."""

    def __init__(self, packed: bytes) -> None:
        self.packed = packed

    def __call__(self, connection: Any) -> None:
        modules()
        # What is pickled is in the memory of the worker already when it starts.
        before = resident() - len(self.packed) / 2**20
        merged = pickle.loads(self.packed)
        self.packed = b""
        for inner in merged.datasets:
            for row in range(0, len(inner), APART):
                if hasattr(inner, "image_path"):
                    inner.image_path(row)
                    inner._lab(row)
                else:
                    inner.csv.iloc[row], inner.labels[row]
        connection.send(resident() - before)


def worker_growth(merged: Any) -> tuple[float, float]:
    """Memory in MB that a spawned worker grows by, and size of the pickle."""
    packed = pickle.dumps(merged)
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=Unpickled(packed), args=(there,))
    process.start()
    grown = here.recv()
    process.join()
    return grown, len(packed) / 2**20


def measure(_: Path) -> Timings:
    """All cases of the side whose Python runs this."""
    cases: Timings = {}
    cases["import"], datasets = cpu(modules)
    before = resident()
    with tempfile.TemporaryDirectory() as folder:
        built = {}
        for name, cls in NAMES.items():
            if hasattr(datasets, cls):
                cases[f"build {name}"], built[name] = cpu(lambda n=name: build(datasets, n, folder))
        total = sum(cases[f"build {name}"][0] for name in built)
        cases[f"build all {len(built)}"] = [total]
        cases["import and build all"] = [total + cases["import"][0]]
        cases["memory of all"] = [resident() - before]
        cases["peak memory after building"] = [
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        ]
        cases["totals of all"], _totals = cpu(lambda: [d.totals() for d in built.values()])
        members = relabelled(datasets, list(built.values()))
        cases["merge all"], merged = cpu(lambda: datasets.MergeDataset(members))
        cases["labels and csv of the merge"], _both = cpu(lambda: (merged.labels, merged.csv))
        cases["merge all, with labels and csv"] = [
            cases["merge all"][0] + cases["labels and csv of the merge"][0]
        ]
        if "VinDr" in built:
            cases |= masks_of_vindr(built["VinDr"])
        three = ("NIH", "CheXpert", "PadChest")
        members = [build(datasets, name, folder) for name in three if name in built]
    grown, size = worker_growth(datasets.MergeDataset(relabelled(datasets, members)))
    cases["memory of a worker"], cases["memory of the pickle"] = [grown], [size]
    return cases


if __name__ == "__main__":
    main(__doc__, measure, measure, settings={"one thread": THREADS["one thread"]})

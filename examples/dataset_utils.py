"""Merge datasets, put their labels in one order, and split by patient.

python examples/dataset_utils.py --nih NIH/images --chexpert CheXpert-v1.0-small
Without folders it shows the same on simulated radiographs of two hospitals.
"""

from __future__ import annotations

import argparse
from typing import Any

import torchxrayvision as xrv


def datasets_of(options: argparse.Namespace) -> list[Any]:
    """The datasets whose folders were given, or two that need none."""
    found: list[Any] = []
    if options.nih:
        found.append(xrv.datasets.NIH_Dataset(imgpath=options.nih, views=["PA", "AP"]))
    if options.chexpert:
        found.append(xrv.datasets.CheX_Dataset(imgpath=options.chexpert, views=["PA", "AP"]))
    sites = [xrv.datasets.Phantom_Dataset(n=40, seed=i, site=site) for i, site in enumerate("AB")]
    return found or list(sites)


def main(arguments: list[str] | None = None) -> list[int]:
    """Print counts of findings per part; the number of images in each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nih", help="folder of the images of NIH ChestX-ray14")
    parser.add_argument("--chexpert", help="folder CheXpert-v1.0-small")
    options = parser.parse_args(arguments)

    found = datasets_of(options)
    for dataset in found:  # a finding that a dataset does not label becomes NaN
        xrv.datasets.relabel_dataset(xrv.datasets.default_pathologies, dataset, silent=True)
    merged = xrv.datasets.MergeDataset(found)
    parts = xrv.datasets.split_by_patient(merged, (0.7, 0.1, 0.2), seed=0)
    for name, part in zip(("train", "validation", "test"), parts, strict=True):
        print(f"{name}: {len(part)} images")
        for finding, counts in part.totals().items():
            if counts:
                print(f"  {finding:28} {counts.get(1, 0):6} of {sum(counts.values()):6}")
    return [len(part) for part in parts]


if __name__ == "__main__":
    main()

"""Choose operating points of a network on a labelled dataset, and show how well it ranks there.

python examples/model_calibrate.py labels.csv images/ --weights densenet121-res224-all
`xrv calibrate` fits probabilities too, and judges them by patients that were left out.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import Compose

import torchxrayvision as xrv


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Print AUROC and Youden's threshold per finding; the thresholds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", help="CSV with a column of file names and one per finding")
    parser.add_argument("images", help="folder of the files")
    parser.add_argument("--weights", default="densenet121-res224-all")
    options = parser.parse_args(arguments)

    model = xrv.models.get_model(options.weights)
    resize = [xrv.transforms.XRayCenterCrop(), xrv.transforms.XRayResizer(model.input_resolution)]
    data = xrv.datasets.CSV_Dataset(
        csvpath=options.table, imgpath=options.images, transform=Compose(resize)
    )
    batches = DataLoader(data, batch_size=16, collate_fn=xrv.datasets.collate)
    with torch.inference_mode():
        outputs = torch.cat([model(batch["img"], output="probability") for batch in batches])
    thresholds: dict[str, float] = {}
    for column, finding in enumerate(data.pathologies):
        labels = data.labels[:, column]
        known = np.isfinite(labels)
        if finding not in model.targets or len(set(labels[known])) != 2:
            continue
        scores = outputs[:, model.targets.index(finding)].numpy()
        auroc = xrv.evaluation.auroc(labels[known], scores[known])
        thresholds[finding] = xrv.evaluation.youden_threshold(labels[known], scores[known])
        print(f"{finding:28} AUROC {auroc:.3f}  threshold {thresholds[finding]:.4f}")
    model.set_operating_points(thresholds)  # the others keep what they have
    return thresholds


if __name__ == "__main__":
    main()

"""What a user of 1.5.7 writes to get a table: python _pipeline_1_5_7.py WEIGHTS FOLDER TABLE.

As its script process_image does: read, normalise, crop, resize, one image after the other.
"""

import csv
import sys
from pathlib import Path

import skimage.io
import torch
import torchvision

import torchxrayvision as xrv

weights, folder, table = map(Path, sys.argv[1:])
model = xrv.models.DenseNet(weights="densenet121-res224-all", cache_dir=str(weights))
model.op_threshs = None
transform = torchvision.transforms.Compose(
    [xrv.datasets.XRayCenterCrop(), xrv.datasets.XRayResizer(224)]
)
with table.open("w", newline="") as file, torch.no_grad():
    rows = csv.writer(file)
    rows.writerow(["path", *model.pathologies])
    for path in sorted(folder.glob("*.png")):
        image = xrv.datasets.normalize(skimage.io.imread(path), 255)[None]
        outputs = model(torch.from_numpy(transform(image))[None])
        rows.writerow([path.name, *outputs[0].tolist()])

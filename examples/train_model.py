"""Fine-tune published weights on findings of your own, in a plain loop of PyTorch.

python examples/train_model.py labels.csv images/ --column Silicosis --out silicosis.safetensors
`xrv train` does this with caches, augmentation, metrics and runs that resume.
"""

from __future__ import annotations

import argparse

import torch
from torch.utils.data import DataLoader
from torchvision.transforms import Compose

import torchxrayvision as xrv


def main(arguments: list[str] | None = None) -> list[float]:
    """Train the last block and a new head; the loss of each epoch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", help="CSV with a column of file names and one per finding")
    parser.add_argument("images", help="folder of the files")
    parser.add_argument("--column", action="append", required=True, help="a finding; repeatable")
    parser.add_argument("--weights", default="densenet121-res224-all")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--out", default="model.safetensors")
    options = parser.parse_args(arguments)

    model = xrv.models.get_model(options.weights)
    model.reset_classifier(len(options.column), options.column)
    resize = Compose(
        [xrv.transforms.XRayCenterCrop(), xrv.transforms.XRayResizer(model.input_resolution)]
    )
    data = xrv.datasets.CSV_Dataset(
        csvpath=options.table, imgpath=options.images, labels=options.column,
        transform=resize,
    )  # fmt: skip
    loader = DataLoader(data, batch_size=16, shuffle=True, collate_fn=xrv.datasets.collate)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    losses: list[float] = []
    for epoch in range(options.epochs):
        model.train()
        total = 0.0
        for batch in loader:
            loss = xrv.training.masked_bce(model(batch["img"], output="logit"), batch["lab"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(batch["img"])
        losses.append(total / len(data))
        print(f"epoch {epoch + 1}: loss {losses[-1]:.4f}")
    xrv.models.save_checkpoint(model.eval(), options.out)  # `xrv predict --checkpoint` reads it
    return losses


if __name__ == "__main__":
    main()

"""Train an autoencoder on radiographs, in a plain loop of PyTorch.

python examples/train_ae.py images/ --epochs 10 --out autoencoder.pt
"""

from __future__ import annotations

import argparse

import torch
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision.transforms import Compose

import torchxrayvision as xrv


def main(arguments: list[str] | None = None) -> list[float]:
    """Train; the mean squared error of each epoch, of images in [-1, 1]."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="?", help="folder; simulated radiographs if left out")
    parser.add_argument("--size", type=int, default=64, help="side in pixels")
    parser.add_argument("--count", type=int, default=64, help="of simulated radiographs")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--out", default="autoencoder.pt")
    options = parser.parse_args(arguments)

    resize = Compose([xrv.transforms.XRayCenterCrop(), xrv.transforms.XRayResizer(options.size)])
    if options.images:
        data = xrv.datasets.Folder_Dataset(options.images, transform=resize)
    else:
        data = xrv.datasets.Phantom_Dataset(n=options.count, size=128, transform=resize)
    loader = DataLoader(data, batch_size=8, shuffle=True, collate_fn=xrv.datasets.collate)
    model = xrv.autoencoders.ResNetAE50()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    errors: list[float] = []
    for epoch in range(options.epochs):
        model.train()
        total = 0.0
        for batch in loader:
            images = batch["img"]
            out = model.decode(model.encode(images, check_resolution=False))
            loss = functional.mse_loss(out / 1024, images / 1024)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(images)
        errors.append(total / len(data))
        print(f"epoch {epoch + 1}: error {errors[-1]:.5f}")
    torch.save(model.eval().state_dict(), options.out)
    return errors


if __name__ == "__main__":
    main()

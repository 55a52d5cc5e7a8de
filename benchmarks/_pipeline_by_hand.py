"""A table by torchvision alone, with a batch and a data loader: FOLDER TABLE.

The tensors are random: only the time counts.
"""

import csv
import sys
from pathlib import Path

import torch
import torchvision
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional


class Films(torch.utils.data.Dataset):
    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        image = decode_image(self.paths[index], ImageReadMode.GRAY)
        square = functional.center_crop(image, [min(image.shape[1:])]).float() / 255 * 2048 - 1024
        return functional.resize(square, [224, 224], antialias=True)


def main() -> None:
    folder, table = map(Path, sys.argv[1:])
    net = torchvision.models.densenet121(num_classes=18)
    net.features.conv0 = torch.nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    net.eval()
    paths = sorted(folder.glob("*.png"))
    loader = torch.utils.data.DataLoader(Films(paths), batch_size=8, num_workers=2)
    with table.open("w", newline="") as file, torch.inference_mode():
        rows = csv.writer(file)
        names = iter(paths)
        for batch in loader:
            for outputs in net(batch).tolist():
                rows.writerow([next(names).name, *outputs])


if __name__ == "__main__":
    main()

"""Record what TorchXRayVision 1.5.7 computes with synthetic weights, as golden figures.

Run in an environment that holds torchxrayvision 1.5.7, never in this project's own:

    python tools/record_golden_models.py tests/golden/models.json [--films FOLDER] [--keep FOLDER]

The weights come from a seed (tests/support/synthetic.py), so the file holds outputs only. With
`--films`, every radiograph there is read and predicted too, under its name. With `--keep`, the
checkpoints that 1.5.7's own classes write stay in that folder, to be predicted by hand.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torchvision

import torchxrayvision as xrv

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.synthetic import fill, film

NETWORKS = {"densenet121-res224-all": 224, "resnet50-res512-all": 512}


def checkpoint(name: str, folder: Path) -> xrv.models.DenseNet | xrv.models.ResNet:
    """Save synthetic weights as 1.5.7 expects them, and let it load them by name."""
    target = folder / xrv.models.model_urls[name]["weights_url"].rpartition("/")[2]
    if name.startswith("densenet"):
        net = xrv.models.DenseNet()
        values = fill({k: tuple(v.shape) for k, v in net.state_dict().items()})
        net.load_state_dict({k: torch.from_numpy(v) for k, v in values.items()})
        torch.save(net, target, _use_new_zipfile_serialization=False)
        return xrv.models.DenseNet(weights=name, cache_dir=str(folder))
    net = torchvision.models.resnet50(num_classes=18)
    net.conv1 = torch.nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    values = fill({k: tuple(v.shape) for k, v in net.state_dict().items()})
    torch.save({k: torch.from_numpy(v) for k, v in values.items()}, target)
    return xrv.models.ResNet(weights=name, cache_dir=str(folder))


def outputs(net: torch.nn.Module, image: np.ndarray) -> dict[str, list[float]]:
    """The three kinds of output, and the first features, of one (1, H, W) image."""
    x = torch.from_numpy(image)[None].float()
    points = net.op_threshs
    with torch.no_grad():
        result = {"operating-point": net(x)[0].tolist()}
        net.op_threshs = None
        result["logit"] = net(x)[0].tolist()
        features = net.features2(x) if hasattr(net, "features2") else net.features(x)
    net.op_threshs = points
    result["features"] = features[0, :8].tolist()
    result["features_sum"] = float(features.double().sum())
    return result


def gradient(net: torch.nn.Module, image: np.ndarray) -> dict[str, float]:
    """Sums of the gradient of one output to the input: enough to tell a wrong one."""
    x = torch.from_numpy(image)[None].float().requires_grad_()
    net(x)[0, 7].backward()
    return {"sum": float(x.grad.double().sum()), "abs": float(x.grad.double().abs().sum())}


def untrained() -> dict[str, list[float]]:
    """What a seed draws for the first and the last layer, and everything in between."""
    torch.manual_seed(0)
    net = xrv.models.DenseNet()
    return {
        "conv0": net.features.conv0.weight.flatten()[:4].tolist(),
        "classifier": net.classifier.weight.flatten()[:4].tolist(),
        "spread": [float(p.detach().double().norm()) for p in net.parameters()],
    }


def prepare(path: str, size: int) -> np.ndarray:
    """1.5.7's way from a file to an input."""
    if path.endswith(".dcm"):
        pixels = xrv.utils.read_xray_dcm(path)[None]
    else:
        pixels = xrv.utils.load_image(path)
    return xrv.datasets.XRayResizer(size)(xrv.datasets.XRayCenterCrop()(pixels))


def record(films: Path | None, folder: Path) -> dict[str, dict]:
    golden: dict[str, dict] = {}
    for name, size in NETWORKS.items():
        net = checkpoint(name, folder)
        entry: dict[str, dict] = {"arrays": {}, "films": {}}
        for height, seed in ((size, 1), (size + 61, 2), (size - 37, 3)):
            image = (film(height, height, seed).astype(np.float32) / 255 * 2048 - 1024)[None]
            entry["arrays"][f"{height}:{seed}"] = outputs(net, image)
        image = (film(size, size, 1).astype(np.float32) / 255 * 2048 - 1024)[None]
        entry["gradient"] = gradient(net, image)
        for path in sorted(films.glob("*.*")) if films else []:
            if path.is_file():
                entry["films"][path.name] = outputs(net, prepare(str(path), size))
        if name.startswith("densenet"):
            entry["untrained"] = untrained()
        golden[name] = entry
    return golden


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", type=Path)
    parser.add_argument("--films", type=Path)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        golden = record(arguments.films, folder)
    arguments.target.write_text(json.dumps(golden, indent=1) + "\n")
    print(f"{arguments.target}: {sum(len(v['films']) for v in golden.values())} films")


if __name__ == "__main__":
    main()

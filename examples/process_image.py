"""Print what a network says of one radiograph.

python examples/process_image.py image.dcm --weights densenet121-res224-all
"""

from __future__ import annotations

import argparse

import torch

import torchxrayvision as xrv


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Read, predict, print; the probability of each finding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", help="PNG, JPEG, TIFF or DICOM")
    parser.add_argument("--weights", default="densenet121-res224-all")
    options = parser.parse_args(arguments)

    model = xrv.models.get_model(options.weights)
    image = xrv.utils.load_image(options.image)  # float32 (1, H, W) in [-1024, 1024]
    image = xrv.transforms.XRayCenterCrop()(image)
    image = xrv.transforms.XRayResizer(model.input_resolution)(image)
    batch = torch.from_numpy(image)[None]

    with torch.inference_mode():
        probabilities = model(batch, output="probability")[0]
        features = model.embed(batch)[0]
    found = {
        name: float(value)
        for name, value, trained in zip(model.targets, probabilities, model.trained, strict=True)
        if trained
    }
    for name, value in sorted(found.items(), key=lambda item: -item[1]):
        print(f"{name:28} {value:.4f}")
    print(f"{len(features)} features, norm {features.norm():.3f}")
    return found


if __name__ == "__main__":
    main()

"""Record what 1.5.7's segmentation networks and autoencoders compute with synthetic weights.

Run in an environment that holds torchxrayvision 1.5.7, never in this project's own:

    python tools/record_golden_dense.py tests/golden/dense.json [--only NAME] [--full]

The weights come from a seed (tests/support/synthetic.py) and go through the files that 1.5.7
downloads: its own classes load them from a folder. Most records are of small inputs, for which
1.5.7's resizing is replaced; `--full` adds those at the resolution of the published weights.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch

from torchxrayvision import autoencoders

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.dense import images, record_image, state_of


def autoencoder(folder: Path) -> dict[str, dict]:
    """ResNetAE, from the file of its release."""
    filename = autoencoders.model_urls["101-elastic"]["weights_url"].rpartition("/")[2]
    torch.save(state_of(autoencoders.ResNetAE101()), folder / filename)
    net = autoencoders.ResNetAE(weights="101-elastic", cache_dir=str(folder)).eval()
    records = {}
    for count in (1, 3):
        x = images(count, 224)
        with torch.no_grad():
            result = net(x)
        records[f"224:{count}"] = {
            "z": record_image(result["z"]),
            "out": record_image(result["out"]),
        }
    records["gradient"] = gradient(lambda x: net(x)["out"], images(1, 224))
    return {"resnetae101": records}


def gradient(call, x: torch.Tensor) -> dict:
    """The gradient to the input of the outputs' mean square."""
    x = x.requires_grad_()
    call(x).square().mean().backward()
    return record_image(x.grad)


RECORDERS = {"resnetae101": autoencoder}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", type=Path)
    parser.add_argument("--only", choices=list(RECORDERS))
    arguments = parser.parse_args()
    golden = json.loads(arguments.target.read_text()) if arguments.target.exists() else {}
    for name, recorder in RECORDERS.items():
        if arguments.only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                golden.update(recorder(Path(folder)))
    arguments.target.write_text(json.dumps(golden, indent=1) + "\n")
    print(f"{arguments.target}: {', '.join(golden)}")


if __name__ == "__main__":
    main()

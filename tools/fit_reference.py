"""Make the reference of `xrv check --ood`: python tools/fit_reference.py NIH_MINI AUTOENCODER

NIH_MINI is the small copy of ChestX-ray14, of which the patients of the fit count (three of five,
as for `tools/fit_check.py`); AUTOENCODER is what `xrv train` kept of a recipe such as
examples/autoencoder.toml: simulated radiographs alone. The one in the package has 32 numbers per
image (`dense = 32`, 14 epochs), since one that draws more draws other things too. Writes
src/torchxrayvision/screening/data/reference.safetensors: the autoencoder, and mean and covariance
root of the demonstration network's features, in half precision. No image is in it.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from check_pictures import films, for_fit, grey_of
from torchxrayvision.autoencoders import load_checkpoint
from torchxrayvision.checkpoints import load_checkpoint as read_tensors
from torchxrayvision.checkpoints import save_safetensors
from torchxrayvision.models import get_model
from torchxrayvision.screening import Reference, reference_of
from torchxrayvision.screening.reference import side_of
from torchxrayvision.transforms import prepare

OUT = Path(__file__).parent.parent / "src/torchxrayvision/screening/data/reference.safetensors"
INVERTED = {"00017999_000"}  # see tools/evaluate_check.py
FACTS = {
    "images": "frontal radiographs of the NIH Clinical Center (ChestX-ray14), adults for the most",
    "terms": "any use with a link to https://nihcc.app.box.com/v/ChestXray-NIHCC, the citation of "
    "Wang et al., CVPR 2017, and the acknowledgement of the NIH Clinical Center as the provider",
    "autoencoder": "trained on simulated radiographs alone",
}


def square(path: Path, side: int) -> np.ndarray:
    """One film as the networks get it, (1, side, side)."""
    return prepare(np.ascontiguousarray(grey_of(path)), 2048 / 255, -1024.0, side)


def halved(path: Path) -> None:
    """Rewrite a file of tensors in half precision."""
    held = read_tensors(path)
    tensors = {
        name: value.half() if value.is_floating_point() else value
        for name, value in held.tensors.items()
    }
    save_safetensors(path, tensors, dict(held.values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("films", type=Path, help="folder nih-mini")
    parser.add_argument("autoencoder", type=Path, help="best.safetensors")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    network, autoencoder = get_model("demo"), load_checkpoint(options.autoencoder)
    chosen = [p for p in films(options.films) if for_fit(p) and p.stem not in INVERTED]
    squares = [square(path, side_of(network, autoencoder)) for path in chosen]
    made: Reference = reference_of(squares, network, autoencoder, facts=FACTS)
    made = dataclasses.replace(made, facts={**FACTS, "count": len(chosen)})
    made.save(options.out)
    halved(options.out)
    print(f"{len(chosen)} films, limits {dict(made.limits)}, {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()

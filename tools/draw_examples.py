"""Draw the pictures of docs/explanations.md and docs/segmentation.md.

    python tools/draw_examples.py

Simulated films with one finding each, explained by the demonstration weights, and a film outlined
by the anatomy network. Prints the cardiothoracic ratio that was measured, and that of the geometry.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from torchxrayvision import explain, phantom
from torchxrayvision.models import get_model
from torchxrayvision.segmentation import SegmentationWriter, segment

IMAGES = Path(__file__).parents[1] / "docs" / "images"
SEED, SIDE, PANEL = 2023, 512, 480
# A nodule is smaller than a position of the last maps.
FINE = explain.CamLayer("model.layer2"), explain.CamLayer("model.layer3", cells=True)
SHOWN = (
    ("Effusion", "gradcam", {}),
    ("Cardiomegaly", "gradcam", {}),
    ("Nodule", "gradcam", {"layer": FINE, "shifts": 4}),
    ("Mass", "ig", {"baseline": "mirror", "smooth": 0.03}),
)


def film(index, folder, finding=None):
    """A film with at most one finding, and the file that holds it."""
    findings = {finding: 0.7} if finding else {}
    made = phantom.simulate(
        index, seed=SEED, size=SIDE, views=("PA",), findings=findings, others=False
    )
    path = Path(folder) / f"{index}.png"
    grey = np.clip((made.image[0] + 1024) / 8, 0, 255).round().astype(np.uint8)
    Image.fromarray(grey).save(path)
    return made, path


def explanations(folder):
    """The panels side by side."""
    model = get_model("demo")
    panels = []
    for index, (finding, method, options) in enumerate(SHOWN):
        _, path = film(index, folder, finding)
        result = explain.explain_file(path, model, finding, method, **options)
        panel = Image.fromarray(result.picture(boxes=True))
        panels.append(panel.resize((PANEL, round(panel.height * PANEL / panel.width))))
    joined = np.hstack([np.asarray(panel) for panel in panels])
    Image.fromarray(joined).save(IMAGES / "explanations.jpg", quality=88)


def outlines(folder):
    """The overlay, and how it is measured."""
    made, path = film(len(SHOWN), folder)
    out = Path(folder) / "segmented"
    network = get_model("demo-anatomy")
    with SegmentationWriter(out, network.targets) as writer:
        for result in segment(str(path), network):
            writer.write(result)
    overlay = Image.open(next(out.rglob("overlay.jpg")))
    overlay.save(IMAGES / "segmentation.jpg", quality=92)
    return pd.read_csv(out / "measures.csv"), made


def main():
    """Draw both."""
    with tempfile.TemporaryDirectory() as folder:
        explanations(folder)
        table, made = outlines(folder)
    print(table.T.to_string(), "\ngeometry:", made.cardiothoracic_ratio)


if __name__ == "__main__":
    main()

"""The weights that are installed with the package, to try it with.

Their facts are not written here: `tools/build_demo_weights.py` writes each file of tensors and its
card, and the record takes checksum, outputs and metrics from the card.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from torchxrayvision.facts import LIBRARY, License, PackagedFile, Reference
from torchxrayvision.weights.registry import Weights, WeightsEnum, read_card, register

_FOLDER: Final = "weights/data"

_OWN = License(
    name="Apache-2.0",
    url="https://www.apache.org/licenses/LICENSE-2.0",
    commercial=None,
    note="That of this package. Not for clinical use",
)
_WITH_NIH = replace(
    _OWN,
    note=(
        "That of this package. Part of the training data are radiographs of the NIH Clinical "
        "Center, which allows any use with a link to its release, the citation of Wang et al. and "
        "its acknowledgement as the provider: https://nihcc.app.box.com/v/ChestXray-NIHCC. "
        "Not for clinical use"
    ),
)
_NIH = Reference(
    authors="Xiaosong Wang et al.",
    title=(
        "ChestX-ray8: hospital-scale chest X-ray database and benchmarks on weakly-supervised "
        "classification and localization of common thorax diseases"
    ),
    year=2017,
    venue="CVPR",
    url="https://doi.org/10.1109/CVPR.2017.369",
)


def _record(stem: str) -> Weights:
    filename = f"{stem}.safetensors"
    card = read_card(_FOLDER, filename)
    facts, auroc, points = (
        card["weights"],
        card.get("auroc", {}),
        card["weights"]["operating_points"],
    )
    real = "nih" in facts["trained_on"]
    return Weights(
        name=facts["name"],
        aliases=(stem,),
        file=PackagedFile(
            folder=_FOLDER,
            filename=filename,
            sha256=facts["sha256"],
            size=facts["size"],
        ),
        container="safetensors",
        architecture=facts["architecture"],
        targets=tuple(facts["targets"]),
        input_resolution=facts["input_resolution"],
        operating_points=None if points is None else tuple(points),
        trained_on=tuple(facts["trained_on"]),
        license=_WITH_NIH if real else _OWN,
        reference=_NIH if real else LIBRARY,
        metrics={
            test: {name: rows[name]["value"] for name in facts["targets"] if name in rows}
            for test, rows in auroc.items()
        },
        metrics_source=card["metrics_source"] if auroc else "",
        description=card["description"],
        demonstration=True,
        cell_maps=facts.get("cell_maps", False),
    )


@register
class Demo_Weights(WeightsEnum):  # noqa: N801 - torchvision's form of such names
    """Small networks: simulated radiographs taught both, real ones the classifier too."""

    CLASSIFIER = _record("demo")
    ANATOMY = _record("demo-anatomy")

"""Which rows, which findings, and what was published: benchmarks as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from torchxrayvision.errors import UnknownNameError
from torchxrayvision.labels import NIH14


@dataclass(frozen=True, kw_only=True)
class Published:
    """A number that somebody published for a protocol.

    Args:
        model: As the publication calls it.
        weights: The same weights here; empty where this package has none.
        finding: Finding, or ``"mean"``.
        auroc: The number.
        low: Lower end of its interval; None where none was given.
        high: Upper end.
        source: Where it stands.
    """

    model: str
    weights: str = ""
    finding: str
    auroc: float
    low: float | None = None
    high: float | None = None
    source: str


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A benchmark.

    Args:
        name: What users type.
        title: One line for a person.
        dataset: Class of `torchxrayvision.datasets`.
        part: Official part that is tested on; empty for all rows.
        findings: Findings that count, in order; empty for all that model and labels share.
        arguments: Constructor arguments besides ``imgpath`` that a user must give.
        images: Rows of the whole, where there is no official part to compare with.
        images_sha256: Their hash, see `datasets.describe_split`; one of several where names may
            have several endings.
        published: Numbers to compare with.
        note: What a reader must know.
        masks: Argument that gives the masks of findings; explanations are scored where it is given.
    """

    name: str
    title: str
    dataset: str
    part: str = ""
    findings: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    images: int = 0
    images_sha256: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()
    note: str = ""
    masks: str = ""


_EVAX: Final = "README of EVA-X, https://github.com/hustvl/EVA-X"
_ARK: Final = "printed output of Ark+'s Zeroshot.ipynb, https://github.com/jlianglab/Ark"


def _mean(model: str, percent: float, weights: str = "") -> Published:
    return Published(
        model=model, weights=weights, finding="mean", auroc=percent / 100, source=_EVAX
    )


def _pneumothorax(model: str, value: float, low: float, high: float, name: str = "") -> Published:
    return Published(
        model=model, weights=name, finding="Pneumothorax", auroc=value, low=low, high=high,
        source=_ARK,
    )  # fmt: skip


def _chexlocalize(name: str, part: str, images: str, file: str) -> Protocol:
    return Protocol(
        name=name, title=f"CheXlocalize, {images} with radiologists' labels",
        dataset="CheXlocalize_Dataset", part=part, arguments=("csvpath",),
        masks="segmentation_jsonpath",
        note=f"With --with segmentation_jsonpath=gt_segmentations_{file}.json explanations are "
        "scored too: pointing game and IoU.",
    )  # fmt: skip


_PROTOCOLS: Final = (
    Protocol(
        name="nih-official",
        title="NIH ChestX-ray14, the official test list, mean of 14 findings",
        dataset="NIH_Dataset", part="test", findings=tuple(NIH14),
        published=(
            _mean("EVA-X Ti", 82.4, "evax-tiny-res224-nih"),
            _mean("EVA-X S", 83.3, "evax-small-res224-nih"),
            _mean("EVA-X B", 83.5, "evax-base-res224-nih"),
            _mean("medical-MAE DenseNet121", 81.3, "evax-densenet121-res224-mae-nih"),
            _mean("MoCo v2 DenseNet121", 80.8, "evax-densenet121-res224-moco-nih"),
            _mean("medical-MAE ViT-S", 82.3), _mean("MGCA ResNet50", 81.3),
            _mean("MedKLIP", 81.2), _mean("BioViL ResNet50", 80.8),
        ),
        note="Weights that were trained on NIH with another split have seen tested patients.",
    ),
    Protocol(
        name="siim",
        title="SIIM-ACR Pneumothorax, all 12,047 images",
        dataset="SIIM_Pneumothorax_Dataset", findings=("Pneumothorax",), images=12_047,
        images_sha256=("f0fd6f89b8892acf9a852319d9760ec071a41744450761e576c20c549d4bb85a",),
        published=(
            _pneumothorax("XRV-DenseNet", 0.7725, 0.764, 0.781, "densenet121-res224-all"),
            _pneumothorax("XRV-ResNet", 0.9164, 0.911, 0.922, "resnet50-res512-all"),
            _pneumothorax("ELIXR", 0.838, 0.830, 0.846), _pneumothorax("KAD", 0.877, 0.870, 0.883),
        ),
        note="The images are NIH's under names of their own: XRV-ResNet was trained on them. One "
        "more image than in Ark+'s table, which has 12,046 scores.",
    ),
    Protocol(
        name="rsna",
        title="RSNA Pneumonia Detection Challenge, stage 2 training images",
        dataset="RSNA_Pneumonia_Dataset", findings=("Pneumonia", "Lung Opacity"), images=26_684,
        images_sha256=(  # of .jpg and of .dcm
            "c1aae0b10d7f1225c839bc1cb541c58fdf13f4314af9c6869f438194bdf9f41e",
            "2ff679c6bbb1ee3c383ee4a3b68692b2830363f3ecfadeaa12ab26c570d2eb15",
        ),
        note="7,170 images are of patients that NIH tests on; the others are of patients that "
        "weights trained on NIH have seen.",
    ),
    Protocol(
        name="chexpert-valid",
        title="CheXpert, the 234 validation images that radiologists read",
        dataset="CheX_Dataset", part="valid", arguments=("csvpath",),
        findings=("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion"),
    ),
    _chexlocalize("chexlocalize", "test", "CheXpert's 668 test images", "test"),
    _chexlocalize("chexlocalize-valid", "valid", "CheXpert's 234 validation images", "val"),
    Protocol(
        name="vindr-test",
        title="VinDr-CXR, 3,000 test images with the common result of five readers",
        dataset="VinDr_Dataset", part="test", arguments=("csvpath",),
    ),
)  # fmt: skip


def list_protocols() -> list[str]:
    """Names of the benchmarks.

    Returns:
        What `get_protocol` takes.

    Example:
        >>> list_protocols()[0]
        'nih-official'
    """
    return [protocol.name for protocol in _PROTOCOLS]


def get_protocol(name: str) -> Protocol:
    """A benchmark by its name.

    Args:
        name: One of `list_protocols`.

    Returns:
        Its facts.

    Raises:
        UnknownNameError: If there is none.

    Example:
        >>> len(get_protocol("nih-official").findings)
        14
    """
    for protocol in _PROTOCOLS:
        if protocol.name == name:
            return protocol
    raise UnknownNameError("benchmark", name, list_protocols())

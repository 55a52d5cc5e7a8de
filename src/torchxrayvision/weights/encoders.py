"""Weights of image encoders, as data: features of radiographs, no findings.

Sources: repositories, sizes and terms are those of the Hub's model cards; preprocessing that of the
`preprocessor_config.json` there, and for CheXFound of the authors' evaluation code, at 2026-03;
sizes of the networks that of the tensors. Nobody publishes a SHA-256 of these files in a page that
could be read when this was written: the first copy is trusted, recorded, a later change refused.
Numbers that the configuration beside a file states otherwise are taken from there.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from torchxrayvision.facts import License, Reference, RemoteFile
from torchxrayvision.weights.registry import Output, Preprocessing, Weights, WeightsEnum, register

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION: Final = (0.229, 0.224, 0.225)

_RESEARCH: Final = "Its card says: for research, not for clinical practice."


def hub_file(repository: str, path: str, filename: str, revision: str = "main") -> RemoteFile:
    """A file of a model on the Hugging Face Hub, under a name of its own in the cache.

    Args:
        repository: Owner and name.
        path: Of the file in it.
        filename: In the cache, where every release would be called `model.safetensors`.
        revision: Branch, tag or commit.
    """
    url = f"https://huggingface.co/{repository}/resolve/{revision}/{path}"
    return RemoteFile(url=url, filename=filename)


def release(
    repository: str, name: str, beside: tuple[str, ...] = (), revision: str = "main"
) -> tuple[RemoteFile, tuple[RemoteFile, ...]]:
    """The tensors of a model on the Hub, and the files beside them.

    Args:
        repository: Owner and name.
        name: What the files are called in the cache, followed by their own names.
        beside: Other files that the network needs, besides its two configurations.
        revision: Branch, tag or commit.
    """
    others = ("config.json", "preprocessor_config.json", *beside)
    return (
        hub_file(repository, "model.safetensors", f"{name}.safetensors", revision),
        tuple(hub_file(repository, one, f"{name}-{one}", revision) for one in others),
    )


_RAD_DINO: Final = Reference(
    authors="Fernando Pérez-García, Harshita Sharma, Sam Bond-Taylor et al.",
    title="Exploring scalable medical image encoders beyond text supervision",
    year=2025,
    venue="Nature Machine Intelligence",
    url="https://doi.org/10.1038/s42256-024-00965-w",
)
_MAIRA_2: Final = Reference(
    authors="Shruthi Bannur, Kenza Bouzid, Daniel C. Castro et al.",
    title="MAIRA-2: Grounded radiology report generation",
    year=2024,
    venue="arXiv",
    url="https://arxiv.org/abs/2406.04449",
)
_CXFORMER: Final = Reference(
    authors="Ahmed Al Mahrooqi, Prateek Munjal, Ronnie Rajan, Marco AF Pimentel, "
    "Praveenkumar Kanithi",
    title="Empirical analysis of scaling vision foundation models for chest X-rays",
    year=2025,
    venue="Medical Imaging with Deep Learning",
    url="https://openreview.net/forum?id=6fqfInxqG1",
)
_CHEXFOUND: Final = Reference(
    authors="Zefan Yang, Xuanang Xu, Jiajin Zhang, Ge Wang, Mannudeep K. Kalra, Pingkun Yan",
    title="Chest X-ray foundation model with global and local representations integration",
    year=2025,
    venue="arXiv",
    url="https://arxiv.org/abs/2502.05142",
)
_MICROSOFT: Final = Preprocessing(crop=518, mean=0.5307, deviation=0.2583)


def _imagenet(side: int) -> Preprocessing:
    return Preprocessing(crop=side, mean=IMAGENET_MEAN, deviation=IMAGENET_DEVIATION)


def without_findings(
    name: str,
    repository: str,
    architecture: str,
    preprocessing: Preprocessing,
    beside: tuple[str, ...] = (),
    *,
    output: Output,
    trained_on: tuple[str, ...],
    terms: License,
    reference: Reference,
    description: str,
    revision: str = "main",
) -> Weights:
    """The record of a release whose network has no findings of its own.

    Args:
        name: Of the weights, and of the files in the cache.
        repository: Owner and name.
        architecture: As `Weights` has it.
        preprocessing: Of the release; its crop is the side of an image.
        beside: Other files that the network needs, besides its two configurations.
        output: What it gives.
        trained_on: Names of the data.
        terms: Of use.
        reference: What to cite.
        description: One or two sentences.
        revision: Branch, tag or commit.
    """
    file, companions = release(repository, name, beside, revision)
    return Weights(
        name=name,
        file=file,
        companions=companions,
        container="safetensors",
        architecture=architecture,
        targets=(),
        output=output,
        input_resolution=preprocessing.crop,
        preprocessing=preprocessing,
        trained_on=trained_on,
        license=terms,
        reference=reference,
        description=description,
    )


_encoder = partial(without_findings, output="embedding")

_CXFORMER_TERMS: Final = License(
    name="CC BY-NC 4.0",
    url="https://creativecommons.org/licenses/by-nc/4.0/",
    commercial=False,
    note=(
        "The card adds: for research purposes only. Trained on MIMIC-CXR and others, whose terms "
        "of use may reach the weights; nobody has settled that."
    ),
)
_FIVE: Final = ("chex", "mimic", "pc", "nih", "brax")
_EQUALISED: Final = (
    "Its authors equalised the histograms of their training images, and their image processor is "
    "code on the Hub, which is not run here: images are resized and standardised only."
)


@register
class Encoder_Weights(WeightsEnum):  # noqa: N801 - torchvision's form of such names
    """Vision transformers that give features: pooled ones, and a map of them."""

    RAD_DINO = _encoder(
        "rad-dino",
        "microsoft/rad-dino",
        "dinov2-base14",
        _MICROSOFT,
        trained_on=("mimic", "pc", "nih", "chex", "brax"),
        terms=License(
            name="MIT",
            url="https://huggingface.co/microsoft/rad-dino/blob/main/LICENSE",
            note=f"{_RESEARCH} Terms were those of Microsoft Research until 2025.",
        ),
        reference=_RAD_DINO,
        description="DINOv2 taught further on radiographs of the chest, without texts or labels.",
    )
    RAD_DINO_MAIRA_2 = _encoder(
        "rad-dino-maira-2",
        "microsoft/rad-dino-maira-2",
        "dinov2-base14",
        _MICROSOFT,
        trained_on=("mimic", "pc", "nih", "chex", "brax", "usmix"),
        terms=License(
            name="MSRLA",
            url="https://huggingface.co/microsoft/rad-dino-maira-2/blob/main/LICENSE",
            commercial=False,
            note=f"Microsoft Research License Agreement: research use only. {_RESEARCH}",
        ),
        reference=_MAIRA_2,
        description="The encoder of MAIRA-2: RAD-DINO taught on more radiographs.",
    )
    CXFORMER_SMALL = _encoder(
        "cxformer-small",
        "m42-health/CXformer-small",
        "dinov2-small14-reg4",
        _imagenet(518),
        trained_on=_FIVE,
        terms=_CXFORMER_TERMS,
        reference=_CXFORMER,
        description=f"DINOv2 with registers, 22 million parameters. {_EQUALISED}",
    )
    CXFORMER_BASE = _encoder(
        "cxformer-base",
        "m42-health/CXformer-base",
        "dinov2-base14-reg4",
        _imagenet(518),
        trained_on=_FIVE,
        terms=_CXFORMER_TERMS,
        reference=_CXFORMER,
        description=f"DINOv2 with registers, 87 million parameters. {_EQUALISED}",
    )
    CHEXFOUND = _encoder(
        "chexfound",
        "DIAL-RPI/CheXFound",
        "dinov2-large16-reg4",
        _imagenet(512),
        revision="41b966c3d4fcd2c9b5c8bd760f2df17a7b569dd3",
        trained_on=("987,000 radiographs of 12 public datasets",),
        terms=License(
            name="Apache-2.0",
            url="https://huggingface.co/DIAL-RPI/CheXFound",
            note=(
                "The licence that the card on the Hub names; the repository of the code holds no "
                "licence file. The terms of its twelve datasets may reach the weights."
            ),
        ),
        reference=_CHEXFOUND,
        description=(
            "DINOv2 with registers, 304 million parameters, without the head (GLoRI) that its "
            "authors publish elsewhere."
        ),
    )
    DEFAULT = RAD_DINO

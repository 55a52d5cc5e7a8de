"""Weights of the EVA-X release, as data: vision transformers and two DenseNet-121.

Sources: file names, sizes and checksums are those of the Hub's commit pages of MapleF/eva_x, one
source each; training and areas under the ROC curve of classification/README.md of hustvl/EVA-X;
preprocessing of `build_transform`, order of the findings of the split lists (NIH) and of the
CheXpert loader there, at 2025-09-24.
"""

from __future__ import annotations

from typing import Final

from torchxrayvision.facts import License, Reference, RemoteFile
from torchxrayvision.weights.core import _DATA_TERMS, UNSETTLED
from torchxrayvision.weights.registry import Preprocessing, Weights, WeightsEnum, register

_HUB = "https://huggingface.co/MapleF/eva_x/resolve/main/"
_RESULTS = "https://github.com/hustvl/EVA-X/blob/main/classification/README.md"
_NIH = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia",
    "Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening",
    "Hernia",
)  # fmt: skip
_CHEXPERT = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion")
_EVAX = Reference(
    authors="Jingfeng Yao et al.",
    title=(
        "EVA-X: a foundation model for general chest X-ray analysis with self-supervised learning"
    ),
    year=2025,
    venue="npj Digital Medicine",
    url="https://arxiv.org/abs/2405.05237",
)
_MEDICAL_MAE = Reference(
    authors="Junfei Xiao et al.",
    title="Delving into masked autoencoders for multi-label thorax disease classification",
    year=2023,
    venue="IEEE/CVF Winter Conference on Applications of Computer Vision",
    url="https://arxiv.org/abs/2210.12843",
)
_VIT = Preprocessing(crop=224, mean=0.49185243, deviation=0.28509309)
_DENSE = Preprocessing(crop=224, mean=0.5056, deviation=0.252)


# What the networks were trained on in the end: its findings, and the part they were tested on.
_TUNED: Final = {
    "nih": (_NIH, "NIH, official test"),
    "chex": (_CHEXPERT, "CheXpert, official validation"),
}


def _published(
    name: str,
    filename: str,
    size: int | None,
    sha256: str,
    auroc: float,
    *,
    architecture: str,
    tuned_on: str = "nih",
    side: int = 256,
    preprocessing: Preprocessing = _VIT,
    pretrained_on: str = "NIH ChestX-ray14, CheXpert and MIMIC-CXR",
    reference: Reference = _EVAX,
) -> Weights:
    findings, tested_on = _TUNED[tuned_on]
    return Weights(
        name=name,
        file=RemoteFile(
            url=_HUB + filename,
            filename=filename,
            sha256=sha256,
            size=size,
            certainty="reported",
        ),
        container="state_dict",
        architecture=architecture,
        targets=findings,
        input_resolution=side,
        preprocessing=preprocessing,
        trained_on=(tuned_on,),
        license=License(
            name="MIT",
            url="https://github.com/hustvl/EVA-X/blob/main/LICENSE",
            note=(
                "The licence of the repository of the authors. The weights were pre-trained on "
                f"{pretrained_on} and then trained on {_DATA_TERMS[tuned_on]}. {UNSETTLED}"
            ),
        ),
        reference=reference,
        metrics={tested_on: {"mean": auroc}},
        metrics_source=_RESULTS,
    )


@register
class EVAX_Weights(WeightsEnum):  # noqa: N801 - torchvision's form of such names
    """Vision transformers of the EVA-X release on 224 x 224 pixels."""

    TINY_NIH = _published(
        "evax-tiny-res224-nih",
        "eva_x_tiny_patch16_merged520k_mim_cxr14_ft.pth",
        66_642_261,
        "7209199ce0d8efbf711330b0ccec2e747b69afced0638dcabda754d2edf287ee",
        0.824,
        architecture="evax-tiny",
    )
    SMALL_NIH = _published(
        "evax-small-res224-nih",
        "eva_x_small_patch16_merged520k_mim_cxr14_ft.pth",
        None,
        "86d7bf2864194316f7d70c8ac9fd1fef32a4584c3d94933c31a8f102a5e4383b",
        0.833,
        architecture="evax-small",
    )
    BASE_NIH = _published(
        "evax-base-res224-nih",
        "eva_x_base_patch16_merged520k_mim_cxr14_ft.pth",
        1_030_736_597,
        "119c06454a768cb9548cdb0cc3af039df13dc5ddf7f6c697b970bb4c1bff9c8b",
        0.835,
        architecture="evax-base",
    )
    TINY_CHEX = _published(
        "evax-tiny-res224-chex",
        "eva_x_tiny_patch16_mrerged520k_mim_chexpert_ft.pth",  # the name is the authors'
        65_439_897,
        "a798b1287b73475aaa3945df0fba6f71fd754a00968cbb461f65f61c9695a85f",
        0.896,
        architecture="evax-tiny",
        tuned_on="chex",
        side=224,
    )
    SMALL_CHEX = _published(
        "evax-small-res224-chex",
        "eva_x_small_patch16_merged520k_mim_chexpert_ft.pth",
        260_339_517,
        "1a5b63570ca4094c1118018e44d3012a95b904132942a8edb2fc0e5dc8aa0e97",
        0.901,
        architecture="evax-small",
        tuned_on="chex",
    )
    DEFAULT = SMALL_NIH


@register
class EVAXDenseNet_Weights(WeightsEnum):  # noqa: N801 - torchvision's form of such names
    """The DenseNet-121 that the EVA-X release compares with, on 224 x 224 pixels."""

    MEDICAL_MAE_NIH = _published(
        "evax-densenet121-res224-mae-nih",
        "densenet121_medical_mae_pt_cxr14_ft.pth",
        84_545_004,
        "2a657fb291f8d463ad62fc02702a02890d3805dddd916ed51e28ec9e6966e1b1",
        0.813,
        architecture="evax-densenet121",
        preprocessing=_DENSE,
        pretrained_on="NIH ChestX-ray14 and CheXpert as a masked autoencoder",
        reference=_MEDICAL_MAE,
    )
    MOCOV2_NIH = _published(
        "evax-densenet121-res224-moco-nih",
        "densenet121_mocov2_pt_cxr14_ft.pth",
        84_545_004,
        "9d63a196466ccd8376385c04e9475d5ddf18dd48817ae28d64c804d416acabd2",
        0.808,
        architecture="evax-densenet121",
        preprocessing=_DENSE,
        pretrained_on="NIH ChestX-ray14 and CheXpert by momentum contrast",
        reference=_MEDICAL_MAE,
    )
    DEFAULT = MEDICAL_MAE_NIH

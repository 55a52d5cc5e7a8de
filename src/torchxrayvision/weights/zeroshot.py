"""Weights of networks that compare a radiograph with texts, as data.

Sources: repositories, sizes and terms are those of the Hub's model cards; preprocessing and form of
the networks those of the authors' code (CheXficient, at 491163e of its repository) and of the
configurations on the Hub, at 2026-03. Nobody publishes a SHA-256 of these files in a page that
could be read when this was written. What the configuration beside a file states otherwise is taken
from there.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from torchxrayvision.facts import License, Reference
from torchxrayvision.weights.encoders import without_findings
from torchxrayvision.weights.registry import Preprocessing, WeightsEnum, register

_CLIP_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
_CLIP_DEVIATION: Final = (0.26862954, 0.26130258, 0.27577711)
_BERT_FILES: Final = ("tokenizer.json", "vocab.txt", "tokenizer_config.json")
_CLIP_FILES: Final = ("tokenizer.json", "vocab.json", "merges.txt")


_dual = partial(without_findings, output="similarity")


def _clip(side: int) -> Preprocessing:
    return Preprocessing(crop=side, mean=_CLIP_MEAN, deviation=_CLIP_DEVIATION)


@register
class ZeroShot_Weights(WeightsEnum):  # noqa: N801 - torchvision's form of such names
    """Pairs of an image encoder and a text encoder, whose findings are texts of the user."""

    CHEXFICIENT = _dual(
        "chexficient",
        "StanfordAIMI/CheXficient",
        "chexficient-base14",
        _clip(378),
        _BERT_FILES,
        trained_on=("22.7 % of 1,235,004 pairs of 13 public datasets",),
        terms=License(
            name="MIT",
            url="https://huggingface.co/StanfordAIMI/CheXficient",
            note="That of its card. The terms of its thirteen datasets may reach the weights.",
        ),
        reference=Reference(
            authors="Chong Wang, Yabin Zhang, Yunhe Gao et al.",
            title=(
                "A data- and compute-efficient chest X-ray foundation model beyond aggressive "
                "scaling"
            ),
            year=2026,
            venue="arXiv",
            url="https://arxiv.org/abs/2602.22843",
        ),
        description=(
            "DINOv2 and BioClinicalBERT, which the Hub offers with code of its authors; here "
            "their network is written again, after their repository."
        ),
    )
    XRAYCLIP = _dual(
        "xrayclip",
        "StanfordAIMI/XrayCLIP__vit-b-16__laion2b-s34b-b88k",
        "clip-base16",
        _clip(512),
        _CLIP_FILES,
        trained_on=("mimic", "chex", "pc", "bimcv", "candid"),
        terms=License(
            name="CC BY-NC 4.0",
            url="https://creativecommons.org/licenses/by-nc/4.0/",
            commercial=False,
            note=(
                "Trained on MIMIC-CXR, CheXpert Plus and others, whose terms of use may reach the "
                "weights; nobody has settled that."
            ),
        ),
        reference=Reference(
            authors="Zhihong Chen, Maya Varma, Jean-Benoit Delbrouck et al.",
            title="CheXagent: towards a foundation model for chest X-ray interpretation",
            year=2024,
            venue="arXiv",
            url="https://arxiv.org/abs/2401.12208",
        ),
        description="CLIP ViT-B/16 on 512 pixels, taught further on radiographs and reports.",
    )
    MEDSIGLIP = _dual(
        "medsiglip-448",
        "google/medsiglip-448",
        "siglip-so400m14",
        Preprocessing(crop=448, mean=0.5, deviation=0.5, resampling="bilinear"),
        ("tokenizer.json",),
        trained_on=("radiographs of the chest, skin, eyes, sections and slices, with texts",),
        terms=License(
            name="HAI-DEF terms of use",
            url="https://developers.google.com/health-ai-developer-foundations/terms",
            note=(
                "The terms of Google's Health AI Developer Foundations, to be accepted on the Hub "
                "before its files can be fetched; they restrict clinical use."
            ),
        ),
        reference=Reference(
            authors="Andrew Sellergren, Sahar Kazemzadeh, Tiam Jaroensri et al.",
            title="MedGemma technical report",
            year=2025,
            venue="arXiv",
            url="https://arxiv.org/abs/2507.05201",
        ),
        description=(
            "SigLIP of 400 million parameters for images and as many for texts of 64 tokens. Log "
            "in to the Hub and accept its terms, or give the folder that holds its files."
        ),
    )
    DEFAULT = CHEXFICIENT

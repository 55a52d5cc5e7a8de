"""Weights of networks that give an image for an image: segmentation and autoencoders, as data.

Sources: names, addresses and descriptions are those of TorchXRayVision 1.5.7. That of the PSPNet's
checksum is asserted by ten independent repositories, that of the autoencoder by one. The authors
of the others publish none.
"""

from __future__ import annotations

from torchxrayvision.facts import License, Reference, RemoteFile
from torchxrayvision.weights._registry import register
from torchxrayvision.weights._types import Weights, WeightsEnum

__all__ = ["ResNetAE_Weights"]

_RELEASE = "https://github.com/mlmed/torchxrayvision/releases/download/v1/"
_REPOSITORY_LICENSE = "https://github.com/mlmed/torchxrayvision/blob/main/LICENSE"
_UNSETTLED = (
    "Whether the terms of training data reach the weights is not settled: "
    "ask their owners before commercial use."
)


@register
class ResNetAE_Weights(WeightsEnum):  # noqa: N801 - torchvision's form of such names
    """Residual autoencoder on 224 x 224 pixels."""

    ELASTIC_101 = Weights(
        name="resnetae101-res224-elastic",
        aliases=("101-elastic",),
        file=RemoteFile(
            url=_RELEASE + "nihpcrsnamimic_ch-resnet101-2-ae-test2-elastic-e250.pt",
            filename="nihpcrsnamimic_ch-resnet101-2-ae-test2-elastic-e250.pt",
            sha256="877ded430383a2bbce756737b316d76de42defed3079eebf2cce305f7be34df9",
            size=125_341_920,
            certainty="reported",
        ),
        container="state_dict",
        architecture="autoencoder-resnet101",
        targets=("Reconstruction",),
        input_resolution=224,
        output="image",
        trained_on=("nih", "pc", "rsna", "mimic_ch", "chex"),
        license=License(
            name="Apache-2.0",
            url=_REPOSITORY_LICENSE,
            note=(
                "The licence of the repository that publishes the weights. They were trained on "
                "NIH, PadChest, RSNA, MIMIC-CXR and CheXpert. " + _UNSETTLED
            ),
        ),
        reference=Reference(
            authors="Joseph Paul Cohen et al.",
            title=(
                "Gifsplanation via latent shift: a simple autoencoder approach to counterfactual "
                "generation for chest X-rays"
            ),
            year=2021,
            venue="Medical Imaging with Deep Learning",
            url="https://arxiv.org/abs/2102.09475",
        ),
        description=("This model was trained on the datasets: nih pc rsna mimic_ch chex datasets."),
    )
    DEFAULT = ELASTIC_101

"""Weights of networks that give an image for an image: segmentation and autoencoders, as data.

Sources: names, addresses and descriptions are those of TorchXRayVision 1.5.7. That of the PSPNet's
checksum is asserted by ten independent repositories, that of the autoencoder by one. The authors
of the others publish none.
"""

from __future__ import annotations

from torchxrayvision.facts import License, Reference
from torchxrayvision.weights.core import UNSETTLED, license_of_release, release_file
from torchxrayvision.weights.registry import Weights, WeightsEnum, register

_CHESTXDET = (
    "Left Clavicle", "Right Clavicle", "Left Scapula", "Right Scapula", "Left Lung", "Right Lung",
    "Left Hilus Pulmonis", "Right Hilus Pulmonis", "Heart", "Aorta", "Facies Diaphragmatica",
    "Mediastinum", "Weasand", "Spine",
)  # fmt: skip
_CXAS = (
    "spine", "cervical spine", "thoracic spine", "lumbar spine", "vertebrae C1", "vertebrae C2",
    "vertebrae C3", "vertebrae C4", "vertebrae C5", "vertebrae C6", "vertebrae C7", "vertebrae T1",
    "vertebrae T2", "vertebrae T3", "vertebrae T4", "vertebrae T5", "vertebrae T6", "vertebrae T7",
    "vertebrae T8", "vertebrae T9", "vertebrae T10", "vertebrae T11", "vertebrae T12",
    "vertebrae L1", "vertebrae L2", "vertebrae L3", "vertebrae L4", "vertebrae L5", "rib_cartilage",
    "sternum", "clavicles", "clavicle left", "clavicle right", "scapulas", "scapula left",
    "scapula right", "posterior 12th rib right", "posterior 12th rib left",
    "anterior 11th rib right", "posterior 11th rib right", "anterior 11th rib left",
    "posterior 11th rib left", "anterior 10th rib right", "posterior 10th rib right",
    "anterior 10th rib left", "posterior 10th rib left", "anterior 9th rib right",
    "posterior 9th rib right", "anterior 9th rib left", "posterior 9th rib left",
    "anterior 8th rib right", "posterior 8th rib right", "anterior 8th rib left",
    "posterior 8th rib left", "anterior 7th rib right", "posterior 7th rib right",
    "anterior 7th rib left", "posterior 7th rib left", "anterior 6th rib right",
    "posterior 6th rib right", "anterior 6th rib left", "posterior 6th rib left",
    "anterior 5th rib right", "posterior 5th rib right", "anterior 5th rib left",
    "posterior 5th rib left", "anterior 4th rib right", "posterior 4th rib right",
    "anterior 4th rib left", "posterior 4th rib left", "anterior 3rd rib right",
    "posterior 3rd rib right", "anterior 3rd rib left", "posterior 3rd rib left",
    "anterior 2nd rib right", "posterior 2nd rib right", "anterior 2nd rib left",
    "posterior 2nd rib left", "anterior 1st rib right", "posterior 1st rib right",
    "anterior 1st rib left", "posterior 1st rib left", "12th rib", "posterior 11th rib",
    "anterior 11th rib", "posterior 10th rib", "anterior 10th rib", "posterior 9th rib",
    "anterior 9th rib", "posterior 8th rib", "anterior 8th rib", "posterior 7th rib",
    "anterior 7th rib", "posterior 6th rib", "anterior 6th rib", "posterior 5th rib",
    "anterior 5th rib", "posterior 4th rib", "anterior 4th rib", "posterior 3rd rib",
    "anterior 3rd rib", "posterior 2nd rib", "anterior 2nd rib", "posterior 1st rib",
    "anterior 1st rib", "diaphragm", "left hemidiaphragm", "right hemidiaphragm", "stomach",
    "small bowel", "duodenum", "liver", "pancreas", "kidney left", "kidney right",
    "cardiomediastinum", "upper mediastinum", "lower mediastinum", "anterior mediastinum",
    "middle mediastinum", "posterior mediastinum", "heart", "heart atrium left",
    "heart atrium right", "heart myocardium", "heart ventricle left", "heart ventricle right",
    "aorta", "ascending aorta", "descending aorta", "aortic arch", "pulmonary artery",
    "inferior vena cava", "esophagus", "lung", "right lung", "left lung", "lung base",
    "mid zone lung", "upper zone lung", "apical zone lung", "right upper zone lung",
    "right mid zone lung", "right lung base", "right apical zone lung", "left upper zone lung",
    "left mid zone lung", "left lung base", "left apical zone lung", "lung lower lobe left",
    "lung upper lobe left", "lung lower lobe right", "lung middle lobe right",
    "lung upper lobe right", "trachea", "tracheal bifurcation", "breast", "breast left",
    "breast right",
)  # fmt: skip


@register
class ResNetAE_Weights(WeightsEnum):  # noqa: N801 - torchvision's form of such names
    """Residual autoencoder on 224 x 224 pixels."""

    ELASTIC_101 = Weights(
        name="resnetae101-res224-elastic",
        aliases=("101-elastic",),
        file=release_file(
            "nihpcrsnamimic_ch-resnet101-2-ae-test2-elastic-e250.pt",
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
        license=license_of_release("NIH, PadChest, RSNA, MIMIC-CXR and CheXpert"),
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


@register
class PSPNet_Weights(WeightsEnum):  # noqa: N801 - torchvision's form of such names
    """Pyramid scene parsing network on 512 x 512 pixels, 14 structures."""

    CHESTXDET = Weights(
        name="chestx_det-pspnet",
        file=release_file(
            "pspnet_chestxray_best_model_4.pth",
            sha256="019b167eac6b729fc1bb92bbbc185fc1730aaa65819f4e3fe718186cadc044fc",
            size=272_988_989,
        ),
        container="state_dict",
        architecture="pspnet",
        targets=_CHESTXDET,
        input_resolution=512,
        trained_on=("chestxdet",),
        license=License(
            name="Apache-2.0",
            url="https://github.com/Deepwise-AILab/ChestX-Det-Dataset",
            note=(
                "The licence of the repository of the authors. The weights were trained on "
                "ChestX-Det, images of the NIH Clinical Center. " + UNSETTLED
            ),
        ),
        reference=Reference(
            authors="Jie Lian et al.",
            title=(
                "A structure-aware relation network for thoracic diseases detection and "
                "segmentation"
            ),
            year=2021,
            venue="IEEE Transactions on Medical Imaging",
            url="https://arxiv.org/abs/2104.10326",
        ),
    )
    DEFAULT = CHESTXDET


@register
class UNetResNet50_Weights(WeightsEnum):  # noqa: N801 - torchvision's form of such names
    """U-Net on a ResNet-50, 512 x 512 pixels, 159 structures; for non-commercial use."""

    CXAS = Weights(
        name="chestx_anatomy-unet-resnet50",
        file=release_file(
            "baseline_models_cxas_UNet_ResNet50_default_repack.pth",
        ),
        container="state_dict",
        architecture="unet-resnet50",
        targets=_CXAS,
        input_resolution=512,
        trained_on=("paxray++",),
        license=License(
            name="CC BY-NC-SA",
            url="https://github.com/ConstantinSeibold/ChestXRayAnatomySegmentation/issues/3",
            commercial=False,
            note=(
                "The authors allow non-commercial use, under the same terms for what is derived, "
                "with their name. The weights were trained on projections of CT volumes."
            ),
        ),
        reference=Reference(
            authors="Constantin Seibold et al.",
            title=(
                "Accurate fine-grained segmentation of human anatomy in radiographs via "
                "volumetric pseudo-labeling"
            ),
            year=2023,
            venue="arXiv",
            url="https://arxiv.org/abs/2306.03934",
        ),
    )
    DEFAULT = CXAS


def _vqgan(name: str, stem: str, description: str) -> Weights:
    return Weights(
        name=name,
        file=release_file(f"{stem}.ckpt"),
        container="lightning",
        architecture="vqgan",
        targets=("Reconstruction",),
        input_resolution=768,
        output="image",
        trained_on=("mimic_ch", "pc", "vin", "siim", "objectcxr", "chex"),
        license=license_of_release(
            "MIMIC-CXR, PadChest, VinDr-CXR, SIIM-ACR, Object-CXR and CheXpert"
        ),
        reference=Reference(
            authors="Patrick Esser et al.",
            title="Taming transformers for high-resolution image synthesis",
            year=2021,
            venue="CVPR",
            url="https://arxiv.org/abs/2012.09841",
        ),
        description=description,
    )


@register
class VQGAN_Weights(WeightsEnum):  # noqa: N801 - torchvision's form of such names
    """Autoencoders with a codebook, on 768 x 768 pixels."""

    SD = _vqgan(
        "cxr2-vqgan-768-sd",
        "2023-07-04T06-25-02_cxr2_vqgan_768_sd",
        "Trained on  mimic_ch pc vin siim objectcxr chex at 768x768 resolution (306 MB).",
    )
    MSDD = _vqgan(
        "cxr2-vqgan-768-msdd",
        "2023-07-29T17-34-14_cxr2_vqgan_768_msdd",
        "Trained on mimic_ch pc vin siim objectcxr chex at 768x768 resolution (1.23 GB).",
    )
    DEFAULT = SD

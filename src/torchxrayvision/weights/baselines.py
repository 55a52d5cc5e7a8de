"""Weights of classifiers of other groups, as data.

Sources: file names, targets and resolutions are those of TorchXRayVision 1.5.7, which publishes the
files; terms are those of the repositories of the groups that trained them. Nobody publishes a
checksum of these files.
"""

from __future__ import annotations

from torchxrayvision.facts import License, Reference, RemoteFile
from torchxrayvision.weights.core import _DATA_TERMS, _RELEASE, UNSETTLED
from torchxrayvision.weights.registry import Container, Output, Weights, WeightsEnum, register

_CHEXPERT = _DATA_TERMS["chex"]
_VIEWS = "a collection of frontal and lateral radiographs that its authors do not name"


def _terms(name: str, url: str, trained_on: str) -> License:
    stated = (
        "The licence of the repository of the authors."
        if name != "not stated"
        else "Neither the authors nor the publisher of the file name a licence for it."
    )
    return License(
        name=name,
        url=url,
        note=f"{stated} The weights were trained on {trained_on}. {UNSETTLED}",
    )


def _published(
    name: str,
    filename: str,
    architecture: str,
    targets: tuple[str, ...],
    resolution: int,
    *,
    trained_on: str,
    terms: License,
    reference: Reference,
    output: Output = "logit",
    container: Container = "state_dict",
    release: str = _RELEASE,
) -> Weights:
    return Weights(
        name=name,
        file=RemoteFile(url=release + filename, filename=filename),
        container=container,
        architecture=architecture,
        targets=targets,
        input_resolution=resolution,
        output=output,
        trained_on=(trained_on,),
        license=terms,
        reference=reference,
    )


@register
class Baseline_Weights(WeightsEnum):  # noqa: N801 - torchvision's form of such names
    """One file for each classifier of `torchxrayvision.baseline_models`."""

    JFHEALTHCARE = _published(
        "jfhealthcare-densenet121",
        "baseline_models_jfhealthcare-DenseNet121_pre_train.pth",
        "jfhealthcare-densenet121",
        ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Effusion"),
        512,
        trained_on="chex",
        terms=_terms("Apache-2.0", "https://github.com/jfhealthcare/Chexpert", _CHEXPERT),
        reference=Reference(
            authors="Wenwu Ye, Jin Yao, Hui Xue, Yi Li",
            title="Weakly supervised lesion localization with probabilistic-CAM pooling",
            year=2020,
            venue="arXiv",
            url="https://arxiv.org/abs/2005.14480",
        ),
    )
    EMORY_HITI_RACE = _published(
        "emory_hiti-race-resnet34",
        "resnet_race_detection_val-loss_0.157_mimic_public.pt",
        "emory_hiti-resnet34",
        ("Asian", "Black", "White"),
        320,
        trained_on="mimic",
        output="log-probability",
        terms=_terms(
            "not stated", "https://github.com/Emory-HITI/AI-Vengers", _DATA_TERMS["mimic_ch"]
        ),
        reference=Reference(
            authors="Judy Wawira Gichoya et al.",
            title="AI recognition of patient race in medical imaging: a modelling study",
            year=2022,
            venue="The Lancet Digital Health",
            url="https://doi.org/10.1016/S2589-7500(22)00063-2",
        ),
    )
    MIRA_SEX = _published(
        "mira-sex-resnet34",
        "mira_sex_resnet-all_epoch_13-step_7125.ckpt",
        "mira-resnet34",
        ("Male", "Female"),
        224,
        trained_on="chex",
        container="lightning",
        terms=_terms(
            "not stated", "https://github.com/biomedia-mira/chexploration", _DATA_TERMS["chex"]
        ),
        reference=Reference(
            authors="Ben Glocker, Charles Jones, Melanie Bernhardt, Stefan Winzeck",
            title=(
                "Algorithmic encoding of protected characteristics in chest X-ray disease "
                "detection models"
            ),
            year=2023,
            venue="eBioMedicine",
            url="https://doi.org/10.1016/j.ebiom.2023.104467",
        ),
    )
    XINARIO_VIEW = _published(
        "xinario-view-resnet50",
        "xinario_chestViewSplit_resnet-50.pt",
        "xinario-resnet50",
        ("Frontal", "Lateral"),
        224,
        trained_on="chestViewSplit",
        terms=_terms("Apache-2.0", "https://github.com/xinario/chestViewSplit/issues/2", _VIEWS),
        reference=Reference(
            authors="Xin Yi",
            title="chestViewSplit",
            year=2017,
            url="https://github.com/xinario/chestViewSplit",
        ),
    )
    RIKEN_AGE = _published(
        "riken-age-senet154",
        "baseline_models_riken_xray_age_every_model_age_senet154_v2_tl_26_ft_7_fp32.pt",
        "riken-senet154",
        ("Age",),
        320,
        trained_on="nih",
        output="years",
        container="torchscript",
        terms=_terms("Apache-2.0", "https://github.com/pirocv/xray_age", _DATA_TERMS["nih"]),
        reference=Reference(
            authors="Hirotaka Ieki, Kaoru Ito et al.",
            title=(
                "Deep learning-based age estimation from chest X-rays indicates cardiovascular "
                "prognosis"
            ),
            year=2022,
            venue="Communications Medicine",
            url="https://doi.org/10.1038/s43856-022-00220-6",
        ),
    )
    CHEXPERT = _published(
        "chexpert-densenet121-ensemble",
        "chexpert_weights.zip",
        "chexpert-densenet121",
        ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion"),
        320,
        trained_on="chex",
        output="probability",
        container="zip",
        release="https://archive.org/download/torchxrayvision_chexpert_weights/",
        terms=_terms(
            "not stated",
            "https://academictorrents.com/details/5c7ee21e6770308f2d2b4bd829e896dbd9d3ee87",
            _CHEXPERT,
        ),
        reference=Reference(
            authors="Jeremy Irvin, Pranav Rajpurkar, Michael Ko et al.",
            title=(
                "CheXpert: a large chest radiograph dataset with uncertainty labels and expert "
                "comparison"
            ),
            year=2019,
            venue="AAAI",
            url="https://arxiv.org/abs/1901.07031",
        ),
    )

"""The eight core weights, as data.

Sources: names, addresses, labels, operating points and descriptions are those that
TorchXRayVision 1.5.7 publishes in `models.model_urls`. Checksums: GitHub publishes none for these
files; that of `ALL` is asserted by ten independent repositories, those marked ``reported`` by the
repositories of one source each. Areas under the ROC curve: BENCHMARKS.md of mlmed/torchxrayvision.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from torchxrayvision.facts import LIBRARY, License, Reference, RemoteFile
from torchxrayvision.labels import DEFAULT_PATHOLOGIES
from torchxrayvision.weights.registry import Weights, WeightsEnum, _by_name, register


class _ModelUrls(Mapping[str, dict[str, Any]]):
    """The core weights in the shape of 1.5.7's `model_urls`; each look-up gives a new dictionary.

    The numbers are 1.5.7's own, also where this package corrects them.
    """

    def __getitem__(self, name: str) -> dict[str, Any]:
        entry = self._entries()[name]
        points, ppv80 = entry.compat_operating_points, entry.compat_ppv80
        view: dict[str, Any] = {"description": entry.description} if entry.description else {}
        view["weights_url"] = entry.url
        view["labels"] = list(entry.targets)
        if points is not None:
            view["op_threshs"] = list(points)
        if ppv80 is not None:
            view["ppv80_thres"] = list(ppv80)
        view["input_resolution"] = entry.input_resolution
        return view

    def __iter__(self) -> Iterator[str]:
        # 1.5.7 has the alias before the name.
        for name, entry in self._entries().items():
            if name == entry.name:
                yield from (*entry.aliases, name)

    def __len__(self) -> int:
        return len(self._entries())

    def __repr__(self) -> str:
        return f"model_urls({', '.join(self)})"

    @staticmethod
    def _entries() -> dict[str, Weights]:

        core = {member.value for enum in (DenseNet121_Weights, ResNet50_Weights) for member in enum}
        return {name: entry for name, entry in _by_name.items() if entry in core}


def model_urls_view() -> Mapping[str, dict[str, Any]]:
    """The core weights in the shape of 1.5.7's `torchxrayvision.models.model_urls`.

    Returns:
        A read-only mapping from each name and alias to a dictionary with ``weights_url``,
        ``labels``, ``op_threshs``, ``input_resolution`` and, where published, ``description``
        and ``ppv80_thres``.

    Example:
        >>> model_urls_view()["all"]["input_resolution"]
        224
    """
    return _ModelUrls()


_NAN = math.nan
_HUB = "https://huggingface.co/torchxrayvision/"
_RELEASE = "https://github.com/mlmed/torchxrayvision/releases/download/v1/"

# Operating points and thresholds at a positive predictive value of 0.8, in the order of
# DEFAULT_PATHOLOGIES, with the digits that 1.5.7 publishes.
# fmt: off
_POINTS_ALL = (
    0.07422872, 0.038290843, 0.09814756, 0.0098118475, 0.023601074, 0.0022490358,
    0.010060724, 0.103246614, 0.056810737, 0.026791653, 0.050318155, 0.023985857,
    0.01939503, 0.042889766, 0.053369623, 0.035975814, 0.20204692, 0.05015312,
)
_POINTS_NIH = (
    0.039117552, 0.0034529066, 0.11396341, 0.0057298196, 0.00045666535, 0.0018880932,
    0.012037827, 0.038744126, 0.0037213727, 0.014730946, 0.016149804, 0.054241467,
    0.037198864, 0.0004403434, _NAN, _NAN, _NAN, _NAN,
)
_POINTS_PC = (
    0.031012505, 0.013347598, 0.081435576, 0.001262615, 0.002587246, 0.0035944257,
    0.0023071, 0.055412333, 0.044385884, 0.042766232, 0.043258056, 0.037629247,
    0.005658899, 0.0091741895, _NAN, 0.026507627, _NAN, _NAN,
)
_POINTS_CHEX = (
    0.1988969, 0.05710573, _NAN, 0.0531293, 0.1435217, _NAN,
    _NAN, 0.27212676, 0.07749717, _NAN, 0.19712369, _NAN,
    _NAN, _NAN, 0.09932402, 0.09273402, 0.3270967, 0.10888247,
)
_POINTS_RSNA = (
    _NAN, _NAN, _NAN, _NAN, _NAN, _NAN,
    _NAN, _NAN, 0.13486601, _NAN, _NAN, _NAN,
    _NAN, _NAN, _NAN, _NAN, 0.13511065, _NAN,
)
_POINTS_MIMIC_NB = (
    0.08558747, 0.011884617, _NAN, 0.0040595434, 0.010733786, _NAN,
    _NAN, 0.118761964, 0.022924708, _NAN, 0.06358637, _NAN,
    _NAN, _NAN, 0.022143636, 0.017476924, 0.1258702, 0.014020768,
)
_POINTS_MIMIC_CH = (
    0.09121389, 0.010573786, _NAN, 0.005023008, 0.003698257, _NAN,
    _NAN, 0.08001232, 0.037242252, _NAN, 0.05006329, _NAN,
    _NAN, _NAN, 0.019866971, 0.03823637, 0.11303808, 0.0069147074,
)
_POINTS_RES512 = (
    0.51570356, 0.50444704, 0.53787947, 0.50723547, 0.5025118, 0.5035252,
    0.5038076, 0.51862943, 0.5078151, 0.50724894, 0.5056339, 0.510706,
    0.5053923, 0.5020846, _NAN, 0.5080557, 0.5138526, _NAN,
)
_PPV80_ALL = (
    0.72715247, 0.8885005, 0.92493945, 0.6527224, 0.68707734, 0.46127197,
    0.7272054, 0.6127343, 0.9878492, 0.61979693, 0.66309816, 0.7853459,
    0.930661, 0.93645346, 0.6788558, 0.6547198, 0.61614525, 0.8489876,
)
_PPV80_RES512 = (
    0.690908, 0.720028, 0.7303882, 0.7235838, 0.6787441, 0.7304924,
    0.73105824, 0.6839408, 0.7241559, 0.7219969, 0.6346738, 0.72764945,
    0.7285066, 0.5735704, _NAN, 0.69684714, 0.7135549, _NAN,
)
# fmt: on

_LIMITS = Reference(
    authors="Joseph Paul Cohen et al.",
    title="On the limits of cross-domain generalization in automated X-ray prediction",
    year=2020,
    venue="Medical Imaging with Deep Learning",
    url="https://arxiv.org/abs/2002.02497",
)
_BENCHMARKS = (
    "https://github.com/mlmed/torchxrayvision/blob/main/BENCHMARKS.md, 2023-07-23, "
    "on 20 % of each dataset; parts of these sets were training data"
)

_DATA_TERMS = {
    "nih": "NIH ChestX-ray14 (terms of the NIH Clinical Center)",
    "pc": "PadChest (research use agreement of BIMCV)",
    "chex": "CheXpert (research use agreement of Stanford, non-commercial)",
    "mimic_nb": "MIMIC-CXR (PhysioNet credentialed data use agreement)",
    "mimic_ch": "MIMIC-CXR (PhysioNet credentialed data use agreement)",
    "google": "Google's labels of NIH images (terms of that release)",
    "openi": "Open-i Indiana University (CC BY-NC-ND)",
    "rsna": "RSNA Pneumonia Challenge (terms of the challenge)",
    "siim": "SIIM-ACR Pneumothorax (terms of the challenge)",
    "vin": "VinDr-CXR (PhysioNet data use agreement)",
}

_SHORT = {
    "Atel": "Atelectasis",
    "Card": "Cardiomegaly",
    "Cons": "Consolidation",
    "ECM": "Enlarged Cardiomediastinum",
    "Edema": "Edema",
    "Eff": "Effusion",
    "Emph": "Emphysema",
    "Fibr": "Fibrosis",
    "Fx": "Fracture",
    "Hern": "Hernia",
    "Infil": "Infiltration",
    "LL": "Lung Lesion",
    "LO": "Lung Opacity",
    "Mass": "Mass",
    "Nod": "Nodule",
    "PT": "Pleural_Thickening",
    "Pneu": "Pneumonia",
    "Ptx": "Pneumothorax",
}


def _auroc(text: str) -> dict[str, float]:
    words = text.split()
    return {_SHORT[k]: float(v) for k, v in zip(words[::2], words[1::2], strict=True)}


UNSETTLED = (
    "Whether the terms of training data reach the weights is not settled: "
    "ask their owners before commercial use."
)


def license_of_release(trained_on: str) -> License:
    """Terms of files that mlmed/torchxrayvision publishes, trained on data of these names."""
    note = "The licence of the repository that publishes the weights. They were trained on "
    return License(
        name="Apache-2.0",
        url="https://github.com/mlmed/torchxrayvision/blob/main/LICENSE",
        note=f"{note}{trained_on}. {UNSETTLED}",
    )


def release_file(filename: str, **known: Any) -> RemoteFile:
    """A file of the release of mlmed/torchxrayvision, and what is known about its bytes."""
    return RemoteFile(url=_RELEASE + filename, filename=filename, **known)


def _license(trained_on: tuple[str, ...]) -> License:
    return license_of_release("; ".join(_DATA_TERMS[code] for code in trained_on))


def _logit(points: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(math.log(p / (1 - p)) for p in points)  # NaN stays NaN


def _densenet(
    alias: str,
    points: tuple[float, ...],
    trained_on: tuple[str, ...],
    *,
    stem: str | None = None,
    sha256: str | None = None,
    size: int | None = None,
    certainty: Literal["certain", "reported"] = "reported",
    ppv80: tuple[float, ...] | None = None,
    metrics: dict[str, dict[str, float]] | None = None,
    description: str = "",
) -> Weights:
    """A DenseNet-121 on 224 x 224 pixels; `stem` is the first part of its file name."""
    filename = f"{stem or alias}-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt"
    # The Hub may hold the file in another form, which has another checksum and is not taken then.
    copies = (f"{_HUB}densenet121-res224-{alias}/resolve/main/model.pt",) if sha256 else ()
    return Weights(
        name=f"densenet121-res224-{alias}",
        aliases=(alias,),
        file=release_file(filename, sha256=sha256, size=size, certainty=certainty, copies=copies),
        container="pickled_module",
        architecture="densenet121",
        targets=tuple(
            "" if math.isnan(point) else name
            for name, point in zip(DEFAULT_PATHOLOGIES, points, strict=True)
        ),
        input_resolution=224,
        operating_points=points,
        ppv80=ppv80,
        trained_on=trained_on,
        license=_license(trained_on),
        reference=_LIMITS,
        metrics=metrics or {},
        metrics_source=_BENCHMARKS if metrics else "",
        description=description,
    )


@register
class DenseNet121_Weights(WeightsEnum):  # noqa: N801 - torchvision's form of such names
    """DenseNet-121 on 224 x 224 pixels, 18 outputs in the order of `DEFAULT_PATHOLOGIES`.

    Outputs that a training set has no labels for are untrained: their target is ``""``.
    """

    ALL = _densenet(
        "all",
        _POINTS_ALL,
        ("nih", "pc", "chex", "mimic_ch", "google", "openi", "rsna"),
        stem="nih-pc-chex-mimic_ch-google-openi-kaggle",
        sha256="56524913dd16a906422e8d8b66a7a5c46be1d82eb7ac012d8103776f1aa68899",
        size=28_382_008,
        certainty="certain",
        ppv80=_PPV80_ALL,
        metrics={
            "NIH": _auroc(
                "Atel .76 Card .88 Cons .77 Edema .85 Eff .85 Emph .73 Fibr .72 Hern .91 "
                "Infil .68 Mass .80 Nod .69 PT .74 Pneu .71 Ptx .75"
            ),
            "Google": _auroc("LO .92 Fx .74 Ptx .85"),
            "RSNA": _auroc("LO .88 Pneu .86"),
            "SIIM": _auroc("Ptx .79"),
            "PadChest": _auroc(
                "Atel .77 Card .93 Cons .88 Edema .97 Eff .95 Emph .87 Fibr .94 Fx .70 "
                "Hern .96 Infil .85 Mass .85 Nod .69 PT .79 Pneu .82 Ptx .81"
            ),
            "VinDr": _auroc("Atel .67 Card .90 Cons .93 Eff .87 Infil .86 LO .85 PT .84 Ptx .93"),
            "CheXpert": _auroc(
                "Atel .91 Card .91 Cons .90 Edema .92 ECM .78 Fx .74 LL .84 LO .87 Eff .94 "
                "Pneu .84 Ptx .85"
            ),
            "MIMIC": _auroc(
                "Atel .88 Card .88 Cons .91 Edema .92 ECM .84 Fx .74 LL .82 LO .86 Eff .92 "
                "Pneu .82 Ptx .81"
            ),
        },
        description=(
            "This model was trained on the datasets: nih-pc-chex-mimic_ch-google-openi-rsna and "
            "is described here: https://arxiv.org/abs/2002.02497"
        ),
    )
    NIH = _densenet("nih", _POINTS_NIH, ("nih",))
    PC = _densenet(
        "pc",
        _POINTS_PC,
        ("pc",),
        sha256="a9148ef62ae4e7a31a9bed8cef22811f39681cd61e4390398936efc6280af521",
        size=28_381_804,
    )
    CHEX = _densenet(
        "chex",
        _POINTS_CHEX,
        ("chex",),
        sha256="1a914ae802170187a4852e594708206c12468eeeefd66aa4e8e26141649d61a4",
        size=28_381_998,
    )
    RSNA = _densenet("rsna", _POINTS_RSNA, ("rsna",), stem="kaggle")
    MIMIC_NB = _densenet("mimic_nb", _POINTS_MIMIC_NB, ("mimic_nb",))
    MIMIC_CH = _densenet(
        "mimic_ch",
        _POINTS_MIMIC_CH,
        ("mimic_ch",),
        sha256="23b13a04459684ffa41247d068207a7657b4e1b4dec2b02431f5026bd75b1189",
        size=28_382_012,
    )
    DEFAULT = ALL


@register
class ResNet50_Weights(WeightsEnum):  # noqa: N801 - torchvision's form of such names
    """ResNet-50 on 512 x 512 pixels, 18 outputs in the order of `DEFAULT_PATHOLOGIES`.

    The operating points that 1.5.7 publishes all lie between 0.502 and 0.538, and its thresholds
    for a positive predictive value of 0.8 end at 0.7310, the sigmoid of 1: they were taken on
    probabilities that had gone through the sigmoid a second time, whose range is 0.5 to 0.7311. The
    network gives probabilities that went through it once, so with the published points an image
    must be far more suspicious than the calibration found. `operating_points` and `ppv80` are
    therefore the logits of the published values, which undoes the second sigmoid;
    `compat_operating_points` and `compat_ppv80` are the published ones. Ranks, and so areas under
    the ROC curve, are the same with either.

    *Lung Lesion* and *Enlarged Cardiomediastinum* have a name and no operating point: none of the
    training sets labels them. They count as untrained.
    """

    RES512_ALL = Weights(
        name="resnet50-res512-all",
        file=release_file("pc-nih-rsna-siim-vin-resnet50-test512-e400-state.pt"),
        container="state_dict",
        architecture="resnet50",
        targets=DEFAULT_PATHOLOGIES,
        input_resolution=512,
        operating_points=_logit(_POINTS_RES512),
        compat_operating_points=_POINTS_RES512,
        ppv80=_logit(_PPV80_RES512),
        compat_ppv80=_PPV80_RES512,
        trained_on=("pc", "nih", "rsna", "siim", "vin"),
        license=_license(("pc", "nih", "rsna", "siim", "vin")),
        reference=LIBRARY,
        metrics={
            "NIH": _auroc(
                "Atel .78 Card .90 Cons .78 Edema .89 Eff .86 Emph .88 Fibr .76 Hern .92 "
                "Infil .69 Mass .82 Nod .76 PT .76 Pneu .71 Ptx .84"
            ),
        },
        metrics_source=_BENCHMARKS,
        description=(
            "This model was trained on the datasets pc-nih-rsna-siim-vin at a 512x512 resolution."
        ),
    )
    DEFAULT = RES512_ALL

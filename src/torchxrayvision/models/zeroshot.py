"""Zero-shot networks: an image is compared with texts, so that findings are words of the user.

What comes out is how much closer an image is to one text than to another. It has no scale: 0.5 is
no threshold, and numbers of two findings or two sets of texts cannot be compared. They rank images
(AUROC), and become probabilities and calls by `xrv calibrate` on labelled images of a site.

Sources: Radford et al. Learning transferable visual models from natural language supervision. ICML
2021. https://arxiv.org/abs/2103.00020; Tiu et al. Expert-level detection of pathologies from
unannotated chest X-ray images via self-supervised learning. Nature Biomedical Engineering 2022.
https://doi.org/10.1038/s41551-022-00936-9; those of the releases are in `ZeroShot_Weights`.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from torchxrayvision.errors import (
    CheckpointError,
    PromptError,
    UnknownNameError,
    XRVWarning,
    caller_stacklevel,
)
from torchxrayvision.models.base import XRayClassifier
from torchxrayvision.models.configuration import (
    described,
    described_shape,
    files_beside,
    saved_arguments,
    saved_config,
    saved_form,
    stated_preprocessing,
    stated_shape,
    tensors_in,
)
from torchxrayvision.models.loading import (
    load_weights,
    network_device,
    renamed_by,
    resolve_weights_argument,
)
from torchxrayvision.models.prompts import Prompts, check_findings, prompts_of, read_prompts
from torchxrayvision.models.scaling import Preprocess
from torchxrayvision.models.text import (
    TOKENIZER_FILES,
    TextEncoder,
    TextShape,
    Tokens,
    text_names,
)
from torchxrayvision.models.vit import (
    build_vit,
    clip_names,
    dinov2_names,
    map_of,
    take_grey,
    tokens_of,
    vit_shape,
)
from torchxrayvision.weights import (
    PROMPTS_NAME,
    Preprocessing,
    ZeroShot_Weights,
    fetch_companions,
    get_weights_entry,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torchxrayvision.models.scaling import ResizeRoute
    from torchxrayvision.models.vit import VitShape
    from torchxrayvision.weights import ModelConfig, Weights, WeightsEnum

Contrast = Literal["negation", "findings"]
CONTRASTS: Final[tuple[str, ...]] = get_args(Contrast)
_ROUTES: Final[dict[str, ResizeRoute]] = {"bicubic": "bicubic", "bilinear": "antialias"}
# Text encoder and width of the space that both meet in, of each network.
ZERO_SHOT: Final[dict[str, tuple[TextShape, int]]] = {
    "chexficient-base14": (TextShape(28996, 512, 768, 12, 12, 3072, "bert", eps=1e-12), 512),
    "clip-base16": (TextShape(49408, 77, 512, 12, 8, 2048, "clip"), 512),
    "siglip-so400m14": (
        TextShape(32000, 64, 1152, 27, 16, 4304, "siglip", "gelu_pytorch_tanh", 1e-6), 1152,
    ),
}  # fmt: skip
_SMALLER: Final = re.compile(r"(?:-width(\d+))?(?:-depth(\d+))?$")
_NORMAL: Final = ("no finding", "no findings", "normal")
# Of the training of CheXficient, which say nothing of an image.
_TRAINING: Final = (
    "prototypes", "prototype_usage", "step_count", "batch_prototype_updates",
    "batch_update_weight_stats", "pending_ema_features", "pending_ema_similarities",
)  # fmt: skip


def text_shape(name: str) -> tuple[TextShape, int]:
    """Text encoder and width of the common space of a network by name, see `vit_shape`."""
    start = next((one for one in ZERO_SHOT if name.startswith(one)), None)
    found = None if start is None else _SMALLER.match(name, len(start))
    if start is None or found is None:
        raise UnknownNameError("zero-shot network", name, ZERO_SHOT)
    shape, joint = ZERO_SHOT[start]
    width, depth = (int(n or 0) for n in found.groups())
    # SigLIP has no projections: the width of its tokens is that of the space.
    return shape.smaller(width, depth), width if width and shape.style == "siglip" else joint


@dataclass(frozen=True, kw_only=True)
class _Form:
    """What makes the numbers of such a network besides its tensors.

    Args:
        shape: Of the image encoder.
        texts: Of the text encoder.
        facts: How images are standardised.
        beside: Name of each file beside the tensors to its path.
        findings: What it looks for.
        prompts: Texts that go before those of the package, by finding.
        contrast: What a finding is compared with.
    """

    shape: VitShape
    texts: TextShape
    facts: Preprocessing
    beside: Mapping[str, Path] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    prompts: Mapping[str, Prompts] = field(default_factory=dict)
    contrast: Contrast = "negation"


class ZeroShot(XRayClassifier):
    """An image encoder and a text encoder whose vectors are compared (extra `zero-shot`).

    Outputs are `"similarity"`: the cosine of an image and the positive texts of a finding, less
    that with its negative texts; and `"zero-shot"`: the share of the positive texts in the softmax
    over both, as in training. Neither is a probability. `predict` gives the second.

    Args:
        weights: Published weights by name or enum member; None for an untrained network.
        findings: What to look for: names of the package's findings, or texts of your own. None for
            those that weights of your own were saved with.
        architecture: For an untrained network: `"chexficient-base14"`, `"clip-base16"` or
            `"siglip-so400m14"`; `-width64` and `-depth2` behind it make it smaller.
        prompts: Texts of your own, by finding.
        contrast: `"negation"` compares each finding with its own negative texts; `"findings"`
            compares all findings with each other, so that their shares add to 1. None for that of
            weights of your own, else `"negation"`.
        folder: Where the files of the release lie under their own names, or its file of tensors
            with the others beside it; None for the cache, into which they are fetched.
        cache_dir: Folder for downloaded weights; None for the usual one.
        output: What `forward` gives by default; `"zero-shot"` if None.
        resize_route: How inputs are brought to the resolution; None for the authors' way.

    Attributes:
        prompts: The texts of each finding.
        contrast: As given.

    Raises:
        UnknownNameError: If no such weights, architecture or contrast exist.
        RemoteError: If they cannot be fetched.
        CheckpointError: If the tokeniser of the release is missing.
        DependencyError: If timm or tokenizers is missing.

    Warns:
        XRVWarning: With `contrast="findings"` and no finding for a normal image: every image gets
            shares that add to 1, also one that shows nothing.
    """

    kinds: ClassVar = ("similarity", "zero-shot")
    raw_kind: ClassVar = "similarity"
    default_kind: ClassVar = "zero-shot"
    predicted_kind: ClassVar = "zero-shot"
    positive: Tensor
    negative: Tensor
    contrast: Contrast
    prompts: dict[str, Prompts]
    _own: dict[str, Prompts]

    def __init__(
        self,
        weights: str | Weights | WeightsEnum | None = None,
        findings: Sequence[str] = (),
        *,
        architecture: str = "clip-base16",
        prompts: Mapping[str, Prompts] | None = None,
        contrast: Contrast | None = None,
        folder: str | Path | None = None,
        cache_dir: str | None = None,
        output: str | None = None,
        resize_route: ResizeRoute | None = None,
    ) -> None:
        if contrast is not None and contrast not in CONTRASTS:
            raise UnknownNameError("contrast", contrast, CONTRASTS)
        entry = _entry_of(weights)
        architecture = architecture if entry is None else entry.architecture
        saved = saved_config(entry)
        if saved is not None and entry is not None:
            form = _form_of_saved(saved, Path(getattr(entry.file, "folder", "")))
        else:
            form = _form_of_release(entry, architecture, folder, cache_dir)
        self._set_up(architecture, form, network_device(entry), output, resize_route)
        self._own |= prompts or {}
        if entry is not None:
            self._load(entry, folder, cache_dir)
        if findings:
            self.set_findings(findings, contrast=contrast)
        elif contrast is not None:
            self.contrast = contrast

    @classmethod
    def of_saved(cls, config: ModelConfig, folder: Path) -> ZeroShot:
        """An untrained network as a saved one describes itself, with its tokeniser and texts.

        Args:
            config: Its `config.json`.
            folder: Where that lies.

        Raises:
            CheckpointError: If the files say what no such network can have.
        """
        try:
            made = cls.__new__(cls)
            form, device = _form_of_saved(config, folder), torch.get_default_device()
            made._set_up(config.architecture, form, device, None, None)
        except (PromptError, UnknownNameError) as error:
            raise CheckpointError(f"{folder}: {error}") from error
        return made

    def _set_up(
        self,
        architecture: str,
        form: _Form,
        device: torch.device,
        output: str | None,
        resize_route: ResizeRoute | None,
    ) -> None:
        super().__init__(
            targets=form.findings, input_resolution=form.shape.side, output=output,
            resize_route=resize_route or _ROUTES[form.facts.resampling],
        )  # fmt: skip
        self.architecture = architecture  # type: ignore[misc] # one class, several networks
        self.contrast = form.contrast
        self.prompts = {name: prompts_of(name, form.prompts) for name in form.findings}
        self._shape, self._facts, self._beside = form.shape, form.facts, dict(form.beside)
        self._own = dict(form.prompts)
        self._tokens: Tokens | None = None
        self.preprocess = Preprocess.of(form.facts)
        with device:
            self._build(form.texts, text_shape(architecture)[1], len(form.findings))

    def _build(self, texts: TextShape, joint: int, findings: int) -> None:
        projected = texts.style != "siglip"
        biased = texts.style == "bert"
        self.body = build_vit(self._shape, "zero-shot")
        self.text = TextEncoder(texts)
        self.image_projection: nn.Module = (
            nn.Linear(self._shape.width, joint, bias=biased) if projected else nn.Identity()
        )
        self.text_projection: nn.Module = (
            nn.Linear(texts.width, joint, bias=biased) if projected else nn.Identity()
        )
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self._joint = joint
        self.register_buffer("positive", torch.zeros(findings, joint))
        self.register_buffer("negative", torch.zeros(findings, joint))

    @property
    def arguments(self) -> dict[str, Any]:
        """What besides the architecture and its texts makes its numbers, as a file keeps it."""
        of_texts = {f"text_{name}": value for name, value in described(self.text.shape).items()}
        form = saved_arguments(self._shape, self._facts)
        return {"contrast": self.contrast, **form, **of_texts}

    def is_named(self) -> bool:
        """Whether its name and `arguments` say all of its form, so that a file can keep it."""
        texts = text_shape(self.architecture)[0]
        of_texts = described_shape(texts, described(self.text.shape), self.architecture)
        form = saved_form(vit_shape(self.architecture), self.arguments, self.architecture)
        return (*form, of_texts) == (self._shape, self._facts, self.text.shape)

    def companions(self) -> dict[str, bytes]:
        """Files that belong beside its tensors: those of its tokeniser, and its texts as JSON."""
        names = TOKENIZER_FILES[self.text.shape.style]
        found = {n: self._beside[n].read_bytes() for n in names if n in self._beside}
        texts = {
            name: {"positive": list(one.positive), "negative": list(one.negative)}
            for name, one in {**self._own, **self.prompts}.items()
        }
        if texts:
            found[PROMPTS_NAME] = f"{json.dumps(texts, indent=1, ensure_ascii=False)}\n".encode()
        return found

    def _load(self, entry: Weights, folder: str | Path | None, cache_dir: str | None) -> None:
        saved = saved_config(entry) is not None
        if not saved:  # no file of a release has vectors of texts
            del self.positive, self.negative
        names = renamed_by(self.own_names)
        path = None if folder is None else tensors_in(folder)
        load_weights(self, self, entry, cache_dir=cache_dir, names=names, path=path)
        if not saved:
            for name in ("positive", "negative"):
                self.register_buffer(name, torch.zeros(0, self._joint))

    def set_findings(
        self,
        findings: Sequence[str],
        prompts: Mapping[str, Prompts] | None = None,
        contrast: Contrast | None = None,
    ) -> None:
        """Choose what to look for; the texts are read once, now.

        Args:
            findings: Names of the package's findings, or texts of your own; each is a column.
            prompts: Texts of your own, by finding; None for those of the constructor.
            contrast: As in the constructor; None leaves it.

        Raises:
            PromptError: If there is no finding, or one has no negative text and needs one.
            UnknownNameError: If a finding is named twice, or there is no such contrast.
            CheckpointError: If there is no tokeniser.

        Warns:
            XRVWarning: See the class.
        """
        contrast = contrast or self.contrast
        if contrast not in CONTRASTS:
            raise UnknownNameError("contrast", contrast, CONTRASTS)
        names = check_findings(findings)
        own = self._own if prompts is None else dict(prompts)
        chosen = {name: prompts_of(name, own) for name in names}
        against = contrast == "negation"
        lacking = [name for name, texts in chosen.items() if against and not texts.negative]
        if lacking:
            msg = f"{', '.join(lacking)} need negative texts, or contrast='findings'"
            raise PromptError(msg)
        if not against:
            self._warn_of_no_normal(names)
        positive = torch.stack([self._mean_of(texts.positive) for texts in chosen.values()])
        negative = torch.zeros_like(positive)
        if against:
            negative = torch.stack([self._mean_of(texts.negative) for texts in chosen.values()])
        self.positive, self.negative = positive, negative
        self.targets, self.prompts, self.contrast = names, chosen, contrast

    def _warn_of_no_normal(self, names: Sequence[str]) -> None:
        if not any(name.replace("_", " ").casefold() in _NORMAL for name in names):
            warnings.warn(
                "no finding stands for a normal image: the shares of "
                f"{', '.join(names)} add to 1 for every image, also for one that shows none of "
                "them, and rise when a finding is left out; add 'No Finding', or take "
                "contrast='negation'",
                XRVWarning,
                stacklevel=caller_stacklevel(),
            )

    def _mean_of(self, texts: Sequence[str]) -> Tensor:
        """The direction of several texts, shape (E,)."""
        return functional.normalize(self.embed_text(texts).mean(0), dim=0)

    @torch.no_grad()
    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Vectors of texts, of length 1.

        Args:
            texts: B texts.

        Returns:
            Shape (B, E), to be multiplied with what `embed` gives.

        Raises:
            CheckpointError: If there is no tokeniser.
        """
        if self._tokens is None:
            self._tokens = Tokens(self.text.shape, self._beside)
        ids, known = (given.to(self.logit_scale.device) for given in self._tokens(texts))
        return functional.normalize(self.text_projection(self.text(ids, known)), dim=1)

    @property
    def pools_class_token(self) -> bool:
        """Whether the token of the class is compared with texts; attention is followed to it."""
        return self._shape.style != "siglip"

    @property
    def features_width(self) -> int:
        """Number of features that `embed` gives, E."""
        return self._joint

    def _embed(self, x: Tensor) -> Tensor:
        tokens = tokens_of(self.body, x)
        pool = getattr(self.body, "attn_pool", None)
        pooled = tokens[:, 0] if pool is None else pool(tokens)
        return functional.normalize(self.image_projection(pooled), dim=1)

    def _last(self, features: Tensor) -> Tensor:
        return features @ (self.positive - self.negative).to(features.dtype).T

    def convert(self, raw: Tensor, kind: str) -> Tensor:
        """Turn similarities into the kind that was asked for.

        Args:
            raw: Differences of cosines, shape (B, P).
            kind: One of `kinds`.

        Returns:
            Shape and dtype of `raw`.
        """
        if self.check_kind(kind) == "similarity":
            return raw
        scaled = raw * self.logit_scale.detach().exp().to(raw)
        return scaled.softmax(1) if self.contrast == "findings" else scaled.sigmoid()

    def similarity_map(self, x: Tensor, finding: str) -> Tensor:
        """How much closer each patch is to a finding's positive texts than to its negative ones.

        Patches were not taught to be compared with texts, only the whole image was; so this is a
        hint at best. Networks that pool by attention (SigLIP) have none.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].
            finding: One of `targets`.

        Returns:
            Differences of cosines, shape (B, H, W).

        Raises:
            UnknownNameError: If the finding was not chosen.
            NotImplementedError: If the network pools by attention.
        """
        if finding not in self.targets:
            raise UnknownNameError("finding", finding, self.targets)
        if getattr(self.body, "attn_pool", None) is not None:
            msg = (
                f"{self.architecture} pools by attention; its patches are not in the space of texts"
            )
            raise NotImplementedError(msg)
        grid = map_of(tokens_of(self.body, self.prepare(x)), self._shape)
        vectors = functional.normalize(self.image_projection(grid.movedim(1, 3)), dim=3)
        index = self.targets.index(finding)
        return vectors @ (self.positive - self.negative)[index].to(vectors.dtype)

    def own_names(self, found: dict[str, Tensor], source: str) -> dict[str, Tensor]:
        """The tensors of a file of a release under the names that this network has.

        Args:
            found: Names as in the release.
            source: What an error would call the file.
        """
        del source  # nothing can be wrong here that a strict load does not find
        style = self.text.shape.style
        images, texts, named = _parts_of(found, style)
        body = dinov2_names(images, self._shape) if style == "bert" else clip_names(images)
        take_grey(body, self._shape, self._facts)
        named |= {f"body.{name}": value for name, value in body.items()}
        named |= {f"text.{name}": value for name, value in text_names(texts, style).items()}
        if "logit_scale" in named:
            named["logit_scale"] = named["logit_scale"].reshape(())
        return named


# How the parts of a file start: of the image encoder, of the text encoder.
_STARTS: Final = {
    "bert": (("image_encoder.model.", "vision_model."), ("text_encoder.model.", "text_model.")),
    "clip": (("vision_model.",), ("text_model.",)),
    "siglip": (("vision_model.",), ("text_model.",)),
}
_PROJECTIONS: Final = {
    "visual_projection": "image_projection",
    "image_projection.projection": "image_projection",
    "text_projection.projection": "text_projection",
}


def _parts_of(
    found: Mapping[str, Tensor], style: str
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Tensors of the image encoder, of the text encoder, both without prefix, and the others."""
    parts: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    others = {}
    for name, value in found.items():
        at = next(
            ((i, s) for i, starts in enumerate(_STARTS[style]) for s in starts
             if name.startswith(s)), None,
        )  # fmt: skip
        if at is not None:
            parts[at[0]][name.removeprefix(at[1])] = value
        elif name != "logit_bias" and name not in _TRAINING:  # one bias for all pairs cancels out
            layer, dot, end = name.rpartition(".")
            others[_PROJECTIONS.get(layer, layer) + dot + end] = value
    return *parts, others


def _entry_of(weights: str | Weights | WeightsEnum | None) -> Weights | None:
    default = ZeroShot_Weights.DEFAULT.value
    if weights is None:
        return None
    entry = get_weights_entry(weights)
    if not entry.architecture.startswith(tuple(ZERO_SHOT)):  # the error names those that fit
        known = [member.value.name for member in ZeroShot_Weights]
        raise UnknownNameError("zero-shot weights", entry.name, known)
    return resolve_weights_argument(entry, default=default.name, family=entry.architecture)


def _form_of_release(
    entry: Weights | None, architecture: str, folder: str | Path | None, cache_dir: str | None
) -> _Form:
    """That of published weights, or of an untrained network."""
    shape, texts = vit_shape(architecture), text_shape(architecture)[0]
    if entry is None:
        return _Form(shape=shape, texts=texts, facts=_facts_of(architecture))
    beside = files_beside(folder) if folder else fetch_companions(entry, cache=cache_dir)
    facts = entry.preprocessing or _facts_of(architecture)
    if texts.style != "bert":  # whose configuration is the authors' own
        texts = stated_shape(texts, beside, "text_config")
    part = "" if texts.style == "bert" else "vision_config"
    return _Form(
        shape=stated_shape(shape, beside, part),
        texts=texts,
        facts=stated_preprocessing(facts, beside),
        beside=beside,
    )


def _form_of_saved(config: ModelConfig, folder: Path) -> _Form:
    """That of a saved network."""
    source, said = str(folder), dict(config.arguments)
    shape, facts = saved_form(vit_shape(config.architecture), said, source)
    of_texts = {k.removeprefix("text_"): v for k, v in said.items() if k.startswith("text_")}
    contrast: Any = said.get("contrast")
    if contrast not in CONTRASTS:
        raise UnknownNameError("contrast", str(contrast)[:60], CONTRASTS)
    beside = {name: folder / name for name in config.files}
    prompts = read_prompts(beside[PROMPTS_NAME]) if PROMPTS_NAME in beside else {}
    return _Form(
        shape=shape,
        texts=described_shape(text_shape(config.architecture)[0], of_texts, source),
        facts=facts,
        beside=beside,
        findings=config.targets,
        prompts=prompts,
        contrast=contrast,
    )


def _facts_of(architecture: str) -> Preprocessing:
    """How the release of such a network standardises images."""
    for member in ZeroShot_Weights:
        entry: Weights = member.value
        if architecture.startswith(entry.architecture) and entry.preprocessing is not None:
            return entry.preprocessing
    raise UnknownNameError("zero-shot network", architecture, ZERO_SHOT)

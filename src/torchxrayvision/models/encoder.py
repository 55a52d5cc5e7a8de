"""Image encoders: networks that give features of a radiograph, and findings once they are taught.

Sources: Oquab et al. DINOv2: learning robust visual features without supervision. TMLR 2024.
https://arxiv.org/abs/2304.07193; Darcet et al. Vision transformers need registers. ICLR 2024.
https://arxiv.org/abs/2309.16588; those of the releases are in `Encoder_Weights`.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import torch
from torch import Tensor, nn

from torchxrayvision.errors import CheckpointError, UnknownNameError
from torchxrayvision.models.base import XRayClassifier, default_targets
from torchxrayvision.models.configuration import (
    described,
    described_shape,
    files_beside,
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
from torchxrayvision.models.scaling import OUTPUT_KINDS, Preprocess
from torchxrayvision.models.vit import (
    VITS,
    build_vit,
    dinov2_names,
    map_of,
    take_grey,
    tokens_of,
    vit_shape,
)
from torchxrayvision.weights import Encoder_Weights, Preprocessing, fetch_companions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torchxrayvision.models.scaling import ResizeRoute
    from torchxrayvision.models.vit import VitShape
    from torchxrayvision.weights import Weights, WeightsEnum

Pooling = Literal["class", "mean", "both"]
POOLINGS: Final[tuple[str, ...]] = get_args(Pooling)
ENCODERS: Final = tuple(name for name in VITS if name.startswith("dinov2-"))
EMBEDDING: Final = "embedding"
_OWN: Final = "body."


class Encoder(XRayClassifier):
    """Vision transformer of the DINOv2 family for grey radiographs (extra `models`).

    It has no findings: a call gives the embedding. `reset_classifier` puts a last layer on, to
    train; `embed_map` gives features of each patch. A square image is brought to the resolution of
    the release by Pillow's cubic kernel and standardised.

    Files that `inference` reads are resampled by `XRayResizer` instead, see `EvaX`.

    Args:
        weights: Published weights by name or enum member; None for an untrained network.
        architecture: For an untrained network: `"dinov2-base14"`, `"dinov2-small14-reg4"`,
            `"dinov2-base14-reg4"` or `"dinov2-large16-reg4"`; `-width64` and `-depth2` behind it
            make it smaller.
        num_classes: Number of outputs P, for an untrained network; 0 for none.
        pooling: What an embedding is: `"class"`, the token of the class, as the releases have it;
            `"mean"` of the tokens of patches; or `"both"`, one after the other.
        preprocessing: How images are standardised, for an untrained network; as for ImageNet if
            None.
        shape: Of an untrained network that is not quite what `architecture` names.
        folder: Where the files of the release lie under their own names, or its file of tensors
            with the others beside it; None for the cache, into which they are fetched.
        cache_dir: Folder for downloaded weights; None for the usual one.
        op_threshs: Operating points, shape (P,), of a network with outputs.
        apply_sigmoid: Whether `forward` gives probabilities where there are no operating points.
        output: What `forward` gives by default; None decides as `apply_sigmoid` says.
        resize_route: How inputs are brought to the resolution; the authors' by default.

    Raises:
        UnknownNameError: If no such weights, architecture or pooling exist.
        RemoteError: If they cannot be fetched.
        DependencyError: If timm is missing.

    Example:
        >>> model = Encoder(architecture="dinov2-base14-width64-depth1").eval()
        >>> x = torch.zeros(1, 1, 600, 600)
        >>> model.embed(x).shape, model.embed_map(x).shape
        (torch.Size([1, 64]), torch.Size([1, 64, 37, 37]))
    """

    def __init__(
        self,
        weights: str | Weights | WeightsEnum | None = None,
        *,
        architecture: str = "dinov2-base14",
        num_classes: int = 0,
        pooling: Pooling = "class",
        preprocessing: Preprocessing | None = None,
        shape: VitShape | None = None,
        folder: str | Path | None = None,
        cache_dir: str | None = None,
        op_threshs: Tensor | Sequence[float] | None = None,
        apply_sigmoid: bool = False,
        output: str | None = None,
        resize_route: ResizeRoute = "bicubic",
    ) -> None:
        default = Encoder_Weights.DEFAULT.value
        entry = resolve_weights_argument(weights, default=default.name, family="dinov2-")
        if pooling not in POOLINGS:
            raise UnknownNameError("pooling", pooling, POOLINGS)
        if shape is None or entry is not None:
            shape = vit_shape(architecture if entry is None else entry.architecture)
        facts = preprocessing if entry is None else entry.preprocessing
        facts = facts or dataclasses.replace(_IMAGENET, crop=shape.side)
        if entry is not None:
            beside = files_beside(folder) if folder else fetch_companions(entry, cache=cache_dir)
            shape, facts = stated_shape(shape, beside), stated_preprocessing(facts, beside)
        super().__init__(
            targets=default_targets(num_classes) if entry is None else (),
            input_resolution=shape.side if entry is None else entry.input_resolution,
            op_threshs=op_threshs,
            apply_sigmoid=apply_sigmoid,
            resize_route=resize_route,
        )
        self.architecture = architecture if entry is None else entry.architecture  # type: ignore[misc]
        self.pooling, self._shape, self._facts = pooling, shape, facts
        self.preprocess = Preprocess.of(facts)
        with network_device(entry):
            self.body = build_vit(shape)
            self.classifier: nn.Linear | None
            self.register_module(
                "classifier", nn.Linear(self.features_width, num_classes) if self.targets else None
            )
        self._say_kinds()
        self.output = None if output in (None, EMBEDDING) else self.check_kind(output)
        if entry is not None:
            path = None if folder is None else tensors_in(folder)
            names = renamed_by(self.own_names)
            load_weights(self, self, entry, cache_dir=cache_dir, names=names, path=path)

    def _say_kinds(self) -> None:
        bare = self.classifier is None
        self.kinds = (EMBEDDING,) if bare else OUTPUT_KINDS  # type: ignore[misc] # as it is now
        self.raw_kind = EMBEDDING if bare else "logit"  # type: ignore[misc]
        self.default_kind = EMBEDDING if bare else ""  # type: ignore[misc]

    @property
    def arguments(self) -> dict[str, Any]:
        """What besides the architecture makes its numbers, as a file keeps it."""
        facts: dict[str, Any] = dataclasses.asdict(self._facts)
        return {"pooling": self.pooling, **facts, **described(self._shape)}

    @classmethod
    def of_arguments(
        cls, architecture: str, outputs: int, arguments: Mapping[str, Any], path: str
    ) -> Encoder:
        """An untrained network as a file describes it.

        Args:
            architecture: Its name.
            outputs: Their number; 0 for a bare encoder.
            arguments: What `arguments` gave.
            path: What an error calls the file.

        Raises:
            CheckpointError: If the file says what no such network can have.
        """
        try:
            facts = Preprocessing(
                crop=int(arguments["crop"]),
                mean=_number_or_three(arguments["mean"]),
                deviation=_number_or_three(arguments["deviation"]),
            )
            return cls(
                architecture=architecture, num_classes=outputs, apply_sigmoid=True,
                pooling=arguments["pooling"], preprocessing=facts,
                shape=described_shape(vit_shape(architecture), arguments, path),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            msg = f"{path}: the header does not describe an encoder: {str(error)[:200]}"
            raise CheckpointError(msg) from error

    @property
    def head(self) -> nn.Linear:
        """The last layer, from embeddings to logits, once there is one."""
        if self.classifier is None:
            msg = f"{self.architecture} gives features only; reset_classifier puts a layer on them"
            raise AttributeError(msg)
        return self.classifier

    def _replace_head(self, layer: nn.Linear) -> None:
        self.classifier = layer
        self._say_kinds()

    def reset_classifier(self, num_classes: int, targets: Sequence[str] | None = None) -> None:
        """Put a fresh last layer in place, to teach findings.

        Args:
            num_classes: Number of outputs P.
            targets: Their names.

        Raises:
            ImageShapeError: If names and outputs differ in number.

        Example:
            >>> model = Encoder(architecture="dinov2-base14-width64-depth1")
            >>> model.reset_classifier(1, ["Silicosis"])
            >>> model(torch.zeros(1, 1, 518, 518)).shape
            torch.Size([1, 1])
        """
        if self.classifier is None:
            like = next(self.parameters())
            self.classifier = nn.Linear(
                self.features_width, num_classes, device=like.device, dtype=like.dtype
            )
        super().reset_classifier(num_classes, targets)

    @property
    def pools_class_token(self) -> bool:
        """Whether the token of the class is the embedding; attention is followed to it then."""
        return self.pooling == "class"

    @property
    def features_width(self) -> int:
        """Number of features that `embed` gives, D."""
        return self._shape.width * (2 if self.pooling == "both" else 1)

    def _last(self, features: Tensor) -> Tensor:
        return features if self.classifier is None else self.classifier(features)

    def named_values(self, values: Tensor, kind: str) -> Tensor:
        """Outputs as they may stand beside their names; a bare encoder has none, (B, 0)."""
        return values[:, :0] if kind == EMBEDDING else super().named_values(values, kind)

    def _embed(self, x: Tensor) -> Tensor:
        tokens = tokens_of(self.body, x)
        if self.pooling == "class":
            return tokens[:, 0]
        mean = tokens[:, 1 + self._shape.registers :].mean(1)
        return mean if self.pooling == "mean" else torch.cat([tokens[:, 0], mean], 1)

    def embed_map(self, x: Tensor) -> Tensor:
        """Features of each patch, after the last norm.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].

        Returns:
            Shape (B, D, H, W): (37, 37) patches for those of 14 pixels, (32, 32) for those of 16.
        """
        return map_of(tokens_of(self.body, self.prepare(x)), self._shape)

    def own_names(self, found: dict[str, Tensor], source: str) -> dict[str, Tensor]:
        """The tensors of a file of a release under the names that this network has.

        Args:
            found: Names as in the release; those of this network are taken as they are.
            source: What an error would call the file.
        """
        del source  # nothing can be wrong here that a strict load does not find
        if f"{_OWN}cls_token" in found:
            return found
        if all(name.startswith("model.") for name in found):
            found = {name.removeprefix("model."): value for name, value in found.items()}
        named = dinov2_names(found, self._shape)
        take_grey(named, self._shape, self._facts)
        return {_OWN + name: value for name, value in named.items()}


_IMAGENET: Final = Preprocessing(
    crop=518, mean=(0.485, 0.456, 0.406), deviation=(0.229, 0.224, 0.225)
)


def _number_or_three(value: Any) -> float | tuple[float, float, float]:
    if isinstance(value, list | tuple):
        red, green, blue = value
        return float(red), float(green), float(blue)
    return float(value)

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
            `"mean"` of the tokens of patches; or `"both"`, one after the other. None for that of
            weights of your own, else `"class"`.
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
        pooling: Pooling | None = None,
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
        if pooling is not None and pooling not in POOLINGS:
            raise UnknownNameError("pooling", pooling, POOLINGS)
        said: Pooling = "class"
        if entry is None:
            shape = shape or vit_shape(architecture)
            facts = preprocessing or dataclasses.replace(_IMAGENET, crop=shape.side)
        else:
            architecture = entry.architecture
            said, shape, facts = _form_of(entry, folder, cache_dir)
        points = op_threshs if entry is None or op_threshs is not None else entry.operating_points
        super().__init__(
            targets=default_targets(num_classes) if entry is None else entry.targets,
            input_resolution=shape.side if entry is None else entry.input_resolution,
            op_threshs=points,
            apply_sigmoid=apply_sigmoid,
            resize_route=resize_route,
        )
        self.architecture = architecture  # type: ignore[misc] # one class, several networks
        self.pooling: Pooling = pooling or said
        self._shape, self._facts = shape, facts
        self.preprocess = Preprocess.of(facts)
        with network_device(entry):
            self.body = build_vit(shape)
            self.classifier: nn.Linear | None
            self.register_module(
                "classifier",
                nn.Linear(self.features_width, len(self.targets)) if self.targets else None,
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
        return {"pooling": self.pooling, **saved_arguments(self._shape, self._facts)}

    def is_named(self) -> bool:
        """Whether its name and `arguments` say all of its form, so that a file can keep it."""
        form = saved_form(vit_shape(self.architecture), self.arguments, self.architecture)
        return form == (self._shape, self._facts)

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
            shape, facts = saved_form(vit_shape(architecture), arguments, path)
            return cls(
                architecture=architecture, num_classes=outputs, apply_sigmoid=True,
                pooling=_pooling_of(arguments), preprocessing=facts, shape=shape,
            )  # fmt: skip
        except UnknownNameError as error:
            raise CheckpointError(f"{path}: {error}") from error

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


def _pooling_of(arguments: Mapping[str, Any]) -> Pooling:
    pooling: Any = arguments.get("pooling")
    if pooling not in POOLINGS:
        raise UnknownNameError("pooling", str(pooling)[:60], POOLINGS)
    found: Pooling = pooling
    return found


def _form_of(
    entry: Weights, folder: str | Path | None, cache_dir: str | None
) -> tuple[Pooling, VitShape, Preprocessing]:
    """Pooling, shape and preprocessing of weights: of a release, or those that the user added."""
    shape = vit_shape(entry.architecture)
    saved = saved_config(entry)
    if saved is not None:
        return _pooling_of(saved.arguments), *saved_form(shape, saved.arguments, entry.name)
    facts = entry.preprocessing or dataclasses.replace(_IMAGENET, crop=shape.side)
    beside = files_beside(folder) if folder else fetch_companions(entry, cache=cache_dir)
    return "class", stated_shape(shape, beside), stated_preprocessing(facts, beside)

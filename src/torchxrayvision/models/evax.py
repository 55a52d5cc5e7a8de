"""EVA-X: vision transformers pre-trained on half a million chest radiographs, and its DenseNet-121.

The tensors of the release take pictures of three channels that are always equal. A network that is
linear in its input gives the same for one channel and the sum of the three kernels; so these take
one grey channel, as every other network of the package, at a third of the cost of the first layer.

Sources: Yao et al. EVA-X: a foundation model for general chest X-ray analysis with self-supervised
learning. npj Digital Medicine 2025. https://arxiv.org/abs/2405.05237; Fang et al. EVA-02: a visual
representation for neon genesis. https://arxiv.org/abs/2303.11331, section 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import torch
from torch import Tensor, nn

from torchxrayvision.errors import StateMismatchError, UnknownNameError, needs_package
from torchxrayvision.models.base import XRayClassifier, default_targets
from torchxrayvision.models.densenet import DenseNet
from torchxrayvision.models.loading import (
    apply_metadata,
    load_weights,
    network_device,
    preprocess_of,
    renamed_by,
    resolve_weights_argument,
)
from torchxrayvision.weights import EVAX_Weights, EVAXDenseNet_Weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchxrayvision.models.scaling import ResizeRoute
    from torchxrayvision.weights import Weights, WeightsEnum

_SIDE, _PATCH, _DEPTH = 224, 16, 12
# Width; the side in patches that rotary positions count to; whether the parts of a block are kept
# apart and normalised inside, as in EVA-02's base size. Of the public configuration.
EVAX_SIZES: Final[dict[str, tuple[int, int, bool]]] = {
    "evax-tiny": (192, 14, False),
    "evax-small": (384, 14, False),
    "evax-base": (768, 16, True),
}
_HEAD_WIDTH: Final = 64
# Parts of the release's names to those of timm.
_RENAMED: Final = (
    ("mlp.w12.", "mlp.fc1."),
    ("mlp.w3.", "mlp.fc2."),
    ("mlp.w1.", "mlp.fc1_g."),
    ("mlp.w2.", "mlp.fc1_x."),
    ("mlp.ffn_ln.", "mlp.norm."),
)
_APART: Final = (("attn.q_bias", "attn.q_proj.bias"), ("attn.v_bias", "attn.v_proj.bias"))
_FIRST: Final = "body.patch_embed.proj.weight"
_CLOSE: Final = 1e-3  # tables of cosines in the file against ours; half precision is finer


def _network(architecture: str) -> nn.Module:
    if architecture not in EVAX_SIZES:
        raise UnknownNameError("EVA-X", architecture, EVAX_SIZES)
    with needs_package("timm", "EVA-X", "models"):
        from timm.models.eva import Eva
    width, reach, apart = EVAX_SIZES[architecture]
    network: nn.Module = Eva(
        img_size=_SIDE,
        patch_size=_PATCH,
        in_chans=1,
        num_classes=0,
        global_pool="",
        embed_dim=width,
        depth=_DEPTH,
        num_heads=width // _HEAD_WIDTH,
        mlp_ratio=8 / 3,
        swiglu_mlp=True,
        scale_mlp=apart,
        qkv_fused=not apart,
        use_rot_pos_emb=True,
        ref_feat_shape=(reach, reach),
        use_post_transformer_norm=False,
        use_fc_norm=False,
    )
    for unused in ("fc_norm", "head_drop", "head"):  # they stand behind the pooling, which is ours
        delattr(network, unused)
    return network


class _Grid(nn.Module):
    """The tokens of patches as a map, which explanations look at."""

    def forward(self, tokens: Tensor) -> Tensor:
        """From (B, 1 + N, D), the class token first, to (B, D, S, S) with S the root of N."""
        side = _SIDE // _PATCH
        return tokens[:, 1:].transpose(1, 2).reshape(tokens.shape[0], -1, side, side)


class EvaX(XRayClassifier):
    """Vision transformer of the EVA-X release for grey radiographs (extra `models`).

    A square image is brought to 256 x 256 pixels by Pillow's cubic kernel, its middle of
    224 x 224 standardised; of CheXpert's tiny size it is the whole image. The embedding is the
    normalised mean of the tokens of patches.

    Files that `inference` reads are resampled by `XRayResizer` instead, which differs from that by
    0.4 grey levels of 255 on average (14 radiographs of NIH), by up to 26 at hard edges.

    Args:
        weights: Published weights by name or enum member; None for an untrained network.
        architecture: `"evax-tiny"`, `"evax-small"` or `"evax-base"`, for an untrained network.
        num_classes: Number of outputs P, for an untrained network.
        cache_dir: Folder for downloaded weights; None for the usual one.
        op_threshs: Operating points, shape (P,). The release has none, so that outputs are
            probabilities until they are set.
        apply_sigmoid: Whether `forward` gives probabilities where there are no operating points.
        output: What `forward` gives by default; None decides as `apply_sigmoid` says.
        resize_route: How inputs are brought to the trained resolution; the authors' by default.

    Raises:
        UnknownNameError: If no such weights or architecture exist.
        RemoteError: If they cannot be fetched.
        DependencyError: If timm is missing.

    Example:
        >>> model = EvaX(architecture="evax-tiny", num_classes=2)
        >>> model.embed(torch.zeros(1, 1, 256, 256)).shape
        torch.Size([1, 192])

    Source:
        Yao et al. EVA-X: a foundation model for general chest X-ray analysis with self-supervised
        learning. npj Digital Medicine 2025. https://arxiv.org/abs/2405.05237
    """

    def __init__(
        self,
        weights: str | Weights | WeightsEnum | None = None,
        *,
        architecture: str = "evax-tiny",
        num_classes: int = 14,
        cache_dir: str | None = None,
        op_threshs: Tensor | Sequence[float] | None = None,
        apply_sigmoid: bool = True,
        output: str | None = None,
        resize_route: ResizeRoute = "bicubic",
    ) -> None:
        default = EVAX_Weights.DEFAULT.value
        entry = resolve_weights_argument(weights, default=default.name, family="evax-")
        if entry is not None:
            architecture, num_classes = entry.architecture, len(entry.targets)
        facts = entry or default
        super().__init__(
            targets=default_targets(num_classes),
            input_resolution=facts.input_resolution,
            op_threshs=op_threshs if entry is None else None,
            apply_sigmoid=apply_sigmoid,
            resize_route=resize_route,
            output=output,
        )
        self.architecture = architecture  # type: ignore[misc] # one class, three networks
        self.preprocess = preprocess_of(facts)
        with network_device(entry):
            self.body = _network(architecture)
            width = EVAX_SIZES[architecture][0]
            self.grid = _Grid()
            self.fc_norm = nn.LayerNorm(width, eps=1e-6)
            self.classifier = nn.Linear(width, num_classes)
        if entry is not None:
            self.fill_constants()
            load_weights(self, self, entry, cache_dir=cache_dir, names=renamed_by(self.own_names))
            apply_metadata(self, entry, None, op_threshs)

    def _embed(self, x: Tensor) -> Tensor:
        features: Tensor = self.fc_norm(self._map(x).mean((2, 3)))
        return features

    def _map(self, x: Tensor) -> Tensor:
        grid: Tensor = self.grid(cast("Any", self.body).forward_features(x))
        return grid

    def embed_map(self, x: Tensor) -> Tensor:
        """Features of each patch, before they are averaged and normalised.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].

        Returns:
            Shape (B, D, 14, 14).
        """
        return self._map(self.prepare(x))

    def fill_constants(self) -> None:
        """Give what timm computes memory: it is part of no file, and may be built without any."""
        from timm.layers.pos_embed_sincos import RotaryEmbeddingCat

        side, reach = _SIDE // _PATCH, EVAX_SIZES[self.architecture][1]
        cast("Any", self.body).rope = RotaryEmbeddingCat(
            _HEAD_WIDTH, in_pixels=False, feat_shape=[side, side], ref_feat_shape=[reach, reach]
        )
        for module in self.body.modules():
            for name, buffer in module.named_buffers(recurse=False):
                if buffer.is_meta:  # biases of keys, which are zero
                    setattr(module, name, torch.zeros(buffer.shape, dtype=buffer.dtype))

    def own_names(self, found: dict[str, Tensor], source: str) -> dict[str, Tensor]:
        """The tensors of a file of the release under the names that this network has.

        Args:
            found: Names as in the release; those of this network are taken as they are.
            source: What the error calls the file.

        Raises:
            StateMismatchError: If the file counts positions in another way.
        """
        if _FIRST in found:
            return found
        self._check_positions(found, source)
        renames = (*_RENAMED, *_APART) if EVAX_SIZES[self.architecture][2] else _RENAMED
        named: dict[str, Tensor] = {}
        for name, value in found.items():
            if "rope." in name:
                continue
            part, _, rest = name.partition(".")
            if part in ("head", "fc_norm"):
                named[f"{'classifier' if part == 'head' else part}.{rest}"] = value
                continue
            for theirs, ours in renames:
                name = name.replace(theirs, ours)
            named["body." + name] = value
        _add_channels(named, _FIRST)
        return named

    def _check_positions(self, found: dict[str, Tensor], source: str) -> None:
        sine, cosine = cast("Any", self.body).rope.get_embed().chunk(2, dim=-1)
        for name, value in found.items():
            table = {"freqs_sin": sine, "freqs_cos": cosine}.get(name.rpartition(".")[2], value)
            if value.shape != table.shape or (value - table).abs().max() > _CLOSE:
                shapes = {name: (tuple(value.shape), tuple(table.shape))}
                raise StateMismatchError(source, [], [], shapes)


class EvaXDenseNet(DenseNet):
    """The DenseNet-121 of the EVA-X release: that of the core models under other preprocessing.

    Args:
        weights: Published weights by name or enum member; None for an untrained network.
        num_classes: Number of outputs P, for an untrained network.
        cache_dir: Folder for downloaded weights; None for the usual one.
        op_threshs: Operating points, shape (P,). The release has none.
        apply_sigmoid: Whether `forward` gives probabilities where there are no operating points.
        output: What `forward` gives by default; None decides as `apply_sigmoid` says.
        resize_route: How inputs are brought to the trained resolution; the authors' by default.

    Raises:
        UnknownNameError: If no such weights exist.
        RemoteError: If they cannot be fetched.

    Example:
        >>> EvaXDenseNet(num_classes=2).embed(torch.zeros(1, 1, 256, 256)).shape
        torch.Size([1, 1024])

    Source:
        Xiao et al. Delving into masked autoencoders for multi-label thorax disease
        classification. WACV 2023. https://arxiv.org/abs/2210.12843
    """

    architecture = "evax-densenet121"
    layers_of_157 = False

    def __init__(
        self,
        weights: str | Weights | WeightsEnum | None = None,
        *,
        num_classes: int = 14,
        cache_dir: str | None = None,
        op_threshs: Tensor | Sequence[float] | None = None,
        apply_sigmoid: bool = True,
        output: str | None = None,
        resize_route: ResizeRoute = "bicubic",
    ) -> None:
        default = EVAXDenseNet_Weights.DEFAULT.value
        entry = resolve_weights_argument(weights, default=default.name)
        with network_device(entry):
            super().__init__(
                num_classes=num_classes if entry is None else len(entry.targets),
                op_threshs=op_threshs if entry is None else None,
                apply_sigmoid=apply_sigmoid,
                output=output,
                resize_route=resize_route,
            )
        facts = entry or default
        self.input_resolution = facts.input_resolution
        self.preprocess = preprocess_of(facts)
        if entry is not None:
            load_weights(self, self, entry, cache_dir=cache_dir, names=renamed_by(self.own_names))
            apply_metadata(self, entry, None, op_threshs)

    def own_names(self, found: dict[str, Tensor], source: str) -> dict[str, Tensor]:
        """The tensors of a file of the release, for one grey channel.

        Args:
            found: Names as in the release, which are those of this network.
            source: What an error would call the file.
        """
        del source  # nothing can be wrong here that a strict load does not find
        named = dict(found)
        _add_channels(named, "features.conv0.weight")
        return named


def _add_channels(named: dict[str, Tensor], first: str) -> None:
    """One kernel for grey in place of three for equal colours; the sum is taken in float64."""
    kernel = named.get(first)
    if kernel is not None and kernel.dim() == 4 and kernel.shape[1] == 3:
        named[first] = kernel.double().sum(1, keepdim=True).to(kernel.dtype)

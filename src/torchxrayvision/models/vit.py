"""Vision transformers of published releases as timm's, for one grey channel.

Every release names its tensors in its own way: as the DINOv2 code, or as one of the classes of
transformers. Here they get the names of timm's `VisionTransformer`, which computes the same, and
whose attention the explanations can follow. Nothing is left out in silence: what a map does not
know keeps its name, so that a strict load names it.

The networks take pictures of three colours, standardised one by one. Of a grey image they see one
number thrice; their first layer is linear and pads nothing, so that one channel and one constant
give the same.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
from torch import Tensor, nn

from torchxrayvision.errors import UnknownNameError, needs_package

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torchxrayvision.weights import Preprocessing

Style = Literal["dinov2", "clip", "siglip"]


@dataclass(frozen=True, slots=True)
class VitShape:
    """What shapes such a network.

    Args:
        side: Of the image in pixels.
        patch: Side of a patch.
        width: Of a token.
        depth: Blocks.
        heads: Of each attention.
        hidden: Width within a block; 0 for four times that of a token.
        registers: Tokens besides those of the class and the patches.
        gated: Whether half of the hidden numbers gate the others (SwiGLU).
        style: Whose scheme it follows: layer scale of DINOv2, the norm before the blocks of CLIP,
            or attention pooling in place of a class token of SigLIP.
        activation: As transformers names it.
        eps: Of the norms.
    """

    side: int
    patch: int
    width: int
    depth: int
    heads: int
    hidden: int = 0
    registers: int = 0
    gated: bool = False
    style: Style = "dinov2"
    activation: str = "gelu"
    eps: float = 1e-6

    @property
    def cells(self) -> int:
        """Patches a side."""
        return self.side // self.patch


# Name of an activation in transformers to that in timm.
ACTIVATIONS: Final = {
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "quick_gelu": "quick_gelu",
}
_BASE: Final = VitShape(518, 14, 768, 12, 12)
VITS: Final[dict[str, VitShape]] = {
    "dinov2-base14": _BASE,
    "dinov2-small14-reg4": replace(_BASE, width=384, heads=6, registers=4),
    "dinov2-base14-reg4": replace(_BASE, registers=4),
    # Hidden width of DINOv2's gated layers: two thirds of four times the token, a multiple of 8.
    "dinov2-large16-reg4": VitShape(512, 16, 1024, 24, 16, 2736, registers=4, gated=True),
    "chexficient-base14": replace(_BASE, side=378),
    "clip-base16": VitShape(512, 16, 768, 12, 12, style="clip", eps=1e-5),
    "siglip-so400m14": VitShape(
        448, 14, 1152, 27, 16, 4304, style="siglip", activation="gelu_pytorch_tanh"
    ),
}
_HEAD_WIDTH: Final = 64
_SMALLER: Final = re.compile(r"(?:-width(\d+))?(?:-depth(\d+))?")


def vit_shape(name: str) -> VitShape:
    """The shape of a network by name.

    Args:
        name: One of `VITS`; `-width` and `-depth` with a number, behind it in this order, make it
            smaller, as in `"dinov2-base14-width64-depth2"`.

    Raises:
        UnknownNameError: If there is no such network.

    Example:
        >>> vit_shape("dinov2-base14").cells
        37
        >>> vit_shape("dinov2-base14-width128-depth2").heads
        2
    """
    start = next((one for one in sorted(VITS, key=len)[::-1] if name.startswith(one)), None)
    found = None if start is None else _SMALLER.fullmatch(name.removeprefix(start))
    width, depth = (int(n or 0) for n in found.groups()) if found else (0, 0)
    if start is None or found is None or width % _HEAD_WIDTH or width > 4096 or depth > 128:
        raise UnknownNameError("vision transformer", name, VITS)
    shape = VITS[start]
    if width:
        hidden = round(shape.hidden * width / shape.width / 8) * 8
        shape = replace(shape, width=width, heads=width // _HEAD_WIDTH, hidden=hidden)
    return replace(shape, depth=depth) if depth else shape


def build_vit(shape: VitShape, extra: str = "models") -> nn.Module:
    """An untrained network for one grey channel, without a head.

    Args:
        shape: What shapes it.
        extra: What the error names to be installed.

    Raises:
        DependencyError: If timm is missing.
    """
    with needs_package("timm", "A vision transformer", extra):
        from timm.layers.create_act import get_act_layer
        from timm.layers.mlp import SwiGLUPacked
        from timm.models.vision_transformer import VisionTransformer
    hidden = (shape.hidden or 4 * shape.width) * (2 if shape.gated else 1)
    gated = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU} if shape.gated else {}
    classed = shape.style != "siglip"
    network: nn.Module = VisionTransformer(
        **{
            "img_size": shape.side,
            "patch_size": shape.patch,
            "in_chans": 1,
            "num_classes": 0,
            "global_pool": "token" if classed else "map",
            "class_token": classed,
            "embed_dim": shape.width,
            "depth": shape.depth,
            "num_heads": shape.heads,
            "mlp_ratio": (hidden + 0.5) / shape.width,  # timm rounds the product down
            "init_values": 1.0 if shape.style == "dinov2" else None,
            "pre_norm": shape.style == "clip",
            "reg_tokens": shape.registers,
            "no_embed_class": shape.registers > 0,
            "norm_layer": functools.partial(nn.LayerNorm, eps=shape.eps),
            "act_layer": get_act_layer(ACTIVATIONS[shape.activation]),
            **gated,
        }
    )
    for unused in ("fc_norm", "head_drop", "head"):  # what stands behind the pooling is ours
        delattr(network, unused)
    return network


def tokens_of(body: nn.Module, x: Tensor) -> Tensor:
    """The tokens that a network makes of prepared images, after its last norm.

    Args:
        body: What `build_vit` gave.
        x: Shape (B, 1, S, S).

    Returns:
        Shape (B, N, D): of the class and of registers if there are any, then of the patches.
    """
    network: Any = body
    tokens: Tensor = network.forward_features(x)
    return tokens


def map_of(tokens: Tensor, shape: VitShape) -> Tensor:
    """The tokens of patches as a map (B, D, H, W)."""
    cells = shape.cells
    patches = tokens[:, tokens.shape[1] - cells * cells :]
    return patches.transpose(1, 2).reshape(len(tokens), -1, cells, cells)


_QKV: Final = ("query", "key", "value")
# Names within a block, as transformers' DINOv2 has them, and its two forms with text.
_DINOV2: Final = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attention.output.dense": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "mlp.weights_in": "mlp.fc1",
    "mlp.weights_out": "mlp.fc2",
}
CLIP_BLOCK: Final = {
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "self_attn.out_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_META: Final = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attn.qkv": "attn.qkv",
    "attn.proj": "attn.proj",
    "ls1.gamma": "ls1.gamma",
    "ls2.gamma": "ls2.gamma",
    "ls1.weight": "ls1.gamma",
    "ls2.weight": "ls2.gamma",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "mlp.w12": "mlp.fc1",
    "mlp.w3": "mlp.fc2",
}
_ENDS: Final = (".weight", ".bias", "")


def blocks_renamed(
    found: Mapping[str, Tensor],
    before: str,
    names: Mapping[str, str],
    *,
    qkv: tuple[str, str, str] | None = None,
    after: str = "blocks",
) -> dict[str, Tensor]:
    """Tensors of blocks under other names; queries, keys and values become one tensor.

    Args:
        found: All tensors of a file. What is not of a block, or has another name, stays.
        before: How the names of its blocks start, up to their number.
        names: Part of a block there to the one here.
        qkv: How the three layers of an attention are called there, where they are three.
        after: How the names of the blocks start here.

    Returns:
        The tensors; three parts of which one is missing keep their names.
    """
    named: dict[str, Tensor] = {}
    parts: dict[str, dict[int, str]] = {}
    for name, value in found.items():
        number, _, part = name.removeprefix(before).partition(".")
        if not name.startswith(before) or not number.isdecimal():
            named[name] = value
            continue
        end = next(e for e in _ENDS if part.endswith(e))
        bare = part.removesuffix(end)
        if qkv and bare in qkv:
            parts.setdefault(f"{after}.{number}.attn.qkv{end}", {})[qkv.index(bare)] = name
        elif part in names:  # a tensor of its own, such as a layer scale
            named[f"{after}.{number}.{names[part]}"] = value
        elif bare in names:
            named[f"{after}.{number}.{names[bare]}{end}"] = value
        else:
            named[name] = value
    for ours, places in parts.items():
        if len(places) == len(_QKV):
            named[ours] = torch.cat([found[places[i]] for i in range(len(_QKV))])
        else:
            named |= {name: found[name] for name in places.values()}
    return named


def _renamed(found: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Tensors of layers that are called otherwise; a layer has weight and bias."""
    named = {}
    for name, value in found.items():
        end = next(e for e in _ENDS if name.endswith(e))
        bare = name.removesuffix(end)
        ours = names.get(name) or (names[bare] + end if bare in names else name)
        named[ours] = value
    return named


def dinov2_names(found: Mapping[str, Tensor], shape: VitShape) -> dict[str, Tensor]:
    """Tensors as DINOv2's own code or transformers names them, under the names of timm.

    Args:
        found: Tensors of the image encoder, without any prefix.
        shape: Of the network.
    """
    if "embeddings.cls_token" in found:
        qkv = ("attention.attention.query", "attention.attention.key", "attention.attention.value")
        named = blocks_renamed(found, "encoder.layer.", _DINOV2, qkv=qkv)
        named = _renamed(
            named,
            {
                "embeddings.cls_token": "cls_token",
                "embeddings.mask_token": "mask_token",
                "embeddings.register_tokens": "register_tokens",
                "embeddings.position_embeddings": "pos_embed",
                "embeddings.patch_embeddings.projection": "patch_embed.proj",
                "layernorm": "norm",
            },
        )
    else:
        named = blocks_renamed(found, "blocks.", _META)
    named.pop("mask_token", None)  # stands for hidden patches in training
    if shape.registers and {"register_tokens", "cls_token", "pos_embed"} <= named.keys():
        # timm adds no positions to these tokens; that of the class is a constant.
        named["reg_token"] = named.pop("register_tokens")
        positions = named["pos_embed"]
        named["cls_token"] = named["cls_token"] + positions[:, :1]
        named["pos_embed"] = positions[:, 1:]
    return named


def clip_names(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the image half of transformers' CLIP or SigLIP, under the names of timm.

    Args:
        found: Tensors whose names start with `vision_model.`, without that.
    """
    qkv = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    named = _renamed(
        blocks_renamed(found, "encoder.layers.", CLIP_BLOCK, qkv=qkv),
        {
            "embeddings.class_embedding": "cls_token",
            "embeddings.position_embedding.weight": "pos_embed",
            "embeddings.patch_embedding": "patch_embed.proj",
            "pre_layrnorm": "norm_pre",  # the letter is missing there
            "post_layernorm": "norm",
            "head.probe": "attn_pool.latent",
            "head.attention.out_proj": "attn_pool.proj",
            "head.layernorm": "attn_pool.norm",
            "head.mlp.fc1": "attn_pool.mlp.fc1",
            "head.mlp.fc2": "attn_pool.mlp.fc2",
        },
    )
    named.pop("embeddings.position_ids", None)  # 0 to N, of older files
    for name, dims in (("cls_token", 1), ("pos_embed", 2)):
        if name in named and named[name].dim() == dims:
            named[name] = named[name].reshape(1, -1, named[name].shape[-1])
    for end in ("weight", "bias"):
        joint = named.pop(f"head.attention.in_proj_{end}", None)
        if joint is not None:
            width = len(joint) // 3
            named[f"attn_pool.q.{end}"] = joint[:width]
            named[f"attn_pool.kv.{end}"] = joint[width:]
    return named


def take_grey(named: dict[str, Tensor], shape: VitShape, facts: Preprocessing) -> None:
    """One kernel for grey in place of three for colours that are standardised one by one.

    Args:
        named: Tensors under the names of timm; changed.
        shape: Of the network.
        facts: How the release standardises colours; grey is by their means.
    """
    kernel = named.get("patch_embed.proj.weight")
    if kernel is None or kernel.dim() != 4 or kernel.shape[1] != 3:
        return  # of this package already, or for the strict load to refuse
    mean, deviation = facts.grey_mean, facts.grey_deviation
    exact = kernel.double()
    offsets = exact.new_tensor([(mean - m) / d for m, d in facts.colours()])
    scales = exact.new_tensor([deviation / d for _, d in facts.colours()])
    constant = torch.einsum("ocij,c->o", exact, offsets)
    grey = torch.einsum("ocij,c->oij", exact, scales)
    named["patch_embed.proj.weight"] = grey[:, None].to(kernel.dtype)
    name = "pos_embed" if shape.style == "clip" else "patch_embed.proj.bias"
    if name not in named:
        return
    value = named[name].double()
    if shape.style == "clip":  # its first layer has no bias; positions of patches are added next
        value = value.clone()
        value[:, 1:] += constant
    else:
        value = value + constant
    named[name] = value.to(kernel.dtype)

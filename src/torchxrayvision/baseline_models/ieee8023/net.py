"""VQGAN (Esser et al. 2021): a convolutional autoencoder whose code is words of a codebook.

The names of the layers are those of the published tensors. Their sizes are read off the tensors,
so no configuration file is needed beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from torch import Tensor, nn
from torch.nn import functional

from torchxrayvision.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

_GROUPS: Final = 32


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes of the network.

    Args:
        width: Channels of the first layer.
        channels: Channels of each level, finest first.
        encoder_blocks: Residual blocks of each level on the way down.
        decoder_blocks: The same on the way up.
        attention: For each level, whether attention follows each block.
        code: Channels of the map before and after the codebook.
        words: Number of words of the codebook.
        word: Length of each.
        image: Channels of the image.
        doubled: Whether the encoder gives twice the channels that the decoder takes.
    """

    width: int
    channels: tuple[int, ...]
    encoder_blocks: int
    decoder_blocks: int
    attention: tuple[bool, ...]
    code: int
    words: int
    word: int
    image: int = 3
    doubled: bool = False

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], source: str) -> Config:
        """Read the sizes off the tensors of a checkpoint.

        Args:
            tensors: By the names of the network.
            source: What the error calls the file.

        Raises:
            CheckpointError: If they are not those of such a network.
        """
        try:
            levels = _count(tensors, "encoder.down.{}.block.0.conv1.weight")
            outs = [f"encoder.down.{i}.block.0.conv2.weight" for i in range(levels)]
            words, word = tensors["quantize.embedding.weight"].shape
            code = tensors["decoder.conv_in.weight"].shape[1]
            first = tensors["encoder.conv_in.weight"]
            return cls(
                width=first.shape[0],
                channels=tuple(tensors[name].shape[0] for name in outs),
                encoder_blocks=_count(tensors, "encoder.down.0.block.{}.conv1.weight"),
                decoder_blocks=_count(tensors, "decoder.up.0.block.{}.conv1.weight"),
                attention=tuple(
                    f"encoder.down.{i}.attn.0.q.weight" in tensors for i in range(levels)
                ),
                code=code,
                words=words,
                word=word,
                image=first.shape[1],
                doubled=tensors["encoder.conv_out.weight"].shape[0] == 2 * code,
            )
        except (KeyError, ValueError, IndexError) as error:
            some = ", ".join(list(tensors)[:3]) or "no tensor at all"
            msg = f"{source}: not a VQGAN ({error} is missing or odd); it holds {some}, ..."
            raise CheckpointError(msg) from error


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    found = 0
    while pattern.format(found) in tensors:
        found += 1
    if not found:
        raise KeyError(pattern.format(0))
    return found


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(_GROUPS, channels, eps=1e-6)


def _conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(inputs), _conv(inputs, outputs)
        self.norm2, self.conv2 = _norm(outputs), _conv(outputs, outputs)
        self.nin_shortcut = _conv(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(functional.silu(self.norm1(x)))
        out = self.conv2(functional.silu(self.norm2(out)))
        result: Tensor = (x if self.nin_shortcut is None else self.nin_shortcut(x)) + out
        return result


class _Attention(nn.Module):
    """One head over all positions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q, self.k, self.v = (_conv(channels, channels, 1) for _ in range(3))
        self.proj_out = _conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        q, k, v = (layer(normed).flatten(2).mT for layer in (self.q, self.k, self.v))
        found = functional.scaled_dot_product_attention(q, k, v)
        result: Tensor = x + self.proj_out(found.mT.reshape(x.shape))
        return result


class _Down(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(functional.pad(x, (0, 1, 0, 1)))
        return out


class _Up(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class _Level(nn.Module):
    """Blocks of one resolution, each with attention behind it or not, then a change of size."""

    def __init__(self, widths: list[tuple[int, int]], attention: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(_Residual(*width) for width in widths)
        self.attn = nn.ModuleList(_Attention(out) for _, out in widths if attention)
        self.downsample: nn.Module | None = None
        self.upsample: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[index](x)
        for change in (self.downsample, self.upsample):
            x = x if change is None else change(x)
        return x


class _Middle(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = _Residual(channels, channels)
        self.attn_1 = _Attention(channels)
        self.block_2 = _Residual(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return out


class _Encoder(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        inputs, deepest = config.width, config.channels[-1]
        self.conv_in = _conv(config.image, inputs)
        self.down = nn.ModuleList()
        for outputs, attention in zip(config.channels, config.attention, strict=True):
            widths = [(inputs, outputs), *[(outputs, outputs)] * (config.encoder_blocks - 1)]
            self.down.append(_Level(widths, attention))
            inputs = outputs
        for level, width in zip(self.down[:-1], config.channels[:-1], strict=True):
            level.downsample = _Down(width)
        self.mid = _Middle(deepest)
        self.norm_out = _norm(deepest)
        self.conv_out = _conv(deepest, config.code * (2 if config.doubled else 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        out: Tensor = self.conv_out(functional.silu(self.norm_out(self.mid(x))))
        return out


class _Decoder(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        deepest = config.channels[-1]
        self.conv_in = _conv(config.code, deepest)
        self.mid = _Middle(deepest)
        inputs, levels = deepest, []
        for outputs, attention in zip(config.channels[::-1], config.attention[::-1], strict=True):
            widths = [(inputs, outputs), *[(outputs, outputs)] * (config.decoder_blocks - 1)]
            levels.append(_Level(widths, attention))
            inputs = outputs
        self.up = nn.ModuleList(levels[::-1])
        for level, width in zip(self.up[1:], config.channels[1:], strict=True):
            level.upsample = _Up(width)
        self.norm_out = _norm(inputs)
        self.conv_out = _conv(inputs, config.image)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
        out: Tensor = self.conv_out(functional.silu(self.norm_out(x)))
        return out


class _Codebook(nn.Module):
    def __init__(self, words: int, word: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, word)

    def indices(self, z: Tensor) -> Tensor:
        """The nearest word of each position, shape (B, H, W)."""
        words = self.embedding.weight
        # |z|² is the same for every word of a position, so the rest of |z - w|² decides.
        distance = words.square().sum(1) - 2 * z.movedim(1, -1) @ words.T
        return distance.argmin(-1)

    def forward(self, z: Tensor) -> Tensor:
        nearest: Tensor = self.embedding(self.indices(z)).movedim(-1, 1)
        # Rounding has no gradient; it is passed on as if nothing had been rounded.
        return z + (nearest - z).detach()


class Net(nn.Module):
    """Encoder, codebook and decoder.

    Args:
        config: The sizes.

    Source:
        Esser et al. Taming transformers for high-resolution image synthesis. CVPR 2021.
        https://arxiv.org/abs/2012.09841
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.encoder = _Encoder(config)
        self.decoder = _Decoder(config)
        self.quantize = _Codebook(config.words, config.word)
        self.quant_conv = _conv(config.code * (2 if config.doubled else 1), config.word, 1)
        self.post_quant_conv = _conv(config.word, config.code, 1)

    def encode(self, x: Tensor) -> Tensor:
        """Words (B, D, H, W) of images (B, C, S, S) in [-1, 1]."""
        out: Tensor = self.quantize(self.quant_conv(self.encoder(x)))
        return out

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, C, S, S), nominally in [-1, 1], of words."""
        out: Tensor = self.decoder(self.post_quant_conv(z))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Images of the words of images."""
        return self.decode(self.encode(x))

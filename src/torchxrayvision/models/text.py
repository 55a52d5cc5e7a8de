"""Text encoders of networks that compare images with texts, and their tokenisers.

Three forms are enough for the releases: CLIP's and SigLIP's transformers with the norm before each
part, and BERT's with the norm after it. They are written here, since a text is read once and a
library of every language model there is would be loaded for it. Tokenisers are files beside the
tensors, read by `tokenizers`; nothing of a release is executed.

Sources: Radford et al. Learning transferable visual models from natural language supervision. ICML
2021. https://arxiv.org/abs/2103.00020; Devlin et al. BERT. NAACL 2019.
https://arxiv.org/abs/1810.04805; Zhai et al. Sigmoid loss for language image pre-training. ICCV
2023. https://arxiv.org/abs/2303.15343
"""

from __future__ import annotations

import string
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from torchxrayvision.errors import CheckpointError, needs_package
from torchxrayvision.models.configuration import read_json
from torchxrayvision.models.vit import CLIP_BLOCK, blocks_renamed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Style = Literal["clip", "siglip", "bert"]


@dataclass(frozen=True, slots=True)
class TextShape:
    """What shapes a text encoder.

    Args:
        vocabulary: Number of tokens that it knows.
        positions: Most tokens of a text.
        width: Of a token.
        depth: Blocks.
        heads: Of each attention.
        hidden: Width within a block.
        style: Whose scheme it follows.
        activation: As transformers names it.
        eps: Of the norms.
    """

    vocabulary: int
    positions: int
    width: int
    depth: int
    heads: int
    hidden: int
    style: Style
    activation: str = "gelu"
    eps: float = 1e-5

    def smaller(self, width: int, depth: int) -> TextShape:
        """The same with another width and depth, 0 for its own; heads are 64 wide."""
        shape = replace(self, depth=depth or self.depth)
        if not width:
            return shape
        return replace(shape, width=width, heads=max(1, width // 64), hidden=4 * width)


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


class _Block(nn.Module):
    """Attention and two layers, each added to what came in; the norm stands before or after."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.after = shape.style == "bert"
        self.activation = shape.activation
        self.norm1 = nn.LayerNorm(shape.width, eps=shape.eps)
        self.attn = nn.ModuleDict(
            {
                "qkv": nn.Linear(shape.width, 3 * shape.width),
                "proj": nn.Linear(shape.width, shape.width),
            }
        )
        self.norm2 = nn.LayerNorm(shape.width, eps=shape.eps)
        self.mlp = nn.ModuleDict(
            {
                "fc1": nn.Linear(shape.width, shape.hidden),
                "fc2": nn.Linear(shape.hidden, shape.width),
            }
        )

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Tokens (B, N, D) to the same; True in `mask` is attended to."""
        if self.after:
            x = self.norm1(x + self._attended(x, mask))
            out: Tensor = self.norm2(x + self._widened(x))
            return out
        x = x + self._attended(self.norm1(x), mask)
        return x + self._widened(self.norm2(x))

    def _attended(self, x: Tensor, mask: Tensor | None) -> Tensor:
        batch, count, width = x.shape
        parts = self.attn["qkv"](x).reshape(batch, count, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.attn["proj"](mixed.transpose(1, 2).reshape(batch, count, width))
        return out

    def _widened(self, x: Tensor) -> Tensor:
        hidden = self.mlp["fc1"](x)
        if self.activation == "quick_gelu":
            hidden = _quick_gelu(hidden)
        else:
            form = "none" if self.activation == "gelu" else "tanh"
            hidden = functional.gelu(hidden, approximate=form)
        out: Tensor = self.mlp["fc2"](hidden)
        return out


class TextEncoder(nn.Module):
    """One vector per text.

    Args:
        shape: What shapes it.
    """

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.shape = shape
        self.token = nn.Embedding(shape.vocabulary, shape.width)
        self.position = nn.Parameter(torch.randn(shape.positions, shape.width) * 0.01)
        self.blocks = nn.ModuleList(_Block(shape) for _ in range(shape.depth))
        # BERT has a norm before its blocks, the others one behind them.
        self.norm = nn.LayerNorm(shape.width, eps=shape.eps)
        self.last = nn.Linear(shape.width, shape.width) if shape.style == "siglip" else None

    def forward(self, ids: Tensor, known: Tensor) -> Tensor:
        """Read texts.

        Args:
            ids: Tokens, shape (B, N), int64.
            known: Which of them are of the text and not filling, shape (B, N), bool.

        Returns:
            Shape (B, D).
        """
        style, count = self.shape.style, ids.shape[1]
        x = self.token(ids) + self.position[:count]
        mask = None  # SigLIP attends to the filling too, as it did in training
        if style == "bert":
            x, mask = self.norm(x), known[:, None, None]
        elif style == "clip":
            mask = torch.ones(count, count, dtype=torch.bool, device=ids.device).tril()
        for block in self.blocks:
            x = block(x, mask)
        x = x if style == "bert" else self.norm(x)
        if self.last is not None:
            pooled: Tensor = self.last(x[:, -1])
            return pooled
        end: Tensor = x[torch.arange(len(x), device=x.device), known.sum(1) - 1]  # of the text
        return end


_BERT_BLOCK: Final = {
    "attention.output.dense": "attn.proj",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "output.LayerNorm": "norm2",
}


def text_names(found: Mapping[str, Tensor], style: Style) -> dict[str, Tensor]:
    """Tensors of a text encoder as transformers names them, under the names of `TextEncoder`.

    Args:
        found: Without the prefix of the text encoder.
        style: Whose scheme it follows.
    """
    if style == "bert":
        qkv = ("attention.self.query", "attention.self.key", "attention.self.value")
        named = blocks_renamed(found, "encoder.layer.", _BERT_BLOCK, qkv=qkv)
        names = {
            "embeddings.word_embeddings.weight": "token.weight",
            "embeddings.position_embeddings.weight": "position",
            "embeddings.LayerNorm.weight": "norm.weight",
            "embeddings.LayerNorm.bias": "norm.bias",
        }
        types = named.get("embeddings.token_type_embeddings.weight")
        if types is not None and "embeddings.position_embeddings.weight" in named:
            # Every token of a single text is of the first type.
            del named["embeddings.token_type_embeddings.weight"]
            at = "embeddings.position_embeddings.weight"
            named[at] = named[at] + types[0]
        for unused in ("pooler.dense.weight", "pooler.dense.bias"):  # for another task
            named.pop(unused, None)
    else:
        qkv = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
        named = blocks_renamed(found, "encoder.layers.", CLIP_BLOCK, qkv=qkv)
        names = {
            "embeddings.token_embedding.weight": "token.weight",
            "embeddings.position_embedding.weight": "position",
            "final_layer_norm.weight": "norm.weight",
            "final_layer_norm.bias": "norm.bias",
            "head.weight": "last.weight",
            "head.bias": "last.bias",
        }
    named.pop("embeddings.position_ids", None)  # 0 to N, of older files
    return {names.get(name, name): value for name, value in named.items()}


# Start, end and filling of a text.
_MARKS: Final[dict[Style, tuple[str, str, str]]] = {
    "clip": ("<|startoftext|>", "<|endoftext|>", "<|endoftext|>"),
    "bert": ("[CLS]", "[SEP]", "[PAD]"),
    "siglip": ("", "</s>", "</s>"),
}
TOKENIZER_FILES: Final[dict[Style, tuple[str, ...]]] = {
    "clip": ("tokenizer.json", "vocab.json", "merges.txt"),
    "bert": ("tokenizer.json", "vocab.txt", "tokenizer_config.json"),
    "siglip": ("tokenizer.json",),
}
"""The files that `Tokens` looks for, of each form; the first is enough."""
_LONGEST: Final = 256  # tokens; a prompt has a few
_CLIP_WORDS: Final = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class Tokens:
    """Texts as the numbers that a text encoder takes.

    Args:
        shape: Of the text encoder.
        beside: Name of each file of the release to its path.

    Raises:
        CheckpointError: If the files are missing or of another tokeniser.
        DependencyError: If `tokenizers` is missing.
    """

    def __init__(self, shape: TextShape, beside: Mapping[str, Path]) -> None:
        self._shape = shape
        self._model = _tokenizer(shape.style, beside)
        self._model.no_truncation()
        self._model.no_padding()
        marks = [self._model.token_to_id(mark) if mark else -1 for mark in _MARKS[shape.style]]
        if None in marks or max(marks) >= shape.vocabulary:
            lacking = [m for m, i in zip(_MARKS[shape.style], marks, strict=True) if i is None]
            msg = f"the tokeniser beside the weights is another one: it lacks {lacking or marks}"
            raise CheckpointError(msg)
        self._start, self._end, self._filling = marks

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens and which of them are of the text.

        Args:
            texts: B texts.

        Returns:
            int64 and bool, both of shape (B, N).
        """
        style = self._shape.style
        longest = min(self._shape.positions, _LONGEST)
        rows = []
        for text in texts:
            plain = _without_punctuation(text) if style == "siglip" else text
            ids = self._model.encode(plain, add_special_tokens=False).ids
            room = longest - 1 - (self._start >= 0)
            rows.append([*([self._start] if self._start >= 0 else []), *ids[:room], self._end])
        count = longest if style == "siglip" else max(map(len, rows))
        known = torch.tensor([[True] * len(r) + [False] * (count - len(r)) for r in rows])
        padded = [row + [self._filling] * (count - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.int64), known


def _without_punctuation(text: str) -> str:
    """As SigLIP's texts are written: small letters, no punctuation, single spaces."""
    return " ".join(text.lower().translate(str.maketrans("", "", string.punctuation)).split())


def _tokenizer(style: Style, beside: Mapping[str, Path]) -> Any:
    with needs_package("tokenizers", "Comparing images with texts", "zero-shot"):
        import tokenizers
    path = beside.get("tokenizer.json")
    try:
        if path is not None:
            return tokenizers.Tokenizer.from_file(str(path))
        if style == "clip" and {"vocab.json", "merges.txt"} <= beside.keys():
            return _clip_tokenizer(beside["vocab.json"], beside["merges.txt"])
        if style == "bert" and "vocab.txt" in beside:
            return _bert_tokenizer(beside)
    except Exception as error:  # whatever the library makes of a damaged file
        raise CheckpointError(f"the tokeniser beside the weights: {str(error)[:200]}") from error
    wanted = " or ".join(
        [
            "tokenizer.json",
            *{"clip": ["vocab.json with merges.txt"], "bert": ["vocab.txt"]}.get(style, []),
        ]
    )
    msg = f"the weights need the tokeniser of their release beside them: {wanted}"
    raise CheckpointError(msg)


def _clip_tokenizer(vocabulary: Path, merges: Path) -> Any:
    """Byte pairs of words in small letters, each of which ends in `</w>`."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    words = models.BPE.from_file(
        str(vocabulary), str(merges), unk_token="<|endoftext|>", continuing_subword_prefix="",
        end_of_word_suffix="</w>", fuse_unk=False,
    )  # fmt: skip
    made = Tokenizer(words)
    made.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CLIP_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return made


def _bert_tokenizer(beside: Mapping[str, Path]) -> Any:
    """Pieces of words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    path = beside.get("tokenizer_config.json")
    lower = True if path is None else read_json(path).get("do_lower_case", True) is not False
    made = Tokenizer(models.WordPiece.from_file(str(beside["vocab.txt"]), unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lower)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made

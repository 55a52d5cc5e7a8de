"""Releases of encoders and zero-shot networks with made tensors, as their authors lay them out.

The tensors are those of the reference classes of transformers, with random seeded values, in a
safetensors file under the published names, which `save_pretrained` writes.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from torchxrayvision.files import sha256_of
from torchxrayvision.weights import Weights, get

SMALL = "-width64-depth2"
WIDTH, DEPTH = 64, 2


def stirred(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """A network none of whose tensors is as it was initialised: zeros and ones hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in network.parameters():
            spread = 0.05 if value.dim() < 2 else (2 / value[0].numel()) ** 0.5
            value.add_(torch.randn(value.shape, generator=generator) * spread)
    return network.eval()


def dinov2(registers: bool, *, full: str = "", **how: object) -> torch.nn.Module:
    """The reference class of RAD-DINO, or of CXformer with registers."""
    import transformers as t

    sizes = {"small": (384, 12, 6), "base": (768, 12, 12), "": (WIDTH, DEPTH, 1)}[full]
    how |= zip(("hidden_size", "num_hidden_layers", "num_attention_heads"), sizes, strict=True)
    name = "Dinov2WithRegisters" if registers else "Dinov2"
    config = getattr(t, f"{name}Config")(image_size=518, patch_size=14, **how)
    return stirred(getattr(t, f"{name}Model")(config))


def sizes(width: int = WIDTH, depth: int = DEPTH, heads: int = 1, hidden: int = 4 * WIDTH) -> dict:
    """Sizes of a transformer, under the names that transformers has for them."""
    return {
        "hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads,
        "intermediate_size": hidden,
    }  # fmt: skip


def clip(full: bool = False) -> torch.nn.Module:
    """The reference class of XrayCLIP."""
    import transformers as t

    text = sizes(512, 12, 8, 2048) if full else sizes()
    vision = sizes(768, 12, 12, 3072) if full else sizes()
    config = t.CLIPConfig(
        text_config={**text, "hidden_act": "gelu", "vocab_size": 49408,
                     "max_position_embeddings": 77},
        vision_config={**vision, "hidden_act": "gelu", "image_size": 512, "patch_size": 16},
        projection_dim=512,
    )  # fmt: skip
    return stirred(t.CLIPModel(config))


def siglip(full: bool = False) -> torch.nn.Module:
    """The reference class of MedSigLIP."""
    import transformers as t

    text = sizes(1152, 27, 16, 4304) if full else sizes()
    vision = sizes(1152, 27, 16, 4304) if full else sizes(hidden=240)
    act = {"hidden_act": "gelu_pytorch_tanh"}
    config = t.SiglipConfig(
        text_config={**text, **act, "vocab_size": 32000, "max_position_embeddings": 64},
        vision_config={**vision, **act, "image_size": 448, "patch_size": 14},
    )
    return stirred(t.SiglipModel(config))


class Chexficient(torch.nn.Module):
    """The two towers of CheXficient by the reference classes, put together as its code does."""

    def __init__(self, full: bool = False) -> None:
        super().__init__()
        import transformers as t

        shape = sizes(768, 12, 12, 3072) if full else sizes()
        images = {name: value for name, value in shape.items() if name != "intermediate_size"}
        self.image_encoder = stirred(
            t.Dinov2Model(t.Dinov2Config(**images, image_size=378, patch_size=14))
        )
        self.text_encoder = stirred(t.BertModel(t.BertConfig(**shape, vocab_size=28996)))
        width = shape["hidden_size"]
        self.image_projection = torch.nn.Linear(width, 512)
        self.text_projection = torch.nn.Linear(width, 512)
        self.logit_scale = torch.nn.Parameter(torch.tensor(3.1))

    def published(self, folder: Path) -> dict[str, torch.Tensor]:
        """Its tensors under the names of the authors' repository; a folder for its parts."""
        tensors = {}
        for part in ("image_encoder", "text_encoder"):
            # Classes of transformers save under other names than those of their modules.
            getattr(self, part).save_pretrained(folder / part)
            found = load_file(folder / part / "model.safetensors")
            tensors |= {f"{part}.model.{name}": value for name, value in found.items()}
        for part in ("image_projection", "text_projection"):
            found = getattr(self, part).state_dict()
            tensors |= {f"{part}.projection.{name}": value for name, value in found.items()}
        return tensors | {
            "logit_scale": self.logit_scale.detach(),
            "prototypes": torch.rand(32, 1024),
            "step_count": torch.zeros(1, dtype=torch.long),
        }

    def vectors(self, pixels, ids, known):
        """Vectors of images and texts, of length 1."""
        image = self.image_encoder(pixels).last_hidden_state[:, 0]
        text = self.text_encoder(ids, attention_mask=known).last_hidden_state
        text = text[torch.arange(len(text)), known.sum(1) - 1]
        both = self.image_projection(image), self.text_projection(text)
        return tuple(torch.nn.functional.normalize(one, dim=1) for one in both)


def put(
    name: str,
    content: dict[str, torch.Tensor] | Path,
    folder: Path,
    smaller: str = SMALL,
    **beside: object,
) -> Weights:
    """The entry of that name, a smaller network, with its files in a cache folder.

    Args:
        name: Of the published weights.
        content: Tensors under the published names, or the folder of `save_pretrained`.
        folder: The cache.
        smaller: What stands behind the name of its architecture.
        beside: Stem of a companion's name to what its JSON says.
    """
    entry = get(name)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / entry.file.filename
    if isinstance(content, Path):
        path.write_bytes((content / "model.safetensors").read_bytes())
    else:
        write_tensors(content, path)
    companions = []
    for file in entry.companions:
        said = beside.get(file.url.rpartition("/")[2].partition(".")[0])
        if said is None:
            continue
        place = folder / file.filename
        place.write_text(said if isinstance(said, str) else json.dumps(said), "utf-8")
        companions.append(dataclasses.replace(file, **facts_of(place)))
    return dataclasses.replace(
        entry,
        file=dataclasses.replace(entry.file, **facts_of(path)),
        companions=tuple(companions),
        architecture=entry.architecture + smaller,
    )


_DTYPES = {torch.float32: "F32", torch.int64: "I64"}


def write_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """A safetensors file, one tensor after the other: the largest release is 3.5 GB."""
    header, at = {}, 0
    for name, value in tensors.items():
        size = value.numel() * value.element_size()
        header[name] = {
            "dtype": _DTYPES[value.dtype], "shape": list(value.shape),
            "data_offsets": [at, at + size],
        }  # fmt: skip
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for value in tensors.values():
            file.write(value.detach().contiguous().numpy().tobytes())


def facts_of(path: Path) -> dict[str, object]:
    """SHA-256 and size of a file."""
    return {"sha256": sha256_of(path), "size": path.stat().st_size}


def pixels_of(entry: Weights, grey: torch.Tensor) -> torch.Tensor:
    """What the processor of a release makes of grey values in [0, 1]: three colours."""
    parts = [(grey - mean) / deviation for mean, deviation in entry.preprocessing.colours()]
    return torch.cat(parts, 1)


WORDS = ("pleural", "effusion", "edema", "no", "finding", "mass", "lung", "pulmonary")


def bert_tokenizer() -> str:
    """`vocab.txt` of a few words."""
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return "\n".join([*marks, *WORDS, "##s", "##ly"]) + "\n"


def clip_vocabulary() -> tuple[dict[str, int], str]:
    """`vocab.json` and `merges.txt` of a few words."""
    letters = sorted({letter for word in WORDS for letter in word})
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges = []
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            pair = f"{parts[0]} {parts[1]}"
            parts = [parts[0] + parts[1], *parts[2:]]
            if pair not in merges:
                merges.append(pair)
                vocabulary.append(parts[0])
    numbers = {token: i for i, token in enumerate(dict.fromkeys(vocabulary))}
    numbers |= {"<|startoftext|>": 49406, "<|endoftext|>": 49407}
    return numbers, "#version: 0.2\n" + "\n".join(merges) + "\n"


def siglip_tokenizer() -> str:
    """`tokenizer.json` of a few words, in pieces that know spaces."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0)]
    pieces += [(f"▁{word}", -1.0) for word in WORDS]
    pieces += [(letter, -5.0) for letter in "▁abcdefghijklmnopqrstuvwxyz"]
    made = Tokenizer(models.Unigram(pieces, unk_id=2))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    return made.to_str()


FINDINGS = ["Effusion", "Edema", "No Finding"]
ZERO_SHOT_RELEASES = ("chexficient", "xrayclip", "medsiglip-448")


def grey(side: int, count: int = 2, seed: int = 0) -> torch.Tensor:
    """Grey values in [0, 1]."""
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(seed))


class Released:
    """A release with made tensors, its network here and the reference classes.

    Args:
        name: Of the published weights.
        folder: For its files.
        full: Whether it has the sizes of the release; `reference` is gone then, since both would
            not fit in memory, and what it gave is in `expected_images` and `expected_texts`.
    """

    def __init__(self, name: str, folder: Path, full: bool = False) -> None:
        from torchxrayvision.models import ZeroShot

        self.folder = folder
        self.reference = _reference(name, full)
        chexficient = isinstance(self.reference, Chexficient)
        tensors = self.reference.published(folder) if chexficient else self.reference.state_dict()
        cache = folder / "cache"
        self.entry = put(name, tensors, cache, "" if full else SMALL, **_tokenizer(name))
        del tensors
        if full:
            self.values, self.texts = grey(self.entry.input_resolution, 1), ["pleural effusion"]
            ids, known = Released(name, folder / "small").model._tokens(self.texts)
            found = self._vectors(pixels_of(self.entry, self.values), ids, known)
            self.expected_images, self.expected_texts = found
            self.reference = None
        self.model = ZeroShot(self.entry, () if full else FINDINGS, cache_dir=str(cache))

    def expected(self, values: torch.Tensor, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors of images and texts by the reference classes, of length 1."""
        ids, known = self.model._tokens(texts)
        return self._vectors(pixels_of(self.entry, values), ids, known)

    def _vectors(self, pixels, ids, known):
        with torch.inference_mode():
            if isinstance(self.reference, Chexficient):
                return self.reference.vectors(pixels, ids, known)
            out = self.reference(
                pixel_values=pixels, input_ids=ids,
                attention_mask=known if self.reference.config.model_type == "clip" else None,
            )  # fmt: skip
        return out.image_embeds, out.text_embeds


def _reference(name: str, full: bool) -> torch.nn.Module:
    if name == "chexficient":
        torch.manual_seed(0)
        return Chexficient(full).eval()
    return clip(full) if name == "xrayclip" else siglip(full)


def _tokenizer(name: str) -> dict[str, object]:
    if name == "chexficient":
        return {"vocab": bert_tokenizer()}
    if name == "xrayclip":
        vocabulary, merges = clip_vocabulary()
        return {"vocab": json.dumps(vocabulary), "merges": merges}
    return {"tokenizer": siglip_tokenizer()}

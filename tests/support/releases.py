"""Releases of encoders and zero-shot networks with made tensors, as their authors lay them out.

The tensors are those of the reference classes of transformers, with random seeded values, in a
safetensors file under the published names, which `save_pretrained` writes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

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


def clip() -> torch.nn.Module:
    """The reference class of XrayCLIP."""
    import transformers as t

    common = {
        "hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": 1,
        "intermediate_size": 4 * WIDTH, "hidden_act": "gelu",
    }  # fmt: skip
    config = t.CLIPConfig(
        text_config={**common, "vocab_size": 49408, "max_position_embeddings": 77},
        vision_config={**common, "image_size": 512, "patch_size": 16}, projection_dim=512,
    )  # fmt: skip
    return stirred(t.CLIPModel(config))


def siglip() -> torch.nn.Module:
    """The reference class of MedSigLIP."""
    import transformers as t

    common = {
        "hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": 1,
        "hidden_act": "gelu_pytorch_tanh",
    }  # fmt: skip
    config = t.SiglipConfig(
        text_config={**common, "vocab_size": 32000, "max_position_embeddings": 64,
                     "intermediate_size": 4 * WIDTH},
        vision_config={**common, "image_size": 448, "patch_size": 14,
                       "intermediate_size": 240},
    )  # fmt: skip
    return stirred(t.SiglipModel(config))


class Chexficient(torch.nn.Module):
    """The two towers of CheXficient by the reference classes, put together as its code does."""

    def __init__(self) -> None:
        super().__init__()
        import transformers as t

        self.image_encoder = stirred(
            t.Dinov2Model(
                t.Dinov2Config(
                    hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=1,
                    image_size=378, patch_size=14,
                )
            )
        )  # fmt: skip
        self.text_encoder = stirred(
            t.BertModel(
                t.BertConfig(
                    vocab_size=28996, hidden_size=WIDTH, num_hidden_layers=DEPTH,
                    num_attention_heads=1, intermediate_size=4 * WIDTH,
                )
            )
        )  # fmt: skip
        self.image_projection = torch.nn.Linear(WIDTH, 512)
        self.text_projection = torch.nn.Linear(WIDTH, 512)
        self.logit_scale = torch.nn.Parameter(torch.tensor(3.1))

    def published(self, folder: Path) -> dict[str, torch.Tensor]:
        """Its tensors under the names of the authors' repository."""
        tensors = {}
        for part in ("image_encoder", "text_encoder"):
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


def put(name: str, content: dict[str, torch.Tensor] | Path, folder: Path, **beside) -> Weights:
    """The entry of that name, a smaller network, with its files in a cache folder.

    Args:
        name: Of the published weights.
        content: Tensors under the published names, or the folder of `save_pretrained`.
        folder: The cache.
        beside: Stem of a companion's name to what its JSON says.
    """
    entry = get(name)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / entry.file.filename
    if isinstance(content, Path):
        path.write_bytes((content / "model.safetensors").read_bytes())
    else:
        save_file({k: v.contiguous() for k, v in content.items()}, path)
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
        architecture=entry.architecture + SMALL,
    )


def facts_of(path: Path) -> dict[str, object]:
    content = path.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


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

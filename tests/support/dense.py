"""What the golden records of segmentation networks and autoencoders hold, and how to make one.

The recorder runs this in an environment with 1.5.7, the tests in this project's: the same code
makes inputs and records on both sides, so a record is compared with a record.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from support.synthetic import fill, film

# Where a logit is this near to 0, or two structures this near to each other, rounding decides.
TIE = 1e-4
_SAMPLES = 16

# Two small networks of the kinds of the two releases: four and three levels, words of two lengths.
VQGANS = {
    "sd": {
        "resolution": 64,
        "ch_mult": (1, 1, 2, 4),
        "num_res_blocks": 2,
        "z_channels": 8,
        "embed_dim": 8,
        "n_embed": 32,
    },
    "msdd": {
        "resolution": 96,
        "ch_mult": (2, 1, 3),
        "num_res_blocks": 1,
        "z_channels": 6,
        "embed_dim": 10,
        "n_embed": 50,
    },
}


def vqgan_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Synthetic tensors with words as large as what is rounded to them."""
    state = {name: torch.from_numpy(value) for name, value in fill(shapes).items()}
    state["quantize.embedding.weight"] = state["quantize.embedding.weight"] * 2
    return state


def lightning(state: dict[str, torch.Tensor]) -> dict:
    """A checkpoint as Lightning writes it, with what only training uses."""
    loss = {"loss.discriminator.main.0.weight": torch.zeros(3), "loss.logvar": torch.zeros(())}
    return {"epoch": 1, "global_step": 5, "state_dict": {**state, **loss}, "callbacks": {}}


def images(count: int, size: int) -> torch.Tensor:
    """Different radiograph-like pictures, shape (B, 1, S, S) in [-1024, 1024]."""
    films = [film(size, size, seed).astype(np.float32) for seed in range(1, count + 1)]
    return torch.from_numpy(np.stack(films)[:, None] / 255 * 2048 - 1024)


def state_of(
    network: torch.nn.Module, prefix: str = "", residual: str = ".bn3."
) -> dict[str, torch.Tensor]:
    """Synthetic tensors for every name of the network, under a prefix."""
    shapes = {name: tuple(v.shape) for name, v in network.state_dict().items()}
    values = fill(shapes, residual=residual)
    return {prefix + name: torch.from_numpy(value) for name, value in values.items()}


def record_image(values: torch.Tensor) -> dict:
    """Sums and samples of each image of a batch, shape (B, ...)."""
    flat = values.detach().double().flatten(1)
    stride = max(1, flat.shape[1] // _SAMPLES)
    # An odd offset walks through rows and columns instead of along one of them.
    samples = flat[:, stride // 3 :: stride][:, :_SAMPLES]
    return {
        "shape": list(values.shape),
        "mean": flat.mean(1).tolist(),
        "size": flat.abs().mean(1).tolist(),
        "samples": samples.tolist(),
    }


def record_logits(logits: torch.Tensor) -> dict:
    """The same, with digests of the masks and of the largest structure of each pixel.

    Ties, where rounding would decide, are listed by position and left out of the digests.
    """
    record = record_image(logits)
    thin = thinned(logits)
    top = thin.topk(2, dim=1).values
    near = {"mask": thin.abs() < TIE, "argmax": (top[:, 0] - top[:, 1]) < TIE}
    for name, ties in near.items():
        record[f"{name}_ties"] = ties.flatten().nonzero().flatten().tolist()
        record[f"{name}_digest"] = digest(thin, name, record[f"{name}_ties"])
    return record


def thinned(logits: torch.Tensor) -> torch.Tensor:
    """Every fourth row and column of large maps, so that the list of ties stays short."""
    return logits[:, :, 1::4, 1::4] if logits[0].numel() > 2**21 else logits


def digest(logits: torch.Tensor, name: str, ties: list[int]) -> str:
    """SHA-256 of the masks or of the largest structures, without the listed positions."""
    found = (logits > 0) if name == "mask" else logits.argmax(1)
    flat = found.flatten().to(torch.uint8).clone()
    flat[ties] = 0
    return hashlib.sha256(flat.numpy().tobytes()).hexdigest()


def differences(ours: dict, golden: dict) -> float:
    """The largest difference between two records of values, relative to their mean size."""
    assert ours["shape"] == golden["shape"]
    scale = max(golden["size"])
    worst = 0.0
    for key in ("mean", "size", "samples"):
        a, b = np.array(ours[key]), np.array(golden[key])
        worst = max(worst, float(np.abs(a - b).max()))
    return worst / scale


def assert_same_masks(logits: torch.Tensor, golden: dict) -> None:
    """The same masks and the same largest structure in every pixel that rounding cannot decide."""
    thin = thinned(logits)
    for name in ("mask", "argmax"):
        assert digest(thin, name, golden[f"{name}_ties"]) == golden[f"{name}_digest"], name

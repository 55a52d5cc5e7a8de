"""From logits to the number a reader wants, a probability or one relative to an operating point."""

from __future__ import annotations

from typing import Final, Literal, get_args

import torch
from torch import Tensor

from torchxrayvision.errors import ImageShapeError, UnknownNameError

__all__ = ["OUTPUT_KINDS", "OutputKind", "calibrate", "check_output_kind", "op_norm"]

OutputKind = Literal["logit", "probability", "operating-point"]
OUTPUT_KINDS: Final[tuple[str, ...]] = get_args(OutputKind)


def check_output_kind(kind: str) -> OutputKind:
    """Return the kind, or say which kinds there are.

    Args:
        kind: The word as the caller gave it.

    Raises:
        UnknownNameError: If it is not one of `OUTPUT_KINDS`.
    """
    if kind == "logit":
        return "logit"
    if kind == "probability":
        return "probability"
    if kind == "operating-point":
        return "operating-point"
    raise UnknownNameError("output kind", kind, OUTPUT_KINDS)


def op_norm(outputs: Tensor, op_threshs: Tensor) -> Tensor:
    """Rescale probabilities so that each finding's operating point lies at 0.5.

    Linear on both sides of the operating point t: p / 2t below it, 1 - (1 - p) / 2(1 - t) above.
    An untrained output has no operating point (NaN) and gives 0.5.

    Args:
        outputs: Probabilities in [0, 1], shape (B, P) or (P,).
        op_threshs: Operating points in (0, 1) or NaN, shape (P,).

    Returns:
        Values in [0, 1], shape and dtype of `outputs`.

    Raises:
        ImageShapeError: If the last axes differ.

    Example:
        >>> op_norm(torch.tensor([0.1, 0.6]), torch.tensor([0.2, float("nan")]))
        tensor([0.2500, 0.5000])

    Source:
        Cohen et al. Chester: a web delivered locally computed chest X-ray disease prediction
        system. 2019. https://arxiv.org/abs/1901.11210
    """
    if outputs.shape[-1] != op_threshs.shape[-1]:
        msg = (
            f"{outputs.shape[-1]} outputs do not match {op_threshs.shape[-1]} operating points; "
            "after replacing the classifier set op_threshs = None or use reset_classifier(n)"
        )
        raise ImageShapeError(msg)
    points = op_threshs.to(device=outputs.device, dtype=outputs.dtype)
    untrained = torch.isnan(points)
    # NaN in an unused branch of `where` would still poison the gradient, so it is replaced first.
    points = torch.where(untrained, 0.5, points)
    below = outputs / (points * 2)
    above = 1.0 - (1.0 - outputs) / ((1.0 - points) * 2)
    return torch.where(untrained, 0.5, torch.where(outputs < points, below, above))


def calibrate(logits: Tensor, kind: OutputKind, op_threshs: Tensor | None) -> Tensor:
    """Turn logits into the kind of output that was asked for.

    Args:
        logits: Shape (B, P).
        kind: `"logit"`, `"probability"` or `"operating-point"`.
        op_threshs: Operating points, shape (P,); needed for `"operating-point"` only.

    Returns:
        Shape and dtype of `logits`.

    Raises:
        ValueError: If operating points are asked for and there are none.
    """
    if kind == "logit":
        return logits
    probability = torch.sigmoid(logits)
    if kind == "probability":
        return probability
    if op_threshs is None:
        msg = (
            "output='operating-point' needs operating points and this model has none; "
            "ask for 'probability', or pass op_threshs"
        )
        raise ValueError(msg)
    return op_norm(probability, op_threshs)

"""Which engine runs a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchxrayvision.inference._engine import Engine, TorchEngine

if TYPE_CHECKING:
    from torchxrayvision.models import OutputKind, XRayClassifier

__all__ = ["Choice", "choose_engine", "open_engine"]


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine and its arithmetic; the same choice gives the same numbers.

    Args:
        engine: Its name.
        arithmetic: `"float32"`, `"bfloat16"` or `"float16"`.
    """

    engine: str
    arithmetic: str


def choose_engine(
    model: XRayClassifier,
    kind: OutputKind,
    batch_size: int,
    engine: str,
    precision: str,
    images: int,
) -> Choice:
    return Choice("torch", "float32")


def open_engine(model: XRayClassifier, kind: OutputKind, batch_size: int, choice: Choice) -> Engine:
    return TorchEngine(model, kind, batch_size)

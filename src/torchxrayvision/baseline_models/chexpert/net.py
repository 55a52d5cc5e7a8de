"""One network of the ensemble, and which of its outputs count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch import nn

from torchxrayvision.baseline_models.published import densenet121_features
from torchxrayvision.models import pooled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

TARGETS: Final = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion")
TASKS: Final = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Lesion", "Lung Opacity",
    "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
"""The labels of CheXpert in the order of its tables."""


_CHANNELS: Final = 1024  # of DenseNet-121


@dataclass(frozen=True)
class Group:
    """Members that were trained alike, and the findings that the ensemble takes from them.

    Args:
        tasks: Findings under the names of CheXpert.
        three_class: Whether a finding has the outputs negative, uncertain and positive of which
            the last two are weighed against each other, or a single one.
        run: What its training did with uncertain labels; part of the names of its files.
    """

    tasks: tuple[str, ...]
    three_class: bool
    run: str

    def rows(self, task_sequence: Mapping[str, int]) -> list[int]:
        """The outputs that count, in the order of `tasks`.

        Args:
            task_sequence: The place of each finding among those a member was trained on.
        """
        places = [task_sequence[task] for task in self.tasks]
        if self.three_class:
            return [row for place in places for row in (3 * place + 1, 3 * place + 2)]
        return places


GROUPS: Final = (
    Group(("Atelectasis", "Edema"), three_class=False, run="ones"),
    Group(("Cardiomegaly", "Pleural Effusion"), three_class=True, run="3-class"),
    Group(("Consolidation",), three_class=False, run="self-train"),
)


class Member(nn.Module):
    """A DenseNet-121 that gives the probabilities of its group's findings.

    Args:
        group: The group it belongs to.
        outputs: Number of its outputs, of which only some count.
    """

    rows: Tensor

    def __init__(self, group: Group, outputs: int) -> None:
        super().__init__()
        self.three_class = group.three_class
        self.features = densenet121_features()
        self.classifier = nn.Linear(_CHANNELS, outputs)
        count = len(group.tasks) * (2 if group.three_class else 1)
        self.register_buffer("rows", torch.zeros(count, dtype=torch.int64))

    @staticmethod
    def width() -> int:
        """Number of features that `embed` gives."""
        return _CHANNELS

    def embed(self, x: Tensor) -> Tensor:
        """Pooled features (B, 1024) of a prepared input."""
        return pooled(self.features, x)

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities, shape (B, findings of the group), of a prepared input."""
        return self.probabilities(self.embed(x))

    def probabilities(self, features: Tensor) -> Tensor:
        """Probabilities, shape (B, findings of the group), of pooled features (B, 1024)."""
        counted = self.classifier(features).index_select(1, self.rows)
        if not self.three_class:
            return torch.sigmoid(counted)
        pairs = counted.reshape(counted.shape[0], -1, 2)
        return torch.softmax(pairs, 2)[..., 1]

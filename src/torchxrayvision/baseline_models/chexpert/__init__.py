"""Five findings by an ensemble of the CheXpert authors, from a zip that the user downloads.

Example:
    >>> from torchxrayvision.baseline_models import chexpert
    >>> chexpert.DenseNet(weights_zip=None, num_models=1).targets
    ['Atelectasis', 'Cardiomegaly', 'Consolidation', 'Edema', 'Effusion']
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import torch
from torch import nn

from torchxrayvision.baseline_models.chexpert.archive import MODELS, Archive
from torchxrayvision.baseline_models.chexpert.net import GROUPS, TARGETS, TASKS, Member
from torchxrayvision.errors import CheckpointError, UnknownNameError
from torchxrayvision.models import XRayClassifier, register_stand_ins
from torchxrayvision.weights import get as get_entry
from torchxrayvision.weights import warn_of_terms

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from torch import Tensor

    from torchxrayvision.models import ResizeRoute

__all__ = ["DenseNet"]

WEIGHTS = "chexpert-densenet121-ensemble"
_KEEPING = ("memory", "zip")


register_stand_ins(f"{__name__}.model")


class DenseNet(XRayClassifier):
    """Five findings by up to ninety DenseNet-121, thirty for each of three groups, on 320 pixels.

    Each group of members was trained with another treatment of uncertain labels, and answers for
    the findings for which that was best; probabilities are means over a group.

    Args:
        weights_zip: The zip of checkpoints; None for untrained members.
        num_models: Members to take of each group, 1 to 30.
        keep: `"memory"` reads all members once, at 28 MB each. `"zip"` reads them again for each
            batch, one at a time, so that memory holds one; the model has no parameters then, and
            what gradients to the input need is kept for all members nevertheless.
        output: What `forward` gives by default, `"probability"` (as in 1.5.7) or `"logit"`, that
            of the mean probability.
        resize_route: How inputs are brought to 320 pixels, see `XRayModel`.

    Raises:
        UnknownNameError: If an argument has a value that does not exist.
        CheckpointError: If the zip is missing, or holds other members or tensors.

    Example:
        >>> model = DenseNet(weights_zip=None, num_models=1)
        >>> model.features(torch.full((1, 1, 64, 64), -1024.0)).shape
        torch.Size([1, 3072])

    Source:
        Irvin et al. CheXpert: a large chest radiograph dataset with uncertainty labels and expert
        comparison. AAAI 2019. https://arxiv.org/abs/1901.07031. The files:
        https://academictorrents.com/details/5c7ee21e6770308f2d2b4bd829e896dbd9d3ee87
    """

    targets = list(TARGETS)  # noqa: RUF012 - a list, as in 1.5.7
    kinds: ClassVar = ("probability", "logit")
    raw_kind: ClassVar = "probability"
    default_kind: ClassVar = "probability"
    predicted_kind: ClassVar = "probability"
    takes_planes: ClassVar = True
    label: ClassVar = "CheXpert-DenseNet121-ensemble"

    def __init__(
        self,
        weights_zip: str | os.PathLike[str] | None = "",
        num_models: int = MODELS,
        *,
        keep: Literal["memory", "zip"] = "memory",
        output: str | None = None,
        resize_route: ResizeRoute = "antialias",
    ) -> None:
        _check(weights_zip, num_models, keep)
        super().__init__(
            targets=TARGETS,
            input_resolution=320,
            output=output,
            resize_route=resize_route,
        )
        self.weights_zip = "" if weights_zip is None else str(weights_zip)
        self.num_models = num_models
        self._archive: Archive | None = None
        self.members = nn.ModuleList()
        if weights_zip is None:
            self.members.extend(_untrained(num_models))
            return
        archive = Archive(Path(weights_zip), num_models)
        if keep == "zip":
            archive.read(
                *archive.members[0]
            )  # a wrong file is refused here, not at the first image
            self._archive = archive
        else:
            self.members.extend(archive.read(*member) for member in archive.members)
        self.weights = WEIGHTS
        self.weights_filename_local = str(weights_zip)
        self.eval()
        warn_of_terms(get_entry(WEIGHTS))

    def _each(self, x: Tensor) -> Iterator[Member]:
        """Every member, group by group, where the input is."""
        if self._archive is None:
            yield from cast("Iterator[Member]", iter(self.members))
            return
        for member in self._archive.members:
            yield self._archive.read(*member).to(device=x.device, dtype=x.dtype)

    def _rescale(self, x: Tensor) -> Tensor:
        return (x / 512).expand(-1, 3, -1, -1)

    def _embed(self, x: Tensor) -> Tensor:
        return torch.cat([member.embed(x) for member in self._each(x)], 1)

    def embed(self, x: Tensor) -> Tensor:
        """Pooled features of all members, group by group.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].

        Returns:
            Shape (B, 3 * num_models * 1024).
        """
        return super().embed(x)

    features = embed

    @property
    def features_width(self) -> int:
        """Number of features that `embed` gives, D."""
        held = (cast("Member", member).classifier.in_features for member in self.members)
        return len(GROUPS) * self.num_models * next(held, Member.width())

    def _features_and_raw(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # In one pass: with keep="zip" each member is read for it.
        features, sums = [], []
        for index, member in enumerate(self._each(x)):
            seen = member.embed(x)
            features.append(seen)
            probabilities = member.probabilities(seen)
            if index % self.num_models == 0:
                sums.append(probabilities)
            else:
                sums[-1] = sums[-1] + probabilities
        atelectasis_edema, cardiomegaly_effusion, consolidation = sums
        columns = [
            atelectasis_edema[:, 0],
            cardiomegaly_effusion[:, 0],
            consolidation[:, 0],
            atelectasis_edema[:, 1],
            cardiomegaly_effusion[:, 1],
        ]
        return torch.cat(features, 1), torch.stack(columns, 1) / self.num_models


def _check(weights_zip: object, num_models: int, keep: str) -> None:
    if weights_zip == "":
        msg = (
            "the ensemble is not downloaded by itself: get the zip of 2.5 GB from "
            "https://academictorrents.com/details/5c7ee21e6770308f2d2b4bd829e896dbd9d3ee87 "
            f"or with torchxrayvision.weights.fetch_weights({WEIGHTS!r}), and pass weights_zip=PATH"
        )
        raise CheckpointError(msg)
    if num_models not in range(1, MODELS + 1):
        raise UnknownNameError("num_models", num_models, map(str, range(1, MODELS + 1)))
    if keep not in _KEEPING:
        raise UnknownNameError("keep", keep, _KEEPING)


def _untrained(num_models: int) -> Iterator[Member]:
    sequence = {task: place for place, task in enumerate(TASKS)}
    for group in GROUPS:
        for _ in range(num_models):
            member = Member(group, len(TASKS) * (3 if group.three_class else 1))
            member.rows.copy_(torch.tensor(group.rows(sequence)))
            yield member

"""The zip of ninety checkpoints, read one member at a time."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from torchxrayvision.baseline_models.chexpert.net import GROUPS, Group, Member
from torchxrayvision.checkpoints import (
    DEFAULT,
    Unreadable,
    ZipReader,
    read_tensors,
    state_dict_of,
    strip_prefix,
)
from torchxrayvision.errors import CheckpointError
from torchxrayvision.models import load_strictly

if TYPE_CHECKING:
    from torchxrayvision.checkpoints import Checkpoint

MODELS: Final = 30
"""Members of each group."""
_MEMBER_BYTES: Final = 1 << 30
_STEP: Final = 4800
# Checkpoints of the ten best of each of three runs a group, best first: the iteration in units of
# 4800, which is how often the authors saved one.
# fmt: off
_ITERATIONS: Final = {
    "ones": (
        (70, 80, 53, 57, 97, 75, 133, 98, 118, 79),
        (69, 70, 138, 123, 61, 85, 12, 93, 82, 99),
        (134, 106, 34, 122, 90, 119, 91, 138, 70, 40),
    ),
    "3-class": (
        (136, 73, 84, 41, 79, 112, 17, 124, 107, 120),
        (71, 72, 97, 138, 127, 117, 110, 68, 115, 131),
        (28, 139, 104, 69, 48, 135, 122, 117, 92, 98),
    ),
    "self-train": (
        (21, 66, 97, 80, 89, 112, 86, 23, 65, 109),
        (119, 61, 101, 116, 72, 77, 55, 98, 37, 85),
        (65, 137, 106, 86, 55, 72, 33, 124, 123, 139),
    ),
}
# fmt: on


def member_names(group: Group) -> list[str]:
    """The thirty members of a group, in the order in which 1.5.7 takes them.

    Example:
        >>> member_names(GROUPS[0])[0]
        'saved/DenseNet121_320_1e-04_uncertainty_ones_top10/iter_336000.pth.tar'
    """
    return [
        f"saved/DenseNet121_320_1e-04_uncertainty_{group.run}_top10{suffix}/"
        f"iter_{_STEP * iteration}.pth.tar"
        for suffix, run in zip(("", "_2", "_3"), _ITERATIONS[group.run], strict=True)
        for iteration in run
    ]


@dataclass(frozen=True)
class Archive:
    """Part of the ensemble in its zip; holds a path, and no file open.

    Args:
        path: The zip.
        num_models: Members to take of each group.
    """

    path: Path
    num_models: int

    @property
    def members(self) -> list[tuple[Group, str]]:
        """Group and name of every member, group by group."""
        return [
            (group, name) for group in GROUPS for name in member_names(group)[: self.num_models]
        ]

    def read(self, group: Group, name: str) -> Member:
        """One member, with its tensors, in evaluation mode.

        Raises:
            CheckpointError: If the zip or the member cannot be read, or holds another network.
        """
        where = f"{self.path}, member {name}"
        with tempfile.TemporaryDirectory(prefix="torchxrayvision-") as folder:
            extracted = Path(folder, "member.pth.tar")
            extracted.write_bytes(self._bytes(name))
            try:
                return _built(group, read_tensors(extracted), where)
            except CheckpointError as error:
                if str(extracted) not in str(error):
                    raise
                reason = str(error).replace(str(extracted), where)
                raise CheckpointError(reason) from None

    def _bytes(self, name: str) -> bytearray:
        try:
            with self.path.open("rb") as file:
                reader = ZipReader(file, self.path.stat().st_size, DEFAULT)
                if name not in reader.members:
                    some = ", ".join(list(reader.members)[:2]) or "nothing"
                    raise Unreadable(f"lacks the member {name!r}; it holds {some}, ...")
                return reader.read(reader.members[name], _MEMBER_BYTES)
        except Unreadable as error:
            raise CheckpointError(f"{self.path}: {error}") from None
        except OSError as error:
            raise CheckpointError(f"{self.path}: {error.strerror or error}") from error


def _built(group: Group, checkpoint: Checkpoint, where: str) -> Member:
    tensors = strip_prefix(state_dict_of(checkpoint), "model.")
    sequence = _task_sequence(checkpoint.values, group, where)
    outputs = len(sequence) * (3 if group.three_class else 1)
    tensors["rows"] = torch.tensor(group.rows(sequence))
    with torch.device("meta"):
        member = Member(group, outputs)
    load_strictly(member, tensors, source=where)
    return member.eval()


def _task_sequence(values: dict[str, Any], group: Group, where: str) -> dict[str, int]:
    """Finding to its place, checked: a wrong place would be another finding's output."""
    found = values.get("task_sequence")
    if (
        not isinstance(found, dict)
        or sorted(map(str, found.values())) != sorted(map(str, range(len(found))))
        or not set(group.tasks) <= found.keys()
    ):
        msg = f"{where}: expected a task_sequence that numbers {group.tasks}, got {found!r:.200}"
        raise CheckpointError(msg)
    return {task: int(place) for task, place in found.items()}

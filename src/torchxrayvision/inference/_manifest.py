"""The list of images of a run, kept on disk: any number of them, the same after every restart."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from torchxrayvision.inference._archives import Member
from torchxrayvision.inference._sources import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Manifest", "read_lines", "read_manifest", "unpack", "write_manifest"]

_SAY_EVERY: Final = 1000


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a list holds.

    Args:
        count: Images.
        digest: SHA-256 of their names in order; the same on every machine that sees the same files.
    """

    count: int
    digest: str


def _pack(source: Source) -> str:
    """One line. Absent parts are left out, so that most lines are a name and nothing else."""
    path = os.fspath(source.path)
    entry: dict[str, Any] = {"g": source.given}
    if path != source.given:
        entry["p"] = path
    if source.member is not None:
        entry["m"] = source.member.to_list()
    if source.problem:
        entry["e"] = source.problem
    # ASCII: names that are not UTF-8 survive as lone surrogates, and no name breaks the line.
    return json.dumps(entry, separators=(",", ":"))


def unpack(line: str) -> Source:
    """The image that a line of a list stands for.

    Args:
        line: From `read_lines`.
    """
    entry = json.loads(line)
    member = Member.from_list(entry["m"]) if "m" in entry else None
    given = entry["g"]
    return Source(Path(entry.get("p", given)), given, member, entry.get("e", ""))


def write_manifest(
    path: Path, sources: Iterable[Source], on_found: Callable[[int], None] | None = None
) -> Manifest:
    """Write a list; it is on disk, whole, when this returns.

    Args:
        path: The file.
        sources: Consumed one by one.
        on_found: Called now and then with the number of images so far.
    """
    digest = hashlib.sha256()
    count = 0
    with path.open("w", encoding="ascii", newline="\n") as file:
        for source in sources:
            file.write(_pack(source) + "\n")
            # Times and offsets stay out: copies of one archive differ in them.
            digest.update(f"{source.given}\0{source.problem}\0".encode())
            count += 1
            if on_found is not None and count % _SAY_EVERY == 0:
                on_found(count)
        file.flush()
        os.fsync(file.fileno())
    return Manifest(count, digest.hexdigest())


def read_manifest(path: Path, first: int = 0, stop: int | None = None) -> Iterator[Source]:
    """The images of a list, one by one.

    Args:
        path: The file.
        first: Position of the first one wanted, from 0.
        stop: Position after the last one; None for all.
    """
    return map(unpack, read_lines(path, first, stop))


def read_lines(path: Path, first: int = 0, stop: int | None = None) -> Iterator[str]:
    """The images of a list, as lines for `unpack` to read elsewhere.

    Args:
        path: The file.
        first: See `read_manifest`.
        stop: See `read_manifest`.
    """
    with path.open(encoding="ascii", newline="\n") as file:
        yield from itertools.islice(file, first, stop)

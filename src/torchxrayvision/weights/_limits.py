"""What a checkpoint may ask of the reader, and the refusal that ends a reading."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT", "Limits", "Refused"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds that hold before memory is taken or time is spent.

    The defaults leave room for a checkpoint of several gigabytes with its optimiser, and
    stop a crafted one within about two seconds and a few hundred megabytes.

    Args:
        file_bytes: Size of the file.
        pickle_bytes: Bytes of text and binary values in the object stream (tensors lie outside it).
        text_bytes: Bytes of one string in the object stream.
        operations: Steps of the object stream, and again of the walk over its objects.
        depth: Nesting of containers.
        tensors: Number of tensors, and of storages.
        members: Number of members of a zip archive.
        copied_bytes: Bytes that may be copied beyond what the file itself holds: to lay out strided
            tensors, to expand broadcast ones, to inflate compressed members.

    Example:
        >>> Limits(pickle_bytes=256 << 20).pickle_bytes
        268435456
    """

    file_bytes: int = 16 << 30
    pickle_bytes: int = 32 << 20
    text_bytes: int = 4 << 20
    operations: int = 1_000_000
    depth: int = 500
    tensors: int = 50_000
    members: int = 100_000
    copied_bytes: int = 64 << 20


DEFAULT = Limits()


class Refused(Exception):  # noqa: N818 - a signal inside the reader, turned into CheckpointError
    """The reason why a file is not read, one clause without the file's name."""

"""The members of a zip archive, from its central directory, with nothing taken on trust.

Only what torch writes is read: one disk, stored or deflated members, no encryption.
Format: APPNOTE.TXT 6.3.10, sections 4.3 to 4.5.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from torchxrayvision.weights._limits import Limits, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Member", "ZipReader"]

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MAX_COMMENT = 0xFFFF
_MAX_NAME = 1024
_MAX_DIRECTORY = 64 << 20
_ENCRYPTED = 0x0001 | 0x0040 | 0x2000
_STORED, _DEFLATED = 0, 8
_CHUNK = 1 << 20


@dataclass(slots=True)
class Member:
    """One member: where its header is, its sizes, and where the next one starts."""

    name: str
    header: int
    packed: int
    size: int
    method: int
    crc: int
    end: int = 0


class ZipReader:
    """Reads the members of an archive whose headers agree with each other.

    Args:
        file: The archive.
        size: Its bytes.
        limits: Bounds on the number of members and on what deflated ones may inflate to.

    Raises:
        Refused: If the directory is damaged, ambiguous, encrypted, or too large.
    """

    def __init__(self, file: BinaryIO, size: int, limits: Limits) -> None:
        self._file = file
        self._size = size
        self._inflate = max(limits.copied_bytes, 8 * size)
        self.members: dict[str, Member] = {}
        offset, length, count = self._locate_directory()
        if count > limits.members:
            raise Refused(f"a zip archive of {count} members; the limit is {limits.members}")
        for member in self._entries(self._at(offset, length), count):
            if member.name in self.members:
                raise Refused(f"a zip archive with two members {member.name[:80]!r}")
            self.members[member.name] = member
        self._bound(offset)

    def _at(self, offset: int, count: int) -> bytes:
        self._file.seek(offset)
        data = self._file.read(count)
        if len(data) != count:
            raise Refused("a zip archive that is cut short")
        return data

    def _locate_directory(self) -> tuple[int, int, int]:
        """(offset, bytes, entries) of the central directory."""
        tail_start = max(0, self._size - _END.size - _MAX_COMMENT)
        tail = self._at(tail_start, self._size - tail_start)
        position = tail.rfind(b"PK\5\6")
        if position < 0 or len(tail) - position < _END.size:
            raise Refused("a zip archive without its end: cut short, or something follows it")
        _, disk, first, here, count, length, offset, comment = _END.unpack_from(tail, position)
        if position + _END.size + comment != len(tail):
            raise Refused("a zip archive with something after its end")
        end = tail_start + position
        if 0xFFFF in (disk, here, count) or 0xFFFFFFFF in (length, offset):
            end, disk, first, here, count, length, offset = self._locate64(end)
        if disk or first or here != count:
            raise Refused("a zip archive in several parts")
        if length > _MAX_DIRECTORY or offset + length > end or count * _ENTRY.size > length:
            raise Refused("a zip archive whose directory lies outside it")
        return offset, length, count

    def _locate64(self, end: int) -> tuple[int, int, int, int, int, int, int]:
        start = end - _END64_LOCATOR.size
        if start < 0:
            raise Refused("a zip archive with a damaged end")
        magic, _, position, _ = _END64_LOCATOR.unpack(self._at(start, _END64_LOCATOR.size))
        if magic != b"PK\6\7" or position > start - _END64.size:
            raise Refused("a zip archive with a damaged end")
        magic, _, _, _, disk, first, here, count, length, offset = _END64.unpack(
            self._at(position, _END64.size)
        )
        if magic != b"PK\6\6":
            raise Refused("a zip archive with a damaged end")
        return position, disk, first, here, count, length, offset

    def _entries(self, directory: bytes, count: int) -> Iterator[Member]:
        position = 0
        for _ in range(count):
            if len(directory) - position < _ENTRY.size:
                raise Refused("a zip archive whose directory is cut short")
            (magic, _, _, flags, method, _, _, crc, packed, size,
             name_length, extra_length, comment_length, disk, _, _, header,
            ) = _ENTRY.unpack_from(directory, position)  # fmt: skip
            start = position + _ENTRY.size
            position = start + name_length + extra_length + comment_length
            if magic != b"PK\1\2" or position > len(directory) or disk not in (0, 0xFFFF):
                raise Refused("a zip archive with a damaged directory")
            name = _member_name(directory[start : start + name_length])
            if flags & _ENCRYPTED:
                raise Refused("an encrypted zip archive")
            if method not in (_STORED, _DEFLATED):
                raise Refused(f"a zip member packed by method {method}")
            extra = directory[start + name_length : start + name_length + extra_length]
            size, packed, header = _wide(extra, size, packed, header)
            if method == _STORED and size != packed:
                raise Refused(f"zip member {name[:80]!r} has two sizes")
            yield Member(name, header, packed, size, method, crc)

    def _bound(self, directory: int) -> None:
        """Give each member the end of its room, and refuse members that share bytes."""
        following = directory
        for member in sorted(self.members.values(), key=lambda m: m.header, reverse=True):
            if member.header + _LOCAL.size + len(member.name) + member.packed > following:
                raise Refused(f"zip member {member.name[:80]!r} overlaps what follows it")
            member.end = following
            following = member.header

    def _seek(self, member: Member) -> None:
        """Stand before a member's bytes, once its own header agrees with the directory."""
        header = self._at(member.header, _LOCAL.size)
        magic, _, flags, method, _, _, _, _, _, name_length, extra_length = _LOCAL.unpack(header)
        name = self._file.read(name_length)
        start = member.header + _LOCAL.size + name_length + extra_length
        agrees = magic == b"PK\3\4" and method == member.method and not flags & _ENCRYPTED
        if not agrees or name != member.name.encode() or start + member.packed > member.end:
            raise Refused(f"zip member {member.name[:80]!r} disagrees with the directory")
        self._file.seek(start)

    def read(self, member: Member, limit: int) -> bytearray:
        """The bytes of a member that may not be larger than ``limit``."""
        if member.size > limit:
            raise Refused(
                f"{member.name[:80]!r} declares {member.size} bytes; the limit is {limit}"
            )
        buffer = bytearray(self.check_size(member))
        self.read_into(member, memoryview(buffer))
        return buffer

    def check_size(self, member: Member) -> int:
        """The bytes to make room for: within the file, or within what may be inflated."""
        if member.method == _DEFLATED:
            self._inflate -= member.size
            if self._inflate < 0 or member.size > 1100 * member.packed:  # deflate's best is 1032
                raise Refused(f"zip member {member.name[:80]!r} inflates beyond all measure")
        return member.size

    def read_into(self, member: Member, target: memoryview) -> None:
        """Fill ``target``, whose length is the member's size, and check the checksum."""
        self._seek(member)
        if member.method == _STORED:
            read_exactly(self._file, target)
        else:
            self._inflate_into(member, target)
        # torch writes zero when it was told to compute no checksum
        if member.crc and zlib.crc32(target) != member.crc:
            raise Refused(f"zip member {member.name[:80]!r} is damaged: its checksum differs")

    def _inflate_into(self, member: Member, target: memoryview) -> None:
        inflater, left, filled = zlib.decompressobj(-zlib.MAX_WBITS), member.packed, 0
        while left and not inflater.eof:
            chunk = self._file.read(min(_CHUNK, left))
            left -= len(chunk)
            if not chunk:
                break
            room = len(target) - filled
            data = inflater.decompress(chunk, room + 1)
            if len(data) > room:
                raise Refused(f"zip member {member.name[:80]!r} inflates beyond its size")
            target[filled : filled + len(data)] = data
            filled += len(data)
        if filled != len(target) or not inflater.eof:
            raise Refused(f"zip member {member.name[:80]!r} is cut short")


def read_exactly(file: BinaryIO, target: memoryview) -> None:
    """Fill ``target`` from the file, or refuse."""
    filled = 0
    while filled < len(target):
        count = file.readinto(target[filled:])  # type: ignore[attr-defined]
        if not count:
            raise Refused("the file is cut short")
        filled += count


def _member_name(raw: bytes) -> str:
    if not raw or len(raw) > _MAX_NAME:
        raise Refused("a zip member without a name, or with an absurdly long one")
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("a zip member whose name is not UTF-8") from None
    parts = name.replace("\\", "/").split("/")
    if not name.isprintable() or parts[0] == "" or parts[0].endswith(":") or ".." in parts:
        raise Refused(f"a zip member with an unsafe name {name[:80]!a}")
    return name


def _wide(extra: bytes, size: int, packed: int, header: int) -> tuple[int, int, int]:
    """Replace 32-bit fields that are full by those of the zip64 extra field (APPNOTE 4.5.3)."""
    values = [size, packed, header]
    if 0xFFFFFFFF not in values:
        return size, packed, header
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        field = extra[position + 4 : position + 4 + length]
        position += 4 + length
        if kind != 1:
            continue
        full = [i for i, value in enumerate(values) if value == 0xFFFFFFFF]
        if len(field) < 8 * len(full):
            break
        for i, value in zip(full, struct.unpack_from(f"<{len(full)}Q", field), strict=True):
            values[i] = value
        return values[0], values[1], values[2]
    raise Refused("a zip member without its zip64 sizes")

"""The two files that ``torch.save`` writes: a zip archive, and before 1.6 a legacy stream."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol

from torchxrayvision.checkpoints.pickles import (
    ITEM_BYTES,
    UNTYPED,
    Interpreter,
    Limits,
    Unreadable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch

    from torchxrayvision.checkpoints.pickles import Storage, TensorRef

# Only what torch writes is read: one disk, stored or deflated members, no encryption.
# Format: APPNOTE.TXT 6.3.10, sections 4.3 to 4.5.

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
        Unreadable: If the directory is damaged, ambiguous, encrypted, or too large.
    """

    def __init__(self, file: BinaryIO, size: int, limits: Limits) -> None:
        self._file = file
        self._size = size
        self._inflate = max(limits.copied_bytes, 8 * size)
        self.members: dict[str, Member] = {}
        offset, length, count = self._locate_directory()
        if count > limits.members:
            raise Unreadable(f"a zip archive of {count} members; the limit is {limits.members}")
        for member in self._entries(self._at(offset, length), count):
            if member.name in self.members:
                raise Unreadable(f"a zip archive with two members {member.name[:80]!r}")
            self.members[member.name] = member
        self._bound(offset)

    def _at(self, offset: int, count: int) -> bytes:
        self._file.seek(offset)
        data = self._file.read(count)
        if len(data) != count:
            raise Unreadable("a zip archive that is cut short")
        return data

    def _locate_directory(self) -> tuple[int, int, int]:
        """(offset, bytes, entries) of the central directory."""
        tail_start = max(0, self._size - _END.size - _MAX_COMMENT)
        tail = self._at(tail_start, self._size - tail_start)
        position = tail.rfind(b"PK\5\6")
        if position < 0 or len(tail) - position < _END.size:
            raise Unreadable("a zip archive without its end: cut short, or something follows it")
        _, disk, first, here, count, length, offset, comment = _END.unpack_from(tail, position)
        if position + _END.size + comment != len(tail):
            raise Unreadable("a zip archive with something after its end")
        end = tail_start + position
        if 0xFFFF in (disk, here, count) or 0xFFFFFFFF in (length, offset):
            end, disk, first, here, count, length, offset = self._locate64(end)
        if disk or first or here != count:
            raise Unreadable("a zip archive in several parts")
        if length > _MAX_DIRECTORY or offset + length > end or count * _ENTRY.size > length:
            raise Unreadable("a zip archive whose directory lies outside it")
        return offset, length, count

    def _locate64(self, end: int) -> tuple[int, int, int, int, int, int, int]:
        start = end - _END64_LOCATOR.size
        if start < 0:
            raise Unreadable("a zip archive with a damaged end")
        magic, _, position, _ = _END64_LOCATOR.unpack(self._at(start, _END64_LOCATOR.size))
        if magic != b"PK\6\7" or position > start - _END64.size:
            raise Unreadable("a zip archive with a damaged end")
        magic, _, _, _, disk, first, here, count, length, offset = _END64.unpack(
            self._at(position, _END64.size)
        )
        if magic != b"PK\6\6":
            raise Unreadable("a zip archive with a damaged end")
        return position, disk, first, here, count, length, offset

    def _entries(self, directory: bytes, count: int) -> Iterator[Member]:
        position = 0
        for _ in range(count):
            if len(directory) - position < _ENTRY.size:
                raise Unreadable("a zip archive whose directory is cut short")
            (magic, _, _, flags, method, _, _, crc, packed, size,
             name_length, extra_length, comment_length, disk, _, _, header,
            ) = _ENTRY.unpack_from(directory, position)  # fmt: skip
            start = position + _ENTRY.size
            position = start + name_length + extra_length + comment_length
            if magic != b"PK\1\2" or position > len(directory) or disk not in (0, 0xFFFF):
                raise Unreadable("a zip archive with a damaged directory")
            name = _member_name(directory[start : start + name_length])
            if flags & _ENCRYPTED:
                raise Unreadable("an encrypted zip archive")
            if method not in (_STORED, _DEFLATED):
                raise Unreadable(f"a zip member packed by method {method}")
            extra = directory[start + name_length : start + name_length + extra_length]
            size, packed, header = _wide(extra, size, packed, header)
            if method == _STORED and size != packed:
                raise Unreadable(f"zip member {name[:80]!r} has two sizes")
            yield Member(name, header, packed, size, method, crc)

    def _bound(self, directory: int) -> None:
        """Give each member the end of its room, and refuse members that share bytes."""
        following = directory
        for member in sorted(self.members.values(), key=lambda m: m.header, reverse=True):
            if member.header + _LOCAL.size + len(member.name) + member.packed > following:
                raise Unreadable(f"zip member {member.name[:80]!r} overlaps what follows it")
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
            raise Unreadable(f"zip member {member.name[:80]!r} disagrees with the directory")
        self._file.seek(start)

    def read(self, member: Member, limit: int) -> bytearray:
        """The bytes of a member that may not be larger than ``limit``."""
        if member.size > limit:
            raise Unreadable(
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
                raise Unreadable(f"zip member {member.name[:80]!r} inflates beyond all measure")
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
            raise Unreadable(f"zip member {member.name[:80]!r} is damaged: its checksum differs")

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
                raise Unreadable(f"zip member {member.name[:80]!r} inflates beyond its size")
            target[filled : filled + len(data)] = data
            filled += len(data)
        if filled != len(target) or not inflater.eof:
            raise Unreadable(f"zip member {member.name[:80]!r} is cut short")


def read_exactly(file: BinaryIO, target: memoryview) -> None:
    """Fill ``target`` from the file, or refuse."""
    filled = 0
    while filled < len(target):
        count = file.readinto(target[filled:])  # type: ignore[attr-defined]
        if not count:
            raise Unreadable("the file is cut short")
        filled += count


def _member_name(raw: bytes) -> str:
    if not raw or len(raw) > _MAX_NAME:
        raise Unreadable("a zip member without a name, or with an absurdly long one")
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Unreadable("a zip member whose name is not UTF-8") from None
    parts = name.replace("\\", "/").split("/")
    if not name.isprintable() or parts[0] == "" or parts[0].endswith(":") or ".." in parts:
        raise Unreadable(f"a zip member with an unsafe name {name[:80]!a}")
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
    raise Unreadable("a zip member without its zip64 sizes")


Container = Literal["legacy", "zip", "torchscript", "safetensors"]

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001

# First bytes of files that people pass by mistake, and what to say about them.
_FOREIGN = (
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"\x89HDF", "an HDF5 file, perhaps of Keras"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"GGUF", "a GGUF file"),
    (b"version https://git-lfs", "a Git LFS pointer; the file itself was not fetched"),
)
_MARKUP = (b"<!doctype", b"<html", b"<?xml", b"<head")


class Archive(Protocol):
    """An opened file: its object, and the bytes of the storages that the object names."""

    container: Container
    names: Counter[str]
    root: Any
    big_endian: bool

    def load(self, wanted: Mapping[str, Storage]) -> dict[str, torch.Tensor]:
        """The raw bytes of the wanted storages, uint8, by key."""


def recognise(head: bytes, size: int) -> Container:
    """Tell the container from the first bytes.

    Raises:
        Unreadable: If it is none that is read, with what it is instead.
    """
    if not size:
        raise Unreadable("the file is empty")
    if head[:4] == b"PK\3\4":
        return "zip"
    if size > 10 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return "safetensors"
    if head[:1] == b"\x80":
        return "legacy"
    raise Unreadable(_foreign(head))


def _foreign(head: bytes) -> str:
    for start, what in _FOREIGN:
        if head.startswith(start):
            return what
    if head.lstrip().lower().startswith(_MARKUP):
        return "a web page, not a checkpoint; the download went to an error page"
    if head[257:262] == b"ustar" or head.startswith((b"sys_info\0", b"pickle\0", b"storages\0")):
        return "a tar archive: that of torch 0.1 is not read, any other needs unpacking first"
    return "no file of torch.save, torch.jit.save or safetensors"


def open_archive(file: BinaryIO, size: int, container: Container, limits: Limits) -> Archive:
    """Read the object of a file of the given container, without its storages.

    Raises:
        Unreadable: If the file is damaged, hostile, or beyond the limits.
    """
    file.seek(0)
    if container == "zip":
        return _ZipArchive(file, size, limits)
    return _LegacyArchive(file, size, limits)


class _LegacyArchive:
    """Streams of a magic number, a version, the system, the object and the storage keys.

    Then, for each key, the number of elements as int64 and the elements, all little-endian
    on any machine.
    """

    container: Container = "legacy"
    big_endian = False

    def __init__(self, file: BinaryIO, size: int, limits: Limits) -> None:
        self._file = file
        self._size = size
        self.names: Counter[str] = Counter()
        machine = Interpreter(file, size, limits, self.names)
        if machine.read() != _MAGIC:
            raise Unreadable("a pickle, but not one that torch.save wrote")
        if machine.read() != _PROTOCOL:
            raise Unreadable("a legacy file of an unknown version")
        if not isinstance(machine.read(), dict):
            raise Unreadable("a legacy file without its description of the system")
        self.names.clear()
        self.root = machine.read()
        self._storages = machine.storages
        self._keys = machine.read()
        if not isinstance(self._keys, list) or len(self._keys) > limits.tensors:
            raise Unreadable("a legacy file without its list of storages")
        self._start = file.tell()

    def load(self, wanted: Mapping[str, Storage]) -> dict[str, torch.Tensor]:
        self._file.seek(self._start)
        raw: dict[str, torch.Tensor] = {}
        for storage in self._in_order():
            if storage.key in wanted:
                raw[storage.key] = _empty(storage.nbytes)
                read_exactly(self._file, _bytes_of(raw[storage.key]))
            else:
                self._file.seek(storage.nbytes, io.SEEK_CUR)
        if (rest := self._size - self._file.tell()) != 0:
            raise Unreadable(f"{rest} bytes follow the last storage")
        if missing := set(wanted) - set(raw):
            raise Unreadable(f"storage {min(missing)} is not in the file")
        return raw

    def _in_order(self) -> Iterator[Storage]:
        done: set[str] = set()
        for key in self._keys:
            if not isinstance(key, str) or key not in self._storages or key in done:
                raise Unreadable("the list of storages disagrees with the object")
            done.add(key)
            storage = self._storages[key]
            count = self._file.read(8)
            if len(count) != 8:
                raise Unreadable("the file is cut short")
            if struct.unpack("<q", count)[0] != storage.numel:
                raise Unreadable(f"storage {key} has two sizes")
            room = self._size - self._file.tell()
            if storage.nbytes > room:
                raise Unreadable(
                    f"storage {key} declares {storage.nbytes} bytes where {room} are left; "
                    "the file is cut short"
                )
            yield storage


class _ZipArchive:
    """One folder: ``data.pkl``, ``data/<key>``, ``byteorder``; for TorchScript ``code/`` too."""

    def __init__(self, file: BinaryIO, size: int, limits: Limits) -> None:
        self._zip = ZipReader(file, size, limits)
        members = self._zip.members
        roots = [n[: -len("data.pkl")] for n in members if _is_object(n)]
        if len(roots) != 1:
            raise Unreadable("a zip archive, but not one that torch.save wrote")
        self._root = roots[0]
        scripted = any(
            n.startswith((f"{self._root}code/", f"{self._root}constants.pkl")) for n in members
        )
        self.container: Container = "torchscript" if scripted else "zip"
        self.big_endian = self._byte_order()
        stream = self._zip.read(members[f"{self._root}data.pkl"], limits.pickle_bytes)
        self.names: Counter[str] = Counter()
        buffer = io.BytesIO(stream)
        self.root = Interpreter(buffer, len(stream), limits, self.names).read()
        if buffer.tell() != len(stream):
            raise Unreadable("something follows the object in data.pkl")

    def _byte_order(self) -> bool:
        """True if the elements are stored big-endian; files before torch 2.1 do not say."""
        member = self._zip.members.get(f"{self._root}byteorder")
        if member is None:
            return False
        order = self._zip.read(member, 16)
        if bytes(order) not in (b"little", b"big"):
            raise Unreadable("a zip archive of an unknown byte order")
        return order == b"big"

    def load(self, wanted: Mapping[str, Storage]) -> dict[str, torch.Tensor]:
        found = []
        for key, storage in wanted.items():
            member = self._zip.members.get(f"{self._root}data/{key}")
            if member is None:
                raise Unreadable(f"storage {key} is not in the file")
            if member.size != storage.nbytes:
                raise Unreadable(
                    f"storage {key} declares {storage.nbytes} bytes and has {member.size}"
                )
            found.append((member, key))
        raw: dict[str, torch.Tensor] = {}
        for member, key in sorted(found, key=lambda pair: pair[0].header):
            raw[key] = _empty(self._zip.check_size(member))
            self._zip.read_into(member, _bytes_of(raw[key]))
        return raw


def _is_object(name: str) -> bool:
    return name.endswith("/data.pkl") and name.count("/") == 1


def _empty(nbytes: int) -> torch.Tensor:
    import torch

    return torch.empty(nbytes, dtype=torch.uint8)


def _bytes_of(raw: torch.Tensor) -> memoryview:
    return raw.numpy().data


def needs_swap(*, big_endian: bool) -> bool:
    """Whether the file's byte order is not this machine's."""
    return big_endian != (sys.byteorder == "big")


def build_tensors(
    refs: Mapping[str, TensorRef], archive: Archive, limits: Limits
) -> dict[str, torch.Tensor]:
    """Read the storages that the tensors need, each once, and lay the tensors over them.

    Every result is contiguous and on the CPU. One that lies in its storage without gaps is a
    view, so nothing is copied; names of one tensor (tied weights) share one result. Only
    strided and expanded tensors are copied, within ``limits.copied_bytes`` beyond the
    bytes of the storages.

    Raises:
        Unreadable: If a storage is missing or damaged, or too much would be copied.
    """
    storages = {ref.storage.key: ref.storage for ref in refs.values() if ref.numel}
    # Before any storage is read, for the bytes that copies take are known from the shapes alone.
    distinct = {ref.layout: ref for ref in refs.values()}
    allowed = limits.copied_bytes + sum(storage.nbytes for storage in storages.values())
    copied = sum(
        ref.numel * ITEM_BYTES[ref.dtype] for ref in distinct.values() if not ref.contiguous
    )
    if copied > allowed:
        raise Unreadable(f"its tensors unfold to {copied} bytes; the limit is {allowed}")
    raw = archive.load(storages)
    swap = needs_swap(big_endian=archive.big_endian)
    for key, storage in storages.items():
        if swap:
            raw[key] = _swapped(raw[key], storage)
        if storage.dtype == "bool":
            raw[key].clamp_(max=1)  # kernels may do anything with another byte in a bool
    built = {layout: _tensor(ref, raw) for layout, ref in distinct.items()}
    return {name: built[ref.layout] for name, ref in refs.items()}


def _tensor(ref: TensorRef, raw: Mapping[str, torch.Tensor]) -> torch.Tensor:
    import torch

    dtype = getattr(torch, ref.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise Unreadable(f"this version of torch has no dtype {ref.dtype}")
    if not ref.numel:
        return torch.empty(ref.size, dtype=dtype)
    flat = raw[ref.storage.key]
    whole = flat.numel() // dtype.itemsize * dtype.itemsize
    typed = flat[:whole].view(dtype)
    if ref.contiguous:
        return typed[ref.offset : ref.offset + ref.numel].view(ref.size)
    return typed.as_strided(ref.size, ref.stride, ref.offset).contiguous()


def _swapped(raw: torch.Tensor, storage: Storage) -> torch.Tensor:
    import torch

    width = ITEM_BYTES.get(storage.dtype, 1)
    if storage.dtype == UNTYPED:
        raise Unreadable("untyped storages of the other byte order")
    if storage.dtype.startswith("complex"):
        width //= 2
    return torch.flip(raw.view(-1, width), dims=(1,)).reshape(-1) if width > 1 else raw

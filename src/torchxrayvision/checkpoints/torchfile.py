"""The two files that ``torch.save`` writes: a zip archive, and before 1.6 a legacy stream."""

from __future__ import annotations

import io
import struct
import sys
import zipfile
import zlib
from collections import Counter
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol

from torchxrayvision.checkpoints.pickles import Interpreter
from torchxrayvision.checkpoints.values import ITEM_BYTES, UNTYPED, Limits, Unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch

    from torchxrayvision.checkpoints.values import Storage, TensorRef

# Only what torch writes is read: one disk, stored or deflated members, no encryption. `zipfile`
# parses the directory; it is lenient, so that whatever torch does not write is refused here.
# Format: APPNOTE.TXT 6.3.10, sections 4.3 to 4.5.

_END = struct.Struct("<4s4H2LH")
_LOCAL = struct.Struct("<4s5H3L2H")
_MAX_NAME = 1024
_ENTRY_BYTES = 128  # of the directory, for each member that is allowed
_ENCRYPTED = 0x0001 | 0x0040 | 0x2000
_CHUNK = 1 << 20
_MALFORMED = (zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError,
              ValueError, EOFError)  # fmt: skip


class _Bounded:
    """A file that gives no more than so many bytes at once, so that no directory is larger."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self.seek, self.tell, self.seekable, self._read = (
            file.seek, file.tell, file.seekable, file.read,
        )  # fmt: skip
        self._most = most

    def read(self, count: int = -1) -> bytes:
        if count > self._most:
            raise Unreadable(f"a zip archive whose directory is larger than {self._most} bytes")
        return self._read(count)


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
        self._inflate = max(limits.copied_bytes, 8 * size)
        most = max(_CHUNK, limits.members * _ENTRY_BYTES)
        try:
            self._zip = zipfile.ZipFile(_Bounded(file, most))
            self._check_end(file, limits)
        except _MALFORMED as error:
            raise Unreadable(f"a damaged zip archive ({error})") from None
        self.members: dict[str, zipfile.ZipInfo] = {}
        self._ends: dict[str, int] = {}
        for member in self._zip.infolist():
            _check_member(member)
            if self.members.setdefault(member.filename, member) is not member:
                raise Unreadable(f"a zip archive with two members {member.filename[:80]!r}")
        following = self._zip.start_dir
        for member in sorted(self.members.values(), key=lambda m: m.header_offset, reverse=True):
            self._ends[member.filename] = following
            if member.header_offset + _LOCAL.size + member.compress_size > following:
                raise Unreadable(f"zip member {member.filename[:80]!r} overlaps what follows it")
            following = member.header_offset
        if following:
            raise Unreadable("a zip archive behind something else")

    def _check_end(self, file: BinaryIO, limits: Limits) -> None:
        """Refuse an end that is not the end of the file, of one disk and of all members."""
        file.seek(-_END.size - len(self._zip.comment), io.SEEK_END)
        magic, disk, first, here, count, _, _, comment = _END.unpack(file.read(_END.size))
        if magic != b"PK\5\6" or comment != len(self._zip.comment):
            raise Unreadable("a zip archive with something after its end")
        members = len(self._zip.infolist())
        if members > limits.members:
            raise Unreadable(f"a zip archive of {members} members; the limit is {limits.members}")
        if {disk, first} - {0, 0xFFFF} or here != count or count != min(members, 0xFFFF):
            raise Unreadable("a zip archive in several parts")

    def read(self, member: zipfile.ZipInfo, limit: int) -> bytearray:
        """The bytes of a member that may not be larger than ``limit``."""
        size = member.file_size
        if size > limit:
            raise Unreadable(
                f"{member.filename[:80]!r} declares {size} bytes; the limit is {limit}"
            )
        buffer = bytearray(self.check_size(member))
        self.read_into(member, memoryview(buffer))
        return buffer

    def check_size(self, member: zipfile.ZipInfo) -> int:
        """The bytes to make room for: within the file, or within what may be inflated."""
        if member.compress_type == zipfile.ZIP_DEFLATED:
            self._inflate -= member.file_size
            # The best that deflate can do is 1032.
            if self._inflate < 0 or member.file_size > 1100 * member.compress_size:
                raise Unreadable(f"zip member {member.filename[:80]!r} inflates beyond all measure")
        return member.file_size

    def read_into(self, member: zipfile.ZipInfo, target: memoryview) -> None:
        """Fill ``target``, whose length is the member's size, and check the checksum."""
        self._file.seek(member.header_offset)
        header = _LOCAL.unpack(self._file.read(_LOCAL.size))
        start = member.header_offset + _LOCAL.size + header[9] + header[10]
        agrees = header[3] == member.compress_type and not header[2] & _ENCRYPTED
        if not agrees or start + member.compress_size > self._ends[member.filename]:
            raise Unreadable(f"zip member {member.filename[:80]!r} disagrees with the directory")
        if getattr(member, "CRC", None) == 0:
            del member.CRC  # torch writes zero when it was told to compute no checksum
        try:
            with self._zip.open(member) as stream:
                filled = 0
                while filled < len(target) and (chunk := stream.read(_CHUNK)):
                    target[filled : filled + len(chunk)] = chunk
                    filled += len(chunk)
                if filled < len(target) or stream.read(1):
                    raise Unreadable(f"zip member {member.filename[:80]!r} has another size")
        except _MALFORMED as error:
            reason = f"zip member {member.filename[:80]!r} is damaged ({error})"
            raise Unreadable(reason) from None


def read_exactly(file: BinaryIO, target: memoryview) -> None:
    """Fill ``target`` from the file, or refuse."""
    filled = 0
    while filled < len(target):
        count = file.readinto(target[filled:])  # type: ignore[attr-defined]
        if not count:
            raise Unreadable("the file is cut short")
        filled += count


def _check_member(member: zipfile.ZipInfo) -> None:
    name = member.filename
    if not 0 < len(name) <= _MAX_NAME:
        raise Unreadable("a zip member without a name, or with an absurdly long one")
    parts = name.replace("\\", "/").split("/")
    if not name.isprintable() or parts[0] == "" or parts[0].endswith(":") or ".." in parts:
        raise Unreadable(f"a zip member with an unsafe name {name[:80]!a}")
    if member.flag_bits & _ENCRYPTED:
        raise Unreadable("an encrypted zip archive")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Unreadable(f"a zip member packed by method {member.compress_type}")
    if member.compress_type == zipfile.ZIP_STORED and member.file_size != member.compress_size:
        raise Unreadable(f"zip member {name[:80]!r} has two sizes")
    if member.volume not in (0, 0xFFFF):
        raise Unreadable("a zip archive in several parts")


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
            if member.file_size != storage.nbytes:
                raise Unreadable(
                    f"storage {key} declares {storage.nbytes} bytes and has {member.file_size}"
                )
            found.append((member, key))
        raw: dict[str, torch.Tensor] = {}
        for member, key in sorted(found, key=lambda pair: pair[0].header_offset):
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

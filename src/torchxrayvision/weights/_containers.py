"""The two files that ``torch.save`` writes: a zip archive, and before 1.6 a legacy stream."""

from __future__ import annotations

import io
import struct
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol

from torchxrayvision.weights._limits import Limits, Refused
from torchxrayvision.weights._unpickle import Machine
from torchxrayvision.weights._zip import ZipReader, read_exactly

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch

    from torchxrayvision.weights._nodes import Storage

__all__ = ["Archive", "Container", "open_archive", "recognise"]

Container = Literal["legacy", "zip", "torchscript", "safetensors"]

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_HEAD = 265

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
        Refused: If it is none that is read, with what it is instead.
    """
    if not size:
        raise Refused("the file is empty")
    if head[:4] == b"PK\3\4":
        return "zip"
    if size > 10 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return "safetensors"
    if head[:1] == b"\x80":
        return "legacy"
    raise Refused(_foreign(head))


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
        Refused: If the file is damaged, hostile, or beyond the limits.
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
        machine = Machine(file, size, limits, self.names)
        if machine.read() != _MAGIC:
            raise Refused("a pickle, but not one that torch.save wrote")
        if machine.read() != _PROTOCOL:
            raise Refused("a legacy file of an unknown version")
        if not isinstance(machine.read(), dict):
            raise Refused("a legacy file without its description of the system")
        self.names.clear()
        self.root = machine.read()
        self._storages = machine.storages
        self._keys = machine.read()
        if not isinstance(self._keys, list) or len(self._keys) > limits.tensors:
            raise Refused("a legacy file without its list of storages")
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
            raise Refused(f"{rest} bytes follow the last storage")
        if missing := set(wanted) - set(raw):
            raise Refused(f"storage {min(missing)} is not in the file")
        return raw

    def _in_order(self) -> Iterator[Storage]:
        done: set[str] = set()
        for key in self._keys:
            if not isinstance(key, str) or key not in self._storages or key in done:
                raise Refused("the list of storages disagrees with the object")
            done.add(key)
            storage = self._storages[key]
            count = self._file.read(8)
            if len(count) != 8:
                raise Refused("the file is cut short")
            if struct.unpack("<q", count)[0] != storage.numel:
                raise Refused(f"storage {key} has two sizes")
            room = self._size - self._file.tell()
            if storage.nbytes > room:
                raise Refused(
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
            raise Refused("a zip archive, but not one that torch.save wrote")
        self._root = roots[0]
        scripted = any(
            n.startswith((f"{self._root}code/", f"{self._root}constants.pkl")) for n in members
        )
        self.container: Container = "torchscript" if scripted else "zip"
        self.big_endian = self._byte_order()
        stream = self._zip.read(members[f"{self._root}data.pkl"], limits.pickle_bytes)
        self.names: Counter[str] = Counter()
        buffer = io.BytesIO(stream)
        self.root = Machine(buffer, len(stream), limits, self.names).read()
        if buffer.tell() != len(stream):
            raise Refused("something follows the object in data.pkl")

    def _byte_order(self) -> bool:
        """True if the elements are stored big-endian; files before torch 2.1 do not say."""
        member = self._zip.members.get(f"{self._root}byteorder")
        if member is None:
            return False
        order = self._zip.read(member, 16)
        if bytes(order) not in (b"little", b"big"):
            raise Refused("a zip archive of an unknown byte order")
        return order == b"big"

    def load(self, wanted: Mapping[str, Storage]) -> dict[str, torch.Tensor]:
        found = []
        for key, storage in wanted.items():
            member = self._zip.members.get(f"{self._root}data/{key}")
            if member is None:
                raise Refused(f"storage {key} is not in the file")
            if member.size != storage.nbytes:
                raise Refused(
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

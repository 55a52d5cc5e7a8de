"""Images inside tar and zip archives, read in place: nothing is unpacked to disk."""

from __future__ import annotations

import bz2
import gzip
import itertools
import lzma
import os
import tarfile
import zipfile
import zlib
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, BinaryIO, Final

from torchxrayvision.errors import ImageReadError
from torchxrayvision.images import DEFAULT_LIMITS
from torchxrayvision.inputs.source import HEAD, Member, looks_like_image

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path
    from typing import Self

    Listed = Generator[tuple[str, "Member | str"], None, None]

__all__ = ["ARCHIVE_ERRORS", "SequentialReader", "list_members", "read_member"]

ARCHIVE_ERRORS: Final = (
    OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
    NotImplementedError, RuntimeError, ValueError, IndexError,
)  # fmt: skip
_LOCAL_HEADER: Final = 30  # bytes before the name, APPNOTE.TXT 4.3.7
_ENCRYPTED: Final = 0x1
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_UNPACK: Final = "unpack the archive and name the folder"


def _stamp(file: IO[bytes]) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _compression(path: Path) -> str:
    name = path.name.lower()
    if name.endswith("gz"):
        return "gz"
    if name.endswith("bz2"):
        return "bz2"
    return "xz" if name.endswith("xz") else "tar"


def _open(path: Path, kind: str) -> BinaryIO | gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile:
    match kind:
        case "gz":
            return gzip.open(path)
        case "bz2":
            return bz2.open(path)
        case "xz":
            return lzma.open(path)
        case _:
            return path.open("rb")


def _hidden(name: str) -> bool:
    # macOS writes its attributes of x.png as __MACOSX/._x.png.
    return any(part.startswith(".") and part != "." for part in PurePosixPath(name).parts)


def list_members(path: Path) -> Listed:
    """The images of an archive, by name or content, hidden ones left out.

    Args:
        path: A `.zip`, or a `.tar` with or without compression.

    Yields:
        Name, and place or why it cannot be read: in the order of a tar, in alphabetical order of a
        zip.

    Raises:
        ARCHIVE_ERRORS: If it cannot be read, or only up to here.
    """
    return _list_zip(path) if path.suffix.lower() == ".zip" else _list_tar(path)


class _Entry(tarfile.TarInfo):
    """An entry that has to be whole: `tarfile` takes a damaged or cut one for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if buf == bytes(tarfile.BLOCKSIZE):  # the mark
                raise
            reason = str(error) if buf else "it stops without the mark of its end"
            raise tarfile.ReadError(reason) from error


def _list_tar(path: Path) -> Listed:
    images: dict[str, Member] | None = None  # by name; memory that only a tar with links costs
    for info, member in _tar_entries(path):
        if info.islnk():
            if images is None:
                images = _tar_images(path, info.offset)
            member = images.get(info.linkname)
        if images is not None and member is not None:
            images[info.name] = member
        # Going back for the bytes of a hard link is starting over in a compressed tar.
        if member is None or (info.islnk() and member.sequential):
            place: Member | str = _lacking(info, known=member is not None)
        else:
            place = member
        if place and not _hidden(info.name):
            yield info.name, place


def _lacking(info: tarfile.TarInfo, *, known: bool) -> str:
    """Why an image has no bytes of its own; empty for what is none, known or by its name."""
    link = info.issym() or info.islnk()
    if not link and not info.issparse():
        return ""
    if not known and not any(looks_like_image(name, b"") for name in (info.name, info.linkname)):
        return ""
    what = f"a link to {info.linkname}" if link else "a file stored with holes"
    return f"{what} inside an archive; {_UNPACK}"


def _tar_images(path: Path, stop: int) -> dict[str, Member]:
    """The images before an offset."""
    before = itertools.takewhile(lambda entry: entry[0].offset < stop, _tar_entries(path))
    return {info.name: member for info, member in before if member is not None}


def _tar_entries(path: Path) -> Iterator[tuple[tarfile.TarInfo, Member | None]]:
    """All entries, and places of those that hold an image."""
    kind = _compression(path)
    with path.open("rb") as raw:
        stamp = _stamp(raw)
    with (
        _open(path, kind) as stream,
        tarfile.open(fileobj=stream, mode="r:", tarinfo=_Entry) as archive,
    ):
        while (info := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined] # it would keep every entry
            member = Member(kind, info.offset_data, info.size, stamp=stamp)
            yield info, member if _is_image(archive, info) else None
        if any(stream.read(tarfile.BLOCKSIZE)):  # the mark is two blocks of zeros; one is a hole
            raise tarfile.ReadError("zeros where an entry should be")


def _is_image(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bool:
    if not info.isreg() or info.issparse():
        return False
    if looks_like_image(info.name, b""):
        return True
    file = archive.extractfile(info)
    return file is not None and looks_like_image(info.name, file.read(HEAD))


def _list_zip(path: Path) -> Listed:
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        stamp = _stamp(file)
        for info in sorted(archive.infolist(), key=lambda i: i.filename):
            # Not `is_dir`, which wants a name to look at.
            if info.filename.endswith("/") or _hidden(info.filename):
                continue
            readable = info.compress_type in _METHODS and not info.flag_bits & _ENCRYPTED
            head = b""
            if not looks_like_image(info.filename, head) and readable:
                with archive.open(info) as member:
                    head = member.read(HEAD)
            if looks_like_image(info.filename, head):
                method = info.compress_type if readable else -1
                yield info.filename, Member(
                    "zip", info.header_offset, info.file_size, info.compress_size, method,
                    info.CRC, stamp,
                )  # fmt: skip


def read_member(path: Path, member: Member) -> bytes:
    """The bytes of an image, whose archive allows to read it at any place.

    Args:
        path: The archive.
        member: Of a zip, or of a tar without compression.

    Raises:
        ImageReadError: If it is damaged, too large, packed in a way that is not supported, or if
            the archive has changed since it was listed.
    """
    DEFAULT_LIMITS.check_bytes(str(path), member.size)
    try:
        with path.open("rb") as file:
            if _stamp(file) != member.stamp:
                raise ImageReadError(path, "the archive changed after it was listed")
            if member.kind == "zip":
                return _unzip(file, path, member)
            file.seek(member.offset)
            data = file.read(member.size)
    except OSError as error:
        if isinstance(error, ImageReadError):
            raise
        reason = f"the archive cannot be read ({error.strerror or error})"
        raise ImageReadError(path, reason) from error
    return _whole(path, data, member.size)


def _whole(path: Path, data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise ImageReadError(path, f"the archive ends early: {len(data)} of {size} bytes")
    return data


def _unzip(file: IO[bytes], path: Path, member: Member) -> bytes:
    if member.method not in _METHODS:
        reason = "encrypted, or packed in another way than deflate"
        raise ImageReadError(path, reason, _UNPACK)
    file.seek(member.offset)
    header = file.read(_LOCAL_HEADER)
    if header[:4] != b"PK\3\4" or len(header) < _LOCAL_HEADER:
        raise ImageReadError(path, "damaged: no zip entry where the directory says")
    name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    file.seek(name + extra, os.SEEK_CUR)
    data = file.read(member.packed)
    if member.method == zipfile.ZIP_DEFLATED:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, member.size + 1)
        except zlib.error as error:
            raise ImageReadError(path, f"damaged zip entry ({error})") from error
    data = _whole(path, data, member.size)
    if zlib.crc32(data) != member.crc:
        raise ImageReadError(path, "damaged zip entry (its CRC-32 differs)")
    return data


class SequentialReader:
    """Bytes of images in compressed tars, fastest when asked for in their order.

    One decompressed stream stays open; going back means starting over.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._stream: BinaryIO | gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile | None = None

    def read(self, path: Path, member: Member) -> bytes:
        """The bytes of one image.

        Args:
            path: The archive.
            member: A sequential one.

        Raises:
            ImageReadError: As `read_member`.
        """
        DEFAULT_LIMITS.check_bytes(str(path), member.size)
        try:
            if path != self._path or self._stream is None:
                self.close()
                self._check_stamp(path, member)
                self._path, self._stream = path, _open(path, member.kind)
            self._stream.seek(member.offset)
            return _whole(path, self._stream.read(member.size), member.size)
        except ARCHIVE_ERRORS as error:
            self.close()
            if isinstance(error, ImageReadError):
                raise
            raise ImageReadError(path, f"the archive is damaged or cut ({error})") from error

    @staticmethod
    def _check_stamp(path: Path, member: Member) -> None:
        status = path.stat()
        if (status.st_size, status.st_mtime_ns) != member.stamp:
            raise ImageReadError(path, "the archive changed after it was listed")

    def close(self) -> None:
        """Close the open archive."""
        if self._stream is not None:
            self._stream.close()
        self._path, self._stream = None, None

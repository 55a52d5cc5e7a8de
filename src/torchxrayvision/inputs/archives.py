"""Images inside tar and zip archives, read in place: nothing is unpacked to disk."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
import os
import re
import tarfile
import threading
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from torchxrayvision.errors import ImageReadError
from torchxrayvision.files import FileState
from torchxrayvision.images import DEFAULT_LIMITS, HEAD, Limits, sniff

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import Self

    Listed = Generator[tuple[str, "Member | str | None"], None, None]
    Stream = BinaryIO | gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile

# These need not be opened to be listed; what they hold is found out when they are read.
_SUFFIXES: Final = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jp2", ".j2k", ".j2c", ".jpc", ".jpx", ".jpf", ".jph",
     ".tif", ".tiff", ".bmp", ".webp", ".dcm", ".dicom", ".dic", ".ima"}
)  # fmt: skip
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class InputFile:
    """One image to read, or what stands for images that cannot be listed.

    Args:
        path: The file, or the archive that holds it.
        given: How results name it: as the user gave it, or as found below a given folder; the
            path of an archive, a slash and the name inside for its members.
        member: Where in the archive it is, or None for a file of its own.
        problem: Why there is nothing to read, such as a folder that may not be listed.
        data: Its bytes, where they were read already.
    """

    path: Path
    given: str
    member: Member | None = None
    problem: str = ""
    data: bytes | None = field(default=None, repr=False)


def has_image_name(name: str) -> bool:
    """Whether the name of a file ends like that of an image; packed with gzip or not."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - no Path per file
    suffix = suffix.lower()
    return suffix in _SUFFIXES or (suffix == ".gz" and has_image_name(stem))


def looks_like_image(name: str, head: bytes) -> bool:
    """Whether a file counts as an image, by the end of its name or its first `HEAD` bytes."""
    try:
        return has_image_name(name) or bool(head and sniff(head, name))
    except ImageReadError:
        return False


def printable(name: str) -> str:
    r"""The name as text for tables and terminals.

    Bytes that are not UTF-8 are written as `\xNN`, and so are control characters, which a terminal
    would obey, and marks that turn the direction of writing.

    Args:
        name: Of a file, as the operating system gives it.

    Returns:
        The name, on one line.

    Example:
        >>> printable("a\x1b[2J.png")
        'a\\x1b[2J.png'
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


@dataclass(frozen=True, slots=True)
class Member:
    """Where the bytes of an image are in its archive.

    Args:
        kind: `"tar"`, `"zip"`, or `"gz"`, `"bz2"`, `"xz"` for a tar within that compression.
        offset: Of the bytes in the (decompressed) tar, or of the local header in the zip.
        size: Bytes of the image.
        stamp: Size and time of the archive when it was listed.
    """

    kind: str
    offset: int
    size: int
    stamp: tuple[int, int] = (0, 0)

    def to_list(self) -> list[int | str | list[int]]:
        """The fields, as JSON holds them."""
        return [self.kind, self.offset, self.size, [*self.stamp]]

    @classmethod
    def from_list(cls, fields: list[Any]) -> Member:
        """The member that `to_list` described."""
        kind, offset, size, stamp = fields
        return cls(kind, offset, size, (stamp[0], stamp[1]))

    @property
    def sequential(self) -> bool:
        """Whether a reader has to pass over everything before it."""
        return self.kind in ("gz", "bz2", "xz")


ARCHIVE_ERRORS: Final = (
    OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
    NotImplementedError, RuntimeError, ValueError, IndexError, MemoryError, OverflowError,
)  # fmt: skip
_OPENERS: Final = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}
_ENCRYPTED: Final = 0x1
# Not LZMA, whose header may ask for gigabytes of memory.
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_UNPACK: Final = "unpack the archive and name the folder"
# Entries of a tar that `tarfile` reads into memory: names, links and attributes.
_IN_MEMORY: Final = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)  # fmt: skip
_LONGEST_NAME: Final = 2**20  # bytes
_BEHIND: Final = 2**26  # bytes that may follow the mark of the end of a tar
_PIECE: Final = 2**20


def _compression(path: Path) -> str:
    name = path.name.lower()
    return next((kind for kind in _OPENERS if name.endswith(kind)), "tar")


def _open(path: Path, kind: str) -> Stream:
    return _OPENERS[kind](path) if kind in _OPENERS else path.open("rb")  # type: ignore[operator]


def _hidden(name: str) -> bool:
    # macOS writes its attributes of x.png as __MACOSX/._x.png.
    return any(part.startswith(".") and part != "." for part in PurePosixPath(name).parts)


def list_members(path: Path) -> Listed:
    """The files of an archive, images by name or content; hidden ones are left out.

    Args:
        path: A `.zip`, or a `.tar` with or without compression.

    Yields:
        Name, and place or why it cannot be read, or None for what is no image: in the order of a
        tar, in alphabetical order of a zip.

    Raises:
        ARCHIVE_ERRORS: If it cannot be read, or only up to here.
    """
    if path.suffix.lower() == ".zip":
        return _list_zip(path)
    return _list_tar(path) if _compression(path) == "tar" else _list_compressed(path)


class _Entry(tarfile.TarInfo):
    """An entry that has to be whole: `tarfile` takes a damaged or cut one for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            info = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if buf == bytes(tarfile.BLOCKSIZE):  # the mark
                raise
            reason = str(error) if buf else "it stops without the mark of its end"
            raise tarfile.ReadError(reason) from error
        if info.size < 0 or (info.type in _IN_MEMORY and info.size > _LONGEST_NAME):
            raise tarfile.ReadError(f"an entry of {info.size:,} bytes")
        return info


def _list_compressed(path: Path) -> Listed:
    """As `_list_tar`; no image of a stream that its own checksum calls damaged is trusted."""
    found: list[tuple[str, Member | str | None]] = []
    problem: Exception | None = None
    try:
        found.extend(_list_tar(path))
    except ARCHIVE_ERRORS as error:
        problem = error
    # One that was cut, or packed as a damaged tar, gives what is before that place.
    damaged = problem is not None and not isinstance(problem, EOFError | tarfile.TarError)
    reason = f"the archive is damaged ({problem})"
    yield from ((name, reason if damaged and place else place) for name, place in found)
    if problem is not None:
        raise problem


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
            place: Member | str | None = _lacking(info, known=member is not None)
        else:
            place = member
        if place != "" and not _hidden(info.name):
            yield info.name, place


def _lacking(info: tarfile.TarInfo, *, known: bool) -> str | None:
    """Why an image has no bytes of its own; None for a file that is no image, else empty."""
    link = info.issym() or info.islnk()
    if not link and not info.issparse():
        return None if info.isreg() else ""
    if not known and not any(map(has_image_name, (info.name, info.linkname))):
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
        stamp = FileState.of(raw.fileno()).content
    with _open(path, kind) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r:", tarinfo=_Entry) as archive:
                while (info := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined] # it would keep them all
                    if archive.offset <= info.offset:
                        raise tarfile.ReadError("an entry that leads back")
                    member = Member(kind, info.offset_data, info.size, stamp)
                    yield info, member if _is_image(archive, info) else None
            if any(stream.read(tarfile.BLOCKSIZE)):  # the mark is two blocks of zeros, not one
                raise tarfile.ReadError("zeros where an entry should be")
        except tarfile.TarError:
            _exhaust(stream, kind)
            raise
        _exhaust(stream, kind)


def _exhaust(stream: Stream, kind: str) -> None:
    """Go to the end of a compressed stream, where its checksum is."""
    if kind == "tar":
        return
    for _ in range(_BEHIND // _PIECE):
        if not stream.read(_PIECE):
            return
    raise tarfile.ReadError(f"more than {_BEHIND:,} bytes behind the mark of its end")


def _is_image(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bool:
    if not info.isreg() or info.issparse():
        return False
    if has_image_name(info.name):
        return True
    file = archive.extractfile(info)
    return file is not None and looks_like_image(info.name, file.read(HEAD))


def open_zip(path: Path) -> tuple[zipfile.ZipFile, tuple[int, int]]:
    """An archive, and its size and time."""
    archive = zipfile.ZipFile(path)
    assert archive.fp is not None  # just opened
    return archive, FileState.of(archive.fp.fileno()).content


def _list_zip(path: Path) -> Listed:
    archive, stamp = open_zip(path)
    with archive:
        for info in sorted(archive.infolist(), key=lambda i: i.filename):
            # Not `is_dir`, which wants a name to look at.
            if info.filename.endswith("/") or _hidden(info.filename):
                continue
            head = b""
            if not has_image_name(info.filename) and _readable(info):
                with archive.open(info) as member:
                    head = member.read(HEAD)
            place = Member("zip", info.header_offset, info.file_size, stamp)
            yield info.filename, place if looks_like_image(info.filename, head) else None


def unpack_zip(data: bytes, given: str, limits: Limits = DEFAULT_LIMITS) -> Iterator[InputFile]:
    """The images of a zip that is in memory, each with its bytes; nothing is written.

    Args:
        data: The zip.
        given: How results name it.
        limits: How many bytes one image may have.

    Yields:
        In alphabetical order; hidden files, and files that are no images, are left out. What
        cannot be read gives an `InputFile` with a `problem`, be it the whole zip.

    Example:
        >>> [file.problem for file in unpack_zip(b"PK", "a.zip")]
        ['the archive cannot be listed (File is not a zip file)']
    """
    path = Path(given)
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        listed = sorted(archive.infolist(), key=lambda info: info.filename)
    except ARCHIVE_ERRORS as error:
        problem = f"the archive cannot be listed ({_words(error)})"
        yield InputFile(path, printable(given), problem=problem)
        return
    with archive:
        for info in listed:
            if info.filename.endswith("/") or _hidden(info.filename):
                continue
            named = printable(f"{given}/{info.filename}")
            try:
                content = _content(archive, info, path, limits)
            except ImageReadError as error:
                yield InputFile(path, named, problem=error.reason)
                continue
            if looks_like_image(info.filename, content[:HEAD]):
                yield InputFile(path, named, data=content)


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, limits: Limits) -> bytes:
    """The bytes of one entry; never more than the limit is unpacked, whatever the entry claims."""
    if not _readable(info):
        raise ImageReadError(path, "encrypted, or packed in another way than deflate", _UNPACK)
    limits.check_bytes(str(path), info.file_size)
    try:
        with archive.open(info) as stream:
            return _whole(path, stream.read(info.file_size + 1), info.file_size)
    except ImageReadError:
        raise
    except ARCHIVE_ERRORS as error:
        raise ImageReadError(path, f"damaged zip entry ({_words(error)})") from error


def _readable(info: zipfile.ZipInfo) -> bool:
    return info.compress_type in _METHODS and not info.flag_bits & _ENCRYPTED


def _whole(path: Path, data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise ImageReadError(path, f"the archive ends early: {len(data)} of {size} bytes")
    return data


def _check_stamp(path: Path, stamp: tuple[int, int], member: Member) -> None:
    if stamp != member.stamp:
        raise ImageReadError(path, "the archive changed after it was listed")


class Archives:
    """Archives to read from, each opened when it is needed; threads may share it.

    The last zip stays open, as its directory is long to read; so does the last compressed tar,
    which is fastest when asked for its images in their order: going back means starting over.
    Both are opened anew in another process, after pickling, and when the file has changed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._zip: tuple[Path, tuple[int, int], zipfile.ZipFile] | None = None
        self._entries: dict[int, zipfile.ZipInfo] = {}
        self._stream: tuple[Path, tuple[int, int], Stream] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]

    def _check_owner(self) -> None:
        # A forked child shares the file offset of its parent, and a lock that nobody releases.
        if self._owner != os.getpid():
            self.__init__()  # type: ignore[misc]

    def names(self, path: Path) -> list[str]:
        """Names of all entries of a zip.

        Raises:
            ImageReadError: If it cannot be read.
        """
        return list(self._directory(path)[0].NameToInfo)

    def find(self, path: Path, name: str) -> Member | None:
        """An entry of a zip by its name, or None.

        Raises:
            ImageReadError: If it cannot be read.
        """
        archive, stamp = self._directory(path)
        info = archive.NameToInfo.get(name)
        if info is None:
            return None
        return Member("zip", info.header_offset, info.file_size, stamp)

    def _directory(self, path: Path) -> tuple[zipfile.ZipFile, tuple[int, int]]:
        self._check_owner()
        try:
            with self._lock:
                return self._opened_zip(path)
        except ARCHIVE_ERRORS as error:
            raise ImageReadError(path, f"the archive cannot be read ({_words(error)})") from error

    def read(self, path: Path, member: Member, limits: Limits = DEFAULT_LIMITS) -> bytes:
        """The bytes of one image.

        Raises:
            ImageReadError: If it is damaged, too large, packed in a way that is not supported, or
                if the archive has changed since it was listed.
        """
        limits.check_bytes(str(path), member.size)
        self._check_owner()
        try:
            if member.kind == "zip":
                return self._from_zip(path, member)
            if member.sequential:
                with self._lock:
                    return self._from_stream(path, member)
            with path.open("rb") as file:
                _check_stamp(path, FileState.of(file.fileno()).content, member)
                file.seek(member.offset)
                return _whole(path, file.read(member.size), member.size)
        except ImageReadError:
            raise
        except ARCHIVE_ERRORS as error:
            self.close()
            reason = f"the archive is damaged or cannot be read ({_words(error)})"
            raise ImageReadError(path, reason) from error

    def _from_zip(self, path: Path, member: Member) -> bytes:
        with self._lock:
            archive, stamp = self._opened_zip(path)
            info = self._entries.get(member.offset)
        _check_stamp(path, stamp, member)
        if info is None:
            raise ImageReadError(path, "damaged: no zip entry where the directory says")
        if not _readable(info):
            reason = "encrypted, or packed in another way than deflate"
            raise ImageReadError(path, reason, _UNPACK)
        try:
            with archive.open(info) as stream:
                return _whole(path, stream.read(member.size + 1), member.size)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            said = "its CRC-32 differs" if "CRC" in str(error) else _words(error)
            raise ImageReadError(path, f"damaged zip entry ({said})") from error

    def _opened_zip(self, path: Path) -> tuple[zipfile.ZipFile, tuple[int, int]]:
        stamp = FileState.of(path).content
        if self._zip is None or self._zip[:2] != (path, stamp):
            # Not closed here: another thread may read from it. It closes when nobody has it.
            archive, stamp = open_zip(path)
            self._zip = path, stamp, archive
            self._entries = {info.header_offset: info for info in archive.infolist()}
        return self._zip[2], stamp

    def _from_stream(self, path: Path, member: Member) -> bytes:
        if self._stream is None or self._stream[:2] != (path, member.stamp):
            self._close_stream()
            with path.open("rb") as file:
                _check_stamp(path, FileState.of(file.fileno()).content, member)
            self._stream = path, member.stamp, _open(path, member.kind)
        stream = self._stream[2]
        stream.seek(member.offset)
        return _whole(path, stream.read(member.size), member.size)

    def _close_stream(self) -> None:
        if self._stream is not None:
            self._stream[2].close()
            self._stream = None

    def close(self) -> None:
        """Close what is open; it opens again when needed."""
        with self._lock:
            self._close_stream()
            self._zip, self._entries = None, {}


def _words(error: BaseException) -> Any:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

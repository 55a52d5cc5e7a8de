"""Models of the Hugging Face Hub: what they hold, at which commit, with which hashes.

The Hub names the commit of a revision and the SHA-256 of each large file (its Git LFS identifier).
Both are pinned before a byte is fetched, and the bytes come through the one door that all weights
come through, `torchxrayvision.remote.fetch`, with its limits and checks: huggingface_hub is needed
to publish only. Names of files are those of strangers; one that could lead out of the folder of
its model is refused.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from torchxrayvision.errors import ChecksumError, DownloadError, OfflineError, UnknownNameError
from torchxrayvision.facts import RemoteFile
from torchxrayvision.files import write_atomically
from torchxrayvision.remote.cache import folder_of, is_as_made, make_folder, remember_made
from torchxrayvision.remote.credentials import HUB, endpoint, hub_is_offline
from torchxrayvision.remote.fetching import Fetch, Partial, Settings
from torchxrayvision.remote.transfer import HttpTransfer, SourceFailure

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

_log = logging.getLogger(__name__)
SCHEME: Final = "hf://"
_FOLDER: Final = "hub"
_PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_FILE_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+=-]{0,191}")
_REVISION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,191}")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_LARGEST_ANSWER: Final = 8 << 20
_LARGEST_TEXT: Final = 1 << 20  # of a file that Git itself keeps, such as config.json
_MOST_FILES: Final = 20_000
# A machine without network must say so at once; the name server has answered before that.
_ASKING: Final = Settings(
    resolve=0.9, connect=4.0, attempts=3, deadline=60.0, largest=_LARGEST_ANSWER
)


@dataclass(frozen=True, slots=True)
class HubAddress:
    """What ``hf://org/name@revision/file`` names.

    Args:
        repo: Owner and name, ``"org/name"``.
        revision: Branch, tag or commit.
        file: Path of a file in it; ``""`` for the model as a whole.

    Example:
        >>> HubAddress.parse("hf://org/name@v1/model.safetensors")
        HubAddress(repo='org/name', revision='v1', file='model.safetensors')
    """

    repo: str
    revision: str = "main"
    file: str = ""

    @classmethod
    def parse(cls, text: str) -> HubAddress:
        """The address that a text is, with ``hf://`` or without.

        Args:
            text: ``hf://org/name``, then ``@revision`` and ``/path/of/file`` as wanted. A slash in
                the revision is written as ``%2F``.

        Raises:
            UnknownNameError: If it is no such address.
        """
        bare = text.removeprefix(SCHEME)
        owner, _, rest = bare.partition("/")
        head, _, file = rest.partition("/")
        name, at, revision = head.partition("@")
        revision = revision.replace("%2F", "/").replace("%2f", "/") if at else "main"
        whole = _PART.fullmatch(owner) and _PART.fullmatch(name) and ".." not in owner + name
        known = _REVISION.fullmatch(revision) and ".." not in revision
        if not whole or not known or (file and not is_safe(file)):
            advice = "write hf://owner/name, hf://owner/name@revision or .../path/of/file"
            raise UnknownNameError("address on the Hub", text, (), advice)
        return cls(f"{owner}/{name}", revision, file)

    def __str__(self) -> str:
        at = "" if self.revision == "main" else f"@{self.revision.replace('/', '%2F')}"
        return f"{SCHEME}{self.repo}{at}" + (f"/{self.file}" if self.file else "")

    def url_of(self, file: str) -> str:
        """Where the Hub, not a mirror of it, has a file of this revision."""
        return f"{HUB}/{self.repo}/resolve/{quote(self.revision, safe='')}/{quote(file)}"

    @property
    def is_commit(self) -> bool:
        """Whether the revision is a commit, which never changes."""
        return bool(_COMMIT.fullmatch(self.revision))


def is_safe(path: str) -> bool:
    r"""Whether the path of a file in a repository stays in its folder, on every system.

    Example:
        >>> is_safe("sub/model.safetensors"), is_safe("../x"), is_safe("a\\b"), is_safe("/etc/x")
        (True, False, False, False)
    """
    parts = path.split("/")
    return len(parts) <= 8 and all(_FILE_PART.fullmatch(p) and ".." not in p for p in parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class HubFile:
    """One file of a model on the Hub, as the Hub describes it.

    Args:
        path: Path in the repository.
        size: Bytes, or None.
        sha256: Of the bytes, for files that Git LFS keeps; else None.
        blob: Git's identifier of a file that Git itself keeps, 40 hexadecimal digits, or None.
    """

    path: str
    size: int | None = None
    sha256: str | None = None
    blob: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class HubModel:
    """A model on the Hub at one commit.

    Args:
        address: With the commit as its revision.
        asked: The revision that was asked for.
        files: Path to file; those with names that could lead elsewhere are left out.
        gated: Whether one has to accept terms first.
        license: The licence that its card states, or ``""``.
    """

    address: HubAddress
    asked: str
    files: Mapping[str, HubFile]
    gated: bool = False
    license: str = ""


def look_up(address: HubAddress) -> HubModel:
    """Ask the Hub which commit a revision is, and what it holds.

    Args:
        address: The model.

    Returns:
        The model at that commit, with the hashes that the Hub states.

    Raises:
        OfflineError: If the Hub may not be asked or cannot be reached.
        DownloadError: If it has no such model, or answers something else.
    """
    url = f"{endpoint()}/api/models/{address.repo}/revision/{quote(address.revision, safe='')}"
    try:
        answer = json.loads(_small(f"{url}?blobs=true", address, _LARGEST_ANSWER))
    except (ValueError, RecursionError) as error:
        msg = f"{address}: the Hub answered what is no JSON. {_placing(address)}"
        raise DownloadError(msg) from error
    return _model_of(answer, address)


def _model_of(answer: Any, address: HubAddress) -> HubModel:
    held = answer if isinstance(answer, dict) else {}
    commit, listed = str(held.get("sha")), held.get("siblings")
    listed = listed if isinstance(listed, list) and len(listed) <= _MOST_FILES else None
    moved = address.is_commit and commit != address.revision
    if not _COMMIT.fullmatch(commit) or listed is None or moved:
        msg = f"{address}: the Hub's answer does not name the commit and the files"
        raise DownloadError(f"{msg}. {_placing(address)}")
    files = [found for item in listed if (found := _file_of(item)) is not None]
    card = held.get("cardData")
    stated = card.get("license") if isinstance(card, dict) else None
    return HubModel(
        address=HubAddress(address.repo, commit, address.file),
        asked=address.revision,
        files={file.path: file for file in files},
        gated=held.get("gated") not in (None, False),
        license=stated if isinstance(stated, str) and stated.isprintable() else "",
    )


def _file_of(item: Any) -> HubFile | None:
    path = item.get("rfilename") if isinstance(item, dict) else None
    if not isinstance(path, str) or not is_safe(path):
        return None
    lfs = item.get("lfs")
    lfs = lfs if isinstance(lfs, dict) else {}
    digest = lfs.get("sha256", lfs.get("oid"))
    size = lfs.get("size", item.get("size"))
    blob = item.get("blobId")
    return HubFile(
        path=path,
        size=size if type(size) is int and size >= 0 else None,
        sha256=digest if isinstance(digest, str) and _SHA256.fullmatch(digest) else None,
        blob=blob if not lfs and isinstance(blob, str) and _COMMIT.fullmatch(blob) else None,
    )


def fetch_from_hub(
    address: HubAddress,
    files: tuple[str, ...] = (),
    *,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Path:
    """Bring files of a model into the cache; those that are there at that commit are only checked.

    A commit that is here whole needs no network. Of a branch the newest commit is asked for; where
    the Hub cannot be asked, the one that was fetched last is taken.

    Args:
        address: The model; its revision is followed to a commit.
        files: Paths in the repository that must be there; the file of the address if empty.
        cache: Cache folder; `torchxrayvision.remote.cache_dir` by default.
        progress: Draw a progress bar, if standard error is a terminal.

    Returns:
        The folder of that commit, which holds the files under their paths.

    Raises:
        OfflineError: If the Hub cannot be asked and the files are not here.
        DownloadError: If it does not have them.
        ChecksumError: If the bytes are not those whose hash the Hub states.

    Warns:
        UnpinnedDownloadWarning: If the Hub states no hash of a large file.
    """
    wanted = files or ((address.file,) if address.file else ())
    place = folder_of(cache) / _FOLDER / address.repo.replace("/", "--")
    try:
        model = HubModel(address=address, asked=address.revision, files={})
        if not (address.is_commit and _is_whole(place / address.revision, wanted)):
            model = look_up(address)
    except OfflineError:
        kept = _kept_commits(place).get(address.revision)
        if kept is None or not _is_whole(place / kept, wanted):
            raise
        _log.info("%s: the Hub cannot be asked, so that commit %s is taken", address, kept)
        return place / kept
    folder = place / model.address.revision
    for path in wanted:
        _bring(model, path, folder, progress=progress)
    _keep_commit(place, model)
    return folder


def _bring(model: HubModel, path: str, folder: Path, *, progress: bool) -> None:
    target = folder / path
    if model.files == {} and is_as_made(target):
        return
    if path not in model.files:
        some = ", ".join(sorted(model.files)[:12]) or "none"
        raise DownloadError(f"{model.address}: it has no file {path!r}; it has {some}")
    file = model.files[path]
    make_folder(target.parent)
    if file.sha256 is None and (file.size or 0) <= _LARGEST_TEXT and file.blob:
        if not is_as_made(target):
            _bring_small(model, file, target)
        return
    remote = RemoteFile(
        url=model.address.url_of(path), filename=target.name, sha256=file.sha256, size=file.size
    )
    Fetch(remote, target.parent, Settings(), progress=progress).run()


def _bring_small(model: HubModel, file: HubFile, target: Path) -> None:
    """A file that Git keeps, checked by Git's own identifier of it."""
    address = replace(model.address, file=file.path)
    url = address.url_of(file.path)
    content = _small(endpoint() + url.removeprefix(HUB), address, _LARGEST_TEXT)
    header = b"blob %d\0" % len(content)
    if hashlib.sha1(header + content, usedforsecurity=False).hexdigest() != file.blob:
        msg = f"{address}: the bytes are not those of Git's blob {file.blob}"
        raise ChecksumError(f"{msg}. {_placing(address)}")
    with write_atomically(target) as part:
        part.write_bytes(content)
    remember_made(target)


def _is_whole(folder: Path, files: tuple[str, ...]) -> bool:
    """Whether a commit is here, with the bytes that were checked when they came."""
    return bool(files) and all(is_as_made(folder / path) for path in files)


def _kept_commits(place: Path) -> dict[str, str]:
    """Branch or tag to the commit that was fetched of it last."""
    try:
        kept = json.loads((place / "refs.json").read_bytes()[: 1 << 16])
        return {k: v for k, v in kept.items() if isinstance(v, str) and _COMMIT.fullmatch(v)}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


def _keep_commit(place: Path, model: HubModel) -> None:
    if model.address.revision == model.asked:
        return
    kept = {**_kept_commits(place), model.asked: model.address.revision}
    with write_atomically(place / "refs.json", durable=False) as part:
        part.write_text(json.dumps(kept, indent=1), "utf-8")


def _small(url: str, address: HubAddress, most: int) -> bytes:
    """The body of a short answer of the Hub."""
    try:
        if hub_is_offline():
            raise SourceFailure("the settings forbid to ask the Hub", kind=OfflineError)
        with tempfile.TemporaryDirectory() as name:
            partial = Partial(Path(name), "answer", url)
            facts = RemoteFile(url=HUB, filename="answer")
            settings = replace(_ASKING, largest=most)
            HttpTransfer(url, partial, facts, settings, lambda _done, _total: None).run()
            return partial.path.read_bytes()
    except SourceFailure as failure:
        raise failure.kind(f"{address}: {failure.reason}. {_placing(address)}") from failure


def _placing(address: HubAddress) -> str:
    """What a user without this network can do."""
    file = address.file or "model.safetensors"
    return (
        f"To continue without this network, download {address.url_of(file)} elsewhere (and the "
        "config.json beside it) and run `xrv weights add FILE --name NAME`, or set HF_ENDPOINT to "
        "a mirror of the Hub"
    )

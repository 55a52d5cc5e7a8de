"""Weights from anywhere under a name of the user's own: read safely once, kept as safetensors."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from torchxrayvision.checkpoints import read_tensors, save_safetensors, state_dict_of
from torchxrayvision.errors import (
    CheckpointError,
    ChecksumError,
    DownloadError,
    WeightsError,
)
from torchxrayvision.facts import License, RemoteFile
from torchxrayvision.files import write_atomically
from torchxrayvision.models.factory import load_checkpoint
from torchxrayvision.models.pretrained import (
    fetch_beside,
    from_pretrained,
    reader_of,
    save_pretrained,
)
from torchxrayvision.remote import (
    HubAddress,
    cache_dir,
    fetch_from_hub,
    look_up,
    make_folder,
    remember_made,
    sha256_once,
    verify,
)
from torchxrayvision.weights import (
    CARD_NAME,
    CONFIG_NAME,
    TENSORS_NAME,
    ModelCard,
    ModelConfig,
    Weights,
    list_weights,
    own_folder,
    with_license,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchxrayvision.models.base import XRayModel
    from torchxrayvision.remote import HubModel

_CHECKPOINTS: Final = (".pt", ".pth", ".bin", ".ckpt")
_SHARDS: Final = ".index.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Added:
    """What `add_weights` did.

    Args:
        name: By which the weights are found now.
        path: The file of tensors in the cache.
        sha256: Of it.
        published: Whether the file is one that the package knows; it lies at its place then.
        targets: Names of the outputs.
        license: The terms that were stated.
    """

    name: str
    path: Path
    sha256: str
    published: bool
    targets: tuple[str, ...]
    license: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Source:
    """A file on this machine, the configuration beside it, and where it came from."""

    path: Path
    folder: Path | None
    provenance: dict[str, Any]
    license: License | None = None


def add_weights(
    source: str | Path,
    name: str = "",
    *,
    like: str | None = None,
    targets: Sequence[str] | None = None,
    input_resolution: int | None = None,
    license: License | None = None,  # noqa: A002 - its name
    overwrite: bool = False,
) -> Added:
    """Bring weights into the cache under a name that `--weights` and `get_model` take.

    A file that the package knows by its SHA-256 is put where `get_model` looks for it. Any other
    is read by the safe reader, put into its network and kept as safetensors, with where it came
    from; nothing in it is executed.

    Args:
        source: A file of one of the network's formats (whole modules, state dictionaries,
            DataParallel and Lightning checkpoints, safetensors), a folder of `save_pretrained`,
            the folder of a release of an encoder or zero-shot network, or
            ``hf://owner/name@revision/file``.
        name: What it is called from now on. That of published weights means this file is theirs.
        like: Published weights whose targets, resolution and operating points apply. Of an encoder
            or zero-shot network: the release that the tensors have the form of; its configuration
            and tokeniser are taken from beside the tensors.
        targets: Names of the outputs, where neither the file nor `like` says.
        input_resolution: Side in pixels that the network was trained at, likewise.
        license: Terms, where nothing else states them.
        overwrite: Replace weights that were added under that name.

    Returns:
        What was done.

    Raises:
        CheckpointError: If the file holds no network of this package.
        ChecksumError: If it is said to be published weights and is not.
        UnknownNameError: If the name is malformed.
        WeightsError: If it is missing or taken.
        RemoteError: If it cannot be fetched from the Hub.
    """
    found = _located(str(source), _companions(like) or _companions(name))
    digest = sha256_once(found.path)
    known = next((e for e in list_weights() if e.file.sha256 == digest), None)
    known = known or _registered(name)
    if known is not None:
        return _put_in_place(known, found, digest)
    if not name:
        raise WeightsError(f"{source}: give the weights a name: --name NAME")
    target = own_folder(name)
    if (target / CONFIG_NAME).exists() and not overwrite:
        msg = f"weights {name!r} were added before: choose another name, or --overwrite"
        raise WeightsError(msg)
    model = _read(found, like, targets, input_resolution)
    model.weights = name
    config = _facts(model, found, digest, license, like)
    with tempfile.TemporaryDirectory() as made:
        save_pretrained(model, made, facts=config)  # whole before anything of before goes
        config = write_card(Path(made), name)
        if target.exists():
            shutil.rmtree(target)
        make_folder(target)
        for file in (TENSORS_NAME, CONFIG_NAME, CARD_NAME, *config.files):
            shutil.copyfile(Path(made) / file, target / file)
            remember_made(target / file)
    return Added(
        name=name,
        path=target / TENSORS_NAME,
        sha256=config.sha256 or "",
        published=False,
        targets=config.targets,
        license=config.license.name if config.license else "",
    )


def write_card(folder: Path, name: str = "") -> ModelConfig:
    """Write `README.md` beside a saved model: its card, with the metadata that the Hub reads.

    Args:
        folder: A folder of `save_pretrained`.
        name: What the card calls it; the name of its weights by default.

    Returns:
        What its `config.json` says.
    """
    config = ModelConfig.read(folder / CONFIG_NAME)
    with write_atomically(folder / CARD_NAME) as part:
        part.write_text(ModelCard.of_config(config, name).to_hub(), "utf-8")
    return config


def _registered(name: str) -> Weights | None:
    return next((e for e in list_weights() if name and name in (e.name, *e.aliases)), None)


def _companions(name: str | None) -> tuple[RemoteFile, ...]:
    """The files that a release of that name has beside its tensors."""
    entry = _registered(name or "")
    return entry.companions if entry else ()


def _put_in_place(entry: Weights, found: _Source, digest: str) -> Added:
    """A published file, copied to where the cache has it, with those that the release has beside.

    What lies beside a file counts only where it has the name that the release gives it.
    """
    if not isinstance(entry.file, RemoteFile):
        raise WeightsError(f"weights {entry.name!r} come with the package: choose another name")
    wanted = {found.path: entry.file}
    if found.path.name == TENSORS_NAME:
        for file in entry.companions:
            wanted[found.path.with_name(file.url.rpartition("/")[2])] = file
    for path, file in wanted.items():
        if path != found.path and not path.is_file():
            continue
        seen = verify(path, file)
        if not seen.ok:
            raise ChecksumError(f"{path} is not the file of {entry.name}: {seen.reason}")
    folder = cache_dir()
    make_folder(folder)
    for path, file in wanted.items():
        target = folder / file.filename
        if path.is_file() and not (target.exists() and target.samefile(path)):
            with write_atomically(target) as part:
                shutil.copyfile(path, part)
    return Added(
        name=entry.name,
        path=folder / entry.file.filename,
        sha256=digest,
        published=True,
        targets=entry.targets,
        license=entry.license.name,
    )


def _located(source: str, beside: tuple[RemoteFile, ...]) -> _Source:
    if source.startswith("hf://"):
        return _from_hub(HubAddress.parse(source), beside)
    path = Path(source).expanduser()
    if path.is_dir():
        try:
            config = ModelConfig.read(path / CONFIG_NAME)
        except CheckpointError:
            if not beside or not (path / TENSORS_NAME).is_file():
                raise
            # of the release's authors, whose configuration is their own
            return _Source(path=path / TENSORS_NAME, folder=None, provenance={"source": path.name})
        return _Source(
            path=path / TENSORS_NAME, folder=path, provenance=dict(config.provenance) or {}
        )
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file; name one, or hf://owner/name")
    return _Source(path=path, folder=None, provenance={"source": path.name})


def _from_hub(address: HubAddress, beside: tuple[RemoteFile, ...]) -> _Source:
    model = look_up(address)
    ours = not address.file and not beside and {CONFIG_NAME, TENSORS_NAME} <= set(model.files)
    wanted = TENSORS_NAME if ours else chosen_file(model)
    names = (file.url.rpartition("/")[2] for file in beside)
    others = (CONFIG_NAME,) if ours else tuple(n for n in names if n in model.files)
    folder = fetch_from_hub(model.address, (*others, wanted))
    if ours:
        try:
            fetch_beside(model.address, folder)
        except CheckpointError:  # of another library: only its tensors are of use
            ours = False
    stated = License(
        name=_license_name(model.license),
        url=f"https://huggingface.co/{address.repo}",
        commercial=False if "-nc" in model.license else None,
        note="The licence that the card on the Hub names.",
    )
    return _Source(
        path=folder / wanted,
        folder=folder if ours else None,
        provenance={
            "source": str(HubAddress(address.repo, model.asked, wanted)),
            "commit": model.address.revision,
        },
        license=stated if model.license not in ("", "other", "unknown") else None,
    )


def _license_name(identifier: str) -> str:
    """The name that the package has for a licence of the Hub."""
    known = {"apache-2.0": "Apache-2.0", "mit": "MIT", "cc0-1.0": "CC0-1.0"}
    if identifier.startswith("cc-by"):
        words = identifier.upper().removeprefix("CC-").rsplit("-", 1)
        return f"CC {' '.join(words)}"
    return known.get(identifier, identifier)


def chosen_file(model: HubModel) -> str:
    """The file of tensors of a model on the Hub that names none.

    Args:
        model: What the Hub says that it holds.

    Raises:
        DownloadError: If there is none, or several.
    """
    if model.address.file:
        return model.address.file
    if any(name.endswith(_SHARDS) for name in model.files):
        msg = f"{model.address}: its tensors lie in several parts, which no network here needs"
        raise DownloadError(msg)
    for endings in ((TENSORS_NAME,), (".safetensors",), ("pytorch_model.bin",), _CHECKPOINTS):
        fitting = sorted(name for name in model.files if name.endswith(endings))
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            listed = ", ".join(fitting[:12])
            raise DownloadError(f"{model.address}: name one of its files behind a slash: {listed}")
    listed = ", ".join(sorted(model.files)[:12]) or "nothing"
    raise DownloadError(f"{model.address}: it holds no file of tensors; it holds {listed}")


def _read(
    found: _Source, like: str | None, targets: Sequence[str] | None, side: int | None
) -> XRayModel:
    if found.folder is not None:
        return from_pretrained(found.folder)
    if targets is not None and like is not None:
        raise WeightsError("--like names the outputs already: leave --targets out")
    model = read_network(found.path, like, targets, side)
    if len(set(filter(None, model.targets))) != len([t for t in model.targets if t]):
        raise CheckpointError(f"{found.path}: targets repeat: {', '.join(model.targets)}")
    return model


def read_network(
    path: Path,
    like: str | None = None,
    targets: Sequence[str] | None = None,
    input_resolution: int | None = None,
) -> XRayModel:
    """The network in a file of the user's own, of whatever kind it is.

    Args:
        path: The file.
        like: As in `add_weights`.
        targets: Likewise.
        input_resolution: Likewise.

    Raises:
        CheckpointError: If the file holds no network of this package.
    """
    autoencoder = reader_of(path)
    if autoencoder is not None:
        drawing: XRayModel = autoencoder(path)
        return drawing
    return load_checkpoint(path, weights=like, targets=targets, input_resolution=input_resolution)


def _facts(
    model: XRayModel,
    found: _Source,
    digest: str,
    license: License | None,  # noqa: A002 - its name
    like: str | None,
) -> ModelConfig:
    config = ModelConfig(architecture="", targets=tuple(model.targets))
    if found.folder is not None:
        config = ModelConfig.read(found.folder / CONFIG_NAME)
    else:
        container = read_tensors(found.path).container
        provenance = {**found.provenance, "sha256": digest, "container": container}
        config = replace(config, provenance=provenance)
    if like is not None and (entry := _registered(like)) is not None:
        config = replace(config, trained_on=entry.trained_on, reference=entry.reference)
    provenance = {**found.provenance, **config.provenance}
    config = replace(config, license=config.license or found.license, provenance=provenance)
    return with_license(config, license, found.path.name)


def convert(source: str | Path, output: str | Path, *, limits: Any = None) -> dict[str, Any]:
    """Write the tensors of any checkpoint as safetensors, once, with where they came from.

    Args:
        source: A file that the safe reader takes; nothing in it is executed.
        output: The file to write; replaced if it exists.
        limits: Bounds on what the file may declare; the reader's own by default.

    Returns:
        The provenance that the header holds: name and SHA-256 of the source, its container, how
        many tensors, what was left out, and numbers and words that lay beside them.

    Raises:
        CheckpointError: If the file holds no readable tensors, or several networks.

    Example:
        >>> import torch
        >>> folder = Path(tempfile.mkdtemp())
        >>> torch.save({"epoch": 3, "state_dict": {"w": torch.ones(2)}}, folder / "net.pt")
        >>> convert(folder / "net.pt", folder / "net.safetensors")["values"]
        {'epoch': 3}
        >>> read_tensors(folder / "net.safetensors").tensors
        {'w': tensor([1., 1.])}
    """
    source = Path(source)
    checkpoint = read_tensors(source) if limits is None else read_tensors(source, limits=limits)
    tensors = state_dict_of(checkpoint)
    header = {k: v for k, v in checkpoint.values.items() if checkpoint.container == "safetensors"}
    made = {
        "source": source.name,
        "sha256": sha256_once(source),
        "container": checkpoint.container,
        "tensors": len(tensors),
        "left_out": sorted(set(checkpoint.skipped)),
        "values": {} if header else checkpoint.values,
    }
    words = {name: value for name, value in header.items() if isinstance(value, str)}
    note = json.dumps(made, default=str)
    save_safetensors(Path(output), tensors, {**words, "format": "pt", "provenance": note})
    return made

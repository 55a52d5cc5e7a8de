"""Saved networks on the Hugging Face Hub: exported with a card, and uploaded if there are terms."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchxrayvision.errors import OfflineError, RemoteError, WeightsError, needs_package
from torchxrayvision.facts import License, OwnFile
from torchxrayvision.files import write_atomically
from torchxrayvision.models.adding import read_network, write_card
from torchxrayvision.models.factory import network_with
from torchxrayvision.models.pretrained import from_pretrained, save_pretrained
from torchxrayvision.remote import HubAddress, hub_is_offline, hub_token, sha256_once
from torchxrayvision.remote import endpoint as hub_endpoint
from torchxrayvision.weights import (
    CARD_NAME,
    CONFIG_NAME,
    NOT_STATED,
    TENSORS_NAME,
    ModelConfig,
    get_weights_entry,
    with_license,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torchxrayvision.models.base import XRayModel

FILES = (CONFIG_NAME, TENSORS_NAME, CARD_NAME)


@dataclass(frozen=True, kw_only=True, slots=True)
class Upload:
    """What `push_to_hub` sends, or would send.

    Args:
        repo: Owner and name on the Hub.
        private: Whether only its owner sees it.
        license: The terms that the card states.
        files: Name to bytes and SHA-256.
        url: Of the commit; ``""`` of a dry run.
    """

    repo: str
    private: bool
    license: str
    files: dict[str, tuple[int, str]]
    url: str = ""


def export_hub(
    model: XRayModel | str | Path,
    folder: str | Path,
    *,
    license: License | None = None,  # noqa: A002 - its name
) -> ModelConfig:
    """Write a model as the Hub keeps it: `config.json`, `model.safetensors` and a card.

    A network that takes texts has the files of its tokeniser and `prompts.json` too.

    Args:
        model: A network, a name of weights, a file of your own, or a folder of `save_pretrained`.
        folder: Where to; these files are replaced.
        license: Terms, where the model states none.

    Returns:
        What `config.json` says.

    Raises:
        CheckpointError: If it is no network that can be read back.
        UnknownNameError: If nothing has that name.
        WeightsError: If it is under other terms.
    """
    folder = Path(folder)
    facts, network = _loaded(model)
    config = save_pretrained(network, folder, facts=facts)
    if license is not None:
        config = with_license(config, license, str(config.weights or model)[:80])
        with write_atomically(folder / CONFIG_NAME) as part:
            part.write_text(config.to_json(), "utf-8")
    return write_card(folder)


def _loaded(model: XRayModel | str | Path) -> tuple[ModelConfig | None, XRayModel]:
    if not isinstance(model, str | Path):
        return None, model
    path = Path(model)
    if (path / CONFIG_NAME).is_file():
        return ModelConfig.read(path / CONFIG_NAME), from_pretrained(path)
    if path.is_file():
        return None, read_network(path)
    entry = get_weights_entry(str(model))
    if isinstance(entry.file, OwnFile):
        kept = Path(entry.file.folder)
        return ModelConfig.read(kept / CONFIG_NAME), from_pretrained(kept)
    return None, network_with(entry)


def push_to_hub(
    model: XRayModel | str | Path,
    repo: str,
    *,
    private: bool = True,
    license: License | None = None,  # noqa: A002 - its name
    message: str = "",
    dry_run: bool = False,
) -> Upload:
    """Upload a model with its card (extra `hub`); nothing leaves without terms.

    Args:
        model: See `export_hub`.
        repo: ``"owner/name"`` on the Hub; made if it is missing.
        private: Whether a repository that is made is seen by its owner only.
        license: Terms, where the model states none.
        message: Of the commit.
        dry_run: Say what would be uploaded, and ask nobody.

    Returns:
        What was uploaded.

    Raises:
        UnknownNameError: If `repo` is no name on the Hub.
        WeightsError: If no terms are stated.
        OfflineError: If the Hub may not be asked.
        RemoteError: If there is no token, or the Hub refuses.
        DependencyError: If huggingface_hub is missing.
    """
    address = HubAddress.parse(repo)
    if address != HubAddress(address.repo):
        raise WeightsError(f"{repo!r} names a revision or a file: write owner/name")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = export_hub(model, folder, license=license)
        if config.license is None or config.license.name == NOT_STATED.name:
            msg = f"{config.weights or model}: nobody may use what states no terms"
            raise WeightsError(f"{msg}: give --license NAME (and --license-url)")
        names = (*FILES, *config.files)
        files = {f: ((folder / f).stat().st_size, sha256_once(folder / f)) for f in names}
        upload = Upload(
            repo=address.repo, private=private, license=config.license.name, files=files
        )
        if dry_run:
            return upload
        words = message or f"Upload {config.weights or 'a model'} with torchxrayvision"
        return replace(upload, url=_send(folder, upload, words))


def _send(folder: Path, upload: Upload, message: str) -> str:
    repo = upload.repo
    if hub_is_offline():
        raise OfflineError(f"{repo}: the settings forbid to ask the Hub; --dry-run asks nobody")
    token = hub_token()
    if token is None:
        msg = f"{repo}: the Hub takes uploads with a token only; set HF_TOKEN or run"
        raise RemoteError(f"{msg} `hf auth login`")
    with needs_package("huggingface_hub", "Publishing on the Hub", "hub"):
        import huggingface_hub
    client = huggingface_hub.HfApi(endpoint=hub_endpoint(), token=token)
    with _typed(repo, token):
        client.create_repo(repo, private=upload.private, exist_ok=True)
        done: Any = client.upload_folder(
            repo_id=repo,
            folder_path=folder,
            commit_message=message,
            allow_patterns=list(upload.files),
        )
    return str(getattr(done, "commit_url", done))


@contextlib.contextmanager
def _typed(repo: str, token: str) -> Iterator[None]:
    """Errors of the client as one of this package, without the token in their words."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the client raises those of its own and of httpx
        told = f"{error} ({error.__cause__})" if error.__cause__ else str(error)
        text = " ".join(told.replace(token, "***").split())[:400]
        raise RemoteError(f"{repo}: the upload failed: {text}") from None

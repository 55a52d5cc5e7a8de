"""The real Hub: what it states is what the package pins. Run with `pytest -m network`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from torchxrayvision.errors import DownloadError
from torchxrayvision.remote import HubAddress, fetch, fetch_from_hub, look_up
from torchxrayvision.weights import DenseNet121_Weights, EVAX_Weights, EVAXDenseNet_Weights

pytestmark = pytest.mark.network

HUB = "https://huggingface.co/"
ENTRIES = [member.value for enum in (EVAX_Weights, EVAXDenseNet_Weights) for member in enum]


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_hub_states_the_hash_of_the_registry(entry):
    owner, name, *_, path = entry.url.removeprefix(HUB).split("/")
    file = look_up(HubAddress(f"{owner}/{name}")).files[path]
    assert file.sha256 == entry.file.sha256
    assert entry.file.size in (None, file.size)


def test_small_file_comes_with_the_hash_of_git(tmp_path):
    address = HubAddress("microsoft/rad-dino")
    folder = fetch_from_hub(address, ("config.json",), cache=tmp_path, progress=False)
    assert (folder / "config.json").read_text("utf-8").startswith("{")
    at_commit = HubAddress(address.repo, folder.name)
    assert fetch_from_hub(at_commit, ("config.json",), cache=tmp_path) == folder


def test_gated_model_says_how_to_get_in(tmp_path, monkeypatch):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    with pytest.raises(DownloadError, match="accept their terms"):
        fetch_from_hub(HubAddress("google/medsiglip-448"), ("config.json",), cache=tmp_path)


def test_copies_of_core_weights_are_listed():
    for member in DenseNet121_Weights:
        for url in member.value.file.copies:
            owner, name, *_, path = url.removeprefix(HUB).split("/")
            assert path in look_up(HubAddress(f"{owner}/{name}")).files


def test_the_copy_alone_serves(tmp_path):
    """Fails with ChecksumError where the Hub holds the file in another form."""
    file = replace(DenseNet121_Weights.ALL.value.file, url="https://127.0.0.1:1/weights.pt")
    assert fetch(file, cache=tmp_path, progress=False).stat().st_size == file.size

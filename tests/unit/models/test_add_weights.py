"""Weights from anywhere under a name: files, folders, the Hub; and what leaves for the Hub."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from support.file_server import Server, Step
from support.hub_server import Hub, Repo, serving
from support.networks import published, synthetic, write
from torchxrayvision.autoencoders import CompactAE
from torchxrayvision.autoencoders import save_checkpoint as save_autoencoder
from torchxrayvision.cli import main
from torchxrayvision.errors import (
    CheckpointError,
    ChecksumError,
    LicenseWarning,
    OfflineError,
    RemoteError,
    UnknownNameError,
    UnpinnedDownloadWarning,
    WeightsError,
)
from torchxrayvision.facts import License
from torchxrayvision.models import (
    DenseNet,
    ResNet,
    UNet,
    add_weights,
    convert,
    export_hub,
    from_pretrained,
    get_model,
    load_checkpoint,
    push_to_hub,
    save_checkpoint,
    save_pretrained,
)
from torchxrayvision.runs import fingerprint
from torchxrayvision.segmentation import get_segmenter
from torchxrayvision.weights import (
    ModelCard,
    get,
    list_weights,
    own_folder,
    own_weights,
    remove_own,
)

MIT = License(name="MIT", url="https://opensource.org/license/mit")
VARIABLES = ("HF_TOKEN", "HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "XRV_MIRROR")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    for name in (*VARIABLES, "XRV_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XRV_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def hub(monkeypatch):
    with serving(Server()) as storage, serving(Hub(storage.url)) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        running.large = storage
        yield running
        storage.closing.set()


def mine(targets=("Mass", "Edema")):
    net = synthetic(ResNet(architecture="resnet18-width8", num_classes=len(targets)))
    net.targets, net.input_resolution = list(targets), 64
    net.set_operating_points([0.25] * len(targets))
    return net


@pytest.fixture
def file(tmp_path):
    """A file that training wrote."""
    path = tmp_path / "best.safetensors"
    save_checkpoint(mine(), path)
    return path


def answers(net, side=64):
    x = torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(1)) * 2048 - 1024
    with torch.inference_mode():
        return net(x)


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["xrv", "weights", *map(str, words)])
    try:
        main()
    except SystemExit as ended:
        return ended.code or 0
    return 0


# ---- added from a file ------------------------------------------------------------------------


def test_name_is_found_wherever_a_name_is_taken(file, cache):
    done = add_weights(file, "hospital-2026", license=MIT)
    assert done.path == cache / "own" / "hospital-2026" / "model.safetensors"
    assert done.sha256 == hashlib.sha256(done.path.read_bytes()).hexdigest()
    net = get_model("hospital-2026", compat=None)
    assert torch.equal(answers(net), answers(load_checkpoint(file)))
    assert (net.weights, net.targets) == ("hospital-2026", ["Mass", "Edema"])
    assert torch.equal(answers(ResNet(weights="hospital-2026")), answers(net))
    entry = get("hospital-2026")
    assert (entry.license.name, entry.architecture) == ("MIT", "resnet18-width8")
    assert [w.name for w in own_weights()] == ["hospital-2026"]
    assert entry not in list_weights(), "published weights stay what they are"


def test_provenance_says_where_it_came_from(file, cache):
    add_weights(file, "one")
    held = json.loads((cache / "own/one/config.json").read_text())["provenance"]
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert held == {"source": file.name, "sha256": digest, "container": "safetensors"}


@pytest.mark.parametrize("legacy", [False, True])
def test_pickled_checkpoint_becomes_safetensors_and_executes_nothing(tmp_path, cache, legacy):
    net = DenseNet(growth_rate=32, num_classes=2)
    path = tmp_path / "whole.pt"
    torch.save(synthetic(net), path, _use_new_zipfile_serialization=not legacy)
    add_weights(path, "whole", targets=["Mass", "Edema"], input_resolution=64)
    assert (cache / "own/whole/model.safetensors").read_bytes()[8:9] == b"{"
    again = get_model("whole")
    assert again.output_kind == "probability"
    expected = load_checkpoint(path, targets=["Mass", "Edema"], input_resolution=64)
    assert torch.equal(answers(again), answers(expected))


def test_segmentation_networks_are_found_too(tmp_path):
    net = synthetic(UNet(targets=["Left Lung", "Heart"], width=4))
    net.weights, net.input_resolution = "x", 64
    save_pretrained(net, tmp_path / "saved")
    add_weights(tmp_path / "saved", "lungs", license=MIT)
    for found in (get_segmenter("lungs"), get_model("lungs"), UNet("lungs")):
        assert torch.equal(answers(found), answers(net))


def test_autoencoder_that_training_wrote(tmp_path):
    net = synthetic(CompactAE(width=4, code=3))
    save_autoencoder(net, tmp_path / "best.safetensors")
    add_weights(tmp_path / "best.safetensors", "drawn")
    again = get_model("drawn")
    assert torch.equal(answers(again)["out"], answers(net.eval())["out"])


def test_published_file_is_known_by_its_hash_and_put_in_its_place(tmp_path, cache, monkeypatch):
    entry = published("nih", tmp_path)
    fake_registry(monkeypatch, entry)
    away = (tmp_path / entry.file.filename).rename(tmp_path / "download.bin")
    done = add_weights(away)
    assert (done.name, done.published) == (entry.name, True)
    assert done.path == cache / entry.file.filename
    assert done.path.read_bytes() == away.read_bytes()


def test_file_said_to_be_published_must_be_it(file, tmp_path, monkeypatch):
    with pytest.raises(ChecksumError, match="not the file of densenet121-res224-all"):
        add_weights(file, "all")
    with pytest.raises(WeightsError, match="come with the package"):
        add_weights(file, "demo")
    # where nobody has published a hash, the user's word is taken, and the file is pinned at use
    done = add_weights(write("rsna", tmp_path), "rsna")
    assert done.published
    with pytest.warns(UnpinnedDownloadWarning, match="found in"):
        assert get_model("rsna").weights == "densenet121-res224-rsna"


def fake_registry(monkeypatch, entry):
    from torchxrayvision.models import adding

    monkeypatch.setattr(adding, "list_weights", lambda: [entry])


def test_like_published_weights(tmp_path):
    net = synthetic(DenseNet(num_classes=18))
    torch.save(net.state_dict(), tmp_path / "again.pt")
    add_weights(tmp_path / "again.pt", "again", like="all")
    assert get("again").operating_points == pytest.approx(get("all").operating_points, rel=1e-6)
    assert get_model("again").targets == list(get("all").targets)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".x", "x" * 65, "a b", "a\nb", "CON..x"])
def test_odd_names_are_refused(file, cache, name):
    with pytest.raises((UnknownNameError, WeightsError)):
        add_weights(file, name)
    assert not (cache / "own").exists()


def test_name_that_was_added_is_kept_unless_asked(file, tmp_path):
    first = add_weights(file, "one")
    save_checkpoint(mine(("Nodule", "Hernia")), tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="--overwrite"):
        add_weights(tmp_path / "other.safetensors", "one")
    assert get("one").targets == ("Mass", "Edema")
    add_weights(tmp_path / "other.safetensors", "one", overwrite=True)
    assert get("one").targets == ("Nodule", "Hernia")
    assert get("one").file.sha256 != first.sha256


def test_what_is_no_network_is_not_added(tmp_path, cache):
    torch.save({"x": torch.zeros(3)}, tmp_path / "x.pt")
    (tmp_path / "page.pt").write_text("<!doctype html>")
    for name in ("x.pt", "page.pt", "none.pt"):
        with pytest.raises(CheckpointError):
            add_weights(tmp_path / name, "one")
    assert not (cache / "own" / "one").exists()


@pytest.mark.parametrize("part", ["model.safetensors", "config.json"])
def test_files_that_were_changed_since_are_refused(file, cache, part):
    add_weights(file, "one")
    place = cache / "own/one" / part
    content = bytearray(place.read_bytes())
    content[-10] ^= 1
    place.write_bytes(content)
    with pytest.raises((ChecksumError, CheckpointError)):
        get_model("one")


def test_removed_is_gone(file, cache):
    add_weights(file, "one")
    remove_own("one")
    with pytest.raises(UnknownNameError):
        get("one")
    with pytest.raises(UnknownNameError):
        remove_own("../cache")
    assert cache.exists()


# ---- added from the Hub -----------------------------------------------------------------------


def serve(hub, repo, folder, **facts):
    files = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    hub.repos[repo] = Repo(files, **facts)
    large = next((v for k, v in files.items() if k.endswith((".safetensors", ".pt"))), b"")
    hub.large.script(Step(body=large, span=len(large)))


def test_saved_model_of_the_hub(hub, tmp_path, cache):
    save_pretrained(mine(), tmp_path / "saved")
    serve(hub, "org/net", tmp_path / "saved", license="cc-by-nc-4.0")
    done = add_weights("hf://org/net@v1", "theirs")
    assert done.license == "CC BY-NC 4.0"
    held = json.loads((cache / "own/theirs/config.json").read_text())["provenance"]
    assert (held["source"], held["commit"]) == ("hf://org/net@v1/model.safetensors", "a" * 40)
    with pytest.warns(LicenseWarning, match="no commercial use"):
        assert torch.equal(answers(get_model("theirs")), answers(mine()))
    again = from_pretrained("org/net")
    assert fingerprint(again) == fingerprint(from_pretrained(tmp_path / "saved"))


def test_without_the_network_what_was_added_works(hub, tmp_path, monkeypatch):
    save_pretrained(mine(), tmp_path / "saved")
    serve(hub, "org/net", tmp_path / "saved")
    add_weights("hf://org/net", "theirs")
    monkeypatch.setenv("XRV_OFFLINE", "1")
    hub.requests.clear()
    assert get_model("theirs").targets == ["Mass", "Edema"]
    assert hub.requests == []
    with pytest.raises(OfflineError, match="xrv weights add FILE --name NAME"):
        add_weights("hf://org/other", "other")


def test_gated_model_wants_the_token_and_is_pinned(hub, tmp_path, monkeypatch):
    save_pretrained(mine(), tmp_path / "saved")
    serve(hub, "org/net", tmp_path / "saved", gated=True)
    hub.repos["org/net"].states["model.safetensors"] = {"sha256": None}
    with pytest.raises(RemoteError, match="accept their terms"):
        add_weights("hf://org/net", "theirs")
    monkeypatch.setenv("HF_TOKEN", hub.token)
    with pytest.warns(UnpinnedDownloadWarning, match="trusted as it is"):
        done = add_weights("hf://org/net", "theirs")
    assert done.sha256 == hashlib.sha256(done.path.read_bytes()).hexdigest()
    assert not any("Authorization" in headers for _, headers in hub.large.requests)


def test_checkpoint_of_another_library_on_the_hub(hub, tmp_path):
    folder = tmp_path / "repo"
    folder.mkdir()
    torch.save(mine().state_dict(), folder / "model.pt")
    (folder / "config.json").write_text('{"model_type": "resnet"}')
    serve(hub, "org/net", folder)
    add_weights("hf://org/net", "theirs", targets=["Mass", "Edema"], input_resolution=64)
    assert get("theirs").targets == ("Mass", "Edema")


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({"model.safetensors.index.json": b"{}", "model-1-of-2.safetensors": b""}, "several parts"),
        ({"a.safetensors": b"", "b.safetensors": b""}, "name one of its files"),
        ({"README.md": b""}, "no file of tensors"),
    ],
)
def test_model_without_one_file_says_which_there_are(hub, files, word):
    hub.repos["org/net"] = Repo(files)
    with pytest.raises(RemoteError, match=word):
        add_weights("hf://org/net", "theirs")


# ---- converted --------------------------------------------------------------------------------


def test_conversion_keeps_tensors_words_and_origin(tmp_path):
    net = mine()
    torch.save({"epoch": 3, "state_dict": net.state_dict()}, tmp_path / "last.ckpt")
    made = convert(tmp_path / "last.ckpt", tmp_path / "last.safetensors")
    assert made["values"] == {"epoch": 3}
    assert made["sha256"] == hashlib.sha256((tmp_path / "last.ckpt").read_bytes()).hexdigest()
    first = (tmp_path / "last.safetensors").read_bytes()
    convert(tmp_path / "last.ckpt", tmp_path / "last.safetensors")
    assert (tmp_path / "last.safetensors").read_bytes() == first
    again = load_checkpoint(tmp_path / "last.safetensors", input_resolution=64)
    assert torch.equal(
        answers(again), answers(load_checkpoint(tmp_path / "last.ckpt", input_resolution=64))
    )


def test_conversion_of_our_own_file_keeps_its_header(file, tmp_path):
    convert(file, tmp_path / "again.safetensors")
    assert load_checkpoint(tmp_path / "again.safetensors").targets == ["Mass", "Edema"]


# ---- cards and export -------------------------------------------------------------------------


@pytest.mark.parametrize("name", [w.name for w in list_weights()])
def test_every_card_is_valid_on_the_hub(name):
    card = ModelCard.of(name)
    json.dumps(card.to_dict(), allow_nan=False)
    text = card.to_hub()
    assert card.license.name in text
    assert all(target in text for target in card.targets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = pytest.importorskip("huggingface_hub").ModelCard(text)
    data = read.data.to_dict()
    assert data["library_name"] == "torchxrayvision"
    assert data.get("license", "other") == "other" or data["license"] == data["license"].lower()
    assert ("license" in data) == (card.license.name != "not stated")
    if card.metrics:
        assert read.data.eval_results, "the Hub reads the figures"
    assert card.to_markdown() in text


def test_export_reads_back_to_the_same(file, tmp_path):
    add_weights(file, "one", license=MIT)
    export_hub("one", tmp_path / "hub")
    assert sorted(p.name for p in (tmp_path / "hub").iterdir()) == [
        "README.md", "config.json", "model.safetensors",
    ]  # fmt: skip
    again = from_pretrained(tmp_path / "hub")
    assert fingerprint(again) == fingerprint(get_model("one"))
    add_weights(tmp_path / "hub", "two")
    files = [get(name).file.sha256 for name in ("one", "two")]
    assert files[0] == files[1]
    assert get("two").license == MIT


def test_demonstration_weights_stay_demonstrations(tmp_path, monkeypatch):
    with pytest.warns(UserWarning, match="demonstration"):
        export_hub("demo", tmp_path / "hub")
    add_weights(tmp_path / "hub", "mine")
    assert get("mine").cell_maps == get("demo").cell_maps
    with pytest.warns(UserWarning, match="mine: demonstration"):
        assert get_model("mine").targets == list(get("demo").targets)


@pytest.mark.filterwarnings("ignore::torchxrayvision.errors.DemonstrationWarning")
def test_figures_of_the_former_outputs_do_not_travel_with_new_ones(tmp_path):
    net = get_model("demo")
    net.reset_classifier(2, ["Effusion", "Silicosis"])
    saved = save_pretrained(net, tmp_path / "saved")
    assert saved.metrics == {}
    assert saved.provenance["weights"] == "resnet18-res144-demo"
    added = add_weights(tmp_path / "saved", "mine")
    assert added.targets == ("Effusion", "Silicosis")
    assert added.license == "Apache-2.0"
    assert get_model("mine").targets == ["Effusion", "Silicosis"]
    assert not ModelCard.of("mine").metrics
    assert save_pretrained(get_model("demo"), tmp_path / "as it was").metrics


def test_terms_that_are_stated_are_not_replaced(file, tmp_path):
    add_weights(file, "one", license=MIT)
    other = License(name="Apache-2.0")
    for action in (
        lambda: export_hub("one", tmp_path / "hub", license=other),
        lambda: push_to_hub("one", "org/net", license=other, dry_run=True),
        lambda: add_weights(own_folder("one"), "two", license=other),
    ):
        with pytest.raises(WeightsError, match="under MIT"):
            action()


# ---- published --------------------------------------------------------------------------------


def test_nothing_leaves_without_terms(file, hub):
    with pytest.raises(WeightsError, match="states no terms"):
        push_to_hub(file, "org/net", dry_run=True)
    sent = push_to_hub(file, "org/net", license=MIT, dry_run=True)
    assert (sent.private, sent.license, sent.url) == (True, "MIT", "")
    assert sorted(sent.files) == ["README.md", "config.json", "model.safetensors"]
    assert hub.requests == [], "a dry run asks nobody"


def test_upload_needs_the_network_and_a_token(file, hub, monkeypatch):
    with pytest.raises(RemoteError, match="HF_TOKEN or run `hf auth login`"):
        push_to_hub(file, "org/net", license=MIT)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OfflineError, match="--dry-run"):
        push_to_hub(file, "org/net", license=MIT)
    for repo in ("net", "hf://org/net@v1", "org/net/file.pt", "../x"):
        with pytest.raises((UnknownNameError, WeightsError)):
            push_to_hub(file, repo, license=MIT)


@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # of huggingface_hub
def test_uploaded_and_fetched_again_it_is_the_same(file, hub, monkeypatch):
    """The client of the Hub uploads, the package downloads: the whole way around."""
    # The extra asks for 1.0: older ones take no port in addresses.
    pytest.importorskip("huggingface_hub", minversion="1.0")
    constants = pytest.importorskip("huggingface_hub.constants")
    # As in a process that begins with HF_ENDPOINT: 1.0 parses answers by what it was at import.
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the server plays plain Git LFS
    monkeypatch.setenv("HF_TOKEN", hub.token)
    sent = push_to_hub(file, "org/new", license=MIT)
    assert sent.url.startswith(hub.url)
    held = hub.repos["org/new"]
    assert held.private
    assert {n: hashlib.sha256(b).hexdigest() for n, b in held.files.items()} == {
        name: digest for name, (_, digest) in sent.files.items()
    }
    stored = [headers for path, headers in hub.requests if path.startswith("/storage/")]
    assert stored
    assert not any("authorization" in map(str.lower, headers) for headers in stored)
    content = held.files["model.safetensors"]
    hub.large.script(Step(body=content, span=len(content)))
    assert fingerprint(from_pretrained("org/new")) == fingerprint(load_checkpoint(file))


class Client:
    """Stands for huggingface_hub's client."""

    calls: list = []  # noqa: RUF012 - one list for all

    def __init__(self, **given):
        self.calls.append(("client", given))

    def create_repo(self, repo, **given):
        self.calls.append(("create", repo, given))

    def upload_folder(self, **given):
        held = {p.name: p.read_bytes() for p in given["folder_path"].iterdir()}
        self.calls.append(("upload", {**given, "held": held}))
        if given["repo_id"] == "org/refused":
            raise RuntimeError("401 for Bearer hf_secret")
        return f"https://huggingface.co/{given['repo_id']}/commit/1"


def test_upload_sends_the_three_files_to_a_private_repository(file, hub, monkeypatch):
    client = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(client, "HfApi", Client)
    monkeypatch.setattr(Client, "calls", [])
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    sent = push_to_hub(file, "org/net", license=MIT)
    assert sent.url == "https://huggingface.co/org/net/commit/1"
    (_, made), (_, repo, how), (_, upload) = Client.calls
    assert made == {"endpoint": hub.url, "token": "hf_secret"}
    assert (repo, how) == ("org/net", {"private": True, "exist_ok": True})
    for name, (size, digest) in sent.files.items():
        assert hashlib.sha256(upload["held"][name]).hexdigest() == digest
        assert len(upload["held"][name]) == size
    with pytest.raises(RemoteError, match=r"upload failed: .*\*\*\*") as caught:
        push_to_hub(file, "org/refused", license=MIT)
    assert "hf_secret" not in str(caught.value)


# ---- the command line -------------------------------------------------------------------------


def test_commands_from_a_file_to_the_card(file, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "add", file, "--name", "one", "--license", "MIT") == 0
    assert "one: 2 outputs, licence MIT" in capsys.readouterr().out
    assert run(monkeypatch, "add", file, "--name", "one") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run(monkeypatch, "add", tmp_path / "none.pt", "--name", "x") == 2
    assert run(monkeypatch, "list", "--json") == 0
    assert [w["name"] for w in json.loads(capsys.readouterr().out)][-1] == "one"
    assert run(monkeypatch, "show", "one") == 0
    assert "resnet18-width8" in capsys.readouterr().out
    assert run(monkeypatch, "verify", "one") == 0
    assert "published" in capsys.readouterr().out
    assert run(monkeypatch, "card", "one", "--json") == 0
    held = json.loads(capsys.readouterr().out)
    assert (held["license"]["name"], held["hub"]["license"]) == ("MIT", "mit")
    assert run(monkeypatch, "card", "one", "--hub") == 0
    assert capsys.readouterr().out.startswith("---\n")
    assert run(monkeypatch, "export-hub", "one", tmp_path / "hub") == 0
    assert run(monkeypatch, "export-hub", "one", tmp_path / "hub") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run(monkeypatch, "push", tmp_path / "hub", "org/net", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["license"] == "MIT"
    assert run(monkeypatch, "convert", file, "-o", tmp_path / "x.safetensors") == 0
    assert run(monkeypatch, "convert", file, "-o", tmp_path / "x.pt") == 2
    assert run(monkeypatch, "remove", "one") == 0
    assert run(monkeypatch, "show", "one") == 2


COMMAND = """
import sys, time
begun = time.process_time()
from torchxrayvision.cli import main
sys.argv = ["xrv", "weights", "add", "hf://org/net", "--name", "x"]
try:
    main()
except SystemExit as ended:
    print(ended.code, time.process_time() - begun, "torch" in sys.modules)
"""


def test_without_a_network_the_command_ends_before_torch_is_loaded(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    done = subprocess.run(
        [sys.executable, "-c", COMMAND], capture_output=True, text=True, check=True
    )
    code, seconds, loaded = done.stdout.split()
    assert (code, loaded) == ("2", "False")
    assert float(seconds) < 1.0
    assert "xrv weights add FILE --name NAME" in done.stderr.replace("\n", " ")


def test_an_address_is_no_name_until_it_was_added(monkeypatch, capsys):
    assert run(monkeypatch, "show", "hf://org/net") == 2
    assert "xrv weights add" in capsys.readouterr().err


def test_terms_that_forbid_commerce_are_said_when_loaded(file):
    add_weights(file, "one", license=replace(MIT, name="CC BY-NC 4.0", commercial=False))
    with pytest.warns(LicenseWarning, match="no commercial use"):
        get_model("one")


def test_the_page_runs_from_top_to_bottom(hub, tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[3] / "docs" / "hub.md").read_text("utf-8")
    save_pretrained(mine(), tmp_path / "theirs")
    serve(hub, "hospital/chest", tmp_path / "theirs")
    monkeypatch.chdir(tmp_path)
    names = {}
    for body in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        exec(body, names)
    assert names["again"].targets == names["model"].targets == ["Mass", "Edema"]
    assert "# hospital-2026" in capsys.readouterr().out
    assert names["sent"].license == "MIT"

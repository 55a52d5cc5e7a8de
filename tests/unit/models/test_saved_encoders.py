"""Encoders and networks that take texts as saved folders: outputs, texts and tokenisers stay."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys

import pytest
import torch

from support.file_server import Server, Step
from support.hub_server import Hub, Repo, serving
from support.releases import FINDINGS, ZERO_SHOT_RELEASES, Released, dinov2, grey, put
from torchxrayvision.autoencoders import (
    CompactAE,
    get_autoencoder,
)
from torchxrayvision.autoencoders import (
    save_checkpoint as save_autoencoder,
)
from torchxrayvision.cli import main
from torchxrayvision.errors import (
    CheckpointError,
    ChecksumError,
    LicenseWarning,
    PromptError,
    UnknownNameError,
)
from torchxrayvision.facts import License
from torchxrayvision.models import (
    Encoder,
    Prompts,
    ResNet,
    ZeroShot,
    add_weights,
    export_hub,
    from_pretrained,
    get_model,
    load_checkpoint,
    push_to_hub,
    save_checkpoint,
    save_pretrained,
)
from torchxrayvision.models.vit import vit_shape
from torchxrayvision.runs import fingerprint
from torchxrayvision.weights import ModelCard, get

pytest.importorskip("timm", reason="the networks are timm's: extra models")
pytest.importorskip("tokenizers", reason="texts become numbers by it: extra zero-shot")
pytest.importorskip("transformers", reason="the reference classes: extra dev")
pytestmark = pytest.mark.filterwarnings(
    f"ignore::{LicenseWarning.__module__}.{LicenseWarning.__name__}"
)
MIT = License(name="MIT", url="https://opensource.org/license/mit")
OWN = {"Edema": Prompts(("edema", "pulmonary edema"), ("no edema",))}
TEXTS = {
    "chexficient": {"vocab.txt", "prompts.json"},
    "xrayclip": {"vocab.json", "merges.txt", "prompts.json"},
    "medsiglip-448": {"tokenizer.json", "prompts.json"},
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "XRV_MIRROR", "XRV_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XRV_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module", params=ZERO_SHOT_RELEASES)
def released(request, tmp_path_factory):
    """A network whose texts are partly of the user; the tokeniser is that of the release."""
    found = Released(request.param, tmp_path_factory.mktemp(request.param))
    found.model = ZeroShot(
        found.entry, FINDINGS, prompts=OWN, cache_dir=str(found.folder / "cache")
    )
    return found


@pytest.fixture(scope="module")
def saved(released, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    save_pretrained(released.model, folder)
    return folder


def outputs(model, side):
    with torch.inference_mode():
        return model(grey(side, 1) * 2048 - 1024)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---- networks that take texts -------------------------------------------------------------------


def test_outputs_texts_and_hash_come_back(released, saved, tmp_path):
    model, side = released.model, released.entry.input_resolution
    assert set(files(saved)) == {
        "config.json", "model.safetensors", *TEXTS[released.entry.name],
    }  # fmt: skip
    again = from_pretrained(saved)
    assert torch.equal(outputs(again, side), outputs(model, side))
    assert fingerprint(again) == fingerprint(model)
    assert (again.targets, again.prompts) == (FINDINGS, model.prompts)
    assert again.output_kind == "zero-shot"
    assert again.trained == (True,) * 3
    save_pretrained(again, tmp_path / "two")
    assert files(tmp_path / "two") == files(saved)


def test_it_looks_for_other_texts_as_the_release_does(released, saved):
    model, again = released.model, from_pretrained(saved)
    torch.testing.assert_close(again.embed_text(["mass", "no mass"]),
                               model.embed_text(["mass", "no mass"]), atol=0, rtol=0)  # fmt: skip
    again.set_findings(["edema"])
    assert again.prompts["edema"] == OWN["Edema"], "texts of one's own go before the package's"


def test_contrast_and_texts_without_negation_come_back(released, tmp_path):
    own = {"Cavity": Prompts(("cavity",)), "No Finding": Prompts(("no finding",))}
    model = ZeroShot(
        released.entry, list(own), prompts=own, contrast="findings",
        cache_dir=str(released.folder / "cache"),
    )  # fmt: skip
    save_pretrained(model, tmp_path)
    again = from_pretrained(tmp_path)
    side = released.entry.input_resolution
    assert again.contrast == "findings"
    assert torch.equal(outputs(again, side), outputs(model, side))
    with pytest.raises(PromptError, match="negative"):
        again.set_findings(list(own), contrast="negation")


def test_a_name_finds_it_with_its_texts_or_with_others(released, saved, cache):
    side = released.entry.input_resolution
    done = add_weights(saved, "mine")
    assert done.license == released.entry.license.name
    assert done.targets == tuple(FINDINGS)
    assert set(files(cache / "own" / "mine")) >= {"README.md", *files(saved)}
    expected = outputs(released.model, side)
    for found in (get_model("mine"), ZeroShot("mine")):
        assert torch.equal(outputs(found, side), expected)
        assert found.prompts["Edema"] == OWN["Edema"]
    for other in (get_model("mine", findings=["Edema"]), ZeroShot("mine", ["Edema"])):
        torch.testing.assert_close(outputs(other, side)[:, 0], expected[:, 1])
    entry = get("mine")
    assert (entry.output, entry.targets) == ("similarity", tuple(FINDINGS))
    assert ModelCard.of("mine").task == "zero-shot-image-classification"
    with pytest.raises(TypeError, match="does not take"):
        get_model("mine", num_classes=3)


def test_a_file_that_was_changed_is_refused(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "changed")
    texts = tmp_path / "changed" / "prompts.json"
    texts.write_text(texts.read_text("utf-8").replace("effusion", "effusions"), "utf-8")
    with pytest.raises(ChecksumError, match=r"prompts\.json"):
        from_pretrained(tmp_path / "changed")
    texts.unlink()
    with pytest.raises(CheckpointError, match=r"prompts\.json"):
        from_pretrained(tmp_path / "changed")


@pytest.mark.parametrize(
    "change",
    [
        {"files": {"../evil.json": "0" * 64}},
        {"files": {"model.py": "0" * 64}},
        {"files": {"prompts.json": "short"}},
        {"arguments": {}},
        {"architecture": "clip-base16-width64-depth999"},
        {"targets": ["Mass"]},
        {"argument": {"contrast": "os.system"}},
        {"argument": {"text_hidden_act": "exec"}},
        {"argument": {"deviation": 0}},
        {"argument": {"crop": 1 << 40}},
    ],
)
def test_a_configuration_of_a_stranger_is_checked(change, tmp_path):
    torch.manual_seed(0)
    model = ZeroShot(architecture="clip-base16-width64-depth1")
    save_pretrained(model, tmp_path)
    held = json.loads((tmp_path / "config.json").read_text())
    for name, value in change.pop("argument", {}).items():
        held["arguments"][name] = value
    (tmp_path / "config.json").write_text(json.dumps({**held, **change}))
    with pytest.raises(CheckpointError):
        from_pretrained(tmp_path)


def test_without_findings_and_tokeniser_it_is_saved_too(tmp_path):
    torch.manual_seed(0)
    model = ZeroShot(architecture="siglip-so400m14-width64-depth1").eval()
    config = save_pretrained(model, tmp_path)
    assert (config.targets, dict(config.files)) == ((), {})
    again = from_pretrained(tmp_path)
    with torch.inference_mode():
        x = grey(448, 1) * 2048 - 1024
        assert torch.equal(again.embed(x), model.embed(x))
    with pytest.raises(CheckpointError, match="tokeniser"):
        again.set_findings(["Mass"])


# ---- encoders -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rad_dino(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rad-dino")
    reference = dinov2(registers=False, hidden_act="gelu_new")
    reference.save_pretrained(folder / "release")
    entry = put("rad-dino", folder / "release", folder / "cache",
                config={"hidden_act": "gelu_new", "num_attention_heads": 1})  # fmt: skip
    return entry, folder


@pytest.mark.parametrize("pooling", ["class", "both"])
@pytest.mark.parametrize("targets", [[], ["Silicosis", "Mass"]])
def test_an_encoder_comes_back_with_pooling_activation_and_layer(
    rad_dino, pooling, targets, tmp_path
):
    entry, folder = rad_dino
    model = Encoder(entry, pooling=pooling, cache_dir=str(folder / "cache"))
    if targets:
        torch.manual_seed(0)
        model.reset_classifier(len(targets), targets)
    save_pretrained(model, tmp_path / "one")
    again = from_pretrained(tmp_path / "one")
    assert again.arguments == model.arguments
    assert again.arguments["hidden_act"] == "gelu_new"
    assert torch.equal(outputs(again, 518), outputs(model, 518))
    assert fingerprint(again) == fingerprint(model)
    save_pretrained(again, tmp_path / "two")
    assert files(tmp_path / "two") == files(tmp_path / "one")
    add_weights(tmp_path / "one", "mine")
    assert get("mine").output == ("logit" if targets else "embedding")
    assert torch.equal(outputs(get_model("mine"), 518), outputs(model, 518))
    own = Encoder("mine")
    with torch.inference_mode():
        x = grey(518, 1) * 2048 - 1024
        assert torch.equal(own.embed(x), model.embed(x))
    assert own.targets == targets


def test_a_form_that_its_name_does_not_say_is_refused_before_a_byte_is_written(tmp_path):
    shape = vit_shape("dinov2-base14-width128-depth1")
    model = Encoder(architecture="dinov2-base14-width64-depth1", shape=shape)
    with pytest.raises(CheckpointError, match="form of its own"):
        save_pretrained(model, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_release_in_a_folder_is_added_with_what_lies_beside_its_tensors(
    rad_dino, tmp_path, monkeypatch
):
    from torchxrayvision.models import adding, factory

    entry, folder = rad_dino
    plain = dataclasses.replace(entry, file=dataclasses.replace(entry.file, sha256=None, size=None))
    with pytest.raises(CheckpointError, match="not of a network of this package"):
        add_weights(folder / "release", "mine")
    for module in (adding, factory):  # the published one is larger
        name = "list_weights" if module is adding else "get_entry"
        fake = (lambda: [plain]) if module is adding else (lambda _: plain)
        monkeypatch.setattr(module, name, fake)
    add_weights(folder / "release", "mine", like="rad-dino")
    monkeypatch.undo()
    monkeypatch.setenv("XRV_CACHE_DIR", str(tmp_path / "cache"))
    model = Encoder(entry, cache_dir=str(folder / "cache"))
    again = get_model("mine")
    assert again.arguments["hidden_act"] == "gelu_new"
    assert torch.equal(outputs(again, 518), outputs(model, 518))


def test_a_published_release_in_a_folder_is_put_in_its_place_with_its_files(tmp_path, cache):
    release = Released("medsiglip-448", tmp_path)
    folder = tmp_path / "MedSigLIP"
    release.reference.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(
        (tmp_path / "cache" / "medsiglip-448-tokenizer.json").read_bytes()
    )
    done = add_weights(folder, "medsiglip-448")
    assert done.published
    assert done.path == cache / release.entry.file.filename
    for name in ("config.json", "tokenizer.json"):
        kept = cache / f"medsiglip-448-{name}"
        assert kept.read_bytes() == (folder / name).read_bytes()


# ---- the Hub and the command --------------------------------------------------------------------


def test_up_and_down_again_with_its_texts(released, saved, tmp_path, monkeypatch):
    export_hub(released.model, tmp_path / "hub")
    sent = push_to_hub(tmp_path / "hub", "org/words", dry_run=True)
    assert set(sent.files) == set(files(tmp_path / "hub")) >= TEXTS[released.entry.name]
    held = files(tmp_path / "hub")
    tensors = held["model.safetensors"]
    with serving(Server()) as storage, serving(Hub(storage.url)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.large = storage
        hub.repos["org/words"] = Repo(held)
        storage.script(Step(body=tensors, span=len(tensors)))
        again = from_pretrained("org/words")
        assert fingerprint(again) == fingerprint(released.model)
        assert again.prompts == released.model.prompts
        add_weights("hf://org/words", "theirs")
        storage.closing.set()
    assert fingerprint(get_model("theirs")) == fingerprint(released.model)


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["xrv", *map(str, words)])
    try:
        main()
    except SystemExit as ended:
        return ended.code or 0
    return 0


def test_the_command_adds_shows_exports_and_predicts(tmp_path, monkeypatch, capsys):
    from PIL import Image

    release = Released("xrayclip", tmp_path / "clip")
    save_pretrained(release.model, tmp_path / "saved")
    assert run(monkeypatch, "weights", "add", tmp_path / "saved", "--name", "words") == 0
    assert run(monkeypatch, "weights", "show", "words") == 0
    assert run(monkeypatch, "weights", "list") == 0
    assert run(monkeypatch, "weights", "card", "words") == 0
    assert "Effusion" in capsys.readouterr().out
    assert run(monkeypatch, "weights", "export-hub", "words", tmp_path / "hub") == 0
    assert (tmp_path / "hub" / "prompts.json").is_file()
    Image.new("L", (64, 64), 90).save(tmp_path / "film.png")
    out = tmp_path / "scores.csv"
    assert run(monkeypatch, "predict", tmp_path / "film.png", "--weights", "words",
               "--check", "off", "--output", out) == 0  # fmt: skip
    assert out.read_text().splitlines()[0].split(",")[2:5] == FINDINGS
    checkpoint = tmp_path / "saved" / "model.safetensors"
    assert load_checkpoint(checkpoint).targets == FINDINGS


# ---- autoencoders and preprocessing -------------------------------------------------------------


def test_an_autoencoder_that_was_added_is_an_autoencoder_by_name(tmp_path):
    torch.manual_seed(0)
    net = CompactAE(width=4, code=3).eval()
    save_autoencoder(net, tmp_path / "best.safetensors")
    add_weights(tmp_path / "best.safetensors", "drawn")
    again = get_autoencoder("drawn")
    x = torch.rand(1, 1, 64, 64) * 2048 - 1024
    with torch.inference_mode():
        assert torch.equal(again(x)["out"], net(x)["out"])
    export_hub(tmp_path / "best.safetensors", tmp_path / "hub", license=MIT)
    assert from_pretrained(tmp_path / "hub").arguments == net.arguments
    other = ResNet(architecture="resnet18-width8", num_classes=1)
    other.targets = ["Mass"]
    save_checkpoint(other, tmp_path / "other.safetensors")
    add_weights(tmp_path / "other.safetensors", "other")
    with pytest.raises(UnknownNameError, match="weights of resnet18-width8"):
        get_autoencoder("other")
    with pytest.raises(UnknownNameError):
        get_autoencoder("nothing")


@pytest.mark.parametrize("name", ["evax-tiny", "evax-densenet121"])
def test_files_say_how_images_are_prepared(name, tmp_path):
    torch.manual_seed(0)
    net = get_model(name, num_classes=3).eval()
    net.targets, net.weights = ["Mass", "Edema", "Nodule"], "mine"
    net.preprocess.mean, net.preprocess.deviation, net.preprocess.crop = 0.4, 0.2, 224
    net.input_resolution, net.resize_route = 224, "antialias"
    save_checkpoint(net, tmp_path / "one.safetensors")
    save_pretrained(net, tmp_path / "folder")
    x = torch.rand(1, 1, 300, 300, generator=torch.Generator().manual_seed(1)) * 2048 - 1024
    with torch.inference_mode():
        expected = net(x)
        for path in (tmp_path / "one.safetensors", tmp_path / "folder" / "model.safetensors"):
            again = load_checkpoint(path)
            assert (again.preprocess.mean, again.resize_route) == (0.4, "antialias")
            assert torch.equal(again(x), expected)
    described = save_checkpoint(net, tmp_path / "two.safetensors")
    assert described["preprocessing"] == {"crop": 224, "mean": 0.4, "deviation": 0.2}


@pytest.mark.parametrize(
    ("name", "outputs", "side"),
    [("evax-tiny", 5, 224), ("evax-tiny", 14, 256), ("evax-small", 5, 256), ("evax-tiny", 3, 256)],
)
def test_a_file_that_says_nothing_is_prepared_as_the_release_with_as_many_outputs(
    name, outputs, side, tmp_path
):
    from safetensors.torch import save_file

    save_file(get_model(name, num_classes=outputs).state_dict(), tmp_path / "bare.safetensors")
    again = load_checkpoint(tmp_path / "bare.safetensors")
    assert (again.input_resolution, again.preprocess.crop) == (side, 224)


def test_a_header_cannot_make_images_what_they_are_not(tmp_path):
    from safetensors.torch import load_file, save_file

    net = get_model("evax-tiny", num_classes=1)
    described = save_checkpoint(net, tmp_path / "one.safetensors")
    tensors = load_file(tmp_path / "one.safetensors")
    for change in (
        {"preprocessing": {"crop": 224, "mean": 0.5, "deviation": 0}},
        {"preprocessing": "exec"},
        {"resize_route": "eval"},
    ):
        header = {"torchxrayvision.classifier": json.dumps({**described, **change})}
        save_file(tensors, tmp_path / "odd.safetensors", header)
        with pytest.raises(CheckpointError, match="do not fit"):
            load_checkpoint(tmp_path / "odd.safetensors")

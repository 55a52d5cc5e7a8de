"""Folders of saved networks: the same outputs and the same bytes, of every architecture."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from support.dense import VQGANS, lightning, vqgan_state
from support.networks import synthetic
from torchxrayvision import baseline_models as others
from torchxrayvision.autoencoders import CompactAE, ResNetAE
from torchxrayvision.errors import CheckpointError, ChecksumError, UnknownNameError
from torchxrayvision.models import (
    Backbone,
    DenseNet,
    Ensemble,
    EvaX,
    EvaXDenseNet,
    ResNet,
    UNet,
    from_pretrained,
    get_densenet_params,
    get_model,
    load_checkpoint,
    save_pretrained,
)
from torchxrayvision.models.base import XRayClassifier
from torchxrayvision.runs import fingerprint

POINTS = [0.25, float("nan"), 0.5]
NAMES = ["Mass", "", "Edema"]


def core(net):
    """A classifier as it is after training: names, points, a name of its own."""
    synthetic(net)
    net.targets = list(NAMES)
    net.op_threshs = torch.tensor(POINTS)
    net.weights = "mine"
    return net.eval()


def small(net, side=64):
    """The same with tensors from a seed; images are brought to a side that costs little."""
    synthetic(net)
    net.weights = "theirs"
    net.input_resolution = side
    return net.eval()


BUILD = {
    "densenet121": lambda: core(DenseNet(num_classes=3)),
    "densenet169": lambda: core(DenseNet(**get_densenet_params("densenet169"), num_classes=3)),
    "resnet50": lambda: core(ResNet(num_classes=3)),
    "resnet18-width8": lambda: core(ResNet(architecture="resnet18-width8", num_classes=3)),
    "evax-tiny": lambda: core(EvaX(num_classes=3)),
    "evax-densenet121": lambda: core(EvaXDenseNet(num_classes=3)),
    "unet-width4": lambda: small(UNet(targets=["Left Lung", "Heart"], width=4)),
    "autoencoder-resnet50": lambda: small(ResNetAE(architecture="autoencoder-resnet50"), 224),
    "autoencoder-resnet101": lambda: small(ResNetAE(), 224),
    "autoencoder-compact": lambda: small(CompactAE(width=4, code=3, levels=3, dense=5)),
    "torchvision:resnet18": lambda: core(Backbone("torchvision:resnet18", num_classes=3)),
    "timm:resnet10t": lambda: core(
        Backbone("timm:resnet10t", num_classes=3, drop_rate=0.1, act_layer="silu")
    ),
    "jfhealthcare-densenet121": lambda: small(others.jfhealthcare.DenseNet(weights=None)),
    "emory_hiti-resnet34": lambda: small(others.emory_hiti.RaceModel(weights=None)),
    "mira-resnet34": lambda: small(others.mira.SexModel(weights=None)),
    "xinario-resnet50": lambda: small(others.xinario.ViewModel(weights=None)),
    "riken-senet154": lambda: small(others.riken.AgeModel(weights=None)),
    "chexpert-densenet121": lambda: small(others.chexpert.DenseNet(None, num_models=2)),
    "pspnet": lambda: small(others.chestx_det.PSPNet(weights=False)),
    "unet-resnet50": lambda: small(others.chestx_anatomy.UNetResNet50(weights=False)),
}


def bits(net):
    side = getattr(net, "input_resolution", None) or 64
    x = torch.rand(2, 1, side, side, generator=torch.Generator().manual_seed(3)) * 2048 - 1024
    with torch.inference_mode():
        found = net(x)
    parts = found.values() if isinstance(found, dict) else [found]
    return hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()


def assert_same(net, again):
    assert type(again) is type(net)
    assert bits(again) == bits(net)
    assert fingerprint(again) == fingerprint(net)
    assert again.trained == net.trained
    assert not again.training
    if isinstance(net, XRayClassifier):
        assert again.output_kind == net.output_kind


@pytest.mark.parametrize("name", BUILD)
def test_saved_and_loaded_is_the_same_to_the_bit(name, tmp_path):
    net = BUILD[name]()
    config = save_pretrained(net, tmp_path / "one")
    assert config.architecture == name
    again = from_pretrained(tmp_path / "one")
    assert_same(net, again)
    save_pretrained(again, tmp_path / "two")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "two" / file).read_bytes() == (tmp_path / "one" / file).read_bytes()
    for file in tmp_path.rglob("*.safetensors"):
        file.unlink()


def test_words_of_a_codebook_too(tmp_path):
    torch.manual_seed(0)
    from torchxrayvision.baseline_models.ieee8023 import VQGAN
    from torchxrayvision.baseline_models.ieee8023.net import Config, Net

    sizes = Config(
        width=32, channels=(32, 64), encoder_blocks=1, decoder_blocks=1,
        attention=(False, True), code=8, words=16, word=8,
    )  # fmt: skip
    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in Net(sizes).state_dict().items()}
    torch.save(lightning(vqgan_state(shapes)), tmp_path / "own.ckpt")
    net = VQGAN(ckpt_path=str(tmp_path / "own.ckpt"))
    net.input_resolution = VQGANS["sd"]["resolution"]
    assert save_pretrained(net, tmp_path / "one").architecture == "vqgan"
    assert_same(net, from_pretrained(tmp_path / "one"))


@pytest.mark.parametrize("name", ["demo", "demo-anatomy"])
def test_published_weights_keep_their_facts(name, tmp_path):
    with pytest.warns(UserWarning, match="demonstration"):
        net = get_model(name)
    config = save_pretrained(net, tmp_path)
    assert (config.license.name, config.weights) == ("Apache-2.0", net.weights)
    content = Path(net.weights_filename_local).read_bytes()
    assert config.provenance["sha256"] == hashlib.sha256(content).hexdigest()
    assert_same(net, from_pretrained(tmp_path))


def test_the_file_of_tensors_stands_alone(tmp_path):
    net = core(ResNet(architecture="resnet18-width8", num_classes=3))
    net.targets = ["Mass", "Nodule", "Edema"]
    net.set_operating_points([0.25, 0.3, 0.5])
    save_pretrained(net, tmp_path)
    alone = load_checkpoint(tmp_path / "model.safetensors")
    assert bits(alone) == bits(net)


def test_an_untrained_network_stays_untrained(tmp_path):
    net = synthetic(ResNet(architecture="resnet18-width8", num_classes=2))
    net.targets = ["Mass", "Edema"]
    save_pretrained(net, tmp_path)
    assert from_pretrained(tmp_path).trained == (False, False)


def test_preprocessing_of_a_release_is_kept(tmp_path):
    net = core(EvaX(num_classes=3))
    net.preprocess.mean, net.preprocess.deviation = 0.4, 0.2
    save_pretrained(net, tmp_path)
    assert bits(from_pretrained(tmp_path)) == bits(net)


def test_what_no_file_can_name_is_refused_before_a_byte_is_written(tmp_path):
    one = core(ResNet(architecture="resnet18-width8", num_classes=3))

    class Mine(ResNet):
        pass

    mine = Mine(architecture="resnet18-width8", num_classes=3)
    odd = Backbone("torchvision:resnet18", num_classes=1, norm_layer=torch.nn.InstanceNorm2d)
    for net, word in ((Ensemble([one]), "member by member"), (mine, "of your own"), (odd, "norm")):
        with pytest.raises(CheckpointError, match=word):
            save_pretrained(net, tmp_path / "x")
    assert not (tmp_path / "x").exists()


# ---- folders of strangers ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    save_pretrained(core(ResNet(architecture="resnet18-width8", num_classes=3)), folder)
    return folder


CHANGES = {
    "other_library": ({"library_name": "transformers"}, "library_name"),
    "later_format": ({"format": 2}, "format"),
    "unknown_network": ({"architecture": "os.system"}, "no network"),
    "class_of_a_module": ({"architecture": "autoencoders.ResNetAE"}, "no network"),
    "remote_code": ({"architecture": "hf-hub:evil/net"}, "no network"),
    "too_wide": ({"architecture": "resnet18-width999999999"}, "no network"),
    "no_width": ({"architecture": "resnet18-width"}, "no network"),
    "width_that_is_none": ({"architecture": "densenet121-width8"}, "no network"),
    "other_network": ({"architecture": "densenet121"}, "does not fit"),
    "address": (
        {"architecture": "timm:resnet18", "arguments": {"checkpoint_path": "https://x"}},
        "may not set 'checkpoint_path'",
    ),
    "pretrained": (
        {"architecture": "timm:resnet18", "arguments": {"pretrained": True}},
        "may not set 'pretrained'",
    ),
    "arguments_of_ours": ({"arguments": {"width": 3}}, "takes no arguments"),
    "arguments_of_an_autoencoder": (
        {"architecture": "autoencoder-compact", "arguments": {"width": 10**9}},
        "cannot be built",
    ),
    "targets_no_list": ({"targets": "Mass"}, "targets"),
    "too_few_targets": ({"targets": ["Mass"], "operating_points": None}, "does not fit"),
    "million_targets": ({"targets": ["x"] * 1_000_000}, "larger than|targets"),
    "control_characters": ({"targets": ["a\x1b[2J", "b", "c"]}, "targets"),
    "points_of_others": ({"operating_points": [0.5]}, "operating_points"),
    "points_beyond": ({"operating_points": [2, 0.5, 0.5]}, "operating_points"),
    "untrained_of_others": ({"untrained": ["Hernia"]}, "untrained"),
    "huge_side": ({"input_resolution": 1 << 30}, "input_resolution"),
    "odd_output": ({"output": "pickle"}, "unknown output kind"),
    "odd_route": ({"resize_route": "eval"}, "resize_route"),
    "deviation_of_zero": (
        {"preprocessing": {"crop": 224, "mean": 0, "deviation": 0}},
        "preprocessing",
    ),
    "license_no_table": ({"license": "MIT"}, "license"),
}


@pytest.mark.parametrize(("change", "word"), CHANGES.values(), ids=CHANGES)
def test_odd_configuration_is_a_typed_error(saved, tmp_path, change, word):
    held = json.loads((saved / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**held, **change}))
    (tmp_path / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=word):
        from_pretrained(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "[" * 100_000, "\x00"])
def test_what_is_no_configuration_is_a_typed_error(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match="config"):
        from_pretrained(tmp_path)


def test_tensors_of_another_model_are_refused(saved, tmp_path):
    save_pretrained(core(ResNet(architecture="resnet18-width4", num_classes=3)), tmp_path)
    (tmp_path / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
    with pytest.raises(ChecksumError, match="not of one model"):
        from_pretrained(tmp_path)


def test_a_pickle_under_that_name_is_refused(saved, tmp_path):
    held = json.loads((saved / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**held, "sha256": None}))
    torch.save({"model.fc.bias": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="not safetensors"):
        from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "name", ["nowhere/../x", "plain", "hf://x", "a/b/c/../d", "/nowhere/at/all"]
)
def test_neither_folder_nor_address(name):
    with pytest.raises(UnknownNameError, match="hf://owner/name"):
        from_pretrained(name)


def test_a_folder_without_files_says_what_belongs_there(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json and model\.safetensors"):
        from_pretrained(tmp_path)

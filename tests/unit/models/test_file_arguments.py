"""A data file names a network and its shape, never what another library reads, fetches or runs."""

from __future__ import annotations

import http.server
import json
import pickle
import threading

import pytest
import torch

from torchxrayvision.checkpoints.read import save_safetensors
from torchxrayvision.errors import CheckpointError, RecipeError
from torchxrayvision.models import Backbone, load_checkpoint, save_checkpoint
from torchxrayvision.models.backbone import allowed_arguments, loads_weights

pytest.importorskip("lightning", reason="the extra train is not installed")
from torchxrayvision.training import Recipe
from torchxrayvision.training.network import network_of

KEY = "torchxrayvision.classifier"
RESNET = "torchvision:resnet18"


def checkpoint(folder, architecture, arguments):
    facts = {"architecture": architecture, "arguments": arguments, "targets": ["a"]}
    tensors = {"classifier.bias": torch.zeros(1), "classifier.weight": torch.zeros(1, 512)}
    path = folder / "model.safetensors"
    save_safetensors(path, tensors, {"format": "pt", KEY: json.dumps(facts)})
    return path


@pytest.fixture
def server():
    """An address that remembers who asked."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

        def do_HEAD(self):
            self.do_GET()

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}/beacon.pth", asked
        running.shutdown()


class Marker:
    """What would run if somebody unpickled it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (type(self.path).touch, (self.path,))


def test_a_file_cannot_make_timm_fetch(tmp_path, server):
    pytest.importorskip("timm")
    url, asked = server
    source = {"url": url, "hf_hub_id": "", "architecture": "resnet18"}
    path = checkpoint(tmp_path, "timm:resnet18", {"pretrained": True, "pretrained_cfg": source})
    with pytest.raises(CheckpointError, match="may not set 'pretrained'"):
        load_checkpoint(path)
    assert asked == []


@pytest.mark.parametrize("overlay", [False, True])
def test_a_file_cannot_make_timm_unpickle(tmp_path, overlay):
    pytest.importorskip("timm")
    evil, ran = tmp_path / "evil.pth", tmp_path / "ran"
    evil.write_bytes(pickle.dumps(Marker(ran)))
    arguments = {"checkpoint_path": str(evil)}
    if overlay:
        arguments = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(evil)}}
    with pytest.raises(CheckpointError, match="may not set"):
        load_checkpoint(checkpoint(tmp_path, "timm:resnet18", arguments))
    assert not ran.exists()


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        (RESNET, {"weights": "DEFAULT"}),
        (RESNET, {"progress": True}),
        (RESNET, {"norm_layer": "torch.nn.BatchNorm2d"}),
        (RESNET, {"nonsense": 1}),
        (RESNET, {"groups": True}),
        (RESNET, {"groups": 10**9}),
        (RESNET, {"replace_stride_with_dilation": [False] * 4}),
        ("torchvision:vit_b_16", {"image_size": 1e3}),
        ("torchvision:densenet121", {"drop_rate": float("nan")}),
        ("timm:vit_tiny_patch16_224", {"depth": 10**7}),
        ("timm:vit_tiny_patch16_224", {"depth": 129}),
        ("timm:vit_tiny_patch16_224", {"img_size": [224, "224"]}),
        ("timm:vit_tiny_patch16_224", {"global_pool": "http://127.0.0.1/"}),
        ("timm:vit_tiny_patch16_224", {"act_layer": {"a": 1}}),
        ("timm:vit_tiny_patch16_224", {"cache_dir": "/"}),
        ("timm:vit_tiny_patch16_224", {"features_only": True}),
        ("timm:vit_tiny_patch16_224", {"": 1}),
        ("timm:hf-hub:somebody/something", {}),
        ("timm:local-dir:/etc", {}),
    ],
)
def test_what_does_not_shape_a_network_is_refused(tmp_path, architecture, arguments):
    with pytest.raises(ValueError, match=r"may not set|not a value|network of timm"):
        load_checkpoint(checkpoint(tmp_path, architecture, arguments))


def test_values_that_the_library_refuses_are_an_error_of_the_file(tmp_path):
    path = checkpoint(tmp_path, RESNET, {"groups": 3})
    with pytest.raises(CheckpointError, match="cannot be built with"):
        load_checkpoint(path)


def test_what_shapes_a_network_comes_back(tmp_path):
    path = tmp_path / "mine.safetensors"
    made = Backbone("torchvision:mobilenet_v2", num_classes=1, width_mult=0.25)
    save_checkpoint(made, path)
    loaded = load_checkpoint(path)
    assert loaded.arguments == {"width_mult": 0.25}
    assert torch.equal(loaded.body.features[0][0].weight, made.body.features[0][0].weight)
    assert len(loaded.body.features[0][0].weight) == 8


def test_no_file_is_written_that_could_not_be_read(tmp_path):
    made = Backbone(RESNET, num_classes=1, norm_layer=torch.nn.BatchNorm2d)
    with pytest.raises(CheckpointError, match="may not set 'norm_layer'"):
        save_checkpoint(made, tmp_path / "mine.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"pretrained": True},
        {"pretrained_cfg": {}},
        {"checkpoint_path": "a"},
        {"weights": "DEFAULT"},
        {"weights_backbone": "DEFAULT"},
        {"cache_dir": "/"},
    ],
)
def test_python_cannot_ask_for_their_weights_either(arguments):
    with pytest.raises(TypeError, match="load_checkpoint"):
        Backbone("timm:resnet18", **arguments)


def test_a_recipe_is_a_data_file_too():
    recipe = Recipe(model=RESNET, model_args={"weights": "DEFAULT"}, resolution=32)
    with pytest.raises(RecipeError, match="may not set 'weights'"):
        network_of(recipe, ["a"])


def test_no_allowed_argument_loads_anything():
    names = {"timm:resnet18", "torchvision:resnet18"}
    from torchvision import models

    names |= {f"torchvision:{name}" for name in models.list_models(module=models)}
    for name in names:
        assert not [argument for argument in allowed_arguments(name) if loads_weights(argument)]


def test_the_list_has_no_argument_that_torchvision_does_not_take():
    """Values that every rule takes: the list holds names of real parameters."""
    values = (0.5, 1, True, [True], [64, 64])
    for name, arguments in {
        "torchvision:resnet18": ("groups", "width_per_group", "zero_init_residual"),
        "torchvision:densenet121": ("drop_rate", "bn_size", "memory_efficient"),
        "torchvision:vgg11": ("dropout", "init_weights"),
        "torchvision:mobilenet_v3_small": ("width_mult", "dropout"),
        "torchvision:mobilenet_v2": ("width_mult", "round_nearest", "dropout"),
        "torchvision:efficientnet_b0": ("dropout", "stochastic_depth_prob"),
        "torchvision:convnext_tiny": ("stochastic_depth_prob", "layer_scale"),
        "torchvision:vit_b_16": ("dropout", "attention_dropout"),
        "torchvision:swin_t": ("dropout", "attention_dropout"),
    }.items():
        rules = allowed_arguments(name)
        for argument in arguments:
            value = next(one for one in values if rules[argument](one))
            if (name, argument) in ((RESNET, "width_per_group"), (RESNET, "groups")):
                value = {"width_per_group": 64, "groups": 1}[argument]
            with torch.device("meta"):
                assert Backbone(name, num_classes=1, **{argument: value}).arguments

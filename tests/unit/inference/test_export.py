"""Exported files: the numbers of the model at any batch size, and what they say of themselves."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from support import long_run
from support.networks import synthetic
from torchxrayvision.baseline_models import chestx_anatomy, chestx_det, mira, xinario
from torchxrayvision.cli import app
from torchxrayvision.errors import ExportError, UnknownNameError
from torchxrayvision.inference import export
from torchxrayvision.inference.engines.base import example
from torchxrayvision.inference.engines.export import FORMATS
from torchxrayvision.models import get_model

ENDINGS = {
    "onnx": ".onnx",
    "openvino": ".xml",
    "torch-export": ".pt2",
    "safetensors": ".safetensors",
}


@pytest.fixture(scope="module")
def network():
    net = long_run.network()
    net.set_operating_points([0.3, float("nan"), 0.7])
    return net


@pytest.fixture(scope="module")
def files(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    return {to: export(network, to, folder / f"net{ending}") for to, ending in ENDINGS.items()}


def run_onnx(path, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"image": images}), strict=True))


def run_openvino(path, images):
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    answers = compiled({"image": images})
    return {name: answers[name] for name in ("outputs", "logits", "features")}


def run_torch(path, images):
    answers = torch.export.load(path).module()(torch.from_numpy(images))
    return dict(zip(("outputs", "logits", "features"), (a.detach() for a in answers), strict=True))


RUNNERS = {"onnx": run_onnx, "openvino": run_openvino, "torch-export": run_torch}


@pytest.mark.parametrize("to", RUNNERS)
@pytest.mark.parametrize("count", [1, 5])
def test_graphs_give_the_numbers_of_the_model(network, files, to, count):
    images = example(long_run.SIZE, count, seed=9)
    answers = RUNNERS[to](files[to].path, images.numpy())
    with torch.inference_mode():
        np.testing.assert_allclose(answers["outputs"], network(images), atol=1e-5)
        np.testing.assert_allclose(answers["logits"], network(images, output="logit"), atol=1e-4)
        np.testing.assert_allclose(answers["features"], network.embed(images), atol=1e-4)
    assert files[to].difference < 1e-5


def said_by(to, path):
    if to == "onnx":
        import onnx

        return {p.key: p.value for p in onnx.load(path).metadata_props}["torchxrayvision"]
    if to == "openvino":
        import openvino

        return openvino.Core().read_model(path).get_rt_info(["torchxrayvision"]).astype(str)
    if to == "torch-export":
        found = {"torchxrayvision.json": ""}
        torch.export.load(path, extra_files=found)
        return found["torchxrayvision.json"]
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.metadata()["torchxrayvision"]


@pytest.mark.parametrize("to", ENDINGS)
def test_files_say_what_they_are(network, files, to):
    about = json.loads(said_by(to, files[to].path))
    assert about == files[to].metadata
    assert about["targets"] == ["Mass", "", "Hernia"]
    assert about["trained"] == [True, False, True]
    assert about["operating_points"] == [pytest.approx(0.3), None, pytest.approx(0.7)]
    assert about["outputs"]["outputs"] == "operating-point"
    assert about["input"]["shape"] == ["batch", 1, long_run.SIZE, long_run.SIZE]
    assert about["input"]["range"] == [-1024, 1024]


def test_tensors_load_into_the_same_network(network, files):
    from torchxrayvision.models import load_checkpoint

    with pytest.raises(ValueError, match="not a DenseNet"):  # of a size that nothing else has
        load_checkpoint(files["safetensors"].path)
    from safetensors.torch import load_file

    tensors = load_file(files["safetensors"].path)
    assert set(tensors) == set(network.state_dict())


def test_exported_tensors_are_a_checkpoint_that_names_itself(tmp_path):
    from torchxrayvision.models import get_model, load_checkpoint

    torch.manual_seed(0)
    net = get_model("resnet18", num_classes=2).eval()
    net.targets, net.input_resolution = ["Mass", "Hernia"], 64
    path = tmp_path / "a.safetensors"
    export(net, "safetensors", path)
    again = load_checkpoint(path)
    assert list(again.targets) == ["Mass", "Hernia"]
    assert again.input_resolution == 64
    x = torch.rand(1, 1, 96, 96) * 2048 - 1024  # of another size, which the resolution resizes
    torch.testing.assert_close(again(x, output="logit"), net(x, output="logit"))


def test_the_callers_model_stays_as_it_was(network, tmp_path):
    net = long_run.network().double().train()
    export(net, "safetensors", tmp_path / "a.safetensors")
    assert net.training
    assert next(net.parameters()).dtype == torch.float64
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_file_with_other_numbers_is_not_kept(network, tmp_path, monkeypatch):
    real = FORMATS["safetensors"]

    def wrong(net, *rest):
        files = real(net, *rest)
        with torch.no_grad():
            net.classifier.bias += 1
        return files

    monkeypatch.setitem(FORMATS, "safetensors", wrong)
    target = tmp_path / "a.safetensors"
    target.write_bytes(b"an earlier one")
    with pytest.raises(ExportError, match="differs by"):
        export(network, "safetensors", target)
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    assert target.read_bytes() == b"an earlier one"


def test_faults_are_named(network, tmp_path):
    with pytest.raises(UnknownNameError, match="torch-export"):
        export(network, "tflite", tmp_path / "a")
    with pytest.raises(ValueError, match=r"\.xml"):
        export(network, "openvino", tmp_path / "a.bin")
    with pytest.raises(ValueError, match="input_resolution"):
        export(get_model("resnet18"), "safetensors", tmp_path / "a")


NETWORKS = {
    "resnet18": lambda: get_model("resnet18", num_classes=2),
    "resnet50": lambda: get_model("resnet50", num_classes=2),
    "densenet121": lambda: get_model("densenet121", num_classes=2),
    "mira": lambda: mira.SexModel(weights=False),
    "xinario": lambda: xinario.ViewModel(weights=False),
    "unet": lambda: get_model("unet", targets=["Left Lung", "Heart"]),
    "anatomy": lambda: chestx_anatomy.UNetResNet50(weights=False),
    "pspnet": lambda: chestx_det.PSPNet(weights=False),
}


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "openvino", "torch-export"])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_every_kind_are_exported(tmp_path, name, to):
    net = synthetic(NETWORKS[name]())
    done = export(net, to, tmp_path / f"a{ENDINGS[to]}", input_resolution=96)
    assert done.difference < 1e-4


def test_the_command_writes_the_file_and_says_how_close_it_is(network, tmp_path, monkeypatch):
    monkeypatch.setattr("torchxrayvision.cli.export._model", lambda *_: network)
    runner = CliRunner()
    target = tmp_path / "a.safetensors"
    result = runner.invoke(app, ["export", "x", "--to", "safetensors", "--output", str(target)])
    assert result.exit_code == 0
    assert "differs from the model by at most 0.0e+00" in result.output
    assert target.exists()
    result = runner.invoke(app, ["export", "x", "--to", "openvino", "--output", str(target)])
    assert result.exit_code == 2

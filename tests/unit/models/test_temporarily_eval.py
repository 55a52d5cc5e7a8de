"""A model that is lent for a run comes back as it was."""

from __future__ import annotations

import pytest
import torch

from support import long_run
from torchxrayvision.inference import predict, predict_to_file
from torchxrayvision.models import UNet, temporarily_eval
from torchxrayvision.segmentation import segment


@pytest.fixture
def films(tmp_path):
    return long_run.write_films(tmp_path / "films", 3)


def frozen(net):
    """In training mode, but for one part; and the mode of every part."""
    net.train()
    part = next(m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d))
    part.eval()
    return {name: module.training for name, module in net.named_modules()}


def modes(net):
    return {name: module.training for name, module in net.named_modules()}


def test_predict_gives_the_model_back(films):
    net = long_run.network()
    expected = predict(films, long_run.network(), engine="torch")
    before = frozen(net)
    assert predict(films, net, engine="torch", device="cpu").equals(expected)
    assert modes(net) == before


def test_predict_to_file_gives_the_model_back_whatever_happens(films, tmp_path):
    net = long_run.network()
    before = frozen(net)
    predict_to_file(films, net, tmp_path / "t.csv", engine="torch")
    assert modes(net) == before
    with pytest.raises(ZeroDivisionError):
        predict_to_file(
            films, net, tmp_path / "u.csv", engine="torch", on_progress=lambda *_: 1 // 0
        )
    assert modes(net) == before


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_segment_gives_the_model_back_at_the_end(films, engine, tmp_path, monkeypatch):
    if engine == "onnx":
        pytest.importorskip("onnxruntime")
        monkeypatch.setenv("XRV_CACHE_DIR", str(tmp_path / "cache"))
    net = UNet(targets=["Heart"], width=4)
    net.input_resolution = 32
    before = frozen(net)
    paths = sorted(films.rglob("*.png"))
    results = segment(iter(paths), net, engine=engine)
    assert modes(net) == before
    assert not next(results).error
    assert not any(modes(net).values())
    assert len(list(results)) == len(paths) - 1
    assert modes(net) == before
    results = segment(paths, net, engine=engine)
    next(results)
    results.close()
    assert modes(net) == before


def test_the_device_is_that_of_before():
    net = long_run.network()
    with temporarily_eval(net, "meta"):
        assert next(net.parameters()).device.type == "meta"
        net.to_empty(device="cpu")  # meta has no numbers to bring back
    assert next(net.parameters()).device.type == "cpu"

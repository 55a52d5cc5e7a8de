"""Several devices in one run, each of which is a copy of the network on this processor."""

from __future__ import annotations

import threading
import time
import warnings

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from support import long_run
from torchxrayvision.cli import app
from torchxrayvision.errors import DeviceError, XRVWarning
from torchxrayvision.inference import (
    Plan,
    accelerate,
    device_names,
    predict,
    predict_to_file,
    predictions,
)
from torchxrayvision.inference.engines import choose as _choose
from torchxrayvision.inference.engines import devices as _devices
from torchxrayvision.inference.engines import growth as _growth
from torchxrayvision.inference.engines.base import TorchEngine, example
from torchxrayvision.inference.engines.choose import Choice, open_planned
from torchxrayvision.inputs import expand
from torchxrayvision.models import UNet
from torchxrayvision.provenance import read as read_provenance
from torchxrayvision.segmentation import segment, segment_to_folder

TWO = ("cpu:0", "cpu:1")
BATCH = 4


@pytest.fixture
def network():
    return long_run.network()


@pytest.fixture
def films(tmp_path):
    return long_run.write_films(tmp_path / "films", 40, damaged=9)


@pytest.fixture
def threads(monkeypatch):
    """Names of the threads that computed batches."""
    seen = []
    real = TorchEngine._plain

    def plain(self, images):
        seen.append(threading.current_thread().name)
        time.sleep(0.005)  # so that each device gets some
        return real(self, images)

    monkeypatch.setattr(TorchEngine, "_plain", plain)
    return seen


def failing(monkeypatch, device, error, after=0):
    """Let a device fail at each batch after some."""
    real, count = TorchEngine._plain, []

    def plain(self, images):
        if threading.current_thread().name == f"xrv-{device}":
            count.append(1)
            if len(count) > after:
                raise error
        else:
            time.sleep(0.01)  # so that the other one gets some
        return real(self, images)

    monkeypatch.setattr(TorchEngine, "_plain", plain)


# Names


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (None, ()),
        ("cpu", ("cpu",)),
        ("cuda", ("cuda",)),
        (torch.device("cuda", 1), ("cuda:1",)),
        ("cuda:0,cuda:1", ("cuda:0", "cuda:1")),
        ("cuda:1, cpu", ("cuda:1", "cpu")),
        (["cuda:0", torch.device("cuda:1")], ("cuda:0", "cuda:1")),
        (("cuda", "cuda:1"), ("cuda:0", "cuda:1")),
    ],
)
def test_devices_have_the_names_that_torch_gives_them(given, names):
    assert device_names(given) == names


@pytest.mark.parametrize("given", ["cuda:0,cuda:0", ["cuda", "cuda:0"], "cpu,cpu"])
def test_a_device_named_twice_is_refused(given):
    with pytest.raises(DeviceError, match="named twice"):
        device_names(given)


def test_all_are_the_accelerators_of_the_machine(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 3)
    assert device_names("all") == ("cuda:0", "cuda:1", "cuda:2")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="no accelerator on this machine; name cpu"):
        device_names("all")


# Runs


@pytest.mark.parametrize("options", [{}, {"embeddings": True}])
def test_the_table_of_two_devices_is_that_of_one_byte_for_byte(
    network, films, tmp_path, threads, options
):
    tables = [tmp_path / name / "table.csv" for name in ("one", "two")]
    for table, device in zip(tables, ("cpu", TWO), strict=True):
        table.parent.mkdir()
        predict_to_file(
            films, network, table, batch_size=BATCH, engine="torch", device=device, **options
        )
    assert set(threads) == {"MainThread", "xrv-cpu:0", "xrv-cpu:1"}
    assert tables[0].read_bytes() == tables[1].read_bytes()
    assert read_provenance(tables[0])["options"]["devices"] == ["cpu"]
    assert read_provenance(tables[1])["options"]["devices"] == ["cpu:0", "cpu:1"]
    assert not [one for one in threading.enumerate() if one.name.startswith("xrv-cpu")]


def test_a_run_on_two_devices_resumes_on_one(network, films, tmp_path):
    def stop(done, total):
        if done >= 16:
            raise KeyboardInterrupt

    whole, stopped = tmp_path / "whole.csv", tmp_path / "stopped.csv"
    how = {"batch_size": BATCH, "engine": "torch"}
    predict_to_file(films, network, whole, **how)
    with pytest.raises(KeyboardInterrupt):
        predict_to_file(films, network, stopped, device="cpu:0,cpu:1", on_progress=stop, **how)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the devices are of one kind: no digit may differ
        done = predict_to_file(films, network, stopped, **how)
    assert done.resumed == 16
    assert whole.read_bytes() == stopped.read_bytes()


def test_a_run_that_another_kind_of_device_resumes_says_so():
    from torchxrayvision.inference.runs import environment_changes

    begun = {"torch": "2.14", "device": "NVIDIA H200"}
    changes = environment_changes(begun, {"torch": "2.14", "device": "cpu"})
    assert changes == ["device NVIDIA H200, now cpu"]
    assert environment_changes({"torch": "2.14"}, {"torch": "2.14", "device": "cpu"}) == []


def test_predict_takes_a_list_and_gives_the_network_back(network, films):
    network.train()
    found = predict(films, network, batch_size=BATCH, engine="torch", device=list(TWO))
    assert network.training
    expected = predict(films, network, batch_size=BATCH, engine="torch")
    assert found.equals(expected)


def test_results_come_in_order_however_slow_a_device_is(network, films, monkeypatch):
    real = TorchEngine._plain

    def plain(self, images):
        if threading.current_thread().name == "xrv-cpu:0":
            time.sleep(0.05)
        return real(self, images)

    monkeypatch.setattr(TorchEngine, "_plain", plain)
    files = list(expand([films]))
    found = predictions(network, files, batch_size=BATCH, engine="torch", devices=TWO)
    assert [one.path for one in found] == [file.given for file in files]


def test_two_devices_segment_as_one(films, tmp_path, threads):
    torch.manual_seed(0)
    net = UNet(targets=["Heart", "Lungs"], width=4).eval()
    net.input_resolution = long_run.SIZE
    files = list(expand([films]))[:12]
    one, two = (
        list(segment(files, net, batch_size=2, engine="torch", device=device))
        for device in (None, TWO)
    )
    assert {"xrv-cpu:0", "xrv-cpu:1"} <= set(threads)
    assert [r.error for r in one] == [r.error for r in two]
    for a, b in zip(one, two, strict=True):
        for name in a.masks or ():
            np.testing.assert_allclose(a.masks.of_square(name), b.masks.of_square(name), atol=2e-5)
    segment_to_folder([films], net, tmp_path / "out", batch_size=2, device=TWO)
    assert read_provenance(tmp_path / "out" / "measures.csv")["options"]["devices"] == list(TWO)


def test_any_network_is_accelerated_on_several(network):
    images = example(long_run.SIZE, 11)
    plain = accelerate(network, BATCH, engine="torch")(images)
    group = accelerate(network, BATCH, engine="torch", plan=Plan(devices=TWO))
    assert torch.equal(group(images), plain)
    group.close()


# Failures


def test_a_device_that_fails_ends_the_run_by_its_name_and_rows_are_kept(
    network, films, tmp_path, monkeypatch
):
    table = tmp_path / "table.csv"
    how = {"batch_size": BATCH, "engine": "torch"}
    with monkeypatch.context() as patch:
        error = RuntimeError("CUDA error: an illegal memory access was encountered\nmore")
        failing(patch, "cpu:1", error, after=2)
        with pytest.raises(
            DeviceError, match=r"^cpu:1: CUDA error: an illegal memory access"
        ) as no:
            predict_to_file(films, network, table, device=TWO, **how)
    assert no.value.device == "cpu:1"
    assert no.value.__cause__ is error
    assert not [one for one in threading.enumerate() if one.name.startswith("xrv-cpu")]
    predict_to_file(films, network, table, device=TWO, **how)
    predict_to_file(films, network, tmp_path / "whole.csv", **how)
    assert table.read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize("after", [0, 3])
def test_a_device_without_memory_for_an_image_is_left_out(
    network, films, tmp_path, monkeypatch, after
):
    files = list(expand([films]))
    how = {"batch_size": 1, "engine": "torch"}
    expected = list(predictions(network, files, **how))
    failing(monkeypatch, "cpu:1", torch.OutOfMemoryError("CUDA out of memory."), after=after)
    with pytest.warns(XRVWarning, match=r"cpu:1: a single image does not fit .* on with cpu:0"):
        found = list(predictions(network, files, devices=TWO, **how))
    assert [one.path for one in found] == [one.path for one in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.outputs, other.outputs)


def test_without_memory_on_any_device_the_run_ends(network, films, monkeypatch):
    def plain(self, images):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(TorchEngine, "_plain", plain)
    files = list(expand([films]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XRVWarning)
        with pytest.raises(DeviceError, match=r"cpu:.: CUDA out of memory"):
            list(predictions(network, files, batch_size=1, engine="torch", devices=TWO))


def test_a_device_that_is_not_there_is_an_error(network):
    plan = Plan(devices=("cpu", "cuda:63"))
    with pytest.raises(DeviceError, match=r"^cuda:63: "):
        open_planned(network, BATCH, Choice("torch"), plan)


def test_a_copy_shares_nothing_and_the_network_stays_as_it_is(network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    made = _devices.copy_to(network, "meta")
    assert {value.device.type for value in made.state_dict().values()} == {"meta"}
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    assert [name for name, _ in made.named_parameters()] == [
        name for name, _ in network.named_parameters()
    ]
    assert made.targets == network.targets


def test_batches_of_two_devices_grow_and_one_that_was_lost_is_not_opened_again(
    network, tmp_path, monkeypatch
):
    for module in (_choose, _growth):
        monkeypatch.setattr(module, "on_cuda", lambda model: True)
    monkeypatch.setattr(_growth, "_BATCHES", 1)
    took = property(lambda self: 0.01, lambda self, seconds: None)
    monkeypatch.setattr(TorchEngine, "took", took)
    files = list(expand([long_run.write_films(tmp_path / "many", 160)]))
    expected = list(predictions(network, files, batch_size=8, engine="torch"))
    sizes, real = [], TorchEngine._plain

    def plain(self, images):
        name = threading.current_thread().name
        sizes.append((name, len(images)))
        if name == "xrv-cpu:1" and len(sizes) > 4:
            raise torch.OutOfMemoryError
        time.sleep(0.01 * (name == "xrv-cpu:0"))  # so that the other one gets some
        return real(self, images)

    monkeypatch.setattr(TorchEngine, "_plain", plain)
    with pytest.warns(XRVWarning, match="going on with cpu:0"):
        found = list(predictions(network, files, engine="torch", devices=TWO))
    assert {size for name, size in sizes if name == "xrv-cpu:0"} >= {8, 16}
    assert [one.path for one in found] == [one.path for one in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.outputs, other.outputs, atol=1e-5)


# The command


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("cpu,foo", "foo:0 cannot be used here"),
        ("cpu:0,cpu:0", "named twice"),
        ("all", "no accelerator on this machine"),
    ],
)
def test_the_command_refuses_devices_that_are_not_there(tmp_path, device, said):
    if device == "all" and torch.accelerator.is_available():
        pytest.skip("there is an accelerator")
    done = CliRunner().invoke(app, ["predict", str(tmp_path), "--device", device])
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


def test_the_command_takes_several(tmp_path, threads):
    films = long_run.write_films(tmp_path / "films", 6)
    tables = [tmp_path / "one.csv", tmp_path / "two.csv"]
    for table, device in zip(tables, ("cpu", "cpu:0,cpu:1"), strict=True):
        done = CliRunner().invoke(
            app,
            ["predict", str(films), "--weights", "demo", "--engine", "torch", "-b", "1",
             "--device", device, "--output", str(table)],
        )  # fmt: skip
        assert done.exit_code == 0, done.output
    assert {"xrv-cpu:0", "xrv-cpu:1"} <= set(threads)
    assert tables[0].read_bytes() == tables[1].read_bytes()

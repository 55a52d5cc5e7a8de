"""A GPU gives the numbers of a CPU; what it needs besides is tried without one where it can be.

Tests with the marker `gpu` need a CUDA device and skip where there is none.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from support import long_run
from torchxrayvision.autoencoders import ResNetAE
from torchxrayvision.baseline_models.chestx_det import PSPNet
from torchxrayvision.inference import Plan, accelerate, predictions
from torchxrayvision.inference.engines import choose as _choose
from torchxrayvision.inference.engines import gpu as _gpu
from torchxrayvision.inference.engines.base import (
    TorchEngine,
    example,
    halved_to_fit,
    reference,
)
from torchxrayvision.inference.engines.choose import (
    Choice,
    agreement,
    choose_engine,
    open_engine,
    open_network,
    open_planned,
)
from torchxrayvision.inference.prediction import batches
from torchxrayvision.inputs import expand
from torchxrayvision.models import UNet, get_model

BATCH = 4
BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "bench_gpu.py"
PARTS_OF_BENCHMARK = ("Numbers", "Alone", "Growing", "Devices", "Files")


def needs_gpu(test):
    skip = pytest.mark.skipif(
        not torch.cuda.is_available(), reason="needs a CUDA device, and torch finds none"
    )
    return pytest.mark.gpu(skip(test))


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XRV_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def network():
    return long_run.network()


@pytest.fixture
def films(tmp_path):
    return long_run.write_films(tmp_path / "films", 10, damaged=4)


# Out of memory


def short_of_memory(engine, monkeypatch, most):
    """Let the network of an engine fail on more images than `most`, as a small device would."""
    seen = []
    real = engine._model.features_and_raw

    def limited(images):
        seen.append(len(images))
        if len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return real(images)

    monkeypatch.setattr(engine._model, "features_and_raw", limited)
    return seen


@pytest.mark.parametrize(("most", "tried"), [(2, [4, 2, 2]), (1, [4, 2, 1, 1, 1, 1])])
def test_a_batch_that_does_not_fit_goes_through_in_halves(
    network, monkeypatch, caplog, most, tried
):
    whole, small = (open_engine(network, "logit", BATCH, Choice("torch")) for _ in range(2))
    whole.input[...] = small.input[...] = example(long_run.SIZE, BATCH).numpy()
    expected = whole()
    seen = short_of_memory(small.engine, monkeypatch, most)
    for answer, wanted in zip(small(), expected, strict=True):
        np.testing.assert_allclose(answer, wanted, atol=1e-5)
    assert seen == tried
    assert f"going on with {most} images at a time" in caplog.text
    seen.clear()
    small()
    assert seen == [most] * (BATCH // most)  # the next batch is not tried whole again


def test_an_image_that_does_not_fit_alone_is_an_error_that_says_so(network, monkeypatch):
    engine = open_engine(network, "logit", BATCH, Choice("torch"))
    short_of_memory(engine.engine, monkeypatch, 0)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        engine()
    assert "a single image does not fit" in caught.value.__notes__[0]


def test_a_run_short_of_memory_gives_the_rows_of_one_with_enough(network, films, monkeypatch):
    files = list(expand([films]))
    expected = list(predictions(network, files, batch_size=BATCH, engine="torch"))
    real = TorchEngine._plain

    def limited(self, images):
        if len(images) > 1:
            raise torch.OutOfMemoryError
        return real(self, images)

    monkeypatch.setattr(TorchEngine, "_plain", limited)
    found = list(predictions(network, files, batch_size=BATCH, engine="torch"))
    assert [one.error for one in found] == [one.error for one in expected]
    assert sum(bool(one.error) for one in found) == 3
    for one, other in zip(found, expected, strict=True):
        if not one.error:
            np.testing.assert_allclose(one.outputs, other.outputs, atol=1e-5)


def test_what_is_compared_with_is_halved_too():
    sizes = []

    def compute(size):
        sizes.append(size)
        if size > 3:
            raise torch.OutOfMemoryError
        return "done"

    assert halved_to_fit(compute, 13) == ("done", 3)
    assert sizes == [13, 6, 3]


def test_memory_that_runs_out_while_compiling_is_no_broken_compiler(network, monkeypatch):
    def compile_(module, options):
        def run(images):
            if len(images) > 2:
                raise torch.OutOfMemoryError
            return module(images)

        return run

    monkeypatch.setattr(torch, "compile", compile_)
    engine = open_network(network, BATCH, Choice("torch", compiled=True))
    engine.run()
    assert engine.compiled


# Overlapping


class Device:
    """An engine that is done only when it is asked, with two buffers by turns."""

    def __init__(self, inner):
        self._inner = inner
        self._spare = inner.input.copy()
        self.input, self.overlaps = inner.input.copy(), True
        self.outputs, self.width = inner.outputs, inner.width
        self.batch_size, self.size, self.kind = inner.batch_size, inner.size, inner.kind
        self.events = []

    def start(self):
        given, number = self.input, sum(event[0] == "start" for event in self.events)
        self.events.append(("start", number))
        self.input, self._spare = self._spare, self.input

        def finish():
            self.events.append(("finish", number))
            self._inner.input[...] = given
            return self._inner()

        return finish


def test_a_batch_is_written_while_the_one_before_is_computed(network, films):
    files = list(expand([films]))
    plain = open_engine(network, "probability", BATCH, Choice("torch"))
    expected = list(batches(plain, files))
    device = Device(plain)
    found = list(batches(device, files))
    assert device.events == [
        ("start", 0), ("start", 1), ("finish", 0), ("start", 2), ("finish", 1), ("finish", 2),
    ]  # fmt: skip
    assert [names for names, _ in found] == [names for names, _ in expected]
    for (_, one), (_, other) in zip(found, expected, strict=True):
        assert (one.first, one.errors) == (other.first, other.errors)
        np.testing.assert_array_equal(one.outputs, other.outputs)


def test_on_a_cpu_a_batch_is_given_as_soon_as_it_is_done(network, films):
    engine = open_engine(network, "probability", BATCH, Choice("torch"))
    assert not engine.overlaps
    calls = []
    real = engine.engine.run
    engine.engine.run = lambda: calls.append("run") or real()
    for count, _ in enumerate(batches(engine, list(expand([films]))), start=1):
        assert len(calls) == count


# What is chosen


@pytest.fixture
def on_cuda(monkeypatch):
    """What the choice sees of a GPU, without one."""
    weight = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32)
    monkeypatch.setattr(_choose, "weight_of", lambda model: weight)
    monkeypatch.setattr(_choose, "has_compiler", lambda device: True)
    monkeypatch.setattr(TorchEngine, "arithmetics", staticmethod(lambda device: ("bfloat16",)))
    monkeypatch.setattr(_gpu, "name_of", lambda device: "a GPU")


@pytest.mark.usefixtures("on_cuda")
def test_on_a_gpu_cuda_graphs_are_among_what_is_measured(network):
    exact = list(_choose._candidates(network, "auto", "exact"))
    assert exact == [Choice("torch"), Choice("torch", captured=True)]
    fast = list(_choose._candidates(network, "torch", "fast"))
    reduced = [Choice("torch", "bfloat16"), Choice("torch", "bfloat16", captured=True)]
    assert fast == [*exact, *reduced]
    assert str(exact[1]) == "torch, as one CUDA graph, in float32"


@pytest.mark.usefixtures("on_cuda")
@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_a_short_run_on_a_gpu_measures_nothing(network, monkeypatch, engine):
    monkeypatch.setattr(_choose, "_Trial", None)
    monkeypatch.setattr(_choose, "_seconds", lambda model, images: 1.0)
    chosen = choose_engine(network, BATCH, engine, "exact", images=10, sample=lambda: None)
    assert chosen == Choice("torch")


@pytest.mark.usefixtures("on_cuda")
def test_what_was_measured_holds_for_one_kind_of_gpu(network, monkeypatch):
    keys = set()
    for name in ("a GPU", "another GPU"):
        monkeypatch.setattr(_gpu, "name_of", lambda device, name=name: name)
        keys.add(_choose._key(network, [Choice("torch")]))
    assert len(keys) == 2


def precision_now():
    if hasattr(torch.backends.cudnn, "conv"):
        return (
            torch.backends.cudnn.conv.fp32_precision,
            torch.backends.cuda.matmul.fp32_precision,
        )
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def test_float32_is_true_float32_and_the_callers_setting_comes_back():
    before = precision_now()
    with contextlib.suppress(ZeroDivisionError), _gpu.true_float32():
        assert precision_now() in (("ieee", "ieee"), (False, False))
        _ = 1 / 0
    assert precision_now() == before


@pytest.fixture
def settings_of_torch():
    """What programs set of float32 comes back after the test."""
    yield
    torch.backends.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.fp32_precision = torch.backends.mkldnn.matmul.fp32_precision = "none"


@pytest.mark.usefixtures("settings_of_torch")
@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="torch has the old way only")
@pytest.mark.parametrize("way", ["old", "new"])
def test_programs_that_ask_for_tf32_either_way_still_get_true_float32(way):
    """Torch refuses products of matrices where its two ways to set this disagree."""
    if way == "old":
        torch.set_float32_matmul_precision("high")
    else:
        torch.backends.fp32_precision = "tf32"
    before = precision_now()
    with _gpu.true_float32():
        assert precision_now() == ("ieee", "ieee")
        assert torch.backends.cuda.matmul.allow_tf32 is False  # refused: what every product asks
    assert precision_now() == before
    if way == "old":
        assert torch.get_float32_matmul_precision() == "high"


def test_float32_stays_true_until_the_last_thread_is_done():
    before, inside, leave = precision_now(), threading.Event(), threading.Event()

    def other():
        with _gpu.true_float32():
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=other)
    with _gpu.true_float32():
        thread.start()
        assert inside.wait(30)
    during = precision_now()  # this thread is done, the other one computes
    leave.set()
    thread.join()
    assert during in (("ieee", "ieee"), (False, False))
    assert precision_now() == before


# On a GPU

NETWORKS = {
    "densenet121": (lambda: get_model("densenet121", num_classes=18), 224),
    "resnet50": (lambda: get_model("resnet50", num_classes=18), 512),
    "pspnet": (lambda: PSPNet(weights=False), 512),
    "unet": (lambda: UNet(targets=["Heart", "Lungs"]), 256),
    "autoencoder": (lambda: ResNetAE(architecture="autoencoder-resnet101"), 224),
    "planted": (long_run.network, long_run.SIZE),
}


@pytest.fixture(params=NETWORKS)
def pair(request):
    """A network on the GPU, images, and what PyTorch says of them on the CPU in float32."""
    make, side = NETWORKS[request.param]
    torch.manual_seed(0)
    net = make().eval()
    net.input_resolution = side
    images = example(side, BATCH)
    expected = reference(net, images)
    return net.to("cuda"), images, expected


@needs_gpu
@pytest.mark.parametrize("captured", [False, True])
def test_float32_on_a_gpu_is_that_of_the_cpu_to_1e_4(pair, captured):
    net, images, expected = pair
    engine = open_network(net, BATCH, Choice("torch", captured=captured))
    engine.input[...] = images.numpy()
    found = agreement(net, expected, engine.run(), "exact")
    assert found.holds, str(found)
    assert engine.captured == captured


@needs_gpu
def test_fast_on_a_gpu_keeps_its_promise(pair, monkeypatch):
    net, images, expected = pair
    monkeypatch.setattr(_choose, "has_compiler", lambda device: False)  # which takes minutes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what bfloat16 does not reach is computed in float32
        choice = choose_engine(
            net, BATCH, "torch", "fast", images=10**6, sample=lambda: images.numpy()
        )
    engine = open_network(net, BATCH, choice)
    engine.input[...] = images.numpy()
    found = agreement(net, expected, engine.run(), "fast")
    assert found.holds, str(found)


@needs_gpu
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
def test_a_compiled_network_on_a_gpu_gives_the_same_numbers(network):
    images = example(long_run.SIZE, BATCH)
    expected = reference(network, images)
    engine = open_network(network.to("cuda"), BATCH, Choice("torch", compiled=True))
    engine.input[...] = images.numpy()
    assert agreement(network, expected, engine.run(), "exact").holds
    assert engine.compiled


@needs_gpu
@pytest.mark.parametrize("captured", [False, True])
def test_overlapped_batches_on_a_gpu_do_not_mix(network, captured):
    """Each batch is begun before the one before is asked for, as in a run."""
    images = example(long_run.SIZE, 8 * BATCH)
    expected = reference(network, images)[0].split(BATCH)
    engine = open_network(network.to("cuda"), BATCH, Choice("torch", captured=captured))
    assert engine.overlaps
    found, before = [], None
    for part in images.split(BATCH):
        engine.input[...] = part.numpy()
        finish = engine.start()
        if before is not None:
            found.append(before()[0].clone())
        before = finish
    found.append(before()[0])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@needs_gpu
def test_the_table_of_a_gpu_is_that_of_the_cpu(network, films):
    files = list(expand([films]))
    expected = list(predictions(network, files, engine="torch"))
    found = list(predictions(network.to("cuda"), files, engine="torch"))
    assert [one.error for one in found] == [one.error for one in expected]
    for one, other in zip(found, expected, strict=True):
        if not one.error:
            np.testing.assert_allclose(one.outputs, other.outputs, atol=1e-4)


@needs_gpu
def test_memory_that_runs_out_on_a_gpu_halves_the_batch():
    torch.manual_seed(0)
    net = get_model("densenet121", num_classes=18).eval()
    net.input_resolution = 224
    images = example(224, 2)
    expected = reference(net, images)
    engine = open_network(net.to("cuda"), 256, Choice("torch"))
    engine.input[...] = images.repeat(128, 1, 1, 1).numpy()
    torch.cuda.set_per_process_memory_fraction(
        2**30 / torch.cuda.get_device_properties(0).total_memory
    )
    try:
        found = engine.run()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert engine._part < 256
    assert agreement(net, expected, tuple(one[:2] for one in found), "exact").holds


@needs_gpu
@pytest.mark.parametrize("captured", [False, True])
def test_batches_that_grow_on_a_gpu_give_the_numbers_of_those_that_do_not(network, captured):
    images = example(long_run.SIZE, 512)
    expected = reference(network, images)[0]
    net, plan = network.to("cuda"), Plan(grows=True, images=10**6)
    engine = open_planned(net, 8, Choice("torch", captured=captured), plan)
    waiting, found, place = [], [], 0
    while place < 100_000 and not engine.growth.settled:
        size = len(engine.input)
        at = np.arange(place, place + size) % len(images)
        engine.input[...] = images[at].numpy()
        waiting.append((at, engine.start()))
        place += size
        if len(waiting) > engine.overlaps:
            at, finish = waiting.pop(0)
            found.append((at, finish()[0].clone()))
    found += [(at, finish()[0].clone()) for at, finish in waiting]
    engine.close()
    assert engine.growth.settled
    assert max(len(at) for at, _ in found) > 8
    for at, given in found:
        torch.testing.assert_close(given, expected[at], atol=1e-4, rtol=1e-4)


@needs_gpu
def test_a_gpu_with_tf32_asked_for_by_the_program_computes_in_float32(network):
    images = example(long_run.SIZE, BATCH)
    expected = reference(network, images)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        engine = open_network(network.to("cuda"), BATCH, Choice("torch"))
        engine.input[...] = images.numpy()
        assert agreement(network, expected, engine.run(), "exact").holds
    finally:
        torch.set_float32_matmul_precision(before)


two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")


@needs_gpu
@two_gpus
@pytest.mark.parametrize("captured", [False, True])
def test_two_gpus_in_one_run_give_the_numbers_of_the_cpu(network, captured):
    """Each captures a graph while the other computes."""
    images = example(long_run.SIZE, 32 * BATCH)
    expected = reference(network, images)[0]
    plan = Plan(devices=("cuda:0", "cuda:1"))
    choice = Choice("torch", captured=captured)
    engine = open_planned(network.to("cuda:0"), BATCH, choice, plan)
    finishes = []
    for part in images.split(BATCH):
        engine.input[...] = part.numpy()
        finishes.append(engine.start())
    found = torch.cat([finish()[0].clone() for finish in finishes])
    engine.close()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@needs_gpu
@two_gpus
def test_a_second_device_gives_the_numbers_of_the_first(network):
    images = example(long_run.SIZE, BATCH)
    answers = [
        accelerate(network.to(f"cuda:{number}"), BATCH, engine="torch")(images)
        for number in range(2)
    ]
    torch.testing.assert_close(*answers, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_the_benchmark_runs_without_a_gpu(tmp_path):
    """So that it is ready where there is one."""
    table = tmp_path / "table.md"
    command = [sys.executable, str(BENCHMARK), "--device", "cpu", "--quick", "--output", str(table)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = table.read_text("utf-8")
    assert re.findall(r"^## (\w+)$", text, re.M) == list(PARTS_OF_BENCHMARK)
    assert "NO" not in text.replace("no GPU", "")
    assert "FAILED" not in text
    rows = [line for line in text.splitlines() if line.startswith(("| densenet121", "| demo"))]
    assert len(rows) >= 6
    assert any("cpu:0 cpu:1" in row for row in rows)


@pytest.mark.slow
def test_the_benchmark_writes_its_table_where_parts_fail(tmp_path):
    """A device that torch does not have breaks every part, and each says so in its table."""
    table = tmp_path / "table.md"
    command = [sys.executable, str(BENCHMARK), "--device", "mps", "--quick", "--output", str(table)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    text = table.read_text("utf-8")
    assert re.findall(r"^## (\w+)$", text, re.M) == list(PARTS_OF_BENCHMARK)
    assert text.count("| FAILED (1): ") == text.count("## ") == len(PARTS_OF_BENCHMARK)

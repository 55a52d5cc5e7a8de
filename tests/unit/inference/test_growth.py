"""Batches that grow on a GPU, with the GPU played by a processor that is given other times."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from support import long_run
from torchxrayvision.inference import BATCH, predict_to_file, predictions
from torchxrayvision.inference.engines import choose as _choose
from torchxrayvision.inference.engines import growth as _growth
from torchxrayvision.inference.engines.base import TorchEngine
from torchxrayvision.inference.engines.growth import GrowingEngine, Growth, most_images
from torchxrayvision.inference.engines.runtime import Choice
from torchxrayvision.inputs import expand
from torchxrayvision.models import UNet
from torchxrayvision.segmentation import segment

IMAGES = 200


def grown(growth, seconds, *, fits=10**6, batches=60):
    """Sizes of batches on a device that takes `seconds(size)` and has memory for `fits` images."""
    sizes = []
    for _ in range(batches):
        size = growth.size
        sizes.append(size)
        fitted = size
        while fitted > fits:
            fitted //= 2
        growth.note(size, seconds(size), fitted)
    return sizes


def test_it_doubles_until_the_device_is_full():
    growth = Growth(8, 512)
    sizes = grown(growth, lambda size: max(0.01, size * 0.01 / 64))  # 64 images fill it
    assert sorted(set(sizes)) == [8, 16, 32, 64, 128]  # 128 was tried and left again
    assert (growth.size, growth.settled) == (64, True)
    assert sizes[-1] == 64


def test_it_stays_where_a_larger_batch_gains_a_few_per_cent_only():
    growth = Growth(8, 512)
    grown(growth, lambda size: size / (1000 * 1.04 ** np.log2(size / 8)))
    assert growth.size == 8
    growth = Growth(8, 64)
    grown(growth, lambda size: size / (1000 * 1.06 ** np.log2(size / 8)))
    assert growth.size == 64


def test_the_first_batch_of_a_size_does_not_count():
    growth, seen = Growth(8, 512), set()

    def seconds(size):
        first = size not in seen
        seen.add(size)
        return 5.0 if first else 0.01

    grown(growth, seconds)
    assert growth.size == 512


def test_one_slow_batch_among_those_of_a_size_does_not_count():
    growth, calls = Growth(8, 64), []

    def seconds(size):
        calls.append(size)
        return 1.0 if len(calls) % 3 == 0 else 0.01

    grown(growth, seconds)
    assert growth.size == 64


@pytest.mark.parametrize(("fits", "ends"), [(8, 8), (20, 16), (63, 32), (3, 2)])
def test_after_a_batch_that_does_not_fit_it_never_grows_again(fits, ends):
    growth = Growth(8, 512)
    sizes = grown(growth, lambda size: 0.01, fits=fits)
    assert growth.settled
    assert growth.size == ends
    too_large = [number for number, size in enumerate(sizes) if size > fits]
    assert len(too_large) == 1
    assert max(sizes[too_large[0] + 1 :]) <= fits


def test_batches_of_a_size_that_was_left_say_nothing():
    growth = Growth(8, 512)
    grown(growth, lambda size: 0.01, batches=4)
    assert growth.size == 16
    growth.note(8, 1e-9, 4)
    assert (growth.size, growth.settled) == (16, False)


def test_a_size_that_cannot_be_prepared_is_not_tried_again():
    growth = Growth(8, 512)
    grown(growth, lambda size: 0.01, batches=4)
    growth.failed(16)
    grown(growth, lambda size: 0.01)
    assert (growth.size, growth.settled) == (8, True)


# In a run


@pytest.fixture
def network():
    return long_run.network()


@pytest.fixture
def films(tmp_path):
    return long_run.write_films(tmp_path / "films", IMAGES, damaged=30)


@pytest.fixture
def sizes(monkeypatch):
    """A GPU that takes as long for many images as for one; the sizes of the batches it computes."""
    for module in (_choose, _growth):
        monkeypatch.setattr(module, "on_cuda", lambda model: True)
    monkeypatch.setattr(_growth, "_BATCHES", 2)
    took = property(lambda self: 0.01, lambda self, seconds: None)
    monkeypatch.setattr(TorchEngine, "took", took)
    seen = []
    real = TorchEngine._plain

    def plain(self, images):
        seen.append(len(images))
        return real(self, images)

    monkeypatch.setattr(TorchEngine, "_plain", plain)
    return seen


def same(found, expected):
    assert [(one.path, one.error) for one in found] == [(o.path, o.error) for o in expected]
    for one, other in zip(found, expected, strict=True):
        if not one.error:
            np.testing.assert_allclose(one.outputs, other.outputs, atol=1e-5)


def test_without_a_gpu_nothing_grows(network, films):
    files = list(expand([films]))
    engine = _choose.open_planned(network, 8, Choice("torch"), _choose.Plan(True, 10**6))
    assert not isinstance(engine, GrowingEngine)
    default = list(predictions(network, files, engine="torch"))
    named = list(predictions(network, files, engine="torch", batch_size=BATCH))
    for one, other in zip(default, named, strict=True):
        np.testing.assert_array_equal(one.outputs, other.outputs)


def test_the_batches_of_a_run_grow_and_its_numbers_do_not_change(network, films, sizes):
    files = list(expand([films]))
    expected = list(predictions(network, files, engine="torch", batch_size=BATCH))
    assert set(sizes) == {BATCH}
    sizes.clear()
    same(list(predictions(network, files, engine="torch")), expected)
    assert sizes == sorted(sizes)
    assert set(sizes) == {8, 16, 32}  # each was tried on batches of the run


def test_a_run_short_of_memory_stays_at_what_fitted(network, films, sizes, monkeypatch):
    files = list(expand([films]))
    expected = list(predictions(network, files, engine="torch", batch_size=BATCH))
    sizes.clear()
    real = TorchEngine._plain

    def limited(self, images):
        given = real(self, images)
        if len(images) > 20:
            raise torch.OutOfMemoryError
        return given

    monkeypatch.setattr(TorchEngine, "_plain", limited)
    same(list(predictions(network, files, engine="torch")), expected)
    assert sizes.count(32) == 1
    assert set(sizes[sizes.index(32) + 1 :]) == {16}


def test_pinned_memory_that_is_short_ends_the_growth(network, films, sizes, monkeypatch):
    files = list(expand([films]))
    real = TorchEngine.__init__

    def limited(self, model, batch_size, *args, **kwargs):
        if batch_size > 16:
            raise RuntimeError("CUDA error: out of memory")
        real(self, model, batch_size, *args, **kwargs)

    monkeypatch.setattr(TorchEngine, "__init__", limited)
    found = list(predictions(network, files, engine="torch"))
    assert sum(not one.error for one in found) == IMAGES - 7
    assert set(sizes) == {8, 16}


def test_a_table_of_grown_batches_resumes_to_the_same_rows(network, films, sizes, tmp_path):
    def stop(done, total):
        if done >= 70:
            raise KeyboardInterrupt

    whole, stopped = tmp_path / "whole.csv", tmp_path / "stopped.csv"
    predict_to_file(films, network, whole, engine="torch", batch_size=BATCH)
    with pytest.raises(KeyboardInterrupt):
        predict_to_file(films, network, stopped, engine="torch", on_progress=stop)
    done = predict_to_file(films, network, stopped, engine="torch")
    assert 70 <= done.resumed < IMAGES
    assert max(sizes) > BATCH
    rows = [
        np.genfromtxt(p, delimiter=",", skip_header=1, usecols=(2, 3)) for p in (whole, stopped)
    ]
    np.testing.assert_allclose(rows[1], rows[0], atol=1e-5)


def test_what_is_compiled_for_one_size_keeps_it(network, sizes):
    assert most_images(network, 8, None, Choice("torch")) == 512
    assert most_images(network, 8, 160, Choice("torch")) == 80  # two batches of it, here
    assert most_images(network, 8, None, Choice("torch", compiled=True)) == 8


def test_the_results_of_a_batch_stay_within_the_memory_of_the_host(sizes):
    net = UNet(targets=["Heart", "Lungs"], width=4)
    net.input_resolution = 512
    assert most_images(net, 1, None, Choice("torch")) == 2**28 // (4 * 512 * 512 * 3)
    net.input_resolution = 8192
    assert most_images(net, 1, None, Choice("torch")) == 1


def test_compiling_is_not_tried_where_batches_grow(network, monkeypatch, sizes):
    monkeypatch.setattr(_choose, "has_compiler", lambda device: True)
    monkeypatch.setattr(_choose, "_seconds", lambda model, images: 1e6)
    tried = []
    monkeypatch.setattr(
        _choose._Trial, "fastest", lambda self, found, precision: tried.append(found) or found[0]
    )
    images = np.zeros((1, 1, long_run.SIZE, long_run.SIZE), np.float32)
    for grows in (True, False):
        _choose.choose_engine(
            network, 8, "torch", "exact", images=10**6, sample=lambda: images, grows=grows
        )
    assert [any(choice.compiled for choice in found) for found in tried] == [True]


def test_the_batches_of_a_segmentation_grow(films, sizes, monkeypatch):
    torch.manual_seed(0)
    net = UNet(targets=["Heart", "Lungs"], width=4).eval()
    net.input_resolution = long_run.SIZE
    files = list(expand([films]))[:60]
    expected = list(segment(files, net, batch_size=1))
    monkeypatch.setattr(
        "torchxrayvision.segmentation.masks.Segmenting._start_unasked",
        lambda self: self.start({"engine": "torch"}),
    )
    sizes.clear()
    found = list(segment(files, net))
    assert max(sizes) >= 8
    assert [one.error for one in found] == [one.error for one in expected]
    for one, other in zip(found, expected, strict=True):
        if not one.error:
            for name in other.masks:
                np.testing.assert_allclose(
                    one.masks.of_square(name), other.masks.of_square(name), atol=2e-5
                )

"""Engines: the same numbers, chosen by name or by measurement, checked before they are used."""

from __future__ import annotations

import copy
import gc
import json
import os
import subprocess
import sys
import threading
import time
import warnings
import weakref

import numpy as np
import onnx
import pandas as pd
import pytest
import torch

from support import long_run
from torchxrayvision.errors import DependencyError, PrecisionWarning, UnknownNameError
from torchxrayvision.inference import predict, predict_to_file, predictions
from torchxrayvision.inference.engines import choose as _choose
from torchxrayvision.inference.engines import timing as _timing
from torchxrayvision.inference.engines import winograd as _winograd
from torchxrayvision.inference.engines.base import (
    TorchEngine,
    example,
    has_compiler,
    on_cpu,
)
from torchxrayvision.inference.engines.choose import Choice, choose_engine, open_engine
from torchxrayvision.inference.engines.onnx import OnnxEngine, OpenVinoEngine, onnx_file
from torchxrayvision.inference.engines.timing import Spent
from torchxrayvision.inputs import ReadOptions, expand
from torchxrayvision.inputs import load as _load
from torchxrayvision.inputs import readers as _readers
from torchxrayvision.remote import is_as_made, remember_made

BATCH = 4
RUNTIMES = ["onnx", "openvino"]


@pytest.fixture(scope="module")
def network():
    net = long_run.network()
    net.set_operating_points([0.3, 0.5, 0.7])
    return net


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return long_run.write_films(tmp_path_factory.mktemp("films"), 10, damaged=4)


@pytest.fixture(scope="module")
def graph(network, tmp_path_factory):
    """The converted network, made once; tests put it in their own cache."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XRV_CACHE_DIR", str(tmp_path_factory.mktemp("graph")))
        return onnx_file(network, long_run.SIZE)


@pytest.fixture
def converted(graph, network, tmp_path, monkeypatch):
    monkeypatch.setenv("XRV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(_choose, "_seconds_an_image", lambda model: 0.1)  # of a usual network
    target = tmp_path / "cache" / "engines" / graph.name
    target.parent.mkdir(parents=True)
    target.write_bytes(graph.read_bytes())
    remember_made(target)
    return target


@pytest.mark.parametrize("to_file", [False, True])
def test_engines_are_tried_on_films_under_the_time_limit(
    films, network, converted, tmp_path, monkeypatch, to_file
):
    release = threading.Event()
    real = _load.read_raster

    def hang(path, **options):
        if "00000" in str(path):
            release.wait(60)
        return real(path, **options)

    monkeypatch.setattr(_load, "read_raster", hang)
    monkeypatch.setattr(_readers, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(_readers, "_SHUTDOWN_SECONDS", 0.1)
    reading, begun = ReadOptions(time_limit=0.5, workers=1), time.monotonic()
    if to_file:
        predict_to_file(films, network, tmp_path / "t.csv", engine="onnx", reading=reading)
        errors = list(pd.read_csv(tmp_path / "t.csv", keep_default_na=False)["error"])
    else:
        found = predictions(network, list(expand([films])), engine="onnx", reading=reading)
        errors = [result.error for result in found]
    release.set()
    assert errors[0] == "reading took longer than 0.5 s"
    assert time.monotonic() - begun < 30


def sample():
    return example(long_run.SIZE, BATCH).numpy()


def choose(network, engine="auto", precision="exact", images=5000):
    return choose_engine(network, BATCH, engine, precision, images=images, sample=sample)


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize("kind", ["logit", "probability", "operating-point"])
@pytest.mark.usefixtures("converted")
def test_numbers_and_features_are_those_of_torch(network, name, kind):
    engines = [open_engine(network, kind, BATCH, Choice(each)) for each in ("torch", name)]
    answers = []
    for engine in engines:
        engine.input[...] = sample()
        answers.append(engine())
    for torchs, theirs in zip(*answers, strict=True):
        np.testing.assert_allclose(torchs, theirs, atol=1e-5)
    assert answers[0][0].shape == (BATCH, 3)
    assert answers[0][1].shape == (BATCH, engines[0].width)


@pytest.mark.parametrize("name", ["torch", *RUNTIMES])
@pytest.mark.usefixtures("converted")
def test_an_image_has_the_same_bits_whatever_else_is_in_its_batch(network, name):
    def run(others, seed):
        engine = open_engine(network, "logit", BATCH, Choice(name))
        engine.input[...] = others
        engine.input[2] = sample()[0]
        return [answer[2].tobytes() for answer in engine()]

    junk = [np.empty(n) for n in range(1, 5000, 97)]  # another layout of the memory
    first = run(example(long_run.SIZE, BATCH, 1).numpy(), 1)
    del junk
    assert run(-1024.0, 2) == first


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.usefixtures("converted")
def test_tables_are_those_of_torch(network, films, name, tmp_path):
    expected = predict(films, network, engine="torch", batch_size=BATCH)
    found = predict(films, network, engine=name, batch_size=BATCH)
    pd.testing.assert_frame_equal(expected, found, atol=1e-5)
    predict_to_file(films, network, tmp_path / "t.parquet", engine=name, batch_size=BATCH)
    pd.testing.assert_frame_equal(expected, pd.read_parquet(tmp_path / "t.parquet"), atol=1e-5)


def test_unknown_names_are_refused_with_the_known(network):
    with pytest.raises(UnknownNameError, match="openvino"):
        choose(network, engine="tensorrt")
    with pytest.raises(UnknownNameError, match="fast"):
        choose(network, precision="int8")


@pytest.mark.parametrize("runtime", [OnnxEngine, OpenVinoEngine])
def test_a_missing_package_names_the_extra(network, monkeypatch, runtime):
    monkeypatch.setattr(runtime.session, "package", "no-such-package")
    wanted = f"no-such-package of the extra {runtime.session.name}: pip install "
    with pytest.raises(DependencyError, match=wanted):
        choose(network, engine=runtime.name)


def test_few_images_are_not_even_timed(network, monkeypatch):
    monkeypatch.setattr(_choose, "_seconds_an_image", None)
    assert choose(network, images=31) == Choice("torch")


@pytest.mark.usefixtures("converted")
@pytest.mark.parametrize(("images", "measured"), [(100, False), (130, True)])
def test_engines_are_measured_where_the_run_takes_a_minute(network, monkeypatch, images, measured):
    monkeypatch.setattr(_choose, "_seconds_an_image", lambda model: 0.5)
    monkeypatch.setattr(
        _choose._Trial, "fastest", lambda self, candidates, precision: candidates[-1]
    )
    assert choose(network, images=images) == Choice("openvino" if measured else "torch")


def test_an_image_is_timed_without_the_first_run(network, monkeypatch):
    clock = iter([0.0, 5.0, 5.0, 5.25])
    monkeypatch.setattr(_timing, "now", lambda: Spent(next(clock), 0, 0))
    assert _choose._seconds_an_image(network) == 0.25


@pytest.mark.usefixtures("converted")
def test_auto_measures_once_and_remembers(network, monkeypatch, tmp_path):
    measured = []
    real = _choose._Trial.fastest

    def slow(self, candidates, tolerance):
        measured.append([str(c) for c in candidates])
        return real(self, candidates, tolerance)

    monkeypatch.setattr(_choose._Trial, "fastest", slow)
    first = choose(network)
    assert choose(network) == first
    assert measured == [
        ["torch in float32", "onnx in float32", "openvino in float32"], [str(first)],
    ]  # fmt: skip
    (entry,) = json.loads((tmp_path / "cache" / "engines.json").read_text()).values()
    assert set(entry["seconds"]) == set(measured[0])
    assert min(entry["seconds"], key=entry["seconds"].get) == str(first)
    (tmp_path / "cache" / "engines.json").write_text("[damaged")
    choose(network)
    assert len(measured[-1]) == 3


@pytest.mark.usefixtures("converted")
def test_a_short_run_uses_what_was_measured_before(network):
    first = choose(network)
    assert choose(network, images=10) == first


@pytest.fixture
def pause(monkeypatch):
    """Makes an engine take so many seconds of a clock that nothing else moves."""
    clock = [Spent(0, 0, 0)]
    monkeypatch.setattr(_timing, "now", lambda: clock[0])

    def slow(runtime, seconds):
        real = runtime._run

        def run(self):
            spent, before = seconds(self), clock[0]
            if not isinstance(spent, Spent):
                spent = Spent(spent, spent, 0)
            clock[0] = Spent(
                *(getattr(before, name) + getattr(spent, name) for name in Spent.__slots__)
            )
            return real(self)

        monkeypatch.setattr(runtime, "_run", run)

    return slow


@pytest.mark.usefixtures("converted")
def test_the_fastest_wins(network, pause):
    for runtime, seconds in ((TorchEngine, 2.0), (OnnxEngine, 1.0), (OpenVinoEngine, 3.0)):
        pause(runtime, lambda self, seconds=seconds: seconds)
    assert choose(network) == Choice("onnx")


@pytest.mark.usefixtures("converted")
@pytest.mark.parametrize("large", [True, False])
def test_what_waits_for_a_busy_machine_is_not_slower_for_it(network, monkeypatch, pause, large):
    """Each of three runs of the faster engine takes longer by the wall than any of the others."""
    if large:
        monkeypatch.setattr(_choose, "_ONE_BY_ONE", 0)
    pause(TorchEngine, lambda self: 4.0)
    pause(OpenVinoEngine, lambda self: 2.0)  # before the class that it derives from
    pause(OnnxEngine, lambda self: Spent(wall=3.0, computed=1.5, waited=1.5))
    assert choose(network) == Choice("onnx")


@pytest.mark.usefixtures("converted")
def test_the_least_of_several_times_counts(network, pause):
    """Processors also slow down for reasons that nobody counts."""
    times = iter([9.0, 1.0, 8.0, 7.0])
    pause(TorchEngine, lambda self: 4.0)
    pause(OpenVinoEngine, lambda self: 2.0)
    pause(OnnxEngine, lambda self: next(times))
    assert choose(network) == Choice("onnx")


@pytest.fixture
def wide(monkeypatch):
    """The 3 x 3 convolutions of the small network count as wide."""
    monkeypatch.setattr(_winograd, "LEAST_CHANNELS", 4)


@pytest.mark.usefixtures("converted", "wide")
@pytest.mark.parametrize(("seconds", "winograd"), [(1.0, True), (3.0, False)])
@pytest.mark.parametrize("engine", ["auto", "onnx"])
def test_winograds_method_is_used_where_it_is_faster(
    network, monkeypatch, pause, engine, seconds, winograd
):
    pause(TorchEngine, lambda self: 4.0)
    real = OnnxEngine._start

    def start(self, path):
        self.graph = path.name
        real(self, path)

    monkeypatch.setattr(OnnxEngine, "_start", start)
    pause(OnnxEngine, lambda self: seconds if "winograd" in self.graph else 2.0)
    pause(OpenVinoEngine, lambda self: 4.0)
    choice = Choice("onnx", winograd=winograd)
    assert choose(network, engine) == choice
    assert choose(network, engine, images=10) == choice


@pytest.mark.usefixtures("converted", "wide")
def test_winograds_method_is_not_measured_for_a_short_run(network, monkeypatch):
    monkeypatch.setattr("torchxrayvision.inference.engines.onnx.minimal_filtering", None)
    assert choose(network, "onnx", images=10) == Choice("onnx")


@pytest.mark.usefixtures("converted", "wide")
def test_winograds_method_gives_the_same_numbers(network):
    choices = (Choice("torch"), Choice("onnx", winograd=True))
    engines = [open_engine(network, "logit", BATCH, choice) for choice in choices]
    for engine in engines:
        engine.input[...] = sample()
    for torchs, theirs in zip(engines[0](), engines[1](), strict=True):
        np.testing.assert_allclose(torchs, theirs, atol=1e-5)
    graph = onnx.load(onnx_file(network, long_run.SIZE, winograd=True)).graph
    # One product per layer, as none has more channels than go through together.
    assert sum(node.op_type == "MatMul" for node in graph.node) == 4


@pytest.mark.usefixtures("converted", "wide")
def test_a_long_run_by_winograds_method_gives_the_table_of_torch(
    network, films, monkeypatch, tmp_path
):
    expected = predict(films, network, engine="torch", batch_size=BATCH)
    choice = Choice("onnx", winograd=True)
    monkeypatch.setattr(_choose._Trial, "fastest", lambda self, candidates, precision: choice)
    predict_to_file(films, network, tmp_path / "t.parquet", engine="onnx", batch_size=BATCH)
    pd.testing.assert_frame_equal(expected, pd.read_parquet(tmp_path / "t.parquet"), atol=1e-5)
    assert list((tmp_path / "cache").glob("engines/*.winograd.onnx"))


@pytest.fixture
def plain_compile(monkeypatch):
    """torch.compile that does nothing, as the real one takes a minute."""
    monkeypatch.setattr(torch, "compile", lambda module, options: module)
    monkeypatch.setattr(_choose, "has_compiler", lambda device: True)


@pytest.mark.usefixtures("converted", "plain_compile")
@pytest.mark.parametrize(("images", "compiled"), [(5900, False), (6100, True)])
def test_compiling_is_tried_where_the_run_takes_ten_minutes(network, pause, images, compiled):
    pause(TorchEngine, lambda self: 1.0 if self.compiled else 2.0)
    assert choose(network, "torch", images=images) == Choice("torch", compiled=compiled)


@pytest.mark.usefixtures("converted", "plain_compile")
def test_compiling_is_dropped_where_it_is_no_faster(network, pause):
    pause(TorchEngine, lambda self: 2.0)
    assert choose(network, "torch", images=10_000) == Choice("torch")


@pytest.mark.usefixtures("converted")
def test_nothing_is_compiled_without_a_compiler(network, monkeypatch, caplog):
    monkeypatch.setattr(_choose, "has_compiler", lambda device: False)
    monkeypatch.setattr(_choose, "_Trial", None)
    with caplog.at_level("INFO"):
        assert choose(network, "torch") == Choice("torch")
    assert "no compiler" in caplog.text


@pytest.mark.usefixtures("converted")
def test_a_compiler_that_fails_is_left_out_with_a_logged_reason(
    network, monkeypatch, pause, caplog
):
    def broken(module, options):
        def run(images):
            raise RuntimeError("cannot find -lgomp")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(_choose, "has_compiler", lambda device: True)
    pause(TorchEngine, lambda self: 2.0)
    with warnings.catch_warnings(), caplog.at_level("INFO"):
        warnings.simplefilter("error")
        assert choose(network, "torch", images=10_000) == Choice("torch")
    assert "cannot find -lgomp" in caplog.text
    engine = open_engine(network, "logit", BATCH, Choice("torch", compiled=True))
    plain = open_engine(network, "logit", BATCH, Choice("torch"))
    engine.input[...] = plain.input[...] = sample()
    np.testing.assert_array_equal(engine()[0], plain()[0])


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(torch.device("cpu")), reason="needs a C++ compiler")
def test_a_compiled_network_gives_the_same_numbers(network):
    engine = open_engine(network, "logit", BATCH, Choice("torch", compiled=True))
    plain = open_engine(network, "logit", BATCH, Choice("torch"))
    engine.input[...] = plain.input[...] = sample()
    for theirs, ours in zip(engine(), plain(), strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-4)
    assert engine.engine.compiled


def test_fast_without_faster_arithmetic_is_exact_and_says_so(network, monkeypatch):
    monkeypatch.setattr(TorchEngine, "arithmetics", staticmethod(lambda device: ()))
    with pytest.warns(PrecisionWarning, match="no faster arithmetic"):
        assert choose(network, engine="torch", precision="fast") == Choice("torch")


def test_fast_arithmetic_is_used_where_it_agrees_and_is_faster(network, monkeypatch, pause):
    monkeypatch.setattr(TorchEngine, "arithmetics", staticmethod(lambda device: ("bfloat16",)))
    monkeypatch.setattr(_choose, "has_compiler", lambda device: False)
    pause(TorchEngine, lambda self: 1.0 if self._reduced else 2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose(network, "torch", "fast") == Choice("torch", "bfloat16")
    values = []
    for choice in (Choice("torch"), Choice("torch", "bfloat16")):
        engine = open_engine(network, "probability", BATCH, choice)
        engine.input[...] = sample()
        values.append(engine()[0])
    assert 0 < np.abs(values[0] - values[1]).max() < 0.01


def test_fast_arithmetic_that_is_too_far_is_refused_aloud(network, monkeypatch):
    monkeypatch.setattr(TorchEngine, "arithmetics", staticmethod(lambda device: ("bfloat16",)))
    real = TorchEngine._run

    def wrong(self):
        logits, features = real(self)
        return (logits + 0.2 if self._reduced else logits), features

    monkeypatch.setattr(TorchEngine, "_run", wrong)
    with pytest.warns(PrecisionWarning, match=r"torch in bfloat16: .* by 0\.0\d+ .*not used"):
        assert choose(network, "torch", "fast") == Choice("torch")


@pytest.mark.parametrize("damage", [b"no graph", None])
def test_a_damaged_conversion_in_the_cache_is_made_again(network, converted, damage):
    whole = converted.read_bytes()
    if damage is None:  # a graph of the right form with other numbers
        proto = onnx.load(converted)
        weight = max(proto.graph.initializer, key=lambda t: len(t.raw_data))
        weight.raw_data = bytes(len(weight.raw_data))
        damage = proto.SerializeToString()
    converted.write_bytes(damage)
    assert choose(network, engine="onnx") == Choice("onnx")
    assert len(converted.read_bytes()) == len(whole)


@pytest.mark.usefixtures("wide")
def test_a_damaged_graph_by_winograds_method_is_made_again(network, converted):
    changed = onnx_file(network, long_run.SIZE, winograd=True)
    whole = changed.read_bytes()
    changed.write_bytes(b"no graph")
    choose(network, engine="onnx")
    assert len(changed.read_bytes()) == len(whole)


def test_an_engine_that_fails_is_replaced_by_torch_aloud(network, monkeypatch):
    def broken(self, path):
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(OnnxEngine, "_start", broken)
    monkeypatch.setattr("torchxrayvision.inference.engines.onnx.onnx_file", lambda *a, **k: None)
    with pytest.warns(PrecisionWarning, match="not used"):
        assert choose(network, engine="onnx") == Choice("torch")


def test_the_graph_holds_no_trace_of_the_machine(converted):
    content = converted.read_bytes()
    assert b".py" not in content
    assert b"site-packages" not in content


@pytest.mark.usefixtures("converted")
def test_a_model_changed_in_memory_is_another_graph(network, monkeypatch):
    made = []
    monkeypatch.setattr("torchxrayvision.inference.engines.onnx.to_onnx",
                        lambda program, names: made.append(program) or Proto())  # fmt: skip
    onnx_file(network, long_run.SIZE)
    assert not made
    other = long_run.network()
    with torch.no_grad():
        other.classifier.bias += 1
    onnx_file(other, long_run.SIZE)
    assert len(made) == 1


def test_of_a_large_network_one_engine_is_open_at_a_time(network, monkeypatch):
    monkeypatch.setattr(_choose, "_ONE_BY_ONE", 0)
    opened = weakref.WeakSet()
    real = _choose.open_network

    def counted(*args, **options):
        gc.collect()
        assert not opened
        engine = real(*args, **options)
        opened.add(engine)
        return engine

    monkeypatch.setattr(_choose, "open_network", counted)
    trial = _choose._Trial(network, BATCH, example(long_run.SIZE, BATCH).numpy())
    candidates = [Choice("torch"), Choice("onnx"), Choice("openvino")]
    assert trial.fastest(candidates, "exact") in candidates
    assert set(trial.seconds) == {str(choice) for choice in candidates}


def test_a_network_is_converted_without_a_copy_of_its_weights(network):
    shared = on_cpu(network)
    for name, weight in network.state_dict(keep_vars=True).items():
        assert shared.state_dict(keep_vars=True)[name].data_ptr() == weight.data_ptr(), name
    assert {id(part) for part in shared.modules()}.isdisjoint(map(id, network.modules()))
    halved = on_cpu(copy.deepcopy(network).half())
    assert {weight.dtype for weight in halved.parameters()} == {torch.float32}


@pytest.mark.parametrize("harm", ["exchanged", "link", "unrecorded", "forged"])
def test_a_graph_that_is_not_what_was_written_here_is_converted_anew(
    network, converted, tmp_path, harm
):
    """The graph decides the numbers, and may agree on the few images that are compared."""
    whole, record = converted.read_bytes(), converted.with_name("pins.json")
    if harm == "exchanged":
        converted.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif harm == "link":
        converted.unlink()
        (tmp_path / "theirs.onnx").write_bytes(whole)
        converted.symlink_to(tmp_path / "theirs.onnx")
    elif harm == "unrecorded":
        record.unlink()
    else:
        record.write_text("{")
    again = onnx_file(network, long_run.SIZE)
    assert again == converted
    assert not again.is_symlink()
    assert record.stat().st_size > 2
    assert is_as_made(again)
    if harm == "link":
        assert (tmp_path / "theirs.onnx").read_bytes() == whole
    assert again.read_bytes()[:100] == whole[:100]


class Proto:
    def write(self, path):
        path.write_bytes(b"")


TELEMETRY = """
import socket, sys
from pathlib import Path

asked = []
socket.getaddrinfo = lambda host, *_, **__: asked.append(host) or []
from torchxrayvision.inference.engines.runtime import import_openvino

assert import_openvino().Core().available_devices
import openvino.tools.ovc as tools
print(asked, list(Path.home().iterdir()), type(tools.telemetry).__module__)
assert "openvino_telemetry" not in sys.modules
"""


def test_openvino_reports_nothing(tmp_path):
    pytest.importorskip("openvino")
    environment = {n: v for n, v in os.environ.items() if n not in ("CI", "BUILD_ID")}
    done = subprocess.run(
        [sys.executable, "-c", TELEMETRY],
        capture_output=True,
        text=True,
        timeout=60,
        env={**environment, "HOME": str(tmp_path)},
        check=True,
    )
    assert done.stdout.split() == ["[]", "[]", "openvino.tools.ovc.telemetry_stub"]

"""Masks from a graph: no torch, the same bytes, and nothing but the graph that was made."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from support import long_run
from support.without_torch import NOT_INSTALLED, run_without_torch
from torchxrayvision import weights
from torchxrayvision.cli import app
from torchxrayvision.errors import GraphError, UnknownNameError
from torchxrayvision.inference import MaskGraph, export, open_graph, open_mask_graph
from torchxrayvision.models import add_weights, save_segmenter
from torchxrayvision.phantom import simulate
from torchxrayvision.segmentation import (
    NamedSegmenter,
    get_segmenter,
    segment,
    segment_to_folder,
)

DATA = Path(weights.__file__).parent / "data"


def demo_anatomy():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_segmenter("demo-anatomy")


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = long_run.write_films(tmp_path_factory.mktemp("films"), 3, damaged=2)
    for index in range(2):
        image = np.squeeze(np.asarray(simulate(index, seed=3, size=200).image))
        grey = ((image + 1024) / 2048 * 255).clip(0, 255).astype(np.uint8)
        Image.fromarray(grey).save(folder / "000" / f"simulated-{index}.png")
    return folder


@pytest.fixture(scope="module")
def made(films, tmp_path_factory):
    """A cache with weights of our own, converted, and the files of the run with torch."""
    folder = tmp_path_factory.mktemp("made")
    net = demo_anatomy()
    with torch.no_grad():
        net.model.last.bias += 0.1
    save_segmenter(net, folder / "own.safetensors")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XRV_CACHE_DIR", str(folder / "cache"))
        add_weights(folder / "own.safetensors", "outlines")
        done = CliRunner().invoke(
            app, ["segment", str(films), "--weights", "outlines", "--engine", "onnx", "--upright",
                  "--out-dir", str(folder / "torch"), "--batch-size", "2"],
        )  # fmt: skip
        assert done.exit_code == 1, done.output  # of the damaged films
        export(get_segmenter("outlines"), "onnx", folder / "own.onnx")
    return folder


@pytest.fixture
def cache(made, monkeypatch):
    monkeypatch.setenv("XRV_CACHE_DIR", str(made / "cache"))
    return made / "cache"


@pytest.mark.parametrize("way", ["cache", "graph"])
def test_the_files_have_the_same_bytes_without_torch(made, films, tmp_path, way):
    words = {
        "cache": ("--weights", "outlines", "--engine", "onnx"),
        "graph": ("--graph", made / "own.onnx"),
    }
    out = tmp_path / "out"
    run_without_torch(
        made / "cache", "segment", films, *words[way], "--upright", "--out-dir", out,
        "--batch-size", 2, code=1,
    )  # fmt: skip
    assert files_of(out) == files_of(made / "torch")
    assert (out / "simulated-0" / "masks" / "Heart.png").is_file()


def test_demo_anatomy_outlines_at_once_where_torch_is_not_installed(films, tmp_path):
    film = films / "000" / "simulated-0.png"
    net = demo_anatomy()
    for engine in ("onnx", "openvino"):
        out = tmp_path / engine
        run_without_torch(
            tmp_path / f"cache-{engine}", "segment", film, "--weights", "demo-anatomy",
            "--engine", engine, "--out-dir", out, before=NOT_INSTALLED,
        )  # fmt: skip
        assert not list((tmp_path / f"cache-{engine}").rglob("*.onnx"))
        segment_to_folder(film, net, tmp_path / "torch", overwrite=True)
        for name in net.targets:
            place = Path("simulated-0", "masks", f"{name.replace(' ', '_')}.png")
            found, expected = (
                np.asarray(Image.open(tmp_path / f / place)) for f in (engine, "torch")
            )
            assert expected.any()
            assert (found != expected).mean() < 1e-4, name
    auto = tmp_path / "auto"
    run_without_torch(
        tmp_path, "segment", film, "-w", "demo-anatomy", "--engine", "auto", "--out-dir", auto,
        before=NOT_INSTALLED,
    )  # fmt: skip
    assert files_of(auto) == files_of(tmp_path / "onnx")


def test_torch_as_the_engine_is_refused_where_it_is_not_installed(films, tmp_path):
    said = run_without_torch(
        tmp_path, "segment", films, "-w", "demo-anatomy", "--out-dir", tmp_path / "out", code=2,
        before=NOT_INSTALLED,
    )  # fmt: skip
    assert "PyTorch is not installed; --engine auto takes ONNX Runtime" in said


def test_what_is_computed_here_is_kept_for_runs_without_torch(made, films, cache):
    named = NamedSegmenter.of("outlines")
    graph = named.graph("onnx")
    assert isinstance(graph, MaskGraph)
    assert graph.fingerprint
    assert graph.card["runs"]["seconds"] > 0
    assert named.graph("torch") is named.graph("onnx", "fast") is None
    assert named.graph("onnx", device="cuda") is None
    (place,) = cache.joinpath("engines").glob("card-*.json")
    whole = place.read_bytes()
    place.write_bytes(whole[:-1])
    assert named.graph("onnx") is None
    place.write_bytes(whole)


@pytest.mark.parametrize("images", [1, 3])
def test_a_graph_stands_for_its_network_in_python(made, films, cache, images):
    graph, net = open_mask_graph(made / "own.onnx"), get_segmenter("outlines")
    chosen = sorted(films.rglob("simulated-*.png"))
    for found, expected in zip(
        segment(chosen, graph, batch_size=images),
        segment(chosen, net, batch_size=images, engine="onnx"),
        strict=True,
    ):
        assert list(found.masks) == list(expected.masks) == net.targets
        for name in net.targets:
            np.testing.assert_array_equal(
                found.masks.of_square(name), expected.masks.of_square(name)
            )
    with pytest.raises(GraphError, match="runs on the CPU, not on cuda"):
        segment(chosen, graph, device="cuda")


def test_a_run_that_was_stopped_resumes_without_torch_and_with_it(made, films, cache, tmp_path):
    class StopError(Exception):
        pass

    def stop(done, total):
        if done < total:
            raise StopError

    graph, net = NamedSegmenter.of("outlines").graph("onnx"), get_segmenter("outlines")
    for begun, resumed in ((net, graph), (graph, net)):
        out = tmp_path / f"{type(begun).__name__}"
        how = {"engine": "onnx", "upright": True, "batch_size": 2}
        with pytest.raises(StopError):
            segment_to_folder(films, begun, out, **how, on_progress=stop)
        segment_to_folder(films, resumed, out, **how)
        assert files_of(out) == files_of(made / "torch")


def test_a_run_that_torch_began_is_ended_by_the_network_of_the_graph(
    films, cache, tmp_path, monkeypatch
):
    class StopError(Exception):
        pass

    def stop(done, total):
        if done < total:
            raise StopError

    net = get_segmenter("outlines")
    how = {"engine": "auto", "batch_size": 1}
    segment_to_folder(films, net, tmp_path / "whole", **how)
    with pytest.raises(StopError):
        segment_to_folder(films, net, tmp_path / "two", **how, on_progress=stop)
    place = tmp_path / "two" / "measures.csv.part" / "run.json"
    assert json.loads(place.read_text())["machine"]["engine"]["engine"] == "torch"
    graph = NamedSegmenter.of("outlines").graph("onnx")
    segment_to_folder(films, graph, tmp_path / "two", **how)
    assert files_of(tmp_path / "two") == files_of(tmp_path / "whole")


# ---- what is refused ------------------------------------------------------------------------


@pytest.fixture
def exported(made, tmp_path, monkeypatch):
    monkeypatch.setenv("XRV_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("own.onnx", "own.onnx.json"):
        shutil.copy(made / name, tmp_path / name)
    return tmp_path / "own.onnx"


def test_a_machine_that_computes_other_numbers_is_refused(exported):
    card = exported.with_name("own.onnx.json")
    facts = json.loads(card.read_text())
    facts["runs"]["example"][5] += 1
    card.write_text(json.dumps(facts))
    with pytest.raises(GraphError, match="on this machine its probabilities differ"):
        open_mask_graph(exported)
    facts["runs"]["example"].pop()
    card.write_text(json.dumps(facts))
    with pytest.raises(GraphError, match="contradicts itself"):
        open_mask_graph(exported)


def test_a_graph_of_the_other_kind_is_refused(exported):
    with pytest.raises(GraphError, match="`UNet` names, not of a classifier of findings"):
        open_graph(exported)
    with pytest.raises(GraphError, match="`ResNet` names, not of a segmentation network"):
        open_mask_graph(DATA / "demo.onnx")


@pytest.mark.parametrize(
    ("options", "reason"),
    [(["--weights", "chestx_det"], "--graph stands alone"), (["--device", "cuda"], "cuda")],
)
def test_what_does_not_go_with_a_graph_is_refused(exported, films, options, reason):
    words = ["segment", str(films), "--graph", str(exported), "--out-dir", "out", *options]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert reason in " ".join(done.output.split())


def test_a_name_is_resolved_as_the_network_is():
    assert NamedSegmenter.of("chestx_det") == NamedSegmenter.of("chestx_det-pspnet")
    assert NamedSegmenter.of("chestx_anatomy").weights == "chestx_anatomy-unet-resnet50"
    with pytest.raises(UnknownNameError, match="segmentation network 'all'"):
        NamedSegmenter.of("all")

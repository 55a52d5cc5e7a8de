"""`fast` decodes no further than the network needs, `exact` decodes all of each image."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from support import long_run
from torchxrayvision.errors import PrecisionWarning
from torchxrayvision.inference import Choice, predict, predict_to_file
from torchxrayvision.inference.cluster.worker import ModelPayload, Part, RunConfig, Worker
from torchxrayvision.inference.engines.base import TorchEngine
from torchxrayvision.inputs import ReadOptions, expand
from torchxrayvision.inputs import load as _load
from torchxrayvision.runs import read_lines, write_manifest

pytestmark = pytest.mark.filterwarnings("ignore::torchxrayvision.errors.PrecisionWarning")


@pytest.fixture(scope="module")
def network():
    return long_run.network()


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Four JPEGs of several sizes, one of them cut, and a PNG."""
    folder = tmp_path_factory.mktemp("films")
    for number in range(4):
        y, x = np.mgrid[0 : 300 + 7 * number, 0 : 270 + 11 * number] / 300
        pixels = 127 + 90 * np.sin(9 * x + number) * np.cos(7 * y)
        image = Image.fromarray(pixels.astype("uint8"))
        image.save(folder / f"{number}.jpg", quality=92)
    cut = folder / "3.jpg"
    cut.write_bytes(cut.read_bytes()[:4000])
    image.save(folder / "4.png")
    return folder


@pytest.fixture(autouse=True)
def _float32(monkeypatch):
    """Only the reading is fast, whatever the processor has."""
    monkeypatch.setattr(TorchEngine, "arithmetics", staticmethod(lambda device: ()))


@pytest.fixture
def sides(monkeypatch):
    """What the decoders were told, file by file."""
    seen = []
    real = _load.read_raster

    def noting(source, **options):
        seen.append(options["least_side"])
        return real(source, **options)

    monkeypatch.setattr(_load, "read_raster", noting)
    return seen


@pytest.mark.parametrize(("precision", "side"), [("exact", None), ("fast", long_run.SIZE)])
def test_only_fast_says_how_far_images_are_needed(network, films, tmp_path, sides, precision, side):
    found = predict([films], network, engine="torch", precision=precision)
    assert sides == [side] * 5
    sides.clear()
    target = tmp_path / "table.csv"
    predict_to_file([films], network, target, engine="torch", precision=precision)
    assert sides == [side] * 5
    table = pd.read_csv(target, keep_default_na=False)
    assert list(table["error"]) == list(found["error"])


def test_probabilities_of_fast_are_within_its_promise_and_its_errors_are_the_same(network, films):
    exact, fast = (
        predict([films], network, output="probability", engine="torch", precision=precision)
        for precision in ("exact", "fast")
    )
    assert list(fast["error"]) == list(exact["error"])
    assert fast["error"][3].startswith("truncated")
    values = [table[["Mass", "Hernia"]].to_numpy() for table in (exact, fast)]
    difference = np.nanmax(np.abs(values[0] - values[1]), axis=1, initial=0)
    assert 0 < difference[:3].max() < 0.01
    assert difference[4] < 1e-6  # a PNG is decoded whole


def test_a_node_of_a_cluster_is_told_the_precision(network, films, sides, tmp_path):
    config = RunConfig(
        kind="probability", batch_size=4, features=False, check="off", reference=None,
        choice=Choice("torch"), reading=ReadOptions(workers=1), precision="fast",
    )  # fmt: skip
    worker = Worker()
    count = torch.get_num_threads()
    worker.start(ModelPayload(net=network, device="cpu", threads=count, folder="."), config)
    write_manifest(tmp_path / "list", expand([films]))
    lines = list(read_lines(tmp_path / "list", 0, 5))
    (batch, _) = worker.predict(Part(0, 0, lines), isolate=False).batches
    assert set(sides) == {long_run.SIZE}
    assert batch.errors[0] == ""


def test_what_fast_cannot_speed_up_is_named(network, films):
    with pytest.warns(PrecisionWarning, match="only JPEG and JPEG 2000 are read faster"):
        predict([films], network, engine="torch", precision="fast")

"""Damaged files among good ones: every file is a row, every good one has its numbers."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from fakes._fake import write_dicom
from support.networks import synthetic
from support.synthetic import film
from torchxrayvision.cli import app
from torchxrayvision.inference import predict
from torchxrayvision.models import DenseNet

SMALL = {"growth_rate": 8, "block_config": (2, 2, 2, 2), "num_init_features": 16}


@pytest.fixture(scope="module")
def model():
    net = synthetic(DenseNet(**SMALL, num_classes=2))
    net.targets, net.input_resolution, net.weights = ["Mass", "Hernia"], 64, "small"
    net.apply_sigmoid = True
    return net


def encoded(kind, seed, folder):
    if kind == "dcm":
        return write_dicom(folder / "template.dcm", (80, 64), seed).read_bytes()
    stream = io.BytesIO()
    Image.fromarray(film(80, 64, seed)).save(stream, {"jpg": "JPEG"}.get(kind, kind.upper()))
    return stream.getvalue()


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """40 whole files and 120 damaged ones, mixed; returns the folder and the whole ones."""
    folder, template = tmp_path_factory.mktemp("archive"), tmp_path_factory.mktemp("template")
    rng = np.random.default_rng(0)
    whole = set()
    for number in range(40):
        kind = ("png", "jpg", "tiff", "dcm")[number % 4]
        data = encoded(kind, number, template)
        name = f"{number:03d}a.{kind}"
        (folder / name).write_bytes(data)
        whole.add(name)
        cut = data[: int(rng.integers(0, len(data) * 3 // 4))]
        (folder / f"{number:03d}b-cut.{kind}").write_bytes(cut)
        noise = rng.integers(0, 256, 400, dtype=np.uint8).tobytes()
        (folder / f"{number:03d}c-noise.{kind}").write_bytes(data[:8] + noise)
        flipped = bytearray(data)
        for at in rng.integers(0, min(len(data), 400), 6):
            flipped[at] ^= 0xFF
        (folder / f"{number:03d}d-flip.{kind}").write_bytes(bytes(flipped))
    return folder, whole


def test_every_file_is_a_row_and_whole_ones_keep_their_numbers(archive, model):
    folder, whole = archive
    table = predict(folder, model, batch_size=7, workers=3).set_index("path")
    assert len(table) == 160
    assert list(table.index) == sorted(table.index)
    alone = predict([folder / name for name in sorted(whole)], model).set_index("path")
    assert not alone["error"].any()
    pd.testing.assert_frame_equal(table.loc[alone.index], alone, atol=1e-5)


def test_a_row_has_either_numbers_or_a_reason(archive, model):
    table = predict(archive[0], model, batch_size=16)
    failed = table["error"] != ""
    assert failed.sum() >= 80  # most flips in a header, and every cut, are noticed
    assert table.loc[failed, ["Mass", "Hernia"]].isna().all(axis=None)
    values = table.loc[~failed, ["Mass", "Hernia"]]
    assert values.notna().all(axis=None)
    assert values.apply(lambda column: column.between(0, 1)).all(axis=None)
    cut = table["path"].str.contains("b-cut")
    assert failed[cut].all()


def test_a_folder_of_damaged_files_only_is_still_a_table(archive, model, tmp_path, monkeypatch):
    monkeypatch.setattr("torchxrayvision.cli.predict.load_classifier", lambda *_: model)
    monkeypatch.setattr("torchxrayvision.cli.predict._require_weights", lambda _: None)
    bad = [str(path) for path in sorted(archive[0].glob("*b-cut*"))]
    target = tmp_path / "table.csv"
    result = CliRunner().invoke(app, ["predict", *bad, "--output", str(target)])
    assert result.exit_code == 1
    table = pd.read_csv(target)
    assert list(table["path"]) == bad
    assert table["error"].notna().all()


def test_an_unexpected_fault_of_a_decoder_is_a_row_too(archive, model, monkeypatch):
    from torchxrayvision.inputs import load as _load

    original = _load.read_raster

    def faulty(path, **options):
        if "001a" in str(path):
            raise ZeroDivisionError("a decoder's own fault")
        return original(path, **options)

    monkeypatch.setattr(_load, "read_raster", faulty)
    folder, whole = archive
    table = predict([folder / name for name in sorted(whole)], model).set_index("path")
    errors = table["error"][table["error"] != ""]
    assert list(errors) == ["ZeroDivisionError: a decoder's own fault"]

"""Every command finds the same films in the same place, each as many as naming them one by one."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from support.image_files import dicom, jpeg, png, ramp, tiff
from support.jpeg2000_files import code, colour, jp2
from torchxrayvision.cli import app
from torchxrayvision.datasets import Folder_Dataset
from torchxrayvision.images import read_image
from torchxrayvision.inputs import ReadOptions, Skipped, expand
from torchxrayvision.models import Segmenter
from torchxrayvision.screening import check
from torchxrayvision.training import ImageCache

GREY = ramp(48, 40, 255)


def bitmap(kind):
    stream = io.BytesIO()
    options = {"lossless": True} if kind == "WEBP" else {}
    Image.fromarray(GREY.astype(np.uint8)).save(stream, kind, **options)
    return stream.getvalue()


def big_tiff():
    data = (GREY.astype("<u2") * 256).tobytes()
    height, width = GREY.shape
    tags = [
        (256, 3, width), (257, 3, height), (258, 3, 16), (259, 3, 1), (262, 3, 1),
        (273, 16, 16), (277, 3, 1), (278, 3, height), (279, 16, len(data)),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHQQ", tag, kind, 1, value) for tag, kind, value in tags)
    head = b"II+\0\x08\0\0\0" + struct.pack("<Q", 16 + len(data))
    return head + data + struct.pack("<Q", len(tags)) + entries + bytes(8)


GREY8 = GREY.astype(np.uint8)
PNG, DICOM = png(GREY, 8, 0), dicom(GREY8)
BARE = dicom(GREY8, preamble=False, meta=False)
FILMS = {
    "a.png": PNG,
    "no-extension-png": PNG,
    "wrong.txt": PNG,
    "b.jpg": jpeg(GREY8),
    "really-a-jpeg.png": jpeg(GREY8),
    "c.tif": tiff(GREY, 8),
    "no-extension-big-tiff": big_tiff(),
    "d.dcm": DICOM,
    "IM0001": DICOM,
    "IM0002": BARE,
    "bare.jpg": BARE,
    "e.bmp": bitmap("BMP"),
    "no-extension-bmp": bitmap("BMP"),
    "f.webp": bitmap("WEBP"),
    "k.jp2": jp2(code(GREY8), colour(17)),
    "no-extension-j2k": code(GREY8),
    "g.dcm.gz": gzip.compress(DICOM),
    "packed-without-extension": gzip.compress(PNG),
    "sub/deep/h.png": PNG,
    "sub/IM0003": BARE,
}
# Media Storage Directory Storage, as on every disc.
DICOMDIR = bytes(128) + b"DICM" + b"\x02\0\x02\0UI\x14\x001.2.840.10008.1.3.10" + bytes(8)
OTHERS = {
    "notes.md": b"# notes",
    "table.csv": b"path\n",
    "README": b"nothing",
    "DICOMDIR": DICOMDIR,
    "volume.nii.gz": gzip.compress(bytes(344) + b"n+1\0" + bytes(100)),
    "photo.heic": b"\0\0\0\x18ftypheic" + bytes(16),
    "film.mp4": b"\0\0\0\x18ftypisom" + bytes(16),
    "array.npy": b"\x93NUMPY\x01\0" + bytes(64),
    "picture.jxl": b"\xff\x0a" + bytes(64),
}
INSIDE = {"x.png": PNG, "y/IM0009": BARE, "y/readme.md": b"no film", "z": big_tiff()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All of them as files, and some in a zip and in tars beside them."""
    place = tmp_path_factory.mktemp("films")
    for name, data in {**FILMS, **OTHERS}.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    with zipfile.ZipFile(place / "films.zip", "w") as archive:
        for name, data in INSIDE.items():
            archive.writestr(name, data)
    for name, mode in (("films.tar", "w"), ("films.tar.gz", "w:gz")):
        with tarfile.open(place / name, mode) as archive:
            for inner, data in INSIDE.items():
                info = tarfile.TarInfo(inner)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    if hasattr(os, "mkfifo"):
        os.mkfifo(place / "pipe")
    return place


ARCHIVES = ("films.zip", "films.tar", "films.tar.gz")
PATHS = {*FILMS, *(f"{a}/{name}" for a in ARCHIVES for name in INSIDE if not name.endswith(".md"))}


class Planted(Segmenter):
    """Bright is Heart."""

    def __init__(self):
        super().__init__(targets=("Heart",), input_resolution=32)
        self.weights = "planted"
        self.one = torch.nn.Parameter(torch.ones(1))

    def _rescale(self, x):
        return x

    def _maps(self, x):
        return x * self.one

    def _logits(self, maps, side):
        return maps / 100


def command(name, paths, folder, *options):
    """What a command says of each file; its tables as a user gets them."""
    start = [name, *map(str, paths), *options]
    match name:
        case "predict":
            arguments = ["--weights", "demo", "--engine", "torch", "--output", f"{folder}.csv"]
        case "check":
            arguments = ["--output", f"{folder}.csv"]
        case "segment":
            arguments = ["--out-dir", str(folder)]
        case "explain":
            arguments = ["--out-dir", str(folder), "--weights", "demo", "--target", "Mass"]
    done = CliRunner().invoke(app, [*start, *arguments])
    assert done.exit_code in (0, 1), (done.output, done.exception)
    if name == "explain":
        return pd.DataFrame(json.loads((folder / "explanations.json").read_text("utf-8")))
    table = folder / "measures.csv" if name == "segment" else f"{folder}.csv"
    return pd.read_csv(table, keep_default_na=False)


@pytest.fixture(autouse=True)
def segmenter(monkeypatch):
    place = "torchxrayvision.segmentation.networks.get_segmenter"
    monkeypatch.setattr(place, lambda name: Planted())


COMMANDS = ["predict", "check", "segment", "explain"]


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_find_what_naming_one_by_one_finds(folder, tmp_path, name):
    named = [folder / film for film in sorted(FILMS)] + [folder / archive for archive in ARCHIVES]
    found = command(name, [folder], tmp_path / "a")
    assert {p.removeprefix(f"{folder}/") for p in found["path"]} == PATHS
    assert len(found) == len(PATHS)
    assert list(found["error"]) == [""] * len(PATHS)
    each = command(name, named, tmp_path / "b")
    assert sorted(each["path"]) == sorted(found["path"])
    drop = ["folder", "picture"]  # names of files, which depend on the order
    tables = [t.set_index("path").sort_index().drop(columns=drop, errors="ignore")
              for t in (found, each)]  # fmt: skip
    pd.testing.assert_frame_equal(*tables)


# What a process that reads runs in the place of the real decoder, by the name of the file.
FAULTY = """
import os, time, runpy
from torchxrayvision.inputs import load
real = load.read_raster
def faulty(source, **options):
    name = os.path.basename(getattr(source, "name", source))
    if "crash" in name:
        os.kill(os.getpid(), 11)
    if "hang" in name:
        time.sleep(600)
    return real(source, **options)
load.read_raster = faulty
runpy.run_module("torchxrayvision.inputs.isolate", run_name="__main__")
"""


@pytest.fixture
def faulty(monkeypatch):
    real = subprocess.Popen

    def popen(words, **options):
        if "torchxrayvision.inputs.isolate" in words:
            words = [sys.executable, "-c", FAULTY]
        return real(words, **options)

    monkeypatch.setattr(subprocess, "Popen", popen)


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_decoder_that_hangs_and_one_that_crashes_cost_one_row_each(tmp_path, name):
    names = ["a.png", "crash.png", "hang.png", "z.png"]
    (tmp_path / "films").mkdir()
    for film in names:
        (tmp_path / "films" / film).write_bytes(PNG)
    options = ["--isolate", "--time-limit", "20"]
    found = command(name, [tmp_path / "films"], tmp_path / "out", *options)
    errors = dict(zip(found["path"].map(os.path.basename), found["error"], strict=True))
    assert errors == {
        "a.png": "", "crash.png": "the process that read it died (signal 11)",
        "hang.png": "reading took longer than 20 s", "z.png": "",
    }  # fmt: skip


@pytest.mark.usefixtures("faulty")
def test_they_cost_the_images_of_a_training_one_row_each_too(tmp_path):
    names = ["a.png", "crash.png", "hang.png", "z.png"]
    (tmp_path / "films").mkdir()
    for at, film in enumerate(names):  # other bytes each, or one would be taken for the other
        Image.fromarray((GREY + at).astype(np.uint8)).save(tmp_path / "films" / film)
    cache = ImageCache.build(
        Folder_Dataset(tmp_path / "films"), 16, folder=tmp_path / "cache", skip_unreadable=True,
        reading=ReadOptions(isolate=True, time_limit=20),
    )  # fmt: skip
    assert len(cache) == 2
    reasons = {name: cache.unreadable[names.index(name)] for name in ("crash.png", "hang.png")}
    assert "crash.png: the process that read it died (signal 11)" in reasons["crash.png"]
    assert "hang.png: reading took longer than 20 s" in reasons["hang.png"]


def test_a_dataset_finds_what_commands_find(folder):
    dataset = Folder_Dataset(folder)
    assert set(dataset.csv["path"]) == PATHS
    assert len(dataset) == len(PATHS)
    expected = {str(f.given): None for f in expand([folder])}
    assert {f"{folder}/{path}" for path in dataset.csv["path"]} == set(expected)
    for position in range(len(dataset)):
        image = dataset[position]["img"]
        assert image.shape == (1, *GREY.shape)
        assert np.abs(image - read_image(PNG)).mean() < 100  # JPEG is lossy


@pytest.mark.parametrize("archive", ARCHIVES)
def test_a_dataset_takes_an_archive(folder, archive):
    dataset = Folder_Dataset(folder / archive)
    assert list(dataset.csv["path"]) == ["x.png", "y/IM0009", "z"]
    assert {dataset[i]["img"].shape for i in (2, 0, 1)} == {(1, *GREY.shape)}


def test_what_is_no_film_is_counted_by_extension(folder):
    skipped = Skipped()
    assert len(list(expand([folder], skipped=skipped))) == len(PATHS)
    pipes = int(hasattr(os, "mkfifo"))
    assert skipped.kinds == {
        ".md": 1 + len(ARCHIVES), ".csv": 1, "without an extension": 1 + pipes, "DICOMDIR": 1,
        ".gz": 1, ".heic": 1, ".mp4": 1, ".npy": 1, ".jxl": 1,
    }  # fmt: skip
    assert str(skipped).startswith(
        f"{12 + pipes} files are not PNG, JPEG, JPEG 2000, TIFF, DICOM, "
    )
    strict = list(expand([folder], strict=True))
    assert len(strict) == len(PATHS) + 12 + pipes
    assert sum(bool(file.problem) for file in strict) == 12 + pipes


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("DICOMDIR", "table of contents of a disc; name the folder"),
        ("volume.nii.gz", "NIfTI volume; load it with nibabel"),
        ("photo.heic", "HEIC picture; convert it"),
        ("film.mp4", "video; save the frame"),
        ("array.npy", "NumPy array; load it with numpy"),
        ("picture.jxl", "JPEG XL picture; convert it"),
    ],
)
def test_what_is_named_and_no_film_says_how_to_convert_it(folder, name, words):
    table = check([folder / name])
    assert words in table["error"][0]


def test_the_summary_of_the_command_names_what_was_left_out(folder):
    done = CliRunner().invoke(app, ["predict", str(folder), "--weights", "demo"])
    assert "are not PNG, JPEG, JPEG 2000, TIFF, DICOM, BMP or WebP: " in done.stderr
    done = CliRunner().invoke(app, ["predict", str(folder), "--weights", "demo", "--strict"])
    assert done.exit_code == 1

"""A single image is decoded on several processors, many images are not; nothing is left behind."""

from __future__ import annotations

import io
import os
import zipfile

import pytest
from PIL import Image
from pydicom import dcmread
from typer.testing import CliRunner

from support import image_files as build
from support.page import chest_dicom
from torchxrayvision import inputs
from torchxrayvision.cli import app
from torchxrayvision.cli.console import decoder_threads, decodes_in_parallel

NAME = "OPJ_NUM_THREADS"


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch):
    monkeypatch.delenv(NAME, raising=False)
    monkeypatch.setattr(inputs, "default_workers", lambda: 8)


@pytest.fixture
def files(tmp_path):
    for name in ("a.dcm", "b.dcm", "c.dcm", "d.dcm", "e.dcm"):
        (tmp_path / name).write_bytes(b"an image")
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as archive:
        archive.writestr("a.dcm", b"an image")
    (tmp_path / "g.csv").write_text("path\na.dcm\n")
    return tmp_path


def seen(paths, lists=None):
    found = []
    decodes_in_parallel(lambda **_: found.append(os.environ.get(NAME)))(
        paths=paths, from_file=lists
    )
    assert NAME not in os.environ
    return found[0]


@pytest.mark.parametrize(("names", "threads"), [("a", "8"), ("ab", "4"), ("abcd", "2")])
def test_processors_are_shared_between_few_images(files, names, threads):
    assert seen([str(files / f"{name}.dcm") for name in names]) == threads


@pytest.mark.parametrize(
    "names",
    [["."], ["a.dcm", "."], ["f.zip"], ["g.csv"], ["a.dcm", "f.zip"], ["absent.dcm"], ["-"],
              ["@list.txt"], ["*.dcm"], ["a.dcm", "b.dcm", "c.dcm", "d.dcm", "e.dcm"]], ids=str,
)  # fmt: skip
def test_many_images_have_a_processor_each(files, monkeypatch, names):
    monkeypatch.chdir(files)
    assert seen(names) is None


def test_a_list_has_a_processor_per_image(files):
    assert seen([str(files / "a.dcm")], [files / "list.txt"]) is None
    assert seen(None) is None


def test_what_the_user_has_set_stays(files, monkeypatch):
    monkeypatch.setenv(NAME, "3")
    with decoder_threads(1):
        assert os.environ[NAME] == "3"
    assert os.environ[NAME] == "3"


def test_the_variable_goes_when_the_command_fails():
    with pytest.raises(ValueError, match="no"), decoder_threads(2):
        assert os.environ[NAME] == "4"
        raise ValueError("no")
    assert NAME not in os.environ


@pytest.mark.parametrize("command", ["check", "predict", "explain", "segment", "results"])
def test_commands_share_the_processors(tmp_path, monkeypatch, command):
    pytest.importorskip("openjpeg")
    made = dcmread(io.BytesIO(chest_dicom(128)))
    made.compress(build.JPEG_2000_LOSSLESS, generate_instance_uid=False)
    made.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    threads, decoder_of = [], Image._getdecoder

    def decoder(mode, name, *rest):
        if name == "jpeg2k":
            threads.append(os.environ.get(NAME))
        return decoder_of(mode, name, *rest)

    monkeypatch.setattr(Image, "_getdecoder", decoder)
    words = {
        "check": [], "predict": ["--weights", "demo", "--engine", "torch"],
        "explain": [
            "--weights", "demo", "--target", "Effusion", "--out-dir", str(tmp_path / "out")
        ],
        "segment": ["--weights", "demo-anatomy", "--out-dir", str(tmp_path / "out")],
        "results": ["--weights", "demo", "--out-dir", str(tmp_path / "out")],
    }[command]  # fmt: skip
    done = CliRunner().invoke(app, [command, str(tmp_path / "a.dcm"), *words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    assert set(threads) == {"8"}
    assert NAME not in os.environ

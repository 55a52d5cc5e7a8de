"""Nothing of a patient that stands in a header leaves the file, and no text of a file is obeyed.

Films with a marker in every element of text and in the metadata of PNG, JPEG and TIFF, whole and
damaged so that lengths and values reach into each other, go through every command, in detail. No
output, log, table, picture, journal or cache may hold the marker, or a control sequence raw.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from typer.testing import CliRunner

from support import long_run
from support.image_files import EXPLICIT, dataset, write
from torchxrayvision.cli import app
from torchxrayvision.errors import XRVError
from torchxrayvision.inference import predict_to_file

MARKER = "ZZTOP"
NAME = f"{MARKER}^PATIENT"
ESCAPE = "\x1b]0;title\x07\x1b[2J"
# Forms in which bytes of the marker would be seen.
FORMS = [
    MARKER.encode(),
    MARKER.lower().encode(),
    MARKER.encode("utf-16-le"),
    MARKER.encode().hex().encode(),
]
TEXTS = {
    "PatientName": NAME,
    "PatientID": f"{MARKER}-4711",
    "PatientAddress": f"{MARKER} street",
    "PatientComments": f"{MARKER} says",
    "OtherPatientIDs": f"{MARKER}-1",
    "ReferringPhysicianName": f"DR^{MARKER}",
    "InstitutionName": f"{MARKER} hospital",
    "StationName": MARKER,
    "AccessionNumber": f"{MARKER}1",
    "StudyDescription": f"{MARKER} chest",
    "StudyID": f"{MARKER}2",
    "OperatorsName": MARKER,
    "ImageComments": f"{MARKER} image",
}
# What makes it a radiograph of a study.
OBJECT = {
    "Modality": "DX",
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1",
    "SOPInstanceUID": "1.2.3.4",
    "StudyInstanceUID": "1.2.3.1",
    "SeriesInstanceUID": "1.2.3.2",
}
# Elements that readers look at, each of which some file fills with the marker or with escapes.
LOOKED_AT = (
    "SOPClassUID", "SOPInstanceUID", "Modality", "PhotometricInterpretation", "BodyPartExamined",
    "ViewPosition", "PatientOrientation", "PresentationLUTShape", "VOILUTFunction",
    "BurnedInAnnotation",
    "PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio", "WindowCenter", "WindowWidth",
    "RescaleSlope", "RescaleIntercept", "RescaleType", "NumberOfFrames", "PatientSex", "PatientAge",
    "StudyDate", "SeriesDescription", "ConversionType", "SpecificCharacterSet", "ImageLaterality",
)  # fmt: skip


def film():
    pixels = np.random.default_rng(0).integers(0, 4096, (48, 40)).astype(np.uint16)
    return dataset(pixels, stored=12, **TEXTS, **OBJECT)


def swallow(data, stop):
    """The file again, once for each element before the patient's name, reaching to its end."""
    place = 132
    while place < stop:
        kind = data[place + 4 : place + 6]
        long = kind in (b"OB", b"OW", b"SQ", b"UN", b"UT")
        at, size, head = (place + 8, "<I", 12) if long else (place + 6, "<H", 8)
        changed = bytearray(data)
        struct.pack_into(size, changed, at, stop - place - head)
        yield bytes(changed)
        (length,) = struct.unpack_from(size, data, at)
        place += head + length


def hostile_films():
    """Name and bytes."""
    import pydicom

    whole = write(film())
    yield "whole.dcm", whole
    end = whole.index(f"{MARKER}-4711".encode()) + 9
    for number, data in enumerate(swallow(whole, end)):
        yield f"length{number}.dcm", data
        yield f"cut{number}.dcm", data[: whole.index(b"\x28\x00\x10\x00US")]
    for keyword in LOOKED_AT:
        for number, text in enumerate((MARKER, f"{ESCAPE}{MARKER}")):
            found = film()
            with pydicom.config.disable_value_validation():
                element = pydicom.dataelem.DataElement(
                    pydicom.datadict.tag_for_keyword(keyword), "LO", text
                )
                found[element.tag] = element
                yield f"{keyword}{number}.dcm", write(found)
    yield "syntax.dcm", whole.replace(EXPLICIT.encode() + b"\0", MARKER.encode().ljust(20, b"\0"))
    picture = Image.fromarray(np.arange(1024, dtype=np.uint8).reshape(32, 32) % 251)
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", NAME + ESCAPE)
    info.add_itxt("Patient", NAME)
    exif = Image.Exif()
    exif[0x010E] = NAME
    for kind, options in {
        "png": {"pnginfo": info, "exif": exif},
        "jpg": {"comment": NAME.encode(), "exif": exif},
        "tif": {"description": NAME, "software": NAME, "artist": NAME},
    }.items():
        file = io.BytesIO()
        picture.save(file, {"jpg": "JPEG", "tif": "TIFF"}.get(kind, "PNG"), **options)
        yield f"a.{kind}", file.getvalue()
        yield f"cut.{kind}", file.getvalue()[:-60]
        yield (
            f"flipped.{kind}",
            file.getvalue().replace(b"IDAT", b"IDAX").replace(b"\xff\xc0", b"\xff\xc9"),
        )
    yield f"{ESCAPE}.png", b"not a picture"
    yield "[red]marks[bold].png", b"not a picture"


@pytest.fixture
def films(tmp_path, monkeypatch):
    folder = tmp_path / "films"
    folder.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that pydicom does not like either
        for name, data in hostile_films():
            (folder / name).write_bytes(data)
    monkeypatch.setenv("XRV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return folder


def commands(films):
    """Every command that reads films or what it made of them."""
    names = [str(path) for path in sorted(films.iterdir())]
    yield [
        "predict",
        films,
        "--weights",
        "demo",
        "--engine",
        "torch",
        "--output",
        "p.csv",
        "--embeddings",
        "--strict",
    ]
    yield ["predict", films, "--weights", "demo", "--engine", "torch", "--output", "p.json"]
    yield [
        "predict",
        films,
        "--weights",
        "demo",
        "--engine",
        "torch",
        "--output",
        "p.parquet",
        "--isolate",
    ]
    yield ["predict", films, "--weights", "demo"]
    yield ["predict", *names[:6], films / "absent.dcm", "--weights", "demo"]
    yield ["segment", films, "--out-dir", "masks", "--weights", "demo-anatomy", "--overwrite"]
    yield ["check", films, "--output", "c.csv"]
    yield ["check", films, "--json"]
    some = [films / name for name in ("whole.dcm", "a.png", "cut0.dcm")]
    yield ["explain", *some, "--weights", "demo", "--target", "Mass", "--out-dir", "maps"]
    yield [
        "results",
        films,
        "--weights",
        "demo",
        "--as",
        "sr,sc,gsps,pm,ko",
        "--out-dir",
        "objects",
    ]
    yield ["info", *names]
    yield ["info", "--json", *names]
    yield ["datasets", "verify", "csv", "--imgpath", films, "--with", "csvpath=labels.csv"]
    yield [
        "datasets",
        "export",
        "csv",
        "--imgpath",
        films,
        "--with",
        "csvpath=labels.csv",
        "--output",
        "e.parquet",
    ]
    yield ["evaluate", "p.csv", "labels.csv", "--json"]
    yield ["train", "--config", "recipe.toml", "--out-dir", "run", "--cache", "prepared"]


def stop_a_run(films):
    """An unfinished run, with its journal and list."""

    def progress(*_):
        raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        predict_to_file(
            films, long_run.network(), "stopped.csv", engine="torch", on_progress=progress
        )
    assert list(Path("stopped.csv.part").iterdir())


def findings(name, data):
    if any(form in data for form in FORMS):
        yield f"{name} holds the marker: {data[max(0, data.find(FORMS[0]) - 80) :][:160]!r}"
    if b"\x1b]0;" in data or b"\x1b[2J" in data:
        yield f"{name} holds a control sequence"


@pytest.mark.filterwarnings("ignore")
def test_no_marker_and_no_escape_leaves_the_films(films, tmp_path, caplog):
    rows = [f"{path.name.replace(chr(27), '?')},{n % 2}" for n, path in enumerate(films.iterdir())]
    Path("labels.csv").write_text("path,Mass\n" + "\n".join(rows))
    names = [*(f"{name}0.dcm" for name in LOOKED_AT[15:]), "a.png", "a.jpg", "a.tif", "whole.dcm"]
    rows = [f"{name},{number},{number % 2}" for number, name in enumerate(names)]
    Path("whole.csv").write_text("path,patientid,Mass\n" + "\n".join(rows))
    Path("recipe.toml").write_text(RECIPE.format(films=films))
    wrong, caplog_level = [], logging.DEBUG
    for words in commands(films):
        with caplog.at_level(caplog_level):
            caplog.clear()
            done = CliRunner().invoke(app, ["-v", *map(str, words)], color=True)
        ours = [r.getMessage() for r in caplog.records if r.name.startswith("torchxrayvision")]
        said = "\n".join([done.output, repr(done.exception), *ours])
        logging.getLogger("torchxrayvision").handlers.clear()  # -v wrote to streams that are closed
        assert done.exit_code in (0, 1, 2), (words, done.exception)
        assert words[0] != "train" or done.exit_code == 0, done.output
        assert isinstance(done.exception, SystemExit | XRVError | None), (words, done.exc_info)
        wrong += findings(f"output of {words[:2]}", said.encode("utf-8", "surrogateescape"))
    stop_a_run(films)
    made = [path for path in tmp_path.rglob("*") if path.is_file() and films not in path.parents]
    objects = [path for path in made if path.suffix == ".dcm"]  # of the patient, and named by a UID
    assert objects
    assert all(path.parent.name == "objects" for path in objects)
    for path in made:
        wrong += findings("a name", path.name.encode("utf-8", "surrogateescape"))
        if path not in objects:
            wrong += findings(path.relative_to(tmp_path), path.read_bytes())
        if path.suffix in (".png", ".gif", ".jpg"):
            wrong += findings(path, json.dumps(Image.open(path).info, default=repr).encode())
    suffixes = {path.suffix for path in made}
    assert suffixes >= {".csv", ".json", ".parquet", ".png", ".bin"}, suffixes
    assert not wrong, "\n".join(map(str, wrong))


RECIPE = """
findings = ["Mass"]
model = "resnet18-width8"
resolution = 32
epochs = 1

[[datasets]]
name = "CSV_Dataset"
args = {{ csvpath = "whole.csv", imgpath = "{films}" }}

[split]
fractions = [0.5, 0.5]
"""

"""Radiographs for the tests of DICOM results: simulated, then changed in their header or pixels."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest

from torchxrayvision.phantom import simulate, write_dicom

SIZE = 128
_PIXELMED = Path("/usr/share/java/pixelmed.jar")


@functools.cache
def film(index=0, view="PA"):
    return simulate(index, size=SIZE, views=[view], findings={"Effusion": 0.7})


def square(dataset):
    """The picture of a header whose spacing nobody knows."""
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        if name in dataset:
            del dataset[name]


def wide(dataset):
    """Pixels twice as high as wide."""
    square(dataset)
    dataset.PixelAspectRatio = [2, 1]
    dataset.PixelData = dataset.pixel_array[::2].tobytes()
    dataset.Rows //= 2


def rotated(dataset):
    dataset.PixelData = np.ascontiguousarray(np.rot90(dataset.pixel_array)[:, 8:]).tobytes()
    dataset.Columns -= 8
    dataset.PatientOrientation = ["H", "L"]


def japanese(dataset):
    dataset.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    dataset.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    dataset.StudyDescription = "胸部"


def german(dataset):
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientName = "Müller^Jörg"
    dataset.StudyDescription = "Thorax groß"
    dataset.StudyDate, dataset.AccessionNumber = "20240229", "A-17"


def bare(dataset):
    """Nothing but what an image needs."""
    for name in ("StudyDate", "PatientBirthDate", "PatientOrientation", "AccessionNumber"):
        if name in dataset:
            del dataset[name]


CHANGES = {f.__name__: f for f in (square, wide, rotated, japanese, german, bare)}
CASES = ["PA", "AP", "L", "inverted", *CHANGES]


def write(folder, case, index=0):
    """A radiograph as a file of DICOM."""
    view = case if case in ("AP", "L") else "PA"
    path = folder / f"{case}{index}.dcm"
    inverted, modality = case == "inverted", "CR" if case in ("inverted", "bare") else "DX"
    number = 100 * index + CASES.index(case)
    write_dicom(
        path, film(index, view), seed=1, number=number, inverted=inverted, modality=modality
    )
    if case in CHANGES:
        dataset = pydicom.dcmread(path)
        CHANGES[case](dataset)
        dataset.save_as(path)
    return path


needs_dciodvfy = pytest.mark.skipif(
    not shutil.which("dciodvfy"), reason="no dciodvfy (dicom3tools)"
)
needs_sr_validator = pytest.mark.skipif(
    not shutil.which("DicomSRValidator"), reason="no DicomSRValidator (pixelmed-apps)"
)


def errors_of(path):
    """What dciodvfy calls errors."""
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    # It names the kind of object, or says that the file is none.
    assert any(line and not line.startswith(("Error", "Warning")) for line in lines), done.stderr
    assert "No such file" not in done.stderr
    return [line for line in lines if line.startswith("Error")]


def calibration_of(model, **more):
    """A calibration of all findings of a classifier but the last, as if it had been fitted."""
    from torchxrayvision.calibration import Calibration, FindingCalibration
    from torchxrayvision.inference import preprocessing_of
    from torchxrayvision.runs import fingerprint

    finding = FindingCalibration(
        method="platt", parameters={"scale": 0.6, "shift": -1.2}, counts={}, judged={},
        threshold={"at": 0.3, "on": "calibrated"},
        conformal={"coverage": 0.9, "present_from": 0.6, "absent_to": 0.4, "reason": ""},
    )  # fmt: skip
    names = [n for n, trained in zip(model.targets, model.trained, strict=True) if trained]
    facts = {"weights": str(model.weights), "weights_sha256": fingerprint(model),
             "preprocessing": preprocessing_of(model)}  # fmt: skip
    return Calibration(
        output="operating-point", findings=dict.fromkeys(names[:-1], finding), **(facts | more)
    )


def sr_errors_of(*paths):
    """What DicomSRValidator calls errors, per file; it must have found the template in each.

    One Java reads all files where there is a compiler, as its style sheets take seconds to load.
    """
    # The style sheets of Pixelmed are larger than Java allows by itself.
    limits = [f"-Djdk.xml.xpath{name}Limit=0" for name in ("TotalOp", "ExprGrp", "ExprOp")]
    options = {"JAVA_TOOL_OPTIONS": " ".join(["-XX:TieredStopAtLevel=1", *limits])}
    if shutil.which("javac") and _PIXELMED.exists():
        program = Path(__file__).with_name("ValidateReports.java")
        commands = [["java", "-cp", _PIXELMED, program, *paths]]
    else:
        commands = [["DicomSRValidator", path] for path in paths]
    done = [
        subprocess.run(command, capture_output=True, text=True, check=False,
                       env=os.environ | options)
        for command in commands
    ]  # fmt: skip
    said = "".join(one.stdout + one.stderr for one in done)
    for words in ("Found Root Template TID_1500", "Root Template Validation Complete"):
        assert said.count(words) == len(paths), said[-2000:]
    return [line for line in said.splitlines() if "Error" in line]

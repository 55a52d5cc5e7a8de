"""Two independent checkers find no error; they are Debian's dicom3tools and pixelmed-apps."""

import dataclasses
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from support.dicom_results import (
    CASES,
    calibration_of,
    errors_of,
    needs_dciodvfy,
    needs_sr_validator,
    sr_errors_of,
    write,
)
from torchxrayvision.errors import ImageReadError
from torchxrayvision.results import (
    KINDS,
    ImageReading,
    make_objects,
    read_source,
    save_objects,
    segmentation,
    structured_report,
)


@needs_dciodvfy
@pytest.mark.parametrize("case", CASES)
def test_no_error_by_dciodvfy(made, case):
    for several in made[case][2].values():
        for file in several:
            assert errors_of(file) == [], file.name


@needs_dciodvfy
def test_dciodvfy_sees_an_error(made, tmp_path):
    import pydicom

    broken = pydicom.dcmread(made["PA"][2]["seg"][0])
    del broken.SegmentSequence
    broken.save_as(tmp_path / "broken.dcm")
    assert errors_of(tmp_path / "broken.dcm")


@pytest.fixture(scope="module")
def calibrated(reader):
    return dataclasses.replace(reader, calibration=calibration_of(reader.classifier))


def refusal(path, folder):
    """The file of a report on an image that was not read."""
    source = read_source(path.read_bytes(), "the image")
    reading = ImageReading(source, np.zeros((1, 1), np.uint8))
    report = structured_report(reading, not_read="its modality is none of CR, DX")
    (name,) = save_objects({"sr": [report]}, folder)["sr"]
    return folder / name


@needs_dciodvfy
@pytest.mark.parametrize("case", CASES)
def test_no_error_in_a_report_that_says_not_read(made, case, tmp_path):
    assert errors_of(refusal(made[case][0], tmp_path)) == []


@needs_dciodvfy
@needs_sr_validator
def test_no_error_by_the_validator_of_reports(made, calibrated, tmp_path):
    path, _, files = made["japanese"]
    objects = make_objects(calibrated.read(made["PA"][0]), ["sr"])
    (name,) = save_objects(objects, tmp_path)["sr"]
    assert errors_of(tmp_path / name) == []
    assert sr_errors_of(files["sr"][0], tmp_path / name, refusal(path, tmp_path)) == []


@needs_sr_validator
def test_the_validator_of_reports_sees_an_error(made, tmp_path):
    import pydicom

    broken = pydicom.dcmread(refusal(made["PA"][0], tmp_path))
    results = ("126010", "C0034375")  # TID 1500 demands measurements or evaluations
    kept = [
        item for item in broken.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeValue not in results
    ]  # fmt: skip
    assert len(kept) < len(broken.ContentSequence)
    broken.ContentSequence = kept
    broken.save_as(tmp_path / "broken.dcm")
    assert sr_errors_of(tmp_path / "broken.dcm")


def objects_of(path, readers, folder):
    """Files of all kinds of objects of one image, the reports apart."""
    folder.mkdir()
    reports, others = [refusal(path, folder)], []
    for reader in readers:
        names = save_objects(make_objects(reader.read(path), KINDS, key_threshold=0), folder)
        reports += [folder / name for name in names.pop("sr")]
        others += [folder / name for several in names.values() for name in several]
    return reports, others


def check_all(images, readers, tmp_path):
    """Both checkers on every object of every image."""
    reports = []
    for number, path in enumerate(images):
        found, others = objects_of(path, readers, tmp_path / f"objects-{number}")
        for file in (*found, *others):
            assert errors_of(file) == [], (path.name, file.name)
        reports += found
    assert len(reports) >= 2 * len(images)
    half = len(reports) // 2
    with ThreadPoolExecutor(2) as pool:  # a Java each
        for errors in pool.map(lambda part: sr_errors_of(*part), (reports[:half], reports[half:])):
            assert errors == []


@pytest.mark.validators
@pytest.mark.timeout(3600)
@needs_dciodvfy
@needs_sr_validator
def test_no_error_on_forty_images(reader, calibrated, tmp_path):
    images = [write(tmp_path, case, index) for index in range(4) for case in CASES]
    assert len(images) == 40
    check_all(images[:30], [reader], tmp_path)
    (tmp_path / "with").mkdir()
    check_all(images[30:], [calibrated], tmp_path / "with")


@pytest.mark.validators
@pytest.mark.shared
@pytest.mark.timeout(3600)
@needs_dciodvfy
@needs_sr_validator
def test_no_error_on_samples(reader, tmp_path, shared):
    images = []
    for path in sorted((shared / "samples" / "dicom").iterdir()):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                reading = reader.read(path)
        except ImageReadError:
            continue
        if reading.source.SOPInstanceUID.is_valid:  # else no legal object can refer to it
            images.append(path)
    assert images
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_all(images, [reader], tmp_path)


def test_a_label_map_is_of_its_own_class(made):
    found = segmentation(made["PA"][1], "LABELMAP")
    assert found.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.7"

"""Two independent checkers find no error; they are Debian's dicom3tools and pixelmed-apps."""

import os
import warnings

import pytest

from support.dicom_results import (
    CASES,
    errors_of,
    needs_dciodvfy,
    needs_sr_validator,
    sr_errors_of,
    write,
)
from torchxrayvision.errors import ImageReadError
from torchxrayvision.results import KINDS, make_objects, save_objects, segmentation


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


@needs_sr_validator
def test_no_error_by_the_validator_of_reports(made):
    assert sr_errors_of(made["PA"][2]["sr"][0], dict(os.environ)) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)  # a report takes Java ten seconds or more
@needs_dciodvfy
@needs_sr_validator
def test_no_error_on_forty_images(reader, tmp_path):
    reports = []
    for index in range(4):
        for case in CASES:
            path = write(tmp_path, case, index)
            out = tmp_path / f"{case}-{index}"
            out.mkdir()
            names = save_objects(make_objects(reader.read(path), KINDS, key_threshold=0), out)
            for several in names.values():
                for name in several:
                    assert errors_of(out / name) == [], (case, index, name)
            reports.append(out / names["sr"][0])
    assert len(reports) >= 40
    for report in reports:
        assert sr_errors_of(report, dict(os.environ)) == [], report


@pytest.mark.shared
@needs_dciodvfy
def test_no_error_on_samples(reader, tmp_path, shared):
    read = 0
    for path in sorted((shared / "samples" / "dicom").iterdir()):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                reading = reader.read(path)
        except ImageReadError:
            continue
        if not reading.source.SOPInstanceUID.is_valid:
            continue  # no legal object can refer to it
        read += 1
        for name in save_objects(make_objects(reading, KINDS), tmp_path).values():
            assert errors_of(tmp_path / name[0]) == [], (path.name, name)
    assert read


def test_a_label_map_is_of_its_own_class(made):
    found = segmentation(made["PA"][1], "LABELMAP")
    assert found.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.7"

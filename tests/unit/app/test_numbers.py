"""What the page says is what the commands say."""

from __future__ import annotations

import io
import json
import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import torchxrayvision as xrv
from support import page as pages
from torchxrayvision.inputs import InputFile

pytest.importorskip("starlette")

FILES = {
    "one.dcm": lambda: pages.chest_dicom(Effusion=0.7),
    "two.png": lambda: pages.chest_png16(index=7, Cardiomegaly=0.7),
    "three.jpg": lambda: pages.chest_jpeg(index=14),
    "four.jp2": lambda: jpeg2000(pages.chest_png16(index=21, Effusion=0.6)),
}


def jpeg2000(png):
    file = io.BytesIO()
    Image.open(io.BytesIO(png)).save(file, "JPEG2000")
    return file.getvalue()


@pytest.fixture(scope="module")
def nets():
    return pages.networks()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for name, made in FILES.items():
        (folder / name).write_bytes(made())
    return folder


@pytest.fixture(scope="module")
def opened(nets, files):
    page = pages.client(nets)
    keys = {name: pages.add(page, name, (files / name).read_bytes())[0] for name in FILES}
    return page, keys


def model():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return xrv.models.get_model("demo")


def test_findings_are_those_of_predict_to_the_last_bit(opened, files):
    page, keys = opened
    for name, key in keys.items():
        (row,) = xrv.inference.predict(files / name, model()).to_dict("records")
        answer = page.get(f"/api/images/{key}/findings").json()
        assert answer["check"] == row["check"]
        assert len(answer["findings"]) == 16
        for finding in answer["findings"]:
            assert np.float32(finding["value"]) == row[finding["name"]]
            assert finding["above"] == (row[finding["name"]] >= 0.5)


def test_probabilities_are_those_of_explain(opened, files):
    page, keys = opened
    for name, key in keys.items():
        findings = page.get(f"/api/images/{key}/findings").json()["findings"]
        told = {f["name"]: f for f in findings}
        for target in ("Effusion", "Cardiomegaly"):
            found = xrv.explain.explain_file(files / name, model(), target)
            assert f"{told[target]['probability']:.3f}" == f"{found.value:.3f}"
            assert told[target]["point"] == pytest.approx(found.operating_point)
            answer = page.get(f"/api/images/{key}/evidence", params={"finding": target}).content
            length = int.from_bytes(answer[:4], "little")
            facts = json.loads(answer[4 : 4 + length])
            assert f"{facts['value']:.3f}" == f"{found.value:.3f}"
            assert facts["peak"] == list(found.peak[::-1])
            assert facts["box"] == (found.box and list(found.box))
            heat = np.frombuffer(answer[4 + length :], "<f4")
            assert heat.reshape(facts["rows"], facts["columns"]).max() == pytest.approx(
                np.nanmax(found.heat), rel=0.02
            )


def test_one_scale_per_finding_is_that_of_a_run_of_explain(opened):
    page, keys = opened
    scales = []
    for key in (*keys.values(), *keys.values()):
        answer = page.get(f"/api/images/{key}/evidence", params={"finding": "Effusion"}).content
        facts = json.loads(answer[4 : 4 + int.from_bytes(answer[:4], "little")])
        scales.append(facts["scale"])
    assert scales == [pytest.approx(xrv.explain.evidence_scale(model(), "Effusion"))] * len(scales)


def test_measures_are_those_of_segment(opened, files, nets):
    page, keys = opened
    for name, key in keys.items():
        (found,) = xrv.segmentation.segment([files / name], nets.segmenter)
        told = page.get(f"/api/images/{key}/structures").json()
        assert told["measures"] == {k: None if v != v else v for k, v in found.measures().items()}
        assert told["doubts"] == found.doubts()
        assert told["measures"]["cardiothoracic_ratio"] is not None
        for part in told["structures"]:
            mask = found.masks[part["name"]]
            assert part["pixels"] == mask.sum()
            assert area_of(part["rings"]) == pytest.approx(mask.sum(), rel=0.02, abs=20)


def area_of(rings):
    total = 0.0
    for ring in rings:
        x, y = np.array(ring).reshape(-1, 2).T
        total += np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2
    return total


def test_csv_has_the_rows_of_predict(opened, files):
    page, keys = opened
    for key in keys.values():
        page.get(f"/api/images/{key}/findings")
    text = page.get("/api/table.csv")
    assert text.headers["content-disposition"] == 'attachment; filename="findings.csv"'
    table = pd.read_csv(io.StringIO(text.text)).set_index("path")
    for name in FILES:
        file = files / f"{name}.csv"
        if not file.exists():
            xrv.inference.predict_to_file([files / name], model(), file)
        (row,) = pd.read_csv(file).to_dict("records")
        for column in ("Effusion", "Hernia", "check"):
            assert table.loc[name, column] == row[column]
    everything = page.get("/api/table.json").json()
    assert everything["models"][0]["sha256"]
    assert {row["path"] for row in everything["models"][0]["images"]} == set(FILES)


def test_pixels_are_the_stored_values(opened, files):
    page, keys = opened
    formats = []
    for name, key in keys.items():
        facts = page.get(f"/api/images/{key}/facts").json()
        raster = xrv.images.read_raster(files / name)
        kind = "<u2" if facts["bytes"] == 2 else "u1"
        values = np.frombuffer(page.get(f"/api/images/{key}/pixels").content, kind)
        stored = facts["base"] + facts["step"] * values.reshape(facts["height"], facts["width"])
        assert np.array_equal(stored, raster.pixels)
        assert facts["inverted"] == (raster.scale < 0)
        formats.append(facts["format"])
    assert formats == ["dicom", "png", "jpeg", "jpeg2000"]
    told = page.get(f"/api/images/{keys['one.dcm']}/facts").json()
    assert told["inverted"]
    assert told["spacing"]
    assert told["windows"][0] == {"name": "", "low": 0.5, "high": 4095.5} or told["windows"]


def test_an_input_file_in_memory_is_read_as_the_same_file_on_disk(files):
    path = files / "one.dcm"
    held = InputFile(path.with_name("elsewhere.dcm"), "elsewhere", data=path.read_bytes())
    given, named = (list(xrv.screening.iter_checks([each])) for each in (held, path))
    assert given[0].to_row() | {"path": ""} == named[0].to_row() | {"path": ""}


def test_two_networks_have_their_own_numbers(files):
    page = pages.client(pages.networks("demo", "demo"))
    (key,) = pages.add(page, "one.dcm", (files / "one.dcm").read_bytes())
    for number in (0, 1):
        answer = page.get(f"/api/images/{key}/findings", params={"model": number}).json()
        assert answer["findings"]
    assert page.get(f"/api/images/{key}/findings", params={"model": 2}).status_code == 404
    assert len(page.get("/api/about").json()["models"]) == 2


def test_calibrated_numbers_are_those_of_predict(files, nets):
    from torchxrayvision.app import Classifier, Networks
    from torchxrayvision.calibration import Calibration, FindingCalibration
    from torchxrayvision.inference import preprocessing_of
    from torchxrayvision.runs import fingerprint

    net = nets.classifiers[0].model
    finding = FindingCalibration(
        method="platt", parameters={"scale": 0.6, "shift": -1.2}, counts={}, judged={},
        threshold={"at": 0.3, "on": "calibrated"}, conformal=None,
    )  # fmt: skip
    made = Calibration(
        output="operating-point", findings={"Effusion": finding},
        weights_sha256=fingerprint(net), preprocessing=preprocessing_of(net),
        data={"images": 90, "patients": 60},
    )  # fmt: skip
    page = pages.client(Networks([Classifier(net, calibration=made)]))
    (key,) = pages.add(page, "one.dcm", (files / "one.dcm").read_bytes())
    (row,) = xrv.inference.predict(files / "one.dcm", net, calibration=made).to_dict("records")
    told = {f["name"]: f["calibrated"] for f in
            page.get(f"/api/images/{key}/findings").json()["findings"]}  # fmt: skip
    assert np.float32(told["Effusion"]["value"]) == row["calibrated Effusion"]
    assert told["Effusion"]["call"] == row["call Effusion"]
    assert told["Mass"] is None
    assert page.get("/api/about").json()["models"][0]["calibrated"] == "90 images of 60 patients"
    assert "calibrated Effusion" in page.get("/api/table.csv").text.splitlines()[0]
    provenance = page.get("/api/table.json").json()["models"][0]["provenance"]
    assert provenance["weights_sha256"] == fingerprint(net)
    assert provenance["calibration"]["fitted_on"] == "operating-point"

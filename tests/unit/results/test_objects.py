"""What the objects say, read back with pydicom and highdicom, is what the networks said."""

import copy
import dataclasses
import io
import warnings

import highdicom as hd
import numpy as np
import pydicom
import pytest
from highdicom.sr.coding import CodedConcept

from support.dicom_results import CASES, calibration_of, film, write
from torchxrayvision import results
from torchxrayvision.errors import (
    CalibrationError,
    ImageReadError,
    UnknownNameError,
    UnsupportedImageError,
)
from torchxrayvision.explain import explain_file
from torchxrayvision.inference import predict
from torchxrayvision.masks import polygon_to_mask
from torchxrayvision.measures import area
from torchxrayvision.results import KINDS, Reader, finding_code, structure_code
from torchxrayvision.results.readings import NOT_FOR_DIAGNOSIS
from torchxrayvision.segmentation import segment

PRESENT, ABSENT = "52101004", "272519000"
FINDING = CodedConcept("121071", "DCM", "Finding")


def first(made, case, kind):
    return made[case][2][kind][0]


def groups_of(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = hd.sr.srread(path)
    return report, report.content


def text_of(group):
    """Tracking identifier of a group."""
    (item,) = (i for i in group.ContentSequence if i.name.value == "112039")
    return item.TextValue


def items(group, kind):
    return [i for i in group.ContentSequence if i.ValueType == kind]


def groups(path):
    """Tracking identifier to the group of content items."""
    _, content = groups_of(path)
    (measurements,) = (i for i in content[0].ContentSequence if i.name.value == "126010")
    return {text_of(group): group for group in measurements.ContentSequence}


@pytest.mark.parametrize("case", CASES)
def test_every_kind_is_made_where_it_can_be(made, case):
    _, reading, files = made[case]
    assert set(files) == set(KINDS) - ({"pm"} if not reading.heats else set())
    assert (reading.pixel_spacing is None) == (case in ("square", "wide"))


@pytest.mark.parametrize("case", CASES)
def test_objects_join_the_study_in_series_of_their_own(made, case):
    path, _, files = made[case]
    source = pydicom.dcmread(path)
    series, instances = {source.SeriesInstanceUID}, {source.SOPInstanceUID}
    for kind, several in files.items():
        for file in several:
            found = pydicom.dcmread(file)
            assert file.name == f"{kind}-{found.SOPInstanceUID}.dcm"
            for name in ("PatientID", "PatientName", "AccessionNumber", "StudyDate", "PatientSex"):
                assert found.get(name) == (source.get(name) or ""), name
            assert found.StudyInstanceUID == source.StudyInstanceUID
            assert NOT_FOR_DIAGNOSIS in found.SeriesDescription
            series.add(found.SeriesInstanceUID)
            instances.add(found.SOPInstanceUID)
            found.remove_private_tags()
            assert source.SOPInstanceUID in str(found)  # refers to the image
    assert len(series) == len(files) + 1
    assert len(instances) == sum(map(len, files.values())) + 1


@pytest.mark.parametrize("case", ["PA", "inverted", "german"])
def test_the_report_says_what_predict_says(made, reader, case):
    path, reading, _ = made[case]
    table = predict([path], reader.classifier, engine="torch", batch_size=1)
    found = groups(first(made, case, "sr"))
    names = [f.label for f in reading.findings]
    assert names
    for label in names:
        group, code = found[label], finding_code(label)
        (said,) = (i for i in items(group, "CODE") if i.name == FINDING)
        assert (said.value.value, said.value.scheme_designator) == (code.value, code.scheme)
        (number,) = items(group, "NUM")
        assert np.float32(number.value) == table[label][0]
        assert number.name.value == "OUTPUT-OP"
        assert number.name.value != "111012"  # certainty only from a calibrated head
        (presence,) = (i for i in items(group, "CODE") if i.name.value == "PRESENCE-OP")
        assert presence.value.value == (PRESENT if table[label][0] >= 0.5 else ABSENT)
        point = reader.classifier.op_threshs[reader.classifier.targets.index(label)].item()
        parameters = [i.TextValue for i in items(group, "TEXT") if i.name.value == "111002"]
        assert f"operating point={point:.9g}" in parameters
        assert f"weights={reader.classifier.weights}" in parameters
        assert any(p.startswith("sha256=") and len(p) == 71 for p in parameters)
    assert {PRESENT, ABSENT} <= {
        i.value.value for g in found.values() for i in items(g, "CODE") if "value" in dir(i)
    }


def test_a_calibrated_report_says_certainties_as_predict_does(made, reader, tmp_path):
    path, plain, _ = made["PA"]
    calibration = calibration_of(reader.classifier)
    calibrated = dataclasses.replace(reader, calibration=calibration)
    reading = calibrated.read(path)
    names = results.save_objects({"sr": [results.structured_report(reading)]}, tmp_path)
    table = predict(
        [path], reader.classifier, engine="torch", batch_size=1, calibration=calibration
    )
    found = groups(tmp_path / names["sr"][0])
    labels = [finding.label for finding in reading.findings]
    without = [label for label in labels if label not in calibration.findings]
    assert len(without) == 1
    for label in labels:
        numbers = {i.name.value: i for i in items(found[label], "NUM")}
        codes = {i.name.value: i.value.value for i in items(found[label], "CODE")}
        (before,) = (f for f in plain.findings if f.label == label)
        assert np.float32(numbers["OUTPUT-OP"].value) == np.float32(before.value)
        if label in without:
            assert "111012" not in numbers
            assert "PRESENCE-OP" in codes
            continue
        certainty = numbers["111012"]
        assert float(certainty.value) == pytest.approx(
            100 * table[f"calibrated {label}"][0], abs=1e-4
        )
        assert certainty.unit.value == "%"
        called = table[f"call {label}"][0]
        assert codes["PRESENCE-CALIBRATED"] == {"positive": PRESENT, "negative": ABSENT}[called]
        assert "PRESENCE-OP" not in codes
        sets = {"present": PRESENT, "absent": ABSENT, "unsure": "UNSURE"}
        assert codes["CONFORMAL-SET"] == sets[table[f"set {label}"][0]]
        parameters = [i.TextValue for i in items(found[label], "TEXT") if i.name.value == "111002"]
        assert f"calibration sha256={calibration.sha256}" in parameters
        assert "threshold=calibrated >= 0.3" in parameters


def test_a_calibration_of_other_weights_is_refused(reader):
    calibration = calibration_of(reader.classifier, weights_sha256="0" * 64)
    with pytest.raises(CalibrationError, match="calibrate anew"):
        dataclasses.replace(reader, calibration=calibration)
    with pytest.raises(ValueError, match="goes together with a classifier"):
        Reader(segmenter=reader.segmenter, calibration=calibration)


def test_objects_say_which_networks_made_them(made, reader):
    for several in made["PA"][2].values():
        for file in several:
            listed = pydicom.dcmread(file).ContributingEquipmentSequence
            said = {i.get("ManufacturerModelName"): i for i in listed}
            for network in (a for a in reader.algorithms() if a is not None):
                item = said[network.name]
                assert item.DeviceSerialNumber == network.sha256
                assert item.DeviceUID.startswith("2.25.")
                assert item.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"


@pytest.mark.parametrize("case", CASES)
def test_the_report_is_unverified_and_for_research(made, case):
    report = pydicom.dcmread(first(made, case, "sr"))
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    (use,) = items(groups(first(made, case, "sr"))["About this report"], "CODE")
    assert use.value.meaning == NOT_FOR_DIAGNOSIS
    assert report.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99XRV"


@pytest.mark.parametrize("case", CASES)
def test_measures_and_outlines_are_those_of_segment(made, reader, case):
    path, reading, _ = made[case]
    (truth,) = segment([path], reader.segmenter)
    found = groups(first(made, case, "sr"))
    ratio = truth.cardiothoracic()
    assert ("Cardiothoracic ratio" in found) == (ratio is not None)
    if ratio is not None:
        (number,) = items(found["Cardiothoracic ratio"], "NUM")
        assert number.value == pytest.approx(ratio.ratio, abs=1e-6)
        assert number.unit.value == "{ratio}"
    for name, mask in truth.masks.items():
        assert (name in found) == bool(mask.any())
        if not mask.any():
            continue
        (region,) = items(found[name], "SCOORD")
        points = region.value
        assert points.min() >= 0
        assert (points.max(0) <= mask.shape[::-1]).all()
        drawn = polygon_to_mask(points[:-1], mask.shape)
        off = drawn ^ mask
        near = mask ^ np.pad(mask, 1)[2:, 1:-1] | mask ^ np.pad(mask, 1)[:-2, 1:-1]
        near |= mask ^ np.pad(mask, 1)[1:-1, 2:] | mask ^ np.pad(mask, 1)[1:-1, :-2]
        assert not (off & ~near).sum() or len(results.outlines(mask)) > 1  # half a pixel
        numbers = items(found[name], "NUM")
        assert len(numbers) == (reading.pixel_spacing is not None)
        for number in numbers:
            assert number.unit.value == "mm2"
            assert number.value == pytest.approx(area(mask, truth.pixel_spacing), abs=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_masks_come_back_exactly(made, case):
    _, reading, _ = made[case]
    found = hd.seg.segread(first(made, case, "seg"))
    assert (found.Rows, found.Columns) == reading.picture.shape
    assert found.segmentation_type == hd.seg.SegmentationTypeValues.BINARY
    assert found.number_of_segments == len(reading.masks)
    assert found.NumberOfFrames == len(reading.masks)  # empty ones too
    planes = found.pixel_array.reshape(-1, found.Rows, found.Columns)
    for number, (name, mask) in enumerate(reading.masks.items(), start=1):
        segment_ = found.get_segment_description(number)
        assert segment_.segment_label == name
        code = structure_code(name)
        assert segment_.segmented_property_type.value == code.value
        modifiers = segment_.segmented_property_type.get(
            "SegmentedPropertyTypeModifierCodeSequence", ()
        )
        assert [m.CodeValue for m in modifiers] == (
            [] if code.laterality is None else [code.laterality.value]
        )
        assert (planes[number - 1].astype(bool) == mask).all()
    for frame in found.PerFrameFunctionalGroupsSequence:
        (source,) = frame.DerivationImageSequence[0].SourceImageSequence
        assert source.SpatialLocationsPreserved == "YES"
    assert found.ReferencedSeriesSequence


def test_a_label_map_shows_the_smaller_of_two_structures(made):
    _, reading, _ = made["PA"]
    saved = io.BytesIO()
    results.segmentation(reading, "LABELMAP").save_as(saved)
    saved.seek(0)
    labels = hd.seg.segread(saved).pixel_array
    smallest = min(reading.masks, key=lambda name: reading.masks[name].sum())
    assert (labels[reading.masks[smallest]] == list(reading.masks).index(smallest) + 1).all()
    assert ((labels > 0) == np.any(list(reading.masks.values()), axis=0)).all()
    with pytest.raises(UnknownNameError, match="LABELMAP"):
        results.segmentation(reading, "labelmap")


@pytest.mark.parametrize("case", CASES)
def test_the_picture_is_the_image_with_something_on_it(made, case):
    path, reading, _ = made[case]
    found, source = pydicom.dcmread(first(made, case, "sc")), pydicom.dcmread(path)
    shown = found.pixel_array
    assert shown.shape == (source.Rows, source.Columns, 3)
    plain = (shown == shown[..., :1]).all(2)
    assert 0.05 < (~plain).mean() < 0.98
    grey = reading.picture.astype(float)
    assert np.corrcoef(shown.mean(2).ravel(), grey.ravel())[0, 1] > 0.4  # upright, not inverted
    assert found.BurnedInAnnotation == "YES"
    assert (found.get("PatientOrientation") or []) == (source.get("PatientOrientation") or [])
    (reference,) = found.SourceImageSequence
    assert reference.SpatialLocationsPreserved == "YES"
    if case == "wide":
        assert [int(v) for v in found.PixelAspectRatio] == [2000, 1000]
    if reading.pixel_spacing is not None:
        assert [float(v) for v in found.PixelSpacing] == pytest.approx(reading.pixel_spacing)


def test_an_inverted_image_gives_the_same_results(made):
    plain, inverted = made["PA"][1], made["inverted"][1]
    assert inverted.source.PhotometricInterpretation == "MONOCHROME1"
    values = [[f.value for f in r.findings] for r in (plain, inverted)]
    assert values[0] == pytest.approx(values[1], abs=1e-4)
    for name, mask in plain.masks.items():
        assert (mask != inverted.masks[name]).mean() < 1e-3
    shapes = [pydicom.dcmread(first(made, c, "gsps")).PresentationLUTShape
              for c in ("PA", "inverted")]  # fmt: skip
    assert shapes == ["IDENTITY", "INVERSE"]


def test_masks_of_a_known_anatomy_lie_where_it_is(made):
    """The truth of the simulation: also for pixels that are not square."""
    truth = film().structures["Left Lung"] if hasattr(film(), "structures") else None
    for case in ("PA", "square", "wide"):
        lung = made[case][1].masks["Left Lung"]
        heart = made[case][1].masks["Heart"]
        assert lung.sum() > 0.03 * lung.size
        assert np.nonzero(lung)[1].mean() > np.nonzero(heart)[1].mean()  # at the right side
    whole, half = made["PA"][1].masks["Left Lung"], made["wide"][1].masks["Left Lung"]
    assert (whole[::2] != half).mean() < 0.02
    assert truth is None or (truth & whole).sum() > 0.8 * whole.sum()


@pytest.mark.parametrize("case", CASES)
def test_the_presentation_state_draws_the_same_outlines(made, case):
    _, reading, _ = made[case]
    found = pydicom.dcmread(first(made, case, "gsps"))
    layers = {i.GraphicLayer: i for i in found.GraphicAnnotationSequence}
    drawn = [
        np.array(o.GraphicData).reshape(-1, 2)
        for o in layers["STRUCTURES"].get("GraphicObjectSequence", ())
    ]
    truth = [r for mask in reading.masks.values() for r in results.outlines(mask)]
    assert len(drawn) == len(truth)
    for ours, theirs in zip(drawn, truth, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-3)
    for box, drawn_box in zip(
        reading.boxes.values(), layers.get("EVIDENCE", {}).get("GraphicObjectSequence", ()),
        strict=True,
    ):  # fmt: skip
        points = np.array(drawn_box.GraphicData).reshape(-1, 2)
        assert (*points.min(0), *points.max(0)) == box
    (text,) = layers["TEXT"].TextObjectSequence
    assert NOT_FOR_DIAGNOSIS.upper() in text.UnformattedTextValue
    said = "not a probability of disease" in text.UnformattedTextValue
    assert said == bool(reading.present)


@pytest.mark.parametrize("case", ["PA", "german", "rotated"])
def test_heat_maps_and_boxes_are_those_of_explain(made, reader, case):
    path, reading, files = made[case]
    (label,) = reading.heats
    assert label == reading.present[0].label
    truth = explain_file(path, reader.classifier, label)
    found = pydicom.dcmread(files["pm"][0])
    values = np.frombuffer(found.FloatPixelData, "<f4").reshape(found.Rows, found.Columns)
    seen = np.isfinite(truth.heat)
    assert (values[seen] == truth.heat[seen]).all()
    assert (values[~seen] == found.FloatPixelPaddingValue).all()
    assert found.FloatPixelPaddingValue < truth.heat[seen].min()
    mapping = found.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    quantity = mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0]
    assert quantity.CodeValue == "130403"
    (region,) = items(groups(files["sr"][0])[f"{label}: evidence"], "SCOORD")
    assert (*region.value.min(0), *region.value.max(0)) == truth.box


@pytest.mark.parametrize("case", ["PA", "square", "wide"])
def test_a_map_says_how_large_pixels_are_only_where_that_is_known(made, case):
    _, reading, files = made[case]
    found = pydicom.dcmread(files["pm"][0])
    (measures,) = found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert (found.Rows, found.Columns) == reading.picture.shape
    if reading.pixel_spacing is None:
        assert len(measures) == 0
    else:
        assert [float(v) for v in measures.PixelSpacing] == pytest.approx(reading.pixel_spacing)


def test_key_objects_select_what_reaches_the_threshold(made, reader):
    _, reading, files = made["PA"]
    found = pydicom.dcmread(files["ko"][0])
    assert found.ConceptNameCodeSequence[0].CodeMeaning == "Of Interest"
    assert reading.source.SOPInstanceUID in str(found.ContentSequence)
    assert results.make_objects(reading, ["ko"], key_threshold=2) == {}
    other = made["AP"][1]
    with pytest.raises(ValueError, match="one study"):
        results.key_objects([reading, other])
    with pytest.raises(ValueError, match="0 studies"):
        results.key_objects([])


@pytest.mark.parametrize(
    ("case", "name"),
    [("japanese", "Yamada^Tarou=山田^太郎=やまだ^たろう"), ("german", "Müller^Jörg")],
)
def test_names_survive_in_their_character_set(made, case, name):
    _, _, files = made[case]
    for several in files.values():
        for file in several:
            found = pydicom.dcmread(file)
            assert str(found.PatientName) == name
            assert found.StudyDescription in ("胸部", "Thorax groß")


def test_uids_are_those_of_the_content(made, reader, tmp_path):
    path, reading, files = made["PA"]
    again = results.dicom_results(path, reader, ["sr", "seg"])
    for kind, (found,) in again.items():
        assert f"{kind}-{found.SOPInstanceUID}.dcm" == files[kind][0].name
    changed = dataclasses.replace(reading, cardiothoracic_ratio=0.1)
    assert results.structured_report(changed).SOPInstanceUID != again["sr"][0].SOPInstanceUID


def test_what_is_no_radiograph_is_refused_without_words_of_its_header(reader, tmp_path, caplog):
    from PIL import Image

    picture = tmp_path / "a.png"
    Image.new("L", (64, 64)).save(picture)
    with pytest.raises(UnsupportedImageError, match="no DICOM file"):
        reader.read(picture)
    path = write(tmp_path, "PA")
    dataset = pydicom.dcmread(path)
    for change, reason in (
        ({"Modality": "CT"}, "not a radiograph"),
        ({"StudyInstanceUID": ""}, "has no StudyInstanceUID"),
        ({"SOPInstanceUID": ""}, "has no SOPInstanceUID"),
        ({"PatientSex": "SECRET"}, "ValueError"),
    ):
        bad = copy.deepcopy(dataset)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, value in change.items():
                setattr(bad, name, value)
            bad.save_as(tmp_path / "bad.dcm")
        with pytest.raises(ImageReadError, match=reason) as caught:
            results.dicom_results(tmp_path / "bad.dcm", reader, ["sr"])
        assert "SECRET" not in str(caught.value)
        assert caught.value.__cause__ is None
    assert "SECRET" not in caplog.text


def test_an_odd_value_is_carried_and_logged_nowhere(reader, tmp_path, caplog):
    path = write(tmp_path, "PA")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path)
        dataset.StudyDate, dataset.PatientID = "SECRET", "SECRET" * 20
        dataset.save_as(path)
        caplog.clear()
    expected = pytest.raises(ImageReadError, match="does not allow")
    with caplog.at_level("DEBUG"), expected as caught:
        results.dicom_results(path, reader)
    assert "SECRET" not in caplog.text + str(caught.value)


def test_arguments_are_checked_before_a_file_is_read(reader):
    with pytest.raises(UnknownNameError, match="target"):
        Reader(classifier=reader.classifier, targets=["Foo"])
    with pytest.raises(UnknownNameError, match="structure"):
        Reader(segmenter=reader.segmenter, structures=["Femur"])
    with pytest.raises(UnknownNameError, match="kind of result"):
        results.check_kinds(["sr", "pdf"])


def test_a_reader_of_one_network_only(reader, tmp_path):
    path = write(tmp_path, "PA")
    masks = Reader(segmenter=reader.segmenter, structures=["Lungs"]).read(path)
    assert list(masks.masks) == ["Left Lung", "Right Lung"]
    assert masks.findings == ()
    found = results.make_objects(masks, KINDS)
    assert set(found) == {"sr", "sc", "seg", "gsps"}
    findings = Reader(classifier=reader.classifier, most=0).read(path)
    assert set(results.make_objects(findings, KINDS)) == {"sr", "sc", "gsps", "ko"}

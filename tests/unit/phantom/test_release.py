"""Simulated films in the layouts of real releases, read back by the classes of those releases."""

from __future__ import annotations

import inspect
import shlex

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from typer.testing import CliRunner

import torchxrayvision as xrv
from torchxrayvision.cli import app
from torchxrayvision.errors import DatasetError, UnknownNameError
from torchxrayvision.masks import mask_to_box
from torchxrayvision.phantom import release_layouts, simulate, write_release

N, SIZE, SEED = 8, 64, 5
FRONTAL, ALL = ("PA", "AP"), ("PA", "AP", "L")
VIEWS = {"folder": ALL, "nih": FRONTAL, "chexpert": ALL, "rsna": FRONTAL, "siim": FRONTAL}
EVERYTHING = {"views": "*", "unique_patients": False, "pathology_masks": True}
LEVELS = {"png": 255, "dcm": 4095}  # of the 8 bit PNG and the 12 bit DICOM files


@pytest.fixture(scope="module")
def films():
    """Views to the films that a release with those views holds."""
    return {views: [simulate(i, seed=SEED, size=SIZE, views=views) for i in range(N)]
            for views in (FRONTAL, ALL)}  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Layout to its folder and the arguments that read it."""
    made = {}
    for layout in release_layouts():
        folder = tmp_path_factory.mktemp(layout) / "release"
        made[layout] = folder, write_release(folder, N, SEED, layout, size=SIZE)
    return made


@pytest.fixture
def read(written):
    """The dataset of a layout, whole."""

    def get(layout):
        cls = getattr(xrv.datasets, release_layouts()[layout])
        known = inspect.signature(cls).parameters
        options = {name: value for name, value in EVERYTHING.items() if name in known}
        return cls(**written[layout][1], **options)

    return get


def in_order(dataset, layout):
    """Row of each film: RSNA's table is sorted by its random names."""
    if layout != "rsna":
        return range(len(dataset))
    return dataset.csv["Unnamed: 0"].argsort().tolist()


def present(film, names):
    return [name for name in names if film.labels.get(name) == 1]


def test_every_layout_is_tested():
    assert set(VIEWS) == set(release_layouts())


@pytest.mark.parametrize("layout", VIEWS)
def test_images_come_back_as_far_as_their_coding_allows(layout, read, films):
    dataset = read(layout)
    assert len(dataset) == N
    for row, film in zip(in_order(dataset, layout), films[VIEWS[layout]], strict=True):
        found = dataset[row]["img"]
        assert found.shape == (1, SIZE, SIZE)
        difference = np.abs(found - film.image)
        ending = dataset.image_path(row).rpartition(".")[2]
        if ending in ("jpg", "jpeg"):
            assert difference.mean() < 20  # of 2048, in a picture with quantum noise
            assert np.corrcoef(found.ravel(), film.image.ravel())[0, 1] > 0.99
        else:
            assert difference.max() <= 1024 / LEVELS.get(ending, 4095) + 0.01


def test_nih_says_what_is_simulated_and_draws_boxes_around_it(read, films):
    dataset = read("nih")
    boxed = 0
    for row, film in enumerate(films[FRONTAL]):
        assert np.flatnonzero(dataset.labels[row] == 1).tolist() == [
            dataset.pathologies.index(name) for name in present(film, dataset.pathologies)
        ]
        for key, mask in dataset[row]["pathology_masks"].items():
            truth = film.masks[dataset.pathologies[key]]
            assert mask_to_box(mask[0] > 0) == mask_to_box(truth)
            assert (mask[0] > 0)[truth].all()
            boxed += 1
    assert boxed > 0
    first = films[FRONTAL][0]
    assert dataset.csv["view"][0] == first.view
    assert dataset.csv["age_years"][0] == int(first.patient.age_years)
    assert dataset.csv["sex_male"][0] == (first.patient.sex == "M")


def test_boxes_of_findings_on_both_sides_are_apart():
    from torchxrayvision.phantom.release import _boxes

    mask = np.zeros((64, 64), dtype=bool)
    mask[10:20, 4:8] = mask[30:40, 50:60] = True
    assert _boxes(mask) == [(64, 160, 64, 160), (800, 480, 160, 160)]
    mask[0, 9] = True  # a crumb beside the first part belongs to it
    assert _boxes(mask) == [(64, 0, 96, 320), (800, 480, 160, 160)]
    assert _boxes(np.zeros((64, 64), dtype=bool)) == []


def test_chexpert_says_what_is_simulated(read, films):
    dataset = read("chexpert")
    for row, film in enumerate(films[ALL]):
        ill = any(film.labels.get(n) == 1 for n in dataset.pathologies if n != "Support Devices")
        for name, label in zip(dataset.pathologies, dataset.labels[row], strict=True):
            said = film.labels.get(name, np.nan if ill else 0.0)
            np.testing.assert_equal(float(label), float(said))
    assert dataset.csv["view"].tolist() == [film.view for film in films[ALL]]
    assert dataset.image_path(0).startswith("train/patient00001/study1/view1_")


def test_rsna_targets_are_opacities_suspicious_for_pneumonia(read, films):
    dataset = read("rsna")
    suspicious = ("Consolidation", "Pneumonia")
    for row, film in zip(in_order(dataset, "rsna"), films[FRONTAL], strict=True):
        wanted = bool(present(film, suspicious))
        assert dataset.labels[row].tolist() == [wanted, wanted]
        masks = dataset[row]["pathology_masks"]
        assert set(masks) == ({0, 1} if wanted else set())
        if wanted:
            truth = np.any([film.masks[name] for name in present(film, suspicious)], axis=0)
            assert mask_to_box(masks[0][0] > 0) == mask_to_box(truth)
    assert 0 < dataset.labels[:, 0].sum() < N


def test_siim_outlines_are_the_masks_to_the_pixel(read, films):
    dataset = read("siim")
    for row, film in enumerate(films[FRONTAL]):
        assert dataset.labels[row].tolist() == [film.labels["Pneumothorax"]]
        masks = dataset[row]["pathology_masks"]
        assert set(masks) == ({0} if film.labels["Pneumothorax"] else set())
        if masks:
            np.testing.assert_array_equal(masks[0][0] > 0, film.masks["Pneumothorax"])


def test_a_folder_has_mixed_files_and_its_truth(written, read, films):
    folder, _ = written["folder"]
    dataset = read("folder")
    assert dataset.pathologies == list(films[ALL][0].labels)
    truth = pd.read_csv(folder / "truth.csv")
    for row, film in enumerate(films[ALL]):
        assert dict(zip(dataset.pathologies, dataset.labels[row], strict=True)) == film.labels
        assert truth["cardiothoracic_ratio"][row] == pytest.approx(
            film.cardiothoracic_ratio, abs=1e-4, nan_ok=True
        )
        for kind, masks in (("masks", film.masks), ("anatomy", film.anatomy)):
            for name, mask in masks.items():
                path = folder / kind / f"film{row:06d}" / f"{name.replace(' ', '_')}.png"
                np.testing.assert_array_equal(np.asarray(Image.open(path)) > 0, mask)
    endings = {path.suffix for path in (folder / "images").iterdir()}
    assert endings == {".png", ".jpg", ".dcm"}
    assert len(xrv.datasets.Folder_Dataset(folder / "images")) == N


@pytest.mark.parametrize("layout", ["rsna", "siim", "folder"])
def test_dicom_tags_are_those_of_a_chest_radiograph(layout, written, films):
    folder, _ = written[layout]
    headers = [pydicom.dcmread(path) for path in sorted(folder.rglob("*.dcm"))]
    classes = {
        "CR": pydicom.uid.ComputedRadiographyImageStorage,
        "DX": pydicom.uid.DigitalXRayImageStorageForPresentation,
    }
    spacings = {f"{film.pixel_spacing:.3f}" for film in films[VIEWS[layout]]}
    for header in headers:
        assert header.SOPClassUID == classes[header.Modality]
        assert header.BodyPartExamined == "CHEST"
        assert header.ViewPosition in ("PA", "AP", "LL")
        assert (header.BitsAllocated, header.BitsStored, header.HighBit) == (16, 12, 11)
        assert (header.WindowCenter, header.WindowWidth) == (2048, 4096)
        assert header.ImagerPixelSpacing == header.PixelSpacing
        assert f"{float(header.ImagerPixelSpacing[0]):.3f}" in spacings
        assert header.PatientSex in ("M", "F")
        assert header.PatientAge.endswith("Y")
        assert header.PatientName.family_name == "Simulated"
        assert header.PatientBirthDate == ""
        inverse = header.PhotometricInterpretation == "MONOCHROME1"
        assert header.PresentationLUTShape == ("INVERSE" if inverse else "IDENTITY")
    unique = {header.SOPInstanceUID for header in headers}
    assert len(unique) == len(headers)
    if layout != "folder":
        kinds = {header.PhotometricInterpretation for header in headers}
        assert kinds == {"MONOCHROME1", "MONOCHROME2"}


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    def contents(name, seed):
        write_release(tmp_path / name, 4, seed, size=32)
        root = tmp_path / name
        return {
            path.relative_to(root): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }

    first = contents("a", 1)
    assert first == contents("b", 1)
    assert first != contents("c", 2)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"layout": "vindr"}, UnknownNameError, "siim"),
        ({"layout": "nih", "views": ["L"]}, DatasetError, "PA"),
        ({"n": 0}, DatasetError, "at least 1"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is(arguments, error, says, tmp_path):
    with pytest.raises(error, match=says):
        write_release(tmp_path / "new", **{"n": 1, **arguments})
    assert not (tmp_path / "new").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DatasetError, match="not empty"):
        write_release(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("layout", VIEWS)
def test_the_command_writes_and_names_the_command_that_reads(layout, tmp_path):
    runner = CliRunner()
    folder = tmp_path / "with a space"
    arguments = ["--out-dir", str(folder), "-n", "3", "--size", "32", "--layout", layout]
    done = runner.invoke(app, ["phantom", *arguments])
    assert done.exit_code == 0, done.output
    words = shlex.split(done.stdout.strip().splitlines()[-1])
    assert words[:3] == ["xrv", "datasets", "describe"]
    described = runner.invoke(app, words[1:])
    assert described.exit_code == 0, described.output
    assert ": 3 images" in described.output

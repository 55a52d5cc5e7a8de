"""Simulated films: what they hold, and that geometry, labels and masks agree."""

import dataclasses
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from torchxrayvision import phantom
from torchxrayvision.errors import DatasetError, UnknownNameError, ViewError
from torchxrayvision.labels import is_known

LOCAL = ("Consolidation", "Nodule", "Mass", "Hernia", "Fracture")
VIEWS = ("PA", "AP", "L")


def columns(mask):
    return np.flatnonzero(mask.any(axis=0))


def width(mask):
    across = columns(mask)
    return across[-1] - across[0] + 1


def same(first, second):
    return (
        np.array_equal(first.image, second.image)
        and first.labels == second.labels
        and first.masks.keys() == second.masks.keys()
        and all(np.array_equal(first.masks[n], second.masks[n]) for n in first.masks)
        and all(np.array_equal(first.anatomy[n], second.anatomy[n]) for n in first.anatomy)
    )


@pytest.mark.parametrize("view", VIEWS)
def test_a_film_follows_the_conventions_of_the_package(films, view):
    shown = films(2, view)
    assert shown.image.dtype == np.float32
    assert shown.image.shape == (1, 128, 128)
    assert -1024 <= shown.image.min() < -800
    assert 600 < shown.image.max() <= 1024
    assert shown.view == view
    assert tuple(shown.labels) == phantom.FINDINGS
    assert set(shown.labels.values()) <= {0.0, 1.0}
    for mask in (*shown.masks.values(), *shown.anatomy.values()):
        assert mask.dtype == bool
        assert mask.shape == (128, 128)


def test_findings_have_the_names_of_the_field():
    assert all(is_known(name) for name in phantom.FINDINGS)


def test_lungs_are_darker_than_the_heart_and_the_abdomen(films):
    shown = films(1, "PA")
    grey, organs = shown.image[0], shown.anatomy
    lungs = organs["Left Lung"] | organs["Right Lung"]
    assert grey[lungs].mean() + 300 < grey[organs["Heart"]].mean()
    assert grey[lungs].mean() + 300 < grey[-12:-6, 50:78].mean()


def test_left_is_at_the_right_of_a_frontal_picture(films):
    for view in ("PA", "AP"):
        organs = films(1, view).anatomy
        assert columns(organs["Left Lung"]).mean() > columns(organs["Right Lung"]).mean()
        assert columns(organs["Left Clavicle"]).mean() > columns(organs["Right Clavicle"]).mean()


def test_a_film_is_the_same_in_any_order_and_thread(films):
    with ThreadPoolExecutor(2) as pool:
        again = list(pool.map(lambda i: phantom.simulate(i, seed=3, size=96), [4, 3, 4, 3]))
    assert same(again[0], again[2])
    assert same(again[1], again[3])
    assert not np.array_equal(again[0].image, again[1].image)


RECORDED = (
    "c5300762bb985e4b836d3d32c3c07007431d48e2afaa426932daa2f2fd7a3d02"  # on x86-64, by DIGEST
)

DIGEST = """
import hashlib, numpy, sys
from torchxrayvision import phantom
total = hashlib.sha256()
for index in (0, 9):
    shown = phantom.simulate(index, seed=3, size=96)
    total.update(shown.image.tobytes())
    for name in sorted(shown.anatomy):
        total.update(shown.anatomy[name].tobytes())
print(total.hexdigest(), "torch" in sys.modules)
"""


def test_another_process_with_other_instructions_of_the_processor_agrees(monkeypatch):
    answers = []
    for disabled in ("", "X86_V3 X86_V4 AVX2 FMA3"):
        environment = {"NPY_DISABLE_CPU_FEATURES": disabled} if disabled else {}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        run = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", DIGEST],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        answers.append(run.stdout.split())
    assert answers[0] == answers[1]
    assert answers[0][0] == RECORDED, (
        "images changed: say so in CHANGELOG.md, raise SIMULATION_VERSION and record anew"
    )
    assert answers[0][1] == "False", "torch was imported"


def test_a_site_changes_appearance_only():
    shown = [
        phantom.simulate(7, seed=3, size=96, site=site, views=["PA"]) for site in phantom.SITES
    ]
    for other in shown[1:]:
        assert not np.array_equal(shown[0].image, other.image)
        assert same(dataclasses.replace(other, image=shown[0].image), shown[0])
        assert other.severity == shown[0].severity
        assert other.cardiothoracic_ratio == shown[0].cardiothoracic_ratio


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", phantom.FINDINGS)
def test_every_finding_can_be_forced_and_is_seen_where_its_mask_is(films, name, view):
    healthy, ill = films(4, view), films(4, view, name)
    assert ill.labels[name] == 1
    assert ill.masks[name].any()
    assert not healthy.masks
    present = {n for n, value in ill.labels.items() if value}
    assert set(ill.masks) == present
    if name in (*phantom.OPACITIES, "Lung Opacity"):
        assert present >= {"Lung Opacity"}
    else:
        assert present == {name}
    change = np.abs(ill.image - healthy.image)[0]
    assert change[ill.masks[name]].mean() > 25


@pytest.mark.parametrize("view", VIEWS)
def test_a_finding_beside_others_still_has_a_mask(view):
    crowded = dict.fromkeys((*phantom.OPACITIES, "Pleural_Thickening", "Hernia"), 0.4)
    crowded |= {"Pneumothorax": 0.9, "Effusion": 0.8}
    for index in range(5):
        shown = phantom.simulate(index, seed=8, size=96, views=[view], findings=crowded)
        assert {name for name, value in shown.labels.items() if value} == set(shown.masks)
        assert all(mask.sum() >= 4 for mask in shown.masks.values())


@pytest.mark.parametrize("name", LOCAL)
def test_what_is_local_changes_little_elsewhere(films, name):
    healthy, ill = films(4), films(4, finding=name)
    change, mask = np.abs(ill.image - healthy.image)[0], ill.masks[name]
    rows, across = np.nonzero(mask)
    near = np.zeros_like(mask)
    near[max(rows.min() - 8, 0) : rows.max() + 8, max(across.min() - 8, 0) : across.max() + 8] = (
        True
    )
    assert np.median(change[mask]) > 4 * np.median(change[~near])


def test_fluid_and_solid_lesions_are_brighter_and_air_is_darker(films):
    for name in ("Consolidation", "Mass", "Effusion", "Edema", "Pleural_Thickening"):
        mask = films(4, finding=name).masks[name]
        assert films(4, finding=name).image[0][mask].mean() > films(4).image[0][mask].mean() + 40
    mask = films(4, finding="Pneumothorax").masks["Pneumothorax"]
    assert films(4, finding="Pneumothorax").image[0][mask].mean() < films(4).image[0][mask].mean()


def test_severity_grows_with_the_area(films):
    for name in ("Effusion", "Pneumothorax", "Mass", "Cardiomegaly"):
        areas = [films(4, finding=name, severity=s).masks[name].sum() for s in (0.2, 0.6, 1.0)]
        assert areas[0] < areas[1] < areas[2]


def test_an_effusion_hides_the_lateral_angle_first(films):
    mask = films(4, finding="Effusion", severity=0.1).masks["Effusion"]
    rows = np.nonzero(mask)[0]
    lung = films(4).anatomy["Left Lung"] | films(4).anatomy["Right Lung"]
    assert np.median(rows) > np.percentile(np.nonzero(lung)[0], 85)


def test_emphysema_lowers_the_diaphragm(films):
    def top(shown):
        return np.nonzero(shown.anatomy["Facies Diaphragmatica"])[0].min()

    assert top(films(4, finding="Emphysema", severity=1.0)) > top(films(4)) + 3


def test_volume_loss_draws_the_mediastinum_over(films):
    case = phantom.draw(4, seed=5, views=["PA"], findings={"Atelectasis": 0.8}, others=False)
    moved = columns(films(4, finding="Atelectasis").anatomy["Heart"]).mean()
    there = columns(films(4).anatomy["Heart"]).mean()
    assert np.sign(moved - there) == case.sides["Atelectasis"]


@pytest.mark.parametrize("index", range(6))
@pytest.mark.parametrize("view", ["PA", "AP"])
def test_the_ratio_is_that_of_the_masks(index, view):
    shown = phantom.simulate(index, seed=11, size=384, views=[view])
    lungs = shown.anatomy["Left Lung"] | shown.anatomy["Right Lung"]
    measured = width(shown.anatomy["Heart"]) / width(lungs)
    assert abs(measured - shown.cardiothoracic_ratio) < 0.01


def test_cardiomegaly_is_a_ratio_above_one_half_on_a_pa_film():
    for index in range(60):
        case = phantom.draw(index, seed=2, views=["PA"])
        assert (case.cardiothoracic_ratio > 0.5) == (case.labels["Cardiomegaly"] == 1)


def test_a_lateral_film_has_no_ratio(films):
    assert np.isnan(films(2, "L").cardiothoracic_ratio)


def test_the_heart_is_larger_on_ap_films_of_the_same_patient():
    larger = 0
    for index in range(0, 60, 6):
        pa, ap = (
            phantom.draw(index, seed=2, views=[view], others=False).cardiothoracic_ratio
            for view in ("PA", "AP")
        )
        larger += ap > pa
    assert larger == 10


def test_size_changes_the_grid_only():
    small, large = (phantom.simulate(3, seed=3, size=size) for size in (96, 192))
    assert small.labels == large.labels
    assert small.pixel_spacing == pytest.approx(2 * large.pixel_spacing)
    for name in ("Heart", "Left Lung"):
        shares = [shown.anatomy[name].mean() for shown in (small, large)]
        assert shares[0] == pytest.approx(shares[1], rel=0.05)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"site": "D"}, UnknownNameError, "site"),
        ({"size": 8}, DatasetError, "size"),
        ({"views": ["LL"]}, ViewError, "LL"),
        ({"views": []}, ViewError, "at least one"),
        ({"findings": {"Effusio": 0.5}}, UnknownNameError, "Effusion"),
        ({"findings": {"Effusion": 1.5}}, DatasetError, "1.5"),
        ({"findings": {"Effusion": float("nan")}}, DatasetError, "nan"),
        ({"seed": -1}, DatasetError, "seed=-1"),
    ],
)
def test_slips_are_told(given, error, text):
    with pytest.raises(error, match=text):
        phantom.simulate(0, **given)

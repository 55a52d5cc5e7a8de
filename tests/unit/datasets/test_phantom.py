"""What simulated radiographs promise beyond the contract of every dataset."""

import numpy as np
import pytest
from torch.utils.data import DataLoader

import torchxrayvision.datasets as xd
from torchxrayvision.errors import DatasetError, UnknownNameError, ViewError
from torchxrayvision.phantom import FINDINGS, SITES, simulate

MASKS = {"pathology_masks": True, "anatomy_masks": True}


@pytest.fixture(scope="module")
def dataset():
    return xd.Phantom_Dataset(n=4, size=32, seed=5, **MASKS)


def flat(sample):
    """A sample as a dict of arrays."""
    groups = ("pathology_masks", "semantic_masks")
    arrays = {key: np.asarray(sample[key]) for key in ("idx", "lab", "img")}
    arrays |= {f"{group} {key}": mask for group in groups for key, mask in sample[group].items()}
    return arrays


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_any_number_of_workers_gives_the_same_films(dataset, workers):
    loader = DataLoader(dataset, batch_size=2, num_workers=workers, collate_fn=list)
    samples = [flat(sample) for batch in loader for sample in batch]
    assert len(samples) == len(dataset)
    for i, found in enumerate(samples):
        film = simulate(i, seed=5, size=32)
        np.testing.assert_array_equal(found["img"], film.image)
        np.testing.assert_array_equal(found["lab"], [film.labels[name] for name in FINDINGS])
        for name, mask in film.anatomy.items():
            np.testing.assert_array_equal(found[f"semantic_masks {name}"][0] > 0, mask)
        for name, mask in film.masks.items():
            key = f"pathology_masks {FINDINGS.index(name)}"
            np.testing.assert_array_equal(found[key][0] > 0, mask)


def test_labels_are_drawn_without_rendering(monkeypatch):
    def refuse(*_, **__):
        pytest.fail("a film was rendered")

    monkeypatch.setattr("torchxrayvision.phantom.simulate", refuse)
    dataset = xd.Phantom_Dataset(n=200, seed=77)
    assert len(dataset.describe()) == len(FINDINGS)
    for name in FINDINGS:
        severity = dataset.csv[f"severity {name}"]
        assert ((severity > 0) == (dataset.csv[name] == 1)).all()
        assert severity.between(0, 1).all()


def test_a_film_is_the_same_among_more_films_and_other_views():
    few, many = (xd.Phantom_Dataset(n=n, seed=1) for n in (30, 60))
    assert many.csv.head(30).equals(few.csv)
    frontal = xd.Phantom_Dataset(n=60, seed=1, views=["PA", "AP"])
    chosen = many.csv[many.csv["view"].isin(["PA", "AP"])]
    assert frontal.csv["index"].tolist() == chosen["index"].tolist()


def test_sites_show_the_same_and_look_different():
    films = [xd.Phantom_Dataset(n=2, size=32, site=site, anatomy_masks=True) for site in SITES]
    first, *others = films
    for other in others:
        np.testing.assert_array_equal(other.labels, first.labels)
        assert other.csv["patientid"].tolist() == first.csv["patientid"].tolist()
        assert not np.array_equal(other[0]["img"], first[0]["img"])


def test_seeds_share_no_patient():
    first, second = (xd.Phantom_Dataset(n=50, seed=seed) for seed in (0, 1))
    assert not set(first.csv["patientid"]) & set(second.csv["patientid"])


def test_a_transform_does_not_change_the_film(dataset):
    def black(image):
        image[:] = -1024
        return image

    changed = xd.Phantom_Dataset(n=4, size=32, seed=5, transform=black)
    assert changed[0]["img"].max() == -1024
    np.testing.assert_array_equal(dataset[0]["img"], simulate(0, seed=5, size=32).image)


def test_the_simulation_gives_what_the_csv_does_not(dataset):
    film = dataset.simulation(-1)
    assert film.pixel_spacing == simulate(3, seed=5, size=32).pixel_spacing
    np.testing.assert_array_equal(dataset[3]["img"], film.image)
    with pytest.raises(IndexError):
        dataset.simulation(4)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"n": 0}, DatasetError, "n=0"),
        ({"size": 0}, DatasetError, "size=0"),
        ({"site": "Z"}, UnknownNameError, "A, B, C"),
        ({"views": "RL"}, ViewError, "PA"),
        ({"seed": -1}, DatasetError, "seed=-1"),
    ],
)
def test_impossible_arguments_are_refused(arguments, error, says):
    with pytest.raises(error, match=says):
        xd.Phantom_Dataset(**{"n": 20, **arguments})

"""Sources without a packaged table: on the fake releases, compat mode gives what 1.5.7 gave."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import torchxrayvision.datasets as xd
from fakes import brax, chexlocalize, covid19, mimic, nlmtb, objectcxr, stonybrook, tbx11k
from torchxrayvision.errors import DatasetNotFoundError, ViewError

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "fakes.json").read_text())

BUILDERS = {
    "BRAX": brax.build,
    "CheXlocalize": chexlocalize.build,
    "CheXlocalize test": chexlocalize.build_test,
    "COVID19": covid19.build,
    "COVID19 a": lambda folder: covid19.build_era(folder, "a"),
    "COVID19 b": lambda folder: covid19.build_era(folder, "b"),
    "COVID19 c": lambda folder: covid19.build_era(folder, "c"),
    "MIMIC": mimic.build,
    "NLMTB Montgomery": nlmtb.build,
    "NLMTB Shenzhen": nlmtb.build_shenzhen,
    "ObjectCXR": objectcxr.build,
    "StonyBrook": stonybrook.build,
    "TBX11K": tbx11k.build,
}

# Where 1.5.7 gives an empty table, without a word.
EMPTY = {
    "CheXlocalize test": "the test set has no image whose view is PA or AP",
    "StonyBrook": "all images are AP; 1.5.7 makes the labels before it selects the views",
}

CASES = [
    pytest.param(name, outcome, id=f"{name} {json.dumps(outcome['arguments'])}")
    for name, entry in GOLDEN.items()
    for outcome in entry["outcomes"]
]


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    """Name of a fake to its arguments, built once."""
    built = {}

    def get(name):
        if name not in built:
            built[name] = BUILDERS[name](tmp_path_factory.mktemp("release")).kwargs
        return built[name]

    return get


def test_every_fake_of_the_table_was_recorded():
    assert set(GOLDEN) == set(BUILDERS)


def test_every_exception_is_one():
    empty = {n for n, entry in GOLDEN.items() if any(not o["rows"] for o in entry["outcomes"])}
    assert empty == set(EMPTY)


@pytest.mark.parametrize(("name", "outcome"), CASES)
def test_compat_mode_gives_the_rows_and_labels_of_1_5_7(name, outcome, releases):
    cls = getattr(xd, GOLDEN[name]["class"])
    arguments = {**releases(name), **outcome["arguments"]}
    if "split" in outcome["arguments"]:
        arguments.pop("jsonpath")  # the one that the split means
    if not outcome["rows"]:
        with pytest.raises(ViewError, match="this source has"):
            cls(**arguments, compat="xrv-1.5")
        return
    dataset = cls(**arguments, compat="xrv-1.5")
    assert dataset.pathologies == outcome["pathologies"]
    np.testing.assert_array_equal(dataset.labels, np.array(outcome["labels"], dtype=np.float32))
    for position, image in enumerate(outcome["images"]):
        if image is None:  # a row without an image
            with pytest.raises(DatasetNotFoundError):
                dataset[position]
            continue
        found = dataset[position]["img"]
        assert list(found.shape[1:]) == image[:2]
        assert found.mean() == pytest.approx(image[2], abs=0.01)

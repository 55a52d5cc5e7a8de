"""What every published checkpoint promises, and that its numbers are those of 1.5.7."""

from __future__ import annotations

import copy
import json
import math
import pickle
from pathlib import Path

import pytest

from torchxrayvision import weights
from torchxrayvision.labels import DEFAULT_PATHOLOGIES

GOLDEN = Path(__file__).parents[1] / "golden" / "model_urls.json"
ALL = weights.list_weights()
EVERY = pytest.mark.parametrize("record", ALL, ids=str)
CORE = [
    "densenet121-res224-all",
    "densenet121-res224-nih",
    "densenet121-res224-pc",
    "densenet121-res224-chex",
    "densenet121-res224-rsna",
    "densenet121-res224-mimic_nb",
    "densenet121-res224-mimic_ch",
    "resnet50-res512-all",
]


@pytest.fixture(scope="module")
def golden():
    """`model_urls` as recorded from 1.5.7, with NaN for the nulls of JSON."""
    entries = json.loads(GOLDEN.read_text())
    return {
        name: {key: restored(value) for key, value in entry.items()}
        for name, entry in entries.items()
    }


def restored(value):
    if not isinstance(value, list):
        return value
    return [math.nan if v is None else v for v in value]


def same(one, other):
    """Equality of type and value, with NaN equal to NaN."""
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and math.isnan(one):
        return isinstance(other, float) and math.isnan(other)
    return type(one) is type(other) and one == other


def test_the_eight_core_weights_are_there():
    assert [record.name for record in ALL][:8] == CORE


@EVERY
def test_record_is_complete(record):
    if record.url:
        assert record.url.startswith("https://")
        # On the Hub every release has the same names; in the cache each has its own.
        on_hub = record.url.endswith("/model.safetensors")
        assert on_hub or record.url.endswith("/" + record.file.filename)
        for file in record.companions:
            assert file.filename == f"{record.name}-{file.url.rpartition('/')[2]}"
    else:
        assert weights.locate_weights(record), "neither published nor in the package"
    assert record.license.name
    assert record.license.url
    assert record.license.note
    assert record.reference.url.startswith("https://")
    assert record.reference.year
    assert record.trained_on
    assert record.output in ("embedding", "similarity") or sum(record.trained) >= 1
    if record.file.size is not None:
        assert record.file.size > 2**20, "a size that no checkpoint has"


@EVERY
def test_record_survives_copy_and_pickle(record):
    for other in (copy.deepcopy(record), pickle.loads(pickle.dumps(record))):
        assert other == record
        assert hash(other) == hash(record)


def test_names_aliases_and_files_are_unique():
    names = [name for record in ALL for name in (record.name, *record.aliases)]
    assert len(names) == len(set(names))
    assert len({record.file.filename for record in ALL}) == len(ALL)
    urls = [record.url for record in ALL if record.url]
    assert len(urls) == len(set(urls))
    hashes = [record.file.sha256 for record in ALL if record.file.sha256]
    assert len(hashes) == len(set(hashes))


@EVERY
def test_names_lead_to_the_record(record):
    for name in (record.name, *record.aliases):
        assert weights.get(name) is record


@pytest.mark.parametrize("name", CORE)
def test_core_targets_follow_the_order_of_the_18_findings(name):
    record = weights.get(name)
    assert len(record.targets) == 18
    for target, expected in zip(record.targets, DEFAULT_PATHOLOGIES, strict=True):
        assert target in ("", expected)


@pytest.mark.parametrize("name", CORE)
def test_core_output_counts_as_trained_exactly_if_1_5_7_has_a_threshold(name, golden):
    thresholds = golden[name]["op_threshs"]
    assert weights.get(name).trained == tuple(not math.isnan(t) for t in thresholds)


def test_licence_says_whose_data_terms_travel_with_the_weights():
    for name, owner in (("chex", "Stanford"), ("mimic_ch", "PhysioNet"), ("all", "BIMCV")):
        licence = weights.get(name).license
        assert licence.commercial is None
        assert owner in licence.note
    assert "PhysioNet" not in weights.get("nih").license.note


# --- the view of 1.5.7


def test_model_urls_has_the_keys_of_1_5_7(golden):
    view = weights.model_urls_view()
    assert list(view) == list(golden)
    assert len(view) == 15


def test_model_urls_has_the_values_of_1_5_7_to_the_last_digit(golden):
    view = weights.model_urls_view()
    for name, entry in golden.items():
        assert list(view[name]) == list(entry)
        for key, value in entry.items():
            assert same(view[name][key], value), (name, key)


def test_model_urls_cannot_be_changed_through_the_view():
    view = weights.model_urls_view()
    with pytest.raises(TypeError):
        view["all"] = {}
    view["all"]["labels"].clear()
    view["all"]["input_resolution"] = 1
    assert view["all"]["labels"] == list(DEFAULT_PATHOLOGIES)
    assert view["all"]["input_resolution"] == 224
    with pytest.raises(KeyError):
        view["resnet101"]
    assert "densenet121-res224-all" in repr(view)


# --- the corrected points of the ResNet


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(
    ("corrected", "published"),
    [("operating_points", "compat_operating_points"), ("ppv80", "compat_ppv80")],
)
def test_resnet_points_are_the_published_ones_before_the_second_sigmoid(corrected, published):
    record = weights.get("resnet50-res512-all")
    pairs = zip(getattr(record, corrected), getattr(record, published), strict=True)
    for target, (new, old) in zip(record.targets, pairs, strict=True):
        assert math.isnan(new) == math.isnan(old) == (target in UNCALIBRATED)
        if not math.isnan(old):
            assert 0.5 < old < sigmoid(1), "the range of a sigmoid applied twice"
            assert sigmoid(new) == pytest.approx(old, rel=1e-12)


UNCALIBRATED = ("Lung Lesion", "Enlarged Cardiomediastinum")


@pytest.mark.parametrize(
    ("target", "point"),
    [("Atelectasis", 0.0628), ("Edema", 0.010), ("Effusion", 0.0746), ("Cardiomegaly", 0.0225)],
)
def test_resnet_points_are_of_the_size_of_other_weights(target, point):
    record = weights.get("resnet50-res512-all")
    assert record.operating_points[record.targets.index(target)] == pytest.approx(point, abs=5e-5)


@pytest.mark.parametrize(
    ("target", "shown", "corrected"),
    [("Effusion", 0.1477132, 0.543), ("Cardiomegaly", 0.44829446, 0.720)],
)
def test_resnet_example_of_1_5_7_is_above_the_corrected_point(target, shown, corrected):
    """1.5.7's README shows these for a film labelled Cardiomegaly; both lie below 0.5 there."""
    record = weights.get("resnet50-res512-all")
    index = record.targets.index(target)
    old, new = record.compat_operating_points[index], record.operating_points[index]
    probability = shown * 2 * old
    assert 1 - (1 - probability) / (2 * (1 - new)) == pytest.approx(corrected, abs=1e-3)


def test_resnet_keeps_names_without_points_and_does_not_count_them_as_trained():
    record = weights.get("resnet50-res512-all")
    assert record.targets == DEFAULT_PATHOLOGIES
    untrained = [t for t, yes in zip(record.targets, record.trained, strict=True) if not yes]
    assert tuple(untrained) == UNCALIBRATED


@pytest.mark.parametrize("name", CORE[:7])
def test_densenet_points_are_the_published_ones(name):
    record = weights.get(name)
    assert record.operating_points is record.compat_operating_points
    assert record.ppv80 is record.compat_ppv80


# --- metrics


@pytest.mark.parametrize(
    ("name", "dataset", "target", "value"),
    [
        ("all", "NIH", "Pneumothorax", 0.75),
        ("all", "PadChest", "Effusion", 0.95),
        ("all", "CheXpert", "Enlarged Cardiomediastinum", 0.78),
        ("all", "MIMIC", "Edema", 0.92),
        ("resnet50-res512-all", "NIH", "Hernia", 0.92),
    ],
)
def test_published_areas(name, dataset, target, value):
    record = weights.get(name)
    assert record.metrics[dataset][target] == value
    assert "BENCHMARKS.md" in record.metrics_source


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        (
            "all",
            {
                "NIH": 14,
                "Google": 3,
                "RSNA": 2,
                "SIIM": 1,
                "PadChest": 15,
                "VinDr": 8,
                "CheXpert": 11,
                "MIMIC": 11,
            },
        ),
        ("resnet50-res512-all", {"NIH": 14}),
        ("nih", {}),
    ],
)
def test_number_of_published_areas(name, counts):
    metrics = weights.get(name).metrics
    assert {dataset: len(values) for dataset, values in metrics.items()} == counts


@pytest.mark.network
@EVERY
def test_published_address_answers_with_the_published_size(record):
    import requests

    if not record.url:
        pytest.skip("it is in the package")
    answer = requests.head(record.url, allow_redirects=True, timeout=30)
    assert answer.status_code == 200
    if record.file.size is not None:
        assert int(answer.headers["Content-Length"]) == record.file.size

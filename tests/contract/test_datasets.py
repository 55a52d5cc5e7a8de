"""Promises of every dataset, each tested on a fake release that its builder writes."""

from __future__ import annotations

import inspect
import io
import json
import pickle
import random
import socket
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest

import torchxrayvision.datasets as xd
from fakes import BUILDERS
from torchxrayvision.datasets.images import Files
from torchxrayvision.datasets.release import SHARED_COLUMNS
from torchxrayvision.errors import (
    DatasetError,
    DatasetNotFoundError,
    EmptyDatasetError,
    ViewError,
)
from torchxrayvision.labels import CANONICAL_VIEWS, is_known

NAMES = xd.list_datasets()

# Member to check (the name of the test function) to the reason; each is a strict xfail.
EXPECTED_FAILURES: dict[str, dict[str, str]] = {
    "Phantom_Dataset": {
        "test_black_and_white_pixels_land_at_the_ends": "no file has a known corner: a film is "
        "rendered, and collimation or a marker may lie there",
        "test_labels_need_no_images": "there is no folder that could be missing",
    },
    "REFLACX_Dataset": {
        "test_masks_belong_to_findings_that_are_present": "an ellipse counts by the certainty of "
        "the reader who drew it, a label by the mean of all readers"
    },
}

# Public name of 1.5.7 to the names of its parameters, in order.
ARGUMENTS_157 = json.loads((Path(__file__).parents[1] / "golden" / "api.json").read_text())[
    "datasets"
]


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    """Member to its fake, built once."""
    built = {}

    def get(name):
        if name not in BUILDERS:
            pytest.fail(f"{name} has no fake; add a builder under tests/fakes")
        if name not in built:
            built[name] = BUILDERS[name](tmp_path_factory.mktemp(name))
        return built[name]

    return get


@pytest.fixture(params=NAMES)
def name(request):
    reason = EXPECTED_FAILURES.get(request.param, {}).get(request.function.__name__)
    if reason:
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    return request.param


@pytest.fixture
def fake(name, releases):
    return releases(name)


@pytest.fixture
def cls(name):
    return getattr(xd, name)


def accepted(cls, kwargs):
    """Those of some arguments that a constructor has."""
    known = inspect.signature(cls).parameters
    return {key: value for key, value in kwargs.items() if key in known}


def whole(cls, fake, **kwargs):
    """The dataset with every image."""
    return cls(**{**fake.kwargs, **accepted(cls, fake.all_kwargs), **kwargs})


def paths(dataset):
    return [dataset.image_path(i) for i in range(len(dataset))]


def expected_labels(dataset, fake):
    return np.array(
        [[fake.labels[path].get(f, 0.0) for f in dataset.pathologies] for path in paths(dataset)],
        dtype=np.float32,
    )


def test_every_builder_belongs_to_a_dataset():
    assert set(BUILDERS) - set(NAMES) == set()


def test_every_exception_names_a_member_and_a_check():
    for member, checks in EXPECTED_FAILURES.items():
        assert member in NAMES
        assert set(checks) <= set(globals())


def test_labels_are_those_of_the_release(cls, fake):
    dataset = whole(cls, fake)
    assert paths(dataset) == list(fake.labels)
    stated = {finding for row in fake.labels.values() for finding in row}
    assert stated <= set(dataset.pathologies)
    np.testing.assert_array_equal(dataset.labels, expected_labels(dataset, fake))
    # A fake proves something only if its labels vary.
    assert len(np.unique(dataset.labels)) > 1  # NaN counts: some releases only say what is there


def test_labels_have_their_type_shape_and_values(cls, fake):
    dataset = whole(cls, fake)
    assert dataset.labels.dtype == np.float32
    assert dataset.labels.shape == (len(dataset), len(dataset.pathologies))
    known = dataset.labels[~np.isnan(dataset.labels)]
    low, high = cls.spec.score_range
    assert (
        ((known >= low) & (known <= high)).all()
        if cls.spec.scores
        else np.isin(known, [0, 1]).all()
    )
    assert cls.spec.scores == fake.scores


def test_csv_is_aligned_and_its_shared_columns_have_fixed_types(cls, fake):
    dataset = whole(cls, fake)
    assert list(dataset.csv.index) == list(range(len(dataset)))
    assert ("view" in dataset.csv) == bool(fake.views) == (cls.spec.view is not None)
    for column in set(SHARED_COLUMNS) & set(dataset.csv):
        kind = dataset.csv[column].dtype.kind
        allowed = {"str": "OTU", "number": "if", "float64": "f", "bool": "b"}[
            SHARED_COLUMNS[column]
        ]
        assert kind in allowed, (column, dataset.csv[column].dtype)
    assert set(cls.spec.columns) <= set(dataset.csv)


def test_shared_columns_hold_what_the_release_says(cls, fake):
    dataset = whole(cls, fake)
    csv = dataset.csv.assign(path=paths(dataset)).set_index("path")
    for column, said in (
        ("view", fake.views),
        ("patientid", fake.patients),
        ("age_years", fake.ages),
        ("offset_day_int", fake.days),
    ):
        assert (column in csv) == bool(said), f"{column}: the fake and the dataset disagree"
        for path, value in said.items():
            got = csv.loc[path, column]
            same = got == value or (got != got and value != value)  # NaN is NaN
            assert same, (column, path, got, value)
    for path, sex in fake.sexes.items():
        assert (csv.loc[path, "sex_male"], csv.loc[path, "sex_female"]) == (sex == "M", sex == "F")
    assert ("sex_male" in csv) == ("sex_female" in csv) == bool(fake.sexes)


def test_pathologies_are_text_unique_and_known(cls, fake):
    dataset = whole(cls, fake)
    assert type(dataset.pathologies) is list
    assert all(type(finding) is str for finding in dataset.pathologies)
    assert len(set(dataset.pathologies)) == len(dataset.pathologies)
    if cls.spec.findings.names is not None:
        assert tuple(dataset.pathologies) == tuple(cls.spec.findings.names)
        assert [finding for finding in dataset.pathologies if not is_known(finding)] == []


def test_sample_has_its_keys_types_and_range(cls, fake):
    dataset = whole(cls, fake)
    for i in range(len(dataset)):
        sample = dataset[i]
        assert {"idx", "lab", "img"} <= set(sample)
        assert type(sample["idx"]) is int
        assert sample["idx"] == i
        np.testing.assert_array_equal(sample["lab"], dataset.labels[i])
        assert sample["lab"].dtype == sample["img"].dtype == np.float32
        assert sample["img"].ndim == 3
        assert sample["img"].shape[0] == 1


def test_black_and_white_pixels_land_at_the_ends(cls, fake):
    dataset = whole(cls, fake)
    for i in range(len(dataset)):
        image = dataset[i]["img"]
        # Every fake image has black in its first corner and white in its last.
        assert image[0, 0, 0] == pytest.approx(-1024, abs=0.01), dataset.image_path(i)
        assert image[0, -1, -1] == pytest.approx(1024, abs=0.01), dataset.image_path(i)
        assert image.min() >= -1024
        assert image.max() <= 1024


def test_lab_is_a_copy(cls, fake):
    dataset = whole(cls, fake)
    before = dataset.labels.copy()
    dataset[0]["lab"][:] = 7
    np.testing.assert_array_equal(dataset.labels, before)


def same(a, b):
    if isinstance(a, dict):
        return set(a) == set(b) and all(same(a[key], b[key]) for key in a)
    return np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True)


def test_indices_behave_as_those_of_a_list(cls, fake):
    dataset = whole(cls, fake)
    n = len(dataset)
    assert same(dataset[0], dataset[0])
    assert same(dataset[-1], dataset[n - 1])
    assert same(dataset[np.int64(0)], dataset[0])
    assert [sample["idx"] for sample in dataset.__getitems__([n - 1, 0])] == [n - 1, 0]
    for outside in (n, -n - 1):
        with pytest.raises(IndexError, match=str(n)):
            dataset[outside]
    with pytest.raises(TypeError):
        dataset["0"]


def test_masks_are_where_the_release_has_them(cls, fake):
    if cls.spec.masks is None:
        assert not fake.masks
        assert "has_masks" not in whole(cls, fake).csv
        return
    assert fake.masks, "a fake of a dataset with masks needs some"
    dataset = whole(cls, fake, **fake.mask_kwargs)
    for i, path in enumerate(paths(dataset)):
        sample = dataset[i]
        wanted = fake.masks.get(path, {})
        found = {dataset.pathologies[key]: mask for key, mask in sample["pathology_masks"].items()}
        assert all(type(key) is int for key in sample["pathology_masks"])
        assert set(found) == set(wanted)
        assert bool(dataset.csv["has_masks"][i]) == bool(wanted)
        for finding, mask in found.items():
            assert mask.shape == sample["img"].shape
            assert set(np.unique(mask)) <= {0, 1}
            np.testing.assert_array_equal(mask[0] > 0, wanted[finding])
    assert any(dataset.csv["has_masks"])
    assert not all(dataset.csv["has_masks"]), "a fake needs an image without masks too"


def test_masks_belong_to_findings_that_are_present(cls, fake):
    if cls.spec.masks is None:
        pytest.skip("the release has no masks")
    dataset = whole(cls, fake, **fake.mask_kwargs)
    absent = {
        (dataset.image_path(i), dataset.pathologies[key])
        for i in range(len(dataset))
        for key in dataset[i]["pathology_masks"]
        if dataset.labels[i, key] != 1
    }
    assert absent == set()


def test_without_the_flag_there_are_no_masks(cls, fake):
    if cls.spec.masks is None or "pathology_masks" not in inspect.signature(cls).parameters:
        pytest.skip("the release has no masks, or always gives them")
    assert "pathology_masks" not in whole(cls, fake, pathology_masks=False)[0]


def test_semantic_masks_are_where_the_release_has_them(cls, fake):
    assert (cls.spec.semantic is not None) == bool(fake.semantic)
    if not fake.semantic:
        pytest.skip("the release has no semantic masks")
    dataset = whole(cls, fake, **fake.semantic_kwargs)
    for i, path in enumerate(paths(dataset)):
        sample, wanted = dataset[i], fake.semantic.get(path, {})
        assert set(sample["semantic_masks"]) == set(wanted)
        for structure, mask in sample["semantic_masks"].items():
            assert mask.shape == sample["img"].shape
            np.testing.assert_array_equal(mask[0] > 0, wanted[structure])


def test_boxes_are_where_the_release_has_them(cls, fake):
    assert (cls.spec.boxes is not None) == bool(fake.boxes)
    dataset = whole(cls, fake)
    for i, path in enumerate(paths(dataset)):
        if not fake.boxes:
            break
        boxes = np.asarray(dataset[i]["bbox"], dtype=np.float32).reshape(-1, 4)
        wanted = np.asarray(fake.boxes.get(path, []), dtype=np.float32).reshape(-1, 4)
        np.testing.assert_allclose(boxes, wanted, atol=1e-3)


def test_masks_follow_a_relabelled_dataset(cls, fake):
    if cls.spec.masks is None:
        pytest.skip("the release has no masks")
    dataset = whole(cls, fake, **fake.mask_kwargs)
    path, wanted = next(iter(fake.masks.items()))
    finding = next(iter(wanted))
    xd.relabel_dataset(["Not here", finding], dataset, silent=True)
    found = dataset[paths(dataset).index(path)]["pathology_masks"]
    assert list(found) == [1]
    np.testing.assert_array_equal(found[1][0] > 0, wanted[finding])


def test_default_arguments_give_one_image_of_each_patient(cls, fake):
    assert paths(cls(**fake.kwargs)) == fake.default


def test_the_one_image_of_a_patient_has_its_own_labels(cls, fake):
    if "unique_patients" not in inspect.signature(cls).parameters or cls.spec.patient is None:
        pytest.skip("the release does not choose an image per patient")
    dataset = cls(**fake.kwargs, **accepted(cls, {"views": "*", "unique_patients": True}))
    kept = [fake.patients[path] for path in paths(dataset)]
    assert sorted(kept) == sorted(set(fake.patients.values()))
    np.testing.assert_array_equal(dataset.labels, expected_labels(dataset, fake))


def test_views_select_rows(cls, fake):
    if not fake.views:
        pytest.skip("the release has no views")
    arguments = accepted(cls, {"unique_patients": False})
    for view in sorted(set(fake.views.values())):
        wanted = [path for path in fake.labels if fake.views[path] == view]
        for given in (view, [view], (view,), {view}):
            dataset = cls(**fake.kwargs, **arguments, views=given)
            assert paths(dataset) == wanted
            assert dataset.views == [view]
            assert set(dataset.csv["view"]) == {view}
        assert view in CANONICAL_VIEWS
    assert paths(whole(cls, fake)) == list(fake.labels)


def test_an_unknown_view_names_those_of_the_source(cls, fake):
    if not fake.views:
        pytest.skip("the release has no views")
    with pytest.raises(ViewError, match=sorted(set(fake.views.values()))[0]):
        cls(**fake.kwargs, views=["Upside down"])


def test_views_of_another_dataset_select_nothing_here(cls, fake):
    if not fake.views:
        pytest.skip("the release has no views")
    absent = next(view for view in CANONICAL_VIEWS if view not in fake.views.values())
    some = next(iter(fake.views.values()))
    arguments = accepted(cls, {"unique_patients": False})
    wanted = [path for path in fake.labels if fake.views[path] == some]
    assert paths(cls(**fake.kwargs, **arguments, views=[some, absent])) == wanted
    with pytest.raises(ViewError):
        cls(**fake.kwargs, views=[absent])


def test_limiting_views_later_keeps_rows_aligned(cls, fake):
    if len(set(fake.views.values())) < 2:
        pytest.skip("the release has one view at most")
    dataset, view = whole(cls, fake), next(iter(fake.views.values()))
    dataset.limit_to_selected_views([view])
    assert paths(dataset) == [path for path in fake.labels if fake.views[path] == view]
    np.testing.assert_array_equal(dataset.labels, expected_labels(dataset, fake))


def test_the_views_argument_is_not_shared(cls, fake):
    if not fake.views:
        pytest.skip("the release has no views")
    first = cls(**fake.kwargs)
    first.views.append("AP Supine")
    assert "AP Supine" not in cls(**fake.kwargs).views


def test_labels_need_no_images(cls, fake, tmp_path):
    place = cls.spec.images.argument
    inside = [table.argument for table in cls.spec.tables if table.path_below_imgpath]
    if any(argument not in fake.kwargs for argument in inside):
        return  # the tables themselves are in the folder
    for missing in (tmp_path / "nowhere", None):
        kwargs = {**fake.kwargs, place: missing}
        if not cls.spec.tables:  # the folder itself is the table, as in NLM-TB
            with pytest.raises(DatasetError, match=place):
                cls(**kwargs)
            continue
        dataset = cls(**kwargs, **accepted(cls, fake.all_kwargs))
        assert len(dataset) == len(fake.labels)
        assert dataset.totals()
        with pytest.raises(DatasetNotFoundError) as caught:
            dataset[0]
        assert place in str(caught.value)
        assert str(missing) in str(caught.value)
        with pytest.raises(DatasetNotFoundError):
            dataset.check_paths_exist()


def test_a_missing_table_is_named(cls, fake, tmp_path):
    for table in cls.spec.tables:
        kwargs = {**fake.kwargs, table.argument: tmp_path / "gone.csv"}
        with pytest.raises(DatasetNotFoundError, match=f"{table.argument}=.*gone"):
            cls(**kwargs)


def test_a_table_that_is_not_packaged_must_be_given(cls, fake):
    for argument in fake.required:
        kwargs = {key: value for key, value in fake.kwargs.items() if key != argument}
        with pytest.raises((DatasetError, TypeError), match=argument):
            cls(**kwargs)


def test_another_table_is_refused_with_its_columns(cls, fake):
    import pandas as pd

    if not cls.spec.tables or cls.spec.tables[0].read is not None:
        pytest.skip("the release has no plain table")
    frame = pd.DataFrame({"something": [1, 2]})
    with pytest.raises(DatasetError):
        cls(**{**fake.kwargs, cls.spec.tables[0].argument: frame})


def test_check_paths_exist_passes_on_a_whole_release(cls, fake):
    whole(cls, fake).check_paths_exist()


def test_a_missing_image_is_named(cls, fake):
    if not isinstance(cls.spec.images, Files):
        pytest.skip("the images are no files at known paths")
    dataset = whole(cls, fake)
    path = dataset.spec.images.open(dataset._row(0), dataset._context)
    hidden = path.with_name("hidden")
    path.rename(hidden)
    try:
        if cls.spec.tables:  # otherwise the folder is the table, and an older object knows the file
            dataset = whole(cls, fake)
        with pytest.raises(DatasetNotFoundError, match=path.name):
            dataset[0]
        with pytest.raises(DatasetNotFoundError, match=path.name):
            dataset.check_paths_exist()
        report = xd.verify(dataset, workers=1, hashes=False)
        assert (report.ok, report.missing) == (False, [dataset.image_path(0)])
    finally:
        hidden.rename(path)


def test_verify_accepts_a_whole_release(cls, fake):
    seen = []
    report = xd.verify(
        whole(cls, fake), workers=2, progress=lambda done, of: seen.append((done, of))
    )
    assert report.ok, str(report)
    assert report.checked == len(fake.labels)
    assert seen[-1] == (len(fake.labels), len(fake.labels))


def global_states():
    import torch

    legacy = np.random.get_state()[1].tolist()  # noqa: NPY002 - the state a user may rely on
    return random.getstate(), legacy, torch.get_rng_state().tolist()


def test_nothing_global_changes_and_nothing_is_printed(cls, fake, monkeypatch):
    def refuse(*_):
        pytest.fail("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    before = global_states()
    out, err = io.StringIO(), io.StringIO()
    with warnings.catch_warnings(), redirect_stdout(out), redirect_stderr(err):
        warnings.simplefilter("error")
        dataset = whole(cls, fake, transform=lambda image: image + random.random())
        dataset[0]
        dataset.totals()
    assert global_states() == before
    assert (out.getvalue(), err.getvalue()) == ("", "")


def test_augmentation_differs_by_call_and_repeats_by_seed(cls, fake):
    def shifted(image):
        return image * 0 + random.random()

    def draws(seed):
        dataset = whole(cls, fake, data_aug=shifted, seed=seed)
        return [float(dataset[0]["img"][0, 0, 0]) for _ in range(3)]

    first = draws(5)
    assert len(set(first)) == 3
    assert draws(5) == first
    assert draws(6) != first


def test_pickles_to_the_same_dataset(cls, fake):
    dataset = whole(cls, fake, **(fake.mask_kwargs if cls.spec.masks else {}))
    again = pickle.loads(pickle.dumps(dataset))
    assert again.pathologies == dataset.pathologies
    assert again.csv.equals(dataset.csv)
    assert list(again.csv.dtypes) == list(dataset.csv.dtypes)
    np.testing.assert_array_equal(again.labels, dataset.labels)
    assert again.labels.dtype == np.float32
    for i in range(len(dataset)):
        assert same(again[i], dataset[i])


def test_a_loader_with_workers_gives_the_same_samples(cls, fake):
    from torch.utils.data import DataLoader

    dataset = whole(cls, fake)
    loader = DataLoader(dataset, batch_size=2, num_workers=2, collate_fn=list)
    loaded = [sample for batch in loader for sample in batch]
    assert len(loaded) == len(dataset)
    for i, sample in enumerate(loaded):
        assert same(sample, dataset[i])


def test_totals_count_the_labels(cls, fake):
    dataset = whole(cls, fake)
    totals = dataset.totals()
    assert list(totals) == dataset.pathologies
    for j, counts in enumerate(totals.values()):
        column = dataset.labels[:, j]
        values, numbers = np.unique(column[~np.isnan(column)], return_counts=True)
        assert counts == dict(zip(values.tolist(), numbers.tolist(), strict=True))
        assert all(type(label) is float and type(n) is int for label, n in counts.items())


def test_describe_agrees_with_totals(cls, fake):
    dataset = whole(cls, fake)
    if cls.spec.scores:
        pytest.skip("the labels are scores, which are not counted")
    table, totals = dataset.describe(), dataset.totals()
    for finding in dataset.pathologies:
        assert table.loc[finding, "present"] == totals[finding].get(1.0, 0)
        assert table.loc[finding, "absent"] == totals[finding].get(0.0, 0)
    assert (table[["present", "absent", "unknown"]].sum(axis=1) == len(dataset)).all()
    if fake.views:
        by_view = dataset.describe(by="view")
        assert (by_view.sum(axis=1) == table["present"]).all()


def test_texts_name_the_class_and_the_number(cls, fake, name):
    dataset = whole(cls, fake)
    assert dataset.string() == repr(dataset)
    assert repr(dataset).startswith(f"{name} num_samples={len(dataset)}")
    assert f"<td>{dataset.pathologies[0]}</td>" in dataset._repr_html_().replace("&amp;", "&")


def test_relabelling_keeps_rows_and_the_callers_list(cls, fake):
    dataset = whole(cls, fake)
    keep = dataset.pathologies[-1]
    column = dataset.labels[:, -1].copy()
    wanted = ["Not here", keep]
    xd.relabel_dataset(wanted, dataset, silent=True)
    assert dataset.pathologies == wanted
    assert dataset.pathologies is not wanted
    assert dataset.labels.dtype == np.float32
    assert np.isnan(dataset.labels[:, 0]).all()
    np.testing.assert_array_equal(dataset.labels[:, 1], column)
    np.testing.assert_array_equal(dataset[0]["lab"], dataset.labels[0])


def test_containers_keep_rows_labels_and_samples_together(cls, fake):
    inner = whole(cls, fake)
    before = inner.labels.copy(), inner.csv.copy(), list(inner.pathologies)
    order = [len(inner) - 1, 0]
    present = [name for name, counts in inner.totals().items() if counts.get(1.0)]
    made = [
        (xd.SubsetDataset(inner, order), order),
        (xd.MergeDataset([inner, inner]), [*range(len(inner))] * 2),
    ]
    if present:
        chosen = inner.labels[:, inner.pathologies.index(present[0])] == 1
        made.append((xd.FilterDataset(inner, present[:1]), np.flatnonzero(chosen).tolist()))
    for container, rows in made:
        xd.relabel_dataset([*inner.pathologies[::-1], "Not here"], container, silent=True)
        assert [container[i]["idx"] for i in range(len(container))] == rows
        np.testing.assert_array_equal(container.labels[:, :-1], inner.labels[rows][:, ::-1])
        assert container.csv.index.tolist() == list(range(len(rows)))
        if "patientid" in inner.csv:
            assert container.csv["patientid"].tolist() == inner.csv["patientid"][rows].tolist()
        last = container[-1]
        np.testing.assert_array_equal(last["lab"], container.labels[-1])
        np.testing.assert_array_equal(last["img"], inner[rows[-1]]["img"])
    np.testing.assert_array_equal(inner.labels, before[0])
    assert inner.csv.equals(before[1])
    assert inner.pathologies == before[2]


def test_official_splits_are_those_of_the_release(cls, fake):
    assert (cls.spec.split is not None) == bool(fake.splits)
    dataset = whole(cls, fake)
    if not fake.splits:
        with pytest.raises(DatasetError, match="split_by_patient"):
            xd.official_splits(dataset)
        return
    found = {
        part: [dataset.image_path(i) for i in subset.idxs]
        for part, subset in xd.official_splits(dataset).items()
    }
    assert found == fake.splits


def test_compat_and_default_are_accepted_and_others_refused(cls, fake):
    assert len(cls(**fake.kwargs, compat="xrv-1.5")) > 0
    with pytest.raises(DatasetError, match=r"xrv-1\.5"):
        cls(**fake.kwargs, compat="1.4")


def test_arguments_of_1_5_7_keep_their_names_and_order(cls, name):
    old = ARGUMENTS_157.get(name, [])
    new = [
        parameter.name
        for parameter in inspect.signature(cls).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    assert new[: len(old)] == old


def test_the_docstring_is_complete(cls):
    text = inspect.getdoc(cls)
    assert cls.spec.reference.url in text or cls.spec.homepage in text
    for parameter in inspect.signature(cls).parameters:
        assert f"{parameter}:" in text, f"{parameter} is not documented"
    assert cls.spec.verified, "say which columns were verified"


def test_the_card_is_data(name):
    card = xd.card(name)
    assert json.loads(json.dumps(card.to_dict()))["name"] == name
    assert card.summary
    assert card.license["name"]
    assert card.reference["year"] > 2000


def test_labels_and_images_are_made_without_torch(releases, tmp_path):
    table = tmp_path / "arguments.pickle"
    arguments = {}
    for member in NAMES:
        fake, cls = releases(member), getattr(xd, member)
        arguments[member] = {**fake.kwargs, **accepted(cls, fake.all_kwargs)}
    table.write_bytes(pickle.dumps(arguments))
    code = (
        "import pathlib, pickle, sys, torchxrayvision.datasets as xd\n"
        f"arguments = pickle.loads(pathlib.Path({str(table)!r}).read_bytes())\n"
        "for name, kwargs in arguments.items():\n"
        "    d = getattr(xd, name)(**kwargs)\n"
        "    d.totals(); d.describe(); repr(d); pickle.dumps(d); d[0]\n"
        "    assert 'torch' not in sys.modules, name\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=120)


def test_an_empty_table_is_an_error(cls, fake):
    import pandas as pd

    if not cls.spec.tables or cls.spec.tables[0].read is not None:
        pytest.skip("the release has no plain table")
    argument = cls.spec.tables[0].argument
    frame = pd.read_csv(fake.kwargs[argument]).head(0)
    with pytest.raises((EmptyDatasetError, DatasetError)):
        cls(**{**fake.kwargs, argument: frame})

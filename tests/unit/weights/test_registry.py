"""Records, enums and the registry: names, validation, copying."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import math
import pickle
import subprocess
import sys

import pytest

from torchxrayvision import checkpoints, weights
from torchxrayvision.errors import OfflineError, UnknownNameError, UnpinnedDownloadWarning
from torchxrayvision.facts import License, Reference, RemoteFile
from torchxrayvision.weights import (
    DenseNet121_Weights,
    Metrics,
    ResNet50_Weights,
    Weights,
    WeightsEnum,
)
from torchxrayvision.weights import (
    registry as _registry,
)

NAN = math.nan


def make(**changes):
    facts = {
        "name": "toy-res8-ours",
        "file": RemoteFile(url="https://host.example/toy.pt", filename="toy.pt"),
        "container": "state_dict",
        "architecture": "densenet121",
        "targets": ("Hernia", "", "Mass"),
        "input_resolution": 8,
        "operating_points": (0.25, NAN, 0.5),
        "trained_on": ("ours",),
        "license": License(name="MIT"),
        "reference": Reference(authors="A. Person", title="A title", year=2026),
    }
    return Weights(**(facts | changes))


@pytest.fixture
def registry(monkeypatch):
    """The registry, restored afterwards."""
    monkeypatch.setattr(_registry, "_by_name", dict(_registry._by_name))


# --- the record


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"name": ""}, "name and aliases"),
        ({"aliases": ("",)}, "name and aliases"),
        ({"aliases": ("toy-res8-ours",)}, "name and aliases"),
        ({"aliases": ("toy", "toy")}, "name and aliases"),
        ({"targets": ("", "", "")}, "not all empty"),
        ({"targets": ("Mass", "", "Mass")}, "distinct"),
        ({"targets": ("Mass", "")}, "operating_points has 3 values for 2 targets"),
        ({"operating_points": (0.1, NAN)}, "operating_points has 2 values for 3 targets"),
        ({"operating_points": (0.0, NAN, 0.5)}, r"in \(0, 1\) or NaN, got \[0.0\]"),
        ({"operating_points": (1.0, NAN, 0.5)}, r"in \(0, 1\) or NaN"),
        ({"operating_points": (math.inf, NAN, 0.5)}, r"in \(0, 1\) or NaN"),
        ({"compat_operating_points": (0.1,)}, "compat_operating_points has 1"),
        ({"ppv80": (0.1,)}, "ppv80 has 1"),
        ({"compat_ppv80": (0.1, 0.2, 2.0)}, "compat_ppv80 must be"),
        ({"input_resolution": 0}, "input_resolution"),
        ({"pixel_range": (1.0, 1.0)}, "pixel_range"),
        ({"metrics": {"NIH": {"Edema": 0.9}}, "metrics_source": "x"}, "not targets"),
        ({"metrics": {"NIH": {"Mass": 90.0}}, "metrics_source": "x"}, r"in \[0, 1\]"),
        ({"metrics": {"NIH": {"Mass": 0.9}}}, "go together"),
        ({"metrics_source": "x"}, "go together"),
    ],
)
def test_contradicting_fields_are_refused(changes, word):
    with pytest.raises(ValueError, match=word):
        make(**changes)


def test_record_cannot_change():
    record = make()
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.name = "other"
    with pytest.raises(TypeError, match="item assignment"):
        make(metrics={"NIH": {"Mass": 0.9}}, metrics_source="x").metrics["NIH"] = {}


@pytest.mark.parametrize(
    "twin",
    [copy.copy, copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r)), dataclasses.replace],
    ids=["copy", "deepcopy", "pickle", "replace"],
)
def test_record_equals_its_copies_although_it_holds_nan(twin):
    record = make(metrics={"NIH": {"Mass": 0.9}}, metrics_source="x")
    other = twin(record)
    assert other == record
    assert hash(other) == hash(record)


def test_records_that_differ_in_one_field_are_unequal():
    assert make() != make(operating_points=(0.25, NAN, 0.75))
    assert make() != make(operating_points=(0.25, 0.1, 0.5))
    assert make() != "toy-res8-ours"


def test_published_points_are_the_points_unless_said_otherwise():
    record = make(ppv80=(0.7, NAN, 0.8))
    assert record.compat_operating_points is record.operating_points
    assert record.compat_ppv80 is record.ppv80
    assert make(compat_operating_points=(0.1, NAN, 0.2)).compat_operating_points[0] == 0.1


@pytest.mark.parametrize(
    ("changes", "trained"),
    [
        ({}, (True, False, True)),
        ({"operating_points": (0.1, NAN, NAN)}, (True, False, False)),
        ({"operating_points": None}, (True, False, True)),
        ({"operating_points": (0.1, 0.2, 0.3)}, (True, False, True)),
    ],
    ids=["unnamed", "named_without_point", "no_points", "point_without_name"],
)
def test_trained_needs_a_name_and_a_point(changes, trained):
    assert make(**changes).trained == trained


def test_metrics_are_a_mapping():
    metrics = Metrics({"NIH": {"Mass": 0.9, "Hernia": 0.8}})
    assert dict(metrics) == {"NIH": {"Mass": 0.9, "Hernia": 0.8}}
    assert metrics == Metrics(metrics)
    assert metrics != {}
    with pytest.raises(KeyError):
        metrics["PadChest"]


# --- the enums


@pytest.mark.parametrize(
    "value",
    [
        DenseNet121_Weights.CHEX,
        "CHEX",
        "chex",
        "densenet121-res224-chex",
        DenseNet121_Weights.CHEX.value,
    ],
    ids=["member", "member_name", "alias", "name", "record"],
)
def test_enum_parses_every_way_to_name_a_member(value):
    assert DenseNet121_Weights.parse(value) is DenseNet121_Weights.CHEX.value


def test_enum_parses_a_record_of_the_users_own_for_its_architecture():
    own = make()
    assert DenseNet121_Weights.parse(own) is own
    with pytest.raises(UnknownNameError, match="toy-res8-ours"):
        ResNet50_Weights.parse(own)


@pytest.mark.parametrize("value", ["resnet50-res512-all", "", "DEFAULT ", ResNet50_Weights.DEFAULT])
def test_enum_refuses_names_of_others_and_lists_its_own(value):
    with pytest.raises(UnknownNameError, match=r"densenet121 weights .* Known: .*mimic_ch"):
        DenseNet121_Weights.parse(value)


def test_default_is_an_alias_and_not_a_further_member():
    assert DenseNet121_Weights.DEFAULT is DenseNet121_Weights.ALL
    assert DenseNet121_Weights.parse("DEFAULT").name == "densenet121-res224-all"
    assert len(DenseNet121_Weights) == 7
    assert len(ResNet50_Weights) == 1


def test_member_gives_the_fields_of_its_record():
    member = DenseNet121_Weights.ALL
    assert member.file is member.value.file
    assert member.trained == (True,) * 18
    assert (member.name, member.value.name) == ("ALL", "densenet121-res224-all")
    assert str(member) == f"{member}" == str(member.value) == "densenet121-res224-all"
    with pytest.raises(AttributeError, match="no attribute 'sha256'"):
        _ = member.sha256


def test_member_survives_copy_and_pickle_as_itself():
    member = DenseNet121_Weights.RSNA
    assert pickle.loads(pickle.dumps(member)) is member
    assert copy.deepcopy(member) is member


# --- the registry


@pytest.mark.parametrize("alias", ["all", "nih", "pc", "chex", "rsna", "mimic_nb", "mimic_ch"])
def test_names_and_aliases_of_1_5_7_work(alias):
    name = f"densenet121-res224-{alias}"
    assert weights.get(alias) is weights.get(name)
    assert weights.get(alias).name == name


def test_record_and_member_are_taken_as_they_are():
    own = make()
    assert weights.get(own) is own
    assert weights.get(ResNet50_Weights.DEFAULT) is ResNet50_Weights.RES512_ALL.value


@pytest.mark.parametrize("name", ["densenet121-res224-al", "ALL", "", None, 3, ["all"]])
def test_unknown_name_is_a_value_error_that_lists_the_names(name):
    with pytest.raises(UnknownNameError, match=r"Known: .*resnet50-res512-all") as caught:
        weights.get(name)
    assert isinstance(caught.value, ValueError)


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'densenet121-res224-all'"):
        weights.get("densenet121-res224-al")


def test_registered_record_is_listed_once_and_found_by_each_name(registry):
    before = weights.list_weights()
    own = weights.register(make(aliases=("toy", "toy8")))
    assert weights.list_weights() == [*before, own]
    assert [weights.get(name) for name in ("toy-res8-ours", "toy", "toy8")] == [own] * 3


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"name": "all"}, "'all' is taken by 'densenet121-res224-all'"),
        ({"aliases": ("nih",)}, "'nih' is taken by"),
        ({"name": "resnet50-res512-all"}, "taken by 'resnet50-res512-all'"),
        ({"file": DenseNet121_Weights.NIH.value.file}, "is the file of 'densenet121-res224-nih'"),
    ],
)
def test_duplicate_is_refused_and_leaves_nothing(registry, changes, word):
    before = weights.list_weights()
    with pytest.raises(ValueError, match=word):
        weights.register(make(**changes))
    assert weights.list_weights() == before


def test_second_registration_of_the_same_record_is_refused(registry):
    weights.register(make())
    with pytest.raises(ValueError, match="taken"):
        weights.register(make())


def test_enum_with_a_repeated_member_is_refused(registry):
    class Toy_Weights(WeightsEnum):
        ONE = make()
        TWO = make()

    with pytest.raises(ValueError, match=r"\['TWO'\] repeat other members"):
        weights.register(Toy_Weights)


def test_enum_is_registered_whole_or_not_at_all(registry):
    class Toy_Weights(WeightsEnum):
        ONE = make()
        TWO = make(name="all")

    before = weights.list_weights()
    with pytest.raises(ValueError, match="taken"):
        weights.register(Toy_Weights)
    assert weights.list_weights() == before


# --- fetching


def test_weights_are_fetched_by_any_name(registry, monkeypatch, tmp_path):
    content = b"\x80\x02weights"
    digest = hashlib.sha256(content).hexdigest()
    file = RemoteFile(url="https://127.0.0.1:1/toy.pt", filename="toy.pt", sha256=digest)
    own = weights.register(make(file=file, aliases=("toy",)))
    (tmp_path / "toy.pt").write_bytes(content)
    monkeypatch.setenv("XRV_MIRROR", str(tmp_path))
    for value in ("toy", own):
        path = weights.fetch_weights(value, cache=tmp_path / "cache", progress=False)
        assert path == tmp_path / "cache" / "toy.pt"


def test_weights_without_checksum_are_trusted_aloud(registry, monkeypatch, tmp_path):
    weights.register(make())
    (tmp_path / "toy.pt").write_bytes(b"weights")
    with pytest.warns(UnpinnedDownloadWarning, match=r"toy\.pt"):
        weights.fetch_weights("toy-res8-ours", cache=tmp_path)


def test_weights_offline_say_what_to_place_where(monkeypatch, tmp_path):
    monkeypatch.setenv("XRV_OFFLINE", "1")
    with pytest.raises(OfflineError, match=r"releases/download/v1/.*place it at"):
        weights.fetch_weights("nih", cache=tmp_path)


# --- the module


def test_registry_loads_without_torch():
    code = (
        "import sys, torchxrayvision.weights as w; w.list_weights(); len(w.model_urls_view())\n"
        "sys.exit(' '.join({'torch', 'requests', 'pandas', 'numpy'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")


@pytest.mark.parametrize("name", ["read_tensors", "load_tensors"])
def test_readers_are_still_found_under_their_old_names(name):
    with pytest.warns(DeprecationWarning, match=r"is now torchxrayvision\.checkpoints"):
        assert getattr(weights, name) is getattr(checkpoints, name)


def test_modules_of_the_reader_are_still_found_under_their_old_names():
    with pytest.warns(DeprecationWarning, match=r"is now torchxrayvision\.checkpoints\.read"):
        assert weights.checkpoint.read_tensors is checkpoints.read_tensors
    with pytest.warns(DeprecationWarning, match=r"is now torchxrayvision\.checkpoints\.cache"):
        assert weights.store.load_tensors is checkpoints.load_tensors
    with pytest.raises(AttributeError, match="no attribute 'load'"):
        _ = weights.load

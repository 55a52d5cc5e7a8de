"""Learning curves of linear probes, against scikit-learn, and `xrv probe`."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from torchxrayvision import provenance
from torchxrayvision.cli import app
from torchxrayvision.datasets import Phantom_Dataset, SubsetDataset
from torchxrayvision.errors import DatasetError, ImageShapeError
from torchxrayvision.evaluation import mean_auroc
from torchxrayvision.training import ImageCache, learning_curve

NAMES = ["Mass", "Edema"]


def side(seed, patients, images=2, width=6):
    """Features that know one finding well and the other a little, from patients of some images."""
    rng = np.random.default_rng(seed)
    people = np.repeat(np.arange(patients) + 1000 * seed, images)
    labels = (rng.random((patients, 2)) < 0.4).astype(float).repeat(images, axis=0)
    features = rng.normal(size=(len(people), width)) * np.arange(1, width + 1) + 5
    features[:, 0] += 2 * labels[:, 0]
    features[:, 1] += 1.5 * labels[:, 1]
    return features, labels, people


@pytest.fixture(scope="module")
def sides():
    return side(1, 120), side(2, 100)


@pytest.fixture(scope="module")
def curve(sides):
    return learning_curve(*sides, NAMES, shots=[1, 5, 20], seeds=4)


def scaled(train, x):
    return (x - train.mean(axis=0)) / train.std(axis=0)


def test_the_probe_of_all_patients_is_that_of_scikit_learn(sides):
    (x, y, _), (tx, ty, people) = sides
    table = learning_curve(*sides, NAMES, shots=[1], seeds=1, strengths=[0.1])
    table = table[table["per_class"] == "all"].set_index("finding")
    scores = np.stack(
        [
            LogisticRegression(C=0.1, max_iter=5000)
            .fit(scaled(x, x), y[:, j])
            .decision_function(scaled(x, tx))
            for j in range(2)
        ],
        axis=1,
    )
    for j, name in enumerate(NAMES):
        assert table.loc[name, "auroc"] == pytest.approx(roc_auc_score(ty[:, j], scores[:, j]))
    expected = mean_auroc(ty, scores, people)
    assert table.loc["mean", "auroc"] == pytest.approx(expected.value)
    assert table.loc["mean", "low"] == pytest.approx(expected.low, abs=1e-4)


def test_a_draw_of_every_patient_is_that_of_scikit_learn():
    """With one image per patient and as many of each class, there is nothing to draw."""
    rng = np.random.default_rng(3)
    y = np.repeat([1.0, 0.0], 30)[:, None]
    x = rng.normal(size=(60, 4)) + y
    test = (rng.normal(size=(80, 4)) + (np.arange(80) % 2)[:, None], np.arange(80)[:, None] % 2)
    table = learning_curve(
        (x, y, None), (*test, None), ["Mass"], shots=[30], seeds=2, strengths=[0.5]
    )
    expected = LogisticRegression(C=0.5, max_iter=5000).fit(scaled(x, x), y[:, 0])
    area = roc_auc_score(test[1][:, 0], expected.decision_function(scaled(x, test[0])))
    row = table[(table["finding"] == "Mass") & (table["per_class"] == "30")].iloc[0]
    assert row["auroc"] == pytest.approx(area, abs=1e-6)
    assert row["lowest"] == pytest.approx(row["highest"], abs=1e-6)


def test_more_patients_make_better_probes(curve):
    mass = curve[curve["finding"] == "Mass"].set_index("per_class")
    assert mass.loc["1", "auroc"] < mass.loc["5", "auroc"] < mass.loc["all", "auroc"]
    assert mass.loc["all", "auroc"] > 0.85
    assert (mass["low"] < mass["auroc"]).all()
    assert (mass["auroc"] < mass["high"]).all()
    assert (mass["lowest"] <= mass["auroc"]).all()
    assert mass.loc["5", ["with_finding", "without", "seeds"]].tolist() == [5, 5, 4]
    assert mass.loc["all", "with_finding"] + mass.loc["all", "without"] == 120
    means = curve[curve["finding"] == "mean"]
    assert means["findings"].tolist() == [2] * 4


def test_the_interval_counts_patients(sides, curve):
    train, (x, y, _) = sides
    alone = learning_curve(train, (x, y, None), NAMES, shots=[5], seeds=4)
    wide = curve.query("finding == 'Mass' and per_class == 'all'").iloc[0]
    narrow = alone.query("finding == 'Mass' and per_class == 'all'").iloc[0]
    assert wide["auroc"] == narrow["auroc"]
    assert wide["high"] - wide["low"] != narrow["high"] - narrow["low"]


def test_what_has_too_few_patients_is_left_out(sides):
    table = learning_curve(*sides, NAMES, shots=[5, 110], seeds=1)
    assert "110" not in set(table["per_class"])
    assert "mean" not in set(table["finding"])  # no finding has every number


def test_a_patient_on_both_sides_is_refused(sides):
    train, (x, y, people) = sides
    with pytest.raises(DatasetError, match="1 patient is in the training and in the test"):
        learning_curve(train, (x, y, np.where(people == 2000, 1000, people)), NAMES)
    with pytest.raises(ImageShapeError, match="features are"):
        learning_curve(train, (x, y[:, :1], people), NAMES)


# ---- xrv probe ---------------------------------------------------------------------------------


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Embeddings as .parquet and .csv, with an image that could not be read, and labels."""
    folder = tmp_path_factory.mktemp("tables")
    x, y, people = side(4, 90)
    paths = [f"in/{i}.png" for i in range(len(x))]
    known = pd.DataFrame({"path": paths, "patientid": people, "Mass": y[:, 0], "Own": y[:, 1]})
    known["part"] = np.where(people % 3 == 0, "test", "train")
    known.to_csv(folder / "labels.csv", index=False)
    error = ["no image", *[""] * (len(x) - 1)]
    vectors = [None, *x[1:].astype(np.float32)]
    table = pd.DataFrame({"path": paths, "error": error, "Mass": 0.5})
    table.assign(embedding=vectors).to_parquet(folder / "e.parquet")
    wide = pd.DataFrame(
        [[None] * 6 if v is None else v for v in vectors],
        columns=[f"embedding_{i:04d}" for i in range(6)],
    )
    pd.concat([table, wide], axis=1).to_csv(folder / "e.csv", index=False)
    return folder


OPTIONS = ("--shots", "2,5", "--seeds", "2")


def test_the_command_prints_writes_and_draws(tables, tmp_path):
    out = ("--output", tmp_path / "t.csv", "--plot", tmp_path / "t.svg")
    done = run("probe", tables / "e.parquet", tables / "labels.csv", *OPTIONS, *out)
    assert done.exit_code == 0, done.output
    assert "179 images with labels and embeddings" in done.stderr
    table = pd.read_csv(tmp_path / "t.csv")
    assert table["finding"].unique().tolist() == ["Mass", "mean"]
    assert table["per_class"].astype(str).unique().tolist() == ["2", "5", "all"]
    assert "patients of each class" in (tmp_path / "t.svg").read_text("utf-8")
    assert provenance.read(tmp_path / "t.csv")["command"] == "xrv probe"
    again = run("probe", tables / "e.csv", tables / "labels.csv", *OPTIONS, "--json")
    rows = json.loads(again.stdout)
    assert [row["auroc"] for row in rows] == pytest.approx(table["auroc"].tolist(), abs=1e-6)


def test_the_report_is_one_page_with_table_and_figure(tables, tmp_path):
    out = ("--report", tmp_path / "r", "--split", "part", "--finding", "Mass", "--finding", "Own")
    done = run("probe", tables / "e.parquet", tables / "labels.csv", *OPTIONS, *out)
    assert done.exit_code == 0, done.output
    page = (tmp_path / "r" / "index.html").read_text("utf-8")
    assert "By column part of labels.csv." in page
    assert "each number of patients is drawn 2 times" in page
    assert "6 numbers per image" in page
    table = pd.read_csv(tmp_path / "r" / "probes.csv")
    for row in table.to_dict("records"):  # every value of the table is on the page
        assert f"{row['auroc']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" in page
    assert provenance.read(tmp_path / "r" / "probes.csv")["command"] == "xrv probe"
    assert "<svg" in (tmp_path / "r" / "figures" / "learning-curve.svg").read_text("utf-8")
    assert 'src="http' not in page
    assert 'href="http' not in page
    again = run("probe", tables / "e.parquet", tables / "labels.csv", *OPTIONS, *out)
    assert again.exit_code == 2
    assert "is not empty" in again.stderr


def test_findings_of_the_labels_alone_and_a_split_of_their_own(tables):
    more = ("--finding", "Own", "--finding", "Mass", "--split", "part", "--json")
    done = run("probe", tables / "e.parquet", tables / "labels.csv", *OPTIONS, *more)
    assert done.exit_code == 0, done.output
    rows = pd.DataFrame(json.loads(done.stdout))
    assert set(rows["finding"]) == {"Own", "Mass", "mean"}
    assert rows["n"].max() == 60


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--shots", "none"), "--shots are numbers of patients"),
        (("--finding", "Nodule"), "has no column Nodule"),
        (("--split", "Mass"), "holds train or test on every row"),
        (("--hold-out", "1"), "--hold-out is a share"),
        (("--weights", "demo"), "name them too"),
        (("--output", "t.xlsx"), "--output ends in .csv"),
    ],
)
def test_what_cannot_be_done_is_refused(tables, words, reason):
    done = run("probe", tables / "e.parquet", tables / "labels.csv", *words)
    assert done.exit_code == 2
    assert reason in done.stderr


def test_a_table_without_embeddings_is_refused(tables):
    done = run("probe", tables / "labels.csv", tables / "labels.csv")
    assert done.exit_code == 2
    assert "xrv predict --embeddings" in done.stderr


def test_patients_of_two_caches_are_the_same_only_where_they_are(tmp_path):
    def part(seed, rows):
        dataset = SubsetDataset(Phantom_Dataset(n=40, size=32, seed=seed), rows)
        images = ImageCache.build(dataset, 16, folder=tmp_path, workers=1)
        labels = np.arange(len(images))[:, None] % 2
        return np.random.default_rng(seed).normal(size=(len(images), 2)), labels, images.patient_ids

    def curve(one, other):
        return learning_curve(one, other, ["Mass"], shots=[1], seeds=1, strengths=[1.0])

    first = part(0, range(20))
    assert len(curve(first, part(1, range(20))))  # both count their patients from the first row
    people = Phantom_Dataset(n=40, size=32).csv["patientid"]
    wanted = len({*people[:20]} & {*people[19:]})
    assert wanted
    with pytest.raises(DatasetError, match=f"^{wanted} patients? (is|are) in the training and"):
        curve(first, part(0, range(19, 40)))

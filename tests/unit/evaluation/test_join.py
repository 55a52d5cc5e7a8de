import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from fakes import chexpert, nih
from torchxrayvision.cli import app
from torchxrayvision.datasets import CheX_Dataset, NIH_Dataset, export_parquet
from torchxrayvision.errors import DataWarning, EvaluationError
from torchxrayvision.evaluation import auroc_table, join_labels, read_table, subgroup_table

FINDINGS = ["Mass", "Edema"]


@pytest.fixture
def tables(tmp_path):
    """Predictions of 60 films under another folder than their labels, one of them unreadable."""
    rng = np.random.default_rng(0)
    names = [f"{i:03d}.png" for i in range(60)]
    truth = (rng.random((60, 2)) < 0.4).astype(float)
    truth[3, 1] = np.nan
    scores = np.nan_to_num(truth) + rng.normal(size=truth.shape)
    labels = pd.DataFrame(truth, columns=FINDINGS).assign(
        path=[f"images/{name}" for name in names], patientid=np.arange(60) // 2, sex=["F", "M"] * 30
    )
    predictions = pd.DataFrame(scores, columns=FINDINGS).assign(Hernia=0.5)
    predictions.insert(0, "path", [f"/elsewhere/images/{name}" for name in names])
    predictions.insert(1, "error", "")
    predictions.loc[7, "error"] = "the file is empty"
    predictions.loc[7, FINDINGS] = np.nan
    predictions = predictions.sample(frac=1, random_state=0)
    for name, table in (("predictions", predictions), ("labels", labels)):
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    return tmp_path, labels.drop(index=7), pd.DataFrame(scores, columns=FINDINGS).drop(index=7)


def run(folder, *options):
    return CliRunner().invoke(
        app, ["evaluate", f"{folder}/predictions.csv", f"{folder}/labels.csv", *options]
    )


def test_the_command_gives_the_table_of_the_function(tables):
    folder, labels, scores = tables
    result = run(folder, "--by", "sex", "--output", str(folder / "out.csv"))
    assert result.exit_code == 0, result.output
    written = pd.read_csv(folder / "out.csv", keep_default_na=False)
    assert written["subgroup"].tolist() == ["all"] * 3 + ["F"] * 3 + ["M"] * 3
    truth = labels[FINDINGS].to_numpy()
    whole = auroc_table(truth, scores, FINDINGS, labels["patientid"])
    np.testing.assert_allclose(written["auroc"][:3].astype(float), whole["auroc"])
    np.testing.assert_allclose(written["low"][:3].astype(float), whole["low"])
    parts = subgroup_table(truth, scores, FINDINGS, {"sex": labels["sex"]})
    np.testing.assert_allclose(written["auroc"][3:].astype(float), parts["auroc"])
    assert "59 images; left out: 1 that could not be read, 0 without labels" in result.stderr
    assert "patients are those of patientid" in result.stderr


def test_the_command_prints_a_table(tables):
    folder, labels, scores = tables
    result = run(folder)
    whole = auroc_table(labels[FINDINGS], scores, FINDINGS)
    for row in whole.to_dict("records"):
        (line,) = (line for line in result.stdout.splitlines() if line.startswith(row["finding"]))
        assert line.split()[1:4] == [str(row["n"]), str(row["positives"]), f"{row['auroc']:.3f}"]


def test_a_column_that_is_not_there_is_named(tables):
    result = run(tables[0], "--by", "age")
    assert result.exit_code == 2
    assert "has no column 'age'; it has Mass, Edema, path, patientid, sex" in result.stderr


@pytest.mark.parametrize("ending", [".json", ".parquet"])
def test_every_format_of_predict_is_read(tables, ending):
    folder, *_ = tables
    predictions = pd.read_csv(
        folder / "predictions.csv", keep_default_na=False, dtype={"error": str}
    )
    predictions[FINDINGS] = predictions[FINDINGS].apply(pd.to_numeric, errors="coerce")
    other = folder / f"predictions{ending}"
    if ending == ".json":
        other.write_text(predictions.to_json(orient="records"))
    else:
        predictions.to_parquet(other)
    arguments = [str(folder / "labels.csv"), "--patient", "patientid"]
    results = [
        CliRunner().invoke(app, ["evaluate", str(path), *arguments])
        for path in (folder / "predictions.csv", other)
    ]
    assert results[0].exit_code == 0
    assert results[1].stdout == results[0].stdout


def test_the_table_is_a_csv_in_a_folder_that_is_made(tables):
    folder, *_ = tables
    result = run(folder, "--output", f"{folder}/out.json")
    assert result.exit_code == 2
    assert not (folder / "out.json").exists()
    result = run(folder, "--output", f"{folder}/new/out.csv")
    assert result.exit_code == 0, result.output
    assert len(pd.read_csv(folder / "new" / "out.csv")) == 3


def test_a_table_that_cannot_be_read_is_named(tables):
    folder, *_ = tables
    (folder / "empty.csv").touch()
    result = CliRunner().invoke(app, ["evaluate", str(folder / "empty.csv"), "labels.csv"])
    assert result.exit_code == 2
    assert "empty.csv cannot be read as a table" in result.stderr
    result = CliRunner().invoke(app, ["evaluate", "absent.csv", str(folder / "labels.csv")])
    assert result.exit_code == 2
    assert "absent.csv" in result.stderr


def test_only_numbers_are_predictions_and_columns_of_both_are_those_of_the_labels():
    predicted = pd.DataFrame({"path": ["a"], "Mass": [0.5], "sex": ["?"], "patientid": ["p"]})
    known = pd.DataFrame({"path": ["a"], "Mass": [1], "sex": ["F"], "patientid": ["q"]})
    rows, findings = join_labels(predicted, known)
    assert findings == ["Mass"]
    assert rows[["sex", "patientid"]].to_numpy().tolist() == [["F", "q"]]


def test_films_are_matched_by_path_before_name():
    predicted = pd.DataFrame({"path": ["a/1.png", "b/1.png"], "Mass": [0.1, 0.9]})
    known = pd.DataFrame({"path": ["b/1.png", "a/1.png", "c/1.png"], "Mass": [1, 0, 1]})
    rows, _ = join_labels(predicted, known)
    assert rows[["predicted Mass", "Mass"]].to_numpy().tolist() == [[0.1, 0], [0.9, 1]]


def test_names_that_folders_share_are_told_apart_by_the_folders():
    films = ["p1/s1/view1.jpg", "p1/s2/view1.jpg", "p2/s1/view1.jpg"]
    predicted = pd.DataFrame({"path": [f"/data/{f}" for f in films], "Mass": [0.1, 0.2, 0.3]})
    known = pd.DataFrame({"Path": [f"release/train/{f}" for f in films[::-1]], "Mass": [1, 0, 0]})
    rows, _ = join_labels(predicted, known)
    assert rows[["predicted Mass", "Mass"]].to_numpy().tolist() == [[0.1, 0], [0.2, 0], [0.3, 1]]


def joined(ours, theirs):
    """Paths of predictions and of labels that come together."""
    predicted = pd.DataFrame({"path": ours, "Mass": 0.5, "mine": ours})
    return join_labels(predicted, pd.DataFrame({"path": theirs, "Mass": 1.0}))[0]


def test_one_film_named_alike_does_not_hide_the_others():
    names = [f"{i:04d}.png" for i in range(100)]
    rows = joined([names[0], *(f"in/{name}" for name in names[1:])], names)
    assert len(rows) == 100
    assert (rows["mine"].str[-8:] == rows["path"]).all()


def test_films_of_other_folders_are_doubted():
    with pytest.warns(DataWarning, match=r"2 images .* such as siteB/1\.png and siteA/1\.png"):
        assert len(joined(["siteB/1.png", "siteB/2.png"], ["siteA/1.png", "siteA/2.png"])) == 2


def test_films_of_other_folders_are_left_out_where_folders_tell():
    rows = joined(
        ["x/siteA/1.png", "x/siteB/2.png", "3.png"], ["siteA/1.png", "siteA/2.png", "3.png"]
    )
    assert rows["path"].tolist() == ["siteA/1.png", "3.png"]


def test_the_command_says_what_has_no_partner(tables):
    folder, labels, _ = tables
    labels.assign(error="reviewed").iloc[:30].to_csv(folder / "labels.csv", index=False)
    result = run(folder)
    assert result.exit_code == 0, result.output
    assert "30 images; left out: 0 that could not be read, 30 without labels" in result.stderr
    shorter = pd.read_csv(folder / "predictions.csv").iloc[:20]
    shorter.to_csv(folder / "predictions.csv", index=False)
    assert " without predictions" in run(folder).stderr


def test_labels_in_words_are_refused(tables):
    folder, labels, _ = tables
    labels.assign(Mass="yes").to_csv(folder / "labels.csv", index=False)
    with pytest.raises(EvaluationError, match=r"labels: numbers are needed.*'yes'"):
        CliRunner().invoke(
            app,
            ["evaluate", f"{folder}/predictions.csv", f"{folder}/labels.csv"],
            catch_exceptions=False,
        )


@pytest.mark.parametrize(("dataset_class", "fake"), [(NIH_Dataset, nih), (CheX_Dataset, chexpert)])
def test_labels_are_those_of_an_exported_dataset(dataset_class, fake, tmp_path):
    release = fake.build(tmp_path / "release")
    dataset = dataset_class(**release.kwargs, views="*", unique_patients=False)
    finding = dataset.pathologies[0]
    paths = [str(dataset.image_path(i)) for i in range(len(dataset))]
    predicted = pd.DataFrame({"path": paths, finding: 0.5})
    exported = pd.read_parquet(export_parquet(dataset, tmp_path / "labels.parquet"))
    rows, findings = join_labels(predicted, exported)
    assert findings == [finding]
    np.testing.assert_array_equal(rows[finding], dataset.labels[:, 0])


@pytest.mark.parametrize(
    ("predicted", "known", "message"),
    [
        ({"path": ["a/1", "b/1"], "Mass": [0, 1]}, {"path": ["1"], "Mass": [1]}, "name of another"),
        ({"path": ["a"], "Mass": [0]}, {"path": ["b"], "Mass": [1]}, "'a' and 'b' are their first"),
        ({"path": ["a"], "Mass": [0]}, {"path": ["a"], "Edema": [1]}, "no finding is in both"),
        ({"path": ["a"], "Mass": [0]}, {"path": ["a"], "mass": [1]}, "'Mass' there is 'mass' here"),
        ({"path": ["a"], "Mass": [0]}, {"path": [], "Mass": []}, "the labels have no rows"),
        (
            {"path": ["in/002.jpg"], "Mass": [0]},
            {"path": ["002.png", "002.png"], "Mass": [1, 0]},
            "1 image of the labels with the name of another, such as 002",
        ),
        (
            {"path": ["in/002.jpg"], "Mass": [0]},
            {"path": ["2.png"], "Mass": [1]},
            "without zeros in front they match",
        ),
        (
            {"path": ["a", "b"], "Mass": [0, 1]},
            {"path": ["a", "b"], "Mass": [1, -1]},
            r"0, 1 or NaN for unknown \(column 'Mass' has -1 in 1 row\): leave a cell empty",
        ),
        (
            {"path": ["a"], "Mass": [0]},
            {"id": ["a"], "Mass": [1]},
            "labels one of path, Path, file",
        ),
    ],
)
def test_tables_that_do_not_fit_say_why(predicted, known, message):
    with pytest.raises(EvaluationError, match=message):
        join_labels(pd.DataFrame(predicted), pd.DataFrame(known))


@pytest.mark.parametrize(
    "text",
    ["sep=;\npath;Mass\na;1\n", '"sep=|"\r\npath|Mass\r\na|1\r\n', "path, Mass \na, 1\n"],
)
def test_csv_as_spreadsheets_and_people_write_it(tmp_path, text):
    file = tmp_path / "labels.csv"
    file.write_bytes(text.encode())
    table = read_table(file)
    assert [*table] == ["path", "Mass"]
    predicted = pd.DataFrame({"path": ["a"], "Mass": [0.5]})
    assert join_labels(predicted, table)[0]["Mass"].tolist() == [1.0]


def test_two_columns_that_differ_by_a_space_stay_two(tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text("path,Mass, Mass\na,1,0\n")
    assert [*read_table(file)] == ["path", "Mass", " Mass"]


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("labels.csv", "path,sex\na,\xe4\n".encode("cp1252"), "it is not UTF-8"),
        ("labels.csv", "path,Mass\na,1\n".encode("utf-16"), "it is not UTF-8"),
        ("labels.xlsx", b"PK\x03\x04", "it is a workbook"),
    ],
)
def test_tables_of_a_spreadsheet_say_how_to_save_them(tmp_path, name, data, why):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(EvaluationError, match=f"{why}.*save it as CSV UTF-8"):
        read_table(tmp_path / name)

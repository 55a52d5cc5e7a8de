"""Tables as users have them: identifiers with leading zeros, prefixes, other names and endings."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from fakes import nih
from torchxrayvision.cli import app
from torchxrayvision.datasets import NIH_Dataset, export_parquet
from torchxrayvision.errors import DataWarning, EvaluationError
from torchxrayvision.evaluation import (
    join_labels,
    patient_column,
    read_table,
    subgroup_table,
    subgroups_by,
)

# Of three patients and a fourth, told apart by zeros, digits beyond 2^53 and a letter alone.
PATIENTS = ["007", "7", "0007", "7.0", "1e1", "10", "9007199254740993", "9007199254740992"]
FILMS = ["000000", "00", "0", "1e2", "100", "100.0", "NA", "nan"]


def write(table, path, ending):
    file = path.with_suffix(ending)
    if ending == ".csv":
        table.to_csv(file, index=False)
    elif ending == ".json":
        file.write_text(json.dumps(table.to_dict("records")))
    else:
        table.to_parquet(file)
    return file


@pytest.fixture
def study():
    """Predictions and labels of 48 images of 8 patients, whose names look like numbers."""
    rng = np.random.default_rng(0)
    films = [f"{film}{suffix}" for suffix in ("", "x", "y", "z", "v", "w") for film in FILMS]
    mass = rng.integers(0, 2, 48)
    labels = pd.DataFrame({"path": films, "patientid": PATIENTS * 6, "Mass": mass})
    labels["site"] = ["01", "1", "001"] * 16
    predictions = pd.DataFrame({"path": films, "error": "", "Mass": mass + rng.normal(size=48)})
    return predictions, labels


def run(*arguments):
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize("ending", [".csv", ".json", ".parquet"])
def test_identifiers_are_text(study, ending, tmp_path):
    predictions, labels = study
    ours = write(predictions, tmp_path / "predictions", ending)
    theirs = write(labels, tmp_path / "labels", ending)
    known = read_table(theirs)
    assert known["patientid"].astype(str).tolist() == PATIENTS * 6
    rows, findings = join_labels(read_table(ours), known)
    assert findings == ["Mass"]
    assert len(rows) == 48
    assert rows["patientid"].nunique() == 8
    result = run(ours, theirs, "--by", "site", "--output", tmp_path / "out.csv")
    assert "48 images; left out: 0 that could not be read, 0 without labels" in result.stderr
    out = pd.read_csv(tmp_path / "out.csv", dtype=str)
    assert set(out["subgroup"]) == {"all", "01", "1", "001"}


@pytest.mark.parametrize("ending", [".json", ".parquet"])
def test_numbers_of_many_digits_are_not_rounded(ending, tmp_path):
    """One patient is missing, which would make floating-point numbers of all."""
    numbers = [9007199254740993, 9007199254740992, None]
    table = pd.DataFrame({"path": ["a", "b", "c"], "Mass": [0, 1, 1]})
    table["patientid"] = pd.array(numbers, dtype="Int64")
    file = tmp_path / f"labels{ending}"
    if ending == ".json":
        rows = [
            {"path": p, "Mass": m, "patientid": n}
            for p, m, n in zip(table["path"], table["Mass"], numbers, strict=True)
        ]
        file.write_text(json.dumps(rows))
    else:
        table.to_parquet(file)
    read = read_table(file)["patientid"]
    assert read.astype(str).tolist()[:2] == ["9007199254740993", "9007199254740992"]
    assert read.isna().tolist() == [False, False, True]


def test_csv_files_of_spreadsheets_are_read(study, tmp_path):
    predictions, labels = study
    ours, theirs = tmp_path / "predictions.csv", tmp_path / "labels.csv"
    predictions.to_csv(ours, index=False)
    labels.to_csv(theirs, index=False, sep=";", encoding="utf-8-sig")
    assert read_table(theirs).columns.tolist() == labels.columns.tolist()
    assert "48 images" in run(ours, theirs).stderr


@pytest.mark.parametrize("name", ["patientid", "Patient ID", "PatientID", "subject_id"])
def test_patient_columns_of_the_releases_are_known(study, name, tmp_path):
    predictions, labels = study
    assert patient_column(labels.rename(columns={"patientid": name})) == name
    ours = write(predictions, tmp_path / "predictions", ".csv")
    known = write(labels.rename(columns={"patientid": name}), tmp_path / "labels", ".csv")
    result = run(ours, known)
    assert f"patients are those of {name}" in result.stderr
    assert result.stdout == run(ours, write(labels, tmp_path / "same", ".csv")).stdout
    assert result.stdout != run(ours, known, "--patient", "path").stdout


def test_images_count_as_patients_where_none_are_named(study, tmp_path):
    predictions, labels = study
    ours = write(predictions, tmp_path / "predictions", ".csv")
    known = write(labels.drop(columns="patientid"), tmp_path / "labels", ".csv")
    assert "each image counts as a patient" in run(ours, known).stderr
    # A patient without a name is one of its own, not one with all others without.
    labels["patientid"] = ""
    assert run(ours, write(labels, tmp_path / "empty", ".csv")).stdout == run(ours, known).stdout


def test_findings_of_predictions_may_have_a_prefix():
    predicted = pd.DataFrame({"path": ["a", "b"], "pred_Mass": [0.1, 0.9], "pred_Edema": [1, 2]})
    known = pd.DataFrame({"path": ["a", "b"], "Mass": [0, 1], "Edema": [1, 0], "sex": ["F", "M"]})
    rows, findings = join_labels(predicted, known)
    assert findings == ["Mass", "Edema"]
    assert rows["predicted Mass"].tolist() == [0.1, 0.9]
    both = predicted.assign(other_Mass=[1, 2], other_Edema=[1, 2])
    with pytest.raises(EvaluationError, match="begin with pred_ or other_: keep one"):
        join_labels(both, known)
    # One of three columns has another prefix: the prefix that most have counts.
    rows, findings = join_labels(both.drop(columns="other_Edema"), known)
    assert findings == ["Mass", "Edema"]


def test_png_labels_name_jpg_images():
    predicted = pd.DataFrame({"path": ["in/a.jpg", "in/b.jpg", "in/1.2.3.dcm"], "Mass": [1, 2, 3]})
    known = pd.DataFrame({"path": ["b.png", "a.png", "1.2.3.dcm"], "Mass": [0, 1, 1]})
    with pytest.warns(DataWarning, match=r"2 images .* such as a\.jpg and a\.png"):
        rows, _ = join_labels(predicted, known)
    assert rows[["predicted Mass", "Mass"]].to_numpy().tolist() == [[1, 1], [2, 0], [3, 1]]
    # Names without an ending are no guess; numbers after a dot are no ending.
    bare = known.assign(path=["b", "a", "1.2.3"])
    assert len(join_labels(predicted, bare)[0]) == 3
    with pytest.raises(EvaluationError, match="no image is in both tables"):
        join_labels(predicted[2:], bare.assign(path=["b", "a", "1.2.4"]))


def test_two_images_that_differ_by_their_ending_are_two():
    predicted = pd.DataFrame({"path": ["a.jpg", "a.png", "b.jpg"], "Mass": [1, 2, 3]})
    known = pd.DataFrame({"path": ["a.jpg", "a.png", "b.png"], "Mass": [0, 1, 1]})
    rows, _ = join_labels(predicted, known)
    assert rows["predicted Mass"].tolist() == [1, 2]


def test_an_exported_dataset_is_split_by_sex_and_age(tmp_path):
    release = nih.build(tmp_path / "release")
    dataset = NIH_Dataset(**release.kwargs, views="*", unique_patients=False)
    labels = export_parquet(dataset, tmp_path / "labels.parquet")
    finding = dataset.pathologies[0]
    paths = [str(dataset.image_path(i)) for i in range(len(dataset))]
    predicted = pd.DataFrame({"path": paths, finding: np.arange(len(paths)) / 10})
    ours = write(predicted, tmp_path / "predictions", ".csv")
    out = tmp_path / "out.csv"
    run(ours, labels, "--by", "sex", "--by", "age", "--output", out)
    table = pd.read_csv(out)
    csv = dataset.csv
    assert set(table.query("attribute == 'sex'")["subgroup"]) <= {"male", "female", "unknown"}
    males = table.query("subgroup == 'male' and finding == @finding")["n"].item()
    assert males == int(csv["sex_male"].sum())
    bands = table.query("attribute == 'age'").groupby("subgroup")["n"].max()
    assert bands.sum() == len(csv)
    assert set(bands.index) <= {"0-17", "18-39", "40-59", "60-79", "80+", "unknown"}


def test_columns_of_ages_are_split_into_bands():
    table = pd.DataFrame({"Patient Age": ["58", "17", ""], "code": ["1", "01", ""]})
    found = subgroups_by(table, ["Patient Age", "code"])
    assert found["Patient Age"].tolist() == ["40-59", "0-17", "unknown"]
    assert found["code"].tolist() == ["1", "01", "unknown"]
    with pytest.raises(EvaluationError, match="no column 'sex'; it has Patient Age, code"):
        subgroups_by(table, ["sex"])


def test_means_of_subgroups_are_over_the_findings_that_all_share():
    """A finding that one group alone has, and that is easy, would lift that group's mean."""
    rng = np.random.default_rng(1)
    site = np.repeat(["a", "b"], 200)
    labels = (rng.random((400, 3)) < 0.4).astype(float)
    scores = labels * [1.0, 1.0, 5.0] + rng.normal(size=labels.shape)
    labels[site == "b", 2] = 0
    table = subgroup_table(labels, scores, ["Mass", "Edema", "Tube"], {"site": site})
    means = table[table["finding"] == "mean"].set_index("subgroup")
    assert means["findings"].tolist() == [2, 2]
    for name, part in table[table["finding"].isin(["Mass", "Edema"])].groupby("subgroup"):
        assert means.loc[name, "auroc"] == pytest.approx(part["auroc"].mean())
    tube = table[table["finding"] == "Tube"].set_index("subgroup")
    assert tube.loc["a", "auroc"] > 0.95
    assert tube.loc["b", "reason"] == "no row has the finding"


def test_rows_of_an_unknown_group_do_not_decide_what_groups_share():
    labels = np.array([[0, 0], [1, 1]] * 12, float)
    scores = labels + np.arange(24)[:, None] / 100
    site = np.array(["a"] * 11 + ["b"] * 11 + [None] * 2, dtype=object)
    labels[22:, 1] = np.nan
    table = subgroup_table(labels, scores, ["Mass", "Edema"], {"site": site})
    means = table[table["finding"] == "mean"].set_index("subgroup")
    assert means.loc["a", "findings"] == means.loc["b", "findings"] == 2
    assert means.loc["unknown", "reason"] == (
        "1 of the 2 findings that the other subgroups share have no AUROC here"
    )
    labels[:11, 0] = 0
    labels[11:, 1] = 0
    table = subgroup_table(labels, scores, ["Mass", "Edema"], {"site": site})
    reasons = table[table["finding"] == "mean"]["reason"]
    assert set(reasons) == {"no finding has an AUROC in every subgroup"}


@pytest.mark.parametrize(
    ("value", "message"),
    [("x", r"labels: numbers are needed \(column 'Mass' has 'x'\)"), ("-1", "0, 1 or NaN")],
)
def test_labels_that_are_no_labels_are_refused(study, value, message, tmp_path):
    predictions, labels = study
    labels = labels.astype({"Mass": str})
    labels.loc[3, "Mass"] = value
    arguments = [write(t, tmp_path / n, ".csv") for t, n in ((predictions, "p"), (labels, "l"))]
    with pytest.raises(EvaluationError, match=message):
        CliRunner().invoke(app, ["evaluate", *map(str, arguments)], catch_exceptions=False)


def test_words_for_missing_and_true_are_understood():
    predicted = pd.DataFrame({"path": list("abcdef"), "Mass": ["0.5"] * 6})
    known = pd.DataFrame({"path": list("abcdef"), "Mass": ["1", "", "NA", "False", "nan", "1.0"]})
    rows, _ = join_labels(predicted, known)
    np.testing.assert_array_equal(rows["Mass"], [1, np.nan, np.nan, 0, np.nan, 1])


def test_a_prediction_that_is_no_number_is_not_lost():
    predicted = pd.DataFrame({"path": ["a", "b"], "Mass": ["0.5", "high"]})
    known = pd.DataFrame({"path": ["a", "b"], "Mass": [1, 0]})
    with pytest.raises(EvaluationError, match=r"predictions: numbers .* 'Mass' has 'high'"):
        join_labels(predicted, known)

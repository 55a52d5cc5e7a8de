import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from torchxrayvision.cli import app
from torchxrayvision.errors import EvaluationError
from torchxrayvision.evaluation import auroc_table, join_labels, subgroup_table

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
    result = run(folder, "--by", "sex", "--replicates", "200", "--output", str(folder / "out.csv"))
    assert result.exit_code == 0, result.output
    written = pd.read_csv(folder / "out.csv", keep_default_na=False)
    assert written["subgroup"].tolist() == ["all"] * 3 + ["F"] * 3 + ["M"] * 3
    truth = labels[FINDINGS].to_numpy()
    # Rows come in the order of the predictions, so replicates differ; values do not.
    whole = auroc_table(truth, scores, FINDINGS, labels["patientid"], n=200)
    np.testing.assert_allclose(written["auroc"][:3].astype(float), whole["auroc"])
    np.testing.assert_allclose(written["low"][:3].astype(float), whole["low"], atol=0.05)
    parts = subgroup_table(truth, scores, FINDINGS, {"sex": labels["sex"]}, n=200)
    np.testing.assert_allclose(written["auroc"][3:].astype(float), parts["auroc"])
    assert "59 films, 1 that could not be read left out" in result.stderr
    assert "patients are those of patientid" in result.stderr


def test_the_command_prints_a_table(tables):
    folder, labels, scores = tables
    result = run(folder, "--replicates", "100")
    whole = auroc_table(labels[FINDINGS], scores, FINDINGS)
    for row in whole.to_dict("records"):
        (line,) = (line for line in result.stdout.splitlines() if line.startswith(row["finding"]))
        assert line.split()[1:4] == [str(row["n"]), str(row["positives"]), f"{row['auroc']:.3f}"]


def test_a_column_that_is_not_there_is_named(tables):
    result = run(tables[0], "--by", "age")
    assert result.exit_code == 2
    assert "has no column 'age'; it has Mass, Edema, path, patientid, sex" in result.stderr


def test_films_are_matched_by_path_before_name():
    predicted = pd.DataFrame({"path": ["a/1.png", "b/1.png"], "Mass": [0.1, 0.9]})
    known = pd.DataFrame({"path": ["b/1.png", "a/1.png", "c/1.png"], "Mass": [1, 0, 1]})
    rows, _ = join_labels(predicted, known)
    assert rows[["predicted Mass", "Mass"]].to_numpy().tolist() == [[0.1, 0], [0.9, 1]]


@pytest.mark.parametrize(
    ("predicted", "known", "message"),
    [
        ({"path": ["a/1", "b/1"], "Mass": [0, 1]}, {"path": ["1"], "Mass": [1]}, "name of another"),
        ({"path": ["a"], "Mass": [0]}, {"path": ["b"], "Mass": [1]}, "'a' and 'b' are their first"),
        ({"path": ["a"], "Mass": [0]}, {"path": ["a"], "Edema": [1]}, "no finding is in both"),
        ({"path": ["a"], "Mass": [0]}, {"id": ["a"], "Mass": [1]}, "labels one of path, file"),
    ],
)
def test_tables_that_do_not_fit_say_why(predicted, known, message):
    with pytest.raises(EvaluationError, match=message):
        join_labels(pd.DataFrame(predicted), pd.DataFrame(known))

"""Calibrations: what is chosen, what is kept, what is refused, and what promises come to."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from torchxrayvision.calibration import Calibration, conformal_limits, fit, parse_target
from torchxrayvision.cli import app
from torchxrayvision.errors import CalibrationError
from torchxrayvision.evaluation import achieved_interval, expected_calibration_error
from torchxrayvision.files import Provenance
from torchxrayvision.inference import calibrated, predict, preprocessing_of
from torchxrayvision.models import get_model
from torchxrayvision.phantom import png_bytes


def draw(n, seed, slope=1.8, shift=0.9):
    """Labels, wrong logits and patients of one to five images; the right logits are normal."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n), rng.integers(1, 6, n))[:n]
    right = rng.normal(-1.0, 1.5, (n, 1)) + rng.normal(0, 0.7, (n, 1))[patients]
    labels = (rng.random((n, 1)) < 1 / (1 + np.exp(-right))).astype(float)
    return labels, slope * right + shift, patients


@pytest.fixture(scope="module")
def made():
    labels, logits, patients = draw(3000, 0)
    return fit(
        labels, logits, ["Mass"], output="logit", patient_ids=patients,
        target="sensitivity=0.9", coverage=0.9,
    )  # fmt: skip


def test_probabilities_mean_what_they_say_on_other_patients(made):
    labels, logits, _ = draw(20_000, 1)
    before = expected_calibration_error(labels[:, 0], 1 / (1 + np.exp(-logits[:, 0])))
    chances = made.probabilities(["Mass"], logits)
    assert before > 0.08
    assert expected_calibration_error(labels[:, 0], chances[:, 0]) <= 0.02


def test_methods_are_those_of_scikit_learn():
    labels, logits, patients = draw(2000, 2)
    x, y = logits[:, 0], labels[:, 0]
    shown = np.linspace(-6, 6, 50)
    line = LogisticRegression(C=np.inf, max_iter=1000).fit(x[:, None], y)
    steps = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(x, y)
    expected = {
        "platt": line.predict_proba(shown[:, None])[:, 1],
        "isotonic": steps.predict(shown),
        "unchanged": 1 / (1 + np.exp(-shown)),
    }
    for method, chances in expected.items():
        found = fit(labels, logits, ["Mass"], output="logit", patient_ids=patients, method=method)
        ours = found.probabilities(["Mass"], shown[:, None])[:, 0]
        np.testing.assert_allclose(ours, chances, atol=2e-3 if method == "isotonic" else 1e-9)


def test_the_simplest_method_that_does_is_chosen():
    for slope, shift, method in ((1, 0, "unchanged"), (2, 0, "temperature"), (1, 2, "platt")):
        labels, logits, patients = draw(3000, 3, slope, shift)
        found = fit(labels, logits, ["Mass"], output="logit", patient_ids=patients)
        assert found.findings["Mass"].method == method, (slope, shift)
    labels, logits, patients = draw(6000, 4, 1, 0)
    bent = np.where(logits > 0, logits * 0.2, logits * 3)
    found = fit(labels, bent, ["Mass"], output="logit", patient_ids=patients)
    judged = found.findings["Mass"].judged
    assert found.findings["Mass"].method == "isotonic", judged
    assert judged["isotonic"]["log_loss"] < judged["platt"]["log_loss"]


def test_folds_keep_patients_together():
    """A patient's images are all alike here: with patients in two folds isotonic would win."""
    rng = np.random.default_rng(5)
    patients = np.repeat(np.arange(60), 20)
    labels = (np.arange(60) % 2)[patients].astype(float)[:, None]
    logits = rng.normal(size=60)[patients][:, None]  # says nothing of the label
    found = fit(labels, logits, ["Mass"], output="logit", patient_ids=patients)
    together = found.findings["Mass"].judged["isotonic"]["log_loss"]
    apart = fit(labels, logits, ["Mass"], output="logit").findings["Mass"].judged
    assert apart["isotonic"]["log_loss"] < 0.85 * together


def test_thresholds_reach_their_target_elsewhere():
    inside = {"sensitivity": 0, "specificity": 0}
    for seed in range(60):
        for target, count in inside.items():
            labels, logits, patients = draw(600, 100 + seed)
            found = fit(
                labels, logits, ["Mass"], output="logit", patient_ids=patients,
                method="platt", target=f"{target}=0.85",
            )  # fmt: skip
            chosen = found.findings["Mass"].threshold
            truth, given, others = draw(600, 10_000 + seed)
            held = achieved_interval(
                truth[:, 0], given[:, 0], chosen["at"], target, chosen["chosen_on"], others
            )
            inside[target] = count + (0.85 in held)
    # benchmarks/coverage_of_calibration.py has 500 studies; here four standard errors are 6.8.
    assert all(50 <= count <= 60 for count in inside.values()), inside


def test_other_targets_are_judged_on_patients_that_the_choice_did_not_see():
    labels, logits, patients = draw(3000, 6)
    ppv = fit(labels, logits, ["Mass"], output="logit", patient_ids=patients, target="ppv=0.7")
    chosen = ppv.findings["Mass"].threshold
    assert chosen["ppv"]["low"] < 0.7 < chosen["ppv"]["high"]
    many, given, _ = draw(40_000, 7)
    assert many[given >= chosen["at"]].mean() == pytest.approx(0.7, abs=0.04)
    found = fit(
        labels, logits, ["Mass"], output="logit", patient_ids=patients, target="net-benefit=0.2"
    )
    finding = found.findings["Mass"]
    assert finding.threshold["on"] == "calibrated"
    assert finding.threshold["net_benefit"]["low"] > 0
    called = finding.call(np.array([-9.0, 9.0]), "logit")
    assert called.tolist() == [False, True]
    hopeless = fit(
        labels, np.zeros_like(logits) + labels * 0, ["Mass"], output="logit", target="ppv=0.99"
    )
    assert hopeless.findings["Mass"].threshold["at"] is None
    assert hopeless.columns(["Mass"]) == {"calibrated Mass": "float32"}


def test_sets_hold_the_truth_as_often_as_promised():
    held = {0: [], 1: []}
    for seed in range(40):
        labels, logits, patients = draw(800, 200 + seed)
        found = fit(
            labels, logits, ["Mass"], output="logit", patient_ids=patients, method="platt",
            coverage=0.8,
        )  # fmt: skip
        truth, given, _ = draw(4000, 20_000 + seed)
        sets = found.findings["Mass"].sets(given[:, 0])
        for side, wrong in ((1, "absent"), (0, "present")):
            held[side].append((sets[truth[:, 0] == side] != wrong).mean())
    for shares in held.values():
        assert abs(np.mean(shares) - 0.8) < 0.02


def test_sets_of_few_patients_leave_nothing_out():
    limits = conformal_limits(
        np.array([1.0] * 5 + [0.0] * 100), np.arange(105.0), np.arange(105), coverage=0.9
    )
    assert limits["present_from"] is None
    assert "too few patients with the finding present" in limits["reason"]


def test_a_record_is_read_back_as_it_was_written(made, tmp_path):
    made.save(tmp_path / "made.json")
    again = Calibration.load(tmp_path / "made.json")
    assert again.to_dict() == made.to_dict()
    assert again.sha256 == made.sha256
    cells = again.row({"Mass": -3.0, "Edema": 0.0})
    assert set(cells) == set(again.columns(["Mass", "Edema"])) == {
        "calibrated Mass", "call Mass", "set Mass"
    }  # fmt: skip
    assert cells["call Mass"] == "negative"
    assert np.isnan(again.probabilities(["Edema"], np.zeros((2, 1)))).all()


@pytest.mark.parametrize(
    "damage",
    [
        lambda r: "no JSON",
        lambda r: json.dumps([1, 2]),
        lambda r: json.dumps(r | {"format": "other 1"}),
        lambda r: json.dumps(r | {"output": "percent"}),
        lambda r: json.dumps(r | {"findings": {"Mass": {}}}),
        lambda r: json.dumps(r).replace('"scale": ', '"scale": "x" , "y": '),
        lambda r: json.dumps(r).replace('"platt"', '"isotonic"'),
    ],
)
def test_another_file_is_refused(made, damage, tmp_path):
    file = tmp_path / "made.json"
    file.write_text(damage(made.to_dict()))
    with pytest.raises(CalibrationError, match="is no calibration: it"):
        Calibration.load(file)


def test_what_cannot_be_chosen_is_said():
    labels, logits, patients = draw(400, 8)
    both = np.hstack([labels, np.zeros_like(labels)])
    scores = np.hstack([logits, logits])
    found = fit(both, scores, ["Mass", "Hernia"], output="logit", patient_ids=patients)
    assert found.skipped["Hernia"].startswith("0 patients with the finding")
    with pytest.raises(CalibrationError, match=r"no finding can be calibrated \(Hernia"):
        fit(both[:, 1:], scores[:, 1:], ["Hernia"], output="logit")
    with pytest.raises(CalibrationError, match="a target is one of"):
        parse_target("sensitivity=90")
    with pytest.raises(CalibrationError, match="output is probability, logit"):
        fit(labels, logits, ["Mass"], output="percent")
    found = fit(labels, logits, ["Mass"], output="logit")
    with pytest.raises(CalibrationError, match="does not say of which weights"):
        found.check("0" * 64, {})


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """30 simulated radiographs, their labels, and the predictions of the demonstration network."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "phantom/images").mkdir(parents=True)
    rng = np.random.default_rng(1)
    for i in range(30):
        noise = rng.normal(size=(6, 6)).repeat(30, axis=0).repeat(30, axis=1)
        image = (300 * noise)[None].clip(-1024, 1024).astype(np.float32)
        (folder / f"phantom/images/{i}.png").write_bytes(png_bytes(image))
    run("predict", folder / "phantom/images", "--weights", "demo", "--output-kind", "logit",
        "--output", folder / "predictions.csv", "--engine", "torch")  # fmt: skip
    predictions = pd.read_csv(folder / "predictions.csv")
    rng = np.random.default_rng(0)
    labels = pd.DataFrame({"path": predictions["path"]})
    noise = rng.logistic(size=30)
    labels["Mass"] = (predictions["Mass"] - predictions["Mass"].median() > noise).astype(int)
    labels["Edema"] = 0
    labels.to_csv(folder / "labels.csv", index=False)
    return folder


def run(*arguments, code=0):
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


@pytest.mark.filterwarnings("ignore::torchxrayvision.errors.DemonstrationWarning")
def test_predict_applies_it_and_refuses_what_it_is_not_for(site, tmp_path):
    file = tmp_path / "made.json"
    tables = (site / "predictions.csv", site / "labels.csv")
    said = run("calibrate", *tables, "--to", file, "--reach", "sensitivity=0.8", "--sets", "0.7")
    assert "Edema is not calibrated" in said.stderr
    assert run("calibrate", *tables, "--to", file, code=2)  # exists
    images, out = site / "phantom/images", tmp_path / "out.csv"
    options = ("--weights", "demo", "--engine", "torch", "--calibration", file)
    run("predict", images, *options, "--output", out)
    table = pd.read_csv(out)
    assert [c for c in table if "Mass" in c] == ["calibrated Mass", "call Mass", "set Mass"]
    assert "Edema" not in table
    made = Calibration.load(file)
    raw = pd.read_csv(tables[0])
    chances = made.probabilities(["Mass"], raw[["Mass"]])[:, 0]
    np.testing.assert_allclose(table["calibrated Mass"], chances, atol=1e-5)
    calls = np.where(
        raw["Mass"] >= made.thresholds(calibrated=False)["Mass"], "positive", "negative"
    )
    assert table["call Mass"].tolist() == calls.tolist()
    beside = json.loads((tmp_path / "out.csv.provenance.json").read_text())
    assert beside["output"] == "probability"
    assert beside["calibration"]["sha256"] == made.sha256
    shown = run("evaluate", out, tables[1], "--calibration", file)
    assert "Brier" in shown.stdout
    # Python gives the same, also from the record.
    net = get_model("demo")
    again = predict(images, net, engine="torch", calibration=made)
    np.testing.assert_allclose(again["calibrated Mass"], table["calibrated Mass"], atol=1e-6)
    assert again["set Mass"].tolist() == table["set Mass"].tolist()
    # Other weights, other images, another kind, a table that is calibrated already.
    with pytest.raises(CalibrationError, match=r"is for resnet\S* with hash .*, these have"):
        calibrated(made, altered(net), None)
    with pytest.raises(CalibrationError, match="gives probabilities; logit cannot be"):
        calibrated(other_kind(made), net, "logit")
    wrong = made.to_dict() | {"preprocessing": preprocessing_of(net) | {"resolution": 999}}
    with pytest.raises(CalibrationError, match="resolution 999, now"):
        predict(images, net, calibration=Calibration.from_dict(wrong))
    assert "is calibrated already" in run("calibrate", out, tables[1], "--to", tmp_path / "b.json",
                                          code=2).stderr  # fmt: skip


def altered(net):
    import copy

    other = copy.deepcopy(net)
    next(iter(other.parameters())).data += 0.1
    return other


def other_kind(made):
    return Calibration.from_dict(made.to_dict() | {"output": "operating-point"})


def test_half_of_the_patients_can_be_held_out(tmp_path):
    labels, logits, patients = draw(900, 9)
    paths = [f"{i}.png" for i in range(900)]
    table = tmp_path / "predictions.csv"
    pd.DataFrame({"path": paths, "Mass": logits[:, 0]}).to_csv(table, index=False)
    Provenance(command="xrv predict", output="logit").write_beside(table, table)
    known = pd.DataFrame({"path": paths, "patientid": patients, "Mass": labels[:, 0]})
    known.to_csv(tmp_path / "labels.csv", index=False)
    both = (table, tmp_path / "labels.csv")
    file = tmp_path / "made.json"
    said = run("calibrate", *both, "--to", file, "--hold-out", "0.4", "--reach", "specificity=0.9")
    assert "0.4 of the patients are held out" in said.stderr
    assert "xrv predict will refuse" in said.stderr
    used = Calibration.load(file).data["images"]
    judged = run("evaluate", *both, "--calibration", file, "--held-out", "--json")
    row = json.loads(judged.stdout)[0]
    assert row["n"] == 900 - used
    assert 0.3 < row["n"] / 900 < 0.5
    assert row["specificity_low"] < 0.9 < row["specificity_high"]
    assert (
        "no patient was left out"
        in run("evaluate", *both, "--held-out", "--calibration", without(file), code=2).stderr
    )


def without(file):
    record = json.loads(file.read_text())
    del record["data"]["hold_out"]
    other = file.with_name("other.json")
    other.write_text(json.dumps(record))
    return other


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"images": 3, "patients": 1}, "3 images of 1 patient"),
        ({"images": 1, "patients": 1}, "1 image of 1 patient"),
        ({"images": 1200, "patients": 900}, "1,200 images of 900 patients"),
        ({"images": 1}, "1 image of other patients"),
        ({}, "other images of other patients"),
    ],
)
def test_what_a_calibration_was_made_on_is_said_in_words(data, said):
    assert Calibration(output="logit", findings={}, data=data).made_on == said

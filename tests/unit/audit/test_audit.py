"""`xrv audit`: planted faults are found and told, and a clean collection has no blocker."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from support.image_files import dicom, ramp
from torchxrayvision import provenance, tables
from torchxrayvision.audit import Issue, audit
from torchxrayvision.audit.checks import (
    leaking_patients,
    table_issues,
    united_patients,
)
from torchxrayvision.audit.duplicates import Pair
from torchxrayvision.audit.public import public_issues, published_overlap
from torchxrayvision.audit.statistics import confounding, drift, folds_of, suspicious_labels
from torchxrayvision.cli import app
from torchxrayvision.phantom import png_bytes, simulate, write_release

COUNT = 16


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for i in range(COUNT):
        image = simulate(i, seed=9, size=128, views=["PA", "AP"]).image
        (folder / f"{i:02d}.png").write_bytes(png_bytes(image))
    return folder


def table_of(names, **columns):
    rows = {"path": names, "patientid": [f"p{i}" for i in range(len(names))]}
    rows["Effusion"] = [i % 2 for i in range(len(names))]
    return pd.DataFrame(rows | columns)


def kinds(done, severity):
    return {found.kind for found in done.issues if found.severity == severity}


@pytest.fixture
def planted(films, tmp_path):
    """A copy, a mirror image under another patient in the other part, a patient in two parts."""
    folder = tmp_path / "planted"
    shutil.copytree(films, folder)
    shutil.copy(folder / "03.png", folder / "copy.png")
    with Image.open(folder / "05.png") as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "turned.png")
    (folder / "torn.png").write_bytes((folder / "01.png").read_bytes()[:300])
    names = sorted(path.name for path in folder.iterdir())
    table = table_of(names, split=["train" if i % 2 else "test" for i in range(len(names))])
    at = {name: row for row, name in enumerate(names)}
    table.loc[at["copy.png"], ["patientid", "split", "Effusion"]] = ["p3", "test", 0]
    table.loc[at["03.png"], ["split", "Effusion"]] = ["test", 1]
    table.loc[at["05.png"], "split"] = "train"
    table.loc[at["turned.png"], ["patientid", "split"]] = ["alias", "test"]
    table.loc[at["turned.png"], "Effusion"] = table.loc[at["05.png"], "Effusion"]
    table.loc[at["08.png"], ["patientid", "split"]] = ["p9", "test"]
    table.loc[at["09.png"], "split"] = "train"
    table["No Finding"] = 1 - table["Effusion"]
    table.loc[at["10.png"], ["Effusion", "No Finding"]] = [1, 1]
    table["age"] = 50
    table.loc[at["11.png"], "age"] = 413
    table.to_csv(tmp_path / "labels.csv", index=False)
    return folder, tmp_path / "labels.csv"


def test_planted_faults_are_found_and_told(planted, tmp_path):
    folder, labels = planted
    out = tmp_path / "report"
    done = run(
        "audit", folder, "--labels", labels, "--weights", "none", "--workers", 1, "--out-dir", out,
        "--json",
    )  # fmt: skip
    assert done.exit_code == 1, done.output
    found = json.loads(done.stdout)
    told = {(i["severity"], i["kind"]): i["count"] for i in found["issues"]}
    assert told[("blocker", "exposure in two splits")] == 1
    assert told[("blocker", "patient in two splits")] == 1
    assert told[("blocker", "patient in two splits under two ids")] == 1
    assert told[("warning", "one exposure, two patients")] == 1
    assert told[("warning", "duplicate")] == 2
    assert told[("warning", "duplicates that disagree")] == 1
    assert told[("warning", "contradiction")] == 1
    assert told[("warning", "impossible age")] == 1
    assert found["unreadable"] == 1
    pairs = pd.read_csv(out / "duplicates.csv")
    assert pairs["how"].tolist() == ["same bytes", "mirrored"]
    assert pairs["first"].str[-6:].tolist() == ["03.png", "05.png"]
    issues = pd.read_csv(out / "issues.csv")
    row = issues[issues["kind"] == "patient in two splits"].iloc[0]
    assert row["rows"] == "p9"
    for name in ("audit.html", "issues.csv", "files.csv", "confounding.csv", "suspicious.csv"):
        assert provenance.read(out / name)["command"] == "xrv audit", name
    assert not (out / "drift.csv").exists()
    again = run("audit", folder, "--out-dir", out)
    assert again.exit_code == 2
    assert "--overwrite" in again.output


class Loads(HTMLParser):
    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attrs):
        self.addresses += [v for k, v in attrs if k in ("src", "href") and v]


def test_the_page_needs_nothing_beside_it_and_escapes_names(films, tmp_path):
    folder = tmp_path / "<b>in"
    folder.mkdir()
    for name in ("<script>1.png", "<script>2.png"):
        shutil.copy(films / "00.png", folder / name)
    done = run("audit", folder, "--weights", "none", "--workers", 1, "--out-dir", tmp_path / "o")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "o" / "audit.html").read_text("utf-8")
    page = Loads()
    page.feed(text)
    assert all(address.startswith("data:image/png") for address in page.addresses)
    assert len(page.addresses) == 2
    assert "<script>" not in text
    assert "&lt;script&gt;1.png" in text


def test_a_clean_collection_has_no_blocker_and_no_duplicate(films):
    names = sorted(path.name for path in films.iterdir())
    split = ["train", "train", "test", "test"] * 4
    done = audit(films, table_of(names, split=split))
    assert done.blockers == []
    assert len(done.duplicates) == 0


def test_what_is_in_the_reference_too_is_a_blocker(films, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    with Image.open(films / "04.png") as image:
        image.rotate(3, Image.Resampling.BILINEAR).save(other / "x.png")
    shutil.copy(films / "00.png", other / "y.png")
    done = audit(films, against=other)
    (found,) = done.blockers
    assert found.kind == "overlap with the reference"
    assert [name[-6:] for name in found.rows] == ["00.png", "04.png"]
    assert set(done.drift["measure"]) >= {"mean", "contrast"}


def test_a_dataset_is_a_reference_by_name(films, tmp_path):
    """Its images are read, its labels compared, and the one that both have is told."""
    release = tmp_path / "release"
    given = write_release(release, 4, seed=11, layout="nih", size=128)
    mine = tmp_path / "mine"
    shutil.copytree(films, mine)
    (image, *_) = sorted((release / "images").glob("*.png"))
    shutil.copy(image, mine / "renamed.png")
    words = " ".join(f"{name}={value}" for name, value in given.items())
    done = run(
        "audit", mine, "--against", f"nih {words}", "--weights", "none", "--workers", 1, "--json"
    )
    assert done.exit_code == 1, done.output
    told = {(i["severity"], i["kind"]): i["count"] for i in json.loads(done.stdout)["issues"]}
    assert told[("blocker", "overlap with the reference")] == 1


def test_what_is_no_reference_is_refused(films):
    done = run("audit", films, "--against", "nowhere", "--weights", "none")
    assert done.exit_code == 2
    assert "nor a dataset" in " ".join(done.output.split())


def test_published_cross_references_tell_images_and_patients_of_a_reference():
    rsna = "00436515-870c-4b36-a041-de91049b9ab4"  # of patient 20673's film at NIH
    (match,) = tables.load("rsna_nih").query("patientId == @rsna")["nih_image"]
    found = {
        i.kind: i
        for i in published_overlap(
            [f"x/{rsna}.dcm", "00000003_001.png", "scan1.png"],
            [match, "00000003_000.png", "scan1.png"],
            "NIH_Dataset",
        )
    }
    assert found["published image of the reference"].rows == (f"x/{rsna}.dcm",)
    assert found["patient of the reference"].rows == ("00000003_001.png",)
    assert {i.severity for i in found.values()} == {"blocker"}


def test_patients_of_dicom_files_are_known_and_not_written(tmp_path):
    pixels = ramp(64, 64, 4095).astype(np.uint16)
    for name in ("a", "b"):
        (tmp_path / f"{name}.dcm").write_bytes(
            dicom(pixels, stored=12, PatientID="SECRET-7", PatientSex="F")
        )
    done = audit(tmp_path)
    people = done.images["patient"].tolist()
    assert people[0] == people[1] != ""
    assert "SECRET" not in done.images.to_csv()
    assert done.images["sex"].tolist() == ["F", "F"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split", "part"], "give --labels TABLE too"),
        (["--labels", "absent.csv"], "is no file"),
    ],
)
def test_what_cannot_be_done_is_refused_before_torch_is_loaded(options, message, films):
    done = run("audit", films, *options)
    assert done.exit_code == 2
    assert message in done.output


def test_a_column_that_is_not_there_is_named(films, tmp_path):
    table_of(sorted(p.name for p in films.iterdir())).to_csv(tmp_path / "l.csv", index=False)
    done = run(
        "audit", films, "--labels", tmp_path / "l.csv", "--split", "part", "--weights", "none"
    )
    assert done.exit_code == 2
    assert "no column 'part'; it has path, patientid, Effusion" in done.output


# ---- the checks alone ---------------------------------------------------------------------------


def test_patients_that_share_a_film_are_one():
    people = np.array(["1", "2", "3", ""], dtype=object)
    united = united_patients(people, [Pair(0, 1, 1.0, ""), Pair(2, 3, 1.0, "")])
    assert united.tolist() == ["1 = 2", "1 = 2", "3", ""]
    split = np.array(["train", "test", "test", "train"], dtype=object)
    assert leaking_patients(people, split) == set()
    assert leaking_patients(united, split) == {"1 = 2"}


def test_public_images_are_known_by_name():
    rsna = "00436515-870c-4b36-a041-de91049b9ab4"  # of patient 20673's film at NIH
    paths = [f"x/{rsna}.dcm", "00000003_000.png", "00000001_000.jpg", "mine.png"]
    found = {i.kind: i for i in public_issues(paths)}
    tested = found["patients of NIH's test list"].rows
    assert tested == ("00000003_000.png", f"x/{rsna}.dcm")
    texts = [i.text for i in public_issues(paths) if i.kind == "public images"]
    assert [text.split(" of ")[0] for text in texts] == [
        "2 images have names",
        "1 image has a name",
    ]


def test_numbers_that_differ_in_zeros_are_a_warning():
    from torchxrayvision.audit.checks import leak_issues

    people = np.array(["007", "7", "8"], dtype=object)
    split = np.array(["train", "test", "test"], dtype=object)
    (found,) = leak_issues(people, split, [])
    assert (found.severity, found.rows) == ("warning", ("007 ~ 7",))


def test_labels_out_of_range_are_told():
    table = pd.DataFrame({"path": ["a", "b"]})
    values = pd.DataFrame({"Mass": [2.0, -1.0], "Edema": [1.0, 1.0]})
    found = {i.kind: i for i in table_issues(table, values, table["path"], ["c"])}
    assert found["label out of range"].rows == ("a",)
    assert found["uncertain labels"].count == 1
    assert found["row without image"].rows == ("c",)
    assert found["label without contrast"].text.startswith("Edema is present in all 2")


def test_rows_that_repeat_an_image_are_told_and_not_taken_for_absent_ones(films, tmp_path):
    shutil.copy(films / "00.png", tmp_path)
    shutil.copy(films / "01.png", tmp_path)
    done = audit(tmp_path, table_of(["00.png", "01.png", "00.png", "gone.png"]))
    found = {i.kind: i for i in done.issues}
    assert found["image in several rows"].rows == ("00.png",)
    assert found["image in several rows"].text == (
        "1 row repeats an image of the table; the first row of an image counts."
    )
    assert found["row without image"].rows == ("gone.png",)


def test_a_site_that_predicts_a_label_is_flagged_and_one_that_does_not_is_not():
    rng = np.random.default_rng(0)
    site = rng.choice(["A", "B"], 600).astype(object)
    labels = pd.DataFrame(
        {"Mass": (rng.random(600) < np.where(site == "A", 0.8, 0.2)).astype(float),
         "Edema": (rng.random(600) < 0.4).astype(float)}
    )  # fmt: skip
    people = np.array([str(i // 2) for i in range(600)], dtype=object)
    table = confounding({"site": site, "letters": rng.normal(size=600)}, labels, people)
    flagged = table[table["flagged"]][["attribute", "label"]].to_numpy().tolist()
    assert flagged == [["site", "Mass"]]
    row = table[table["flagged"]].iloc[0]
    assert row["low"] < 0.8 < row["high"]


def test_an_attribute_that_says_nothing_does_not_point_the_wrong_way():
    rng = np.random.default_rng(3)
    view = rng.choice(["PA", "AP"], 80).astype(object)
    labels = pd.DataFrame({f"f{i}": (rng.random(80) < 0.15).astype(float) for i in range(20)})
    table = confounding({"view": view}, labels, np.array([""] * 80, dtype=object))
    assert not table["flagged"].any()
    assert abs(table["auroc"].mean() - 0.5) < 0.06


def test_folds_keep_patients_together():
    people = np.array([str(i // 3) for i in range(90)] + [""] * 10, dtype=object)
    folds = folds_of(people)
    assert all(len(set(folds[people == person])) == 1 for person in set(people) - {""})
    assert set(folds) == set(range(5))


def test_flipped_labels_are_the_most_suspicious():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(400, 8)).astype(np.float32)
    truth = (features[:, 0] > 0).astype(float)
    flipped = np.flatnonzero(np.abs(features[:, 0]) > 1.5)[:5]
    truth[flipped] = 1 - truth[flipped]
    people = np.array([""] * 400, dtype=object)
    found = suspicious_labels(features, pd.DataFrame({"Mass": truth}), people)
    assert set(flipped) <= set(found["row"])
    assert found["label"].unique().tolist() == ["Mass"]


def test_drift_is_flagged_in_its_subgroup_alone():
    rng = np.random.default_rng(2)
    sex = [rng.choice(["F", "M"], 300).astype(object) for _ in range(2)]
    grey = [
        rng.normal(size=300) + np.where(s == "F", shift, 0)
        for s, shift in zip(sex, (2, 0), strict=True)
    ]
    same = [rng.normal(size=300) for _ in range(2)]
    people = [np.array([""] * 300, dtype=object)] * 2
    table = drift(
        {"mean": grey[0], "bars": same[0]}, {"mean": grey[1], "bars": same[1]}, people,
        [{"sex": sex[0]}, {"sex": sex[1]}],
    )  # fmt: skip
    flagged = set(
        table[table["flagged"]][["subgroup", "measure"]].itertuples(index=False, name=None)
    )
    assert flagged == {("sex: F", "mean"), ("all", "mean")}
    assert table["level"].iloc[0] == pytest.approx(1 - 0.05 / 6)


def test_an_issue_keeps_a_bounded_number_of_rows():
    from torchxrayvision.audit.checks import issue

    found = issue("note", "x", [str(i) for i in range(1000)], "1,000 rows.")
    assert isinstance(found, Issue)
    assert (found.count, len(found.rows), found.text) == (1000, 200, "1,000 rows.")

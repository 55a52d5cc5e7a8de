"""The report of a study: one page without requests, tables, figures, card and checklist."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from torchxrayvision.cli import app
from torchxrayvision.files import Provenance
from torchxrayvision.phantom import png_bytes
from torchxrayvision.provenance import read


class Page(HTMLParser):
    """Elements that open and close, identifiers, links and addresses."""

    VOID = frozenset({"meta", "img", "br", "link", "hr"})

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.sources, self.crossed = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        known = dict(attributes)
        if tag not in self.VOID:
            self.open.append(tag)
        self.ids += [known["id"]] if "id" in known else []
        self.links += [known["href"]] if "href" in known else []
        self.sources += [known["src"]] if "src" in known else []

    def handle_endtag(self, tag):
        if tag in self.VOID:
            return
        if self.open and self.open[-1] == tag:
            self.open.pop()
        else:
            self.crossed.append(tag)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """240 images of 120 patients, two models, one finding that nobody has."""
    folder = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(0)
    names = [f"{i:03d}.png" for i in range(240)]
    mass = (rng.random(240) < 0.4).astype(int)
    labels = pd.DataFrame({"path": names, "patientid": np.arange(240) // 2, "Mass": mass})
    labels["Hernia"] = 0
    labels["sex"] = np.where(np.arange(240) // 2 % 3, "F", "M")
    labels.to_csv(folder / "labels.csv", index=False)
    for name, gap in (("first", 2.0), ("second", 1.0)):
        chances = 1 / (1 + np.exp(-(gap * mass - gap / 2 + rng.normal(size=240))))
        table = pd.DataFrame({"path": names, "error": "", "Mass": chances, "Hernia": 0.1})
        table.loc[4, ["error", "Mass", "Hernia"]] = ["<b>empty & broken</b>", np.nan, np.nan]
        file = folder / f"{name}.csv"
        table.to_csv(file, index=False)
        Provenance(command="xrv predict", weights="all", output="probability").write_beside(
            file, file
        )
    images = folder / "images"
    images.mkdir()
    for name in names[::2]:
        (images / name).write_bytes(png_bytes(np.zeros((1, 40, 40), np.float32)))
    return folder


def run(*arguments, code=0):
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def report(study):
    run(
        "evaluate", study / "first.csv", study / "labels.csv", "--compare", study / "second.csv",
        "--by", "sex", "--operating-point", "0.5", "--prevalence", "Mass=0.05",
        "--report", study / "report", "--images", study / "images", "--title", "A <study> & more",
        "--output", study / "table.csv",
    )  # fmt: skip
    return study / "report"


def test_the_page_is_whole_and_asks_for_nothing(report):
    text = (report / "index.html").read_text("utf-8")
    page = Page(text)
    assert page.open == page.crossed == []
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert all(source.startswith("data:image/") for source in page.sources)
    assert not re.search(r"url\((?!#)|@import|<script|<link", text)
    assert "A &lt;study&gt; &amp; more" in text
    assert "<b>empty" not in text
    assert text.count("<svg") >= 7
    assert read(report / "index.html")["command"] == "xrv evaluate"


def test_methods_say_what_was_done(report):
    text = (report / "index.html").read_text("utf-8")
    for words in (
        "239 images of 120 patients", "Patients are those of patientid", "Holm", "score interval",
        "The threshold 0.5 was given", "Bayes", "ten bins of equal width", "both need 20 patients",
        "not measured", "false alarm", "the image is not among those given",
        "the unit of sampling the patient", "Tango", "Mee", "NumPy", "No label is missing",
        "A patient has 2 images in the median", "nothing is resampled",
        "compared with second (all)",
    ):  # fmt: skip
        assert words.lower() in text.lower(), words


def test_tables_hold_the_numbers_of_the_page(report, study):
    names = {path.stem for path in report.glob("*.csv")}
    assert names == {
        "performance", "subgroups", "differences", "gaps", "flow", "confusion", "roc",
        "precision-recall", "reliability", "decision-curve", "errors", "tripod-ai",
    }  # fmt: skip
    table = pd.read_csv(report / "performance.csv").set_index(["finding", "measure"])
    area = table.loc[("Mass", "auroc")]
    text = (report / "index.html").read_text("utf-8")
    assert f"{area['value']:.3f} [{area['low']:.3f}, {area['high']:.3f}]" in text
    assert ("Mass", "ppv_at_prevalence") in table.index
    flow = pd.read_csv(report / "flow.csv").set_index("images")["count"]
    assert flow["predicted"] == 240
    assert flow["could not be read"] == 1
    assert flow["evaluated"] == 239
    confusion = pd.read_csv(report / "confusion.csv").iloc[0]
    assert confusion[2:].sum() == 239
    written = pd.read_csv(study / "table.csv")
    assert written["auroc"][0] == area["value"]
    gaps = pd.read_csv(study / "table-gaps.csv")
    assert set(gaps["measure"]) == {"auroc", "sensitivity", "specificity"}
    better = pd.read_csv(study / "table-differences.csv").set_index(["finding", "measure"])
    assert better.loc[("Mass", "auroc"), "low"] > 0


def test_figures_card_and_checklist_lie_beside(report):
    figures = {path.name for path in (report / "figures").iterdir()}
    assert {"flow.svg", "auroc.svg", "differences.svg", "gaps-auroc.svg", "mass-roc.svg",
            "mass-decision-curve.svg"} <= figures  # fmt: skip
    card = (report / "model-card.md").read_text("utf-8")
    assert card.startswith("---\nmodel_name: ")
    assert "library_name: torchxrayvision" in card
    assert "| Mass | 239 |" in card
    items = pd.read_csv(report / "tripod-ai.csv", keep_default_na=False)
    assert items["item"].tolist() == list(range(1, 28))
    assert set(items["state"]) == {"filled", "partly", "to be written"}
    assert items.set_index("item").loc[17, "state"] == "to be written"


def test_a_report_is_not_overwritten_and_its_options_need_it(report, study):
    both = (study / "first.csv", study / "labels.csv")
    assert "is not empty" in run("evaluate", *both, "--report", report, code=2).stderr
    assert "are for --report DIR" in run("evaluate", *both, "--title", "x", code=2).stderr
    wrong = run("evaluate", *both, "--report", study / "r", "--weights", "demo", code=2)
    assert "give --images" in wrong.stderr


def test_kinds_of_output_are_not_mixed(study, tmp_path):
    other = tmp_path / "logits.csv"
    pd.read_csv(study / "second.csv").to_csv(other, index=False)
    Provenance(command="xrv predict", output="logit").write_beside(other, other)
    arguments = (study / "first.csv", study / "labels.csv", "--compare", other)
    result = run("evaluate", *arguments, code=2)
    assert "numbers of different kinds: probability (first) and logit (logits)" in result.stderr
    said = CliRunner().invoke(app, ["evaluate", *map(str, arguments[:2]), "--kind", "logit"])
    assert "says that its numbers are of kind probability, not logit" in str(said.exception)


def test_thresholds_come_from_another_table(study):
    other = (study / "second.csv", study / "labels.csv")
    result = run(
        "evaluate", study / "first.csv", study / "labels.csv", "--threshold-from", *other,
        "--threshold-at", "sensitivity=0.9", "--json",
    )  # fmt: skip
    assert "120 patients are in the table that thresholds are chosen on" in result.stderr
    chosen = pd.read_csv(study / "second.csv")["Mass"]
    limit = json.loads(result.stdout)[0]["threshold"]
    assert (chosen - limit).abs().min() < 1e-12
    both = run("evaluate", *other, "--operating-point", "0.5", "--threshold-from", *other, code=2)
    assert "exclude each other" in both.stderr

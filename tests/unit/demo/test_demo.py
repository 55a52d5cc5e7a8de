import re
import shlex
import socket
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from PIL import Image
from sklearn.metrics import roc_auc_score

from support import demo_networks
from torchxrayvision import demo, evaluation
from torchxrayvision.cli import app
from torchxrayvision.cli.demo import _free
from torchxrayvision.datasets import Phantom_Dataset
from torchxrayvision.demo.folder import BROKEN
from torchxrayvision.demo.report import write_report
from torchxrayvision.errors import DatasetError
from torchxrayvision.weights import get

FILMS = 14
LEAST = 3  # films with each finding


class NoSocket(socket.socket):
    def __init__(self, *args, **kwargs):
        raise AssertionError("the demonstration opened a socket")


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A whole run with small films and planted networks, during which no socket can be made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "socket", NoSocket)
        steps = []
        result = demo.run(
            tmp_path_factory.mktemp("demo") / "new",
            n=FILMS,
            size=96,
            classifier=demo_networks.classifier(),
            segmenter=demo_networks.Ellipses(),
            progress=steps.append,
        )
    assert steps == list(result.seconds)
    return result


@pytest.fixture(scope="module")
def text(shown):
    return shown.report.read_text("utf-8")


class Page(HTMLParser):
    """Elements of a page; fails where tags do not nest."""

    VOID = frozenset({"img", "meta"})

    def __init__(self, text):
        super().__init__()
        self.open, self.found, self.words = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    def every(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_the_page_needs_nothing_beside_it(text):
    page = Page(text)
    addresses = [a[name] for _, a in page.found for name in ("src", "href") if name in a]
    assert addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in addresses)
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert not re.search(r"url\((?!data:)", text)
    assert not page.every("script")
    assert len(text) < 2_000_000


def test_the_page_can_be_read_by_everyone(text):
    page = Page(text)
    assert page.every("html") == [{"lang": "en"}]
    assert len(page.every("h1")) == len(page.every("main")) == 1
    assert all(len(image["alt"]) > 20 for image in page.every("img"))
    assert all(cell["scope"] in ("col", "row") for cell in page.every("th"))
    assert len(page.every("caption")) == len(page.every("table")) == 3
    assert all(chart["aria-label"] for chart in page.every("svg"))
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.every(
        "meta"
    )
    assert "prefers-color-scheme: dark" in text


def test_the_page_says_what_it_shows(shown, text):
    words = " ".join(Page(text).words)
    assert "Simulated radiographs, demonstration weights." in words
    assert "Not a medical device" in words
    assert f"{FILMS - 1} of {FILMS}" in words
    for path in shown.scores.index:
        assert Path(path).name in words
    for finding in shown.findings:
        assert finding in words
    assert f"xrv predict {shown.folder}/films/images --weights demo" in words


def test_commands_that_the_page_names_exist_with_their_options(text):
    root = typer.main.get_command(app)
    lines = [unescape(line) for body in re.findall("<code>(.*?)</code>", text, re.DOTALL)
             for line in body.splitlines()]  # fmt: skip
    assert len(lines) > 6
    for line in lines:
        program, *words = shlex.split(line)
        assert program == "xrv"
        command, used = root, {word for word in words if word.startswith("--")}
        for word in words:
            command = getattr(command, "commands", {}).get(word, command)
        required = {max(p.opts, key=len) for p in command.params if p.required} - {"paths"}
        assert used - {"--help"} <= {option for p in command.params for option in p.opts}, line
        if command is not root:
            assert {name for name in required if name.startswith("--")} <= used, line


def test_every_finding_of_the_demonstration_is_on_some_films():
    """So that a first look has no empty rows; chosen by what films show, not by any result."""
    films = Phantom_Dataset(n=demo.IMAGES, seed=demo.SEED, views="*")
    frontal = (films.csv["view"] != "L").to_numpy(copy=True)
    frontal[BROKEN] = False
    shown = dict(zip(films.pathologies, films.labels[frontal].sum(axis=0), strict=True))
    for finding in get("demo").targets:
        assert shown.get(finding, LEAST) >= LEAST, finding


def test_the_broken_file_is_a_row_with_its_reason(shown, text):
    errors = shown.scores["error"]
    (path,) = errors[errors != ""].index
    assert list(shown.scores.index).index(path) == BROKEN
    assert path not in shown.thumbnails
    reason = errors[path].rpartition(": ")[2]
    assert len(reason) > 10
    assert text.count(reason) == 2  # in the folder and in the list of files
    assert shown.scores.drop(columns="error").loc[path].isna().all()


def test_formats_are_mixed(shown):
    endings = {Path(path).suffix for path in shown.scores.index}
    assert endings == {".png", ".jpg", ".dcm"}


def test_figures_are_those_of_the_tables(shown):
    predictions = pd.read_csv(shown.folder / "predictions.csv", keep_default_na=True)
    labels = pd.read_csv(shown.folder / "films" / "labels.csv")
    assert predictions["path"].tolist() == labels["path"].tolist()
    read = predictions["error"].isna() & (labels["view"] != "L")
    assert (labels["view"] == "L").any()
    auroc = pd.read_csv(shown.folder / "auroc.csv").set_index("finding")
    checked = 0
    for finding in shown.findings:
        truth = labels.loc[read, finding]
        if truth.nunique() == 2:
            expected = roc_auc_score(truth, predictions.loc[read, finding])
            assert auroc.loc[finding, "auroc"] == pytest.approx(expected, abs=1e-6)
            checked += 1
    assert checked > 3
    assert auroc.loc["mean", "auroc"] == pytest.approx(auroc["auroc"].iloc[:-1].mean())


def test_measures_are_those_of_the_masks(shown):
    """The planted network finds the same chest everywhere, so its ratio is known."""
    read = shown.scores["error"] == ""
    frontal = read & shown.truth.facts["view"].isin(["PA", "AP"])
    assert shown.measured.notna().all(axis=1).tolist() == frontal.tolist()
    # Ellipses: the heart reaches from 0.39 to 0.69, the lungs from 0.16 to 0.84.
    ratios = shown.measured.loc[frontal, "cardiothoracic_ratio"]
    assert np.allclose(ratios, 0.30 / 0.68, atol=0.03)
    off = (ratios - shown.truth.facts.loc[frontal, "cardiothoracic_ratio"]).abs().mean()
    assert shown.ratio_error.value == pytest.approx(off)
    path = ratios.index[0]
    heart = pixels(shown.folder / "films" / "anatomy" / Path(path).stem / "Heart.png")
    at = (np.arange(len(heart)) + 0.5) / len(heart)
    y, x, high, wide = demo_networks.ELLIPSES["Heart"]
    planted = ((at[:, None] - y) / high) ** 2 + ((at - x) / wide) ** 2 <= 1
    expected = evaluation.dice(planted, heart > 0)
    assert shown.measured.loc[path, "Heart"] == pytest.approx(expected, abs=0.03)


def test_close_ups_show_what_they_say(shown):
    assert shown.close_ups
    for film in shown.close_ups:
        assert film.finding in shown.truth.present(film.path)
        assert film.heat.shape == film.outlines.shape == (*film.image.shape, 3)
        of_finding = shown.scores.loc[shown.truth.labels[film.finding] == 1, film.finding]
        assert film.score <= of_finding.max()
    alarm = shown.mistake
    assert alarm.finding not in shown.truth.present(alarm.path)
    assert not alarm.present


def test_the_contact_sheet_holds_every_film(shown):
    picture = pixels(shown.folder / "contact-sheet.png")
    (tile,) = {thumbnail.shape for thumbnail in shown.thumbnails.values()}
    rows = -(-len(shown.thumbnails) // 10)
    assert picture.shape == (rows * (tile[0] + 24), 10 * (tile[1] + 8))


def test_what_is_there_is_kept(tmp_path, monkeypatch):
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "mine.txt").write_text("keep")
    with pytest.raises(DatasetError, match="is not empty; name a new folder"):
        demo.run(tmp_path, n=12, classifier="none", segmenter="none")
    with pytest.raises(DatasetError, match="needs 12 images or more, got n=3"):
        demo.run(tmp_path / "new", n=3)
    monkeypatch.chdir(tmp_path)
    assert _free() == Path("xrv-demo")
    for name in ("xrv-demo", "xrv-demo-2"):
        Path(name).mkdir()
    assert _free() == Path("xrv-demo-3")


def test_text_cannot_become_markup(shown, tmp_path):
    """Findings, file names and reasons come from files that somebody else may have written."""
    scores = shown.scores.copy()
    scores.loc[scores["error"] != "", "error"] = 'x.png: <script>alert("1")</script>'
    close_up = replace(shown.close_ups[0], finding='<b title="x">Mass</b>')
    write_report(replace(shown, folder=tmp_path, scores=scores, close_ups=[close_up]))
    text = (tmp_path / "report.html").read_text("utf-8")
    page = Page(text)
    assert not page.every("script")
    assert not any(page.every("b"))
    assert '<script>alert("1")</script>' in "".join(page.words)
    assert any('<b title="x">Mass</b>' in image["alt"] for image in page.every("img"))


def test_an_interval_is_a_bar_between_its_ends(shown, tmp_path):
    auroc = shown.auroc.assign(reason="", auroc=0.75, low=0.5, high=0.875)
    write_report(replace(shown, folder=tmp_path, auroc=auroc))
    page = Page((tmp_path / "report.html").read_text("utf-8"))
    bars = [span["style"] for span in page.every("span") if span.get("class") == "range"]
    assert bars == ["--low:50.0;--high:87.5;--value:75.0"] * len(auroc)
    assert "".join(page.words).count("0.75 [0.50, 0.88]") >= len(auroc)


def test_a_figure_that_cannot_be_given_is_said_to_be_missing(shown, tmp_path):
    blank = replace(shown.ratio_error, value=np.nan, low=np.nan, high=np.nan)
    close_up = replace(shown.close_ups[0], ratio=np.nan)
    none = replace(shown, folder=tmp_path, ratio_error=blank, close_ups=[close_up], mistake=None)
    write_report(none)
    words = " ".join(Page((tmp_path / "report.html").read_text("utf-8")).words)
    assert "not measured" in words
    assert "no interval on average" in words
    assert "cardiothoracic ratio not measurable" in words.lower()
    assert "worst false alarm" not in words


def test_the_old_name_of_the_number_of_images_is_found():
    with pytest.warns(DeprecationWarning, match="is now torchxrayvision.demo.IMAGES"):
        assert demo.FILMS == demo.IMAGES == 60

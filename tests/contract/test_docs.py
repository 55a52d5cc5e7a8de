"""The pages of docs/ are true: examples run, links lead somewhere, made pages are fresh."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from PIL import Image

import torchxrayvision as xrv
from fakes import nih
from fakes._fake import write_dicom
from support.networks import published
from support.synthetic import film
from torchxrayvision.cli import app
from torchxrayvision.models import DenseNet
from torchxrayvision.weights import registry as _registry

ROOT = Path(__file__).parents[2]
GALLERY = sorted((ROOT / "docs" / "gallery").glob("*.md"))
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *GALLERY, *ROOT.glob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
CELL = "{code-cell} python"  # of a notebook, which the build of the site runs


def blocks(page, kind):
    return [body for found, body in FENCE.findall(page.read_text("utf-8")) if found == kind]


def anchors(page):
    text = FENCE.sub("", page.read_text("utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", h)) for h in headings]
    return {heading.strip().lower().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_relative_links_lead_to_files_and_headings(page):
    text = FENCE.sub("", page.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            assert target.startswith(("https://", "http://")), target
            continue
        path, _, fragment = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        if fragment:
            assert fragment in anchors(linked), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_exist_with_their_options(page):
    root = typer.main.get_command(app)
    for body in (body for kind in ("", "sh", "bash") for body in blocks(page, kind)):
        for line in body.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] != ["xrv"]:
                continue
            command = root
            for word in words[1:]:
                command = getattr(command, "commands", {}).get(word, command)
            known = {option for p in command.params for option in p.opts}
            used = {word for word in words if word.startswith("--")}
            assert command is not root or words[1:] == ["--version"], line
            assert used <= known, f"{line}: {sorted(used - known)}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_python_compiles_and_names_what_exists(page):
    cells = [re.sub(r"^:tags:.*\n", "", body) for body in blocks(page, CELL)]
    for body in [*blocks(page, "python"), *cells]:
        compile(body, str(page), "exec")
        for text in re.findall(r"\bxrv(?:\.\w+)+", body):
            value = xrv
            for part in text.split(".")[1:]:
                value = getattr(value, part)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with what the guide names, and weights of random numbers in the cache."""
    torch = importlib.import_module("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine two threads wait for each other far longer
    monkeypatch.chdir(tmp_path)
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setenv("XRV_CACHE_DIR", str(cache))
    entry = published("densenet121-res224-all", cache)
    for name in ("densenet121-res224-all", "all"):
        monkeypatch.setitem(_registry._by_name, name, entry)
    archive = tmp_path / "archive"
    archive.mkdir()
    for i in range(2):
        Image.fromarray(film(300, 260, i)).save(archive / f"{i}.png")
    write_dicom(tmp_path / "film.dcm", (260, 300))
    shutil.copy(archive / "0.png", tmp_path / "film.png")
    table = pd.DataFrame({"path": ["archive/0.png", "archive/1.png"], "Mass": [0, 1]})
    table.to_csv(tmp_path / "mine.csv", index=False)
    fake = nih.build(tmp_path / "NIH" / "images")
    checkpoint = DenseNet(num_classes=2)
    torch.save(checkpoint.state_dict(), tmp_path / "mine.pt")
    yield fake
    torch.set_num_threads(threads)


def test_the_page_of_encoders_runs_from_top_to_bottom():
    pytest.importorskip("timm")
    names = {}
    for body in blocks(ROOT / "docs" / "encoders.md", "python"):
        exec(compile(body, "encoders.md", "exec"), names)
    assert names["features"].shape == (2, 64)
    assert names["places"].shape == (2, 64, 37, 37)
    assert names["logits"].shape == (2, 2)


@pytest.mark.filterwarnings("ignore::torchxrayvision.errors.DemonstrationWarning")
def test_the_first_page_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    xrv.phantom.write_release("films", 6, seed=3)  # xrv phantom --out-dir films -n 6 --seed 3
    names = {}
    for body in blocks(ROOT / "docs" / "get-started.md", "python"):
        exec(compile(body, "get-started.md", "exec"), names)
    assert 0 < len(names["usable"]) < len(names["table"]) == 6  # lateral views are refused
    assert names["path"] in set(names["usable"]["path"])
    printed = capsys.readouterr().out
    assert all(f"\n{target:20} 0." in printed for target in names["model"].targets)


def test_the_guide_runs_from_top_to_bottom(workplace, monkeypatch):
    original = xrv.datasets.NIH_Dataset.__init__

    def on_fake_tables(self, *args, **kwargs):
        # The packaged table names 112,120 images; these tables name those in the folder.
        if kwargs.get("pathology_masks"):
            kwargs = {**workplace.kwargs, **kwargs}
        original(self, *args, **kwargs)

    monkeypatch.setattr(xrv.datasets.NIH_Dataset, "__init__", on_fake_tables)
    names = {}
    for body in blocks(ROOT / "docs" / "guide.md", "python"):
        exec(compile(body, "guide.md", "exec"), names)
    assert names["table"]["error"].tolist() == ["", ""]
    assert set(names["findings"]) == set(xrv.labels.DEFAULT_PATHOLOGIES)
    assert set(names["parts"]) == {"val", "test"}
    assert len(names["both"]) == sum(len(names[part]) for part in ("train", "valid", "test"))
    assert names["features"].shape == (3, 1024)
    assert np.isfinite(names["loss"].item())
    assert names["again"].targets == list(xrv.labels.NIH14)


def test_the_example_of_differences_counts_what_it_says():
    names = {}
    (body,) = blocks(ROOT / "docs" / "differences-from-1.5.7.md", "python")
    exec(compile(body, "differences", "exec"), names)
    assert f"# {names['changed']} of {len(names['new'])}" in body


def build_docs(*arguments):
    """The tool in a process of its own: other tests register weights and datasets."""
    return subprocess.run(
        [sys.executable, ROOT / "tools" / "build_docs.py", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_made_pages_are_fresh():
    done = build_docs("--check", "commands", "datasets", "weights")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_counts_of_changed_labels_are_fresh():
    done = build_docs("--check", "label-changes")
    assert done.returncode == 0, done.stderr


def test_a_stale_page_fails_the_check_and_is_left_alone(tmp_path):
    assert build_docs("--to", tmp_path, "weights").returncode == 0
    page = tmp_path / "weights.md"
    assert build_docs("--to", tmp_path, "--check", "weights").returncode == 0
    page.write_text("old")
    done = build_docs("--to", tmp_path, "--check", "weights")
    assert done.returncode == 1
    assert "stale: weights.md" in done.stderr
    assert page.read_text() == "old"


# ---- The site that Sphinx makes of the pages; its build is a step of its own in .ci/run.


def opening(page):
    """The first paragraph after the heading."""
    text = re.sub(r"\A---\n.*?^---\n", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    parts = [part.strip() for part in re.sub(r"<!--.*?-->", "", text).split("\n\n")]
    return next(part for part in parts if part and not part.startswith("#"))


SITE = [page for page in PAGES if page.parent != ROOT]


@pytest.mark.parametrize("page", SITE, ids=[str(page.relative_to(ROOT)) for page in SITE])
def test_every_page_says_what_one_can_do_after_it(page):
    assert opening(page).startswith("After this page"), opening(page)[:80]


def test_the_guide_names_every_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    named = [
        name
        for first, _ in rows_of((ROOT / "docs" / "guide.md").read_text("utf-8"), "Install")
        for name in re.findall(r"`([\w-]+)`", first)
    ]
    assert sorted(named) == sorted(set(extras) - {"docs"})


def rows_of(page, heading):
    """First and second cells of the table below a heading."""
    (text,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    cells = [line.strip("|").split(" | ", 1) for line in text.splitlines() if line.startswith("|")]
    return [(first.strip(), rest.strip()) for first, rest in cells[2:]]


def test_everything_of_1_5_7_is_answered():
    text = (ROOT / "docs" / "migration.md").read_text("utf-8")
    listed = json.loads((ROOT / "tests/golden/answered.json").read_text("utf-8"))
    api = json.loads((ROOT / "tests/golden/api.json").read_text("utf-8"))
    names = {**{module: list(names) for module, names in api.items()}, **listed["names"]}
    names.pop("calls", None)
    expected = {
        "Notebooks": set(listed["notebooks"]),
        "Scripts": set(listed["scripts"]),
        "Questions": set(listed["questions"]),
        "Public names": {f"xrv.{module}.{n}" for module, found in names.items() for n in found},
    }
    for heading, wanted in expected.items():
        answered = {}
        for first, rest in rows_of(text, heading):
            quoted = re.findall(r"`([^`]+)`", first)
            answered |= dict.fromkeys(quoted if heading != "Questions" else [first], rest)
        assert set(answered) == wanted
        bare = [name for name, rest in answered.items() if "](" not in rest]
        assert all("not needed" in answered[name] for name in bare), bare


GONE = {"datapath", "thispath", "warning_log"}


def test_names_that_stay_are_there():
    text = (ROOT / "docs" / "migration.md").read_text("utf-8")
    gone = [first for first, rest in rows_of(text, "Public names") if "#what-is-not-here" in rest]
    assert {name.strip("`").rpartition(".")[2] for name in gone} == GONE
    for first, _ in rows_of(text, "Public names"):
        value = xrv
        for part in first.strip("`").split(".")[1:] if first not in gone else []:
            value = getattr(value, part)


def test_every_public_name_has_its_page(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    docs_api = importlib.import_module("docs_api")
    pages = docs_api.pages()
    stubs = {path.parent.name for path in docs_api.ROOT.glob("*/__init__.pyi")}
    packages = {*(set(xrv.__all__) - {"__version__"}), *stubs}
    for package in packages:
        module = importlib.import_module(f"torchxrayvision.{package}")
        for name in module.__all__:
            page = pages[f"torchxrayvision.{package}.{name}.rst"]
            assert name in page
    assert "DEFAULT_PATHOLOGIES" in pages["torchxrayvision.labels.rst"]
    without = [item.full for item in docs_api.public_names() if not docs_api.summary(item)]
    assert without == []


def test_cards_can_be_filtered_by_what_they_are(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    cards = importlib.import_module("docs_cards")
    facets = {
        row["link"][1]: row["facets"] for row in cards.dataset_rows(lambda card: card.findings)
    }
    assert set(facets) == set(xrv.datasets.list_datasets())
    assert "account, training, agreement" in facets["MIMIC_Dataset"]["access"]
    assert facets["CheX_Dataset"]["licence"] == ["no commercial use"]
    assert facets["TBX11K_Dataset"]["masks"] == ["findings", "boxes"]
    assert "Mass" in facets["NIH_Dataset"]["finding"]
    page = cards.filterable(cards.weights_rows(), ["name"], "weights")
    for entry in xrv.weights.list_weights():
        assert f"<code>{entry.name}</code>" in page
    assert "0.81 (NIH" not in page or "measured by this package" in page


def test_every_notebook_has_a_card_in_the_gallery(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    gallery = importlib.import_module("docs_gallery")
    text = (ROOT / "docs" / "gallery" / "index.md").read_text("utf-8")
    names = {page.stem for page in GALLERY} - {"index"}
    rows = [name for _, _, name, _ in gallery.ROW.findall(text)]
    assert sorted(rows) == sorted(names)
    assert (
        set(re.search(r":::\{toctree\}\n:hidden:\n\n(.*?)\n:::", text, re.DOTALL)[1].split())
        == names
    )
    cards = gallery.cards(text)
    assert "| ---" not in cards
    assert all(f'src="thumbnail:{name}"' in cards for name in names)
    assert cards.count("::::{grid}") == cards.count("\n## ") == text.count("| **")

"""What makes the site of the pages: links are followed, names found, long pages cut into cards."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[3] / "tools"


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module


def test_links_are_followed_to_files_and_places(tool, tmp_path, capsys):
    check = tool("check_site")
    (tmp_path / "below").mkdir()
    (tmp_path / "index.html").write_text(
        '<a href="below/a.html#here">a</a><a href="https://example.org/x">b</a><img src="p.png">'
    )
    (tmp_path / "p.png").write_bytes(b"")
    (tmp_path / "below" / "a.html").write_text('<h2 id="here">x</h2><a href="../index.html">i</a>')
    assert check.main([str(tmp_path)]) == 0
    (tmp_path / "below" / "b.html").write_text(
        '<a href="a.html#gone">1</a><a href="none.html">2</a><a href="../../out.html">3</a>'
    )
    assert check.main([str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "a.html#gone: no such place in it" in said
    assert "none.html: no such file" in said
    assert "out.html: no such file" in said


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("xrv.utils.load_image", "torchxrayvision.utils.load_image"),
        ("DenseNet", "torchxrayvision.models.DenseNet"),
        ("evaluation.auroc", "torchxrayvision.evaluation.auroc"),
        (
            "torchxrayvision.datasets.releases.nih.NIH_Dataset",
            "torchxrayvision.datasets.NIH_Dataset",
        ),
        ("torch.Tensor", None),
        ("nobody", None),
    ],
)
def test_names_are_found_as_they_are_written(tool, written, found):
    assert tool("docs_site").Finder().find(written, "torchxrayvision.models") == found


def test_a_name_of_two_modules_is_that_of_the_page(tool):
    finder = tool("docs_site").Finder()
    for module in ("torchxrayvision.datasets", "torchxrayvision.training"):
        assert finder.find("Split", module) == f"{module}.Split"
    assert finder.find("Split", "torchxrayvision.models") is None


def test_links_of_the_repository_are_turned_for_the_site(tool):
    site = tool("docs_site")
    root = site.ROOT
    text = "[a](docs/guide.md#images) [b](SECURITY.md) [c](docs/weights.md#demo)"
    turned = site.from_root(text, root)
    assert "[a](/guide.md#images)" in turned
    assert "[b](/project/security.md)" in turned
    assert "[c](/cards/weights/demo.md)" in turned
    fenced = "```\n[e](docs/guide.md)\n```\n"
    assert site.from_root(fenced, root) == fenced


def test_a_long_page_is_cut_into_cards(tool):
    made = tool("docs_cards").cards(
        "# All\n\nIntro\n\n## One_Two\n\nText\n\n## B\n\nMore\n", "weights"
    )
    assert set(made) == {"one_two.md", "b.md"}
    assert made["one_two.md"].startswith("# One_Two\n\nAfter this page")
    assert made["one_two.md"].endswith("Text\n")

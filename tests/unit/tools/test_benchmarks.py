"""The page of results keeps what a run does not measure again."""

import importlib.util
from pathlib import Path

MAIN = Path(__file__).parents[3] / "benchmarks" / "__main__.py"
PAGE = "# Results\n\nHow.\n\n# One?\n\nold\n\n### part\n\n# By hand?\n\nkept\n"


def renewed(*given):
    spec = importlib.util.spec_from_file_location("benchmarks_main", MAIN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.renewed(*given)


def test_a_section_takes_the_place_of_the_one_with_its_title():
    expected = "# Results\n\nHow.\n\n# One?\n\nnew\n\n# By hand?\n\nkept\n"
    assert renewed(PAGE, "# One?\n\nnew\n") == expected


def test_a_new_section_comes_last_and_a_second_run_changes_nothing():
    once = renewed(PAGE, "# Two?\n\nnew\n")
    assert once == PAGE + "\n# Two?\n\nnew\n"
    assert renewed(once, "# Two?\n\nnew\n") == once


def test_the_page_has_the_question_of_each_script_once():
    text = MAIN.with_name("RESULTS.md").read_text("utf-8")
    assert renewed(text, text[text.index("# How") :].split("\n\n# ")[0]) == text

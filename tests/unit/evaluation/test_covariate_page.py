"""docs/covariate-shift.md says what docs/covariate-shift.csv holds, and that what it should."""

import re
from pathlib import Path

import pandas as pd
import pytest

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture
def table():
    return pd.read_csv(DOCS / "covariate-shift.csv")


def test_the_table_of_the_page_is_that_of_the_file(table):
    text = (DOCS / "covariate-shift.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d\.\d) \| (.*) \|$", text, re.MULTILINE)
    assert [float(ratio) for ratio, _ in rows] == sorted(set(table["ratio"]))
    for ratio, cells in rows:
        part = table[table["ratio"] == float(ratio)]
        shown = [f"{r.auroc:.3f} [{r.low:.3f}, {r.high:.3f}]" for r in part.itertuples()]
        assert cells.split(" | ") == shown


def test_auroc_is_high_in_distribution_and_falls_out_of_it(table):
    """The claim of the page, at the ends and in the middle, by the intervals."""
    by = table.set_index(["test", "ratio"])
    assert (by.loc["same", "low"] > 0.9).all()
    for end in (0.0, 1.0):
        assert by.loc[("opposite", end), "high"] < 0.5
        assert by.loc[("even", end), "high"] < by.loc[("even", 0.5), "low"]
    assert by.loc[("opposite", 0.5), "low"] > 0.9

"""Figures: they show the numbers of `evaluation`, follow the page, and leave matplotlib alone."""

import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from torchxrayvision import plots
from torchxrayvision.datasets import Phantom_Dataset
from torchxrayvision.errors import EvaluationError
from torchxrayvision.evaluation import auroc_interval, expected_calibration_error, operating_point


@pytest.fixture(scope="module")
def study():
    rng = np.random.default_rng(0)
    labels = (rng.random(600) < 0.3).astype(float)
    labels[3] = np.nan
    chances = 1 / (1 + np.exp(-(2 * np.nan_to_num(labels) - 1 + rng.normal(size=600))))
    return labels, chances


DRAWN = {
    "roc": lambda y, p: plots.roc(y, p, name="Mass", threshold=0.5),
    "precision_recall": lambda y, p: plots.precision_recall(y, p, name="Mass", threshold=0.5),
    "reliability": lambda y, p: plots.reliability(y, p, name="Mass"),
    "decision_curve": lambda y, p: plots.decision_curve(y, p, name="Mass"),
    "scores": lambda y, p: plots.scores(y, p, name="Mass", threshold=0.5),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_stands_in_a_page_and_in_a_file(study, name, tmp_path):
    display = DRAWN[name](*study)
    text = display.svg("what it shows")
    root = ET.fromstring(text)
    assert root.get("aria-label") == "what it shows"
    assert "Mass" in text
    assert "var(--accent, " in text
    assert not re.search(r"https?://(?!www\.w3\.org|purl\.org|creativecommons\.org)", text)
    marks = set(re.findall(r'\bid="(\w+)-', text))
    assert len(marks) == 1  # two figures in one page do not share identifiers
    assert text == DRAWN[name](*study).svg("what it shows")
    for ending in ("svg", "png", "pdf"):
        display.save(tmp_path / f"{name}.{ending}")
    ET.parse(tmp_path / f"{name}.svg")
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_figures_show_the_numbers_of_evaluation(study):
    labels, chances = study
    roc = plots.roc(labels, chances, threshold=0.5)
    assert roc.area == auroc_interval(labels, chances)
    assert roc.point == operating_point(labels, chances, 0.5)
    (curve, *_) = (line for line in roc.ax_.lines if len(line.get_xdata()) > 50)
    area = np.trapezoid(curve.get_ydata(), curve.get_xdata())
    assert area == pytest.approx(roc.area.value, abs=0.01)  # fewer points are drawn than there are
    assert f"{roc.area.value:.3f} [{roc.area.low:.3f}" in roc.ax_.get_title("left")
    shown = plots.reliability(labels, chances)
    assert shown.error == expected_calibration_error(labels, chances)
    benefit = plots.decision_curve(labels, chances).curve
    first = benefit.iloc[0]
    assert first["net_benefit"] == pytest.approx(first["all"], abs=0.02)
    bars = plots.scores(labels, chances)
    assert bars.present.sum() == pytest.approx(1)


def test_figures_are_drawn_on_the_users_axes_and_no_setting_is_changed(study):
    import matplotlib
    from matplotlib.figure import Figure

    before = dict(matplotlib.rcParams)
    left, right = Figure().subplots(1, 2)
    assert plots.roc(*study, ax=left).ax_ is left
    assert plots.precision_recall(*study, ax=right).figure_ is left.figure
    plots.roc(*study).svg()
    assert dict(matplotlib.rcParams) == before


def test_a_forest_has_a_row_for_each_value():
    table = pd.DataFrame(
        {"subgroup": ["F", "M"], "finding": "Mass", "gap": [0.1, -0.2], "low": [0.05, np.nan],
         "high": [0.2, np.nan]}
    )  # fmt: skip
    display = plots.forest(table, label=["subgroup", "finding"], value="gap", reference=0)
    assert [text.get_text() for text in display.ax_.get_yticklabels()] == ["M · Mass", "F · Mass"]
    with pytest.raises(EvaluationError, match="no column value"):
        plots.forest(table)


def test_datasets_show_their_samples_with_masks():
    dataset = Phantom_Dataset(n=3, size=96, pathology_masks=True)
    display = plots.contact_sheet(dataset, columns=2, size=64)
    assert len(display.titles) == 3
    assert display.picture.shape[2] == 3
    ax = dataset.plot(0, size=64)
    assert ax.get_title().startswith("0: ")
    assert ax.images[0].get_array().shape == (64, 64, 3)
    with pytest.raises(IndexError):
        dataset.plot(7)


def test_a_notebook_shows_a_sample_that_stands_last_in_a_cell():
    dataset = Phantom_Dataset(n=1, size=64)
    shown = dataset.plot(0, size=64)._repr_png_()
    assert Image.open(io.BytesIO(shown)).size == (500, 500)
    given = Figure().subplots()
    assert (
        dataset.plot(0, ax=given, size=64) is given
    )  # a figure of pyplot is shown once, by pyplot
    assert not hasattr(given, "_repr_png_")

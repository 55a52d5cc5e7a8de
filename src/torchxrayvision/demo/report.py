"""The report: one HTML file that needs nothing beside it."""

from __future__ import annotations

import math
import shlex
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.demo.page import Html, element, page, table
from torchxrayvision.demo.pictures import data_uri

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    import pandas as pd

    from torchxrayvision.demo.results import CloseUp, Demo

_THUMBNAILS: Final = 24
_TOP: Final = 3
_KINDS: Final = {".png": "PNG", ".jpg": "JPEG", ".dcm": "DICOM"}
_VIEWS: Final = {"PA": "PA", "AP": "AP", "L": "lateral"}


def write_report(demo: Demo) -> None:
    """Write the page of a finished run.

    Args:
        demo: What was found.
    """
    style = files("torchxrayvision.demo").joinpath("page.css").read_text("utf-8")
    sections = (
        _header(demo),
        element(
            "main",
            *_folder(demo),
            *_closely(demo),
            *_against_truth(demo),
            *_heart(demo),
            *_every_file(demo),
            *_next_steps(demo),
        ),
        _footer(demo),
    )
    demo.report.write_text(page("TorchXRayVision demonstration", style, *sections), "utf-8")


def _header(demo: Demo) -> Html:
    note = element(
        "p",
        element("strong", "Simulated radiographs, demonstration weights."),
        " Nobody was X-rayed for this page: the films are computed from a model of the chest, so "
        "the truth is known. The networks are small ones that ship with the package to try it "
        "with. Figures here say that the software works, not how well any network reads the films "
        "of patients. Not a medical device.",
        class_="note",
        role="note",
    )
    return element(
        "header",
        element("p", "TorchXRayVision 2 · demonstration", class_="eyebrow"),
        element("h1", f"{len(demo.truth.labels)} simulated radiographs, read and checked"),
        element(
            "p",
            "A mixed folder of PNG, JPEG and DICOM files goes through the same functions as "
            "your own films would: findings, masks, a measure of the heart, a heatmap, and a "
            "comparison with the truth.",
        ),
        note,
        _figures(demo),
    )


def _figures(demo: Demo) -> Html:
    total, read = len(demo.scores), int((demo.scores["error"] == "").sum())
    mean = demo.auroc.iloc[-1]
    known = int(demo.auroc["auroc"].iloc[:-1].notna().sum())
    lungs = demo.dice["Lungs"]
    cards = (
        ("Files read", f"{read} of {total}", "one is broken on purpose"),
        (
            "Mean AUROC",
            _number(mean["auroc"]),
            f"{_ends(mean['low'], mean['high'])}, {known} findings",
        ),
        (
            "Cardiothoracic ratio off by",
            _number(demo.ratio_error.value, 3),
            f"{_ends(demo.ratio_error.low, demo.ratio_error.high, 3)} on average",
        ),
        ("Lungs, Dice", _number(lungs.value, 3), _ends(lungs.low, lungs.high, 3)),
    )
    return element(
        "dl",
        *(
            element(
                "div",
                element("dt", title),
                element("dd", value, class_="value"),
                element("dd", more, class_="more"),
            )
            for title, value, more in cards
        ),
        class_="figures",
    )


def _folder(demo: Demo) -> Iterable[Html]:
    kinds = [_KINDS.get(Path(path).suffix, "other") for path in demo.scores.index]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in _KINDS.values())
    broken = [path for path in demo.scores.index if demo.scores.loc[path, "error"]]
    paths = list(demo.scores.index[:_THUMBNAILS])
    paths += [path for path in broken if path not in paths]
    return (
        element("h2", "The folder"),
        element(
            "p",
            f"{counts}; 8, 12 and 16 bits, some DICOM files with black and white swapped. "
            f"Here are {len(paths)} of {len(kinds)}, and below each what it shows. A file that "
            "cannot be read does not stop anything: it becomes a row with its reason.",
        ),
        element("ul", *(element("li", _tile(demo, path)) for path in paths), class_="sheet"),
    )


def _tile(demo: Demo, path: str) -> Html:
    present = ", ".join(demo.truth.present(path)) or "no finding"
    view = _VIEWS[demo.truth.fact(path, "view")]
    name = Path(path).name
    error = str(demo.scores.loc[path, "error"])
    if path in demo.thumbnails:
        shown = element(
            "img",
            src=data_uri(demo.thumbnails[path]),
            alt=f"Simulated chest radiograph {name}, {view}: {present}",
            loading="lazy",
        )
        return element(
            "figure", shown, element("figcaption", element("strong", present), f" {name}, {view}")
        )
    missing = element("div", element("strong", "Not read. "), _reason(error), class_="missing")
    return element(
        "figure", missing, element("figcaption", element("strong", "broken"), f" {name}")
    )


def _reason(error: str) -> str:
    """The message without the path that it starts with."""
    return error.rpartition(f"{Path(error.partition(': ')[0]).name}: ")[2] or error


def _closely(demo: Demo) -> Iterable[Html]:
    yield element("h2", "A closer look")
    yield element(
        "p",
        "First the film. Then what the segmentation network found, lungs in blue and heart in red, "
        "with the widths behind the cardiothoracic ratio. Last what in the film speaks for the "
        "finding, as a class activation map; the light blue line is where it truly is.",
    )
    yield from (_close_up(demo, film, film.finding) for film in demo.close_ups)
    if demo.mistake is not None:
        yield _close_up(
            demo, demo.mistake, f"The worst false alarm: {demo.mistake.finding}, which is not there"
        )


def _close_up(demo: Demo, film: CloseUp, title: str) -> Html:
    known = {str(name): demo.truth.fact(film.path, str(name)) for name in demo.truth.facts}
    present = ", ".join(demo.truth.present(film.path)) or "no finding"
    ratio = (
        f"cardiothoracic ratio {film.ratio:.2f} measured, {known['cardiothoracic_ratio']:.2f} true"
        if math.isfinite(film.ratio)
        else "cardiothoracic ratio not measurable"
    )
    name, sex = Path(film.path).name, {"M": "man", "F": "woman"}.get(str(known["sex"]), "person")
    panels = (
        (film.film, f"Simulated radiograph {name}", "The film"),
        (film.outlines, f"The same film with outlines of its structures; {ratio}", ratio),
        (
            film.heat,
            f"The same film with evidence for {film.finding} in colour",
            f"evidence for {film.finding}",
        ),
    )
    return element(
        "section",
        element("h3", f"{title}"),
        element(
            "p",
            f"Output for {film.finding} {film.score:.2f}. Simulated {sex} of "
            f"{int(known['age'])}, {_VIEWS[known['view']]}, {name}. Truth: {present}.",
        ),
        element(
            "div",
            *(
                element(
                    "figure",
                    element("img", src=data_uri(picture), alt=alt, loading="lazy"),
                    element("figcaption", text[0].upper() + text[1:]),
                )
                for picture, alt, text in panels
            ),
            class_="panels",
        ),
        class_="close",
    )


def _against_truth(demo: Demo) -> Iterable[Html]:
    findings = demo.auroc.iloc[:-1].sort_values("auroc", ascending=False, na_position="last")
    rows = [
        [str(row["finding"]), str(row["positives"]), _area(row)]
        for row in findings.to_dict("records")
    ]
    rows.append(["Mean", "", _area(demo.auroc.iloc[-1].to_dict())])
    patients = demo.truth.facts["patientid"].nunique()
    axis = element("span", *(element("span", t) for t in ("0", "0.5", "1")), class_="axis")
    head = element("span", element("span", "AUROC"), axis, class_="area")
    return (
        element("h2", "Against the truth"),
        element(
            "p",
            "The area under the ROC curve (AUROC) is the chance that a film with the finding "
            "scores above one without it: 0.5 is guessing, 1 is perfect. Brackets and bars are "
            f"95 % intervals, which count the {patients} patients rather than their films. With so "
            "few they are wide, and that is what an interval is for.",
        ),
        table(
            ["Finding", "Films with it", head],
            rows,
            f"AUROC of {demo.classifier.architecture} on the {int(demo.auroc['n'].max())} frontal "
            "films that could be read; the weights were not trained on lateral ones",
        ),
    )


def _area(row: dict[Hashable, Any]) -> str:
    if not math.isfinite(row["auroc"]):
        return f"not defined: {row['reason']}"
    if row["reason"]:  # a value without an interval
        return f"{row['auroc']:.2f} ({row['reason']})"
    text = f"{row['auroc']:.2f} {_ends(row['low'], row['high'])}"
    return element("span", element("span", text), _range(row), class_="area")


def _range(row: dict[Hashable, Any]) -> Html:
    places = {name: f"{row[name] * 100:.1f}" for name in ("low", "high", "auroc")}
    style = f"--low:{places['low']};--high:{places['high']};--value:{places['auroc']}"
    marks = (element(tag) for tag in ("u", "i", "b"))
    return element("span", *marks, class_="range", style=style, aria_hidden="true")


def _heart(demo: Demo) -> Iterable[Html]:
    true = demo.truth.facts["cardiothoracic_ratio"]
    measured = demo.measured["cardiothoracic_ratio"]
    both = measured.notna() & true.notna()
    rows = [
        [name, _number(interval.value, 3), _ends(interval.low, interval.high, 3)]
        for name, interval in demo.dice.items()
    ]
    text = element(
        "div",
        element(
            "p",
            "The width of the heart over that of the thorax, measured on the masks of "
            f"{int(both.sum())} frontal films; above 0.5 a heart counts as enlarged. Each dot is "
            "a film, on the dashed line where measure and truth agree.",
        ),
        table(
            ["Structure", "Dice", "95 % interval"],
            rows,
            "Overlap with the true masks; 1 is perfect",
        ),
    )
    return (
        element("h2", "The size of the heart"),
        element("div", _scatter(true[both], measured[both]), text, class_="pair"),
    )


def _scatter(true: pd.Series, measured: pd.Series) -> Html:
    """Measured against true ratio."""
    side, margin = 320, 44
    values = [*true, *measured, 0.4, 0.6]
    low, high = math.floor(min(values) * 10) / 10, math.ceil(max(values) * 10) / 10

    def at(value: float) -> str:
        return f"{margin + (value - low) / (high - low) * side:.1f}"

    def up(value: float, below: float = 0) -> str:
        return f"{side + 16 + below - (value - low) / (high - low) * side:.1f}"

    parts = []
    for tick in np.arange(low, high + 0.05, 0.1).round(1).tolist():
        parts += [
            element("line", x1=at(low), x2=at(high), y1=up(tick), y2=up(tick), class_="grid"),
            element("text", f"{tick:.1f}", x=margin - 8, y=up(tick, 4), text_anchor="end"),
            element("text", f"{tick:.1f}", x=at(tick), y=side + 36, text_anchor="middle"),
        ]
    parts.append(element("line", x1=at(low), y1=up(low), x2=at(high), y2=up(high), class_="even"))
    parts += [
        element("circle", cx=at(x), cy=up(y), r=4.5, class_="dot")
        for x, y in zip(true, measured, strict=True)
    ]
    middle = margin + side / 2
    parts.append(element("text", "true ratio", x=middle, y=side + 54, text_anchor="middle"))
    parts.append(
        element(
            "text", "measured ratio", x=12, y=side / 2, text_anchor="middle",
            transform=f"rotate(-90 12 {side / 2:g})",
        )
    )  # fmt: skip
    title = f"Measured against true cardiothoracic ratio of {len(true)} films"
    return element(
        "svg",
        *parts,
        viewBox=f"0 0 {margin + side + 16} {side + 62}",
        role="img",
        aria_label=title,
    )


def _every_file(demo: Demo) -> Iterable[Html]:
    names = list(demo.scores.select_dtypes("number").columns)  # not what `check` and `error` say
    rows = []
    for path in demo.scores.index:
        row = demo.scores.loc[path]
        truth = ", ".join(demo.truth.present(path)) or "none"
        if row["error"]:
            said: str = element("span", _reason(str(row["error"])), class_="error")
        else:
            best = row[names].astype(float).nlargest(_TOP)
            said = ", ".join(f"{name} {value:.2f}" for name, value in best.items())
        rows.append([Path(path).name, _VIEWS[demo.truth.fact(path, "view")], truth, said])
    listed = table(
        ["File", "View", "Truth", f"The {_TOP} highest outputs, or why there is none"],
        rows,
        f"All {len(rows)} files; the whole tables are in predictions.csv and measures.csv",
    )
    return (
        element("h2", "Every file"),
        element("details", element("summary", f"Show all {len(rows)} rows"), listed),
    )


def _next_steps(demo: Demo) -> Iterable[Html]:
    films = shlex.quote(str(demo.folder / "films" / "images"))
    steps = (
        ("The same predictions by hand:", f"xrv predict {films} --weights demo"),
        (
            "Your own radiographs, with published weights (28 MB, fetched once):",
            "xrv predict FILES",
        ),
        (
            "AUROC with intervals, of these films by view:",
            f"xrv evaluate {shlex.quote(str(demo.folder / 'predictions.csv'))} "
            f"{shlex.quote(str(demo.folder / 'films' / 'labels.csv'))} --by view",
        ),
        ("Masks and measures:", f"xrv segment {films} --weights demo-anatomy --out-dir masks"),
        ("Why the network said so:", _explain(demo)),
        (
            "More simulated films, in the layout of a public release:",
            "xrv phantom --layout nih --out-dir films",
        ),
        ("What else there is:", "xrv weights list\nxrv datasets list\nxrv --help"),
    )
    return (
        element("h2", "What next"),
        element(
            "dl",
            *(
                part
                for text, command in steps
                for part in (
                    element("dt", text),
                    element("dd", element("pre", element("code", command))),
                )
            ),
            class_="steps",
        ),
    )


def _explain(demo: Demo) -> str:
    path, finding = next(
        ((film.path, film.finding) for film in demo.close_ups),
        (demo.scores.index[0], demo.findings[0]),
    )
    file = shlex.quote(str(demo.folder / "films" / path))
    return f"xrv explain {file} --weights demo --target {shlex.quote(finding)} --out-dir explained"


def _footer(demo: Demo) -> Html:
    from torchxrayvision import __version__
    from torchxrayvision.weights import list_weights

    cards = {entry.name: entry.description for entry in list_weights()}
    card = cards.get(demo.classifier.weights or "", "")
    took = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in demo.seconds.items())
    return element(
        "footer",
        element("p", f"TorchXRayVision {__version__}. {card}".strip()),
        element("p", f"{sum(demo.seconds.values()):.0f} seconds: {took}."),
        element(
            "p",
            "The simulation is the same on every machine for the same seed. The demonstration "
            "weights were trained on simulated films and on public radiographs of the NIH Clinical "
            "Center (Wang et al., ChestX-ray8, CVPR 2017).",
        ),
    )


def _number(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "not measured"


def _ends(low: float, high: float, digits: int = 2) -> str:
    known = math.isfinite(low) and math.isfinite(high)
    return f"[{low:.{digits}f}, {high:.{digits}f}]" if known else "no interval"

"""The report: one HTML file that needs nothing beside it, from the template `report.html`."""

from __future__ import annotations

import base64
import io
import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.pages import environment
from torchxrayvision.provenance import Provenance

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from torchxrayvision.demo.results import Demo

_THUMBNAILS: Final = 24
_TOP: Final = 3
_QUALITY: Final = 82
_FORMATS: Final = {".png": "PNG", ".jpg": "JPEG", ".dcm": "DICOM"}
_VIEWS: Final = {"PA": "PA", "AP": "AP", "L": "lateral"}
_SEXES: Final = {"M": "man", "F": "woman"}


def write_report(demo: Demo) -> None:
    """Write the page of a finished run.

    Args:
        demo: What was found.
    """
    from torchxrayvision import __version__

    templates = environment(Path(__file__).parent)
    templates.filters |= {
        "data_uri": _data_uri,
        "ends": _ends,
        "file_name": lambda path: Path(path).name,
        "is_finite": math.isfinite,
        "listed": _listed,
        "number": _number,
    }
    files = [_file(demo, path) for path in demo.scores.index]
    formats = [_FORMATS.get(Path(path).suffix, "other") for path in demo.scores.index]
    page = templates.get_template("report.html").render(
        provenance=Provenance(command="xrv demo"),
        demo=demo,
        truth=demo.truth,
        views=_VIEWS,
        sexes=_SEXES,
        files=files,
        tiles=[file for i, file in enumerate(files) if i < _THUMBNAILS or file["reason"]],
        formats=", ".join(f"{formats.count(name)} {name}" for name in _FORMATS.values()),
        cards=_cards(demo),
        areas=_areas(demo),
        scatter=_scatter(demo),
        steps=_steps(demo),
        version=__version__,
        card=_card(demo),
    )
    demo.report.write_text(page, "utf-8")


def _file(demo: Demo, path: str) -> dict[str, str]:
    """What the page says of one file."""
    import pandas as pd

    row = demo.scores.loc[path]
    names = demo.scores.select_dtypes("number").columns  # not what `check` and `error` say
    highest = pd.Series(row[names]).astype(float).nlargest(_TOP)
    return {
        "path": path,
        "name": Path(path).name,
        "view": _VIEWS[demo.truth.fact(path, "view")],
        "present": _listed(demo.truth.present(path)),
        "reason": _reason(str(row["error"])),
        "highest": ", ".join(f"{name} {value:.2f}" for name, value in highest.items()),
    }


def _reason(error: str) -> str:
    """The message without the path that it starts with."""
    return error.rpartition(f"{Path(error.partition(': ')[0]).name}: ")[2] or error


def _cards(demo: Demo) -> Sequence[tuple[str, str, str]]:
    """The figures at the top: title, value, and what to know of it."""
    read = int((demo.scores["error"] == "").sum())
    mean, lungs, off = demo.auroc.iloc[-1], demo.dice["Lungs"], demo.ratio_error
    known = int(demo.auroc["auroc"].iloc[:-1].notna().sum())
    return (
        ("Files read", f"{read} of {len(demo.scores)}", "one is broken on purpose"),
        (
            "Mean AUROC",
            _number(mean["auroc"]),
            f"{_ends((mean['low'], mean['high']))}, {known} findings",
        ),
        (
            "Cardiothoracic ratio off by",
            _number(off.value, 3),
            f"{_ends((off.low, off.high), 3)} on average",
        ),
        ("Lungs, Dice", _number(lungs.value, 3), _ends((lungs.low, lungs.high), 3)),
    )


def _areas(demo: Demo) -> list[dict[Any, Any]]:
    """The rows of the AUROC table, best first, the mean last."""
    findings = demo.auroc.iloc[:-1].sort_values("auroc", ascending=False, na_position="last")
    mean = demo.auroc.iloc[-1].to_dict() | {"finding": "Mean", "positives": ""}
    return [*findings.to_dict("records"), mean]


@dataclass(frozen=True)
class _Scatter:
    """A square plot of pairs of ratios, in the units of its SVG."""

    dots: list[tuple[float, float]]
    low: float
    high: float
    side: int = 320
    margin: int = 44
    width: int = 380
    height: int = 382

    @property
    def ticks(self) -> list[float]:
        """Tenths from the lowest to the highest."""
        ticks: list[float] = np.arange(self.low, self.high + 0.05, 0.1).round(1).tolist()
        return ticks

    def x(self, ratio: float) -> float:
        """Where a true ratio lies."""
        return round(self.margin + (ratio - self.low) / (self.high - self.low) * self.side, 1)

    def y(self, ratio: float) -> float:
        """Where a measured ratio lies."""
        return round(self.side + 16 - (ratio - self.low) / (self.high - self.low) * self.side, 1)


def _scatter(demo: Demo) -> _Scatter:
    true: pd.Series[float] = demo.truth.facts["cardiothoracic_ratio"]
    measured: pd.Series[float] = demo.measured["cardiothoracic_ratio"]
    both = measured.notna() & true.notna()
    dots = list(zip(true[both].tolist(), measured[both].tolist(), strict=True))
    values = [0.4, 0.6, *(value for dot in dots for value in dot)]
    return _Scatter(dots, math.floor(min(values) * 10) / 10, math.ceil(max(values) * 10) / 10)


def _steps(demo: Demo) -> Sequence[tuple[str, str]]:
    """What to try next, and its command."""
    images = shlex.quote(str(demo.folder / "films" / "images"))
    predictions = shlex.quote(str(demo.folder / "predictions.csv"))
    labels = shlex.quote(str(demo.folder / "films" / "labels.csv"))
    path, finding = next(
        ((shown.path, shown.finding) for shown in demo.close_ups),
        (demo.scores.index[0], demo.findings[0]),
    )
    file, target = shlex.quote(str(demo.folder / "films" / path)), shlex.quote(finding)
    return (
        ("The same predictions by hand:", f"xrv predict {images} --weights demo"),
        (
            "Your own radiographs, with published weights (28 MB, fetched once):",
            "xrv predict FILES",
        ),
        (
            "AUROC with intervals, of these images by view:",
            f"xrv evaluate {predictions} {labels} --by view",
        ),
        ("Masks and measures:", f"xrv segment {images} --weights demo-anatomy --out-dir masks"),
        (
            "Why the network said so:",
            f"xrv explain {file} --weights demo --target {target} --out-dir explained",
        ),
        (
            "More simulated images, in the layout of a public release:",
            "xrv phantom --layout nih --out-dir films",
        ),
        ("What else there is:", "xrv weights list\nxrv datasets list\nxrv --help"),
    )


def _card(demo: Demo) -> str:
    """What the package says of the weights that predicted."""
    from torchxrayvision.weights import list_weights

    cards = {entry.name: entry.description for entry in list_weights()}
    return cards.get(demo.classifier.weights or "", "")


def _data_uri(picture: NDArray[np.uint8]) -> str:
    """A picture as the address of itself, a JPEG: what the attribute ``src`` of an image takes."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _listed(findings: Sequence[str]) -> str:
    return ", ".join(findings) or "no finding"


def _number(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "not measured"


def _ends(ends: tuple[float, float], digits: int = 2) -> str:
    known = all(map(math.isfinite, ends))
    return f"[{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]" if known else "no interval"

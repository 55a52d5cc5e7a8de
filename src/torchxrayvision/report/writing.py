"""A study as a folder: one page, tables, figures, a model card and a checklist."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.csvtext import write_frame
from torchxrayvision.errors import EvaluationError, counted, needs_package
from torchxrayvision.evaluation import (
    net_benefit_curve,
    operating_point,
    precision_recall_curve,
    probabilities_of,
    reliability_curve,
    roc_curve,
)
from torchxrayvision.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pandas as pd

    from torchxrayvision.evaluation import Study
    from torchxrayvision.files import Provenance
    from torchxrayvision.plots import Display
    from torchxrayvision.report.mistakes import Mistake

KINDS: Final = {
    "probability": "probabilities",
    "logit": "logits, whose logistic function is taken for probabilities",
    "operating-point": "outputs scaled so that the published operating point lies at 0.5, which "
    "are no probabilities",
    "zero-shot": "scores of a zero-shot network, which order images and are no probabilities",
    "similarity": "similarities of a zero-shot network, which order images and have no scale",
    None: "scores of unknown meaning, which only rise with the finding",
}
_MEASURES: Final = {
    "auroc": "AUROC", "average_precision": "average precision", "sensitivity": "sensitivity",
    "specificity": "specificity", "ppv": "PPV", "npv": "NPV", "f1": "F1", "brier": "Brier score",
    "calibration_slope": "slope", "calibration_intercept": "intercept", "ece": "ECE",
    "ppv_at_prevalence": "PPV there", "npv_at_prevalence": "NPV there",
}  # fmt: skip
_RATES: Final = ("sensitivity", "specificity", "ppv", "npv", "f1")
_CALIBRATION: Final = ("brier", "calibration_slope", "calibration_intercept", "ece")


@dataclass(frozen=True)
class Options:
    """What the study was evaluated by.

    Attributes:
        by: Columns that images are split by.
        intersections: Whether every two of them are too.
        least: Patients that a subgroup needs.
        prevalence: Finding to another prevalence.
    """

    by: Sequence[str] = ()
    intersections: bool = False
    least: int = 20
    prevalence: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Judgement:
    """Everything that a report is made of.

    Attributes:
        study: What is evaluated.
        table: Of all images, from `performance_table`.
        thresholds: Finding to threshold.
        threshold_shown: Where they are from, as a sentence.
        options: What the study was evaluated by.
        provenance: What makes the report.
        title: Of the report.
        parts: Of subgroups, from `performance_by`, or None.
        differences: From `difference_table`, or None.
        gaps: From `gap_table`, or None.
        others: Other models.
        mistakes: The most certain errors.
        held_out: Which patients were evaluated, if not all.
        targets: What thresholds of a calibration were to reach and reached, or None.
    """

    study: Study
    table: pd.DataFrame
    thresholds: Mapping[str, float]
    threshold_shown: str
    options: Options
    provenance: Provenance
    title: str
    parts: pd.DataFrame | None = None
    differences: pd.DataFrame | None = None
    gaps: pd.DataFrame | None = None
    others: Sequence[Study] = ()
    mistakes: Sequence[Mistake] = ()
    held_out: str = ""
    targets: pd.DataFrame | None = None

    @property
    def patients(self) -> int:
        """How many there are."""
        return len(np.unique(self.study.codes))

    @property
    def size(self) -> str:
        """How many images of how many patients, in words."""
        images = counted(len(self.study.labels), "image")
        return f"{images} of {counted(self.patients, 'patient')}"

    @property
    def kind_shown(self) -> str:
        """What the scores are, in words."""
        return KINDS[self.study.kind]

    @property
    def has_probabilities(self) -> bool:
        """Whether there are probabilities to judge."""
        return self.study.kind in ("probability", "logit")

    @property
    def positives(self) -> dict[str, int]:
        """Images with each finding."""
        counts = (self.study.labels == 1).sum(axis=0)
        return dict(zip(self.study.findings, map(int, counts), strict=True))

    @property
    def missing_labels(self) -> dict[str, int]:
        """Images whose label of a finding is missing."""
        counts = np.isnan(self.study.labels).sum(axis=0)
        return dict(zip(self.study.findings, map(int, counts), strict=True))

    @property
    def withheld(self) -> int:
        """Values that have no interval."""
        return int((self.table["value"].notna() & self.table["low"].isna()).sum())

    @staticmethod
    def cell(row: Any) -> str:
        """A value with its interval as text."""
        if math.isnan(row["value"]):
            return "–"
        if math.isnan(row["low"]):
            return f"{row['value']:.3f} (no interval)"
        return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def write_report(
    evaluated: Judgement,
    folder: Path,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Write the folder: ``index.html``, tables, figures, ``model-card.md``, ``tripod-ai.csv``.

    Args:
        evaluated: The study.
        folder: Where to; made if it is not there.
        progress: Called with what is being done.

    Returns:
        The page.

    Raises:
        DependencyError: If matplotlib or jinja2 is missing.
        OSError: If the folder cannot be written.
    """
    with needs_package("jinja2", "a report", "report"):
        import jinja2  # noqa: F401
    from torchxrayvision.pages import environment
    from torchxrayvision.report.card import model_card
    from torchxrayvision.report.checklist import SOURCE, checklist
    from torchxrayvision.report.methods import methods

    say = progress or _silent
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    say("tables")
    items = checklist(evaluated)
    for name, table in _tables(evaluated, items):
        write_frame(table, folder / f"{name}.csv", evaluated.provenance)
    _write_text(folder / "model-card.md", model_card(evaluated))
    say("figures")
    figures = Figures(evaluated, folder / "figures")
    whole = figures.overview()
    findings = [(name, figures.of_finding(name)) for name in evaluated.study.findings]
    say("page")
    made = environment(Path(__file__).parent)
    page = made.get_template("report.html").render(
        evaluated=evaluated, provenance=evaluated.provenance, cards=_cards(evaluated),
        flow=whole.pop("flow"),
        overview=whole, findings=findings, methods=methods(evaluated), items=items, source=SOURCE,
        tables=_shown(evaluated), mistakes=[_mistake(one) for one in evaluated.mistakes],
    )  # fmt: skip
    target = folder / "index.html"
    _write_text(target, page)
    return target


def _silent(step: str) -> None:
    """Nobody wants to know."""
    del step


def _write_text(path: Path, text: str) -> None:
    with write_atomically(path) as part:
        part.write_text(text, encoding="utf-8")


def _mistake(one: Mistake) -> dict[str, Any]:
    import base64

    def address(data: bytes) -> str:
        coded = base64.b64encode(data).decode("ascii")
        return f"data:image/jpeg;base64,{coded}" if data else ""

    return {
        "image": Path(one.image).name, "finding": one.finding, "kind": one.kind,
        "score": f"{one.score:.3g}", "threshold": f"{one.threshold:.3g}", "reason": one.reason,
        "picture": address(one.picture), "heat": address(one.heat),
    }  # fmt: skip


def _cards(evaluated: Judgement) -> list[tuple[str, str, str]]:
    """The figures at the top."""
    means = evaluated.table[evaluated.table["finding"] == "mean"].set_index("measure")
    cards = [
        (
            "images",
            f"{len(evaluated.study.labels):,}",
            f"of {counted(evaluated.patients, 'patient')}",
        ),
        (
            "findings",
            str(len(evaluated.study.findings)),
            f"{sum(evaluated.positives.values()):,} present",
        ),
    ]
    for measure in ("auroc", "sensitivity", "specificity", "ece"):
        row: Any = means.loc[measure]
        if not math.isnan(row["value"]):
            ends = (
                "no interval"
                if math.isnan(row["low"])
                else f"[{row['low']:.3f}, {row['high']:.3f}]"
            )
            cards.append((f"mean {_MEASURES[measure]}", f"{row['value']:.3f}", ends))
    return cards


def _tables(evaluated: Judgement, items: Sequence[Any]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Every table of the folder under its name."""
    import pandas as pd

    yield "performance", evaluated.table
    for name, part in (
        ("subgroups", evaluated.parts), ("differences", evaluated.differences),
        ("gaps", evaluated.gaps),
        ("targets", evaluated.targets),
    ):  # fmt: skip
        if part is not None:
            yield name, part
    yield "flow", pd.DataFrame(evaluated.study.flow(), columns=["images", "count"])
    yield "confusion", _confusion(evaluated)
    yield from _curves(evaluated)
    rows = [
        (one.image, one.finding, one.kind, one.score, one.threshold) for one in evaluated.mistakes
    ]
    head = ["image", "finding", "error", "score", "threshold"]
    yield "errors", pd.DataFrame(rows, columns=pd.Index(head))
    told = [(item.number, item.topic, item.state, item.answer) for item in items]
    yield "tripod-ai", pd.DataFrame(told, columns=["item", "topic", "state", "answer"])


def _good(evaluated: Judgement) -> list[int]:
    """Findings that have rows of both classes and every score."""
    areas = evaluated.table[evaluated.table["measure"] == "auroc"].set_index("finding")["value"]
    return [j for j, name in enumerate(evaluated.study.findings) if not math.isnan(areas[name])]


def _confusion(evaluated: Judgement) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for j in _good(evaluated):
        name = evaluated.study.findings[j]
        if name in evaluated.thresholds:
            limit = evaluated.thresholds[name]
            point = operating_point(
                evaluated.study.labels[:, j], evaluated.study.scores[:, j], limit
            )
            counts = (
                point.true_positives, point.false_negatives, point.false_positives,
                point.true_negatives,
            )  # fmt: skip
            rows.append((name, limit, *counts))
    head = ["finding", "threshold", "true positive", "false negative", "false positive"]
    return pd.DataFrame(rows, columns=pd.Index([*head, "true negative"]))


def _curves(evaluated: Judgement) -> Iterator[tuple[str, pd.DataFrame]]:
    import pandas as pd

    study = evaluated.study
    parts: dict[str, list[pd.DataFrame]] = {}
    makers: dict[str, Any] = {"roc": roc_curve, "precision-recall": precision_recall_curve}
    for j in _good(evaluated):
        truth, given = study.labels[:, j], study.scores[:, j]
        made = {name: make(truth, given) for name, make in makers.items()}
        if evaluated.has_probabilities:
            chances = probabilities_of(given, str(study.kind))
            made["reliability"] = reliability_curve(truth, chances, patient_ids=study.codes)
            made["decision-curve"] = net_benefit_curve(truth, chances, patient_ids=study.codes)
        for name, curve in made.items():
            curve.insert(0, "finding", study.findings[j])
            parts.setdefault(name, []).append(curve)
    for name, curves in parts.items():
        yield name, pd.concat(curves, ignore_index=True)


class Figures:
    """The figures of a study, each as a file and as an element of the page.

    Args:
        evaluated: The study.
        folder: Where the files go.
    """

    def __init__(self, evaluated: Judgement, folder: Path) -> None:
        self.evaluated, self.folder = evaluated, folder

    def _kept(self, display: Display, name: str, description: str) -> str:
        display.save(self.folder / f"{name}.svg")
        return display.svg(description)

    def overview(self) -> dict[str, str]:
        """The flow diagram and the forest plots."""
        from torchxrayvision.plots import forest
        from torchxrayvision.report.flow import flow_svg

        evaluated = self.evaluated
        flow = flow_svg(evaluated.study)
        _write_text(self.folder / "flow.svg", flow)
        made = {"flow": flow}
        areas = evaluated.table[evaluated.table["measure"] == "auroc"]
        shown = forest(areas, reference=0.5, title="AUROC of each finding", measure="AUROC")
        made["areas"] = self._kept(shown, "auroc", "AUROC of each finding with its interval")
        if evaluated.gaps is not None and len(evaluated.gaps):
            made |= self._gaps(evaluated.gaps)
        if evaluated.differences is not None:
            part = evaluated.differences[evaluated.differences["measure"] == "auroc"]
            shown = forest(
                part, label=["models", "finding"], value="difference", reference=0,
                title="Difference of AUROC", measure="first minus second",
            )  # fmt: skip
            made["differences"] = self._kept(shown, "differences", "Differences of AUROC")
        return made

    def _gaps(self, gaps: pd.DataFrame) -> dict[str, str]:
        from torchxrayvision.plots import forest

        made = {}
        for measure in ("auroc", "sensitivity"):
            part = gaps[(gaps["measure"] == measure) & gaps["gap"].notna()]
            if not len(part):
                continue
            part = part.assign(pair=part["subgroup"] + " v " + part["rest"])
            title = f"Gap of {_MEASURES[measure]} to the rest"
            shown = forest(
                part, label=["pair", "finding"], value="gap", reference=0, title=title,
                measure="subgroup minus rest",
            )  # fmt: skip
            name = f"gaps-{measure}"
            made[name] = self._kept(shown, name, title + ", by subgroup and finding")
        return made

    def of_finding(self, name: str) -> list[str]:
        """The figures of one finding; none where it has one class only."""
        from torchxrayvision import plots

        evaluated, study = self.evaluated, self.evaluated.study
        j = study.findings.index(name)
        if j not in _good(evaluated):
            return []
        truth, given, codes = study.labels[:, j], study.scores[:, j], study.codes
        limit = evaluated.thresholds.get(name)
        more: dict[str, Any] = {"threshold": limit, "patient_ids": codes}
        shown: list[Display] = [
            plots.roc(truth, given, **more),
            plots.precision_recall(truth, given, **more),
            plots.scores(truth, given, threshold=limit),
        ]
        if evaluated.has_probabilities:
            chances = probabilities_of(given, str(study.kind))
            shown += [
                plots.reliability(truth, chances, patient_ids=codes),
                plots.decision_curve(truth, chances, patient_ids=codes),
            ]
        plain = "".join(c if c.isalnum() else "-" for c in name).lower()
        return [
            self._kept(display, f"{plain}-{display.kind}", f"{display.kind} of {name}")
            for display in shown
        ]


def _shown(evaluated: Judgement) -> dict[str, tuple[list[str], list[list[str]]]]:
    """Tables of the page: columns and rows of text."""
    made = {"main": _pivot(evaluated, ("auroc", "average_precision"), counts=True)}
    if evaluated.thresholds:
        more = [m for m in ("ppv_at_prevalence", "npv_at_prevalence") if _has(evaluated, m)]
        made["rates"] = _pivot(evaluated, (*_RATES, *more), threshold=True)
        confusion = _confusion(evaluated)
        made["confusion"] = (
            [*confusion.columns.drop("threshold")],
            [
                [row[0], *(f"{n:,}" for n in row[2:])]
                for row in confusion.itertuples(index=False, name=None)
            ],
        )
    if evaluated.targets is not None and len(evaluated.targets):
        made["targets"] = (
            ["finding", "rate", "target", "achieved", "within"],
            [
                [
                    row["finding"], row["rate"], f"{row['target']:g}", evaluated.cell(row),
                    "yes" if row["low"] <= row["target"] <= row["high"] else "no",
                ]
                for row in evaluated.targets.to_dict("records")
            ],
        )  # fmt: skip
    if evaluated.has_probabilities:
        made["probabilities"] = _pivot(evaluated, _CALIBRATION)
    if evaluated.differences is not None:
        made["differences"] = _compared(evaluated.differences)
    if evaluated.gaps is not None:
        made["gaps"] = _gap_rows(evaluated.gaps)
    if evaluated.parts is not None:
        made["subgroups"] = _subgroup_rows(evaluated)
    return made


def _has(evaluated: Judgement, measure: str) -> bool:
    return bool((evaluated.table["measure"] == measure).any())


def _pivot(
    evaluated: Judgement, measures: Sequence[str], *, counts: bool = False, threshold: bool = False
) -> tuple[list[str], list[list[str]]]:
    head = ["finding", *(["n", "positives", "share", "patients"] if counts else [])]
    head += ["threshold"] if threshold else []
    rows = []
    for name in [*evaluated.study.findings, "mean"]:
        part = evaluated.table[evaluated.table["finding"] == name].set_index("measure")
        first = part.loc["auroc"]
        row = [name]
        if counts:
            share = "" if name == "mean" else f"{first['positives'] / max(first['n'], 1):.1%}"
            row += [f"{first[c]:,}" for c in ("n", "positives")] + [share, f"{first['patients']:,}"]
        if threshold:
            limit = evaluated.thresholds.get(name)
            row.append("" if limit is None else f"{limit:.4g}")
        row += [evaluated.cell(part.loc[m]) if m in part.index else "–" for m in measures]
        rows.append(row)
    return head + [_MEASURES[m] for m in measures], rows


def _p(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}" if value >= 0.001 else "< 0.001"


def _compared(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    shown = table[table["measure"].isin(["auroc", "sensitivity", "specificity", "brier"])]
    rows = [
        [
            row["finding"], row["models"], _MEASURES[row["measure"]], f"{row['first']:.3f}",
            f"{row['second']:.3f}", _signed(row, "difference"), _p(row["p"]), _p(row["p_holm"]),
        ]
        for row in shown[shown["difference"].notna()].to_dict("records")
    ]  # fmt: skip
    head = ["finding", "models", "measure", "first", "second", "difference", "p", "p (Holm)"]
    return head, rows


def _gap_rows(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            row["finding"], f"{row['subgroup']} v {row['rest']}", _MEASURES[row["measure"]],
            f"{row['value']:.3f}", f"{row['value_of_rest']:.3f}", _signed(row, "gap"),
            _p(row["p"]), _p(row["p_holm"]),
        ]
        for row in table[table["gap"].notna()].to_dict("records")
    ]  # fmt: skip
    head = ["finding", "subgroups", "measure", "subgroup", "rest", "gap", "p", "p (Holm)"]
    return head, rows


def _signed(row: Any, name: str) -> str:
    if math.isnan(row["low"]):
        return f"{row[name]:+.3f} (no interval)"
    return f"{row[name]:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"


def _subgroup_rows(evaluated: Judgement) -> tuple[list[str], list[list[str]]]:
    """The mean of every subgroup."""
    if evaluated.parts is None:
        raise EvaluationError("no subgroups")
    means = evaluated.parts[evaluated.parts["finding"] == "mean"]
    rows = []
    for (attribute, subgroup), part in means.groupby(["attribute", "subgroup"], sort=False):
        by = part.set_index("measure")
        first = by.loc["auroc"]
        cells = [evaluated.cell(by.loc[m]) for m in ("auroc", "sensitivity", "specificity")]
        counts = [f"{first['n']:,}", f"{first['patients']:,}", str(first["findings"])]
        rows.append([str(subgroup), str(attribute), *counts, *cells])
    head = ["subgroup", "by", "images", "patients", "findings", "mean AUROC"]
    return [*head, "mean sensitivity", "mean specificity"], rows

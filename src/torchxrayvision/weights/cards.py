"""One card for every weight: what it is, for whom, how good, under which terms.

`ModelCard.of` makes it out of a record of weights, `ModelCard.of_config` out of a saved model.
It is written as JSON, as Markdown, and as Markdown under the metadata that the Hugging Face Hub
reads (https://huggingface.co/docs/hub/model-cards), which `report` uses for evaluated models too.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from torchxrayvision.facts import LIBRARY, PackagedFile
from torchxrayvision.weights.config import NOT_STATED, TENSORS_NAME
from torchxrayvision.weights.registry import card_of, get_weights_entry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torchxrayvision.facts import License, Reference
    from torchxrayvision.weights.config import ModelConfig
    from torchxrayvision.weights.registry import Weights, WeightsEnum

# Licences that the Hub has an identifier for; any other is "other", with its name and address.
_HUB_LICENSES: Final = {
    "Apache-2.0": "apache-2.0",
    "MIT": "mit",
    "BSD-3-Clause": "bsd-3-clause",
    "CC BY 4.0": "cc-by-4.0",
    "CC BY-SA 4.0": "cc-by-sa-4.0",
    "CC BY-NC 4.0": "cc-by-nc-4.0",
    "CC BY-NC-SA 4.0": "cc-by-nc-sa-4.0",
    "CC0-1.0": "cc0-1.0",
}
_TASKS: Final = {
    "logit": "image-classification",
    "probability": "image-classification",
    "log-probability": "image-classification",
    "mask": "image-segmentation",
    "years": "image-classification",
    "image": "image-to-image",
    "embedding": "image-feature-extraction",
    "similarity": "zero-shot-image-classification",
}
_SEGMENTERS: Final = ("pspnet", "unet")
LIMITS: Final = (
    "For research; not a medical device. Figures hold for patients and devices like those of the "
    "test set they were measured on, and a threshold for the population it was chosen on."
)
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_NO_WORDS: Final = ("true", "false", "yes", "no", "on", "off", "null", "y", "n")
_MANY: Final = 40  # outputs; more are listed in a paragraph
_NAMELESS: Final = {
    "embedding": "Gives features and no findings.",
    "similarity": "Compares images with texts, which are given with each call.",
}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One figure of a card.

    Args:
        dataset: Test set.
        finding: Output, or ``"mean"``.
        measure: ``"auroc"``, ``"dice"``, ``"average_precision"`` or ``"brier"``.
        value: What was measured.
        low: Lower end of the 95 % interval, or None.
        high: Upper end, or None.
        positives: Images that show it, of `images`; None where nobody says.
        images: Images of the test set, or None.
    """

    dataset: str
    finding: str
    measure: str
    value: float
    low: float | None = None
    high: float | None = None
    positives: int | None = None
    images: int | None = None

    def __str__(self) -> str:
        text = f"{self.value:.3f}"
        if self.low is None or self.high is None:  # as published, with two digits or three
            return text.removesuffix("0")
        counted = "" if self.positives is None else f"; {self.positives} of {self.images}"
        return f"{text} ({self.low:.3f} to {self.high:.3f}{counted})"


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What there is to know of one set of weights.

    Args:
        name: Of the weights.
        aliases: Shorter names.
        architecture: The network.
        task: What it is for, in the words of the Hub, such as ``"image-classification"``.
        description: One paragraph.
        targets: Name of each output in order; ``""`` where it was not trained.
        trained: Whether each output was.
        operating_points: For each output, None where there is none; None for no points.
        compat_points: Those of 1.5.7, where they are others; else None.
        ppv80: For each output the probability with a positive predictive value of 0.8, or None.
        input_resolution: Side of the square input in pixels; None takes any.
        pixel_range: Least and largest pixel value of the input.
        preprocessing: ``crop``, ``mean`` and ``deviation``, where the input is not only rescaled.
        output: What a raw output is.
        trained_on: Codes of the training sets.
        license: Terms.
        reference: What to cite.
        metrics: What was measured.
        metrics_source: By whom, and on what.
        about: More facts, name to text.
        file: Name, address, SHA-256, size, certainty and container of the file of tensors;
            `copies`, addresses of the same bytes; and `beside`, name to address of other files of
            the release that the network needs.
        limits: For what it must not be used.
        missing: What only people know and nobody has written yet.
    """

    name: str
    architecture: str
    task: str
    targets: tuple[str, ...]
    trained: tuple[bool, ...]
    license: License
    reference: Reference
    aliases: tuple[str, ...] = ()
    description: str = ""
    operating_points: tuple[float | None, ...] | None = None
    compat_points: tuple[float | None, ...] | None = None
    ppv80: tuple[float | None, ...] | None = None
    input_resolution: int | None = None
    pixel_range: tuple[float, float] = (-1024.0, 1024.0)
    preprocessing: Mapping[str, Any] | None = None
    output: str = "logit"
    trained_on: tuple[str, ...] = ()
    metrics: tuple[Measured, ...] = ()
    metrics_source: str = ""
    about: Mapping[str, str] = field(default_factory=dict)
    file: Mapping[str, Any] = field(default_factory=dict)
    limits: str = LIMITS
    missing: tuple[str, ...] = ()

    @classmethod
    def of(cls, weights: str | Weights | WeightsEnum) -> ModelCard:
        """The card of weights: published ones, and those that a user added.

        Args:
            weights: Name, alias, record or enum member.

        Raises:
            UnknownNameError: If nothing has that name.

        Example:
            >>> ModelCard.of("all").license.name
            'Apache-2.0'
        """
        entry = get_weights_entry(weights)
        points, compat = _points(entry.operating_points), _points(entry.compat_operating_points)
        preprocessing = entry.preprocessing
        return cls(
            name=entry.name,
            aliases=entry.aliases,
            architecture=entry.architecture,
            task=_task(entry.architecture, entry.output),
            description=entry.description,
            targets=entry.targets,
            trained=entry.trained,
            operating_points=points,
            compat_points=None if compat == points else compat,
            ppv80=_points(entry.ppv80),
            input_resolution=entry.input_resolution,
            pixel_range=entry.pixel_range,
            preprocessing=None if preprocessing is None else _fields(preprocessing),
            output=entry.output,
            trained_on=entry.trained_on,
            license=entry.license,
            reference=entry.reference,
            metrics=tuple(_measured(entry)),
            metrics_source=entry.metrics_source,
            about=card_of(entry).get("about", {}),
            file={
                "name": entry.file.filename,
                "url": entry.url,
                "sha256": entry.file.sha256,
                "bytes": entry.file.size,
                "certainty": entry.file.certainty if entry.file.sha256 else "not published",
                "container": entry.container,
                "installed": isinstance(entry.file, PackagedFile),
                "copies": list(getattr(entry.file, "copies", ())),
                "beside": {file.url.rpartition("/")[2]: file.url for file in entry.companions},
            },
        )

    @classmethod
    def of_config(cls, config: ModelConfig, name: str = "") -> ModelCard:
        """The card of a saved model.

        Args:
            config: Its `config.json`.
            name: What it is called; the name of its weights by default.
        """
        provenance = {
            name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for name, value in config.provenance.items()
        }
        return cls(
            name=name or config.weights or "unnamed",
            architecture=config.architecture,
            task=_task(config.architecture, config.raw),
            description=config.description,
            targets=config.targets,
            trained=tuple(
                config.weights is not None and bool(t) and t not in config.untrained
                for t in config.targets
            ),
            operating_points=config.operating_points,
            input_resolution=config.input_resolution,
            preprocessing=config.preprocessing,
            output=config.raw,
            trained_on=config.trained_on,
            license=config.license or NOT_STATED,
            reference=config.reference or LIBRARY,
            metrics=tuple(
                Measured(dataset=test, finding=finding, measure="auroc", value=value)
                for test, rows in config.metrics.items()
                for finding, value in rows.items()
            ),
            metrics_source=config.metrics_source,
            about=provenance,
            file={
                "name": TENSORS_NAME,
                "sha256": config.sha256,
                "certainty": "certain",
                "container": "safetensors",
                "beside": dict.fromkeys(config.files, ""),
            },
            missing=() if config.license else ("the terms under which it may be used",),
        )

    def to_dict(self) -> dict[str, Any]:
        """The card as plain data, for JSON."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values |= {"license": _fields(self.license), "reference": _fields(self.reference)}
        values["metrics"] = [_fields(figure) for figure in self.metrics]
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }

    def to_markdown(self) -> str:
        """The card to read, without the metadata of the Hub."""
        parts = [f"# {self.name}", self.summary(), "## Use", self._use(), "## Limits", self.limits]
        if self.missing:
            parts.append(f"To be written by those who know: {', '.join(self.missing)}.")
        parts += ["## Citation", str(self.reference)]
        if self.reference != LIBRARY:
            parts.append(str(LIBRARY))
        return "\n\n".join(part for part in parts if part) + "\n"

    def summary(self) -> str:
        """What it is, its file and terms, and its outputs with what was measured, as Markdown."""
        facts = [(f"**{name}**", text) for name, text in self._facts() if text]
        parts = [self.description, _table(["", ""], facts), self._outputs()]
        return "\n\n".join(part for part in parts if part)

    def hub_metadata(self) -> dict[str, Any]:
        """The metadata that the Hugging Face Hub reads from the head of a card."""
        metadata: dict[str, Any] = {
            "model_name": self.name,
            "library_name": "torchxrayvision",
            **self._hub_license(),
            "pipeline_tag": self.task,
            "tags": ["radiology", "chest-x-ray", "medical"],
        }
        if self.architecture:  # without the library, which a tag's colon would name in another way
            metadata["tags"].append(self.architecture.rpartition(":")[2])
        if results := self._results():
            metadata["model-index"] = [{"name": self.name, "results": results}]
        return metadata

    def _hub_license(self) -> dict[str, str]:
        name = self.license.name
        if name == NOT_STATED.name:
            return {}
        if known := _HUB_LICENSES.get(name):
            return {"license": known}
        # The Hub takes a name of letters, digits and hyphens.
        words = "".join(c if c.isalnum() or c in ".-" else "-" for c in name).strip("-").lower()
        link = {"license_link": self.license.url} if self.license.url else {}
        return {"license": "other", "license_name": words, **link}

    def to_hub(self, body: str | None = None) -> str:
        """The card as `README.md` of a model on the Hub.

        Args:
            body: What follows the metadata; `to_markdown` by default.
        """
        head = [f"{name}: {_yaml(value)}" for name, value in self.hub_metadata().items()]
        return "\n".join(["---", *head, "---", "", body or self.to_markdown()])

    def _results(self) -> list[dict[str, Any]]:
        measures = {"auroc": "roc_auc", "average_precision": "average_precision",
                    "brier": "brier_score", "dice": "dice"}  # fmt: skip
        results = []
        for test in dict.fromkeys(figure.dataset for figure in self.metrics):
            figures = [figure for figure in self.metrics if figure.dataset == test]
            # Of each finding there may be one; the Hub compares single numbers.
            means = [figure for figure in figures if figure.finding == "mean"]
            rows = [
                {
                    "type": measures.get(figure.measure, figure.measure),
                    "name": f"{figure.measure} of {figure.finding}",
                    "value": round(figure.value, 4),
                }
                for figure in means or figures
            ]
            where = {"name": test, "type": "private"}
            task = {"type": self.task, "name": self.task.replace("-", " ")}
            results.append({"task": task, "dataset": where, "metrics": rows})
        return results

    def _facts(self) -> list[tuple[str, str]]:
        side = f"{self.input_resolution} x {self.input_resolution} pixels, "
        return [
            ("network", self.architecture),
            ("input", f"{side if self.input_resolution else ''}one grey channel, "
                      f"{self.pixel_range[0]:g} (air) to {self.pixel_range[1]:g}"),
            ("preprocessing", ", ".join(f"{k} {v}" for k, v in (self.preprocessing or {}).items())),
            ("raw output", self.output),
            ("trained on", ", ".join(self.trained_on)),
            *self._file_facts(),
            ("licence", terms_of(self.license)),
            ("reference", cited(self.reference)),
            *self._means(),
            ("figures from", self.metrics_source),
            *self.about.items(),
        ]  # fmt: skip

    def _file_facts(self) -> list[tuple[str, str]]:
        known = self.file
        where = ", installed with the package" if known.get("installed") else ""
        digest = f"`{known['sha256']}` ({known['certainty']})" if known.get("sha256") else ""
        size = known.get("bytes")
        return [
            ("file", f"{_link(str(known.get('name') or ''), known.get('url') or '')}{where}"),
            ("second source", " ".join(_link("Hub", url) for url in known.get("copies", ()))),
            ("bytes", f"{size:,}" if size else "not published" if known.get("url") else ""),
            ("SHA-256", digest or "not published"),
            ("beside it", ", ".join(_link(k, url) for k, url in known.get("beside", {}).items())),
            ("container", str(known.get("container", "")).replace("_", " ")),
        ]

    def _means(self) -> list[tuple[str, str]]:
        """Where only the mean over all outputs is known."""
        alone = [m for m in self.metrics if (m.measure, m.dataset) not in self._columns()]
        by_measure: dict[str, list[str]] = {}
        for m in alone:
            by_measure.setdefault(_measure(m.measure), []).append(f"{m} on {m.dataset}")
        return [(f"mean {name}", "; ".join(texts)) for name, texts in by_measure.items()]

    def _columns(self) -> list[tuple[str, str]]:
        """Measures and test sets with a figure for each output."""
        found = ((m.measure, m.dataset) for m in self.metrics if m.finding != "mean")
        return list(dict.fromkeys(found))

    def _outputs(self) -> str:
        """The outputs in order, with operating points and what was measured of each."""
        if self.output in _NAMELESS and not any(self.targets):
            return _NAMELESS[self.output]
        if len(self.targets) > _MANY:
            return f"Outputs, in order: {', '.join(self.targets)}."
        points = [
            ("operating point", self.operating_points, ".6g"),
            ("1.5.7's", self.compat_points, ".6g"),
            ("ppv80", self.ppv80, ".4g"),
        ]
        points = [column for column in points if any(p is not None for p in column[1] or ())]
        columns = self._columns()
        figures = {(m.measure, m.dataset, m.finding): str(m) for m in self.metrics}
        rows = []
        for index, (target, known) in enumerate(zip(self.targets, self.trained, strict=True)):
            name = target if known else f"{target} (untrained)" if target else "*untrained*"
            shown = [_number((values or ())[index], form) for _, values, form in points]
            measured = [figures.get((*column, target), "") for column in columns]
            rows.append([str(index), name, *shown, *measured])
        if any((*column, "mean") in figures for column in columns):
            means = [figures.get((*column, "mean"), "") for column in columns]
            rows.append(["", "**mean**", *("" for _ in points), *means])
        named = [name for name, *_ in points] + [f"{_measure(m)} {test}" for m, test in columns]
        return _table(["#", "output", *named], rows, right=(0, *range(2, 2 + len(named))))

    def _use(self) -> str:
        lines = [
            "```python",
            "import torchxrayvision as xrv",
            "",
            'model = xrv.models.from_pretrained("owner/name")  # or a folder of it',
            "```",
        ]
        return "\n".join(lines)


def _yaml(value: Any) -> str:
    """A value as YAML: a plain word, or JSON, which quotes what YAML would read in its own way."""
    plain = isinstance(value, str) and _WORD.fullmatch(value) and value.lower() not in _NO_WORDS
    return str(value) if plain else json.dumps(value)


def _task(architecture: str, output: str) -> str:
    if architecture.startswith(_SEGMENTERS):
        return _TASKS["mask"]
    return _TASKS.get(output, _TASKS["logit"])


def _points(values: Sequence[float] | None) -> tuple[float | None, ...] | None:
    """With None where there is none, which JSON has and NaN is not."""
    return None if values is None else tuple(None if math.isnan(v) else v for v in values)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _measure(name: str) -> str:
    return {"auroc": "AUROC", "dice": "Dice"}.get(name, name.replace("_", " "))


def _link(text: str, url: str) -> str:
    return f"[{text}]({url})" if url else text


def cited(reference: Reference) -> str:
    """A reference as Markdown, its title linked."""
    venue = f" *{reference.venue}*" if reference.venue else ""
    authors = reference.authors.rstrip(".")
    return f"{authors}. {_link(reference.title, reference.url)}.{venue} {reference.year}"


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in type(record).__dataclass_fields__}


def _measured(entry: Weights) -> list[Measured]:
    """What the record says, with the intervals of the package's own card where there is one."""
    card = card_of(entry)
    tables = [("auroc", {test: dict(rows) for test, rows in entry.metrics.items()})]
    tables = [("auroc", card.get("auroc", tables[0][1])), ("dice", card.get("dice", {}))]
    found = []
    for measure, tests in tables:
        for test, rows in tests.items():
            for finding, held in rows.items():
                row = held if isinstance(held, dict) else {"value": held}
                counted = finding != "mean"  # of several outputs there is no one number
                ends: dict[str, Any] = {k: row.get(k) for k in ("low", "high")}
                ends["positives"] = row.get("positives") if counted else None
                ends["images"] = row.get("n") if counted else None
                found.append(
                    Measured(
                        dataset=test, finding=finding, measure=measure, value=row["value"], **ends
                    )
                )
    return found


def terms_of(license: License) -> str:  # noqa: A002 - its name
    """Terms as Markdown: their name, whether commercial use is allowed, what else is known."""
    name = _link(license.name, license.url)
    use = {True: "Commercial use allowed", False: "No commercial use", None: ""}
    parts = [name, use[license.commercial], license.note.rstrip(".")]
    return ". ".join(part for part in parts if part)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    rule = ["---:" if column in right else "---" for column in range(len(header))]
    lines = [header, rule, *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")

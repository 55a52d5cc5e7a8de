"""Cards of datasets and weights as pages of the site, and lists of them that can be filtered.

The words are those of docs/datasets.md and docs/weights.md, which `build_docs.py` makes; here they
are cut into one page per section. What can be filtered by is read from the same records.
"""

from __future__ import annotations

import html
import math
import re
from statistics import fmean

from docs_markdown import anchor
from torchxrayvision import datasets, weights

SECTION = re.compile(r"^## ", re.MULTILINE)
# What stands before the facts of each card.
OPENING = {
    "datasets": "After this page you know what the release holds, how its labels are made, where "
    "it is, and how to construct the dataset.",
    "weights": "After this page you know what the network says, what it was trained on, what has "
    "been measured, and on which terms you may use the file.",
}


def sections(page):
    """Heading to text of a made page, its introduction under the empty name."""
    first, *others = SECTION.split(page)
    made = {"": first}
    for part in others:
        heading, _, text = part.partition("\n")
        made[heading.strip()] = text.strip()
    return made


def cards(page, kind):
    """File name to text: a page per section of docs/datasets.md or docs/weights.md."""
    return {
        f"{anchor(name)}.md": f"# {name}\n\n{OPENING[kind]}\n\n{text}\n"
        for name, text in sections(page).items()
        if name
    }


# --------------------------------------------------------------------------------------- facets


def use_of(commercial):
    return {True: "commercial use allowed", False: "no commercial use"}.get(
        commercial, "see the terms"
    )


def access_of(card):
    """What it takes to get a release, by the name of its terms."""
    name = card.license["name"]
    if name.startswith("Whatever"):
        return "your own"
    for part, text in (
        ("as this package", "made by the package"),
        ("PhysioNet", "account, training, agreement"),
        ("Agreement", "agreement"),
        ("agreement", "agreement"),
        ("challenge", "rules of a challenge"),
        ("Challenge", "rules of a challenge"),
        ("CC BY", "download"),
        ("No restriction", "download"),
        ("Public domain", "download"),
        ("Various", "download"),
    ):
        if part in name:
            return text
    return "see the terms"


def dataset_rows(findings_of):
    """Rows of the list of datasets: cells, and what each is filtered by."""
    for name in datasets.list_datasets():
        card = datasets.card(name)
        masks = [
            kind
            for kind, has in (
                ("findings", card.pathology_masks),
                ("anatomy", card.semantic_masks),
                ("boxes", card.boxes),
            )
            if has
        ]
        findings = list(findings_of(card))
        use = "commercial use allowed" if "Apache" in card.license["name"] else None
        use = use or use_of(card.license["commercial"])
        yield {
            "link": (f"cards/datasets/{anchor(name)}.html", name),
            "cells": [card.title, len(findings) or "", ", ".join(masks), use, access_of(card)],
            "facets": {
                "finding": findings,
                "masks": masks or ["none"],
                "licence": [use],
                "access": [access_of(card)],
                "knows": [
                    said
                    for column, said in (
                        ("patientid", "patient"),
                        ("age_years", "age"),
                        ("sex_male", "sex"),
                        ("view", "view"),
                    )
                    if column in card.shared_columns
                ]
                + (["official split"] if card.official_split else []),
            },
        }


def job_of(entry):
    """What a network is for, by what comes out of it."""
    attributes = ("race", "sex", "view", "age")
    if any(word in entry.name for word in attributes):
        return "attributes"
    if entry.output == "image":
        return "autoencoder"
    outlines = any(word in entry.architecture for word in ("unet", "pspnet"))
    return "segmentation" if outlines else "findings"


def weights_rows():
    """Rows of the list of weights: cells, and what each is filtered by."""
    for entry in weights.list_weights():
        own = bool(weights.card_of(entry))
        auroc = mean_auroc(entry)
        measured = "measured by this package" if own and auroc else "published" if auroc else ""
        pairs = zip(entry.targets, entry.trained, strict=True)
        targets = [target for target, trained in pairs if target and trained]
        yield {
            "link": (f"cards/weights/{anchor(entry.name)}.html", entry.name),
            "cells": [
                job_of(entry), entry.architecture, entry.input_resolution, len(targets),
                ", ".join(entry.trained_on), auroc, use_of(entry.license.commercial),
            ],
            "facets": {
                "for": [job_of(entry)],
                "output": targets if job_of(entry) == "findings" else [],
                "trained on": list(entry.trained_on),
                "AUROC": [measured or "not known"],
                "licence": [entry.license.name],
            },
        }  # fmt: skip


def mean_auroc(entry):
    """The mean over findings on each test that is known, as text."""
    parts = []
    for test, values in entry.metrics.items():
        numbers = [v for k, v in values.items() if k != "mean" and math.isfinite(v)]
        mean = values.get("mean", fmean(numbers) if len(numbers) > 1 else math.nan)
        if math.isfinite(mean):
            parts.append(f"{mean:.2f} ({test})")
        elif numbers:
            parts.append(f"{numbers[0]:.2f} ({test}, {next(iter(values))})")
    return ", ".join(parts)


# ----------------------------------------------------------------------------------------- list


def filterable(rows, header, label):
    """A table in HTML whose rows say what they can be filtered by; `site.js` does the rest.

    Without scripts it is a table of all rows.
    """
    rows = list(rows)
    choices: dict[str, list[str]] = {}
    for row in rows:
        for facet, values in row["facets"].items():
            known = choices.setdefault(facet, [])
            known += [value for value in values if value not in known]
    boxes = "".join(select(facet, sorted(values)) for facet, values in choices.items() if values)
    head = "".join(f"<th>{html.escape(text)}</th>" for text in header)
    body = "".join(row_html(row) for row in rows)
    return (
        f'<div class="xrv-filter"><form class="xrv-facets" aria-label="filter {label}">{boxes}'
        f'<output class="xrv-count">{len(rows)} of {len(rows)}</output>'
        '<button type="reset">show all</button></form>'
        f'<div class="xrv-scroll"><table class="table"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></div>"
    )


def select(facet, values):
    options = "".join(
        f'<option value="{html.escape(v, quote=True)}">{html.escape(v)}</option>' for v in values
    )
    return (
        f'<label>{html.escape(facet)} <select data-facet="{html.escape(facet, quote=True)}">'
        f'<option value="">any</option>{options}</select></label>'
    )


def row_html(row):
    target, name = row["link"]
    data = " ".join(
        f'data-{facet.replace(" ", "-")}="{html.escape("|".join(values), quote=True)}"'
        for facet, values in row["facets"].items()
    )
    cells = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row["cells"])
    identity = target.rpartition("/")[2].removesuffix(".html")
    return (
        f'<tr id="{identity}" {data}><td><a href="{target}"><code>{html.escape(name)}</code></a>'
        f"</td>{cells}</tr>"
    )

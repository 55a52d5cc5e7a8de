"""Write the pages of docs/ that are made of data: commands, datasets, weights, changes of labels.

    python tools/build_docs.py                   # write all of them
    python tools/build_docs.py --check           # fail if one is stale, write nothing
    python tools/build_docs.py weights datasets  # only these

The counts of docs/label-changes.md take about half a minute; the others a second or two.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from pathlib import Path

import numpy as np

from docs_commands import commands_page
from docs_markdown import MADE, anchor, link, page, table, wrapped
from torchxrayvision import datasets, weights
from torchxrayvision.weights.cards import cited, terms_of

DOCS = Path(__file__).parents[1] / "docs"


def prose(docstring):
    """The text of a docstring before its sections, as Markdown."""
    text = re.split(r"\n(?=(?:Args|Attributes|Example|Source|Raises):)", docstring)[0]
    return re.sub(r"``(.+?)``", r"`\1`", text).strip()


def section(docstring, name):
    """One section of a docstring as argument to text, lines joined."""
    found = re.search(rf"^{name}:\n((?:    .*\n?|\n)*)", docstring, re.MULTILINE)
    entries = re.findall(
        r"^    (\w+)(?: \([^)]*\))?: (.*(?:\n(?:        .*)?)*)",
        found.group(1) if found else "",
        re.MULTILINE,
    )
    return {key: re.sub(r"``(.+?)``", r"`\1`", " ".join(text.split())) for key, text in entries}


# ------------------------------------------------------------------------------------ datasets

COLUMNS = {
    "patientid": "patient",
    "offset_day_int": "day",
    "age_years": "age",
    "sex_male": "sex",
    "view": "view",
}
NOT_ABOUT_IT = {"imgpath", "views", "transform", "data_aug", "seed", "compat"}


def datasets_page():
    cards = [datasets.card(name) for name in datasets.list_datasets()]
    rows = [
        (
            link(f"`{c.name}`", f"#{anchor(c.name)}"),
            c.title,
            len(findings(c)) or "from the table",
            kinds_of_masks(c, short=True),
            ", ".join(text for name, text in COLUMNS.items() if name in c.shared_columns),
            "yes" if packaged(c) else "",
        )
        for c in cards
    ]
    header = ["class", "release", "findings", "masks", "knows", "table inside"]
    intro = wrapped(
        "After this page you can choose a dataset, and know what it takes to get it.",
        f"{len(cards)} datasets, one interface. *Knows* lists the shared columns that the source "
        "allows: patient (`patientid`), day of the study (`offset_day_int`), age (`age_years`), "
        "sex (`sex_male`, `sex_female`) and view. Where the *table is inside*, labels and counts "
        "need no download. *Verified* says which columns were seen in a release or a copy of its "
        "tables; the others are read by name and tolerantly. How to use them: "
        "[guide](guide.md#datasets). Read the terms of a release before you use it.",
    )
    return page(
        MADE,
        "# Datasets",
        intro,
        table(header, rows, right=(2,)),
        "Masks of the lungs and the heart can be added to several of them: [CheXmask](#chexmask).",
        *map(dataset_section, cards),
        "## CheXmask",
        prose(inspect.getdoc(datasets.CheXmask)),
        prose(inspect.getdoc(datasets.with_chexmask)),
        "```text\nwith_chexmask(dataset, source, *, min_dice=0.7, column=None)\n```",
        listed(section(inspect.getdoc(datasets.with_chexmask), "Args")),
    )


def kinds_of_masks(c, short=False):
    kinds = [
        ("findings", c.pathology_masks, "`pathology_masks`, keyed by the index of the finding"),
        ("anatomy", c.semantic_masks, "`semantic_masks`, keyed by name"),
        ("boxes", c.boxes, "`bbox`, rows of x, y, width, height"),
    ]
    return ", ".join(text if not short else kind for kind, has, text in kinds if has)


def findings(c):
    """The findings, those of the packaged table where the table decides."""
    return c.findings or (datasets.get_dataset_class(c.name)().pathologies if packaged(c) else [])


def packaged(c):
    """Whether the dataset can be made without any file of the release."""
    return any(c.tables.values()) and constructs(c)


def constructs(c):
    tables = datasets.get_dataset_class(c.name).spec.tables
    return all(t.packaged or t.optional for t in tables)


def dataset_section(c):
    cls = datasets.get_dataset_class(c.name)
    doc = inspect.getdoc(cls) or ""
    arguments = section(doc, "Args")
    inside = [f"`{argument}` (`{name}`)" for argument, name in c.tables.items() if name]
    facts = [
        ("release", link(c.title, c.homepage)),
        ("findings", ", ".join(findings(c)) or "those of the table"),
        ("views", views(c, arguments)),
        ("masks", kinds_of_masks(c)),
        ("columns", ", ".join(f"`{name}`" for name in c.shared_columns)),
        ("labels", "scores" if c.scores else ""),
        ("official split", "yes, `official_splits(dataset)`" if c.official_split else ""),
        ("tables inside", ", ".join(inside)),
        ("verified", c.verified),
        ("licence", terms_of(cls.spec.license)),
        ("reference", cited(cls.spec.reference)),
    ]
    notes = {
        name: text
        for name, text in arguments.items()
        if name not in NOT_ABOUT_IT and not text.startswith("See `SpecDataset`")
    }
    return page(
        f"## {c.name}",
        prose(doc),
        table(["", ""], [(f"**{key}**", value) for key, value in facts if value]),
        f"```text\n{signature(cls)}\n```",
        listed(notes),
    )


def listed(arguments):
    return "\n".join(f"- `{name}`: {text}" for name, text in arguments.items())


def views(c, arguments):
    if not c.default_views:
        return ""
    default = " and ".join(f'"{view}"' for view in c.default_views)
    listed = re.sub(r"[.;,]? ?None: .*", "", arguments.get("views", "")).rstrip(".")
    return f"{listed}; default {default}" if listed else f"default {default}"


def signature(cls):
    """The constructor without its types, one line if it fits."""
    parts, keyword = [], False
    for p in inspect.signature(cls).parameters.values():
        if p.kind is p.KEYWORD_ONLY and not keyword:
            parts, keyword = [*parts, "*"], True
        default = "USE_INCLUDED_FILE" if p.default == "USE_INCLUDED_FILE" else repr(p.default)
        parts.append(p.name if p.default is p.empty else f"{p.name}={default}")
    line = f"{cls.__name__}({', '.join(parts)})"
    if len(line) <= 100:
        return line
    lines, current = [], ""
    for part in parts:
        if len(current) + len(part) > 90:
            lines, current = [*lines, current.rstrip()], ""
        current += f"{part}, "
    return f"{cls.__name__}(\n    " + "\n    ".join([*lines, current.rstrip()]) + "\n)"


# ------------------------------------------------------------------------------------- weights


def weights_page():
    entries = weights.list_weights()
    header = ["name", "aliases", "network", "pixels", "output", "trained outputs", "trained on"]
    rows = [
        (
            link(f"`{e.name}`", f"#{anchor(e.name)}"),
            ", ".join(f"`{alias}`" for alias in e.aliases),
            e.architecture,
            e.input_resolution,
            e.output,
            f"{sum(e.trained)} of {len(e.targets)}",
            ", ".join(e.trained_on),
        )
        for e in entries
    ]
    intro = wrapped(
        "After this page you can choose a network by what it says, what it was trained on, how "
        "well it does as far as that is known, and its terms.",
        "`xrv weights list` shows the same, `xrv weights fetch NAME` downloads one, `xrv weights "
        "verify NAME` hashes the copy in the cache. *Certain*: independent sources agree on the "
        "checksum, so another file is an error. *Reported*: a single source names it, so another "
        "file is a warning. *Not published*: the first copy is trusted, recorded, and a later "
        "change refused ([guide](guide.md#offline-and-mirrors)). A *second source* is asked where "
        "the first one fails, and only bytes with the SHA-256 are taken. Weights of your own are "
        "added under a name: [own weights and the Hub](hub.md).",
        "An *operating point* is the probability that becomes 0.5 in the default output. "
        "*ppv80* is the probability at which four of five positive predictions were right on the "
        "data it was chosen on. AUROC is what the publisher measured; none of it was "
        "measured by this package, except for its own demonstration weights.",
    )
    return page(
        MADE, "# Weights", intro, table(header, rows, right=(3,)), *map(weights_section, entries)
    )


# Where a page of these docs says more of what has no outputs of its own.
MORE = {
    "embedding": "See [encoders](encoders.md).",
    "similarity": "See [zero-shot networks](encoders.md#words-instead-of-findings).",
}


def weights_section(e):
    card = weights.ModelCard.of(e)
    return page(f"## {card.name}", card.summary(), MORE.get(card.output, ""))


# ------------------------------------------------------------------------------- label changes

# The column that names the image, by packaged table.
IMAGE = {
    "nih": "Image Index",
    "nih_google": "Image Index",
    "rsna": "patientId",
    "chexpert": "Path",
    "padchest": "ImageID",
    "openi": "imageid",
    "siim": "ImageId",
    "vindr": "image_id",
}


def label_changes_page():
    cards = [datasets.card(name) for name in datasets.list_datasets()]
    cards = [c for c in cards if packaged(c)]
    rows = [row for c in cards for row in constructions(c)]
    header = ["dataset", "construction", "rows, 1.5.7", "rows", "images in both", "other labels"]
    header.append("same order up to row")
    intro = wrapped(
        "After this page you know how the labels of each packaged table differ from 1.5.7's.",
        'Every packaged table, counted in both modes: `compat="xrv-1.5"` gives the rows and '
        "labels of 1.5.7, the default the right ones. Reasons: "
        "[differences from 1.5.7](differences-from-1.5.7.md). Releases whose tables are not inside "
        "the package differ by the same rules and cannot be counted here.",
    )
    return page(
        MADE,
        "# Labels before and after",
        intro,
        "## Usual constructions",
        "*Other labels*: images in both whose labels differ in at least one finding. With one "
        "image per patient, the labels of 1.5.7 are often those of another image of the patient. "
        "*Same order up to row*: the first position whose image is another one, so that saved "
        "positions from there on name other images; `compat` restores them.",
        table(header, rows, right=(2, 3, 4, 5, 6)),
        *map(finding_changes, cards),
    )


def constructions(c):
    cls = datasets.get_dataset_class(c.name)
    yield construction(cls, "as it comes", {})
    if c.unique_patients and {"PA", "AP"} <= {str(v) for v in cls(views="*").csv["view"]}:
        yield construction(cls, 'views=["PA", "AP"]', {"views": ["PA", "AP"]})


def construction(cls, text, arguments):
    made = [cls(**arguments, compat=compat) for compat in ("xrv-1.5", None)]
    rows, (old, new) = [len(dataset) for dataset in made], map(keyed, made)
    shared = old.index.intersection(new.index)
    a, b = old.loc[shared], new.loc[shared]
    both = [name for name in b.columns if name in a.columns]
    left, right = a[both].to_numpy(), b[both].to_numpy()
    differ = ~((left == right) | (np.isnan(left) & np.isnan(right))).all(axis=1)
    counts = (rows[0], rows[1], len(shared), int(differ.sum()))
    names = [dataset.csv[IMAGE[cls.spec.tables[0].packaged]].astype(str) for dataset in made]
    pairs = enumerate(zip(*names, strict=False))
    moved = next((f"{i:,}" for i, (before, now) in pairs if before != now), "the end")
    said = f"`{text}`" if "=" in text else text
    return (f"`{cls.__name__}`", said, *(f"{n:,}" for n in counts), moved)


def keyed(dataset):
    """The labels by image. Several rows of an image, which 1.5.7 has in places, are one."""
    import pandas as pd

    column = dataset.csv[IMAGE[dataset.spec.tables[0].packaged]].astype(str)
    labels = pd.DataFrame(dataset.labels, index=column, columns=dataset.pathologies)
    return labels[~labels.index.duplicated()]


def finding_changes(c):
    cls = datasets.get_dataset_class(c.name)
    accepted = inspect.signature(cls).parameters
    wanted = {"views": "*", "unique_patients": False}
    arguments = {key: value for key, value in wanted.items() if key in accepted}
    old, new = (datasets.describe(cls(**arguments, compat=compat)) for compat in ("xrv-1.5", None))
    rows, same = [], 0
    for finding in dict.fromkeys([*old["findings"], *new["findings"]]):
        pair = [side["findings"].get(finding) for side in (old, new)]
        same += pair[0] == pair[1]
        rows.append((finding, *counts_of(pair)))
    size = f"{old['images']:,} rows in 1.5.7, {new['images']:,} here"
    if old["images"] == new["images"]:
        size = f"{new['images']:,} rows in both"
    head = f"All views, all images: {size}."
    if same == len(rows):
        return page(f"## {c.name}", f"{head} No finding differs.", present_only(rows))
    header = ["finding", "present, 1.5.7", "present", "change"]
    header += ["absent, 1.5.7", "absent", "unknown, 1.5.7", "unknown"]
    return page(f"## {c.name}", head, table(header, rows, right=range(1, len(header))))


def counts_of(pair):
    def shown(side, key):
        return "–" if side is None else f"{side[key]:,}"

    old, new = pair
    change = "" if None in pair else new["present"] - old["present"]
    cells = [shown(old, "present"), shown(new, "present"), f"{change:+,}" if change else ""]
    for key in ("absent", "unknown"):
        cells += [shown(old, key), shown(new, key)]
    return cells


def present_only(rows):
    columns = [(row[0], row[2], row[5], row[7]) for row in rows]
    return table(["finding", "present", "absent", "unknown"], columns, right=(1, 2, 3))


# ----------------------------------------------------------------------------------------- main

PAGES = {
    "commands": commands_page,
    "datasets": datasets_page,
    "weights": weights_page,
    "label-changes": label_changes_page,
}


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail if a page is stale")
    parser.add_argument("--to", type=Path, default=DOCS, help="folder of the pages")
    parser.add_argument("pages", nargs="*", help=f"of {', '.join(PAGES)}; all if none")
    arguments = parser.parse_args(argv)
    unknown = set(arguments.pages) - set(PAGES)
    if unknown:
        parser.error(f"no page {', '.join(sorted(unknown))}; there are {', '.join(PAGES)}")
    stale = []
    for name in arguments.pages or PAGES:
        path = arguments.to / f"{name}.md"
        text = PAGES[name]()
        if path.is_file() and path.read_text("utf-8") == text:
            continue
        stale.append(path.name)
        if not arguments.check:
            path.write_text(text, "utf-8")
            print(f"wrote {path}")
    if arguments.check and stale:
        print(f"stale: {', '.join(stale)}; run python tools/build_docs.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

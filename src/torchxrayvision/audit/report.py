"""The audit as one HTML page and CSV tables."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.csvtext import write_frame
from torchxrayvision.errors import counted
from torchxrayvision.files import write_atomically
from torchxrayvision.pages import environment

if TYPE_CHECKING:
    import pandas as pd

    from torchxrayvision.audit.run import Audit

PAGE: Final = "audit.html"
_MOST_PAIRS: Final = 24
_MOST_ROWS: Final = 40
_WIDTH: Final = 320


def write_report(audit: Audit, folder: Path) -> Path:
    """Write ``audit.html`` and the tables of an audit.

    Args:
        audit: What was found.
        folder: Made if absent. Gets ``issues.csv``, ``files.csv``, ``duplicates.csv``,
            ``confounding.csv``, ``suspicious.csv``, and ``drift.csv`` where there is a reference.

    Returns:
        The page.
    """
    import pandas as pd

    folder.mkdir(parents=True, exist_ok=True)
    issues = pd.DataFrame(
        [(i.severity, i.kind, i.count, i.text, " ".join(i.rows)) for i in audit.issues],
        columns=["severity", "kind", "count", "text", "rows"],
    )
    parts = {
        "issues": issues,
        "files": audit.images,
        "duplicates": audit.duplicates,
        "confounding": audit.confounding,
        "suspicious": audit.suspicious,
        "drift": audit.drift,
    }
    for name, table in parts.items():
        if name != "drift" or len(table.columns):
            write_frame(table, folder / f"{name}.csv", audit.provenance)
    page = folder / PAGE
    template = environment(Path(__file__).parent).get_template("audit.html")
    text = template.render(
        provenance=audit.provenance,
        audit=audit,
        verdict=_verdict(audit),
        cards=_cards(audit),
        pairs=_pictures(audit),
        confounding=_rows(audit.confounding, ["attribute", "label", "n", "positives"]),
        suspicious=_suspicious(audit.suspicious),
        drift=_rows(audit.drift, ["subgroup", "measure", "n", "reference"]),
    )
    with write_atomically(page) as part:
        part.write_text(text, "utf-8")
    return page


def _verdict(audit: Audit) -> str:
    if audit.blockers:
        return (
            f"{counted(len(audit.blockers), 'blocker')}: results on this collection would be wrong."
        )
    if any(i.severity == "warning" for i in audit.issues):
        return "No blocker. The warnings below deserve a look before results are believed."
    return "No blocker and no warning."


def _cards(audit: Audit) -> list[tuple[str, str, str]]:
    people = {p for p in audit.images["patient"].tolist() if p}
    return [
        ("files", f"{len(audit.images):,}", f"{int((audit.images['error'] != '').sum()):,} unread"),
        ("patients", f"{len(people):,}" if people else "unknown", "by their numbers"),
        ("pairs of one exposure", f"{len(audit.duplicates):,}", "see below"),
        ("issues", f"{len(audit.issues):,}", counted(len(audit.blockers), "blocker")),
    ]


def _rows(table: pd.DataFrame, facts: list[str]) -> list[list[str]]:
    """Rows of a table of AUROCs, those that are flagged first."""
    if not len(table):
        return []
    away = (table["auroc"].astype(float) - 0.5).abs()
    keys = (-away.fillna(-1).to_numpy(float), ~table["flagged"].to_numpy(bool))
    order = np.lexsort(keys)
    rows = []
    for row in table.iloc[order[:_MOST_ROWS]].to_dict("records"):
        shown = f"{row['auroc']:.3f}" if row["auroc"] == row["auroc"] else "none"
        ends = row["reason"] or f"{row['low']:.3f} to {row['high']:.3f}"
        mark = "flagged" if row["flagged"] else ""
        rows.append([*(str(row[name]) for name in facts), shown, str(ends), mark])
    return rows


def _suspicious(table: pd.DataFrame) -> list[list[str]]:
    rows = table.assign(away=(table["said"] - table["probability"]).abs().astype(float))
    rows = rows.sort_values("away", ascending=False, kind="stable").head(_MOST_ROWS)
    return [
        [r["path"], r["label"], "present" if r["said"] else "absent", f"{r['probability']:.2f}"]
        for r in rows.to_dict("records")
    ]


def _pictures(audit: Audit) -> list[dict[str, Any]]:
    """The first pairs side by side, those that were found by structure before equal files."""
    from torchxrayvision.inputs import expand, read_file

    exact = audit.duplicates["how"].isin(["same bytes", "same pixels"])
    chosen = audit.duplicates.assign(exact=exact).sort_values("exact", kind="stable")
    found = []
    for row in chosen.head(_MOST_PAIRS).to_dict("records"):
        pictures = []
        for side in ("first", "second"):
            try:
                (file,) = expand([row[side]])
                pictures.append(_png(read_file(file).to_array()[0]))
            except (OSError, ValueError):
                pictures.append(b"")
        found.append({**{str(k): v for k, v in row.items()}, "pictures": pictures})
    return found


def _png(grey: np.ndarray[Any, Any]) -> bytes:
    from PIL import Image

    levels = ((np.clip(grey, -1024, 1024) + 1024) * (255 / 2048)).astype(np.uint8)
    picture = Image.fromarray(levels)
    picture.thumbnail((_WIDTH, _WIDTH))
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()

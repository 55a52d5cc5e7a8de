"""What is wrong with a collection and its table: issues with their rows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from torchxrayvision.audit.duplicates import Pair, exposures
from torchxrayvision.errors import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pandas as pd
    from numpy.typing import NDArray

Severity = Literal["blocker", "warning", "note"]
_OLDEST: Final = 120
_AGES: Final = ("age", "age_years", "patient age", "patientage")
_NORMAL: Final = ("no finding", "normal", "no_finding", "nofinding")
_ALLOWED: Final = (0.0, 1.0, -1.0)
_MANY: Final = 0.05  # share of files that cannot be read from which on something is wrong at large


@dataclass(frozen=True, kw_only=True)
class Issue:
    """Something that a person should look at.

    Args:
        severity: ``"blocker"`` where results on this collection would be wrong, ``"warning"`` where
            they may be, ``"note"`` otherwise.
        kind: A word for the sort of issue, such as ``"patient in two splits"``.
        count: How many images, patients or rows.
        text: One sentence for a person.
        rows: Images that it is about, as they were named; at most a few hundred.
    """

    severity: Severity
    kind: str
    count: int
    text: str
    rows: tuple[str, ...] = ()


_MOST_ROWS: Final = 200


def issue(severity: Severity, kind: str, rows: Sequence[str], text: str) -> Issue:
    """An issue about some images.

    Args:
        severity: See `Issue`.
        kind: See `Issue`.
        rows: The images.
        text: See `Issue`.
    """
    shown = tuple(map(str, rows[:_MOST_ROWS]))
    return Issue(severity=severity, kind=kind, count=len(rows), text=text, rows=shown)


def file_issues(table: pd.DataFrame) -> Iterator[Issue]:
    """Files that cannot be read, or are no upright frontal chest radiograph.

    Args:
        table: Of `Images`.

    Yields:
        Issues.
    """
    bad = table.loc[table["error"] != "", "path"].tolist()
    if bad:
        worst: Severity = "blocker" if len(bad) > _MANY * len(table) else "warning"
        text = f"{counted(len(bad), 'file')} cannot be read; files.csv says why."
        yield issue(worst, "unreadable", bad, text)
    refused = table.loc[table["check"].str.startswith("refused"), "path"].tolist()
    if refused:
        text = counted(
            len(refused),
            "image is no upright frontal chest radiograph",
            "images are no upright frontal chest radiographs",
        )
        text += " by the quick screening."
        yield issue("warning", "not an upright frontal chest radiograph", refused, text)


def duplicate_issues(
    names: Sequence[str], pairs: Sequence[Pair], people: NDArray[Any], split: NDArray[Any] | None
) -> Iterator[Issue]:
    """One exposure twice, under two patients, or on two sides of a split.

    Args:
        names: Of the images.
        pairs: Of them, rows that show one exposure.
        people: Patient of each row, empty text where unknown.
        split: Part of each row, empty text for none; None without a split.

    Yields:
        Issues.
    """
    if not pairs:
        return
    exact = [p for p in pairs if p.how in ("same bytes", "same pixels")]
    second = [names[row] for row in sorted({pair.second for pair in pairs})]
    text = counted(len(second), "image repeats", "images repeat")
    text += f" an earlier one, {len(exact):,} of them exactly; see duplicates.csv."
    yield issue("warning", "duplicate", second, text)
    known = [p for p in pairs if people[p.first] and people[p.second]]
    aliases = [p for p in known if people[p.first] != people[p.second]]
    if aliases:
        rows = [names[p.second] for p in aliases]
        text = counted(len(rows), "exposure bears", "exposures bear") + " two patients."
        yield issue("warning", "one exposure, two patients", rows, text)
    if split is None:
        return
    crossing = [
        p for p in pairs
        if split[p.first] and split[p.second] and split[p.first] != split[p.second]
    ]  # fmt: skip
    if crossing:
        rows = [names[p.second] for p in crossing]
        text = counted(len(rows), "exposure is", "exposures are") + " in two parts of the split."
        yield issue("blocker", "exposure in two splits", rows, text)


def leak_issues(
    people: NDArray[Any], split: NDArray[Any] | None, pairs: Sequence[Pair]
) -> Iterator[Issue]:
    """Patients on two sides of a split, under one number or under two that one exposure tells.

    Args:
        people: See `duplicate_issues`.
        split: See `duplicate_issues`.
        pairs: See `duplicate_issues`.

    Yields:
        Issues, whose rows are patients.
    """
    if split is None:
        return
    direct = sorted(leaking_patients(people, split))
    if direct:
        text = counted(len(direct), "patient is", "patients are") + " in two parts of the split."
        yield issue("blocker", "patient in two splits", direct, text)
    united = united_patients(people, pairs)
    through = sorted(leaking_patients(united, split) - set(direct))
    told = [name for name in through if not set(name.split(" = ")) & set(direct)]
    if told:
        text = counted(len(told), "patient is", "patients are")
        text += " in two parts of the split under two numbers, which share an exposure."
        yield issue("blocker", "patient in two splits under two ids", told, text)
    alike = sorted(_alike_numbers(people, split))
    if alike:
        pairs_of = "of patient numbers in two parts of the split"
        text = counted(len(alike), f"pair {pairs_of} differs", f"pairs {pairs_of} differ")
        text += " in zeros, case or punctuation only; see whether they are one patient."
        yield issue("warning", "patient numbers that look alike", alike, text)


def leaking_patients(people: NDArray[Any], split: NDArray[Any]) -> set[str]:
    """Patients with images in more than one part.

    Args:
        people: Patient of each row, empty text where unknown.
        split: Part of each row, empty text for none.

    Example:
        >>> leaking_patients(np.array(["1", "1", "2"]), np.array(["train", "test", "test"]))
        {'1'}
    """
    seen: dict[str, set[str]] = {}
    for person, part in zip(people.tolist(), split.tolist(), strict=True):
        if person and part:
            seen.setdefault(person, set()).add(part)
    return {person for person, parts in seen.items() if len(parts) > 1}


def united_patients(people: NDArray[Any], pairs: Sequence[Pair]) -> NDArray[Any]:
    """Patients with one name where they share an exposure: ``"7 = 12"``.

    Args:
        people: Patient of each row, empty text where unknown.
        pairs: Rows that show one exposure.

    Returns:
        Names, of the shape of `people`.
    """
    known = sorted({person for person in people.tolist() if person})
    place = {person: at for at, person in enumerate(known)}
    links = [
        Pair(place[people[p.first]], place[people[p.second]], 1.0, "")
        for p in pairs
        if people[p.first] and people[p.second]
    ]
    exposure = exposures(len(known), links)
    members: dict[int, list[str]] = {}
    for at, first in enumerate(exposure.tolist()):
        members.setdefault(first, []).append(known[at])
    name = {person: " = ".join(members[int(exposure[at])]) for person, at in place.items()}
    return np.array([name.get(person, "") for person in people.tolist()], dtype=object)


def _alike_numbers(people: NDArray[Any], split: NDArray[Any]) -> Iterator[str]:
    plain: dict[str, dict[str, set[str]]] = {}
    for person, part in zip(people.tolist(), split.tolist(), strict=True):
        if person and part:
            bare = re.sub(r"[^a-z0-9]", "", str(person).lower()).lstrip("0")
            plain.setdefault(bare, {}).setdefault(str(person), set()).add(part)
    for numbers in plain.values():
        parts = set().union(*numbers.values())
        if len(numbers) > 1 and len(parts) > 1:
            yield " ~ ".join(sorted(numbers))


def table_issues(
    table: pd.DataFrame, values: pd.DataFrame, names: pd.Series[str], missing: Sequence[str]
) -> Iterator[Issue]:
    """What a table says that cannot be.

    Args:
        table: Rows of images that are there.
        values: Findings of these rows, as numbers.
        names: Their images.
        missing: Images that the table names and the folder lacks.

    Yields:
        Issues.
    """
    if missing:
        said = counted(len(missing), "row names", "rows name")
        yield issue("warning", "row without image", missing, f"{said} no image that is here.")
    odd = values.notna() & ~values.isin(_ALLOWED)
    if odd.to_numpy().any():
        rows = names[odd.any(axis=1)].tolist()
        text = counted(len(rows), "row has", "rows have")
        text += " labels that are neither 1, 0, -1 nor blank."
        yield issue("warning", "label out of range", rows, text)
    unknown = int((values == -1).to_numpy().sum())
    if unknown:
        text = counted(unknown, "label is", "labels are")
        text += " -1, which this package takes for unknown."
        yield Issue(severity="note", kind="uncertain labels", count=unknown, text=text)
    yield from _contradictions(values, names)
    for finding in values:
        known = values[finding][values[finding] >= 0]
        if len(known) and known.min() == known.max():
            word = "present" if known.iloc[0] == 1 else "absent"
            text = f"{finding} is {word} in all {len(known):,} rows that know it."
            yield Issue(severity="note", kind="label without contrast", count=len(known), text=text)
    yield from _ages(table, names)


def _contradictions(values: pd.DataFrame, names: pd.Series[str]) -> Iterator[Issue]:
    normal = [column for column in values if str(column).lower().strip() in _NORMAL]
    if not normal:
        return
    said = values[normal[0]] == 1
    others = [c for c in values if c not in normal and "device" not in str(c).lower()]
    both = said & (values[others] == 1).any(axis=1)
    if both.any():
        text = counted(int(both.sum()), "row says", "rows say") + f" {normal[0]} and a finding."
        yield issue("warning", "contradiction", names[both].tolist(), text)


def _ages(table: pd.DataFrame, names: pd.Series[str]) -> Iterator[Issue]:
    import pandas as pd

    for column in table:
        if str(column).lower() not in _AGES:
            continue
        text = table[column].astype(str).str.strip()
        years = pd.to_numeric(text.str.removesuffix("Y"), errors="coerce")
        bad = years.notna() & ((years < 0) | (years > _OLDEST))
        if bad.any():
            ages = counted(int(bad.sum()), "age", "ages")
            said = f"{ages} in column {column} below 0 or above {_OLDEST}."
            yield issue("warning", "impossible age", names[bad].tolist(), said)


def disagreeing_duplicates(
    names: Sequence[str], pairs: Iterable[Pair], values: pd.DataFrame
) -> Iterator[Issue]:
    """Images of one exposure whose labels differ.

    Args:
        names: Of the images.
        pairs: Rows that show one exposure.
        values: Labels of each row, NaN unknown.

    Yields:
        Issues.
    """
    given = values.to_numpy(float)
    found = []
    for pair in pairs:
        a, b = given[pair.first], given[pair.second]
        known = (a >= 0) & (b >= 0)
        if (a[known] != b[known]).any():
            found.append(f"{names[pair.first]} | {names[pair.second]}")
    if found:
        text = counted(len(found), "pair of images shows", "pairs of images show")
        text += " one exposure with different labels."
        yield issue("warning", "duplicates that disagree", found, text)

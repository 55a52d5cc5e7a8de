"""What the package knows about each dataset, as data: `list_datasets`, `card`."""

from __future__ import annotations

import difflib
import inspect
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.datasets.pipeline import SpecDataset
from torchxrayvision.errors import UnknownNameError

if TYPE_CHECKING:
    from torchxrayvision.datasets.base import Dataset

# ---- Counts that describe a dataset: findings, views, sex and age.

_DECADE = 10


def describe(dataset: Dataset) -> dict[str, Any]:
    """Count what a dataset holds; no image is read.

    Args:
        dataset: Any dataset or container.

    Returns:
        ``dataset`` (name), ``images``, ``patients`` (None where unknown), ``findings`` (finding to
        ``present``, ``absent``, ``unknown`` and, for scores, ``other``), and ``view``, ``sex``,
        ``age`` (value to images, empty where the source does not say; ages in decades).

    Example:
        >>> from torchxrayvision.datasets import RSNA_Pneumonia_Dataset
        >>> describe(RSNA_Pneumonia_Dataset(views=["PA", "AP"]))["images"]
        26684
    """
    csv = dataset.csv
    return {
        "dataset": type(dataset).__name__,
        "images": len(dataset),
        "patients": int(csv["patientid"].nunique()) if "patientid" in csv else None,
        "findings": _findings(dataset),
        "view": _values(csv["view"]) if "view" in csv else {},
        "sex": _sexes(csv),
        "age": _ages(csv["age_years"]) if "age_years" in csv else {},
    }


def _findings(dataset: Dataset) -> dict[str, dict[str, int]]:
    result = {}
    for name, counts in dataset.totals().items():
        present, absent, known = counts.get(1.0, 0), counts.get(0.0, 0), sum(counts.values())
        result[name] = {
            "present": present,
            "absent": absent,
            "unknown": len(dataset) - known,
            "other": known - present - absent,
        }
    return result


def _values(column: Any) -> dict[str, int]:
    counts = column.astype("object").where(column.notna(), "unknown").value_counts()
    return {str(value): int(count) for value, count in counts.items() if count}


def _sexes(csv: Any) -> dict[str, int]:
    if "sex_male" not in csv or "sex_female" not in csv:
        return {}
    male, female = (
        csv[name].eq(other=True).to_numpy(dtype=bool, na_value=False)
        for name in ("sex_male", "sex_female")
    )
    counts = {
        "male": int(male.sum()),
        "female": int(female.sum()),
        "unknown": int((~(male | female)).sum()),
    }
    return {sex: count for sex, count in counts.items() if count}


def _ages(column: Any) -> dict[str, int]:
    ages = column.to_numpy(dtype=float)
    known = ages[np.isfinite(ages)]
    decades, counts = np.unique(known // _DECADE, return_counts=True)
    result = {
        f"{int(decade) * _DECADE}-{int(decade) * _DECADE + _DECADE - 1}": int(count)
        for decade, count in zip(decades, counts, strict=True)
    }
    if len(known) < len(ages):
        result["unknown"] = len(ages) - len(known)
    return result


@dataclass(frozen=True, kw_only=True)
class Card:
    """Facts about one dataset, out of its spec.

    Attributes:
        name: Public name of the class.
        title: Name of the release.
        summary: First line of the class's docstring.
        reference: Fields of the publication.
        license: Fields of the terms.
        homepage: Where the release is.
        findings: In order; empty where the table itself decides.
        default_views: Views when the caller names none; empty where the source has no views.
        shared_columns: Shared csv columns it offers.
        tables: Table argument to the name of the packaged copy, or None.
        pathology_masks: Whether it has masks of findings.
        semantic_masks: Whether it has masks of anatomy.
        boxes: Whether its samples have ``bbox``.
        official_split: Whether the release has one.
        unique_patients: Whether one image per patient can be chosen.
        scores: Whether labels are scores.
        verified: Which columns were seen in the release.
        signature: Of the constructor.
    """

    name: str
    title: str
    summary: str
    reference: dict[str, Any]
    license: dict[str, Any]
    homepage: str
    findings: tuple[str, ...]
    default_views: tuple[str, ...]
    shared_columns: tuple[str, ...]
    tables: dict[str, str | None]
    pathology_masks: bool
    semantic_masks: bool
    boxes: bool
    official_split: bool
    unique_patients: bool
    scores: bool
    verified: str
    signature: str

    def to_dict(self) -> dict[str, Any]:
        """The same as nested dicts, for JSON."""
        return asdict(self)


def _public(plain: str = "") -> dict[str, type[SpecDataset]]:
    """Every name of a dataset with a release of its own, aliases too.

    Args:
        plain: Only the names that `_plain` makes this of; empty for all.
    """
    package = sys.modules["torchxrayvision.datasets"]
    names = [name for name in package.__all__ if not plain or _plain(name) == plain]
    members = ((name, getattr(package, name)) for name in names)
    return {
        name: member
        for name, member in members
        if inspect.isclass(member) and issubclass(member, SpecDataset) and "spec" in vars(member)
    }


def list_datasets() -> list[str]:
    """Public names of all datasets, sorted.

    Returns:
        Names of classes of `torchxrayvision.datasets`.

    Example:
        >>> "NIH_Dataset" in list_datasets()
        True
    """
    own = [name for name, member in _public().items() if member.__name__ == name]
    return sorted(own, key=str.lower)


def get_dataset_class(name: str) -> type[SpecDataset]:
    """The class of a public name.

    Args:
        name: As in `list_datasets`; aliases work.

    Returns:
        The class.

    Raises:
        UnknownNameError: If there is none.
    """
    package = sys.modules["torchxrayvision.datasets"]
    found = getattr(package, name) if name in package.__all__ else None
    if not (inspect.isclass(found) and issubclass(found, SpecDataset)):
        raise _unknown(name)
    return found


def find_dataset_class(name: str) -> type[SpecDataset]:
    """The class that a person means.

    Args:
        name: The name of the class or the title of the release, ``"pc"`` or ``"padchest"``. Case,
            hyphens and the ending ``_Dataset`` do not matter, and a beginning will do if it is that
            of one class only: ``"nih"``, ``"chex"``, ``"rsna"``.

    Returns:
        The class.

    Raises:
        UnknownNameError: If there is none.

    Example:
        >>> find_dataset_class("rsna").__name__
        'RSNA_Pneumonia_Dataset'
    """
    wanted = _plain(name)
    named = set(_public(wanted).values())  # of which the other classes are not loaded
    if len(named) == 1:
        return named.pop()
    public = _public()
    # The whole name of a release means that one, though others may begin like it (PadChest-GR).
    titled = {cls for cls in public.values() if _plain(cls.spec.title) == wanted}
    begins = {cls for known, cls in public.items() if _plain(known).startswith(wanted)}
    for found in (titled, begins):
        if len(found) == 1:
            return found.pop()
    raise _unknown(name)


def _unknown(name: str) -> UnknownNameError:
    """The error for a name of no dataset, with the nearest one of all names and titles."""
    public = _public()
    spoken = {_plain(known): cls.__name__ for known, cls in public.items()}
    spoken |= {_plain(cls.spec.title): cls.__name__ for cls in public.values()}
    close = difflib.get_close_matches(_plain(name), spoken, n=1, cutoff=0.5)
    advice = f"did you mean {spoken[close[0]]!r}" if close else ""
    return UnknownNameError("dataset", name, list_datasets(), advice)


def _plain(name: str) -> str:
    """Letters and digits of a name, without what tells a class."""
    plain = "".join(c for c in name.lower() if c.isalnum())
    return plain.removesuffix("dataset")


def card(name: str) -> Card:
    """The card of a dataset.

    Args:
        name: As for `find_dataset_class`.

    Returns:
        Its facts.

    Raises:
        UnknownNameError: If there is none.

    Example:
        >>> card("NIH_Dataset").findings[:2]
        ('Atelectasis', 'Cardiomegaly')
    """
    cls = find_dataset_class(name)
    spec = cls.spec
    return Card(
        name=cls.__name__,
        title=spec.title,
        summary=(inspect.getdoc(cls) or "").partition("\n")[0],
        reference=asdict(spec.reference),
        license=asdict(spec.license),
        homepage=spec.homepage,
        findings=spec.findings.names or (),
        default_views=spec.default_views if spec.view is not None else (),
        shared_columns=(*(["view"] if spec.view is not None else []), *spec.columns),
        tables={table.argument: table.packaged for table in spec.tables},
        pathology_masks=spec.masks is not None,
        semantic_masks=spec.semantic is not None,
        boxes=spec.boxes is not None,
        official_split=spec.split is not None,
        unique_patients=spec.patient is not None,
        scores=spec.scores,
        verified=spec.verified,
        signature=f"{cls.__name__}{inspect.signature(cls)}",
    )

"""Images of public collections, by their names and by published cross-references.

RSNA's and SIIM's images are NIH's under names of their own. For RSNA the organisers published which
is which (`tables.load("rsna_nih")`); for SIIM nobody did, so that only pixels tell.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from torchxrayvision import tables
from torchxrayvision.audit.checks import Issue, issue
from torchxrayvision.errors import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

_NIH: Final = "NIH ChestX-ray14"
_RSNA: Final = "RSNA Pneumonia Detection Challenge"
_SIIM: Final = "SIIM-ACR Pneumothorax Segmentation"
# Packaged table, column that names images, name to show.
_PUBLIC: Final = (
    ("nih", "Image Index", _NIH),
    ("rsna", "patientId", _RSNA),
    ("siim", "ImageId", _SIIM),
    ("padchest", "ImageID", "PadChest"),
    ("vindr", "image_id", "VinDr-CXR"),
    ("openi", "imageid", "Open-i"),
)
_SUFFIX: Final = re.compile(
    r"(\.(png|jpe?g|jp[2cfhx]|j2[ck]|dcm|dicom|tiff?|bmp|webp|gz))+$", re.IGNORECASE
)


def stems_of(paths: Sequence[str]) -> pd.Series[str]:
    """Names of images without folders and endings.

    Args:
        paths: Of the images.

    Example:
        >>> stems_of(["a/00000001_000.png", "x.dcm.gz"]).tolist()
        ['00000001_000', 'x']
    """
    import pandas as pd

    last = pd.Series([re.split(r"[\\/]", path)[-1] for path in paths], dtype=object)
    return last.str.replace(_SUFFIX, "", regex=True)


def public_issues(paths: Sequence[str]) -> Iterator[Issue]:
    """Images of public collections, by their names, and of patients that NIH tests on.

    Args:
        paths: Of the images.

    Yields:
        Issues.
    """
    stems = stems_of(paths)
    seen = _seen(stems)
    for title, inside in seen.items():
        rows = [paths[at] for at in inside.index]
        text = counted(len(rows), "image has a name", "images have names")
        text += f" of {title}: do not train on it and test here."
        yield issue("note", "public images", rows, text)
    yield from _nih_relations(paths, nih_origins(seen))


def _seen(stems: pd.Series[str]) -> dict[str, pd.Series[str]]:
    """Title of each public collection to the names that are its own."""
    seen: dict[str, pd.Series[str]] = {}
    for name, column, title in _PUBLIC:
        known = tables.load(name, [column])[column].astype(str)
        known = known.str.replace(_SUFFIX, "", regex=True)
        inside = stems[stems.isin(set(known))]
        if len(inside):
            seen[title] = inside
    return seen


def nih_origins(seen: dict[str, pd.Series[str]]) -> dict[int, str]:
    """Row of each image that is NIH's to its name there, also where it bears RSNA's.

    Args:
        seen: Title of a collection to names by row.
    """
    origin: dict[int, str] = {}
    if _NIH in seen:
        origin |= _by_row(seen[_NIH])
    if _RSNA in seen:
        matches = tables.load("rsna_nih", ["patientId", "nih_image"]).dropna()
        image = dict(zip(matches["patientId"], matches["nih_image"].str[:-4], strict=True))
        origin |= {at: image[name] for at, name in _by_row(seen[_RSNA]).items() if name in image}
    return origin


def _by_row(names: pd.Series[str]) -> dict[int, str]:
    return dict(zip(names.index.tolist(), names.tolist(), strict=True))


def _nih_relations(paths: Sequence[str], origin: dict[int, str]) -> Iterator[Issue]:
    if not origin:
        return
    tested = {f"{number:08d}" for number in tables.load("nih_test")["Patient ID"]}
    rows = [paths[at] for at, image in origin.items() if image[:8] in tested]
    if rows:
        text = counted(len(rows), "image is of a patient", "images are of patients")
        text += " in NIH's official test list."
        yield issue("note", "patients of NIH's test list", rows, text)
    first: dict[str, int] = {}
    twice = [paths[at] for at, image in origin.items() if first.setdefault(image, at) != at]
    if twice:
        text = counted(len(twice), "image repeats", "images repeat")
        text += " one of NIH's, by their names or those of RSNA."
        yield issue("warning", "public image twice", twice, text)


def published_overlap(
    paths: Sequence[str], names: Sequence[str], reference: str
) -> Iterator[Issue]:
    """Images and patients that are in a reference too, as names and cross-references tell.

    Args:
        paths: Of the images.
        names: Of the images of the reference.
        reference: What to call it.

    Yields:
        Issues.
    """
    ours, theirs = stems_of(paths), stems_of(names)
    seen, known = _seen(ours), _seen(theirs)
    origin, origins = nih_origins(seen), nih_origins(known)
    images, patients = set(origins.values()), {image[:8] for image in origins.values()}
    public = {at for inside in seen.values() for at in inside.index.tolist()}
    same = public & set(ours.index[ours.isin(set(theirs))].tolist())
    same |= {at for at, image in origin.items() if image in images}
    if same:
        text = counted(len(same), "image is", "images are")
        text += f" in {reference} too, by their names or published cross-references."
        rows = [paths[at] for at in sorted(same)]
        yield issue("blocker", "published image of the reference", rows, text)
    people = sorted(at for at, image in origin.items() if at not in same and image[:8] in patients)
    if people:
        text = counted(
            len(people),
            "other image is of a patient who is",
            "other images are of patients who are",
        )
        text += f" in {reference} too."
        yield issue("blocker", "patient of the reference", [paths[at] for at in people], text)
    if (_SIIM in seen) != (_SIIM in known) and ({_NIH, _RSNA} & {*seen, *known}):
        rows = [paths[at] for at in seen.get(_SIIM, ours).index]
        text = (
            "SIIM's images are NIH's under names of their own, and no published table says which "
            "is which: only pixels tell, with the images of both."
        )
        yield issue("note", "no published cross-reference", rows, text)

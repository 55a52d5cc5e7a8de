"""What a `DatasetSpec` makes of a class: the signature of its constructor, and its docstring."""

from __future__ import annotations

import ast
import inspect
import os
import re
import textwrap
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

from torchxrayvision.datasets.release import USE_INCLUDED_FILE

if TYPE_CHECKING:
    import pandas as pd

    from torchxrayvision.datasets.base import Transform
    from torchxrayvision.datasets.spec import DatasetSpec

Compat = Literal["xrv-1.5"] | None
PathLike = str | os.PathLike[str] | None
TableLike: TypeAlias = "str | os.PathLike[str] | pd.DataFrame | None"
Views = str | Iterable[str] | None


class SharedArguments(TypedDict, total=False):
    """Arguments that all constructors share, where their sources have what they choose."""

    imgpath: PathLike
    views: Views
    transform: Transform | None
    data_aug: Transform | None
    seed: int
    unique_patients: bool
    pathology_masks: bool
    semantic_masks: bool
    nrows: int | None
    compat: Compat


class Arguments(SharedArguments, total=False):
    """All arguments of constructors; `DatasetSpec.parameters` says which, and in what order."""

    csvpath: TableLike
    bbox_list_path: TableLike
    chest_tube_csvpath: TableLike
    dicomcsv_path: TableLike
    dicomcsvpath: TableLike
    jsonpath: TableLike
    labelpath: TableLike
    labels_path: TableLike
    lungmaskpath: TableLike
    metacsvpath: TableLike
    reflacxpath: TableLike
    rib_fracture_csvpath: TableLike
    segmentation_jsonpath: TableLike
    splitcsvpath: TableLike
    test_bbox_csvpath: TableLike
    test_csvpath: TableLike
    test_json: TableLike
    train_bbox_csvpath: TableLike
    train_csvpath: TableLike
    train_json: TableLike
    tsnepacsv_path: TableLike
    xmlpath: TableLike
    imgzippath: PathLike
    maskpath: PathLike
    npzpath: PathLike
    anatomy_masks: bool
    consensus: Literal["any", "majority", "all"]
    extension: str
    extra_boxes: bool
    findings: Literal["padchest", "raw"]
    flat_dir: bool
    image_format: Literal["png", "dicom", "jpg"]
    labeler: Literal["chexpert", "negbio"] | None
    max_aspect_ratio: float | None
    n: int
    phases: int | Iterable[int]
    site: str
    size: int
    split: str | None
    threshold: float
    use_tsne_derived_view: bool
    version: Literal["ChestX-Det", "ChestX-Det10"]


SHARED_DEFAULTS: Mapping[str, Any] = {
    **dict.fromkeys(SharedArguments.__annotations__),
    **dict.fromkeys(("unique_patients", "pathology_masks", "semantic_masks"), False),
    "seed": 0,
}
"""Defaults of the arguments that all constructors share."""


def of_method(signature: inspect.Signature) -> inspect.Signature:
    """The same with `self` before it."""
    of_class = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return inspect.Signature([of_class, *signature.parameters.values()])


def signature_of(spec: DatasetSpec) -> inspect.Signature:
    """The signature of a constructor, out of the spec."""
    packaged = {table.argument: USE_INCLUDED_FILE for table in spec.tables if table.packaged}
    return signature(spec.parameters, packaged)


def signature(parameters: str, defaults: Mapping[str, Any]) -> inspect.Signature:
    """A signature with the usual defaults but for those given.

    Args:
        parameters: See `DatasetSpec`.
        defaults: Argument to its default, where `parameters` has none.
    """
    positional, _, keyword_only = parameters.partition(", *, ")
    kinds: dict[str, Any]
    kinds = dict.fromkeys(positional.split(", "), inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = [*filter(None, keyword_only.split(", ")), "compat"]
    kinds |= dict.fromkeys(named, inspect.Parameter.KEYWORD_ONLY)
    defaults, types, made = {**SHARED_DEFAULTS, **defaults}, Arguments.__annotations__, []
    for entry, kind in kinds.items():
        name, _, written = entry.partition("=")
        default = ast.literal_eval(written) if written else defaults.get(name)
        hint = types.get(name, inspect.Parameter.empty)
        made.append(
            inspect.Parameter(
                name,
                kind,
                default=inspect.Parameter.empty if default is ... else default,
                annotation=getattr(hint, "__forward_arg__", hint),
            )
        )
    return inspect.Signature(made)


_ENTRY = re.compile(r"^    (\w+): .*(?:\n {5,}.*)*", re.MULTILINE)


def described_arguments(docstring: str | None) -> dict[str, str]:
    """Name to entry of each argument in the section ``Args`` of a class's docstring."""
    _, _, rest = inspect.cleandoc(docstring or "").partition("\nArgs:\n")
    section = re.split(r"\n(?=\S)", rest)[0]
    return {entry[1]: entry[0] for entry in _ENTRY.finditer(section)}


def complete_docstring(
    docstring: str | None, names: Iterable[str], shared: Mapping[str, str], spec: DatasetSpec
) -> str | None:
    """The docstring of a dataset with what it need not repeat.

    Args:
        docstring: As its module has it.
        names: Arguments of the constructor, in order.
        shared: Entries of arguments that mean the same in every dataset.
        spec: Of the dataset; its reference becomes the section ``Source``.

    Returns:
        The text, indented like none; one without ``Args`` stays as it is.
    """
    if docstring is None or "\n    Args:\n" not in docstring:
        return docstring
    head, marker, rest = inspect.cleandoc(docstring).partition("\nArgs:\n")
    tail = re.split(r"\n(?=\S)", rest, maxsplit=1)[1:]
    entries = {**shared, **described_arguments(docstring)}
    parts = [head + marker + "\n".join(entries[name] for name in names if name in entries), *tail]
    if "\n    Source:\n" not in docstring:
        source = textwrap.fill(str(spec.reference), 96, break_on_hyphens=False)
        parts.append(f"Source:\n{textwrap.indent(source, '    ')}")
    return "\n\n".join(part.strip("\n") for part in parts)

"""What the package knows about a dataset as Croissant, the JSON-LD of MLCommons for datasets.

https://docs.mlcommons.org/croissant/docs/croissant-spec.html, version 1.0, with the responsible AI
vocabulary where the facts of a release tell. Tables that the package holds come with all their
columns and the SHA-256 of the file that they were taken from; of others the columns that the
package reads are named. Whoever has the table of labels of a dataset gives that too, and a program
that reads Croissant can read its rows.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from torchxrayvision import tables
from torchxrayvision.datasets.catalogue import find_dataset_class
from torchxrayvision.files import sha256_of
from torchxrayvision.labels import LABEL_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torchxrayvision.datasets.pipeline import SpecDataset
    from torchxrayvision.datasets.spec import DatasetSpec, Table

_VERSION: Final = "http://mlcommons.org/croissant/1.0"
_RAI: Final = "http://mlcommons.org/croissant/RAI/1.0"
_TERMS: Final = (
    "citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject",
    "fileSet", "format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField",
    "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate", "separator",
    "source", "subField", "transform",
)  # fmt: skip
_CONTEXT: Final = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _TERMS},
}
_KINDS: Final = {"bool": "sc:Boolean", "int": "sc:Integer", "uint": "sc:Integer",
                 "float": "sc:Float", "double": "sc:Float", "halffloat": "sc:Float",
                 "timestamp": "sc:Date", "date": "sc:Date"}  # fmt: skip
_SHARED: Final = {
    "patientid": ("sc:Text", "Number of the patient, as the release has it."),
    "offset_day_int": ("sc:Float", "Day of the study."),
    "age_years": ("sc:Float", "Age in years."),
    "sex_male": ("sc:Boolean", "Whether the patient is known to be male."),
    "sex_female": ("sc:Boolean", "Whether the patient is known to be female."),
    "view": ("sc:Text", "View, such as PA, AP or L."),
}
# What of a patient each shared column tells.
_PERSONAL: Final = {
    "patientid": "Numbers stand for patients.",
    "age_years": "Age.",
    "sex_male": "Sex.",
    "offset_day_int": "Days between studies of a patient.",
}
_FORMATS: Final = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "dicom": "application/dicom",
    "dcm": "application/dicom",
    "tiff": "image/tiff",
    "npz": "application/octet-stream",
}
# Words of a sentence that tells how labels came about, in the descriptions of the datasets.
_ABOUT_LABELS: Final = re.compile(
    r"\b(label\w*|radiologist\w*|reports?|annotat\w+|drawn|readers?|adjudicated)\b", re.IGNORECASE
)


def croissant(
    dataset: str | SpecDataset | type[SpecDataset], *, table: str | Path | None = None
) -> dict[str, Any]:
    """The metadata of a dataset as Croissant JSON-LD; no image is read, and no network asked.

    Args:
        dataset: A name as for `find_dataset_class`, a class, or a dataset that was built.
        table: What `export_parquet` wrote of it: its columns become a record set whose source is
            that file, named as it lies beside the metadata.

    Returns:
        Plain data for `json.dumps`: title, terms, citation, files with their hashes where they are
        known, and a record set per table.

    Raises:
        UnknownNameError: If nothing has that name.
        OSError: If the table cannot be read.

    Example:
        >>> held = croissant("nih")
        >>> held["@type"], held["recordSet"][0]["field"][0]["source"]["extract"]
        ('sc:Dataset', {'column': 'Image Index'})
    """
    cls = _class_of(dataset)
    spec = cls.spec
    described = inspect.cleandoc(inspect.getdoc(cls) or "")
    prose = re.split(r"\n(?=(?:Args|Attributes|Example|Source|Raises):)", described)[0].strip()
    files = [_file_of(t, spec) for t in spec.tables]
    records = [found for t in spec.tables if (found := _records_of(t, spec)) is not None]
    if table is not None:
        files.append(_label_file(Path(table)))
        records.append(_label_records(Path(table), spec))
    files.append(_images(spec))
    about: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [_VERSION, _RAI],
        "name": cls.__name__.removesuffix("_Dataset"),
        "alternateName": [spec.title],
        "description": prose.replace("``", "`"),
        "url": spec.homepage,
        "license": spec.license.url or spec.homepage,
        "conditionsOfAccess": ". ".join(filter(None, (spec.license.name, spec.license.note))),
        "creator": {"@type": "sc:Organization", "name": spec.reference.authors},
        "citeAs": str(spec.reference),
        "keywords": ["chest x-ray", "radiology", *(spec.findings.names or ())],
        "inLanguage": "en",
    }
    if any("sha256" not in file for file in files if file["@type"] == "cr:FileObject"):
        about["isLiveDataset"] = True  # Croissant's word for files without a published checksum
    return {**about, **_responsible(prose, spec), "distribution": files, "recordSet": records}


def _class_of(dataset: str | SpecDataset | type[SpecDataset]) -> type[SpecDataset]:
    if isinstance(dataset, str):
        return find_dataset_class(dataset)
    return dataset if isinstance(dataset, type) else type(dataset)


def _responsible(prose: str, spec: DatasetSpec) -> dict[str, Any]:
    """What the facts of a release tell of the responsible AI vocabulary."""
    personal = [text for name, text in _PERSONAL.items() if name in spec.columns]
    text = " ".join(prose.split()).replace("``", "`")
    about = [s for s in re.split(r"(?<=[.;]) ", text) if _ABOUT_LABELS.search(s)]
    known: dict[str, Any] = {
        "rai:personalSensitiveInformation": personal,
        "rai:dataAnnotationProtocol": " ".join(about),
    }
    return {name: value for name, value in known.items() if value}


def _file_of(table: Table, spec: DatasetSpec) -> dict[str, Any]:
    """A table of the release; where a copy is packaged, the file that it was taken from."""
    if table.packaged is not None:
        known = tables.info(table.packaged)
        address = known.url if known.url.startswith("https://") else spec.homepage
        return {
            "@type": "cr:FileObject",
            "@id": table.argument,
            "name": known.source,
            "description": _sentence(f"{known.title}. {known.note}"),
            "contentUrl": address,
            "encodingFormat": _format_of(known.source),
            "sha256": known.source_sha256,
        }
    return {
        "@type": "cr:FileObject",
        "@id": table.argument,
        "name": table.argument,
        "description": _sentence(table.description or "A table of the release"),
        "contentUrl": spec.homepage,
        "encodingFormat": _format_of(table.description),
    }


def _format_of(name: str) -> str:
    found = re.search(r"\.(csv|parquet|json|xml|zip|gz|xlsx?)\b", name.lower())
    kinds = {"parquet": "application/x-parquet", "json": "application/json", "xml": "text/xml"}
    return kinds.get(found[1] if found else "csv", "text/csv")


def _records_of(table: Table, spec: DatasetSpec) -> dict[str, Any] | None:
    if table.packaged is not None:
        columns = dict(_packaged_columns(table.packaged))
    else:
        first = table is spec.tables[0]
        columns = dict.fromkeys(_declared(spec), "sc:Text") if first else {}
    if not columns:
        return None
    return _record_set(
        table.argument,
        _sentence(table.description or f"Rows of the table {table.argument}"),
        [(name, kind, "") for name, kind in columns.items()],
    )


def _packaged_columns(name: str) -> Iterator[tuple[str, str]]:
    import pyarrow.parquet as pq

    schema = pq.read_schema(tables.path(name))
    for field in schema:
        if field.name in tables.info(name).columns:
            yield field.name, _kind(str(field.type))


def _kind(text: str) -> str:
    word = re.match(r"[a-z]+", text.removeprefix("dictionary<values="))
    return _KINDS.get(word[0] if word else "", "sc:Text")


def _declared(spec: DatasetSpec) -> list[str]:
    """Columns of the release that the declaration of a dataset names."""
    named = [spec.patient, spec.view, spec.split, *spec.columns.values()]
    texts = [name for name in named if isinstance(name, str)]
    columns = getattr(spec.findings, "columns", None)
    if isinstance(columns, str):
        texts.append(columns)
    elif columns:
        values = columns.values() if hasattr(columns, "values") else columns
        texts += [
            name for value in values for name in ([value] if isinstance(value, str) else value)
        ]
    return [name for name in dict.fromkeys(texts) if isinstance(name, str)]


def _label_file(table: Path) -> dict[str, Any]:
    with table.open("rb") as file:
        digest = sha256_of(file)
    return {
        "@type": "cr:FileObject",
        "@id": "labels",
        "name": table.name,
        "description": "One row per image: columns of the release and a column per finding.",
        "contentUrl": table.name,
        "contentSize": f"{table.stat().st_size} B",
        "encodingFormat": "application/x-parquet",
        "sha256": digest,
    }


def _label_records(table: Path, spec: DatasetSpec) -> dict[str, Any]:
    import pyarrow.parquet as pq

    scale = "A score." if spec.scores else "1 present, 0 absent, empty where nobody said."
    fields = []
    for field in pq.read_schema(table):
        name = str(field.name)
        if name.startswith("__index_level"):
            continue
        kind, text = _SHARED.get(name, (_kind(str(field.type)), ""))
        if name.startswith(LABEL_PREFIX):
            text = f"{name.removeprefix(LABEL_PREFIX)}. {scale}"
        fields.append((name, kind, text))
    return _record_set("labels", "One row per image.", fields)


def _record_set(
    name: str, description: str, fields: Iterable[tuple[str, str, str]]
) -> dict[str, Any]:
    made: list[dict[str, Any]] = []
    taken: set[str] = set()
    for column, kind, text in fields:
        word = re.sub(r"[^A-Za-z0-9]+", "_", column).strip("_") or "column"
        while word in taken:
            word += "_"
        taken.add(word)
        made.append(
            {
                "@type": "cr:Field",
                "@id": f"{name}/{word}",
                "name": f"{name}/{word}",
                **({"description": text} if text else {}),
                "dataType": kind,
                "source": {"fileObject": {"@id": name}, "extract": {"column": column}},
            }
        )
    return {
        "@type": "cr:RecordSet",
        "@id": f"{name}-rows",
        "name": f"{name}-rows",
        "description": description,
        "field": made,
    }


def _images(spec: DatasetSpec) -> dict[str, Any]:
    layout = getattr(spec.images, "layout", "") or "the images of the release"
    words = re.findall(r"[a-z]+", f"{layout} {getattr(spec.images, 'path', '')}".lower())
    known = list(dict.fromkeys(word for word in words if word in _FORMATS))
    return {
        "@type": "cr:FileSet",
        "@id": "images",
        "name": "images",
        "description": _sentence(layout),
        "encodingFormat": sorted({_FORMATS[word] for word in known}) or ["image/png"],
        "includes": [f"**/*.{word}" for word in known if word != "dicom"] or ["**/*"],
    }


def _sentence(text: str) -> str:
    text = " ".join(text.split()).rstrip(". ")
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def columns_of(metadata: Mapping[str, Any]) -> dict[str, list[str]]:
    """The columns that Croissant metadata names, by record set.

    Args:
        metadata: What `croissant` gave.

    Returns:
        Name of the record set to the names of its columns, in order.

    Example:
        >>> columns_of(croissant("rsna"))["csvpath-rows"][0]
        'patientId'
    """
    return {
        records["name"]: [field["source"]["extract"]["column"] for field in records["field"]]
        for records in metadata["recordSet"]
    }

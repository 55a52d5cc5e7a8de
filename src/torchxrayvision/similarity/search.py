"""From images that are given to those of a collection that are most like them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.errors import ImageReadError, ResumeError
from torchxrayvision.inputs import crop_and_resize, expand, read_file, read_or_reason
from torchxrayvision.similarity.index import Index, read_index

if TYPE_CHECKING:
    import os

    import pandas as pd
    from numpy.typing import NDArray

    from torchxrayvision.inputs import InputFile, Paths, ReadOptions
    from torchxrayvision.similarity.vectors import Encoder

_SHOWN: Final = 224  # side of a picture in a sheet
_NAME: Final = 24  # characters of a name below it


def similar(
    collection: Paths | Index | os.PathLike[str],
    to: Paths,
    encoder: Encoder,
    *,
    n: int = 10,
    method: str = "exact",
    reading: ReadOptions | None = None,
) -> pd.DataFrame:
    """The images of a collection that are most like given ones.

    Args:
        collection: Files and folders, an `Index`, or the file of one, ending in `.parquet`.
        to: The images to look for; see `torchxrayvision.inputs.expand`.
        encoder: What makes the vectors; that of the index.
        n: Neighbours per image.
        method: See `Index.nearest`.
        reading: How files are read.

    Returns:
        One row per image and neighbour: `query`, `rank` from 1, `path`, `similarity` from -1 to
        1. An image is not its own neighbour: a file that is looked for is left out of its answer.

    Raises:
        ImageReadError: If an image to look for cannot be read.
        ResumeError: If the index was made with another encoder.
    """
    import pandas as pd

    index = _index_of(collection, encoder, reading)
    names, vectors = [], []
    for file, made in encoder.vectors(expand(to), reading):
        if isinstance(made, str):
            raise ImageReadError(file.given, made, "name another image")
        names.append(file.given)
        vectors.append(made)
    rows: list[dict[str, Any]] = []
    if names and len(index):
        places = [_place(path) for path in index.paths]
        found, likeness = index.nearest(np.stack(vectors), n + 1, method=method)
        for name, mine, alike in zip(names, found, likeness, strict=True):
            here = _place(name)
            others = [
                (index.paths[row], float(value))
                for row, value in zip(mine, alike, strict=True)
                if row >= 0 and places[row] != here
            ]
            rows += [
                {"query": name, "rank": rank, "path": path, "similarity": round(value, 4)}
                for rank, (path, value) in enumerate(others[:n], 1)
            ]
    return pd.DataFrame(rows, columns=["query", "rank", "path", "similarity"])


def _place(name: str) -> str:
    return str(Path(name).absolute())


def _index_of(collection: Any, encoder: Encoder, reading: ReadOptions | None) -> Index:
    if isinstance(collection, str | Path) and str(collection).lower().endswith(".parquet"):
        collection = read_index(collection)
    if isinstance(collection, Index):
        _check_same(collection, encoder)
        return collection
    paths, vectors, unreadable = [], [], {}
    for file, made in encoder.vectors(expand(collection), reading):
        if isinstance(made, str):
            unreadable[file.given] = made
        else:
            paths.append(file.given)
            vectors.append(made)
    stacked = np.stack(vectors) if vectors else np.zeros((0, 1), np.float32)
    return Index(paths, stacked, encoder.facts, unreadable)


def _check_same(index: Index, encoder: Encoder) -> None:
    wanted = encoder.facts
    differing = [
        key for key in ("features", "network_sha256") if index.facts.get(key) != wanted[key]
    ]
    if index.facts and differing:
        was, now = (
            (facts.get("features"), facts.get("network")) for facts in (index.facts, wanted)
        )
        msg = f"the index holds {was[0]} of network {was[1]}, not {now[0]} of {now[1]}"
        raise ResumeError(f"{msg}; search with the same network, or write the index again")


def draw_neighbours(
    table: pd.DataFrame, *, reading: ReadOptions | None = None
) -> NDArray[np.uint8]:
    """A picture: each image that was looked for, and its neighbours to the right of it.

    Args:
        table: What `similar` gave.
        reading: How files are read.

    Returns:
        uint8 (H, W); a file that cannot be read any more is black.
    """
    from torchxrayvision.pictures import contact_sheet

    pictures, titles = [], []
    most = int(table["rank"].max()) if len(table) else 0
    for query, found in table.groupby("query", sort=False):
        shown = [(str(query), "")]
        shown += [
            (path, f"{likeness:.2f} ")
            for path, likeness in zip(found["path"], found["similarity"], strict=True)
        ]
        shown += [("", "")] * (most + 1 - len(shown))
        for path, title in shown:
            pictures.append(_picture(path, reading))
            titles.append(title + Path(path).name[-_NAME:])
    if not pictures:
        return np.zeros((_SHOWN, _SHOWN), np.uint8)
    return contact_sheet(pictures, titles, most + 1, titles_below=True)


def _picture(path: str, reading: ReadOptions | None) -> NDArray[np.uint8]:
    from torchxrayvision.pictures import grey

    for file in expand([path]) if path else ():

        def square(file: InputFile = file) -> NDArray[np.float32]:
            return crop_and_resize(file, read_file(file, reading), _SHOWN)

        made = read_or_reason(square, path)
        if not isinstance(made, str):
            return grey(made[0])
    return np.zeros((_SHOWN, _SHOWN), np.uint8)

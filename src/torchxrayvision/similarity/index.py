"""An index: the vectors of a collection, in memory or in a file, and the nearest of them."""

from __future__ import annotations

import base64
import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.errors import OutputError, UnknownNameError, needs_package
from torchxrayvision.inputs import ReadOptions
from torchxrayvision.provenance import Provenance
from torchxrayvision.provenance import read as read_provenance
from torchxrayvision.runs import (
    RunFolder,
    describe_inputs,
    in_batches,
    open_table,
    read_manifest,
    run_to_table,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from torchxrayvision.inputs import Paths
    from torchxrayvision.runs import Batch, Record, Summary
    from torchxrayvision.similarity.vectors import Encoder

    Floats = NDArray[np.float32]

METHODS: Final = ("exact", "usearch", "faiss")
"""How neighbours are looked for: every vector, or graphs of other libraries, which miss some."""

_BATCH: Final = 32  # files of a batch in the journal
_ROWS: Final = 32_768  # vectors that are compared at once
_QUERIES: Final = 256
_COLUMNS: Final = {"path": "text", "error": "text", "vector": "vector"}
_LINKS: Final = 32  # neighbours of a vector in a graph
_EFFORT: Final = 200  # vectors that are looked at per query, at least


@dataclass(frozen=True, eq=False)
class Index:
    """The vectors of a collection.

    Args:
        paths: Of N images, as they were named.
        vectors: float32 (N, D), each of length 1.
        facts: What they depend on, see `Encoder.facts`.
        unreadable: Files of the collection that could not be read, with the reason.
    """

    paths: Sequence[str]
    vectors: Floats
    facts: Mapping[str, Any] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)

    def nearest(
        self, queries: Floats, n: int = 10, *, method: str = "exact"
    ) -> tuple[NDArray[np.int64], Floats]:
        """The most alike images of each query, the most alike first.

        Args:
            queries: (Q, D), of the same `Encoder`.
            n: How many; fewer where the collection is smaller.
            method: `"exact"` compares with every vector, block by block. `"usearch"` and
                `"faiss"` build a graph first, which pays for many queries in more than 100,000
                images, and may miss neighbours.

        Returns:
            Rows of the collection, int64 (Q, n), and the products, float32 (Q, n), from -1 to 1;
            row -1 and NaN where a graph found fewer.

        Raises:
            UnknownNameError: If there is no such method.
            DependencyError: If its library is not installed.
        """
        if method not in METHODS:
            raise UnknownNameError("method of search", method, METHODS)
        n = min(n, len(self))
        asked = np.ascontiguousarray(queries, np.float32)
        if method == "usearch":
            return _by_usearch(self.vectors, asked, n)
        if method == "faiss":
            return _by_faiss(self.vectors, asked, n)
        found = [
            _exact(self.vectors, asked[at : at + _QUERIES], n)
            for at in range(0, len(asked), _QUERIES)
        ]
        rows = np.concatenate([np.zeros((0, n), np.int64), *(rows for rows, _ in found)])
        likeness = np.concatenate([np.zeros((0, n), np.float32), *(one for _, one in found)])
        return rows, likeness


def _exact(vectors: Floats, queries: Floats, n: int) -> tuple[NDArray[np.int64], Floats]:
    """The best so far of each query, block by block; ties go to the earlier row."""
    rows = np.zeros((len(queries), 0), np.int64)
    likeness = np.zeros((len(queries), 0), np.float32)
    for start in range(0, len(vectors), _ROWS):
        products = queries @ vectors[start : start + _ROWS].T
        here = np.broadcast_to(np.arange(start, start + products.shape[1]), products.shape)
        likeness = np.concatenate([likeness, products], axis=1)
        rows = np.concatenate([rows, here], axis=1)
        if likeness.shape[1] > n:  # the rest cannot be among the best any more
            kept = np.sort(np.argpartition(-likeness, n - 1, axis=1)[:, :n], axis=1)
            likeness = np.take_along_axis(likeness, kept, axis=1)
            rows = np.take_along_axis(rows, kept, axis=1)
    order = np.argsort(-likeness, axis=1, kind="stable")
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(likeness, order, axis=1)


def _by_usearch(vectors: Floats, queries: Floats, n: int) -> tuple[NDArray[np.int64], Floats]:
    with needs_package("usearch", "The search method 'usearch'", "search"):
        from usearch.index import Index as Graph
    graph = Graph(ndim=vectors.shape[1], metric="ip", expansion_search=max(_EFFORT, 2 * n))
    graph.add(np.arange(len(vectors)), vectors)
    keys = np.asarray(graph.search(queries, n).keys, np.int64).reshape(len(queries), -1)
    return _with_products(vectors, queries, keys)


def _by_faiss(vectors: Floats, queries: Floats, n: int) -> tuple[NDArray[np.int64], Floats]:
    with needs_package("faiss-cpu", "The search method 'faiss'", "search"):
        import faiss
    graph = faiss.IndexHNSWFlat(vectors.shape[1], _LINKS, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efSearch = max(_EFFORT, 2 * n)
    graph.add(np.ascontiguousarray(vectors))
    return _with_products(vectors, queries, np.asarray(graph.search(queries, n)[1], np.int64))


def _with_products(
    vectors: Floats, queries: Floats, keys: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Floats]:
    """Rows that a graph found with their products, which it may have rounded, in their order."""
    products = np.einsum("qd,qnd->qn", queries, vectors[keys])
    likeness = np.where(keys < 0, np.nan, products).astype(np.float32)
    order = np.argsort(-likeness, axis=1, kind="stable")  # NaN comes last
    return np.take_along_axis(keys, order, axis=1), np.take_along_axis(likeness, order, axis=1)


def write_index(
    paths: Paths,
    output: str | os.PathLike[str],
    encoder: Encoder,
    *,
    reading: ReadOptions | None = None,
    overwrite: bool = False,
    on_found: Callable[[int], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Write the vectors of any number of files; whatever stops it, the same call resumes.

    Args:
        paths: A file or folder, or several; see `torchxrayvision.inputs.expand`.
        output: The index, a Parquet file: `path`, `error`, `vector`, and in its provenance what
            made them.
        encoder: What makes the vectors.
        reading: How files are read.
        overwrite: See `torchxrayvision.inference.predict_to_file`.
        on_found: See `torchxrayvision.inference.predict_to_file`.
        on_progress: See `torchxrayvision.inference.predict_to_file`.

    Returns:
        What the run came to; with no image at all no index is written.

    Raises:
        ResumeError: If an unfinished run with other options is there, or another process works.
        OutputError: If the index exists, does not end in `.parquet`, or cannot be written.
    """
    target, how = Path(output), reading or ReadOptions()
    if target.suffix.lower() != ".parquet":
        raise OutputError(f"{target}: an index ends in .parquet")
    facts = encoder.facts
    options: dict[str, Any] = {
        "inputs": describe_inputs(paths, how), "similarity": facts, "batch_size": _BATCH,
    }  # fmt: skip

    def compute(
        folder: RunFolder, record: Record, start: int, stop: int
    ) -> Generator[Batch, None, None]:
        files = read_manifest(folder.sources, start, stop)
        with contextlib.closing(encoder.vectors(files, how)) as done:
            yield from in_batches(
                ((file.given, made) for file, made in done), start, record.batch_size, _to_row
            )

    def write(part: Path, rows: Iterator[tuple[str, str, str]]) -> None:
        provenance = Provenance(
            command="xrv similar", weights=facts["network"],
            weights_sha256=facts["network_sha256"], options={"similarity": facts},
        )  # fmt: skip
        with open_table(target, _COLUMNS, part, provenance=provenance) as table:
            for path, error, packed in rows:
                table.write({"path": path, "error": error, "vector": _unpacked(packed)})

    return run_to_table(
        RunFolder(target), options, compute, write, overwrite=overwrite, on_found=on_found,
        on_progress=on_progress,
    )  # fmt: skip


def _to_row(found: tuple[str, Floats | str]) -> tuple[str, tuple[str, str, str]]:
    """Error and details for the journal, which holds text."""
    path, made = found
    if isinstance(made, str):
        return made, (path, made, "")
    return "", (path, "", base64.b64encode(made.astype("<f4").tobytes()).decode())


def _unpacked(text: str) -> Floats | None:
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32) if text else None


def read_index(path: str | os.PathLike[str]) -> Index:
    """Read what `write_index` wrote.

    Args:
        path: The Parquet file.

    Returns:
        The index; files that could not be read are left out of it, and in `unreadable`.

    Raises:
        OutputError: If it is not there, or no index.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    place = Path(path)
    try:
        table = pq.read_table(place, columns=list(_COLUMNS))
        facts = (read_provenance(place) or {})["options"]["similarity"]
    except (OSError, pa.ArrowException, KeyError, TypeError) as error:
        msg = f"{place}: no index of images; write one with xrv similar FOLDER --index {place}"
        raise OutputError(msg) from error
    names, errors = table["path"].to_pylist(), table["error"].to_pylist()
    good = np.array([not error for error in errors], bool)
    column = table["vector"].combine_chunks().filter(pa.array(good))
    flat = np.asarray(column.values.to_numpy(zero_copy_only=False), np.float32)
    count = int(good.sum())
    if count and (not flat.size or flat.size % count):
        raise OutputError(f"{place}: no index of images: its vectors differ in length")
    kept = [name for name, ok in zip(names, good, strict=True) if ok]
    failed = {name: error for name, error in zip(names, errors, strict=True) if error}
    return Index(kept, flat.reshape(count, -1), facts, failed)

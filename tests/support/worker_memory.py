"""Memory that a dataset costs a worker; in a module of its own, for spawned processes to import."""

from __future__ import annotations

import os
import pickle
from pathlib import Path


def resident() -> float:
    """Memory of this process in MB. Raises OSError where there is no /proc."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def grown(pickled: Path, connection) -> None:
    """Unpickle a merge, look at items all over it, and send by how many MB this process grew."""
    import pyarrow.compute  # noqa: F401 - what it imports is no part of the dataset

    from torchxrayvision import tables

    tables.load("openi_tsne")
    before = resident()
    merged = pickle.loads(pickled.read_bytes())
    for inner in merged.datasets:
        for row in range(0, len(inner), 997):
            inner.image_path(row)
            inner._lab(row)
    connection.send(resident() - before)

"""Memory that a dataset costs a worker; in a module of its own, for spawned processes to import."""

from __future__ import annotations

import importlib
import inspect
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


def built(connection) -> None:
    """Build the eight datasets whose tables are packaged, all images, and send the growth in MB."""
    import torchxrayvision.datasets as xd

    for name in ("pandas", "pyarrow.compute", "pyarrow.parquet"):
        importlib.import_module(name)  # what it takes is no part of the datasets

    packaged = ["NIH_Dataset", "RSNA_Pneumonia_Dataset", "NIH_Google_Dataset", "PC_Dataset"]
    packaged += ["CheX_Dataset", "Openi_Dataset", "VinDr_Dataset", "SIIM_Pneumothorax_Dataset"]
    classes = [getattr(xd, name) for name in packaged]
    before = resident()
    datasets = []
    for cls in classes:
        known = inspect.signature(cls).parameters
        chosen = {"views": "*", "unique_patients": False, "pathology_masks": True}
        datasets.append(cls(**{key: value for key, value in chosen.items() if key in known}))
    connection.send(resident() - before)

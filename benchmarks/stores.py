"""Which format is fastest for images that are decoded once and read in random order?

2,000 images of 224 x 224 bytes, in batches of 32 in shuffled order, all of them in the page cache
and read before. Per format: bytes on disk, seconds to write, CPU milliseconds per batch, whether
one image can be written at a time (so that many processes fill it and a stopped build goes on) and
whether processes share its memory. `pip install lmdb zarr` for all rows.

    python benchmarks/stores.py
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

COUNT, SIZE, BATCH, EPOCHS = 2000, 224, 32, 7
Read = Callable[[np.ndarray], np.ndarray]


def pictures() -> np.ndarray:
    """Smooth pictures with noise, so that compression has something to do."""
    rng = np.random.default_rng(0)
    base = np.linspace(0, 200, SIZE)[:, None] + np.linspace(0, 40, SIZE)
    noise = rng.integers(0, 12, (COUNT, SIZE, SIZE), np.uint8)
    return base.astype(np.uint8) + noise


def numpy_map(images: np.ndarray, folder: Path) -> Read:
    path = folder / "images.npy"
    target = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=images.shape)
    target[:] = images
    target.flush()
    opened = np.load(path, mmap_mode="r")
    return lambda rows: opened[rows]


def safetensors_file(images: np.ndarray, folder: Path) -> Read:
    from safetensors import safe_open
    from safetensors.numpy import save_file

    save_file({"images": images}, folder / "images.safetensors")
    opened = safe_open(folder / "images.safetensors", "numpy").get_slice("images")
    return lambda rows: np.stack([opened[int(row)] for row in rows])


def arrow_file(images: np.ndarray, folder: Path) -> Read:
    import pyarrow as pa

    rows = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(SIZE * SIZE), len(images), [None, pa.py_buffer(images)]
    )
    table = pa.table({"image": rows})
    with (
        pa.OSFile(str(folder / "images.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as w,
    ):
        w.write_table(table)
    opened = pa.ipc.open_file(pa.memory_map(str(folder / "images.arrow"))).read_all()["image"]
    column = opened.chunk(0)

    def read(wanted: np.ndarray) -> np.ndarray:
        taken = column.take(pa.array(wanted))
        return np.frombuffer(taken.buffers()[1], np.uint8).reshape(-1, SIZE, SIZE)

    return read


def parquet_file(images: np.ndarray, folder: Path) -> Read:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pa.array([image.tobytes() for image in images], pa.binary())
    path = folder / "images.parquet"
    pq.write_table(pa.table({"image": rows}), path, compression="zstd", row_group_size=BATCH)
    opened = pq.ParquetFile(path)

    def read(wanted: np.ndarray) -> np.ndarray:
        groups = {g: opened.read_row_group(g)["image"] for g in {int(r) // BATCH for r in wanted}}
        found = [groups[int(r) // BATCH][int(r) % BATCH].as_buffer() for r in wanted]
        return np.stack([np.frombuffer(b, np.uint8).reshape(SIZE, SIZE) for b in found])

    return read


def lmdb_file(images: np.ndarray, folder: Path) -> Read:
    import lmdb

    opened = lmdb.open(str(folder / "lmdb"), map_size=2 * images.nbytes)
    with opened.begin(write=True) as transaction:
        for row, image in enumerate(images):
            transaction.put(b"%08d" % row, image.tobytes())

    def read(wanted: np.ndarray) -> np.ndarray:
        with opened.begin(buffers=True) as transaction:
            found = [np.frombuffer(transaction.get(b"%08d" % row), np.uint8) for row in wanted]
            return np.stack(found).reshape(-1, SIZE, SIZE)

    return read


def zarr_store(images: np.ndarray, folder: Path) -> Read:
    import zarr

    opened = zarr.create_array(
        folder / "zarr", shape=images.shape, chunks=(1, SIZE, SIZE), dtype="uint8"
    )
    opened[:] = images
    return lambda rows: np.asarray(opened.oindex[rows])


# Written image by image by several processes, and memory that processes share.
FORMATS: dict[str, tuple[Callable[[np.ndarray, Path], Read], str, str]] = {
    "NumPy, memory map": (numpy_map, "yes", "yes"),
    "safetensors": (safetensors_file, "no", "yes"),
    "Arrow IPC, memory map": (arrow_file, "no", "yes"),
    "Parquet, zstd": (parquet_file, "no", "no"),
    "LMDB": (lmdb_file, "one at a time", "yes"),
    "Zarr, one image per chunk": (zarr_store, "yes", "no"),
}


def measure(
    make: Callable[[np.ndarray, Path], Read], images: np.ndarray
) -> tuple[float, float, float]:
    """Megabytes, seconds to write, and CPU milliseconds per batch."""
    with tempfile.TemporaryDirectory() as name:
        begun = time.process_time()
        read = make(images, Path(name))
        written = time.process_time() - begun
        order = np.random.default_rng(1).permutation(len(images))
        batches = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
        for batch in batches:
            if not np.array_equal(read(batch), images[batch]):
                raise RuntimeError("other images than were written")
        epochs = []
        for _ in range(EPOCHS):
            begun = time.process_time()
            for batch in batches:
                read(batch)
            epochs.append((time.process_time() - begun) / len(batches) * 1e3)
        # Blocks and not lengths: LMDB's file has holes.
        size = sum(p.stat().st_blocks * 512 for p in Path(name).rglob("*") if p.is_file())
    return size / 1e6, written, median(epochs)


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    images = pictures()
    print("| format | MB | CPU s to write | CPU ms per batch | written in parts | shared memory |")
    print("| --- | ---: | ---: | ---: | --- | --- |")
    for name, (make, parts, shared) in FORMATS.items():
        try:
            size, written, batch = measure(make, images)
        except ImportError as error:
            print(f"| {name} | | | {error} | | |")
            continue
        print(f"| {name} | {size:.0f} | {written:.2f} | {batch:.2f} | {parts} | {shared} |")


if __name__ == "__main__":
    main()

"""Predict a folder of radiographs into a table; an interrupted run resumes where it stopped.

python examples/process_batch.py archive/ findings.csv --weights densenet121-res224-all
"""

from __future__ import annotations

import argparse

import torchxrayvision as xrv


def main(arguments: list[str] | None = None) -> int:
    """Predict every file; the number of files that could not be read."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="+", help="folders, files, patterns, zip or tar")
    parser.add_argument("table", help="CSV, JSON or Parquet")
    parser.add_argument("--weights", default="densenet121-res224-all")
    parser.add_argument("--embeddings", action="store_true", help="features too")
    options = parser.parse_args(arguments)

    summary = xrv.inference.predict_to_file(
        options.images,
        options.weights,
        options.table,
        kind="probability",
        embeddings=options.embeddings,
        on_progress=lambda done, of: print(f"\r{done} of {of}", end="", flush=True),
    )
    print(f"\n{options.table}: {summary.total} rows, {summary.failed} without numbers")
    return summary.failed


if __name__ == "__main__":
    main()

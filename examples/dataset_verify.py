"""Check that the images of a dataset are there and can be read.

python examples/dataset_verify.py NIH_Dataset --imgpath NIH/images
"""

from __future__ import annotations

import argparse

import torchxrayvision as xrv


def main(arguments: list[str] | None = None) -> bool:
    """Print what is missing or damaged; whether all is well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", help="a class, such as NIH_Dataset")
    parser.add_argument("--imgpath", required=True)
    parser.add_argument("--quick", action="store_true", help="look for files, open none")
    options = parser.parse_args(arguments)

    kind = xrv.datasets.get_dataset_class(options.dataset)
    dataset = kind(imgpath=options.imgpath)
    report = xrv.datasets.verify(
        dataset,
        decode=not options.quick,
        hashes=not options.quick,
        progress=lambda done, of: print(f"\r{done} of {of}", end="", flush=True),
    )
    print(f"\n{report}")
    return bool(report.ok)


if __name__ == "__main__":
    main()

"""Record what TorchXRayVision 1.5.7 reads and normalises, to tests/golden/images.json.

Run in an environment that has torchxrayvision 1.5.7 and pydicom, from the root of the checkout::

    PYTHONPATH=tests python tools/record_golden_images.py [--shared FOLDER]

Only input that 1.5.7 handles rightly is recorded: 8-bit grey pictures, unsigned DICOM without
rescale. Arrays are stored as the SHA-256 of their little-endian float32 bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np

import torchxrayvision as xrv
from support import image_cases

TARGET = Path("tests/golden/images.json")


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array, "<f4").tobytes()).hexdigest()


def entry(array):
    flat = np.asarray(array).ravel()
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "sha256": digest(array),
        "points": [float(value) for value in flat[:: max(1, flat.size // 5)]],
    }


def generated():
    found = {"normalize": {}, "load_image": {}, "read_xray_dcm": {}}
    for name, (array, maxval, reshape) in image_cases.normalize_cases().items():
        found["normalize"][name] = entry(xrv.utils.normalize(array, maxval, reshape))
    with tempfile.TemporaryDirectory() as folder:
        for name, data in image_cases.picture_cases().items():
            path = Path(folder) / name
            path.write_bytes(data)
            found["load_image"][name] = entry(xrv.utils.load_image(str(path)))
        for name, (data, options) in image_cases.dicom_cases().items():
            path = Path(folder) / f"{name}.dcm"
            path.write_bytes(data)
            found["read_xray_dcm"][name] = entry(xrv.utils.read_xray_dcm(str(path), **options))
    return found


def samples(folder):
    found = {"load_image": {}, "read_xray_dcm": {}}
    for path in sorted(folder.glob("*.png")):
        found["load_image"][path.name] = entry(xrv.utils.load_image(str(path)))
    for path in sorted([*folder.glob("*.dcm"), *folder.glob("dicom/*")]):
        for voi in (False, True):
            try:
                array = xrv.utils.read_xray_dcm(str(path), voi_lut=voi)
            except Exception as error:  # noqa: BLE001 - 1.5.7 lacks the decoder or the tags
                print("left out:", path.name, voi, repr(error)[:80])
                continue
            found["read_xray_dcm"][f"{path.name}|{voi}"] = entry(array)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, help="folder that holds samples/")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    found = {"version": xrv.__version__, **generated()}
    if options.shared:
        found["samples"] = samples(options.shared / "samples")
    TARGET.write_text(json.dumps(found, indent=1) + "\n")
    print(TARGET, TARGET.stat().st_size, "bytes")


if __name__ == "__main__":
    main()

"""Input that TorchXRayVision 1.5.7 handles rightly; its results: tests/golden/images.json."""

from __future__ import annotations

import numpy as np

from support import image_files as build


def normalize_cases():
    """Name to array, maxval and reshape."""
    cases = {}
    for dtype in ("uint8", "uint16", "int16", "int32", "int64", "float16", "float32", "float64"):
        cases[f"{dtype}-255"] = (build.ramp(17, 23, 255).astype(dtype), 255, False)
    cases["bool-1"] = (build.ramp(17, 23, 1).astype(bool), 1, False)
    cases["uint16-4095"] = (build.ramp(70, 71, 4095).astype("uint16"), 4095, False)
    cases["uint16-65535"] = (np.arange(65536, dtype="uint16").reshape(256, 256), 65535, False)
    cases["float32-1"] = ((build.ramp(17, 23, 255) / 255).astype("float32"), 1, False)
    cases["float64-1.0"] = (build.ramp(17, 23, 255) / 255, 1.0, False)
    cases["dark-uint8"] = (build.ramp(17, 23, 40).astype("uint8"), 255, False)
    cases["reshape-grey"] = (build.ramp(17, 23, 255).astype("uint8"), 255, True)
    cases["reshape-colour"] = (build.ramp(17, 23, 255, 3).astype("uint8"), 255, True)
    cases["reshape-alpha"] = (build.ramp(17, 23, 255, 4).astype("uint8"), 255, True)
    cases["stack"] = (build.ramp(17, 23, 255, 3).astype("uint8"), 255, False)
    return cases


def picture_cases():
    """File name to bytes."""
    grey = build.ramp(33, 27, 255)
    same = np.dstack([grey] * 3)
    return {
        "grey8.png": build.png(grey, 8, 0),
        "grey8-interlaced.png": build.png(grey, 8, 0, interlace=1),
        "grey4.png": build.png(build.ramp(33, 27, 15), 4, 0),
        "grey2.png": build.png(build.ramp(33, 27, 3), 2, 0),
        "grey8-alpha.png": build.png(np.dstack([grey, grey[::-1]]), 8, 4),
        "rgb8-same.png": build.png(same, 8, 2),
        "rgba8-same.png": build.png(np.dstack([same, grey[::-1]]), 8, 6),
        "palette-grey.png": build.png(grey, 8, 3, palette=np.arange(256)[:, None].repeat(3, 1)),
        "grey8.tif": build.tiff(grey, 8),
        "grey8-deflate.tif": build.tiff(grey, 8, compression=8),
    }


def dicom_cases():
    """Name to the bytes of a file and the options of read_xray_dcm."""
    cases = {}
    for bits, dtype in ((8, "uint8"), (10, "uint16"), (12, "uint16"), (16, "uint16")):
        pixels = build.ramp(33, 28, 2**bits - 1).astype(dtype)
        for photometric in ("MONOCHROME1", "MONOCHROME2"):
            name = f"{bits}-{photometric}"
            data = build.dicom(pixels, stored=bits, photometric=photometric)
            cases[name] = (data, {})
            cases[f"{name}-as-stored"] = (data, {"fix_monochrome": False})
            window = {"WindowCenter": 2 ** (bits - 1) + 3, "WindowWidth": 2 ** (bits - 2)}
            data = build.dicom(pixels, stored=bits, photometric=photometric, **window)
            cases[f"{name}-window"] = (data, {"voi_lut": True})
            cases[f"{name}-window-unused"] = (data, {})
    pixels = build.ramp(33, 28, 4095).astype("uint16")
    shared = {"stored": 12, "WindowCenter": 2000, "WindowWidth": 900}
    for function in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        data = build.dicom(pixels, VOILUTFunction=function, **shared)
        cases[f"12-{function}"] = (data, {"voi_lut": True})
    table = ((np.arange(4096) ** 2) // 4096).tolist()
    data = build.dicom(pixels, stored=12, VOILUTSequence=build.lut(table, bits=12))
    cases["12-voi-lut"] = (data, {"voi_lut": True})
    return cases

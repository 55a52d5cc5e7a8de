"""Images that are decoded no further than needed, on threads and in processes."""

from __future__ import annotations

import numpy as np
from PIL import Image

from torchxrayvision.inputs import ReadOptions, crop_and_resize, expand, read_file
from torchxrayvision.inputs.isolate import ReaderProcess


def test_a_process_that_reads_reduces_as_this_one_does(tmp_path):
    y, x = np.mgrid[0:307, 0:281] / 300
    image = Image.fromarray((127 + 90 * np.sin(9 * x) * np.cos(7 * y)).astype("uint8"))
    image.save(tmp_path / "one.jpg", quality=92)
    image.save(tmp_path / "two.png")
    options = ReadOptions(least_side=32)
    files = list(expand([tmp_path]))
    assert len(files) == 2
    process = ReaderProcess(options)
    try:
        for file in files:
            here, there = read_file(file, options), process.read(file)
            assert there.reduction == here.reduction
            assert (here.reduction is None) == file.given.endswith("png")
            np.testing.assert_array_equal(
                crop_and_resize(file, there, 32), crop_and_resize(file, here, 32)
            )
    finally:
        process.close()

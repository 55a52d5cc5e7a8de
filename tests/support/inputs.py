"""One file as `predict` reads it, without workers."""

from __future__ import annotations

import dataclasses

from torchxrayvision.inputs import crop_and_resize, read_file, read_or_reason


def loaded(file, size, data=None):
    """The square of a file, or in one clause why there is none."""
    whole = file if data is None else dataclasses.replace(file, data=data, problem="")
    return read_or_reason(lambda: crop_and_resize(file, read_file(whole), size), file)


def square(size):
    """What workers make of a file."""
    return lambda file, read: crop_and_resize(file, read(file), size)

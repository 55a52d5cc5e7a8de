"""Pixels that are not square: the same region of the body, whatever their shape."""

from __future__ import annotations

import numpy as np
import pytest

from support import image_files as build
from torchxrayvision.images import read_raster
from torchxrayvision.transforms import Placement, prepare, square_image, square_pixels


def scene(height, width):
    """A smooth picture of one scene, sampled by so many rows and columns."""
    y, x = (np.indices((height, width)) + 0.5) / np.array([height, width])[:, None, None]
    return 2000 + 1500 * np.sin(7 * x + 3 * y) * np.cos(5 * y)


@pytest.mark.parametrize(
    ("square", "stretched", "spacing"),
    [
        ((300, 280), (300, 560), ["0.3", "0.15"]),
        ((280, 300), (280, 900), ["0.3", "0.1"]),
        ((300, 280), (600, 280), ["0.1", "0.2"]),
        ((280, 400), (840, 400), ["0.1", "0.3"]),
    ],
)
def test_stretched_film_is_prepared_as_the_square_one(square, stretched, spacing):
    films = [
        build.dicom(np.round(scene(*shape)).astype("uint16"), stored=12, PixelSpacing=sides)
        for shape, sides in ((square, ["0.3", "0.3"]), (stretched, spacing))
    ]
    rasters = [read_raster(film) for film in films]
    images = [prepare(r.pixels, r.scale, r.offset, 64, r.info.aspect) for r in rasters]
    inner = np.s_[0, 2:-2, 2:-2]  # beyond the border counts as 0, at any size of pixels
    assert abs(images[0] - images[1])[inner].max() < 3
    ignoring = prepare(rasters[1].pixels, rasters[1].scale, rasters[1].offset, 64)
    assert abs(images[0] - ignoring).max() > 100


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize(("height", "width", "aspect"), [(30, 80, 2.0), (90, 40, 0.5), (40, 40, 3)])
def test_maps_return_to_the_pixels_that_the_model_saw(height, width, aspect, turns):
    place = Placement.in_middle(height, width, aspect=aspect, turns=turns)
    rows, columns = place.side, place.columns
    assert rows * aspect == pytest.approx(columns, abs=aspect)
    picture = np.zeros((height, width), np.float32)
    picture[place.top : place.top + 3, place.left : place.left + 5] = 1  # one corner
    seen = place.cut(picture)
    assert seen.shape == ((rows, columns) if turns % 2 == 0 else (columns, rows))
    assert np.array_equal(place.to_picture(seen), picture)
    assert np.array_equal(place.to_picture(seen > 0.5), picture > 0.5)
    assert np.array_equal(place.mask_to_picture(seen, 0.5), picture > 0.5)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_points_and_boxes_return_as_maps_do(turns):
    place = Placement.in_middle(60, 200, aspect=2.5, turns=turns)
    plane = np.zeros((100, 100), bool)
    plane[20:30, 40:60] = True
    rows, columns = np.nonzero(place.to_picture(plane))
    left, top, right, bottom = place.box_to_picture((40, 20, 60, 30), 100)
    found = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    assert (left, top, right, bottom) == pytest.approx(found, abs=1.5)
    y, x = place.point_to_picture(25, 50, 100)
    assert (x, y) == pytest.approx(((left + right) / 2, (top + bottom) / 2))


def test_samples_of_datasets_get_square_pixels():
    image = scene(30, 80)[None].astype(np.float32)
    mask = np.zeros((1, 30, 80), np.float32)
    mask[0, 10:20, 40:60] = 1
    boxes = np.array([[40, 10, 20, 10]], np.float32)
    sample = {"img": image, "pathology_masks": {3: mask}, "bbox": boxes}
    found = square_pixels(sample, 2.0)
    assert found["img"].shape == (1, 60, 80)
    assert abs(found["img"][0] - scene(60, 80)).max() < 70
    assert np.array_equal(found["pathology_masks"][3][0], mask[0].repeat(2, axis=0))
    assert found["bbox"].tolist() == [[40, 20, 20, 20]]
    assert square_pixels(sample, 1.0) is sample
    assert square_image(image, 0.5).shape == (1, 30, 160)

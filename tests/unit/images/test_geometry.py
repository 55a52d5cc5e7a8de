"""What a model saw, back in the picture of its file: within one pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchxrayvision.errors import ImageShapeError
from torchxrayvision.transforms import crop_box, placement, prepare
from torchxrayvision.transforms.placement import Placement, resample

sizes = st.integers(40, 150)
turns = st.integers(-1, 4)


def _bounds(mask):
    rows, columns = np.nonzero(mask)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


@st.composite
def pictures(draw):
    """A placement and a rectangle inside its square, as left, top, right, bottom."""
    height, width = draw(sizes), draw(sizes)
    place = Placement(height, width, *crop_box(height, width), turns=draw(turns))
    low = st.integers(0, place.side - 12)
    x, y = place.left + draw(low), place.top + draw(low)
    right = draw(st.integers(x + 8, place.left + place.side))
    bottom = draw(st.integers(y + 8, place.top + place.side))
    return place, (x, y, right, bottom)


@given(pictures(), st.sampled_from((64, 100, 224)))
@settings(max_examples=60, deadline=None)
def test_a_mask_returns_within_a_pixel(case, resolution):
    place, (left, top, right, bottom) = case
    picture = np.zeros((place.height, place.width), np.float32)
    picture[top:bottom, left:right] = 1024
    square = np.ascontiguousarray(place.cut(picture))
    seen = prepare(square, 1.0, 0.0, resolution)[0]
    back = place.to_picture(seen) >= 512
    tolerance = max(1.0, place.side / resolution)  # no finer than what the model saw
    assert np.abs(_bounds(back) - (left, top, right, bottom)).max() <= tolerance


@given(
    pictures(),
    st.sampled_from((1, 7, 64, 130)),
    st.sampled_from((0.02, 0.5, 0.999)),
    st.sampled_from(("blob", "noise", "nothing", "all", "near", "two")),
    st.integers(0, 99),
)
@settings(max_examples=80, deadline=None)
def test_a_mask_is_where_the_map_reaches_the_threshold(case, resolution, threshold, kind, seed):
    place, _ = case
    rng = np.random.default_rng(seed)
    plane = rng.random((resolution, resolution)).astype(np.float32)
    if kind == "blob":
        y, x = np.mgrid[:resolution, :resolution]
        row, column = rng.integers(0, resolution, 2)
        plane = np.exp(-((y - row) ** 2 + (x - column) ** 2) / 20).astype(np.float32)
    elif kind == "near":  # within the rounding of a mean of them
        plane = np.nextafter(np.float32(threshold), plane.round())
    elif kind == "two":
        plane = plane.round()
    elif kind != "noise":
        plane[:] = kind == "all"
    np.testing.assert_array_equal(
        place.mask_to_picture(plane, threshold), place.to_picture(plane) >= threshold
    )


def test_only_the_border_of_a_structure_is_resampled(monkeypatch):
    """A hundredth of the pixels here, whatever the size of the file."""
    computed = []

    def draw(array, level, out, border, *place):
        computed.append(np.count_nonzero(border))
        _draw(array, level, out, border, *place)

    _draw = placement._draw_border
    monkeypatch.setattr(placement, "_draw_border", draw)
    y, x = np.mgrid[:256, :256] / 256 - 0.5
    plane = (1 / (1 + np.exp(40 * (np.hypot(x, y) - 0.3)))).astype(np.float32)
    place = Placement.in_middle(1500, 1024)
    mask = place.mask_to_picture(plane, 0.5)
    np.testing.assert_array_equal(mask, place.to_picture(plane) >= 0.5)
    # Columns of cells that are crossed, each of four rows.
    assert 0 < 4 * sum(computed) < 0.02 * mask.size


@given(pictures(), st.sampled_from((64, 512)))
@settings(max_examples=60, deadline=None)
def test_a_box_returns_where_its_mask_does(case, resolution):
    place, box = case
    picture = np.zeros((place.height, place.width), bool)
    picture[box[1] : box[3], box[0] : box[2]] = True
    seen = _bounds(place.cut(picture)) * resolution / place.side
    np.testing.assert_allclose(place.box_to_picture(tuple(seen), resolution), box, atol=1e-9)


@given(pictures())
@settings(max_examples=30, deadline=None)
def test_nothing_is_lost_without_resizing(case):
    place, _ = case
    picture = np.arange(place.height * place.width, dtype=np.float32)
    picture = picture.reshape(place.height, place.width)
    back = place.to_picture(place.cut(picture), outside=-1)
    inside = back >= 0
    assert inside.sum() == place.side**2
    np.testing.assert_array_equal(back[inside], picture[inside])


def test_a_point_turns_with_the_square():
    place = Placement(4, 6, 0, 1, 4, turns=1)
    picture = np.zeros((4, 6), bool)
    picture[0, 4] = True  # the top right corner of the square
    assert place.cut(picture)[0, 0]
    assert place.point_to_picture(0.5, 0.5, 4) == (0.5, 4.5)


def test_masks_stay_masks():
    assert resample(np.eye(3, dtype=bool), 6, 6).dtype == bool


@pytest.mark.parametrize("box", [(0, 0, 5), (1, 0, 4), (0, -1, 2), (0, 0, 0)])
def test_a_square_outside_the_picture_is_refused(box):
    with pytest.raises(ImageShapeError, match="does not lie in the picture"):
        Placement(4, 6, *box)


def test_a_picture_of_another_size_is_refused():
    with pytest.raises(ImageShapeError, match="expected a picture of 4 x 6"):
        Placement(4, 6, 0, 1, 4).cut(np.zeros((6, 4)))

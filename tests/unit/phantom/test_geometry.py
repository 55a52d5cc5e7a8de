"""Rays and solids against plain geometry."""

import numpy as np
import pytest

from torchxrayvision.phantom.detector import box, enlarge, negative_log, transmitted
from torchxrayvision.phantom.rays import Projection
from torchxrayvision.phantom.solids import Column, Ellipsoid, Paraboloid
from torchxrayvision.phantom.spans import Shadows, Span, Union, half_space
from torchxrayvision.phantom.tubes import Canvas, Tubes
from torchxrayvision.phantom.vessels import ENDS, grow


def plan(view="PA", turn=0.0, size=64):
    return Projection(view, size, 400 / size, 120.0, (5.0, 8.0), (0.0, -6.0), turn)


def sampled(contains, projection, depths):
    """Stretch inside a solid, by stepping along every ray."""
    rays = projection.rays()
    total = np.zeros(rays.shape)
    for depth in depths:
        points = [
            np.broadcast_to(place + slope * np.float32(depth), rays.shape).astype(float)
            for place, slope in ((rays.x, rays.dx), (rays.y, rays.dy), (rays.z, rays.dz))
        ]
        total += contains(np.stack(points, axis=-1))
    return total * (depths[1] - depths[0])


DEPTHS = np.arange(-150, 150, 0.5)


@pytest.mark.parametrize("view", ["PA", "AP", "L"])
def test_points_fall_where_their_ray_starts(view):
    projection = plan(view, turn=0.1)
    rays = projection.rays()
    depth = 37.0
    point = np.array([
        rays.x[0, 20] + rays.dx[0, 20] * depth,
        rays.y[0, 20] + rays.dy[0, 20] * depth,
        rays.z[9, 0] + rays.dz[9, 0] * depth,
    ], float)  # fmt: skip
    column, row, scale = projection.project(point)
    assert (column, row) == pytest.approx((20, 9), abs=1e-3)
    assert scale > 1


@pytest.mark.parametrize("view", ["PA", "L"])
def test_an_ellipsoid_is_met_where_stepping_meets_it(view):
    solid = Ellipsoid.along((20, -10, 30), (0.7, 0.3, -0.6), (60, 35, 30))

    def contains(points):
        offset = (points - np.asarray(solid.center)) @ solid.inverse().T
        return (offset**2).sum(axis=-1) <= 1

    projection = plan(view, turn=0.08)
    found = solid.span(projection.rays()).length()
    assert np.abs(found - sampled(contains, projection, DEPTHS)).max() < 2.5
    rows, columns = np.nonzero(found)
    left, right, top, bottom = solid.extent(projection)
    assert left <= columns.min() <= left + 1.01
    assert right - 1.01 <= columns.max() <= right
    assert top <= rows.min() <= top + 1.01
    assert bottom - 1.01 <= rows.max() <= bottom


def test_a_column_is_met_where_stepping_meets_it():
    solid = Column(
        cx=lambda z: 30 + 0.02 * z,
        cy=lambda z: 0.05 * z,
        a=lambda z: np.full_like(z, 70.0),
        b=lambda z: np.full_like(z, 80.0),
        f=lambda z: 1 - (z / 170) ** 2,
        depth=(30.0, 0.0),
    )
    projection = plan("PA")
    found = solid.span(projection.rays()).length()
    assert np.abs(found - sampled(solid.contains, projection, DEPTHS)).max() < 4


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_paraboloid_is_met_where_stepping_meets_it(sign):
    solid = Paraboloid((10.0, 5.0), -20.0, (80.0, 90.0), 50.0, sign)

    def contains(points):
        return sign * (points[..., 2] - solid.level(points)) <= 0

    projection = plan("PA")
    span = solid.span(projection.rays())
    inside = Span(np.maximum(span.enter, -150), np.minimum(span.leave, 150)).length()
    assert np.abs(inside - sampled(contains, projection, DEPTHS)).max() < 2.5


@pytest.mark.parametrize("view", ["PA", "AP", "L"])
def test_a_dome_is_met_from_the_top_of_its_shadow_down(view):
    projection = plan(view, size=128)
    solid = Paraboloid((40.0, 14.0), -30.0, (80.0, 90.0), 50.0)
    rows = np.nonzero(solid.span(projection.rays()).hit().any(axis=1))[0]
    _, _, top, bottom = solid.extent(projection)
    assert top <= rows.min() < top + 1.01
    assert rows.max() == bottom == 127


def test_shadows_are_found_once_and_handed_out_by_windows():
    cast = Shadows(plan(size=128))
    solid, beside = (Ellipsoid.upright((x, 0.0, 0.0), (40.0, 40.0, 40.0)) for x in (0.0, 900.0))
    assert cast.span(beside) is None
    window, span = cast.span(solid)
    assert cast.span(solid)[1] is span
    whole = solid.span(cast.rays)
    assert np.array_equal(span.length(), whole.length()[window])
    half = (slice(0, 60), slice(64, 128))
    ((place, part),) = cast.spans([solid, beside], half)
    assert np.array_equal(part.length(), whole.length()[half][place])


def test_a_half_space_cuts_rays():
    rays = plan("PA").rays()
    behind = half_space(rays, (0.0, 1.0, 0.0), 20.0)
    assert behind.enter == pytest.approx(np.full(behind.enter.shape, 20.0), rel=1e-3)
    assert (behind.leave > 1e4).all()


def test_a_union_counts_overlap_once_and_gaps_never():
    def span(enter, leave):
        return Span(np.full((1, 1), enter, np.float32), np.full((1, 1), leave, np.float32))

    both = Union((1, 1))
    both.add(span(0, 10))
    both.add(span(5, 12))
    both.add(span(20, 30))
    both.add(span(1e5, -1e5))
    assert both.length() == pytest.approx(22)
    assert both.length_within(span(-5, 12)) >= 2


def test_tubes_keep_their_mass():
    projection = plan("PA", size=256)
    points = np.array([[[-60.0, 0.0, -40.0], [0.0, 20.0, 10.0], [70.0, -10.0, 30.0]]])
    for radius in (0.3, 1.5, 9.0):
        canvas = Canvas(projection)
        canvas.add(Tubes(points, np.full((1, 3, 2), radius), np.full((1, 3), 0.5)))
        length = np.sqrt((np.diff(points[0], axis=0) ** 2).sum(axis=1)).sum()
        _, _, scale = projection.project(points)
        area = (projection.spacing / scale.mean()) ** 2
        assert canvas.image().sum() * area == pytest.approx(0.5 * length, rel=0.02)


def test_tubes_are_the_same_alone_and_together():
    projection = plan(size=96)
    rng = np.random.default_rng(0)
    tubes = [
        Tubes(rng.normal(0, 40, (3, k, 3)), np.full((3, k, 2), half), np.ones((3, k)), bore, 0.2)
        for k, half, bore in ((4, 0.4, 0.0), (7, 6.0, 0.8), (2, 2.5, 0.5))
    ]
    together, alone = Canvas(projection), Canvas(projection)
    together.add(*tubes)
    for tube in tubes:
        alone.add(tube)
    assert together.image() == pytest.approx(alone.image(), abs=1e-4)
    assert together.image().max() > 0.01


def test_trees_reach_all_their_ends():
    rng = np.random.default_rng(0)
    ends = rng.normal(0, 50, (3, 2, ENDS))
    roots = np.array([[0.0, 9.0], [1.0, 2.0], [3.0, 4.0]])
    branches = grow(ends, roots, np.zeros((3, 2, 2 * ENDS - 1)))
    assert branches[:, :, 0, 0] == pytest.approx(roots)
    for tree in range(2):
        tips = branches[:, tree, -ENDS:, -1]
        assert np.sort(tips, axis=1) == pytest.approx(np.sort(ends[:, tree], axis=1), abs=1e-3)
        parents = branches[:, tree, : ENDS - 1, -1]
        assert branches[:, tree, 1:, 0] == pytest.approx(np.repeat(parents, 2, axis=1), abs=1e-4)


def test_enlarging_and_blurring_keep_a_slope():
    slope = np.add.outer(np.arange(12.0), 2 * np.arange(9.0)).astype(np.float32)
    assert enlarge(slope, (24, 18))[1:-1, 1:-1] == pytest.approx(
        np.add.outer(np.arange(24) / 2, np.arange(18.0))[1:-1, 1:-1] - 0.75, abs=1e-4
    )
    assert box(slope, 2)[2:-2, 2:-2] == pytest.approx(slope[2:-2, 2:-2], abs=1e-4)
    assert box(slope, 2)[0, 4] == pytest.approx(slope[0, 4] + 0.6, abs=1e-4)  # the edge repeats


def test_tables_of_the_exponential_and_logarithm():
    values = np.linspace(0, 12, 400, dtype=np.float32)
    assert transmitted(values) == pytest.approx(np.exp(-values), rel=3e-4)
    assert negative_log(np.exp(-values)) == pytest.approx(values, abs=3e-4)

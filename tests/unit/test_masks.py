"""Mask geometry against 1.5.7's masks, the COCO API, and arithmetic done the slow way."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from support.digests import digest_masks, golden
from torchxrayvision import masks, tables
from torchxrayvision.errors import DatasetError
from torchxrayvision.masks.shapes import box_edges

SHAPES = st.tuples(st.integers(1, 24), st.integers(1, 24))
ANY_MASK = SHAPES.flatmap(lambda shape: hnp.arrays(np.bool_, shape))
RECORD = golden()["masks"]


def sizes(dataset):
    """The sizes at which 1.5.7's masks were recorded, as test parameters."""
    return [pytest.param(size, id=str(size["size"])) for size in RECORD[dataset]["sizes"]]


def grouped(name, image_column, images):
    """Rows of a packaged table for each image of a record."""
    frame = tables.load(name)
    frame[image_column] = frame[image_column].astype(object)
    return dict(iter(frame[frame[image_column].isin(images)].groupby(image_column, sort=False)))


class TestGoldenMasks:
    @pytest.mark.parametrize("size", sizes("NIH_Dataset"))
    def test_nih_boxes_fill_the_pixels_of_1_5_7(self, size):
        images, side = RECORD["NIH_Dataset"]["images"], size["size"]
        rows = grouped("nih_boxes", "Image Index", images)

        def filled():
            for image in images:
                found = rows[image].replace({"Finding Label": {"Infiltrate": "Infiltration"}})
                for finding, group in found.groupby("Finding Label", sort=True):
                    boxes = group[["Bbox [x", "y", "w", "h]"]]
                    mask = masks.boxes_to_mask(boxes, (side, side), (1024, 1024))
                    yield image, finding, mask

        assert digest_masks(filled()) == (size["masks"], size["pixels"])

    @pytest.mark.parametrize("size", sizes("RSNA_Pneumonia_Dataset"))
    def test_rsna_boxes_fill_the_pixels_of_1_5_7(self, size):
        images, side = RECORD["RSNA_Pneumonia_Dataset"]["images"], size["size"]
        rows = grouped("rsna", "patientId", images)

        def filled():
            for image in images:
                boxes = rows[image][["x", "y", "width", "height"]]
                mask = masks.boxes_to_mask(boxes, (side, side), (1024, 1024))
                yield image, "Lung Opacity", mask
                yield image, "Pneumonia", mask

        assert digest_masks(filled()) == (size["masks"], size["pixels"])

    @pytest.mark.parametrize("size", sizes("SIIM_Pneumothorax_Dataset"))
    def test_siim_runs_fill_the_pixels_of_1_5_7(self, size):
        images, side = RECORD["SIIM_Pneumothorax_Dataset"]["images"], size["size"]
        rows = grouped("siim", "ImageId", images)

        def filled():
            for image in images:  # 1.5.7 keeps the last annotation of an image
                mask = masks.decode_gap_rle(rows[image][" EncodedPixels"].iloc[-1])
                yield image, "Pneumothorax", masks.resize_mask(mask, (side, side))

        assert digest_masks(filled()) == (size["masks"], size["pixels"])

    @pytest.mark.parametrize("size", sizes("VinDr_Dataset"))
    def test_vindr_boxes_fill_the_pixels_of_1_5_7(self, size):
        names = {
            "Pleural effusion": "Effusion",
            "Pleural thickening": "Pleural_Thickening",
            "Other lesion": "Other Lesion",
            "Pulmonary fibrosis": "Pulmonary Fibrosis",
        }
        images = RECORD["VinDr_Dataset"]["images"]
        rows = grouped("vindr", "image_id", images)

        def filled():
            for image in images:
                found = rows[image][rows[image]["x_min"].notna()]
                kinds = found["class_name"].astype(object).replace(names)
                for finding, group in found.groupby(kinds, sort=True):
                    boxes = group[["x_min", "y_min", "x_max", "y_max"]]
                    yield image, finding, masks.boxes_to_mask(boxes, size["size"][1:], form="xyxy")

        assert digest_masks(filled()) == (size["masks"], size["pixels"])


class TestBoxes:
    def test_x_grows_to_the_right_and_y_downwards_half_open(self):
        mask = masks.boxes_to_mask([1, 2, 3, 1], (4, 5))
        assert np.argwhere(mask).tolist() == [[2, 1], [2, 2], [2, 3]]

    def test_both_forms_agree_on_whole_pixels(self):
        a = masks.boxes_to_mask([[1, 2, 3, 1]], (4, 5))
        b = masks.boxes_to_mask([[1, 2, 4, 3]], (4, 5), form="xyxy")
        np.testing.assert_array_equal(a, b)

    def test_corner_and_size_are_cut_apart(self):
        assert masks.boxes_to_mask([0.6, 0, 1.6, 1], (1, 4)).tolist() == [
            [True, False] + 2 * [False]
        ]
        assert masks.boxes_to_mask([0.6, 0, 2.2, 1], (1, 4), form="xyxy").sum() == 2

    def test_a_mask_of_another_type_is_filled_alike(self):
        boxes = [[1, 0, 2, 2], [2, 1, 9, 1], [0.2, 0, 0.7, 3], [7, 1, 3, 1]]
        plain = masks.boxes_to_mask(boxes, (3, 6))
        filled = masks.boxes_to_mask(boxes, (3, 6), dtype=np.float32)
        assert filled.dtype == np.float32
        np.testing.assert_array_equal(filled, plain)

    def test_edges_are_those_of_boxes_with_a_pixel_inside(self):
        boxes = [[1, 0, 2, 2], [0.2, 0, 0.7, 3], [7, 1, 3, 1], [-3, -3, 4, 4]]
        assert box_edges(boxes, (3, 6)) == [[1, 0, 3, 2], [0, 0, 1, 1]]
        assert box_edges([], (3, 6)) == []

    def test_width_and_height_scale_on_their_own(self):
        mask = masks.boxes_to_mask([0, 0, 50, 50], (10, 40), (100, 200))
        assert masks.mask_to_box(mask) == (0, 0, 10, 5)

    def test_what_lies_outside_is_cut_off(self):
        mask = masks.boxes_to_mask([[-2, -2, 3, 3], [3, 3, 1e300, 1e300]], (4, 4))
        assert np.argwhere(mask).tolist() == [[0, 0], [3, 3]]

    def test_boxes_are_united(self):
        assert masks.boxes_to_mask([[0, 0, 2, 1], [1, 0, 2, 1]], (1, 4)).sum() == 3

    @pytest.mark.parametrize("none", [[], np.zeros((0, 4))])
    def test_no_box_is_an_empty_mask(self, none):
        assert not masks.boxes_to_mask(none, (3, 3), (9, 9)).any()

    @pytest.mark.parametrize(
        ("boxes", "form", "message"),
        [
            ([0, 0, np.nan, 1], "xywh", "missing or infinite"),
            ([0, 0, np.inf, 1], "xywh", "missing or infinite"),
            ([0, 0, -1, 1], "xywh", r"ends before it starts: \[0.0, 0.0, -1.0, 1.0\]"),
            ([5, 0, 4, 1], "xyxy", "ends before it starts"),
            ([1, 2, 3], "xywh", r"array \(N, 4\), got one of shape \(1, 3\)"),
            (["a", 0, 1, 1], "xywh", "numbers are needed"),
            ([0, 0, 1, 1], "cxcywh", "'xywh' or 'xyxy', got 'cxcywh'"),
        ],
    )
    def test_malformed_boxes_are_refused(self, boxes, form, message):
        with pytest.raises(DatasetError, match=message):
            masks.boxes_to_mask(boxes, (4, 4), form=form)

    @pytest.mark.parametrize("shape", [(0, 4), (4, -1)])
    def test_a_shape_without_pixels_is_refused(self, shape):
        with pytest.raises(DatasetError, match="one pixel or more"):
            masks.boxes_to_mask([0, 0, 1, 1], shape)

    def test_a_box_costs_well_under_a_millisecond(self):
        best = min(
            timed(lambda: masks.boxes_to_mask([9, 9, 300, 400], (1024, 1024))) for _ in "12345"
        )
        assert best < 1e-3


def timed(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class TestEllipse:
    def test_centres_decide(self):
        y, x = np.mgrid[:40, :60] + 0.5
        want = ((x - 31) / 21) ** 2 + ((y - 17.5) / 12.5) ** 2 <= 1
        np.testing.assert_array_equal(masks.ellipse_to_mask([10, 5, 52, 30], (40, 60)), want)

    def test_the_part_outside_is_cut_off(self):
        whole = masks.ellipse_to_mask([10, 10, 30, 24], (40, 40))
        moved = masks.ellipse_to_mask([-5, -3, 15, 11], (20, 20))
        np.testing.assert_array_equal(moved, whole[13:33, 15:35])
        assert not masks.ellipse_to_mask([50, 50, 60, 60], (20, 20)).any()

    def test_a_flat_box_is_empty(self):
        assert not masks.ellipse_to_mask([3, 3, 3, 9], (12, 12)).any()

    def test_a_box_of_nothing_is_refused(self):
        with pytest.raises(DatasetError):
            masks.ellipse_to_mask([4, 0, 3, 1], (4, 4))


def inside(points, x, y):
    """Whether a point is in a polygon, one edge at a time."""
    odd = False
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        if (y0 <= y) != (y1 <= y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x:
            odd = not odd
    return odd


class TestPolygon:
    def test_a_rectangle_is_its_box(self):
        mask = masks.polygon_to_mask([[2, 1], [7, 1], [7, 4], [2, 4]], (6, 9))
        np.testing.assert_array_equal(mask, masks.boxes_to_mask([2, 1, 5, 3], (6, 9)))

    def test_polygons_that_share_an_edge_share_no_pixel_and_leave_none_out(self):
        corner = (7.3, 4.9)
        outline = [(0, 0), (16, 0), (16, 12), (0, 12)]
        parts = [
            masks.polygon_to_mask([a, b, corner], (12, 16))
            for a, b in zip(outline, [*outline[1:], outline[0]], strict=True)
        ]
        assert (np.sum(parts, axis=0) == 1).all()

    def test_a_polygon_that_crosses_itself_has_a_hole(self):
        y, x = np.cos(np.arange(5) * 0.8 * np.pi) * 20 + 20, np.sin(np.arange(5) * 0.8 * np.pi) * 20
        star = masks.polygon_to_mask(np.stack([x + 20, y], axis=1), (41, 41))
        assert not star[20, 20]
        assert star.any()

    def test_coco_and_pairs_are_the_same(self):
        pairs = np.array([[1.5, 0.2], [9.1, 3.3], [4.4, 8.8]])
        np.testing.assert_array_equal(
            masks.polygon_to_mask(pairs, (9, 10)), masks.polygon_to_mask(pairs.ravel(), (9, 10))
        )

    @given(
        points=hnp.arrays(
            np.float64,
            st.tuples(st.integers(3, 7), st.just(2)),
            elements=st.integers(-40, 120).map(lambda n: n / 8),
        )
    )
    @settings(max_examples=60, deadline=None)
    def test_every_pixel_is_decided_by_its_centre(self, points):
        want = [[inside(points.tolist(), c + 0.5, r + 0.5) for c in range(9)] for r in range(7)]
        np.testing.assert_array_equal(masks.polygon_to_mask(points, (7, 9)), want)

    @pytest.mark.parametrize("points", [[[0, 0], [1, 1]], [0, 0, 1, 1, 2], [[0, 0, 0]] * 3, []])
    def test_malformed_polygons_are_refused(self, points):
        with pytest.raises(DatasetError, match="three corners or more"):
            masks.polygon_to_mask(points, (4, 4))

    def test_a_corner_that_is_not_finite_is_refused(self):
        with pytest.raises(DatasetError, match="missing or infinite"):
            masks.polygon_to_mask([0, 0, np.nan, 3, 3, 3], (4, 4))

    def test_a_polygon_outside_is_empty(self):
        assert not masks.polygon_to_mask([[9, 9], [12, 9], [9, 12]], (4, 4)).any()
        assert not masks.polygon_to_mask([[-9, -9], [-2, -9], [-9, -2]], (4, 4)).any()


@given(mask=ANY_MASK)
@settings(max_examples=80, deadline=None)
def test_every_dialect_of_run_lengths_gives_the_mask_back(mask):
    shape = mask.shape
    np.testing.assert_array_equal(masks.decode_gap_rle(masks.encode_gap_rle(mask), shape), mask)
    np.testing.assert_array_equal(masks.decode_coco_rle(masks.encode_coco_rle(mask), shape), mask)
    for order in ("rows", "columns"):
        for first in (0, 1):
            text = masks.encode_rle(mask, order=order, first=first)
            back = masks.decode_rle(text, shape, order=order, first=first)
            np.testing.assert_array_equal(back, mask)


class TestGapRuns:
    def test_runs_go_down_the_columns(self):
        assert np.argwhere(masks.decode_gap_rle("1 3", (3, 2))).tolist() == [[0, 1], [1, 0], [2, 0]]

    @pytest.mark.parametrize("text", ["-1", " -1 ", "", "  "])
    def test_nothing_is_an_empty_mask(self, text):
        assert not masks.decode_gap_rle(text).any()
        assert masks.decode_gap_rle(text).shape == (1024, 1024)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("1 2 3", "in pairs, got 3 numbers"),
            ("1 x", "whole numbers"),
            ("1.5 2", "whole numbers"),
            ("0 7", "leave an image of 6 pixels"),
            ("5 -1", "negative"),
            (f"0 {10**30}", "whole numbers"),
            (f"{2**62} {2**62} {2**62} {2**62}", "leave an image"),
            (None, "whole numbers"),
        ],
    )
    def test_malformed_text_is_refused(self, text, message):
        with pytest.raises(DatasetError, match=message):
            masks.decode_gap_rle(text, (3, 2))


class TestAbsoluteRuns:
    def test_chexmask_counts_from_one_along_the_rows(self):
        assert np.argwhere(masks.decode_rle("1 1 6 2", (3, 4))).tolist() == [[0, 0], [1, 1], [1, 2]]

    def test_order_and_first_pixel_can_be_said(self):
        mask = masks.decode_rle("3 1", (3, 2), order="columns", first=0)
        assert np.argwhere(mask).tolist() == [[0, 1]]

    def test_runs_may_overlap_and_stand_in_any_order(self):
        assert masks.decode_rle("4 3 1 2 5 1", (2, 3)).tolist() == [[True, True, False], [True] * 3]

    @pytest.mark.parametrize("text", ["0 1", "6 2", "1 -1", "1 7", f"{2**62} {2**62}"])
    def test_runs_that_leave_the_image_are_refused(self, text):
        with pytest.raises(DatasetError, match="leave an image of 2 by 3"):
            masks.decode_rle(text, (2, 3))

    def test_a_start_without_a_length_is_refused(self):
        with pytest.raises(DatasetError, match="in pairs"):
            masks.decode_rle("1 2 3", (2, 3))


class TestCoco:
    @pytest.mark.parametrize(
        ("counts", "shape"),
        [
            ([0, 6], (3, 2)),
            ([6], (3, 2)),
            ([1, 2, 3], (3, 2)),
            ([0, 1, 2, 3], (2, 3)),
        ],
    )
    def test_plain_counts_alternate_down_the_columns(self, counts, shape):
        flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        want = flat.reshape(shape[::-1]).T
        np.testing.assert_array_equal(masks.decode_coco_rle(counts, shape), want)

    def test_a_published_string_is_read(self):
        # The COCO API writes a 3 by 3 mask of its centre as the counts 4, 1, 4.
        mask = masks.decode_coco_rle("414", (3, 3))
        assert np.argwhere(mask).tolist() == [[1, 1]]
        assert masks.encode_coco_rle(mask) == "414"

    @given(mask=ANY_MASK)
    @settings(max_examples=60, deadline=None)
    def test_strings_are_those_of_the_coco_api(self, mask):
        api = pytest.importorskip("pycocotools.mask")
        theirs = api.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]
        assert masks.encode_coco_rle(mask) == theirs.decode()
        np.testing.assert_array_equal(masks.decode_coco_rle(theirs, mask.shape), mask)

    def test_long_runs_are_those_of_the_coco_api(self):
        api = pytest.importorskip("pycocotools.mask")
        mask = np.zeros((2320, 2828), bool)
        mask[100:2200, 3:2000] = mask[5, 2500:] = True
        theirs = api.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode()
        assert masks.encode_coco_rle(mask) == theirs
        np.testing.assert_array_equal(masks.decode_coco_rle(theirs, mask.shape), mask)

    @pytest.mark.parametrize(
        ("counts", "message"),
        [
            ("", "not COCO's compressed"),
            ("4 14", "not COCO's compressed"),
            ("41\x7f", "not COCO's compressed"),
            ("41é", "not COCO's compressed"),
            ("41T", "not COCO's compressed"),  # the last character says that more follows
            ("41" + "o" * 40 + "4", "a number of 41 characters"),
            ("415", "add up to 10 pixels, but an image of 3 by 3 has 9"),
            ([4, 1, 3], "add up to 8 pixels"),
            ([10, -1], "negative"),
            ([4.5, 4.5], "whole numbers"),
            ([[4, 1], [4, 0]], "whole numbers"),
            ([1e30, 1], "whole numbers"),
            ([4, None, 4], "missing or infinite|numbers are needed"),
        ],
    )
    def test_malformed_counts_are_refused(self, counts, message):
        with pytest.raises(DatasetError, match=message):
            masks.decode_coco_rle(counts, (3, 3))

    @given(text=st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=30))
    @settings(max_examples=150, deadline=None)
    def test_any_text_is_a_mask_or_a_dataset_error(self, text):
        try:
            mask = masks.decode_coco_rle(text, (5, 4))
        except DatasetError:
            return
        assert mask.shape == (5, 4)


class TestArrays:
    def test_union_is_where_any_mask_is(self):
        a, b = np.eye(3, dtype=bool), np.eye(3, dtype=bool)[::-1]
        before = a.copy()
        assert masks.union([a, b]).sum() == 5
        np.testing.assert_array_equal(a, before)

    def test_union_of_nothing_needs_a_shape(self):
        assert masks.union([], (2, 3)).tolist() == [[False] * 3] * 2
        with pytest.raises(DatasetError, match="shape="):
            masks.union([])

    def test_masks_of_two_shapes_are_not_united(self):
        with pytest.raises(DatasetError, match=r"\(2, 2\) and \(2, 3\)"):
            masks.union([np.ones((2, 2)), np.ones((2, 3))])

    @given(mask=ANY_MASK, shape=SHAPES)
    @settings(max_examples=60, deadline=None)
    def test_resizing_takes_the_pixel_that_holds_the_centre(self, mask, shape):
        height, width = shape
        want = [
            [
                mask[
                    (2 * row + 1) * mask.shape[0] // (2 * height),
                    (2 * column + 1) * mask.shape[1] // (2 * width),
                ]
                for column in range(width)
            ]
            for row in range(height)
        ]
        np.testing.assert_array_equal(masks.resize_mask(mask, shape), want)

    @given(mask=ANY_MASK, factor=st.integers(1, 4))
    @settings(max_examples=30, deadline=None)
    def test_enlarging_by_a_whole_factor_and_back_changes_nothing(self, mask, factor):
        large = masks.resize_mask(mask, (mask.shape[0] * factor, mask.shape[1] * factor))
        np.testing.assert_array_equal(large, np.kron(mask, np.ones((factor, factor))) > 0)
        np.testing.assert_array_equal(masks.resize_mask(large, mask.shape), mask)

    def test_resizing_to_the_same_shape_is_a_copy(self):
        mask = np.eye(3, dtype=bool)
        masks.resize_mask(mask, (3, 3))[0, 0] = False
        assert mask[0, 0]

    @given(mask=ANY_MASK)
    @settings(max_examples=40, deadline=None)
    def test_the_box_of_a_mask_holds_it_tightly(self, mask):
        box = masks.mask_to_box(mask)
        if box is None:
            assert not mask.any()
            return
        left, top, right, bottom = box
        inner = mask[top:bottom, left:right]
        assert inner.sum() == mask.sum()
        assert inner[0].any()
        assert inner[-1].any()
        assert inner[:, 0].any()
        assert inner[:, -1].any()

    def test_overlap_is_intersection_over_union(self):
        rng = np.random.default_rng(0)
        a, b = rng.random((3, 8, 9)) < 0.4, rng.random((2, 8, 9)) < 0.6
        want = [[(x & y).sum() / (x | y).sum() for y in b] for x in a]
        np.testing.assert_allclose(masks.masks_iou(a, b), want, rtol=1e-12)

    def test_overlap_of_two_empty_masks_is_not_a_number(self):
        empty, full = np.zeros((1, 2, 2), bool), np.ones((1, 2, 2), bool)
        assert np.isnan(masks.masks_iou(empty, empty)).all()
        assert masks.masks_iou(empty, full).tolist() == [[0.0]]

    def test_stacks_of_two_shapes_are_refused(self):
        with pytest.raises(DatasetError, match="stacks"):
            masks.masks_iou(np.ones((1, 2, 2)), np.ones((1, 2, 3)))

    @pytest.mark.parametrize("wrong", [np.ones(3), np.ones((1, 2, 2)), np.ones((0, 3))])
    def test_what_is_no_mask_is_refused(self, wrong):
        with pytest.raises(DatasetError, match=r"array \(H, W\)"):
            masks.mask_to_box(wrong)

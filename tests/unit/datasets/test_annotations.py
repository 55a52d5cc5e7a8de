"""From annotation tables to masks and boxes, each kind against masks made by hand."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fakes._fake import area
from support.tiny import NAMES, SHAPE, tiny, write_pictures
from torchxrayvision import masks
from torchxrayvision.datasets.annotations import BoxTable, CocoRle, MaskFiles, RleColumn, Shapes
from torchxrayvision.datasets.images import Files
from torchxrayvision.datasets.release import SourceContext
from torchxrayvision.errors import DatasetError

HEIGHT, WIDTH = SHAPE
ONE = area(SHAPE, (1, 2, 4, 6))
TWO = area(SHAPE, (3, 4, 9, 11))
EMPTY = np.zeros(SHAPE, bool)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("images"))


def box(mask):
    x0, y0, x1, y1 = masks.mask_to_box(mask)
    return x0, y0, x1 - x0, y1 - y0


# a has two overlapping masses and an edema, b an annotation that says "nothing", c none, d one.
MARKED = (("a", "Mass", ONE), ("a", "Mass", TWO), ("a", "Edema", ONE), ("d", "Mass", TWO))
WANTED = {"a": {"Mass": ONE | TWO, "Edema": ONE}, "d": {"Mass": TWO}}


def table(**columns):
    """An annotation table with the findings of `MARKED`, and one empty row for b."""
    return pd.DataFrame(
        {
            "image": [image for image, _, _ in MARKED] + ["b"],
            "what": [finding for _, finding, _ in MARKED] + ["Mass"],
            **columns,
        }
    )


def each(encode, empty):
    return [encode(mask) for _, _, mask in MARKED] + [empty]


COMMON = {"table": "marks", "image": "name", "key": "image", "finding": "what"}
BOXES = np.array(each(box, (np.nan,) * 4), dtype=float)
CORNERS = BOXES + np.column_stack([np.zeros((5, 2)), BOXES[:, :2]])


def drawn(annotation, frame, shape):
    assert frame == shape == SHAPE
    return area(SHAPE, tuple(map(int, annotation["shape"].split())))


def named(values, names="xywh"):
    return dict(zip(names, np.asarray(values).T, strict=True))


KINDS = {
    "boxes": (BoxTable(**COMMON, box=tuple("xywh")), table(**named(BOXES))),
    "boxes by corners": (
        BoxTable(**COMMON, box=tuple("xywh"), form="xyxy"),
        table(**named(CORNERS)),
    ),
    "boxes in another frame": (
        BoxTable(**COMMON, box=tuple("xywh"), frame=(HEIGHT * 4, WIDTH * 4)),
        table(**named(BOXES * 4)),
    ),
    "boxes in a frame that the csv states": (
        BoxTable(**COMMON, box=tuple("xywh"), frame=("height", "width")),
        table(**named(BOXES * 2)),
    ),
    "run lengths of fixed size": (
        RleColumn(**COMMON, column="rle", size=SHAPE, decode=masks.decode_gap_rle),
        table(rle=each(masks.encode_gap_rle, "-1")),
    ),
    "run lengths with their size": (
        RleColumn(**COMMON, column="rle", size=("h", "w"), decode=masks.decode_gap_rle),
        table(rle=each(masks.encode_gap_rle, None), h=HEIGHT, w=WIDTH),
    ),
    "COCO run lengths": (
        CocoRle(**COMMON),
        table(
            counts=[*each(masks.encode_coco_rle, masks.encode_coco_rle(EMPTY))],
            height=HEIGHT,
            width=WIDTH,
        ),
    ),
    "shapes": (
        Shapes(**COMMON, draw=drawn, column="shape"),
        table(shape=each(lambda m: " ".join(map(str, masks.mask_to_box(m))), " ")),
    ),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def dataset_of(folder, kind, **changes):
    source, marks = kind
    csv = tiny().csv.assign(height=HEIGHT * 2, width=WIDTH * 2)
    kwargs = {"marks": marks, "csvpath": csv, "pathology_masks": True}
    return tiny(folder, masks=source, kwargs=kwargs, **changes)


def test_every_kind_unites_the_annotations_of_an_image(folder, kind):
    dataset = dataset_of(folder, kind)
    for i, name in enumerate(NAMES):
        found = dataset[i]["pathology_masks"]
        wanted = WANTED.get(name, {})
        assert {dataset.pathologies[key] for key in found} == set(wanted)
        for key, mask in found.items():
            assert (mask.dtype, mask.shape) == (np.float32, (1, *SHAPE))
            np.testing.assert_array_equal(mask[0] > 0, wanted[dataset.pathologies[key]])


def test_has_masks_says_where_a_pixel_is_set(folder, kind):
    csv = dataset_of(folder, kind).csv
    assert csv["has_masks"].tolist() == [True, False, False, True]
    assert csv["has_masks"].dtype == bool


def test_masks_are_found_by_the_name_of_the_image(folder, kind):
    dataset = dataset_of(folder, kind)
    for size in (SHAPE, (1, *SHAPE), list(SHAPE)):
        found = dataset.get_mask_dict("d", size)
        np.testing.assert_array_equal(found[0][0] > 0, TWO)
    with pytest.raises(DatasetError, match="'e'"):
        dataset.get_mask_dict("e", SHAPE)


def test_masks_are_found_in_a_csv_that_was_changed_after_the_first_look(folder, kind):
    dataset = dataset_of(folder, kind)
    expected = dataset.get_mask_dict("d", SHAPE)
    dataset.csv = dataset.csv[::-1].reset_index(drop=True)
    np.testing.assert_array_equal(dataset.get_mask_dict("d", SHAPE)[0], expected[0])
    dataset.csv = dataset.csv[dataset.csv["name"] != "d"]
    with pytest.raises(DatasetError, match="'d'"):
        dataset.get_mask_dict("d", SHAPE)


def test_masks_go_with_the_dataset_into_a_worker(folder, kind, monkeypatch):
    source, _ = kind
    dataset = dataset_of(folder, kind)
    dataset[0]
    context = pickle.loads(pickle.dumps(dataset._context))
    row = dataset._row(0)
    for finding, mask in source.masks(row, SHAPE, context).items():
        np.testing.assert_array_equal(mask, WANTED["a"][finding])


def test_without_its_table_there_are_no_masks(folder, kind):
    source, _ = kind
    dataset = tiny(folder, masks=source, kwargs={"pathology_masks": True})
    assert not dataset.csv["has_masks"].any()
    with pytest.raises(DatasetError, match="marks"):
        dataset[0]


# The others have coordinates in pixels of the image that was read.
SCALED = [
    "boxes in another frame",
    "boxes in a frame that the csv states",
    "run lengths of fixed size",
    "run lengths with their size",
    "COCO run lengths",
]


@pytest.mark.parametrize("name", SCALED)
def test_masks_are_at_the_shape_of_a_smaller_copy(tmp_path, name):
    half = (HEIGHT // 2, WIDTH // 2)
    small = write_pictures(tmp_path, shape=half)
    found = dataset_of(small, KINDS[name])[3]["pathology_masks"][0][0]
    assert found.shape == half
    # Half the size on each side: the middle of the box is set, what is far outside is not.
    assert found[3, 3] == 1
    assert found[0].sum() == found[:, 0].sum() == 0


@pytest.mark.parametrize("form", ["xywh", "xyxy"])
def test_boxes_come_as_corner_and_size_in_pixels_of_the_image(folder, form):
    values = BOXES if form == "xywh" else CORNERS
    source = BoxTable(**COMMON, box=tuple("xywh"), form=form, frame=(HEIGHT * 2, WIDTH * 4))
    scaled = values * [4, 2, 4, 2]
    dataset = tiny(folder, boxes=source, kwargs={"marks": table(**named(scaled))})
    np.testing.assert_allclose(dataset[0]["bbox"], BOXES[:3])
    assert dataset[0]["bbox"].dtype == np.float32
    assert dataset[1]["bbox"].shape == dataset[2]["bbox"].shape == (0, 4)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-2, 5), (np.nan, 5)])
def test_boxes_without_an_area_are_none(folder, size):
    width, height = size
    marks = pd.DataFrame({"name": ["a"], "x": [1], "y": [1], "w": [width], "h": [height]})
    source = BoxTable(table="marks", image="name", finding=("Mass",), box=tuple("xywh"))
    dataset = tiny(folder, masks=source, boxes=source, kwargs={"marks": marks})
    assert not dataset.csv["has_masks"].any()
    assert len(dataset[0]["bbox"]) == 0
    assert dataset.get_mask_dict("a", SHAPE) == {}


def test_one_annotation_may_stand_for_several_findings(folder):
    source = BoxTable(
        table="marks",
        image="name",
        key="image",
        finding="what",
        box=tuple("xywh"),
        rename={"Mass": ("Mass", "Edema")},
    )
    found = dataset_of(folder, (source, table(**named(BOXES))))[3]["pathology_masks"]
    assert set(found) == {0, 1}


def test_findings_that_the_labels_lack_have_no_mask(folder):
    marks = table(**named(BOXES)).replace({"what": {"Mass": "Hernia"}})
    dataset = dataset_of(folder, (KINDS["boxes"][0], marks))
    assert set(dataset[0]["pathology_masks"]) == {1}
    assert dataset[3]["pathology_masks"] == {}


def test_an_image_is_found_by_name_also_when_the_csv_was_changed():
    context = SourceContext("Tiny", {}, {})
    frame = pd.DataFrame({"name": ["b", "a", "b", None]})
    assert [context.position(frame, "name", name) for name in ("a", "b", "c")] == [1, 0, None]
    frame.loc[0, "name"] = "c"  # what was kept of the names is looked at again
    assert [context.position(frame, "name", name) for name in ("a", "b", "c")] == [1, 2, 0]
    assert context.position(frame.iloc[:1], "name", "b") is None


@pytest.mark.parametrize("keys", [[3, 1, 3, np.nan, 1], ["c", "a", "c", None, "a"], []])
def test_annotations_are_found_by_any_key(keys):
    table = pd.DataFrame({"key": keys, "x": 0.0, "y": 0.0, "w": 1.0, "h": 1.0})
    boxes = BoxTable(table="marks", image="key", box=("x", "y", "w", "h"))
    context = SourceContext("Tiny", {}, {"marks": table})
    found = {key: boxes.found({"key": key}, context)[1] for key in (3, 3.0, "c", "a", 2, None)}
    wanted = {3: [0, 2]} if 3 in keys else {"c": [0, 2], "a": [1, 4]} if keys else {}
    assert found == {key: wanted.get(key, []) for key in found}


STRUCTURES = {"Left Lung": ("left.png",), "Lungs": ("left.png", "right.png")}


def mask_files(folder):
    """Left and right masks for a, a left one for b, an empty one for c, none for d."""
    for name, side, mask in (
        ("a", "left", ONE),
        ("a", "right", TWO),
        ("b", "left", TWO),
        ("c", "left", EMPTY),
    ):
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{name}_{side}.png")
    files = {
        structure: tuple(Files("{name}_" + name, argument="maskpath") for name in names)
        for structure, names in STRUCTURES.items()
    }
    return MaskFiles(files=files)


def test_mask_files_of_one_structure_are_united(folder, tmp_path):
    source = mask_files(tmp_path)
    kwargs = {"places": {"maskpath": tmp_path}, "semantic_masks": True}
    dataset = tiny(folder, semantic=source, kwargs=kwargs)
    both = {"Left Lung": ONE, "Lungs": ONE | TWO}
    wanted = [both, {"Left Lung": TWO, "Lungs": TWO}, {}, {}]
    for i in range(4):
        found = dataset[i]["semantic_masks"]
        assert set(found) == set(wanted[i])
        for name, mask in found.items():
            np.testing.assert_array_equal(mask[0] > 0, wanted[i][name])
    present = source.present(dataset.csv, dataset._context)
    assert present.tolist() == [True, True, True, False]  # c has a file, which is empty


def test_mask_files_are_optional_as_a_whole(folder, tmp_path):
    source = mask_files(tmp_path)
    for place in (None, tmp_path / "nowhere"):
        dataset = tiny(folder, semantic=source, kwargs={"places": {"maskpath": place}})
        assert not source.present(dataset.csv, dataset._context).any()
        assert dataset[0]["img"].shape == (1, *SHAPE)

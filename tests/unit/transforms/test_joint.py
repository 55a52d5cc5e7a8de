"""The joint transforms on tv_tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from torchxrayvision.errors import ImageShapeError
from torchxrayvision.transforms import (
    CenterCropSquare,
    RandomAffineXRay,
    ResizeSquare,
    XRayCenterCrop,
    XRayResizer,
    crop_box,
)


def sample_of(height=90, width=70, top=30, left=20, side=24):
    """White on air where the mask is 1 and the box stands."""
    mask = torch.zeros(1, height, width, dtype=torch.uint8)
    mask[:, top : top + side, left : left + side] = 1
    box = torch.tensor([[left, top, left + side, top + side]], dtype=torch.float32)
    return {
        "img": tv_tensors.Image(mask.float() * 2048 - 1024),
        "masks": {3: tv_tensors.Mask(mask.clone()), 9: tv_tensors.Mask(mask.clone())},
        "bbox": tv_tensors.BoundingBoxes(box, format="XYXY", canvas_size=(height, width)),
        "lab": torch.tensor([1.0, float("nan")]),
    }


def agreement(sample):
    """Share of pixels where mask and white agree."""
    white = (sample["img"] > 0).numpy()
    return (white == sample["masks"][3].numpy().astype(bool)).mean()


def extent(mask):
    _, rows, columns = np.nonzero(np.asarray(mask))
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_crop_is_that_of_the_array_transform_and_moves_boxes():
    sample = sample_of()
    result = CenterCropSquare()(sample)
    expected = XRayCenterCrop()(sample["img"].numpy())
    assert (result["img"].numpy() == expected).all()
    top, left, side = crop_box(90, 70)
    assert (side, result["bbox"].canvas_size) == (70, (70, 70))
    assert extent(result["masks"][3]) == result["bbox"][0].tolist() == [20, 30 - top, 44, 54 - top]
    assert left == 0


def test_crop_cuts_boxes_at_its_border_and_keeps_those_outside_without_area():
    boxes = torch.tensor([[0.0, 0.0, 4.0, 12.0], [0.0, 0.0, 4.0, 5.0]])
    canvas = (30, 10)
    sample = {
        "img": tv_tensors.Image(torch.zeros(1, *canvas)),
        "bbox": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=canvas),
    }
    result = CenterCropSquare()(sample)["bbox"]
    assert result[0].tolist() == [0, 0, 4, 2]
    assert (result[1, 2] - result[1, 0]) * (result[1, 3] - result[1, 1]) == 0


@pytest.mark.parametrize("size", [16, 70, 133])
def test_resize_gives_the_numbers_of_the_array_transform(size):
    sample = sample_of()
    result = ResizeSquare(size)(sample)
    assert (result["img"].numpy() == XRayResizer(size)(sample["img"].numpy())).all()
    assert result["img"].dtype == torch.float32
    assert type(result["img"]) is tv_tensors.Image


@pytest.mark.parametrize("size", [16, 70, 133])
def test_resized_masks_are_binary_and_stand_where_image_and_box_do(size):
    result = ResizeSquare(size)(sample_of())
    mask = result["masks"][3]
    assert type(mask) is tv_tensors.Mask
    assert mask.dtype == torch.uint8
    assert set(mask.unique().tolist()) == {0, 1}
    assert np.abs(np.subtract(extent(mask), result["bbox"][0].tolist())).max() <= 1
    assert agreement(result) > 0.97
    assert result["bbox"].canvas_size == (size, size)


@pytest.mark.parametrize("size", [4, 30])
def test_full_mask_stays_full_and_empty_stays_empty(size):
    masks = torch.stack([torch.ones(20, 11), torch.zeros(20, 11)]).bool()
    result = ResizeSquare(size)(tv_tensors.Mask(masks))
    assert result.dtype == torch.bool
    assert result[0].all()
    assert not result[1].any()


def test_finding_smaller_than_a_pixel_keeps_one():
    mask = torch.zeros(2, 1000, 1000, dtype=torch.uint8)
    mask[0, 700, 300] = 1
    result = ResizeSquare(10)(tv_tensors.Mask(mask))
    assert result[0].nonzero().tolist() == [[7, 3]]
    assert not result[1].any()


def test_area_of_a_mask_is_kept_within_a_row_of_pixels():
    mask = torch.zeros(1, 1000, 800, dtype=torch.uint8)
    mask[:, 101:513, 77:400] = 1
    result = ResizeSquare(224)(tv_tensors.Mask(mask))
    share = float(mask.float().mean())
    assert float(result.float().mean()) == pytest.approx(share, rel=0.02)


def test_label_map_takes_the_nearest_label():
    labels = torch.arange(12, dtype=torch.int64).reshape(1, 3, 4)
    result = ResizeSquare(2)(tv_tensors.Mask(labels))
    assert result.dtype == torch.int64
    assert result.tolist() == [[[1, 3], [9, 11]]]


@pytest.mark.parametrize("angle", [90, 180])
def test_affine_moves_image_masks_and_boxes_alike(angle):
    transform = RandomAffineXRay(degrees=(angle, angle), translate=None, scale=None)
    result = transform(sample_of(80, 80))
    assert agreement(result) == 1
    assert np.abs(np.subtract(extent(result["masks"][3]), result["bbox"][0].tolist())).max() <= 1
    assert extent(result["masks"][3]) != [20, 30, 44, 54]


def test_affine_draws_once_and_keeps_masks_binary():
    torch.manual_seed(0)
    transform, places = RandomAffineXRay(), set()
    for _ in range(10):
        result = transform(sample_of())
        mask = result["masks"][3]
        assert torch.equal(mask, result["masks"][9])
        assert set(mask.unique().tolist()) <= {0, 1}
        assert mask.dtype == torch.uint8
        assert agreement(result) > 0.97
        places.add(tuple(extent(mask)))
    assert len(places) >= 9


@pytest.mark.parametrize("kind", [tv_tensors.Image, torch.Tensor])
def test_affine_fills_with_air(kind):
    image = torch.full((1, 40, 40), 1000.0).as_subclass(kind)
    transform = RandomAffineXRay(degrees=(45, 45), translate=None, scale=(0.5, 0.5))
    result = transform(image)
    assert result[0, 0, 0] == -1024
    assert result[0, 20, 20] == 1000
    assert result.min() >= -1024


def test_affine_fills_masks_with_nothing():
    mask = tv_tensors.Mask(torch.ones(1, 40, 40, dtype=torch.uint8))
    result = RandomAffineXRay(degrees=(45, 45), translate=None, scale=(0.5, 0.5))(mask)
    assert result[0, 0, 0] == 0
    assert result[0, 20, 20] == 1


def test_affine_of_no_movement_is_the_identity():
    sample = sample_of()
    result = RandomAffineXRay(degrees=0, translate=(0, 0), scale=(1, 1))(sample)
    assert torch.allclose(result["img"], sample["img"], atol=0.1)  # the grid is float32
    assert torch.equal(result["masks"][3], sample["masks"][3])
    assert torch.equal(result["bbox"], sample["bbox"])


ALL = [CenterCropSquare(), ResizeSquare(32), RandomAffineXRay()]


@pytest.mark.parametrize("transform", ALL, ids=lambda transform: type(transform).__name__)
def test_labels_pass_and_the_input_is_left_as_it_is(transform):
    sample, same = sample_of(), sample_of()
    result = transform(sample)
    assert torch.equal(result["lab"], sample["lab"]) or result["lab"] is sample["lab"]
    assert torch.equal(sample["img"], same["img"])
    assert torch.equal(sample["masks"][3], same["masks"][3])
    assert torch.equal(sample["bbox"], same["bbox"])


def test_composes_with_torchvision_transforms():
    transform = v2.Compose(
        [CenterCropSquare(), v2.RandomHorizontalFlip(p=1), RandomAffineXRay(), ResizeSquare(32)]
    )
    result = transform(sample_of())
    assert result["img"].shape == (1, 32, 32)
    assert agreement(result) > 0.95


@pytest.mark.parametrize("transform", [CenterCropSquare(), ResizeSquare(4)])
def test_plain_tensor_is_taken_for_an_image(transform):
    assert transform(torch.zeros(1, 6, 4)).shape == (1, 4, 4)


@pytest.mark.parametrize("transform", [CenterCropSquare(), ResizeSquare(4)])
@pytest.mark.parametrize("value", [np.zeros((1, 6, 4)), {"img": np.zeros((1, 6, 4))}, {}])
def test_arrays_are_refused_instead_of_being_returned_as_they_are(transform, value):
    with pytest.raises(TypeError, match="apply_transforms"):
        transform(value)


@pytest.mark.parametrize("transform", [CenterCropSquare(), ResizeSquare(4)])
def test_parts_of_different_sizes_are_refused_with_their_sizes(transform):
    sample = sample_of()
    sample["masks"][9] = tv_tensors.Mask(torch.zeros(1, 70, 70))
    with pytest.raises(ImageShapeError, match=r"Image 90 x 70, .*Mask 70 x 70"):
        transform(sample)


def test_size_is_checked_at_once():
    with pytest.raises(ImageShapeError, match="at least 1"):
        ResizeSquare(0)
    with pytest.raises(TypeError, match="one whole number"):
        ResizeSquare((4, 4))


def test_repr_names_the_size():
    assert repr(ResizeSquare(224)) == "ResizeSquare(size=224)"

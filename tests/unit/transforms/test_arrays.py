"""XRayCenterCrop, XRayResizer, ToPILImage and the helpers of the pipeline."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from torchxrayvision.errors import DependencyError, ImageShapeError, UnknownNameError
from torchxrayvision.transforms import (
    ToPILImage,
    XRayCenterCrop,
    XRayResizer,
    crop_box,
    prepare,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "resize.npz"


def pattern(height, width):
    """The image of tools/record_golden_transforms.py."""
    row, column = np.indices((height, width))
    return ((row * 7919 + column * 104729 + row * column * 31) % 256).astype(np.uint8)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


def recorded(golden, prefix):
    for name, expected in golden.items():
        kind, before, *rest = name.split("_")
        if kind == prefix:
            height, width = map(int, before.split("x"))
            yield pattern(height, width), rest, expected


@pytest.mark.parametrize(("prefix", "engine"), [("xrv", "skimage"), ("cv2", "cv2")])
def test_resizer_equals_recorded_version_1(golden, prefix, engine):
    if engine == "cv2":
        pytest.importorskip("cv2")
    cases = 0
    for pixels, (size,), expected in recorded(golden, prefix):
        image = (pixels * (2048 / 255) - 1024).astype(np.float32)[None]
        result = XRayResizer(int(size), engine=engine)(image)
        assert result.dtype == np.float32
        assert result.shape == expected.shape
        assert np.abs(result - expected).max() <= 0.01
        cases += 1
    assert cases >= 15


def test_crop_equals_recorded_version_1_and_is_a_view(golden):
    cases = 0
    for pixels, _, expected in recorded(golden, "crop"):
        result = XRayCenterCrop()(pixels[None])
        assert (result == expected).all()
        assert result.dtype == pixels.dtype
        assert np.shares_memory(result, pixels)
        cases += 1
    assert cases == 10


@pytest.mark.parametrize(
    ("shape", "box"),
    [((8, 5), (2, 0, 5)), ((9, 6), (1, 0, 6)), ((5, 8), (0, 2, 5)), ((1, 1), (0, 0, 1))],
)
def test_crop_box_is_the_rule_of_version_1(shape, box):
    assert crop_box(*shape) == box


@pytest.mark.parametrize("shape", [(0, 4), (4, 0)])
def test_crop_of_nothing_is_refused(shape):
    with pytest.raises(ImageShapeError, match="at least 1 x 1"):
        crop_box(*shape)
    with pytest.raises(ImageShapeError):
        XRayCenterCrop()(np.zeros((1, *shape)))


@pytest.mark.parametrize(
    ("dtype", "scale", "offset"),
    [("u1", 2048 / 255, -1024.0), ("u2", -2048 / 65535, 1024.0), ("f4", 1.0, 0.0)],
)
@pytest.mark.parametrize("shape", [(300, 211), (90, 200), (64, 64)])
def test_prepare_equals_load_crop_resize(dtype, scale, offset, shape):
    top = {"u1": 256, "u2": 65536, "f4": 1024}[dtype]
    pixels = np.random.default_rng(0).integers(0, top, shape).astype(dtype)
    loaded = (pixels * scale + offset).astype(np.float32)[None]
    expected = XRayResizer(64)(XRayCenterCrop()(loaded))
    result = prepare(pixels, scale, offset, 64)
    assert result.shape == (1, 64, 64)
    assert result.dtype == np.float32
    assert np.abs(result - expected).max() < 0.01


def test_prepare_refuses_other_shapes():
    with pytest.raises(ImageShapeError, match=r"\(H, W\)"):
        prepare(np.zeros((1, 4, 4)), 1, 0, 2)


def test_torch_engine_is_the_anti_aliased_mean_of_torch():
    image = np.random.default_rng(0).normal(0, 300, (1, 100, 80)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(image)[None], (32, 32), mode="bilinear", antialias=True
    )[0]
    result = XRayResizer(32, engine="torch")(image)
    assert isinstance(result, np.ndarray)
    assert np.allclose(result, expected.numpy())


@pytest.mark.parametrize("engine", ["skimage", "cv2", "torch"])
def test_tensors_come_back_as_tensors_with_the_same_numbers(engine):
    if engine == "cv2":
        pytest.importorskip("cv2")
    image = np.random.default_rng(0).normal(0, 300, (1, 30, 30)).astype(np.float32)
    result = XRayResizer(16, engine=engine)(torch.from_numpy(image))
    assert isinstance(result, torch.Tensor)
    assert result.dtype == torch.float32
    assert np.allclose(result.numpy(), XRayResizer(16, engine=engine)(image), atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float64, torch.bfloat16])
def test_tensors_of_any_type_are_resized(dtype):
    result = XRayResizer(4)(torch.full((1, 8, 8), 50, dtype=dtype))
    assert result.dtype == torch.float32
    assert torch.allclose(result, torch.tensor(50.0))


def test_crop_of_a_tensor_is_a_view():
    image = torch.arange(24).reshape(1, 6, 4)
    result = XRayCenterCrop()(image)
    assert result.shape == (1, 4, 4)
    assert result.data_ptr() == image[0, 1].data_ptr()


def test_crop_keeps_the_channels():
    assert XRayCenterCrop()(np.zeros((3, 4, 8))).shape == (3, 4, 4)


def test_boolean_mask_stays_binary_under_the_default_engine():
    mask = np.zeros((1, 100, 100), bool)
    mask[:, 20:61, 33:70] = True
    assert set(np.unique(XRayResizer(37)(mask))) == {0, 1}


def test_cv2_rounds_integer_masks_as_version_1():
    pytest.importorskip("cv2")
    mask = np.zeros((1, 100, 100), np.uint8)
    mask[:, 20:61, 33:70] = 1
    assert set(np.unique(XRayResizer(37, engine="cv2")(mask))) == {0, 1}


@pytest.mark.parametrize("dtype", ["?", "i1", "i4", "f2"])
def test_cv2_takes_types_that_opencv_does_not(dtype):
    pytest.importorskip("cv2")
    result = XRayResizer(2, engine="cv2")(np.ones((1, 4, 4), dtype))
    assert (result == 1).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, bool])
def test_pil_image_holds_the_values(dtype):
    image = np.arange(6).reshape(1, 2, 3).astype(dtype)
    result = ToPILImage()(image)
    assert (result.mode, result.size) == ("F", (3, 2))
    assert (np.asarray(result) == image[0]).all()
    assert (np.asarray(ToPILImage()(torch.from_numpy(image))) == image[0]).all()


@pytest.mark.parametrize(
    ("transform", "shape"),
    [
        (XRayResizer(4), (8, 8)),
        (XRayResizer(4), (3, 8, 8)),
        (XRayResizer(4), (1, 1, 8, 8)),
        (XRayResizer(4), (1, 0, 8)),
        (XRayCenterCrop(), (8, 4)),
        (XRayCenterCrop(), (1, 1, 8, 4)),
        (ToPILImage(), (3, 8, 8)),
        (ToPILImage(), (8, 8)),
    ],
)
def test_wrong_shape_is_named_with_what_was_expected(transform, shape):
    with pytest.raises(ImageShapeError) as caught:
        transform(np.zeros(shape, np.float32))
    assert str(shape) in str(caught.value)
    assert "H, W)" in str(caught.value)
    assert type(transform).__name__ in str(caught.value)


@pytest.mark.parametrize(
    ("transform", "joint"),
    [(XRayResizer(4), "ResizeSquare"), (XRayCenterCrop(), "CenterCropSquare")],
)
@pytest.mark.parametrize(
    "value", [{"img": np.zeros((1, 4, 4))}, tv_tensors.Mask(torch.zeros(1, 4, 4))]
)
def test_samples_and_tv_tensors_are_sent_to_the_joint_class(transform, joint, value):
    with pytest.raises(TypeError, match=f"torchxrayvision.transforms.{joint}"):
        transform(value)


@pytest.mark.parametrize("transform", [XRayResizer(4), XRayCenterCrop(), ToPILImage()])
def test_other_types_are_refused_with_advice(transform):
    with pytest.raises(TypeError, match="read_image"):
        transform([[1, 2], [3, 4]])


@pytest.mark.parametrize("size", [0, -3])
def test_size_below_one_is_refused(size):
    with pytest.raises(ImageShapeError, match="at least 1 pixel"):
        XRayResizer(size)


@pytest.mark.parametrize("size", [(4, 4), 4.0, "4"])
def test_size_that_is_no_whole_number_is_refused(size):
    with pytest.raises(TypeError, match="one whole number"):
        XRayResizer(size)


def test_unknown_engine_is_refused_at_once():
    with pytest.raises(UnknownNameError, match="did you mean 'skimage'"):
        XRayResizer(4, engine="scimage")


def test_missing_opencv_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    resizer = XRayResizer(4, engine="cv2")
    with pytest.raises(DependencyError, match='pip install "opencv-python-headless'):
        resizer(np.zeros((1, 8, 8), np.float32))


def test_default_engine_neither_prints_nor_warns(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        XRayResizer(4)(np.zeros((1, 8, 8), np.float32))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("transform", "text"),
    [
        (XRayResizer(4), "XRayResizer(size=4, engine='skimage')"),
        (XRayCenterCrop(), "XRayCenterCrop()"),
        (ToPILImage(), "ToPILImage()"),
    ],
)
def test_repr_and_pickle(transform, text):
    assert repr(transform) == text
    assert repr(pickle.loads(pickle.dumps(transform))) == text


def test_numpy_transforms_need_no_heavy_package():
    program = (
        "import sys, numpy as np\n"
        "from torchxrayvision.transforms import XRayCenterCrop, XRayResizer, apply_transforms\n"
        "sample = {'img': np.zeros((1, 9, 8), np.float32)}\n"
        "apply_transforms(sample, XRayCenterCrop())\n"
        # A function of the caller's own may draw numbers of torch, which is loaded for that.
        "apply_transforms(sample, XRayResizer(4))\n"
        "assert sample['img'].shape == (1, 4, 4)\n"
        "heavy = {'torch', 'torchvision', 'skimage', 'scipy', 'cv2', 'PIL', 'pandas', 'pydicom'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.shared
def test_real_radiograph_equals_scikit_image(shared):
    transform = pytest.importorskip("skimage.transform")
    from PIL import Image

    pixels = np.asarray(Image.open(shared / "samples" / "16747_3_1.jpg").convert("L"))
    values = (pixels * (2048 / 255) - 1024).astype(np.float32)[None]
    square = XRayCenterCrop()(values)
    expected = transform.resize(square, (1, 224, 224), mode="constant", preserve_range=True)
    assert np.abs(prepare(pixels, 2048 / 255, -1024, 224) - expected).max() <= 0.01

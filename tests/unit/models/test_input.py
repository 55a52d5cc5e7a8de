import warnings

import pytest
import torch

from torchxrayvision.errors import ImageRangeError, ImageRangeWarning, ImageShapeError
from torchxrayvision.models import DenseNet
from torchxrayvision.models.scaling import check_range, resize, standardize


def batch(low, high, size=16):
    return torch.linspace(low, high, size * size).reshape(1, 1, size, size)


@pytest.mark.parametrize(
    ("low", "high", "named"),
    [
        (0, 1, r"\[0, 1\]"),
        (-1, 1, "standardised"),
        (-2.1, 2.6, "standardised"),
        (0, 255, "8 bit"),
        (0, 4095, "16 bit"),
        (-3024, 3071, "unscaled"),
    ],
)
def test_other_scale_is_named(low, high, named):
    with pytest.warns(ImageRangeWarning, match=named):
        check_range(batch(low, high))


@pytest.mark.parametrize(
    ("low", "high"), [(-1024, 1024), (-600, -100), (-1024, -900), (0, 1024), (-1050, 1060)]
)
def test_radiographs_pass_dark_ones_too(low, high):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_range(batch(low, high))


def test_every_image_of_a_batch_is_checked():
    x = torch.cat([batch(-1024, 1024), batch(0, 1)])
    with pytest.warns(ImageRangeWarning, match="image 1 "):
        check_range(x)


def test_every_call_and_model_is_checked():
    models = [DenseNet(growth_rate=4, block_config=(1, 1, 1, 1), num_init_features=8) for _ in "ab"]
    for model in models:
        for _ in range(2):
            with pytest.warns(ImageRangeWarning) as caught:
                model(batch(0, 1, 64))
            assert caught[0].filename == __file__


def test_warning_of_embed_points_at_the_caller():
    model = DenseNet(growth_rate=4, block_config=(1, 1, 1, 1), num_init_features=8)
    with pytest.warns(ImageRangeWarning) as caught:
        model.embed(batch(0, 1, 64))
    assert caught[0].filename == __file__


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_no_numbers_are_refused(bad):
    x = batch(-1024, 1024)
    x[0, 0, 3, 4] = bad
    with pytest.raises(ImageRangeError, match="image 0"):
        check_range(x)


@pytest.mark.parametrize(
    ("shape", "advice"),
    [
        ((2, 32, 32), r"x\[None\]"),
        ((1, 3, 32, 32), "mean"),
        ((1, 1, 32, 40), "XRayCenterCrop"),
        ((32, 32), r"\(B, 1, H, W\)"),
    ],
)
def test_other_shapes_are_refused_with_advice(shape, advice):
    with pytest.raises(ImageShapeError, match=advice):
        DenseNet().prepare(torch.zeros(shape))


def test_stored_integers_are_refused_with_advice():
    with pytest.raises(ImageShapeError, match="normalize"):
        DenseNet().prepare(torch.zeros(1, 1, 32, 32, dtype=torch.uint8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_resizing_keeps_the_dtype_and_the_mean(dtype):
    x = batch(-1024, 1024, 100).to(dtype)
    out = resize(x, 37)
    assert out.shape == (1, 1, 37, 37)
    assert out.dtype == dtype
    assert abs(float(out.double().mean())) < 2


def test_anti_aliasing_removes_what_the_size_cannot_hold():
    x = torch.zeros(1, 1, 256, 256)
    x[..., ::2] = 1024
    assert resize(x, 64).std() < 20
    assert resize(x, 100).std() < 40
    assert resize(x, 100, "bilinear").std() > 100


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_standardized_images_do_not_depend_on_exposure_and_contrast(dtype):
    x = batch(-600, 500)
    out = standardize(x.to(dtype))
    assert out.dtype == dtype
    assert float(out.double().mean()) == pytest.approx(0, abs=1e-3)
    assert float(out.double().std()) == pytest.approx(1, abs=3e-3)
    other = standardize((x * 0.5 + 200).to(dtype))
    torch.testing.assert_close(other, out, atol=5e-3, rtol=0)


def test_an_image_of_one_value_standardizes_to_zero_with_a_gradient():
    x = torch.full((1, 1, 8, 8), 300.0, requires_grad=True)
    out = standardize(x)
    out.square().sum().backward()
    assert not out.any()
    assert torch.isfinite(x.grad).all()

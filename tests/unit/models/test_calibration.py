import pytest
import torch
from torch.func import vmap

from torchxrayvision.errors import ImageShapeError, UnknownNameError
from torchxrayvision.models import check_output_kind, op_norm

NAN = float("nan")


@pytest.mark.parametrize(
    ("p", "point", "expected"),
    [
        (0.1, 0.2, 0.25),
        (0.2, 0.2, 0.5),
        (0.7, 0.3, 0.7857143),
        (0.0, 0.4, 0.0),
        (1.0, 0.4, 1.0),
        (0.9, NAN, 0.5),
    ],
)
def test_operating_point_lies_at_one_half(p, point, expected):
    result = op_norm(torch.tensor([[p]]), torch.tensor([point]))
    torch.testing.assert_close(result, torch.tensor([[expected]]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_of_the_outputs_is_kept(dtype):
    outputs = torch.rand(3, 2, dtype=dtype)
    assert op_norm(outputs, torch.tensor([0.2, NAN])).dtype == dtype


def test_vmap_gives_what_a_loop_gives():
    outputs, points = torch.rand(5, 3), torch.tensor([0.1, NAN, 0.7])
    assert torch.equal(vmap(lambda o: op_norm(o, points))(outputs), op_norm(outputs, points))


def test_untrained_output_does_not_poison_the_gradient():
    outputs = torch.rand(1, 2, requires_grad=True)
    op_norm(outputs, torch.tensor([0.2, NAN])).sum().backward()
    assert torch.isfinite(outputs.grad).all()
    assert outputs.grad[0, 1] == 0


def test_order_of_probabilities_is_kept():
    outputs = torch.linspace(0, 1, 101)[:, None]
    result = op_norm(outputs, torch.tensor([0.037]))[:, 0]
    assert (result.diff() > 0).all()


def test_replaced_classifier_says_how_to_go_on():
    with pytest.raises(ImageShapeError, match="op_threshs = None"):
        op_norm(torch.rand(1, 2), torch.rand(18))


def test_unknown_output_kind_names_the_known_ones():
    with pytest.raises(UnknownNameError, match="did you mean 'logit'"):
        check_output_kind("logits")

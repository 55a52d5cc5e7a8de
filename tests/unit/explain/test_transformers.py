"""Maps of vision transformers: where they lie, and what attention rollout follows."""

import copy

import pytest
import torch

from torchxrayvision import explain
from torchxrayvision.errors import ExplanationError
from torchxrayvision.explain.layers import located
from torchxrayvision.models import DenseNet, EvaX


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    model = EvaX(num_classes=1).eval()
    model.targets = ["Mass"]
    return model


@pytest.mark.parametrize("method", ["gradcam", "gradcam++"])
def test_maps_lie_on_the_image_and_not_on_its_middle(tiny, method):
    model = copy.deepcopy(tiny)
    with located(model) as positions:
        model(torch.zeros(1, 1, 256, 256))
    down, across = positions.axes((14, 14), (256, 256))
    # Patch i of 16 pixels, 16 pixels in from the edge of 256: its middle is 16 + 16 i + 7.5.
    assert (down.start, down.step) == (across.start, across.step) == (23.5, 16.0)
    heat = explain.attribute(model, torch.zeros(1, 1, 512, 512), "Mass", method)
    assert heat.shape == (1, 512, 512)


def test_rollout_follows_attention_to_patches_that_are_attended_to(tiny):
    """Where every query looks at one patch, all that is pooled comes through it."""
    model = copy.deepcopy(tiny)
    x = torch.rand(1, 1, 256, 256, generator=torch.Generator().manual_seed(5)) * 2048 - 1024
    plain = explain.attention_rollout(model, x, "Mass", upsample=False)
    torch.testing.assert_close(plain.sum((1, 2)), torch.ones(1))
    row, column = 3, 11

    def look(_module, inputs, _output):
        seen = torch.zeros_like(inputs[0])
        seen[..., 1 + row * 14 + column] = 1
        return seen

    for block in model.body.blocks:
        block.attn.attn_drop.register_forward_pre_hook(
            lambda module, inputs: (look(module, inputs, None),)
        )
    heat = explain.attention_rollout(model, x, "Mass", upsample=False)[0]
    assert heat.argmax() == row * 14 + column
    assert heat[row, column] > 0.99
    large = explain.attention_rollout(model, x, "Mass")[0]
    place = divmod(int(large.argmax()), 256)
    # The patch covers pixels 16 + 16 i to 32 + 16 i of the square.
    assert abs(place[0] - (16 + 16 * row + 7.5)) < 8
    assert abs(place[1] - (16 + 16 * column + 7.5)) < 8
    assert all(block.attn.fused_attn for block in tiny.body.blocks)


def test_rollout_needs_attention():
    model = DenseNet(8, (1, 1, 1, 1), 8, num_classes=1).eval()
    with pytest.raises(ExplanationError, match="grad_cam"):
        explain.attention_rollout(model, torch.zeros(1, 1, 64, 64), 0)

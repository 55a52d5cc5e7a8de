"""Methods by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from torchxrayvision.errors import UnknownNameError
from torchxrayvision.explain.cam import class_activation_map, grad_cam, grad_cam_plus_plus
from torchxrayvision.explain.perturb import occlusion, smoothed
from torchxrayvision.explain.sensitivity import input_gradients, integrated_gradients

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from torchxrayvision.explain.model import Target

_METHODS: Final[dict[str, Callable[..., Tensor]]] = {
    "cam": class_activation_map,
    "gradcam": grad_cam,
    "gradcam++": grad_cam_plus_plus,
    "gradients": input_gradients,
    "ig": integrated_gradients,
    "occlusion": occlusion,
}
METHODS: Final = tuple(_METHODS)
"""Names of the methods that give a map."""


def attribute(
    model: nn.Module,
    x: Tensor,
    target: Target,
    method: str = "gradcam",
    *,
    smooth: float = 0.0,
    **options: Any,
) -> Tensor:
    """Map what speaks for a target, by the name of the method.

    Args:
        model: The network.
        x: Images, shape (B, 1, S, S) in [-1024, 1024].
        target: Name or place of the output.
        method: One of `METHODS`.
        smooth: Blur of the map, standard deviation as a share of the side; 0 for none.
        **options: Passed to the method.

    Returns:
        float32, shape (B, S, S).

    Raises:
        UnknownNameError: If there is no such method or target.

    Example:
        >>> from torchxrayvision.models import DenseNet
        >>> x = torch.rand(2, 1, 64, 64) * 2048 - 1024
        >>> attribute(DenseNet(), x, "Effusion", "gradients").shape
        torch.Size([2, 64, 64])
    """
    if method not in _METHODS:
        raise UnknownNameError("method", method, METHODS)
    return smoothed(_METHODS[method](model, x, target, **options), smooth)

"""Why a network said what it said: heatmaps, counterfactuals, and whether to believe them.

- Maps of shape (B, H, W) at the resolution of the input: `class_activation_map`, `grad_cam`,
  `grad_cam_plus_plus`, `input_gradients`, `integrated_gradients`, `occlusion`; `attribute` takes
  the method by name, and `explain_file` goes from a file to a map in the geometry of that file.
- Counterfactuals: `latent_shift` with an autoencoder, `save_animation` for the animation.
- Pictures: `overlay` and `annotate`.
- Whether a map is true to the network: `deletion_insertion`, `pointing_game`,
  `randomisation_check`.

Integrated Gradients and occlusion need the extra `explain` (Captum); the rest needs torch only.

Example:
    >>> from torchxrayvision import explain
    >>> from torchxrayvision.models import get_model
    >>> model = get_model("resnet50", num_classes=2)
    >>> explain.grad_cam(model, torch.full((1, 1, 64, 64), -1024.0), target=1).shape
    torch.Size([1, 64, 64])
"""

from __future__ import annotations

from typing import Final

import lazy_loader

from torchxrayvision.deprecation import with_moved_names

# Loaded at first use: pictures and the pointing game need no torch.
# The names are those of `__init__.pyi`.
_find, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

_MOVED: Final = {
    "check_film": "torchxrayvision.explain.check_animation",
    "save_film": "torchxrayvision.explain.save_animation",
    "annotate": "torchxrayvision.pictures.annotate",
    "diverging": "torchxrayvision.pictures.diverging",
    "overlay": "torchxrayvision.pictures.overlay",
    "sequential": "torchxrayvision.pictures.sequential",
}
__getattr__ = with_moved_names(__name__, _MOVED, _find)

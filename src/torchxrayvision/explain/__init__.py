"""Why a network said what it said: heatmaps, counterfactual films, and whether to believe them.

- Maps of shape (B, H, W) at the resolution of the input: `class_activation_map`, `grad_cam`,
  `grad_cam_plus_plus`, `input_gradients`, `integrated_gradients`, `occlusion`; `attribute` takes
  the method by name, and `explain_file` goes from a file to a map in the geometry of that file.
- Counterfactuals: `latent_shift` with an autoencoder, `save_film` for the film.
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

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from torchxrayvision.explain._attribute import METHODS, attribute
    from torchxrayvision.explain._cam import class_activation_map, grad_cam, grad_cam_plus_plus
    from torchxrayvision.explain._colours import diverging, sequential
    from torchxrayvision.explain._counterfactual import Counterfactual, latent_shift
    from torchxrayvision.explain._faithfulness import Curves, deletion_insertion
    from torchxrayvision.explain._files import Explanation, explain_file
    from torchxrayvision.explain._film import save_film
    from torchxrayvision.explain._layers import CamLayer, cam_layer
    from torchxrayvision.explain._overlay import annotate, overlay
    from torchxrayvision.explain._perturb import blurred, occlusion, smoothed
    from torchxrayvision.explain._pointing import PointingGame, evidence_box, pointing_game
    from torchxrayvision.explain._randomise import (
        RandomisationReport,
        randomisation_check,
        randomised,
    )
    from torchxrayvision.explain._sensitivity import input_gradients, integrated_gradients

# Loaded at first use: pictures and the pointing game do without torch.
_HOME: Final = {
    "METHODS": "_attribute",
    "CamLayer": "_layers",
    "Counterfactual": "_counterfactual",
    "Curves": "_faithfulness",
    "Explanation": "_files",
    "PointingGame": "_pointing",
    "RandomisationReport": "_randomise",
    "annotate": "_overlay",
    "attribute": "_attribute",
    "blurred": "_perturb",
    "cam_layer": "_layers",
    "class_activation_map": "_cam",
    "deletion_insertion": "_faithfulness",
    "diverging": "_colours",
    "evidence_box": "_pointing",
    "explain_file": "_files",
    "grad_cam": "_cam",
    "grad_cam_plus_plus": "_cam",
    "input_gradients": "_sensitivity",
    "integrated_gradients": "_sensitivity",
    "latent_shift": "_counterfactual",
    "occlusion": "_perturb",
    "overlay": "_overlay",
    "pointing_game": "_pointing",
    "randomisation_check": "_randomise",
    "randomised": "_randomise",
    "save_film": "_film",
    "sequential": "_colours",
    "smoothed": "_perturb",
}

__all__ = [
    "METHODS",
    "CamLayer",
    "Counterfactual",
    "Curves",
    "Explanation",
    "PointingGame",
    "RandomisationReport",
    "annotate",
    "attribute",
    "blurred",
    "cam_layer",
    "class_activation_map",
    "deletion_insertion",
    "diverging",
    "evidence_box",
    "explain_file",
    "grad_cam",
    "grad_cam_plus_plus",
    "input_gradients",
    "integrated_gradients",
    "latent_shift",
    "occlusion",
    "overlay",
    "pointing_game",
    "randomisation_check",
    "randomised",
    "save_film",
    "sequential",
    "smoothed",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    msg = f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)

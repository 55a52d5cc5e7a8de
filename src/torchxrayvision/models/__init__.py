"""Networks for chest radiographs, with the published weights of the core models.

Example:
    >>> from torchxrayvision.models import DenseNet
    >>> DenseNet().targets[:2]
    ['Atelectasis', 'Consolidation']
"""

from __future__ import annotations

import lazy_loader

from torchxrayvision.deprecation import carried_names, count_replacements

# Loaded at first use. The names are those of `__init__.pyi`, which has what other packages of this
# one need too; the public ones stand here.
_find, __dir__, _names = lazy_loader.attach_stub(__name__, __file__)

__all__ = [
    "OUTPUT_KINDS",
    "Backbone",
    "DenseNet",
    "DenseNet121_Weights",
    "EVAXDenseNet_Weights",
    "EVAX_Weights",
    "Encoder",
    "Encoder_Weights",
    "Ensemble",
    "EvaX",
    "EvaXDenseNet",
    "Model",
    "OutputKind",
    "Prediction",
    "ResNet",
    "ResNet50_Weights",
    "Segmenter",
    "UNet",
    "XRayClassifier",
    "XRayModel",
    "ZeroShot",
    "ZeroShot_Weights",
    "add_weights",
    "check_output_kind",
    "convert",
    "export_hub",
    "from_pretrained",
    "get_densenet_params",
    "get_model",
    "get_weights",
    "list_models",
    "load_checkpoint",
    "load_segmenter",
    "model_urls",
    "op_norm",
    "push_to_hub",
    "save_checkpoint",
    "save_pretrained",
    "save_segmenter",
]

__getattr__ = carried_names(
    __name__,
    "F datasets nn np os pathlib requests sys torch torchvision utils warnings",
    _find,
    _names,
)
count_replacements(__name__)

"""Networks for chest radiographs, with the published weights of the core models.

Example:
    >>> from torchxrayvision.models import DenseNet
    >>> DenseNet().targets[:2]
    ['Atelectasis', 'Consolidation']
"""

from torch import nn

from torchxrayvision.models import _dense
from torchxrayvision.models._backbone import Backbone
from torchxrayvision.models._base import XRayClassifier
from torchxrayvision.models._base import XRayClassifier as Model
from torchxrayvision.models._calibration import OUTPUT_KINDS, OutputKind, check_output_kind, op_norm
from torchxrayvision.models._factory import get_model, get_weights, list_models, load_checkpoint
from torchxrayvision.models._network import Prediction, XRayModel
from torchxrayvision.models._saved import save_checkpoint
from torchxrayvision.models._segmenter import Segmenter
from torchxrayvision.models.densenet import DenseNet, get_densenet_params
from torchxrayvision.models.resnet import ResNet
from torchxrayvision.models.unet import UNet
from torchxrayvision.weights import DenseNet121_Weights, ResNet50_Weights, model_urls_view

# Names in whole modules that 1.5.7 pickled, for those who load them with `torch.load` themselves;
# this package reads such files without unpickling them.
_DenseBlock, _DenseLayer, _Transition = nn.Sequential, _dense.Layer, _dense.Transition

model_urls = model_urls_view()
"""The published weights in the form that 1.5.7 has them; read-only."""

__all__ = [
    "OUTPUT_KINDS",
    "Backbone",
    "DenseNet",
    "DenseNet121_Weights",
    "Model",
    "OutputKind",
    "Prediction",
    "ResNet",
    "ResNet50_Weights",
    "Segmenter",
    "UNet",
    "XRayClassifier",
    "XRayModel",
    "check_output_kind",
    "get_densenet_params",
    "get_model",
    "get_weights",
    "list_models",
    "load_checkpoint",
    "model_urls",
    "op_norm",
    "save_checkpoint",
]

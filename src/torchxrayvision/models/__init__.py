"""Networks for chest radiographs, with the published weights of the core models.

Example:
    >>> from torchxrayvision.models import DenseNet
    >>> DenseNet().targets[:2]
    ['Atelectasis', 'Consolidation']
"""

from torchxrayvision.deprecation import carried_names, count_replacements
from torchxrayvision.models.adding import Added as Added
from torchxrayvision.models.adding import add_weights, convert
from torchxrayvision.models.backbone import BACKBONES as BACKBONES
from torchxrayvision.models.backbone import Backbone
from torchxrayvision.models.backbone import check_file_arguments as check_file_arguments
from torchxrayvision.models.base import Prediction, XRayClassifier, XRayModel
from torchxrayvision.models.base import XRayClassifier as Model
from torchxrayvision.models.base import load_strictly as load_strictly
from torchxrayvision.models.base import temporarily_eval as temporarily_eval
from torchxrayvision.models.compat import register_stand_ins as register_stand_ins
from torchxrayvision.models.densenet import Block as Block
from torchxrayvision.models.densenet import DenseNet, get_densenet_params
from torchxrayvision.models.densenet import Layer as Layer
from torchxrayvision.models.densenet import Transition as Transition
from torchxrayvision.models.densenet import dense_features as dense_features
from torchxrayvision.models.densenet import initialise as initialise
from torchxrayvision.models.densenet import pooled as pooled
from torchxrayvision.models.encoder import Encoder
from torchxrayvision.models.ensemble import Ensemble
from torchxrayvision.models.evax import EvaX, EvaXDenseNet
from torchxrayvision.models.factory import get_model, get_weights, list_models, load_checkpoint
from torchxrayvision.models.factory import network_with as network_with
from torchxrayvision.models.loading import header_of as header_of
from torchxrayvision.models.loading import load_weights as load_weights
from torchxrayvision.models.loading import network_device as network_device
from torchxrayvision.models.loading import operating_points as operating_points
from torchxrayvision.models.loading import resolve_weights_argument as resolve_weights_argument
from torchxrayvision.models.loading import save_checkpoint
from torchxrayvision.models.pretrained import class_of as class_of
from torchxrayvision.models.pretrained import (
    from_pretrained,
    load_segmenter,
    save_pretrained,
    save_segmenter,
)
from torchxrayvision.models.prompts import Prompts as Prompts
from torchxrayvision.models.prompts import known_prompts as known_prompts
from torchxrayvision.models.prompts import prompts_of as prompts_of
from torchxrayvision.models.prompts import read_prompts as read_prompts
from torchxrayvision.models.publish import Upload as Upload
from torchxrayvision.models.publish import export_hub, push_to_hub
from torchxrayvision.models.resnet import BasicBlock as BasicBlock
from torchxrayvision.models.resnet import Bottleneck as Bottleneck
from torchxrayvision.models.resnet import ResidualNetwork as ResidualNetwork
from torchxrayvision.models.resnet import ResNet
from torchxrayvision.models.scaling import OUTPUT_KINDS, OutputKind, check_output_kind, op_norm
from torchxrayvision.models.scaling import Preprocess as Preprocess
from torchxrayvision.models.scaling import ResizeRoute as ResizeRoute
from torchxrayvision.models.scaling import at_resolution as at_resolution
from torchxrayvision.models.scaling import calibrate as calibrate
from torchxrayvision.models.scaling import check_range as check_range
from torchxrayvision.models.scaling import check_shape as check_shape
from torchxrayvision.models.scaling import checked as checked
from torchxrayvision.models.scaling import imagenet_scale as imagenet_scale
from torchxrayvision.models.scaling import imagenet_standardize as imagenet_standardize
from torchxrayvision.models.scaling import resize as resize
from torchxrayvision.models.scaling import scale_is_known as scale_is_known
from torchxrayvision.models.unet import Segmenter, UNet
from torchxrayvision.models.zeroshot import ZeroShot
from torchxrayvision.weights import (
    DenseNet121_Weights,
    Encoder_Weights,
    EVAX_Weights,
    EVAXDenseNet_Weights,
    ResNet50_Weights,
    ZeroShot_Weights,
    model_urls_view,
)

# Under these names 1.5.7 has them, and pickled whole modules name them.
_DenseBlock, _DenseLayer, _Transition = Block, Layer, Transition

model_urls = model_urls_view()
"""The published weights in the form that 1.5.7 has them; read-only."""

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
    __name__, "F datasets nn np os pathlib requests sys torch torchvision utils warnings"
)
count_replacements(__name__)

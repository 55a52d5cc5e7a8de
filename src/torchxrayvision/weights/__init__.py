"""Published weights as data, and the reader that takes tensors from their files.

Example:
    >>> from torchxrayvision.weights import DenseNet121_Weights, get
    >>> get("all") is DenseNet121_Weights.ALL.value
    True
    >>> DenseNet121_Weights.DEFAULT.input_resolution
    224
"""

from __future__ import annotations

from typing import Final

from torchxrayvision.deprecation import with_moved_names
from torchxrayvision.weights.baselines import Baseline_Weights
from torchxrayvision.weights.cards import Measured as Measured
from torchxrayvision.weights.cards import ModelCard
from torchxrayvision.weights.config import CARD_NAME as CARD_NAME
from torchxrayvision.weights.config import CONFIG_NAME as CONFIG_NAME
from torchxrayvision.weights.config import NOT_STATED as NOT_STATED
from torchxrayvision.weights.config import PROMPTS_NAME as PROMPTS_NAME
from torchxrayvision.weights.config import TENSORS_NAME as TENSORS_NAME
from torchxrayvision.weights.config import ModelConfig as ModelConfig
from torchxrayvision.weights.config import with_license as with_license
from torchxrayvision.weights.core import DenseNet121_Weights, ResNet50_Weights, model_urls_view
from torchxrayvision.weights.demo import Demo_Weights
from torchxrayvision.weights.dense import (
    PSPNet_Weights,
    ResNetAE_Weights,
    UNetResNet50_Weights,
    VQGAN_Weights,
)
from torchxrayvision.weights.encoders import Encoder_Weights
from torchxrayvision.weights.evax import EVAX_Weights, EVAXDenseNet_Weights
from torchxrayvision.weights.own import own_folder as own_folder
from torchxrayvision.weights.own import own_weights as own_weights
from torchxrayvision.weights.own import remove_own as remove_own
from torchxrayvision.weights.own import weights_of as weights_of
from torchxrayvision.weights.registry import (
    Metrics,
    Preprocessing,
    Weights,
    WeightsEnum,
    card_of,
    fetch_companions,
    fetch_weights,
    get_weights_entry,
    list_weights,
    locate_weights,
    register,
    verify_weights,
    warn_of_terms,
)
from torchxrayvision.weights.registry import Output as Output
from torchxrayvision.weights.registry import get_weights_entry as get
from torchxrayvision.weights.zeroshot import ZeroShot_Weights

__all__ = [
    "Baseline_Weights",
    "Demo_Weights",
    "DenseNet121_Weights",
    "EVAXDenseNet_Weights",
    "EVAX_Weights",
    "Encoder_Weights",
    "Metrics",
    "ModelCard",
    "PSPNet_Weights",
    "Preprocessing",
    "ResNet50_Weights",
    "ResNetAE_Weights",
    "UNetResNet50_Weights",
    "VQGAN_Weights",
    "Weights",
    "WeightsEnum",
    "ZeroShot_Weights",
    "card_of",
    "fetch_companions",
    "fetch_weights",
    "get",
    "get_weights_entry",
    "list_weights",
    "locate_weights",
    "model_urls_view",
    "register",
    "verify_weights",
    "warn_of_terms",
]

_MOVED: Final = {
    "checkpoint": "torchxrayvision.checkpoints.read",
    "load_tensors": "torchxrayvision.checkpoints.load_tensors",
    "read_tensors": "torchxrayvision.checkpoints.read_tensors",
    "store": "torchxrayvision.checkpoints.cache",
}
__getattr__ = with_moved_names(__name__, _MOVED)

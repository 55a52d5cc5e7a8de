"""What 1.5.7 has in its module of datasets and this package elsewhere."""

from torchxrayvision.images import normalize as normalize
from torchxrayvision.labels import DEFAULT_PATHOLOGIES
from torchxrayvision.transforms import ToPILImage as ToPILImage
from torchxrayvision.transforms import XRayCenterCrop as XRayCenterCrop
from torchxrayvision.transforms import XRayResizer as XRayResizer
from torchxrayvision.transforms import apply_transforms as apply_transforms

default_pathologies: list[str] = list(DEFAULT_PATHOLOGIES)
"""A copy of `torchxrayvision.labels.DEFAULT_PATHOLOGIES`, a list as in 1.5.7."""

from .files import SegmentationWriter as SegmentationWriter
from .files import main_structures as main_structures
from .files import segment_to_folder as segment_to_folder
from .masks import Masks as Masks
from .masks import Segmentation as Segmentation
from .masks import segment as segment
from .networks import get_segmenter as get_segmenter

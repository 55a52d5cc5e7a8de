from .files import SegmentationWriter as SegmentationWriter
from .masks import Masks as Masks
from .masks import Segmentation as Segmentation
from .masks import segment as segment
from .networks import get_segmenter as get_segmenter

"""A demonstration that needs no download: simulated radiographs in, a report out.

Example:
    >>> from torchxrayvision import demo
    >>> demo.IMAGES
    60
"""

from torchxrayvision.demo.results import CloseUp, Demo
from torchxrayvision.demo.walkthrough import IMAGES, SEED, run
from torchxrayvision.deprecation import with_moved_names

__all__ = ["IMAGES", "SEED", "CloseUp", "Demo", "run"]

__getattr__ = with_moved_names(__name__, {"FILMS": "torchxrayvision.demo.IMAGES"})

"""A demonstration that needs no download: simulated radiographs in, a report out.

Example:
    >>> from torchxrayvision import demo
    >>> demo.FILMS
    60
"""

from torchxrayvision.demo.results import CloseUp, Demo
from torchxrayvision.demo.walkthrough import FILMS, SEED, run

__all__ = ["FILMS", "SEED", "CloseUp", "Demo", "run"]

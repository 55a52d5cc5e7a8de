"""A demonstration that needs no download: simulated radiographs in, a report out.

Example:
    >>> from torchxrayvision import demo
    >>> demo.FILMS
    60
"""

from torchxrayvision.demo._run import FILMS, SEED, CloseUp, Demo, run

__all__ = ["FILMS", "SEED", "CloseUp", "Demo", "run"]

"""The version, where 1.5.7 has a module of this name."""

from torchxrayvision import __version__ as __version__

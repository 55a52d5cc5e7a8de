"""Reports as one HTML file each, in one look: light and dark, narrow screens, print."""

from torchxrayvision.pages.templates import environment

__all__ = ["environment"]

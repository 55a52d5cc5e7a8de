"""Training images, prepared once and kept on disk."""

__all__: list[str] = []

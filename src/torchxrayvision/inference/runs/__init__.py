"""Runs that survive a stop: journal, manifest, writers."""

__all__: list[str] = []

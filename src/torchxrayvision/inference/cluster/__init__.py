"""Runs on the nodes of a Ray cluster."""

__all__: list[str] = []

"""One module per release of a dataset."""

__all__: list[str] = []

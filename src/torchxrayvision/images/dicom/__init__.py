"""Read one DICOM file."""

__all__: list[str] = []

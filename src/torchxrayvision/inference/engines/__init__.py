"""Ways to compute a network: torch, ONNX Runtime, OpenVINO, and files for other programs."""

__all__: list[str] = []

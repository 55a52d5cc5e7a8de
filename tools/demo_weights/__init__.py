"""How the demonstration weights are made; run by `tools/build_demo_weights.py`."""

"""Helpers that tests and the recording tools share; they need numpy only, so any environment runs them."""

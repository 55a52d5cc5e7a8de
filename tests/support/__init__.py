"""Helpers of the tests; `synthetic` needs numpy only, so that recording tools share it."""

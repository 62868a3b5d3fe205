"""Counts, scores and their comparison: plain NumPy, and a metric for `evaluate`."""

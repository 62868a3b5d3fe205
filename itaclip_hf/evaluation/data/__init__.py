"""Benchmarks, datasets and their labels: what is evaluated on."""

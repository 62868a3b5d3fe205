"""Measurements of speed, memory and quality on any machine; `python -m benchmarks.NAME --help` tells of each.

`roofline` says what the machine can do, `stages` where the time of an image goes, `ratios` how that compares with a
plain loop over windows and views, `memory` what is held at most, `presets` what quality costs.
"""

"""Evaluation: benchmarks, the metric, the runner for one process or many, reports and their comparison.

Names are loaded when they are asked for: the runner needs Accelerate, the metric `evaluate` and `datasets`, which are
extras.
"""

from ..lazy_names import load_lazily

__getattr__, __dir__, __all__ = load_lazily(__name__, __file__)

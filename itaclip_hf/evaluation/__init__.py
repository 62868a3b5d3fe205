"""Evaluation: benchmarks, the metric, the runner for one process or many, reports and their comparison.

Names are loaded when they are asked for: the runner needs Accelerate, the metric `evaluate` and `datasets`, which are
extras.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    "BENCHMARKS": "benchmarks",
    "Benchmark": "benchmarks",
    "EvaluationResult": "runner",
    "FolderDataset": "segmentation_datasets",
    "ITACLIPPredictor": "predictor",
    "LabelMapping": "label_mapping",
    "MeanIoU": "mean_iou",
    "MethodSettings": "benchmarks",
    "Prediction": "predictor",
    "Predictor": "predictor",
    "RunSettings": "runner",
    "StreamedDataset": "segmentation_datasets",
    "TableDataset": "segmentation_datasets",
    "compare_reports": "comparison",
    "evaluate_and_report": "full_evaluation",
    "generate_texts": "llm_texts",
    "get_benchmark": "benchmarks",
    "load_benchmark_dataset": "segmentation_datasets",
    "load_folder_dataset": "segmentation_datasets",
    "load_model": "full_evaluation",
    "load_processor": "full_evaluation",
    "run_evaluation": "runner",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)

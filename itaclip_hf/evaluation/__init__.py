"""Evaluation: benchmarks, the metric, the runner for one process or many, reports and their comparison.

Names are loaded when they are asked for: the runner needs Accelerate, the metric `evaluate` and `datasets`, which are
extras.
"""

from typing import TYPE_CHECKING

from ..lazy_names import load_lazily

if TYPE_CHECKING:
    from .ablation.run import run_ablations
    from .ablation.tables import AblationRow, AblationTable
    from .ablation.variants import AblationBase
    from .data.benchmarks import BENCHMARKS, Benchmark, get_benchmark
    from .data.dataset_split import split_dataset
    from .data.label_mapping import LabelMapping
    from .data.segmentation_datasets import (
        FolderDataset,
        StreamedDataset,
        TableDataset,
        load_benchmark_dataset,
        load_folder_dataset,
    )
    from .metrics.mean_iou import MeanIoU
    from .reporting.full_evaluation import evaluate_and_report
    from .reporting.report_comparison import compare_reports
    from .running.baselines import find_baseline
    from .running.predictor import ITACLIPPredictor, Prediction, Predictor
    from .running.runner import EvaluationResult, RunOptions, run_evaluation
    from .texts.llm_texts import generate_texts
    from .tuning.report import tune_and_report
    from .tuning.search import TuningOptions, tune_settings

__all__ = [
    "BENCHMARKS",
    "AblationBase",
    "AblationRow",
    "AblationTable",
    "Benchmark",
    "EvaluationResult",
    "FolderDataset",
    "ITACLIPPredictor",
    "LabelMapping",
    "MeanIoU",
    "Prediction",
    "Predictor",
    "RunOptions",
    "StreamedDataset",
    "TableDataset",
    "TuningOptions",
    "compare_reports",
    "evaluate_and_report",
    "find_baseline",
    "generate_texts",
    "get_benchmark",
    "load_benchmark_dataset",
    "load_folder_dataset",
    "run_ablations",
    "run_evaluation",
    "split_dataset",
    "tune_and_report",
    "tune_settings",
]

__getattr__, __dir__ = load_lazily(
    __name__,
    {
        "ablation.run": ["run_ablations"],
        "ablation.tables": ["AblationRow", "AblationTable"],
        "ablation.variants": ["AblationBase"],
        "data.benchmarks": ["BENCHMARKS", "Benchmark", "get_benchmark"],
        "data.dataset_split": ["split_dataset"],
        "reporting.report_comparison": ["compare_reports"],
        "running.baselines": ["find_baseline"],
        "reporting.full_evaluation": ["evaluate_and_report"],
        "data.label_mapping": ["LabelMapping"],
        "texts.llm_texts": ["generate_texts"],
        "metrics.mean_iou": ["MeanIoU"],
        "running.predictor": ["ITACLIPPredictor", "Prediction", "Predictor"],
        "running.runner": ["EvaluationResult", "RunOptions", "run_evaluation"],
        "data.segmentation_datasets": [
            "FolderDataset",
            "StreamedDataset",
            "TableDataset",
            "load_benchmark_dataset",
            "load_folder_dataset",
        ],
        "tuning.search": ["TuningOptions", "tune_settings"],
        "tuning.report": ["tune_and_report"],
    },
)

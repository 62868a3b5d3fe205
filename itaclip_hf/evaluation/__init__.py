"""Evaluation: benchmarks, the metric, the runner for one process or many, reports and their comparison.

Names are loaded when they are asked for: the runner needs Accelerate, the metric `evaluate` and `datasets`, which are
extras.
"""

from typing import TYPE_CHECKING

from ..lazy_names import load_lazily

if TYPE_CHECKING:
    from .ablation import run_ablations
    from .ablation_tables import AblationRow, AblationTable
    from .ablation_variants import AblationBase
    from .benchmarks import BENCHMARKS, Benchmark, MethodSettings, get_benchmark
    from .comparison import compare_reports
    from .dataset_split import split_dataset
    from .foreign_baselines import load_foreign_predictor
    from .full_evaluation import evaluate_and_report, load_model, load_processor
    from .label_mapping import LabelMapping
    from .llm_texts import generate_texts
    from .mean_iou import MeanIoU
    from .predictor import ITACLIPPredictor, Prediction, Predictor
    from .runner import EvaluationResult, RunSettings, run_evaluation
    from .segmentation_datasets import (
        FolderDataset,
        StreamedDataset,
        TableDataset,
        load_benchmark_dataset,
        load_folder_dataset,
    )
    from .tuning import TuningOptions, tune_settings
    from .tuning_report import tune_and_report

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
    "MethodSettings",
    "Prediction",
    "Predictor",
    "RunSettings",
    "StreamedDataset",
    "TableDataset",
    "TuningOptions",
    "compare_reports",
    "evaluate_and_report",
    "generate_texts",
    "get_benchmark",
    "load_benchmark_dataset",
    "load_folder_dataset",
    "load_foreign_predictor",
    "load_model",
    "load_processor",
    "run_ablations",
    "run_evaluation",
    "split_dataset",
    "tune_and_report",
    "tune_settings",
]

__getattr__, __dir__ = load_lazily(
    __name__,
    {
        "ablation": ["run_ablations"],
        "ablation_tables": ["AblationRow", "AblationTable"],
        "ablation_variants": ["AblationBase"],
        "benchmarks": ["BENCHMARKS", "Benchmark", "MethodSettings", "get_benchmark"],
        "comparison": ["compare_reports"],
        "dataset_split": ["split_dataset"],
        "foreign_baselines": ["load_foreign_predictor"],
        "full_evaluation": ["evaluate_and_report", "load_model", "load_processor"],
        "label_mapping": ["LabelMapping"],
        "llm_texts": ["generate_texts"],
        "mean_iou": ["MeanIoU"],
        "predictor": ["ITACLIPPredictor", "Prediction", "Predictor"],
        "runner": ["EvaluationResult", "RunSettings", "run_evaluation"],
        "segmentation_datasets": [
            "FolderDataset",
            "StreamedDataset",
            "TableDataset",
            "load_benchmark_dataset",
            "load_folder_dataset",
        ],
        "tuning": ["TuningOptions", "tune_settings"],
        "tuning_report": ["tune_and_report"],
    },
)

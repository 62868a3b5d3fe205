from .ablation.run import run_ablations as run_ablations
from .ablation.tables import AblationRow as AblationRow, AblationTable as AblationTable
from .ablation.variants import AblationBase as AblationBase
from .data.benchmarks import BENCHMARKS as BENCHMARKS, Benchmark as Benchmark, get_benchmark as get_benchmark
from .data.dataset_split import split_dataset as split_dataset
from .data.label_mapping import LabelMapping as LabelMapping
from .data.segmentation_datasets import (
    FolderDataset as FolderDataset,
    StreamedDataset as StreamedDataset,
    TableDataset as TableDataset,
    load_benchmark_dataset as load_benchmark_dataset,
    load_folder_dataset as load_folder_dataset,
)
from .metrics.mean_iou import MeanIoU as MeanIoU
from .reporting.full_evaluation import evaluate_and_report as evaluate_and_report
from .reporting.report_comparison import compare_reports as compare_reports
from .running.baselines import System as System, find_baseline as find_baseline
from .running.predictor import ITACLIPPredictor as ITACLIPPredictor, Prediction as Prediction, Predictor as Predictor
from .running.runner import (
    EvaluationResult as EvaluationResult,
    RunOptions as RunOptions,
    run_evaluation as run_evaluation,
)
from .texts.llm_texts import generate_texts as generate_texts
from .tuning.report import tune_and_report as tune_and_report
from .tuning.search import TuningOptions as TuningOptions, tune_settings as tune_settings

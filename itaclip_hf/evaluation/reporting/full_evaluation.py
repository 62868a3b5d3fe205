"""From a predictor and a dataset to the folder with the report: runs, writes, draws.

This is what the command line calls; as a function it serves notebooks and other methods' predictors.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ...methods import Published
from ..data.benchmarks import Benchmark
from ..data.segmentation_datasets import Sample, SegmentationDataset, StreamedDataset
from ..running.predictor import Predictor
from ..running.runner import (
    EvaluationResult,
    RunOptions,
    claim_results,
    describe_run,
    make_accelerator,
    run_evaluation,
)
from .plots import (
    GalleryRow,
    check_plotting,
    choose_gallery_images,
    plot_classes,
    plot_confusion,
    plot_gallery,
)
from .report import RESULT_FILES, build_report, write_report

__all__ = ["evaluate_and_report"]

PICTURES = ("gallery.png", "per_class_iou.png", "confusion.png")


def evaluate_and_report(
    dataset: SegmentationDataset | StreamedDataset,
    predictor: Predictor,
    folder: str | os.PathLike[str],
    title: str,
    benchmark: Benchmark | None = None,
    options: RunOptions | None = None,
    accelerator: Accelerator | None = None,
    plots: bool = True,
    command: Sequence[str] = (),
    published: Published | None = None,
) -> tuple[EvaluationResult, dict[str, Any]]:
    """Evaluates and writes the report; every process calls it, the main process writes.

    Args:
        dataset: Images and labels.
        predictor: The method.
        folder: Report and progress go there.
        title: What was evaluated on what.
        benchmark: The benchmark, where it is one.
        options: How to go about it.
        accelerator: The processes; made here if not given.
        plots: Whether to draw pictures, which needs matplotlib.
        command: How to run it again, for the report.
        published: The method's published figure there.

    Returns:
        The result and the content of `report.json`.

    Raises:
        OSError: If another file is where a result would be, or as `run_evaluation`.
    """
    if plots:
        check_plotting()  # before the work, not after it
    options = options or RunOptions()
    accelerator = accelerator or make_accelerator()
    target, is_main = Path(folder), accelerator.is_main_process
    with claim_results(accelerator, target, (*RESULT_FILES, *PICTURES)):
        result = run_evaluation(dataset, predictor, target / "progress", options, accelerator)
        pictures = _draw(target, dataset, predictor, result, title) if plots and is_main else []
        description = describe_run(dataset, predictor, options)
        report = build_report(
            title, result, description, predictor.vocabulary, benchmark, command, pictures, published
        )
        if is_main:
            write_report(target, report, result, predictor.vocabulary)
        accelerator.wait_for_everyone()  # who goes on finds the report written
    return result, report


def _draw(
    folder: Path,
    dataset: SegmentationDataset | StreamedDataset,
    predictor: Predictor,
    result: EvaluationResult,
    title: str,
) -> list[str]:
    """Draws the pictures that there is something for, and names them."""
    if not result.confusion.any():
        return []
    labels = predictor.vocabulary.labels
    gallery, classes, confusion = (folder / name for name in PICTURES)
    plot_classes(classes, labels, result.confusion, title)
    plot_confusion(confusion, labels, result.confusion, title)
    rows = _gallery_rows(dataset, predictor, result)
    plot_gallery(gallery, labels, rows, bool(predictor.vocabulary.background))
    return list(PICTURES)


def _gallery_rows(
    dataset: SegmentationDataset | StreamedDataset, predictor: Predictor, result: EvaluationResult
) -> list[GalleryRow]:
    """The chosen images, predicted once more: keeping all predictions would cost far more than a few seconds."""
    scores = result.counts.image_scores()
    chosen = choose_gallery_images(scores)
    indices = [int(result.counts.indices[position]) for _, position in chosen]
    samples = _load_samples(dataset, indices)
    rows = []
    for (group, position), index in zip(chosen, indices, strict=True):
        sample = samples[index]
        prediction = predictor.predict(predictor.prepare_images([sample.image]))[0]
        caption = f"{group}: {sample.name}, mIoU {100 * scores[position]:.1f} %"
        rows.append(GalleryRow(caption, sample.image, sample.labels, prediction.labels.cpu().numpy()))
    return rows


def _load_samples(dataset: SegmentationDataset | StreamedDataset, indices: Sequence[int]) -> dict[int, Sample]:
    if not isinstance(dataset, StreamedDataset):
        return {index: dataset.load(index) for index in indices}
    wanted, samples = set(indices), {}
    for index, row in dataset.iterate_rows():
        if index in wanted:
            samples[index] = dataset.load_row(index, row)
            if len(samples) == len(wanted):
                break
    return samples

"""Compares two reports of evaluations of the same images, and writes a comparison as Markdown."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...markdown import bold, escape, format_table, percent, signed_percent
from ..metrics.comparison import Comparison, compare_counts
from ..metrics.image_counts import ImageCounts
from .report import PER_IMAGE_FILE, load_report

__all__ = ["compare_reports", "format_comparison"]


def compare_reports(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compares the reports in two folders over the images that both have scored.

    Args:
        first: Folder or file of the one report.
        second: Folder or file of the other.
        replicates: Number of resamplings.
        level: Level of the interval.
        seed: Of the resampling.

    Raises:
        FileNotFoundError: A report or its per-image counts are missing.
        ValueError: The two have other classes, no image in common, or other labels for one.
    """
    reports = [load_report(folder) for folder in (first, second)]
    counts = [_load_counts(folder) for folder in (first, second)]
    labels = [tuple(entry["label"] for entry in report["classes"]) for report in reports]
    if labels[0] != labels[1]:
        raise ValueError(
            f"Expected reports of the same classes, but got {len(labels[0])} and {len(labels[1])} that differ "
            f"({_first_difference(*labels)}). Compare evaluations of one benchmark."
        )
    titles = (_title(reports[0]), _title(reports[1]))
    return compare_counts(counts[0], counts[1], labels[0], titles, replicates, level, seed)


def format_comparison(comparison: Comparison) -> str:
    """A comparison as Markdown, the largest differences between classes first."""
    low, high = map(signed_percent, comparison.interval)
    means = map(percent, comparison.mean_iou)
    rows = [(bold("mIoU"), *means, bold(signed_percent(comparison.difference)))]
    rows += [
        (label, percent(first), percent(second), signed_percent(second - first))
        for label, first, second in _sort_by_difference(comparison)
    ]
    titles = "\n".join(f"{side}: {escape(title)}" for side, title in zip("AB", comparison.titles, strict=True))
    return (
        f"{titles}\n\n{format_table(('', 'A', 'B', 'B - A'), rows)}\n"
        f"{100 * comparison.level:g} % confidence interval of the difference: {low} to {high} "
        f"(paired bootstrap, {comparison.num_images} images, {comparison.replicates} replicates; "
        f"B better in {percent(comparison.share_better, 1)} % of them).\n"
    )


def _load_counts(folder: str | os.PathLike[str]) -> ImageCounts:
    place = Path(folder)
    file = (place if place.is_dir() else place.parent) / PER_IMAGE_FILE
    if not file.is_file():
        raise FileNotFoundError(f"Expected per-image counts beside the report, but there is no {file}.")
    return ImageCounts.load(file)


def _first_difference(first: tuple[str, ...], second: tuple[str, ...]) -> str:
    for one, other in zip(first, second, strict=False):
        if one != other:
            return f"{one!r} and {other!r}"
    return "one has more"


def _title(report: Mapping[str, Any]) -> str:
    predictor = report["settings"].get("predictor", {})
    method = predictor.get("method", "unknown method")
    return f"{report['title']} ({method}, vocabulary {report['vocabulary']['sha256'][:8]})"


def _sort_by_difference(comparison: Comparison) -> list[tuple[str, float, float]]:
    """Label and IoU in both of every class; those that one of them lacks at the end."""
    first, second = comparison.class_iou
    order = np.argsort(-np.abs(second - first), kind="stable")  # which puts nan last
    return [(comparison.class_names[n], first[n], second[n]) for n in order]

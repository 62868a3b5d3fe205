"""Compares two evaluations of the same images: differences by class, and how sure the difference of the mIoU is.

mIoU is a ratio of sums over the set, so its uncertainty comes from drawing images anew (with replacement), the same
ones for both methods: a paired bootstrap over the images' counts. Intervals are percentiles of the differences.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .confusion_matrix import divide_counts
from .image_counts import ImageCounts

__all__ = ["Comparison", "bootstrap_mean_iou_difference", "compare_counts"]

_REPLICATES_AT_ONCE = 100


@dataclass(frozen=True)
class Comparison:
    """Second evaluation minus first.

    Args:
        titles: What was compared.
        num_images: Images that both have scored.
        mean_iou: mIoU of each over those images.
        interval: Bounds of the confidence interval of the difference.
        level: Level of that interval.
        share_better: Share of the replicates in which the second is better.
        replicates: Number of replicates.
        class_names: Of the classes.
        class_iou: (2, C) IoU of each class; nan where it does not occur.
    """

    titles: tuple[str, str]
    num_images: int
    mean_iou: tuple[float, float]
    interval: tuple[float, float]
    level: float
    share_better: float
    replicates: int
    class_names: tuple[str, ...]
    class_iou: NDArray[np.float64]

    @property
    def difference(self) -> float:
        """Difference of the mIoU."""
        return self.mean_iou[1] - self.mean_iou[0]

    def to_dict(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        return {
            "titles": list(self.titles),
            "images": self.num_images,
            "mean_iou": list(self.mean_iou),
            "difference": self.difference,
            "interval": list(self.interval),
            "confidence": self.level,
            "share_better": self.share_better,
            "replicates": self.replicates,
            "classes": [
                {"label": label, "iou": [None if np.isnan(value) else float(value) for value in values]}
                for label, values in zip(self.class_names, self.class_iou.T, strict=True)
            ],
        }


def compare_counts(
    first: ImageCounts,
    second: ImageCounts,
    class_names: Sequence[str],
    titles: tuple[str, str],
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compares two evaluations by their counts, over the images that both have scored.

    Raises:
        ValueError: The two have no image in common, or other labels for one.
    """
    intersections, unions = _align(first, second)
    differences = bootstrap_mean_iou_difference(intersections, unions, replicates=replicates, seed=seed)
    tail = (1 - level) / 2
    class_iou = divide_counts(np.sum(intersections, axis=1), np.sum(unions, axis=1))
    low, high = np.quantile(differences, [tail, 1 - tail])
    return Comparison(
        titles=titles,
        num_images=len(intersections[0]),
        mean_iou=(float(np.nanmean(class_iou[0])), float(np.nanmean(class_iou[1]))),
        interval=(float(low), float(high)),
        level=level,
        share_better=float((differences > 0).mean()),
        replicates=replicates,
        class_names=tuple(class_names),
        class_iou=class_iou,
    )


def bootstrap_mean_iou_difference(
    intersections: list[NDArray[np.int64]], unions: list[NDArray[np.int64]], replicates: int, seed: int = 0
) -> NDArray[np.float64]:
    """(replicates,) differences of the mIoU, second minus first, over resampled images.

    Args:
        intersections: (N, C) pixels by image and class, of each evaluation.
        unions: The same for unions.
        replicates: Number of resamplings.
        seed: Of the resampling.
    """
    rng = np.random.default_rng(seed)
    num_images = len(intersections[0])
    uniform = np.full(num_images, 1 / num_images)
    differences = []
    for start in range(0, replicates, _REPLICATES_AT_ONCE):  # a million may be asked for: memory must not grow with it
        size = min(_REPLICATES_AT_ONCE, replicates - start)
        weights = rng.multinomial(num_images, uniform, size=size).astype(np.float64)  # how often each image is drawn
        means = [
            np.nanmean(divide_counts(weights @ intersection, weights @ union), axis=1)
            for intersection, union in zip(intersections, unions, strict=True)
        ]
        differences.append(means[1] - means[0])
    return np.concatenate(differences)


def _align(first: ImageCounts, second: ImageCounts) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Intersections and unions, (N, C) of each evaluation, over the images that both have, in one order."""
    positions = [{str(name): n for n, name in enumerate(counts.names)} for counts in (first, second)]
    common = [name for name in positions[0] if name in positions[1]]
    if not common:
        raise ValueError(
            "Expected reports of the same images, but they have none in common. Compare one dataset's reports."
        )
    intersections, unions, labelled = [], [], []
    for counts, position in zip((first, second), positions, strict=True):
        rows = [position[name] for name in common]
        intersection, predicted, label_area = (area[rows] for area in counts.areas())
        intersections.append(intersection)
        unions.append(predicted + label_area - intersection)
        labelled.append(label_area)
    differing = np.flatnonzero((labelled[0] != labelled[1]).any(axis=1))
    if differing.size:
        raise ValueError(
            f"Expected the same labels in both evaluations, but those of {differing.size} images differ, the first is "
            f"{common[differing[0]]}. Evaluate both with the same label files."
        )
    return intersections, unions

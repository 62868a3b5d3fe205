"""Confusion matrices: pure functions that count pixels and turn the counts into scores.

Label maps go in, an integer matrix of (label, prediction) counts comes out; all scores of the field follow from it.
Integers add up the same way in any order, which is why many processes can give the very matrix of one.
"""

from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "IGNORED",
    "SegmentationScores",
    "compute_area_scores",
    "compute_segmentation_scores",
    "count_label_pairs",
    "decode_pair_counts",
    "encode_pair_counts",
    "intersection_and_union",
    "map_labels",
]

IGNORED = -1
"""Class id of pixels that are not scored; 255, the usual one on disk, is a class where there are many."""

_DENSE_COUNT_SIDE = 1024


class SegmentationScores(TypedDict):
    """Scores of a whole set; absent classes are nan (or `nan_to_num`) and left out of the means."""

    mean_iou: float
    mean_accuracy: float
    overall_accuracy: float
    frequency_weighted_iou: float
    per_category_iou: NDArray[np.float64]
    per_category_accuracy: NDArray[np.float64]


def count_label_pairs(
    labels: NDArray[Any], predictions: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Counts the distinct (label, prediction) pairs of two label maps.

    Args:
        labels: (height, width) integer ids, any values.
        predictions: Integer ids of the same shape.

    Returns:
        Three arrays of one length: the labels, the predictions and how many pixels have both.

    Raises:
        ValueError: The shapes differ.
        TypeError: Either is not of an integer type.
    """
    if labels.shape != predictions.shape:
        raise ValueError(
            f"Expected a prediction of the label map's shape {labels.shape}, but got {predictions.shape}. "
            "Resize the prediction to the size of the label map."
        )
    for name, array in (("label map", labels), ("prediction", predictions)):
        if array.dtype.kind not in "iub":
            raise TypeError(f"Expected a {name} of an integer type, but got {array.dtype}.")
    if labels.size == 0:
        empty = np.zeros(0, dtype=np.int64)
        return empty, empty, empty
    label_ids = labels.astype(np.int64, copy=False).ravel()
    prediction_ids = predictions.astype(np.int64, copy=False).ravel()
    smallest = min(int(label_ids.min()), int(prediction_ids.min()))
    side = max(int(label_ids.max()), int(prediction_ids.max())) - smallest + 1
    codes = (label_ids - smallest) * side + (prediction_ids - smallest)
    if side <= _DENSE_COUNT_SIDE:  # counting is about 20 times faster than sorting, but needs side² cells
        dense = np.bincount(codes)
        distinct = np.flatnonzero(dense)
        counts = dense[distinct]
    else:
        distinct, counts = np.unique(codes, return_counts=True)
    return distinct // side + smallest, distinct % side + smallest, counts.astype(np.int64)


def encode_pair_counts(
    labels: NDArray[Any], predictions: NDArray[Any], num_classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Confusion matrix of one image in sparse form.

    Args:
        labels: (height, width) class ids in [0, num_classes), or `IGNORED`.
        predictions: (height, width) class ids in [0, num_classes).
        num_classes: Number of classes C.

    Returns:
        `codes` (label * C + prediction, ascending) and `counts` (pixels); most images have a few dozen of either.

    Raises:
        ValueError: An id lies outside the classes, or the shapes differ.
    """
    label_ids, prediction_ids, counts = count_label_pairs(labels, predictions)
    kept = label_ids != IGNORED
    label_ids, prediction_ids, counts = label_ids[kept], prediction_ids[kept], counts[kept]
    for name, ids in (("label", label_ids), ("predicted", prediction_ids)):
        wrong = np.unique(ids[(ids < 0) | (ids >= num_classes)])
        if wrong.size:
            raise ValueError(f"Expected {name} ids in 0…{num_classes - 1}, but got {wrong.tolist()}.")
    return label_ids * num_classes + prediction_ids, counts


def decode_pair_counts(codes: NDArray[Any], counts: NDArray[Any], num_classes: int) -> NDArray[np.int64]:
    """Sums sparse counts to a dense confusion matrix.

    Args:
        codes: (pairs,) label * C + prediction; a code may occur many times, so the records of many images can be
            strung together.
        counts: (pairs,) pixels.
        num_classes: Number of classes C.

    Returns:
        (C, C) matrix, rows are labels, columns predictions.
    """
    matrix = np.zeros(num_classes * num_classes, dtype=np.int64)
    np.add.at(matrix, np.asarray(codes, dtype=np.int64), np.asarray(counts, dtype=np.int64))
    return matrix.reshape(num_classes, num_classes)


def intersection_and_union(confusion: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Intersection and union per class, (C,) each, of a (C, C) matrix with labels as rows."""
    intersection = np.diagonal(confusion)
    return intersection, confusion.sum(axis=1) + confusion.sum(axis=0) - intersection


def compute_segmentation_scores(confusion: NDArray[np.int64], nan_to_num: float | None = None) -> SegmentationScores:
    """Scores of a (C, C) confusion matrix with labels as rows.

    Example:
        >>> import numpy as np
        >>> scores = compute_segmentation_scores(np.array([[2, 1], [0, 1]]))
        >>> round(scores["mean_iou"], 4), scores["overall_accuracy"]
        (0.5833, 0.75)
    """
    return compute_area_scores(
        np.diagonal(confusion), confusion.sum(axis=0), confusion.sum(axis=1), nan_to_num=nan_to_num
    )


def compute_area_scores(
    intersection: NDArray[np.int64],
    prediction_area: NDArray[np.int64],
    label_area: NDArray[np.int64],
    nan_to_num: float | None = None,
) -> SegmentationScores:
    """Scores from pixel counts per class, summed over the whole set before any division.

    Args:
        intersection: (C,) pixels where label and prediction agree.
        prediction_area: (C,) pixels predicted as the class, among the scored ones.
        label_area: (C,) scored pixels labelled as the class.
        nan_to_num: Written in place of nan, after the means are taken.

    Returns:
        The scores; fractions in [0, 1].
    """
    union = prediction_area + label_area - intersection
    with np.errstate(divide="ignore", invalid="ignore"):
        iou = intersection / union
        accuracy = intersection / label_area
        overall = float(np.float64(intersection.sum()) / label_area.sum())
        share = label_area / label_area.sum()
    labelled = label_area > 0
    scores = SegmentationScores(
        mean_iou=_mean_of_present(iou),
        mean_accuracy=_mean_of_present(accuracy),
        overall_accuracy=overall,
        frequency_weighted_iou=float((share[labelled] * iou[labelled]).sum()) if labelled.any() else float("nan"),
        per_category_iou=iou,
        per_category_accuracy=accuracy,
    )
    return scores if nan_to_num is None else _replace_nan(scores, nan_to_num)


def map_labels(
    ids: NDArray[np.int64], label_map: Mapping[int, int] | None = None, reduce_labels: bool = False
) -> NDArray[np.int64]:
    """Label ids after the dataset's own renaming: `label_map` first, then the shift of `reduce_labels`.

    Args:
        ids: Label ids of any shape.
        label_map: Old id → new id, all at once (a renamed id is not renamed again).
        reduce_labels: Whether id 0 is no class: 0 and 255 become 255, all others move down by one.
    """
    result = np.array(ids, dtype=np.int64)
    for old, new in (label_map or {}).items():
        result[ids == old] = new
    if reduce_labels:
        result = np.where((result == 0) | (result == 255), 255, result - 1)
    return result


def _mean_of_present(values: NDArray[np.float64]) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")


def _replace_nan(scores: SegmentationScores, value: float) -> SegmentationScores:
    return SegmentationScores(
        mean_iou=float(np.nan_to_num(scores["mean_iou"], nan=value)),
        mean_accuracy=float(np.nan_to_num(scores["mean_accuracy"], nan=value)),
        overall_accuracy=float(np.nan_to_num(scores["overall_accuracy"], nan=value)),
        frequency_weighted_iou=float(np.nan_to_num(scores["frequency_weighted_iou"], nan=value)),
        per_category_iou=np.nan_to_num(scores["per_category_iou"], nan=value),
        per_category_accuracy=np.nan_to_num(scores["per_category_accuracy"], nan=value),
    )

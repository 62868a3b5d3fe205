"""Confusion matrices: pure functions that count pixels and turn the counts into scores.

Label maps go in, an integer matrix of (label, prediction) counts comes out; all scores of the field follow from it.
Integers add up the same way in any order, which is why many processes can give the very matrix of one.
"""

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
    "divide_counts",
    "encode_pair_counts",
]

IGNORED = -1
"""Class id of pixels that are not scored; 255, the usual one on disk, is a class where there are many."""

_DENSE_COUNT_SIDE = 1024


class SegmentationScores(TypedDict):
    """Scores of a whole set, fractions in [0, 1]; absent classes are nan and left out of the means."""

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
    # From 0 on, as `IGNORED` is negative and codes must be places in an array.
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
    # Not `np.bincount`, which adds weights as floats.
    np.add.at(matrix, np.asarray(codes, dtype=np.int64), np.asarray(counts, dtype=np.int64))
    return matrix.reshape(num_classes, num_classes)


def divide_counts(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """Shares of counts, elementwise with broadcasting; nan where the whole is 0."""
    shape = np.broadcast_shapes(np.shape(part), np.shape(whole))
    return np.divide(part, whole, out=np.full(shape, np.nan), where=np.asarray(whole) > 0)


def compute_segmentation_scores(confusion: NDArray[np.int64]) -> SegmentationScores:
    """Scores of a (C, C) confusion matrix with labels as rows.

    Example:
        >>> import numpy as np
        >>> scores = compute_segmentation_scores(np.array([[2, 1], [0, 1]]))
        >>> round(scores["mean_iou"], 4), scores["overall_accuracy"]
        (0.5833, 0.75)
    """
    return compute_area_scores(np.diagonal(confusion), confusion.sum(axis=0), confusion.sum(axis=1))


def compute_area_scores(
    intersection: NDArray[np.int64], prediction_area: NDArray[np.int64], label_area: NDArray[np.int64]
) -> SegmentationScores:
    """Scores from pixel counts per class, summed over the whole set before any division.

    Args:
        intersection: (C,) pixels where label and prediction agree.
        prediction_area: (C,) pixels predicted as the class, among the scored ones.
        label_area: (C,) scored pixels labelled as the class.
    """
    iou = divide_counts(intersection, prediction_area + label_area - intersection)
    accuracy = divide_counts(intersection, label_area)
    share = divide_counts(label_area, label_area.sum())
    labelled = label_area > 0
    return SegmentationScores(
        mean_iou=_mean_of_present(iou),
        mean_accuracy=_mean_of_present(accuracy),
        overall_accuracy=float(divide_counts(intersection.sum(), label_area.sum())),
        frequency_weighted_iou=float((share[labelled] * iou[labelled]).sum()) if labelled.any() else float("nan"),
        per_category_iou=iou,
        per_category_accuracy=accuracy,
    )


def _mean_of_present(values: NDArray[np.float64]) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")

"""Mean intersection over union as an `evaluate` metric with an integer confusion matrix.

The scores are those of the Hub's `mean_iou`: intersections and unions are summed over the whole set, pixels of
`ignore_index` are left out, classes that never occur are nan. Unlike it, nothing is written to disk and memory does
not grow with the number of images: what is kept is how often each pair of ids was seen, so that all settings can still
be chosen in `compute`.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import datasets
import evaluate  # a metric file that imports the class by name is not found by `evaluate.load(path)`
import numpy as np

from .confusion_matrix import compute_area_scores, count_label_pairs

__all__ = ["MeanIoU"]

_DESCRIPTION = """
Mean intersection over union of semantic segmentation, with IoU and accuracy of every class, mean and overall
accuracy, and frequency-weighted IoU.
"""

_INPUTS_DESCRIPTION = """
Args:
    predictions (`list` of (height, width) integer arrays): predicted class ids; others count as wrong.
    references (`list` of (height, width) integer arrays): true class ids.
    num_labels (`int`): number of classes.
    ignore_index (`int`): label id of pixels that are not scored.
    nan_to_num (`float`, *optional*): written in place of nan, after the means are taken.
    label_map (`dict`, *optional*): old label id to new label id, all at once.
    reduce_labels (`bool`): whether label id 0 is ignored and all other ids but 255 move down by one.
Returns:
    `mean_iou`, `mean_accuracy`, `overall_accuracy`, `frequency_weighted_iou` (floats), `per_category_iou` and
    `per_category_accuracy` ((num_labels,) arrays).
Examples:
    >>> import numpy as np
    >>> metric = MeanIoU()
    >>> metric.add(prediction=np.array([[0, 1], [1, 1]]), reference=np.array([[0, 0], [1, 255]]))
    >>> round(metric.compute(num_labels=2, ignore_index=255)["mean_iou"], 3)
    0.5
"""


class MeanIoU(evaluate.Metric):
    """Mean IoU over a set, in constant memory; see `_INPUTS_DESCRIPTION` for the arguments of `compute`.

    Settings given here are the defaults of `compute`, for callers that pass none (`evaluate.load(path,
    num_labels=21)`).
    """

    def __init__(self, *args: Any, num_labels: int | None = None, ignore_index: int = 255, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.num_process != 1:
            raise ValueError(
                f"Expected `num_process=1`, but got {self.num_process}. This metric keeps its counts in memory. "
                "For many processes use `itaclip_hf.evaluation.run_evaluation`, which adds up theirs."
            )
        self.default_num_labels = num_labels
        self.default_ignore_index = ignore_index
        self._pairs: Counter[tuple[int, int]] = Counter()

    def _info(self) -> evaluate.MetricInfo:
        label_map = datasets.Sequence(datasets.Sequence(datasets.Value("uint16")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS_DESCRIPTION,
            features=datasets.Features({"predictions": label_map, "references": label_map}),
        )

    def __len__(self) -> int:
        """Pixels seen since the last `compute`, ignored ones included."""
        return self._pairs.total()

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Counts one image; (height, width) integer ids each."""
        self.add_batch(predictions=[prediction], references=[reference], **kwargs)

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Counts a batch of images, of one size or of many.

        Raises:
            ValueError: The two differ in number, or an image and its label map in size.
        """
        if kwargs:
            raise ValueError(f"Expected `predictions` and `references`, but also got {sorted(kwargs)}.")
        if predictions is None or references is None:
            raise ValueError("Expected both `predictions` and `references`, but one is missing.")
        if len(predictions) != len(references):
            raise ValueError(
                f"Expected as many predictions as references, but got {len(predictions)} and {len(references)}."
            )
        counted = [
            count_label_pairs(np.asarray(r), np.asarray(p)) for p, r in zip(predictions, references, strict=True)
        ]
        for labels, predicted, counts in counted:  # only now, so that an error above leaves no half batch behind
            for pair, count in zip(
                zip(labels.tolist(), predicted.tolist(), strict=True), counts.tolist(), strict=True
            ):
                self._pairs[pair] += count

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, Any]:
        """Adds what is given, returns the scores of everything added since the last `compute`, and starts afresh."""
        if predictions is not None or references is not None:
            self.add_batch(predictions=predictions, references=references)
        scores = _compute_scores(
            self._pairs,
            num_labels=self._required_num_labels(kwargs.pop("num_labels", None)),
            ignore_index=kwargs.pop("ignore_index", self.default_ignore_index),
            **kwargs,
        )
        self._pairs = Counter()
        return scores

    def _required_num_labels(self, num_labels: int | None) -> int:
        num_labels = self.default_num_labels if num_labels is None else num_labels
        if num_labels is None or num_labels < 1:
            raise ValueError(f"Expected `num_labels` >= 1, but got {num_labels}. Pass `compute(num_labels=…)`.")
        return num_labels


def _compute_scores(
    pairs: Mapping[tuple[int, int], int],
    num_labels: int,
    ignore_index: int,
    nan_to_num: float | None = None,
    label_map: Mapping[int, int] | None = None,
    reduce_labels: bool = False,
) -> dict[str, Any]:
    """Renames, ignores and sums the counted pairs; all three act on ids, so they may come after the counting."""
    if not pairs:
        raise ValueError("Expected at least one image before `compute`, but none was added.")
    labels, predictions, counts = np.array([(*ids, count) for ids, count in pairs.items()], dtype=np.int64).T
    labels = _rename_labels(labels, label_map or {}, reduce_labels)
    kept = labels != ignore_index
    labels, predictions, counts = labels[kept], predictions[kept], counts[kept]
    wrong = np.unique(labels[(labels < 0) | (labels >= num_labels)])
    if wrong.size:
        raise ValueError(
            f"Expected label ids in 0…{num_labels - 1} or {ignore_index}, but got {wrong.tolist()}. "
            "Check `num_labels`, `ignore_index` and `reduce_labels`."
        )
    predicted = (predictions >= 0) & (predictions < num_labels)
    agree = labels == predictions
    scores = dict(
        compute_area_scores(
            intersection=_sum_by_id(labels[agree], counts[agree], num_labels),
            prediction_area=_sum_by_id(predictions[predicted], counts[predicted], num_labels),
            label_area=_sum_by_id(labels, counts, num_labels),
        )
    )
    return scores if nan_to_num is None else _replace_nan(scores, nan_to_num)


def _rename_labels(ids: np.ndarray, label_map: Mapping[int, int], reduce_labels: bool) -> np.ndarray:
    """`label_map` first, then the shift of `reduce_labels`."""
    result = ids.copy()
    for old, new in label_map.items():
        result[ids == old] = new  # by the ids as they came: what was renamed is not renamed again
    if reduce_labels:
        result = np.where((result == 0) | (result == 255), 255, result - 1)
    return result


def _sum_by_id(ids: np.ndarray, counts: np.ndarray, num_labels: int) -> np.ndarray:
    areas = np.zeros(num_labels, dtype=np.int64)
    np.add.at(areas, ids, counts)
    return areas


def _replace_nan(scores: Mapping[str, Any], value: float) -> dict[str, Any]:
    replaced = {name: np.nan_to_num(score, nan=value) for name, score in scores.items()}
    return {name: score if score.ndim else float(score) for name, score in replaced.items()}

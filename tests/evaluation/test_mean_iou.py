"""The metric against NumPy, the documented example of the Hub's metric, and maps small enough to count by hand."""

from pathlib import Path

import evaluate
import numpy as np
import pytest

import itaclip_hf.evaluation.metrics.mean_iou as mean_iou_module
from itaclip_hf.evaluation.metrics.mean_iou import MeanIoU

METRIC_FILE = Path(mean_iou_module.__file__)


def score_with_numpy(
    predictions: list[np.ndarray], references: list[np.ndarray], num_labels: int, ignore_index: int
) -> dict[str, np.ndarray | float]:
    """Intersections and unions with masks, class by class, as the Hub's definition reads."""
    intersection, union, labelled = np.zeros(num_labels), np.zeros(num_labels), np.zeros(num_labels)
    for prediction, reference in zip(predictions, references, strict=True):
        scored = reference != ignore_index
        for label in range(num_labels):
            predicted, true = (prediction == label) & scored, (reference == label) & scored
            intersection[label] += (predicted & true).sum()
            union[label] += (predicted | true).sum()
            labelled[label] += true.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        iou, accuracy = intersection / union, intersection / labelled
    share = labelled / labelled.sum()
    return {
        "mean_iou": np.nanmean(iou),
        "mean_accuracy": np.nanmean(accuracy),
        "overall_accuracy": intersection.sum() / labelled.sum(),
        "frequency_weighted_iou": (share * np.nan_to_num(iou)).sum(),
        "per_category_iou": iou,
        "per_category_accuracy": accuracy,
    }


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint16])
@pytest.mark.parametrize("num_labels", [2, 21])
def test_equals_numpy_over_random_maps_of_many_sizes(dtype: type, num_labels: int) -> None:
    rng = np.random.default_rng(0)
    sizes = [(5, 7), (12, 3), (1, 1), (20, 20)]
    references = [rng.choice([*range(num_labels), 255], size).astype(dtype) for size in sizes]
    predictions = [rng.integers(0, num_labels, size).astype(dtype) for size in sizes]
    result = MeanIoU().compute(predictions=predictions, references=references, num_labels=num_labels, ignore_index=255)
    for key, expected in score_with_numpy(predictions, references, num_labels, 255).items():
        np.testing.assert_allclose(result[key], expected, rtol=1e-12)


def test_equals_the_documented_example_of_the_hub_metric() -> None:
    predictions = [[[1, 2], [3, 4], [5, 255]], [[2, 7], [9, 2], [3, 6]], [[2, 2, 3], [8, 2, 4], [3, 255, 2]]]
    references = [[[0, 3], [5, 4], [6, 255]], [[1, 7], [9, 2], [3, 6]], [[1, 2, 2], [8, 2, 1], [3, 255, 1]]]
    result = MeanIoU().compute(predictions=predictions, references=references, num_labels=10, ignore_index=255)
    assert result["mean_iou"] == pytest.approx(0.4775)
    assert result["mean_accuracy"] == pytest.approx(0.5916666666666666)
    assert result["overall_accuracy"] == pytest.approx(0.5263157894736842)
    np.testing.assert_allclose(result["per_category_iou"], [0, 0, 0.375, 0.4, 0.5, 0, 0.5, 1, 1, 1])


def test_two_by_two_maps_counted_by_hand() -> None:
    metric = MeanIoU(num_labels=2)
    metric.add(prediction=np.array([[0, 0], [1, 1]]), reference=np.array([[0, 1], [1, 1]]))
    metric.add(prediction=np.array([[1, 1], [1, 0]]), reference=np.array([[0, 1], [255, 255]]))
    result = metric.compute()
    # class 0: 1 of 3; class 1: 3 of 5; accuracies 1 of 2 and 3 of 4; 6 scored pixels
    np.testing.assert_allclose(result["per_category_iou"], [1 / 3, 3 / 5])
    np.testing.assert_allclose(result["per_category_accuracy"], [1 / 2, 3 / 4])
    assert result["mean_iou"] == pytest.approx((1 / 3 + 3 / 5) / 2)
    assert result["overall_accuracy"] == pytest.approx(4 / 6)
    assert result["frequency_weighted_iou"] == pytest.approx(2 / 6 * 1 / 3 + 4 / 6 * 3 / 5)


def test_sums_over_the_set_and_not_over_images() -> None:
    metric = MeanIoU(num_labels=1)
    metric.add(prediction=np.zeros((1, 1), dtype=int), reference=np.zeros((1, 1), dtype=int))
    metric.add(prediction=np.full((1, 3), 9), reference=np.zeros((1, 3), dtype=int))
    assert metric.compute()["mean_iou"] == pytest.approx(1 / 4)


def test_absent_classes_are_nan_and_left_out_of_the_mean() -> None:
    maps = np.array([[0, 2]])
    result = MeanIoU().compute(predictions=[maps], references=[maps], num_labels=4, ignore_index=255)
    np.testing.assert_array_equal(result["per_category_iou"], [1, np.nan, 1, np.nan])
    assert result["mean_iou"] == 1.0


def test_nan_to_num_replaces_nan_after_the_means() -> None:
    maps = np.array([[0, 2]])
    result = MeanIoU().compute(predictions=[maps], references=[maps], num_labels=4, ignore_index=255, nan_to_num=-1)
    np.testing.assert_array_equal(result["per_category_iou"], [1, -1, 1, -1])
    assert result["mean_iou"] == 1.0


def test_reduce_labels_drops_zero_and_shifts_the_others() -> None:
    references = np.array([[0, 1, 2, 255]])
    predictions = np.array([[1, 0, 0, 1]])
    result = MeanIoU().compute(
        predictions=[predictions], references=[references], num_labels=2, ignore_index=255, reduce_labels=True
    )
    np.testing.assert_allclose(result["per_category_iou"], [1 / 2, 0])


def test_label_map_renames_all_at_once() -> None:
    references, predictions = np.array([[0, 1]]), np.array([[1, 0]])
    result = MeanIoU().compute(
        predictions=[predictions], references=[references], num_labels=2, ignore_index=255, label_map={0: 1, 1: 0}
    )
    assert result["mean_iou"] == 1.0


def test_loads_by_path_offline_and_gives_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    metric = evaluate.load(str(METRIC_FILE), cache_dir=str(tmp_path))
    maps = np.array([[0, 1], [1, 1]])
    metric.add_batch(predictions=[maps], references=[maps])
    assert metric.compute(num_labels=2, ignore_index=255)["mean_iou"] == 1.0
    assert not list(tmp_path.rglob("*.arrow"))


def test_memory_does_not_grow_with_the_number_of_images() -> None:
    rng = np.random.default_rng(0)
    metric = MeanIoU(num_labels=4)
    sizes = []
    for _ in range(50):
        metric.add(prediction=rng.integers(0, 4, (30, 30)), reference=rng.integers(0, 4, (30, 30)))
        sizes.append(len(metric._pairs))
    assert max(sizes) == 16
    assert len(metric) == 50 * 900


def test_compute_starts_afresh() -> None:
    metric = MeanIoU(num_labels=2)
    metric.add(prediction=np.array([[0]]), reference=np.array([[1]]))
    metric.compute()
    metric.add(prediction=np.array([[1]]), reference=np.array([[1]]))
    assert metric.compute()["mean_iou"] == 1.0


def test_ids_beyond_the_dense_range_are_counted_alike() -> None:
    references, predictions = np.array([[5000, 3]]), np.array([[5000, 2]])
    result = MeanIoU().compute(predictions=[predictions], references=[references], num_labels=5001, ignore_index=255)
    assert result["overall_accuracy"] == 0.5


def test_errors_say_what_was_expected() -> None:
    maps = np.zeros((2, 2), dtype=int)
    metric = MeanIoU()
    with pytest.raises(ValueError, match=r"shape \(2, 2\), but got \(2, 1\)"):
        metric.add(prediction=maps[:, :1], reference=maps)
    with pytest.raises(ValueError, match="as many predictions as references, but got 1 and 2"):
        metric.add_batch(predictions=[maps], references=[maps, maps])
    with pytest.raises(TypeError, match=r"label map of an integer type, but got float64"):
        metric.add(prediction=maps, reference=maps / 2)
    with pytest.raises(ValueError, match="at least one image"):
        metric.compute(num_labels=2)
    with pytest.raises(ValueError, match=r"label ids in 0…1 or 255, but got \[7\]"):
        metric.compute(predictions=[maps], references=[maps + 7], num_labels=2, ignore_index=255)
    with pytest.raises(ValueError, match="`num_labels` >= 1, but got None"):
        metric.compute(predictions=[maps], references=[maps])
    with pytest.raises(ValueError, match="`num_process=1`, but got 2"):
        MeanIoU(num_process=2, process_id=0)

from pathlib import Path

import numpy as np
import pytest
import torch

from itaclip_hf.processing import assign_labels, close_label_map, drop_small_classes_, find_small_classes

GOLDENS = Path(__file__).parents[1] / "goldens"


def close_by_hand(labels):
    """Grey-scale closing written out: largest, then smallest id of the neighbours inside the image."""

    def filter_with(choose, values):
        result = np.empty_like(values)
        for row, column in np.ndindex(values.shape):
            result[row, column] = choose(values[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2])
        return result

    return filter_with(np.min, filter_with(np.max, labels))


def test_labels_are_the_best_classes_and_the_first_among_equals():
    scores = torch.tensor([[[0.5, 0.2, 0.4]], [[0.5, 0.3, 0.1]], [[0.0, 0.5, 0.5]]])
    assert assign_labels(scores).tolist() == [[0, 2, 2]]


def test_unsure_pixels_become_background_and_the_threshold_itself_is_enough():
    scores = torch.tensor([[[0.1, 0.2, 0.3]], [[0.25, 0.5, 0.125]], [[0.0, 0.25, 0.5]]])
    assert assign_labels(scores, threshold=0.5).tolist() == [[0, 1, 2]]


def test_area_shares_are_those_of_the_foreground():
    labels = torch.tensor([[0, 0, 0, 0, 0, 0, 1, 2, 2, 2]])
    assert find_small_classes(labels, 4, area_threshold=0.24).tolist() == [False, False, False, True]
    assert find_small_classes(labels, 4, area_threshold=0.25).tolist() == [False, True, False, True]
    assert find_small_classes(labels, 4, area_threshold=1.0).tolist() == [False, True, True, True]


def test_an_image_without_foreground_has_only_small_classes():
    assert find_small_classes(torch.zeros(2, 2, dtype=torch.int64), 3, 0.1).tolist() == [False, True, True]


def test_dropping_small_classes_zeroes_scores_in_place():
    scores = torch.tensor([[[0.1, 0.2, 0.3, 0.0]], [[0.6, 0.1, 0.1, 0.1]], [[0.3, 0.7, 0.6, 0.9]]])
    result = drop_small_classes_(scores, share=0.25)
    assert result is scores
    assert scores[1].abs().max() == 0
    assert scores[0, 0, 0] == pytest.approx(0.1)
    assert assign_labels(scores).tolist() == [[2, 2, 2, 2]]


def test_closing_fills_a_hole_with_the_higher_id_and_keeps_lone_pixels():
    hole = torch.tensor([[2, 2, 2, 2], [2, 1, 2, 2], [2, 2, 2, 2]])
    assert close_label_map(hole).tolist() == [[2] * 4] * 3
    dot = torch.tensor([[0, 0, 0], [0, 3, 0], [0, 0, 0]])
    assert close_label_map(dot).tolist() == [[3] * 3] * 3
    assert close_label_map(torch.zeros(5, 5, dtype=torch.int64)).sum() == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 2), (13, 9)])
def test_closing_equals_its_definition(shape):
    labels = np.random.default_rng(0).integers(0, 6, shape)
    closed = close_label_map(torch.from_numpy(labels))
    assert closed.dtype == torch.int64
    np.testing.assert_array_equal(closed.numpy(), close_by_hand(labels))


def test_recorded_scores_give_recorded_labels(golden):
    # Only every 8th score is on record, so that closing, which never lowers an id, cannot be repeated here.
    labels = assign_labels(torch.from_numpy(golden["scores"]), golden["spec"]["score_threshold"])
    recorded = torch.from_numpy(golden["labels"].astype(np.int64))
    assert (recorded[::8, ::8] >= labels).all()
    assert (recorded[::8, ::8] == labels).float().mean() > 0.98
    assert torch.equal(close_label_map(recorded), recorded)


@pytest.mark.parametrize("golden", [GOLDENS / "background_synonyms_refined.npz"], indirect=True)
def test_recorded_area_threshold(golden):
    assert golden["spec"]["area_threshold"] == 0.1
    is_zero = golden["scores"].max(axis=(1, 2)) == 0
    assert is_zero.tolist() == [False, True, True, True, False]
    counts = np.bincount(golden["labels"].flatten(), minlength=5)
    assert counts[is_zero].sum() == 0

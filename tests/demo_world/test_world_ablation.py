"""The table of held-out scores: rows add parts, scores are those of a confusion matrix, intervals enclose them."""

import itertools

import numpy as np
import pytest
import torch

from demo_world.ablation_table import VARIANTS, _mean_iou, _summarize, score_checkpoint
from demo_world.dataset import compose_benchmark_scene, vocabulary_dict
from demo_world.export import build_model, export_checkpoint
from demo_world.model_card import build_model_card
from demo_world.tokenizer import build_tokenizer
from demo_world.vocabulary import load_world_classes


def test_rows_add_one_part_after_another():
    for before, after in itertools.pairwise(VARIANTS[:7]):
        changed = [name for name, value in after.config.items() if before.config[name] != value]
        switched = (before.image_engineering != after.image_engineering) + (
            before.has_definitions != after.has_definitions
        )
        assert len(changed) + switched == 1


def test_last_row_with_every_part_is_the_default_method():
    from itaclip_hf import ITACLIPConfig

    defaults = ITACLIPConfig()
    assert {name: getattr(defaults, name) for name in VARIANTS[6].config} == VARIANTS[6].config
    assert VARIANTS[6].image_engineering and VARIANTS[6].has_definitions


def test_mean_iou_by_hand():
    # Class 0: 2 hits of 2 + 1 false, class 1: 1 hit of 2, class 2: neither there nor predicted.
    assert _mean_iou(np.array([[2, 0, 0], [1, 1, 0], [0, 0, 0]])) == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)


def test_interval_encloses_the_score():
    rng = np.random.default_rng(0)
    row = _summarize(rng.integers(0, 50, (12, 3, 3)))
    assert row["low"] < row["miou"] < row["high"]


def test_every_pixel_of_every_scene_is_counted(tmp_path, capsys):
    from itaclip_hf import Vocabulary

    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, width=32, layers=12, text_layers=1)
    export_checkpoint(model, tokenizer, load_world_classes(small=True), tmp_path / "checkpoint")
    scenes = [compose_benchmark_scene("world-20", number, size=(32, 40)) for number in range(2)]
    vocabulary = Vocabulary.from_dict(vocabulary_dict("world-20"))
    matrices = score_checkpoint(tmp_path / "checkpoint", scenes, vocabulary, [VARIANTS[0], VARIANTS[6]], 224)
    assert list(matrices) == [VARIANTS[0].name, VARIANTS[6].name]
    for counts in matrices.values():
        assert counts.shape == (2, 21, 21)
        for scene, matrix in zip(scenes, counts, strict=True):
            assert np.array_equal(matrix.sum(1), np.bincount(scene.label.ravel(), minlength=21))
    assert not np.array_equal(*matrices.values())


def test_model_card_reports_run_and_scores():
    row = {"miou": 41.26, "low": 38.0, "high": 44.0}
    settings = {"title": "Held out", "benchmark": "world-stuff", "scenes": 48, "stride": 56}
    table = {**settings, "styles": ["fluent-emoji"], "rows": {"plain CLIP": row}}
    card = build_model_card(
        load_world_classes(small=True), 6.9, 2023, [{"scenes": 1}, {"scenes": 90_000, "minutes": 75.4}], tables=[table]
    )
    for text in (
        "90,000 scenes in 75 minutes",
        "42 classes",
        "| plain CLIP | 41.3 | 38.0 – 44.0 |",
        "48 fresh",
        "held-out",
    ):
        assert text in card

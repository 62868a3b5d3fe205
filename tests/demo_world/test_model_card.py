"""The model card and its table: rows add parts up to the whole method, figures come from `itaclip ablate`."""

import itertools
from dataclasses import replace
from pathlib import Path

from demo_world.model_card import build_model_card
from demo_world.vocabulary import load_world_classes
from itaclip_hf import Vocabulary
from itaclip_hf.evaluation.ablation.table_files import load_table_file
from itaclip_hf.evaluation.ablation.variants import AblationBase, resolve_row

TABLE = load_table_file(Path(__file__).parents[2] / "demo_world" / "parts_table.yaml")
BASE = AblationBase("demo", Vocabulary(["cat", "dog"]).with_auxiliary_texts(["a small pet", "a loyal pet"]))


def resolve(name: str) -> dict:
    """All settings of a row."""
    (row,) = [row for row in TABLE.rows if row.name == name]
    return resolve_row(BASE, TABLE, row).settings.to_json()


def test_rows_add_one_part_after_another():
    rows = [resolve(row.name) for row in TABLE.rows[:7]]
    changed = [[name for name in after if before[name] != after[name]] for before, after in itertools.pairwise(rows)]
    assert changed == [
        ["attention_maps"],
        ["last_feed_forward"],
        ["intermediate_layers"],
        ["image_engineering"],
        ["auxiliary_weight"],
        ["pamr_steps"],
    ]


def test_all_parts_together_are_the_method():
    full = resolve("+ PAMR (all of ITACLIP)")
    assert resolve("all but image engineering") == {**full, "image_engineering": False}
    whole = resolve_row(BASE, TABLE, replace(TABLE.rows[0], settings={"method": "itaclip"}))
    assert whole.settings.to_json() == full


def test_model_card_reports_run_and_scores():
    rows = [
        {"name": "plain CLIP", "mean_iou": 0.3, "difference": 0.0, "interval": [0.0, 0.0], "published": {}},
        {"name": "+ qq + kk", "mean_iou": 0.4126, "difference": 0.1126, "interval": [0.1, 0.12], "published": {}},
    ]
    report = {
        "title": "Parts", "note": "Each row.", "confidence": 0.95, "reference": "plain CLIP", "images": 48,
        "rows": rows, "shown_benchmarks": [], "pairs_in_published_order": {},
        "run": {"dataset": "world-stuff-48", "settings": {"window_stride": 56}},
    }  # fmt: skip
    looks = {"seen_plain": 1.0, "seen_itaclip": 2.0, "validation_plain": 3.0, "validation_itaclip": 4.06}
    curve = [{"scenes": 1}, {"scenes": 90_000, "minutes": 75.4, **looks}]
    card = build_model_card(load_world_classes(small=True), 6.9, 2023, curve, tables=[report])
    for text in (
        "90,000 scenes in 75 minutes",
        "42 classes",
        "| + qq + kk | 41.3 | +11.3 (+10.0 to +12.0) |",
        "| 90,000 | 1.0 | 2.0 | 3.0 | 4.1 |",
        "held-out Fluent styles (`world-stuff-48`), windows at stride 56",
        "48 images.",
    ):
        assert text in card

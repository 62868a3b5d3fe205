"""Ablation tables: declarations against the paper, sharing without any change of results, files and the command."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from scripted_evaluation import load_folders, save_tiny_checkpoint, write_folders
from typer.testing import CliRunner

from itaclip_hf import Vocabulary, load
from itaclip_hf.cli.ablate import _choose_tables
from itaclip_hf.cli.main import app
from itaclip_hf.evaluation import find_baseline
from itaclip_hf.evaluation.ablation import family as variant_family, paper_tables
from itaclip_hf.evaluation.ablation.family import VariantFamily
from itaclip_hf.evaluation.ablation.paper_tables import get_table, table_names
from itaclip_hf.evaluation.ablation.report import build_table_report, format_ablation
from itaclip_hf.evaluation.ablation.run import run_ablations
from itaclip_hf.evaluation.ablation.table_files import load_table_file
from itaclip_hf.evaluation.ablation.tables import AblationRow, AblationTable
from itaclip_hf.evaluation.ablation.variants import AblationBase, resolve_row
from itaclip_hf.evaluation.data.regions import DatasetWithRegions
from itaclip_hf.evaluation.metrics.confusion_matrix import compute_segmentation_scores
from itaclip_hf.evaluation.metrics.image_counts import ImageCounts
from itaclip_hf.evaluation.running.predictor import ITACLIPPredictor
from itaclip_hf.evaluation.running.runner import EvaluationResult, Problem, RunOptions, describe_run, run_evaluation
from itaclip_hf.files import write_json
from itaclip_hf.methods import get_method, method_names

QUIET = RunOptions(num_workers=0, save_interval=0.0, show_progress=False)
WORDS = Vocabulary(["one", ["two", "pair"], "three", "four"], background=["sky", "wall"]).with_auxiliary_texts(
    {"one": "a single thing", "four": "two and two"}
)
SMALL = {"window_size": 32, "window_stride": 16, "shortest_edge": 40, "pamr_steps": 2, "pamr_dilations": [1, 2]}
MIXED = AblationTable(
    "mixed",
    "All kinds of settings",
    (
        AblationRow("full"),
        AblationRow("q-k", {"attention_maps": ("qk",), "last_feed_forward": True}),
        AblationRow("no refinement", {"pamr_steps": 0}),
        AblationRow("weights", {"photometric_weight": 0.5, "auxiliary_weight": 0.4}),
        AblationRow("names alone, plain views", {"image_engineering": False, "auxiliary_weight": 0.0}),
        AblationRow("thresholds", {"score_threshold": 0.2, "closing": False}),
        AblationRow("areas", {"area_threshold": 0.2, "similarity_scale": 10.0}),
        AblationRow("stride", {"window_stride": 32}),
        AblationRow("background", {"background": ("background",)}),
        AblationRow("another method", {"method": "naclip", "window_size": 0, "shortest_edge": 48}),
        AblationRow("the same as full", {"window_stride": 16}),
    ),
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"), num_layers=12)


@pytest.fixture(autouse=True)
def no_text_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITACLIP_TEXT_CACHE", "off")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_folders(tmp_path, num_images=3)
    write_json(tmp_path / "words.json", WORDS.to_dict())
    return tmp_path


@pytest.fixture
def base(checkpoint: Path) -> AblationBase:
    return AblationBase(str(checkpoint), WORDS, settings=SMALL)


def ablate(
    root: Path, base: AblationBase, *tables: AblationTable, out: str = "out", dataset: Any = None, **settings: object
):
    run, dataset = replace(QUIET, **settings), dataset or load_folders(root)
    return run_ablations(tables, base, dataset, root / out, options=run, plots=False, replicates=20)


def predict_alone(base: AblationBase, row: AblationRow) -> ITACLIPPredictor:
    """The predictor that `itaclip evaluate` would make of the row's settings."""
    variant = resolve_row(base, MIXED, row)
    asked = {"settings": variant.settings.to_json(), "proxy": variant.proxy}
    loaded = load(variant.model, **asked, dtype="float32", device="cpu")
    return ITACLIPPredictor(*loaded, variant.vocabulary, name=variant.model)


def test_full_rows_have_the_published_figures_of_the_benchmarks() -> None:
    full = get_method("itaclip").published
    for name in ("attention", "feed-forward", "pamr", "stride", "background", "methods"):
        table = get_table(name)
        published = next(row.published for row in table.rows if row.name == table.reference)
        assert {key: full[key] for key in published} == published, name


@pytest.mark.parametrize("benchmark", ["voc21", "context60", None])
def test_rows_that_mean_the_same_are_one_variant(benchmark: str | None) -> None:
    base = AblationBase("demo", WORDS, benchmark)
    table, row = get_table("pamr"), {name: get_table(name) for name in table_names()}
    full, without = (resolve_row(base, table, entry).key for entry in reversed(table.rows))
    for name in ("attention", "feed-forward", "stride", "background", "methods"):
        reference = next(entry for entry in row[name].rows if entry.name == row[name].reference)
        assert resolve_row(base, row[name], reference).key == full, name
    assert resolve_row(base, row["intermediate"], row["intermediate"].rows[4]).key == without
    assert resolve_row(base, row["engineering"], row["engineering"].rows[2]).key == without
    if benchmark == "context60":  # whose published α and λ are 0.15 and 0.75
        assert resolve_row(base, row["weights"], row["weights"].rows[0]).key == without


def test_tables_are_found_by_name_and_number() -> None:
    assert [get_table(number).name for number in ("1", "2", "5", "10")] == [
        "methods",
        "attention",
        "pamr",
        "backbones",
    ]
    with pytest.raises(ValueError, match=r"table out of attention \(2\).*'all', or a YAML file, but got '9'"):
        get_table("9")


def test_the_papers_tables_are_complete() -> None:
    found = {
        table.name: (table.number, table.reference, len(table.rows), dict(table.base))
        for table in map(get_table, table_names())
    }
    unrefined = {"pamr_steps": 0}
    assert found == {
        "attention": (2, "q-q + k-k", 7, {}),
        "feed-forward": (3, "dropped", 2, {}),
        "intermediate": (4, "7, 8, 10", 6, unrefined),
        "pamr": (5, "on", 2, {}),
        "engineering": (6, "neither", 3, unrefined),
        "stride": (7, "28", 4, {}),
        "weights": (8, "λ 0.75, α 0.15", 8, unrefined),
        "background": (11, "all words", 2, {}),
        "methods": (1, "ITACLIP", len(get_table("methods").rows), {}),
        "backbones": (10, "openai/clip-vit-base-patch16", 3, {}),
    }
    assert list(found)[:8] == sorted(list(found)[:8], key=lambda name: found[name][0] or 0)
    figures = {row.name: dict(row.published) for row in get_table("stride").rows}
    assert figures["224"] == {"coco_stuff": 25.3, "coco_object": 36.7, "voc21": 66.1, "context60": 36.9}
    totals = {name: sum(sum(row.published.values()) for row in get_table(name).rows) for name in list(found)[:8]}
    assert totals == pytest.approx(
        {
            "attention": 387.0, "feed-forward": 335.9, "intermediate": 392.5, "pamr": 334.4, "engineering": 179.0,
            "stride": 673.6, "weights": 286.9, "background": 72.2,
        }
    )  # fmt: skip


def test_settings_of_the_run_leave_other_methods_alone() -> None:
    base = AblationBase("demo", WORDS, settings={"window_stride": 56, "similarity_scale": 99.0})
    table = get_table("methods")
    rows = [row for row in table.rows if row.settings["method"] in method_names()]
    strides = {row.name: resolve_row(base, table, row).settings.window_stride for row in rows}
    assert (strides["ITACLIP"], strides["CLIP"], strides["SCLIP + PAMR"]) == (56, 112, 112)
    base = AblationBase("demo", WORDS, settings={"method": "clip", "window_stride": 56})
    strides = {row.name: resolve_row(base, table, row).settings.window_stride for row in rows}
    assert (strides["ITACLIP"], strides["CLIP"]) == (28, 56)
    assert resolve_row(base, MIXED, MIXED.rows[0]).settings.attention_maps == ("qk",)


def test_every_row_has_the_bits_counts_and_description_of_its_own_evaluation(root: Path, base: AblationBase) -> None:
    dataset = load_folders(root)
    _, results = ablate(root, base, MIXED)
    assert len(results) == len(MIXED.rows) - 1  # one row occurs twice
    settings = [json.loads(path.read_text()) for path in (root / "out" / "progress").glob("*/settings.json")]
    family = VariantFamily([resolve_row(base, MIXED, row) for row in MIXED.rows])
    shared = dict(family.predict_each(family.prepare_images([dataset.load(0).image]), range(len(MIXED.rows))))
    for position, (row, result) in enumerate(zip(MIXED.rows, results, strict=False)):
        predictor = predict_alone(base, row)
        (alone,) = predictor.predict(predictor.prepare_images([dataset.load(0).image]))
        assert torch.equal(shared[position][0].labels, alone.labels), row.name
        assert torch.equal(shared[position][0].confidence, alone.confidence), row.name
        evaluated = run_evaluation(dataset, predictor, root / "alone" / row.name, QUIET)
        assert np.array_equal(result.confusion, evaluated.confusion), row.name
        assert json.loads(json.dumps(describe_run(dataset, predictor, QUIET))) in settings, row.name
    assert len({result.confusion.tobytes() for result in results}) > 6  # the rows do differ


BY_BLOCK_2 = {"attention_maps": ("similarity",), "similarity_block": 2, "intermediate_layers": ()}
PARTS = AblationTable(
    "parts",
    "What looks at regions, at a proxy, or at both",
    (
        AblationRow("full"),
        AblationRow("vote", {"region_vote": True}),
        AblationRow("scope", {**BY_BLOCK_2, "region_scope": True}),
        AblationRow("proxy", {"attention_maps": ("qq", "similarity"), "intermediate_maps": ("qq",)}),
        AblationRow("CorrCLIP", {"method": "corrclip", "shortest_edge": 48}),
    ),
)


@pytest.fixture
def with_regions(root: Path) -> DatasetWithRegions:
    (root / "regions").mkdir()
    for index in range(3):
        shape = (6 + index % 3, 8)  # of `write_folders`
        np.save(root / "regions" / f"{index:03d}.npy", np.arange(np.prod(shape)).reshape(shape) // 7 % 5)
    return DatasetWithRegions(load_folders(root), str(root / "regions"))


def test_rows_with_regions_and_a_proxy_have_the_bits_of_their_own_evaluation(
    root: Path, base: AblationBase, proxy: Path, with_regions: DatasetWithRegions
) -> None:
    base = replace(base, proxy=str(proxy))
    reports, results = ablate(root, base, PARTS, dataset=with_regions, batch_size=2)
    assert (reports[0]["run"]["proxy"], reports[0]["run"]["regions"]) == (str(proxy), "regions")
    settings = [json.loads(path.read_text()) for path in (root / "out" / "progress").glob("*/settings.json")]
    options = replace(QUIET, batch_size=2)
    for row, result in zip(PARTS.rows, results, strict=True):
        predictor = predict_alone(base, row)
        evaluated = run_evaluation(with_regions, predictor, root / "alone" / row.name, options)
        assert np.array_equal(result.confusion, evaluated.confusion), row.name
        assert json.loads(json.dumps(describe_run(with_regions, predictor, options))) in settings, row.name
    assert len({result.confusion.tobytes() for result in results}) == len(PARTS.rows)


def test_rows_that_lack_what_they_look_at_are_left_out_and_named(root: Path, base: AblationBase) -> None:
    rows = (*PARTS.rows, MIXED.rows[1])
    reports, _ = ablate(root, base, replace(PARTS, rows=rows), limit=1)
    assert [row["name"] for row in reports[0]["rows"]] == ["full", "q-k"]
    assert reports[0]["note"] == (
        "Left out: vote (needs regions), scope (needs regions), proxy (needs a proxy), CorrCLIP (needs regions and a "
        "proxy)."
    )
    with pytest.raises(ValueError, match=r"what the rows of the table 'parts' look at, but it is not there: vote"):
        ablate(root, base, replace(PARTS, reference="vote"))


def test_regions_and_a_proxy_that_no_row_looks_at_are_refused(
    root: Path, base: AblationBase, proxy: Path, with_regions: DatasetWithRegions
) -> None:
    few = AblationTable("few", "Few", MIXED.rows[:2])
    with pytest.raises(ValueError, match="Expected regions only with a row that looks at them"):
        ablate(root, base, few, dataset=with_regions)
    with pytest.raises(ValueError, match="Expected a proxy only with a row that compares its patches"):
        ablate(root, replace(base, proxy=str(proxy)), few)
    with pytest.raises(ValueError, match="Expected no regions with TagCLIP, which knows none"):
        ablate(root, base, replace(few, rows=(*few.rows, SYSTEMS.rows[0])), dataset=with_regions)


def test_a_checkpoint_may_bring_its_proxy_along(base: AblationBase, proxy: Path, tmp_path: Path) -> None:
    model, processor = load(base.model, settings=PARTS.rows[3].settings, proxy=proxy)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    variant = resolve_row(replace(base, model=str(tmp_path)), PARTS, PARTS.rows[3])
    assert (variant.proxy, variant.find_missing(has_regions=False)) == (None, [])


def test_what_a_method_changes_with_the_tower_holds_in_tables_too(tmp_path: Path) -> None:
    folder = save_tiny_checkpoint(tmp_path / "deep", num_layers=24)
    row = AblationRow("CorrCLIP", {"method": "corrclip"})
    assert resolve_row(AblationBase(str(folder), WORDS), PARTS, row).settings.fused_layers == tuple(range(11, 23))
    assert resolve_row(AblationBase("demo", WORDS), PARTS, row).settings.fused_layers == tuple(range(6, 11))


SYSTEMS = AblationTable(
    "systems",
    "Of several kinds",
    (
        AblationRow("TagCLIP", {"method": "tagclip", "pamr_steps": 2}),
        AblationRow("full"),
        AblationRow("CaR", {"method": "car", "pamr_steps": 2, "second_checkpoint": "demo"}),
        AblationRow("no refinement", {"pamr_steps": 0}),
        AblationRow("CLIP-DIY", {"method": "clip-diy"}),
    ),
)


def test_systems_of_their_own_stand_beside_settings_with_the_counts_of_their_evaluation(
    root: Path, base: AblationBase
) -> None:
    dataset = load_folders(root)
    reports, results = ablate(root, base, SYSTEMS, batch_size=2)
    variants = [resolve_row(base, SYSTEMS, row) for row in SYSTEMS.rows]
    settings = [json.loads(path.read_text()) for path in (root / "out" / "progress").glob("*/settings.json")]
    by_row = {row["name"]: row["mean_iou"] for row in reports[0]["rows"]}
    for variant in (variants[0], variants[2], variants[4]):
        system = find_baseline(variant.model, variant.system)(variant.model, WORDS, None, variant.settings, "float32")
        options = replace(QUIET, batch_size=2)
        evaluated = run_evaluation(dataset, system, root / "alone" / variant.system, options)
        assert json.loads(json.dumps(describe_run(dataset, system, options))) in settings
        assert compute_segmentation_scores(evaluated.confusion)["mean_iou"] == by_row[system.title]
    _, again = ablate(root, base, MIXED, SYSTEMS, batch_size=2)
    assert sum(result.resumed == 3 for result in again) == len(results) == 5


def test_a_system_with_a_setting_that_it_has_by_itself_is_computed_once(root: Path, base: AblationBase) -> None:
    rows = (AblationRow("default", {"method": "tagclip"}), AblationRow("none", {"method": "tagclip", "pamr_steps": 0}))
    table = AblationTable("defaults", "The same twice", (*rows, AblationRow("full")))
    reports, results = ablate(root, base, table)
    default, none, _ = reports[0]["rows"]
    assert len(results) == 2 and default["mean_iou"] == none["mean_iou"]


def test_a_system_without_its_words_or_settings_is_told_with_its_row(root: Path, base: AblationBase) -> None:
    rows = (AblationRow("full"), AblationRow("tags", {"method": "tagclip", "window_stride": 8}))
    with pytest.raises(ValueError, match=r"In row 'tags' of the table 'few': Expected settings out of pamr_steps"):
        ablate(root, base, AblationTable("few", "Few", rows))


def test_systems_that_cannot_run_here_are_left_out_of_the_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_crf, names in ((True, ["CaR", "CLIP-DIY", "TagCLIP", "TagCLIP + CRF"]), (False, ["CLIP-DIY", "TagCLIP"])):
        monkeypatch.setattr(paper_tables, "has_dense_crf", lambda has_crf=has_crf: has_crf)
        table = get_table("methods")
        assert [row.name for row in table.rows][len(method_names(beyond=False)) :] == names
        assert ("CaR and TagCLIP + CRF cannot run and are left out" in table.note) is not has_crf


def test_work_is_counted_against_what_rows_by_themselves_need(root: Path, base: AblationBase) -> None:
    rows = (
        AblationRow("full"),
        AblationRow("kept", {"last_feed_forward": True}),
        AblationRow("off", {"pamr_steps": 0}),
        AblationRow("threshold", {"score_threshold": 0.5}),
    )
    reports, _ = ablate(root, base, AblationTable("small", "Small", rows), limit=1)
    # 6 x 8 pixels become 40 x 53: 2 x 3 windows of 32 pixels, five views each.
    assert reports[0]["run"]["work"] == {
        "window views": [30, 4 * 30],
        "last blocks": [2 * 30, 4 * 30],
        "label maps": [3, 4],
        "texts": [9, 4 * 9],
    }


def test_features_that_do_not_fit_into_memory_take_another_pass(
    root: Path, base: AblationBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = AblationTable("few", "Few", MIXED.rows[:4])
    _, expected = ablate(root, base, few)
    monkeypatch.setattr(variant_family, "_FEATURE_BYTES", 1)
    reports, results = ablate(root, base, few, out="again")
    assert all(np.array_equal(a.confusion, b.confusion) for a, b in zip(expected, results, strict=True))
    run, needed = reports[0]["run"]["work"]["window views"]
    assert run == needed / 4 * 3  # "full" and "no refinement" have the same features


def test_another_table_computes_only_what_is_new(root: Path, base: AblationBase) -> None:
    first = AblationTable("first", "First", MIXED.rows[:2])
    _, expected = ablate(root, base, AblationTable("few", "Few", MIXED.rows[:3]), out="elsewhere")
    ablate(root, base, first)
    reports, results = ablate(root, base, first, AblationTable("second", "Second", MIXED.rows[1:3]))
    assert [result.resumed for result in results] == [3, 3, 0]
    assert reports[0]["run"]["work"]["label maps"] == [3, 3]
    assert all(np.array_equal(a.confusion, b.confusion) for a, b in zip(expected, results, strict=False))


def make_result(matrices: list[np.ndarray]) -> EvaluationResult:
    images = []
    for index, matrix in enumerate(matrices):
        codes = np.flatnonzero(matrix)
        images.append((index, str(index), codes, matrix.ravel()[codes]))
    counts = ImageCounts.from_images(len(matrices[0]), images)
    return EvaluationResult(counts, counts.confusion(), (), 0, 1.0, 1, 0, None)


def test_a_table_by_hand() -> None:
    good, middle, bad = (np.array([[right, 10 - right], [0, 10]]) for right in (10, 6, 2))
    rows = (
        AblationRow("a", {}, {"voc21": 50.0, "context60": 30.0}),
        AblationRow("b", {}, {"voc21": 60.0, "context60": 30.0}),
        AblationRow("c", {}, {"voc21": 40.0}),
    )
    table = AblationTable("hand", "By hand", rows, reference="a")
    results = [make_result([matrix] * 4) for matrix in (good, middle, bad)]
    report = build_table_report(table, results, ["one", "two"], {}, replicates=50)
    # IoU: a 1 and 1; b 6/10 and 10/14; c 2/10 and 10/18
    assert [row["mean_iou"] for row in report["rows"]] == pytest.approx([1, (0.6 + 10 / 14) / 2, (0.2 + 10 / 18) / 2])
    assert report["rows"][1]["interval"] == pytest.approx([report["rows"][1]["difference"]] * 2)  # images are equal
    assert report["pairs_in_published_order"] == {"voc21": (2, 3), "context60": (0, 0)}
    text = format_ablation(report)
    assert "| **a** | 100.0 | – | 50.0 | 30.0 |" in text
    assert "| b | 65.7 | -34.3 (-34.3 to -34.3) | 60.0 (+10.0) | 30.0 (+0.0) |" in text
    assert "| c | 37.8 | -62.2 (-62.2 to -62.2) | 40.0 (-10.0) | – |" in text
    assert "order: 2 of 3 (Pascal VOC 2012 (21))." in text
    report = build_table_report(table, results, ["one", "two"], {}, benchmark="context60", replicates=50)
    assert report["shown_benchmarks"] == ["context60"]


def test_a_grid_is_read_from_yaml(tmp_path: Path) -> None:
    (tmp_path / "scales.yaml").write_text(
        "title: Scale and maps\nbase: {pamr_steps: 0}\n"
        "grid:\n  similarity_scale: [20, 40.5]\n  attention_maps: [[qq], [qq, kk]]\n  closing: [true]\n"
    )
    table = load_table_file(tmp_path / "scales.yaml")
    assert (table.name, table.title, table.base) == ("scales", "Scale and maps", {"pamr_steps": 0})
    assert [row.name for row in table.rows][:2] == [
        "similarity_scale 20, attention_maps qq, closing yes",
        "similarity_scale 20, attention_maps qq + kk, closing yes",
    ]
    assert table.rows[3].settings == {"similarity_scale": 40.5, "attention_maps": ["qq", "kk"], "closing": True}
    assert table.reference == table.rows[0].name


def test_rows_are_read_from_yaml(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "name: mine\nreference: b\nrows:\n"
        "  - {name: a, settings: {area_threshold: null, method: clip}, published: {voc21: 20.3}}\n  - {name: b}\n"
    )
    table = load_table_file(tmp_path / "own.yaml")
    assert (table.name, table.reference) == ("mine", "b")
    assert table.rows[0] == AblationRow("a", {"area_threshold": None, "method": "clip"}, {"voc21": 20.3})


def test_tables_of_the_documentation_can_be_read(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "ablations.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    for number, block in enumerate(blocks):
        (tmp_path / f"{number}.yaml").write_text(block, encoding="utf-8")
    assert [len(load_table_file(tmp_path / f"{number}.yaml").rows) for number in range(len(blocks))] == [6, 5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows: [", "own.yaml: while parsing"),
        ("- a", "Expected the table to be a mapping, but got"),
        ("title: x", "Expected `rows` or `grid`, but got neither"),
        ("rows: []\ngrid: {}", "Expected `rows` or `grid`, but got both"),
        ("rows: {a: 1}", "Expected `rows` to be a list"),
        ("rows: []", "at least two rows in the table 'own', but got 0"),
        ("rows: [{name: on}]", "Expected `name` of row 1 to be text, but got True. Put it into quotes"),
        ("rows: [{settings: {}}]", "Expected a `name` in row 1"),
        ("rows: [{name: a, setings: {}}]", "keys out of name, settings, published, but got setings"),
        ("rows: [{name: a, published: {voc21: high}}]", "an mIoU in percent for voc21, but got 'high'"),
        ("rows: [{name: a}, {name: a}]", "Expected row names once in the table 'own', but got a twice"),
        ("reference: c\nrows: [{name: a}, {name: b}]", r"one of its rows \(a, b\), but got 'c'"),
        ("rows: [{name: a, settings: {pamr: 0}}, {name: b}]", "In row 'a' of the table 'own': Expected settings out"),
        (
            "base: {pamr_steps: 1.5}\nrows: [{name: a}, {name: b}]",
            "`pamr_steps` to be a whole number from 0 to 1000",
        ),
        (
            "rows: [{name: a, settings: {attention_maps: qq}}, {name: b}]",
            "`attention_maps` to be a list of up to 64, each of it",
        ),
        ("rows: [{name: a, settings: {closing: 1}}, {name: b}]", "`closing` to be true or false, but got 1"),
        ("grid: {pamr_steps: 0}", "Expected a list of values for pamr_steps in `grid`"),
        ("name: a/b\ngrid: {pamr_steps: [0, 1]}", "`name` of letters, digits, - and _"),
        (
            "grid:\n  pamr_steps: [0, 1]\n  pamr_steps: [5, 10]",
            "own.yaml: Expected every key once, but got 'pamr_steps' on line 3 as on line 2. Remove one",
        ),
    ],
)
def test_what_is_wrong_with_a_yaml_file_is_said(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_table_file(tmp_path / "own.yaml")


def test_a_setting_out_of_range_names_its_row(root: Path, base: AblationBase) -> None:
    rows = (AblationRow("full"), AblationRow("deep", {"intermediate_layers": (12,)}))
    with pytest.raises(ValueError, match=r"In row 'deep' of the table 'own': Expected `intermediate_layers`"):
        ablate(root, base, AblationTable("own", "Own", rows))


def test_background_rows_need_background_words(base: AblationBase) -> None:
    table = get_table("background")
    with pytest.raises(ValueError, match=r"with background words for row .* of the table 'background', but there are"):
        resolve_row(replace(base, vocabulary=Vocabulary(["a", "b"])), table, table.rows[0])


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run_ablate(root: Path, checkpoint: Path, *more: object) -> Result:
    settings = [("--set", f"{name}={value}") for name, value in SMALL.items()]
    return run(
        "ablate", "--images", root / "images", "--labels", root / "labels", "--vocabulary", root / "words.json",
        "--model", checkpoint, "--workers", 0, "--limit", 2, "--replicates", 20, "--out", root / "out",
        *(part for setting in settings for part in setting), *more,
    )  # fmt: skip


def test_the_command_writes_tables_with_the_papers_figures(root: Path, checkpoint: Path) -> None:
    (root / "own.yaml").write_text("grid: {similarity_scale: [20, 40]}")
    result = run_ablate(root, checkpoint, "pamr", "3", root / "own.yaml")
    assert result.exit_code == 0, result.output
    assert "difference to “on” (95 % interval)" in result.output
    rows = list(csv.DictReader((root / "out" / "pamr.csv").read_text().splitlines()))
    assert [(row["row"], row["paper_voc21"]) for row in rows] == [("off", "65.6"), ("on", "67.9")]
    assert float(rows[1]["difference"]) == 0
    report = json.loads((root / "out" / "feed-forward.json").read_text())
    assert report["images"] == 2
    assert report["run"]["settings"] == SMALL
    text = (root / "out" / "tables.md").read_text()
    for part in ("## Pixel refinement (table 5 of the paper)", "![own](own.png)", "window views instead of"):
        assert part in text
    assert (root / "out" / "own.png").read_bytes().startswith(b"\x89PNG")
    again = run_ablate(root, checkpoint, "pamr")
    assert again.exit_code == 0, again.output
    assert "window views instead of" not in (root / "out" / "pamr.md").read_text()  # nothing was left to do


def test_the_table_of_parts_beyond_the_paper_takes_regions_and_a_proxy(
    root: Path, checkpoint: Path, proxy: Path, with_regions: DatasetWithRegions
) -> None:
    given = ("--proxy", proxy, "--regions", with_regions.place)
    result = run_ablate(root, checkpoint, "beyond", *given, "--limit", 1, "--no-plots")
    assert result.exit_code == 0, result.output
    text = (root / "out" / "beyond.md").read_text()
    assert all(f"| {name} |" in text for name in ("CorrCLIP", "ProxyCLIP", "ITACLIP + vote of regions"))
    assert f"- proxy: {proxy}\n- regions: regions\n" in text and "Left out" not in text


def test_all_leaves_out_what_does_not_fit() -> None:
    tables, left_out = _choose_tables(["all"], None, Vocabulary(["a", "b"]))
    assert {table.name for table in tables} == set(table_names()) - {"backbones", "background"}
    assert left_out == {
        "backbones": "name two or more checkpoints with --models",
        "background": "the vocabulary has no background words",
    }
    tables, left_out = _choose_tables(["all", "pamr"], "a, b", WORDS)
    assert sorted(table.name for table in tables) == sorted(table_names())
    assert left_out == {}


def test_what_was_left_out_stands_in_the_overview(root: Path, base: AblationBase) -> None:
    table = AblationTable("small", "Small", MIXED.rows[:2])
    run_ablations(
        [table], base, load_folders(root), root / "out", options=replace(QUIET, limit=1), plots=False, replicates=5,
        left_out={"backbones": "too few"},
    )  # fmt: skip
    assert "## Left out\n\n- backbones: too few" in (root / "out" / "tables.md").read_text()


def test_backbones_are_named_on_the_command_line(root: Path, checkpoint: Path, tmp_path: Path) -> None:
    other = save_tiny_checkpoint(tmp_path / "other", num_layers=11)
    result = run_ablate(root, checkpoint, "backbones", "--models", f"{checkpoint},{other}", "--no-plots")
    assert result.exit_code == 0, result.output
    report = json.loads((root / "out" / "backbones.json").read_text())
    assert [row["name"] for row in report["rows"]] == [str(checkpoint), str(other)]
    assert report["reference"] == str(checkpoint)


def test_samples_that_cannot_be_scored_set_the_exit_code(root: Path, checkpoint: Path) -> None:
    (root / "labels" / "001.png").unlink()
    result = run_ablate(root, checkpoint, "pamr", "--no-plots")
    assert result.exit_code == 1
    assert "1 images could not be scored; the first is" in result.output


def test_of_many_processes_the_first_alone_tells_what_could_not_be_scored(
    root: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = [SimpleNamespace(problems=(Problem(0, "unreadable", "a.jpg", "broken"),))]
    second = SimpleNamespace(
        is_main_process=False, num_processes=2, device=torch.device("cpu"), end_training=lambda: None
    )
    monkeypatch.setattr("itaclip_hf.evaluation.ablation.run.run_ablations", lambda *_: ([], results))
    monkeypatch.setattr("itaclip_hf.cli.options.processes.ProcessOptions.join", lambda *_: second)
    result = run_ablate(root, checkpoint, "pamr")
    assert (result.exit_code, result.output) == (1, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "Expected a table out of attention (2)"),
        (("pamr", "--set", "pamr_steps"), "Expected a setting as NAME=VALUE"),
        (("pamr", "--set", "steps=0"), "Expected settings out of attention_maps"),
        (("pamr", "--models", "a,b"), "Expected the table backbones with `--models`"),
        (("pamr", "pamr"), "Expected tables of different names, but got pamr, pamr"),
        (("nowhere.yaml",), "there is no nowhere.yaml"),
        (("pamr", "--proxy", "dino"), "Expected a proxy only with a row that compares its patches"),
        (("pamr", "--second-checkpoint", "judge"), "No such option"),
    ],
)
def test_wrong_use_is_refused(root: Path, checkpoint: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run_ablate(root, checkpoint, *arguments, "--no-plots")
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())

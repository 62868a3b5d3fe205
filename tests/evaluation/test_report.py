"""Reports, pictures and comparisons, from counts that are known."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scripted_evaluation import (
    PixelPredictor,
    expected_confusion,
    load_folders,
    write_folders,
    write_image,
    write_labels,
)

from itaclip_hf import Vocabulary
from itaclip_hf.evaluation.data.benchmarks import get_benchmark
from itaclip_hf.evaluation.data.segmentation_datasets import load_benchmark_dataset
from itaclip_hf.evaluation.metrics.comparison import bootstrap_mean_iou_difference
from itaclip_hf.evaluation.metrics.image_counts import ImageCounts
from itaclip_hf.evaluation.reporting.full_evaluation import evaluate_and_report
from itaclip_hf.evaluation.reporting.plots import check_plotting, choose_gallery_images, plot_differences
from itaclip_hf.evaluation.reporting.report import format_markdown, load_report
from itaclip_hf.evaluation.reporting.report_comparison import compare_reports, format_comparison
from itaclip_hf.evaluation.running.runner import RunOptions
from itaclip_hf.markdown import escape
from itaclip_hf.methods import find_published, get_method
from itaclip_hf.processing import VocabularyClass

NAMES = [f"{index:03d}" for index in range(12)]
QUIET = RunOptions(num_workers=0, show_progress=False)


class ShiftedPredictor(PixelPredictor):
    """A worse method: one class further in every third image."""

    def predict(self, prepared: dict) -> list:
        results = super().predict(prepared)
        return [result._replace(labels=(result.labels + 1) % 5) for result in results]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_folders(folder, num_images=len(NAMES))
    (folder / "labels" / "004.png").unlink()
    evaluate_and_report(
        load_folders(folder), PixelPredictor(), folder / "a", "first", options=QUIET, command=["x", "y"]
    )
    evaluate_and_report(load_folders(folder), ShiftedPredictor(), folder / "b", "second", options=QUIET, plots=False)
    return folder


def test_the_report_states_scores_settings_vocabulary_versions_and_problems(root: Path) -> None:
    report = load_report(root / "a")
    confusion = expected_confusion(root, [name for name in NAMES if name != "004"])
    union = confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    assert report["scores"]["mean_iou"] == pytest.approx(float((np.diag(confusion) / union).mean()))
    assert [entry["labelled_pixels"] for entry in report["classes"]] == confusion.sum(1).tolist()
    assert report["vocabulary"]["sha256"] == PixelPredictor().vocabulary.fingerprint
    assert report["settings"]["dataset"]["label_mapping"]["ignored"] == [255]
    assert {"torch", "transformers", "itaclip_hf", "python"} <= report["versions"].keys()
    assert report["images"]["scored"] == len(NAMES) - 1
    (problem,) = report["images"]["problems"]
    assert problem["kind"] == "missing label"
    assert problem["path"].endswith("labels/004.png")
    assert report["timing"]["images_per_second"] > 0
    assert report["hardware"]["processes"] == 1


def test_markdown_shows_the_table_and_the_problems(root: Path) -> None:
    text = (root / "a" / "report.md").read_text()
    assert text.startswith("# first\n")
    assert "| 0 | class 0 |" in text
    assert "## 1 images could not be scored" in text
    assert "`x y`" in text
    assert "![per class iou](per_class_iou.png)" in text
    assert ".png" not in (root / "b" / "report.md").read_text().replace("004.png", "")


def test_pictures_are_drawn(root: Path) -> None:
    for name in ("per_class_iou.png", "confusion.png", "gallery.png"):
        with Image.open(root / "a" / name) as picture:
            assert min(picture.size) > 100
        assert not (root / "b" / name).exists()


def test_matplotlib_is_asked_for_at_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"--no-plots.*pip install 'itaclip_hf\[evaluation\]'"):
        check_plotting()


def test_the_gallery_shows_best_median_and_worst_once_each() -> None:
    scores = np.array([0.5, 0.9, np.nan, 0.1, 0.7, 0.3, 0.6])
    chosen = choose_gallery_images(scores, per_group=1)
    assert chosen == [("best", 1), ("median", 6), ("worst", 3)]
    assert [n for _, n in choose_gallery_images(np.array([0.5, 0.2]), per_group=3)] == [0, 1]
    assert choose_gallery_images(np.array([np.nan])) == []


def test_per_image_counts_survive_the_disk_and_add_up(root: Path) -> None:
    counts = ImageCounts.load(root / "a" / "per_image.npz")
    assert np.array_equal(counts.confusion(), expected_confusion(root, [name for name in NAMES if name != "004"]))
    for position, name in enumerate(counts.names):
        own = expected_confusion(root, [str(name).removesuffix(".png")])
        union = own.sum(0) + own.sum(1) - np.diag(own)
        assert counts.image_scores()[position] == pytest.approx((np.diag(own) / union)[union > 0].mean())
    assert np.array_equal(ImageCounts.merge(5, [counts, counts]).confusion(), counts.confusion())
    other = ImageCounts(5, counts.indices, counts.names, counts.offsets, counts.codes, counts.counts + 1)
    with pytest.raises(ValueError, match=r"one result for every image, but 000\.png has two that differ"):
        ImageCounts.merge(5, [counts, other])
    with pytest.raises(ValueError, match="counts of 4 classes, but got 5"):
        ImageCounts.merge(4, [counts])


def test_an_unreadable_part_is_named(tmp_path: Path) -> None:
    (tmp_path / "part.npz").write_bytes(b"PK no zip")
    with pytest.raises(ValueError, match=r"per-image counts in .*part\.npz"):
        ImageCounts.load(tmp_path / "part.npz")


def test_a_comparison_is_the_difference_of_the_reports(root: Path) -> None:
    comparison = compare_reports(root / "a", root / "b", replicates=300)
    first, second = (load_report(root / name)["scores"]["mean_iou"] for name in ("a", "b"))
    assert comparison.mean_iou == pytest.approx((first, second))
    assert comparison.num_images == len(NAMES) - 1
    assert comparison.interval[0] <= comparison.difference <= comparison.interval[1]
    assert "| **mIoU** |" in format_comparison(comparison)
    assert json.dumps(comparison.to_dict())


def test_differences_of_every_published_source_are_drawn(tmp_path: Path) -> None:
    sources = {f"source {number}": [0.0, float(number)] for number in range(5)}
    for published, name in ((sources, "all.png"), (dict(list(sources.items())[:4]), "four.png")):
        plot_differences(tmp_path / name, ["a", "b"], [0.0, 1.0], [(0.0, 0.0), (0.5, 1.5)], published, "title")
    assert (tmp_path / "all.png").read_bytes() != (tmp_path / "four.png").read_bytes()


def test_a_comparison_with_itself_is_exactly_zero(root: Path) -> None:
    comparison = compare_reports(root / "a", root / "a", replicates=50)
    assert comparison.interval == (0.0, 0.0)


def test_the_bootstrap_equals_a_plain_one() -> None:
    rng = np.random.default_rng(0)
    unions = [rng.integers(1, 50, (8, 3)) for _ in range(2)]
    intersections = [rng.integers(0, union + 1) for union in unions]
    found = bootstrap_mean_iou_difference(intersections, unions, replicates=4, seed=5)
    draws = np.random.default_rng(5).multinomial(8, np.full(8, 1 / 8), size=4)
    for draw, difference in zip(draws, found, strict=True):
        rows = np.repeat(np.arange(8), draw)
        means = [(i[rows].sum(0) / u[rows].sum(0)).mean() for i, u in zip(intersections, unions, strict=True)]
        assert difference == pytest.approx(means[1] - means[0])


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(100):
        unions = np.full((60, 4), 100)
        intersections = [rng.binomial(100, rng.normal(mean, 0.1, (60, 4)).clip(0, 1)) for mean in (0.5, 0.53)]
        low, high = np.quantile(
            bootstrap_mean_iou_difference(intersections, [unions, unions], replicates=200, seed=trial), [0.025, 0.975]
        )
        hits += low <= 0.03 <= high
    assert 88 <= hits <= 100


def test_reports_that_cannot_be_compared_say_why(root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="Give the folder of an evaluation"):
        compare_reports(root / "a", tmp_path)
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(ValueError, match="it is none: KeyError"):
        compare_reports(root / "a", tmp_path)
    report = load_report(root / "a")
    (tmp_path / "report.json").write_text(json.dumps(report))
    with pytest.raises(FileNotFoundError, match=r"there is no .*per_image\.npz"):
        compare_reports(root / "a", tmp_path)
    counts = ImageCounts.load(root / "a" / "per_image.npz")
    renamed = ImageCounts(
        5, counts.indices, np.array([f"other {n}" for n in counts.names]), counts.offsets, counts.codes, counts.counts
    )
    renamed.save(tmp_path / "per_image.npz")
    with pytest.raises(ValueError, match="none in common"):
        compare_reports(root / "a", tmp_path)
    doubled = ImageCounts(5, counts.indices, counts.names, counts.offsets, counts.codes, counts.counts * 2)
    doubled.save(tmp_path / "per_image.npz")
    with pytest.raises(ValueError, match=r"those of 11 images differ, the first is 000\.png"):
        compare_reports(root / "a", tmp_path)
    report["classes"][2]["label"] = "something"
    (tmp_path / "report.json").write_text(json.dumps(report))
    with pytest.raises(ValueError, match="'class 2' and 'something'"):
        compare_reports(root / "a", tmp_path)


CITYSCAPES = get_benchmark("cityscapes")
BEINGS = [f"being {number}" for number in range(7)]
AUTHORS_WORDS = Vocabulary(  # of the authors' numbers
    [VocabularyClass([f"thing {index}", *(BEINGS if index == 3 else ())], "something") for index in range(19)]
)


def report_cityscapes(
    folder: Path, vocabulary: Vocabulary, limit: int | None = None, split: str = "val", **settings: object
) -> dict:
    """The report of a run of ITACLIP's settings for Cityscapes, apart from some, on two images."""
    for number in range(2):
        name = f"{split}/lindau/lindau_{number}"
        write_image(folder / "leftImg8bit" / f"{name}_leftImg8bit.png", seed=number)
        write_labels(folder / "gtFine" / f"{name}_gtFine_labelTrainIds.png", np.full((6, 8), number))
    published = find_published(get_method("itaclip").settings("cityscapes").replace(**settings), "cityscapes")
    assert published is not None
    predictor = PixelPredictor()
    predictor.vocabulary = vocabulary
    dataset = load_benchmark_dataset(CITYSCAPES, folder, split)
    options = RunOptions(num_workers=0, show_progress=False, limit=limit)
    arguments = (predictor, folder / "out", "run", CITYSCAPES, options)
    return evaluate_and_report(dataset, *arguments, plots=False, published=published)[1]


def test_the_published_figure_stands_beside_a_run_like_the_published_one(tmp_path: Path) -> None:
    report = report_cityscapes(tmp_path, AUTHORS_WORDS)
    assert (report["published_mean_iou"], report["published_differences"]) == (0.402, [])
    assert "\nPublished with CLIP ViT-B/16 and the authors' texts: 40.20 mIoU.\n" in format_markdown(report)


@pytest.mark.parametrize(
    ("run", "difference"),
    [
        ({"limit": 1}, "images 1 instead of all 2"),
        ({"split": "train"}, "dataset Cityscapes (19), train instead of Cityscapes (19), val"),
        ({"window_stride": 112}, "window_stride 112 instead of 28"),
        ({"pamr_steps": 0}, "pamr_steps 0 instead of 10"),
        ({"vocabulary": CITYSCAPES.vocabulary()}, "words of this package instead of the authors'"),
        (
            {"vocabulary": CITYSCAPES.vocabulary_with({"trafficsign": "a plate", "road": "a way"}, "mine")},
            "texts about all but 17 classes instead of about each class",
        ),
        (
            {"vocabulary": Vocabulary([str(index) for index in range(19)])},
            "words for 19 queries instead of the authors' for 26",
        ),
    ],
)
def test_a_run_unlike_the_published_one_says_in_a_line_what_differs(
    tmp_path: Path, run: dict, difference: str
) -> None:
    report = report_cityscapes(tmp_path, **{"vocabulary": AUTHORS_WORDS, **run})
    assert report["published_mean_iou"] is None
    assert difference in report["published_differences"]
    text = format_markdown(report)
    assert "40.2" not in text
    assert f"\n  - {escape(difference)}\n" in text


def test_an_image_that_cannot_be_scored_keeps_the_figure_away(tmp_path: Path) -> None:
    write_image(tmp_path / "leftImg8bit/val/lindau/lindau_2_leftImg8bit.png", seed=2)
    assert report_cityscapes(tmp_path, AUTHORS_WORDS)["published_differences"] == ["images 2 instead of all 3"]

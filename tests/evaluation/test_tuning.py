"""Tuning: the sample against the whole pipeline, the search against known answers, the report against evaluations."""

import copy
import json
import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scripted_evaluation import save_tiny_checkpoint, write_labels
from typer.testing import CliRunner

from itaclip_hf import ITACLIPForSemanticSegmentation, ITACLIPProcessor, Vocabulary
from itaclip_hf.cli.main import app
from itaclip_hf.evaluation.data.dataset_split import split_dataset
from itaclip_hf.evaluation.data.label_mapping import LabelMapping
from itaclip_hf.evaluation.data.segmentation_datasets import Sample
from itaclip_hf.evaluation.metrics.confusion_matrix import IGNORED
from itaclip_hf.evaluation.tuning.samples import (
    MixedSample,
    PixelSample,
    QueryBasis,
    TunableSettings,
    collect_sample,
    count_confusion,
)
from itaclip_hf.evaluation.tuning.search import (
    TUNED,
    TuningOptions,
    _mean_iou,
    apply_settings,
    describe_settings,
    read_settings,
    search_settings,
    tune_settings,
)
from itaclip_hf.files import write_json

WORDS = Vocabulary(["dog", ["cat", "kitten"], "car", "tree"], background=["grass", "wall"]).with_auxiliary_texts(
    ["a loyal pet", ["a small pet", "it purrs"], None, "a tall plant"]
)
LABELS = len(WORDS.labels)
ALL_WORDS = (*WORDS.background, "sky")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    model = ITACLIPForSemanticSegmentation.from_pretrained(folder)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.text_model.named_parameters():  # or all words would mean the same
        if "token_embedding" in name or name.endswith("proj.weight"):
            parameter.data = torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def loaded(checkpoint: Path) -> tuple[ITACLIPForSemanticSegmentation, ITACLIPProcessor]:
    model = ITACLIPForSemanticSegmentation.from_pretrained(checkpoint).eval()
    processor = ITACLIPProcessor.from_pretrained(checkpoint)
    processor.image_processor.closing = False
    return model, processor


def make_image(seed: int, size: tuple[int, int] = (48, 60)) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)


def run_pipeline(loaded, settings: TunableSettings, image: Image.Image) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels after all thresholds, and scores of the best class before them, by the public way."""
    model, processor = copy.deepcopy(loaded)
    vocabulary = apply_settings(model, processor, WORDS, settings)
    inputs = processor(images=image, vocabulary=vocabulary)
    with torch.inference_mode():
        outputs = model(**inputs)
    (labels,) = processor.post_process_semantic_segmentation(outputs)
    return labels, outputs.logits[0].exp().amax(0)


def mix(sample: PixelSample, basis: QueryBasis, settings: TunableSettings) -> MixedSample:
    mixed = sample.mix(basis, settings.photometric_weight, settings.auxiliary_weight)
    return MixedSample(mixed, basis, settings.background)


def draw_settings(rng: np.random.Generator) -> TunableSettings:
    words = [word for word in ALL_WORDS if rng.random() < 0.6] or ["grass"]
    return TunableSettings(
        photometric_weight=float(rng.choice([0.0, 0.4, 0.75, 1.0])),
        auxiliary_weight=float(rng.choice([0.0, 0.15, 0.6, 1.0])),
        similarity_scale=float(rng.uniform(20, 100)),
        score_threshold=float(rng.choice([0.0, 0.25, 0.4])),
        area_threshold=float(rng.choice([0.0, 0.1, 0.4])),
        background=tuple(words),
    )


def test_samples_give_the_scores_and_labels_of_the_whole_pipeline(loaded) -> None:
    image, rng = make_image(0), np.random.default_rng(0)
    basis = QueryBasis.encode(*loaded, replace(WORDS, background=ALL_WORDS))
    labels = np.arange(48 * 60, dtype=np.int32).reshape(48, 60)  # says which pixel is which
    some = collect_sample(*loaded, basis, image, labels, 500, np.random.default_rng(1))
    every = collect_sample(*loaded, basis, image, labels, 10**6, np.random.default_rng(1))
    assert (len(some.labels), some.weight, len(every.labels), every.weight) == (500, 48 * 60 / 500, 48 * 60, 1.0)
    seen = set()
    for _ in range(12):
        settings = draw_settings(rng)
        expected_labels, expected_scores = run_pipeline(loaded, settings, image)
        scores = mix(some, basis, settings).score(replace(settings, area_threshold=0.0))
        assert torch.allclose(scores, expected_scores.flatten()[some.labels], atol=1e-5)
        predicted = mix(every, basis, settings).label(settings)
        assert (predicted == expected_labels.flatten()).double().mean() > 0.998
        seen.update(predicted.tolist())
    assert len(seen) > 3


def test_without_engineering_there_is_one_plain_view(loaded) -> None:
    image = make_image(3)
    loaded[1].image_processor.image_engineering = False
    basis = QueryBasis.encode(*loaded, WORDS)
    sample = collect_sample(*loaded, basis, image, np.zeros((48, 60), np.int32), 10**6, np.random.default_rng(0))
    assert len(sample.values) == 1
    settings = read_settings(*loaded, WORDS)
    _, expected = run_pipeline(loaded, settings, image)
    assert torch.allclose(mix(sample, basis, settings).score(settings), expected.flatten(), atol=1e-5)


def test_counts_of_all_pixels_are_exact_and_samples_add_up_to_the_image(loaded) -> None:
    image, rng = make_image(1), np.random.default_rng(5)
    labels = rng.integers(0, LABELS, (48, 60)).astype(np.int32)
    labels[:5] = IGNORED
    basis = QueryBasis.encode(*loaded, replace(WORDS, background=ALL_WORDS))
    settings = [draw_settings(rng) for _ in range(4)]
    every = collect_sample(*loaded, basis, image, labels, 10**6, np.random.default_rng(1))
    some = collect_sample(*loaded, basis, image, labels, 1000, np.random.default_rng(1))
    exact, estimated = (count_confusion([sample], basis, settings) for sample in (every, some))
    for point, matrix in zip(settings, exact, strict=True):
        expected = np.zeros((LABELS, LABELS))
        predicted = mix(every, basis, point).label(point).view(48, 60).numpy()
        np.add.at(expected, (labels[labels >= 0], predicted[labels >= 0]), 1)
        assert np.array_equal(matrix, expected)
    assert np.allclose(estimated.sum((1, 2)), (labels >= 0).sum(), rtol=0.05)
    assert np.abs(estimated - exact).max() < 0.05 * labels.size


@dataclass
class ListDataset:
    """Images in memory, which notes what is read."""

    images: Sequence[Image.Image]
    labels: Sequence[np.ndarray]
    title: str = "list"
    mapping: LabelMapping = field(default_factory=lambda: LabelMapping.shifted(LABELS))
    read: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.images)

    def load(self, index: int) -> Sample:
        self.read.append(index)
        return Sample(index, f"{index:03d}", self.images[index], self.labels[index].astype(np.int32))

    def describe(self) -> dict[str, Any]:
        return {"title": self.title, "images": len(self)}


def make_dataset(loaded, truth: TunableSettings, count: int) -> ListDataset:
    """Labels are what the pipeline says with the given settings."""
    images = [make_image(seed) for seed in range(count)]
    return ListDataset(images, [run_pipeline(loaded, truth, image)[0].numpy() for image in images])


@pytest.mark.parametrize(
    "truth",
    [
        {"photometric_weight": 0.5},
        {"auxiliary_weight": 0.5},
        {"similarity_scale": 100.0, "score_threshold": 0.6},
        {"area_threshold": 0.1},
        {"background": ("grass",)},
        {"auxiliary_weight": 0.05, "photometric_weight": 1.0, "background": ("grass", "wall", "sky")},
    ],
    ids="+".join,
)
def test_known_settings_are_found(loaded, truth: dict[str, Any]) -> None:
    start = read_settings(*loaded, WORDS)
    dataset = make_dataset(loaded, replace(start, **truth), 4)
    options = TuningOptions(background_candidates=("sky",), pixels=1500, min_gain=1e-4)
    result = tune_settings(*loaded, WORDS, dataset, options)
    assert read_settings(*loaded, WORDS) == start  # model and processor are as before
    assert (result.default, result.pixels) == (start, 6000)
    assert result.steps[0].mean_iou < 0.98
    assert result.steps[-1].mean_iou > 0.999
    assert {name: getattr(result.chosen, name) for name in truth} == truth


START = TunableSettings(area_threshold=0.0, background=("sky", "wall"))


def climb(score, blocks: Sequence[Sequence[str]], min_gain: float = 0.01, words: Sequence[str] = ("sky", "wall")):
    return search_settings(lambda points: [score(point) for point in points], START, blocks, words, min_gain)


def test_scale_and_threshold_are_moved_together() -> None:
    def score(point: TunableSettings) -> float:
        return 0.9 if (point.similarity_scale, point.score_threshold) == (80.0, 0.3) else 0.5

    steps = climb(score, [("photometric_weight",), ("similarity_scale", "score_threshold")])
    assert [step.changed for step in steps] == ["start", "similarity_scale, score_threshold"]
    assert (steps[-1].settings.similarity_scale, steps[-1].settings.score_threshold) == (80.0, 0.3)


def test_the_largest_gain_comes_first_and_opens_the_way_for_others() -> None:
    def score(point: TunableSettings) -> float:
        gain = 0.3 * (point.area_threshold == 0.05) + 0.05 * (point.auxiliary_weight == 0.0)
        return gain + 0.1 * (point.photometric_weight == (0.5 if point.area_threshold else 1.0))

    steps = climb(score, [("photometric_weight",), ("auxiliary_weight",), ("area_threshold",)])
    assert [step.changed for step in steps] == ["start", "area_threshold", "photometric_weight", "auxiliary_weight"]
    assert steps[-1].settings.photometric_weight == 0.5


def test_blocks_that_gain_nothing_are_looked_at_in_their_order() -> None:
    blocks = [(name,) for name in TUNED]
    looked_at: list[str] = []

    def score(point: TunableSettings) -> float:
        looked_at.extend(name for name in TUNED if getattr(point, name) != getattr(START, name))
        return 0.5 + 0.1 * (point.photometric_weight == 0.5)

    assert len(climb(score, blocks)) == 2
    last = {name: place for place, name in enumerate(looked_at)}
    others = [name for name in TUNED if name != "photometric_weight"]
    assert sorted(others, key=last.__getitem__) == others


def test_what_gains_too_little_is_left_alone_and_draws_change_nothing() -> None:
    steps = climb(lambda point: 0.5 + 0.001 * point.auxiliary_weight, [("auxiliary_weight",), ("area_threshold",)])
    assert [step.settings for step in steps] == [START]
    assert len(climb(lambda point: 0.5, [("auxiliary_weight",)], min_gain=0.0)) == 1


def test_a_move_that_gains_on_one_image_alone_is_not_sure(loaded) -> None:
    start = read_settings(*loaded, WORDS)
    dataset = make_dataset(loaded, start, 5)
    dataset.labels[0] = run_pipeline(loaded, replace(start, photometric_weight=0.5), dataset.images[0])[0].numpy()
    keep = frozenset({*TUNED, "background"} - {"photometric_weight"})
    result = tune_settings(*loaded, WORDS, dataset, TuningOptions(keep=keep, min_gain=0.0))
    assert result.chosen == start
    known = make_dataset(loaded, replace(start, photometric_weight=0.5), 5)
    assert len(tune_settings(*loaded, WORDS, known, TuningOptions(keep=keep, sureness=0.99)).steps) == 2


def test_words_leave_and_join_the_background_but_one_stays() -> None:
    def score(point: TunableSettings) -> float:
        return 0.5 + 0.1 * ("tree" in point.background) - 0.2 * len({"sky", "wall"} & set(point.background))

    steps = climb(score, [("background",)], words=("sky", "wall", "tree", "sea"))
    assert steps[-1].settings.background == ("tree",)
    alone = climb(lambda point: -float(len(point.background)), [("background",)])
    assert len(alone[-1].settings.background) == 1


def test_classes_that_are_predicted_but_never_labelled_do_not_count_as_zero() -> None:
    confusion = np.array([[6.0, 2.0, 2.0], [1.0, 3.0, 0.0], [0.0, 0.0, 0.0]])
    assert _mean_iou(confusion) == pytest.approx((6 / 11 + 3 / 6) / 2)  # pixels lost to the third class do count


def test_the_parts_of_a_split_share_no_image_and_follow_from_the_seed() -> None:
    dataset = ListDataset([make_image(0)] * 11, [np.zeros((48, 60))] * 11)
    tuning, held_out = split_dataset(dataset, held_out=0.4, seed=3)
    assert (len(tuning), len(held_out)) == (7, 4)
    assert sorted([*tuning.indices, *held_out.indices]) == list(range(11))
    assert split_dataset(dataset, held_out=0.4, seed=3)[0].indices == tuning.indices
    assert split_dataset(dataset, held_out=0.4, seed=4)[0].indices != tuning.indices
    assert sum(map(len, split_dataset(dataset, limit=6))) == 6
    assert dataset.read == []
    sample = held_out.load(1)
    assert (sample.index, sample.name) == (1, f"{held_out.indices[1]:03d}")
    assert json.dumps(held_out.describe())
    with pytest.raises(ValueError, match="at least 2 labelled images to tune on and 2 held out, but got 2 and 1"):
        split_dataset(dataset, limit=3, held_out=0.4)
    with pytest.raises(ValueError, match="a held-out share between 0 and 1, but got 1"):
        split_dataset(dataset, held_out=1.0)


def test_the_search_reads_each_image_to_tune_on_once_and_no_other(loaded) -> None:
    dataset = make_dataset(loaded, read_settings(*loaded, WORDS), 6)
    tuning, held_out = split_dataset(dataset)
    result = tune_settings(*loaded, WORDS, tuning, TuningOptions(pixels=200))
    assert sorted(dataset.read) == list(tuning.indices)
    assert set(held_out.indices).isdisjoint(dataset.read)
    assert result.evaluations > 50


def test_what_cannot_be_tuned_is_said(loaded) -> None:
    processor = loaded[1]
    dataset = make_dataset(loaded, read_settings(*loaded, WORDS), 2)
    with pytest.raises(ValueError, match="Expected something to tune, but all is kept or without effect"):
        tune_settings(*loaded, WORDS, dataset, TuningOptions(keep=frozenset({*TUNED, "background"})))
    with pytest.raises(
        ValueError, match=r"as many classes in the vocabulary as in the dataset's labels \(5\), but got 2"
    ):
        tune_settings(*loaded, Vocabulary(["dog"], ["sky"]), dataset)
    plain = Vocabulary([f"class {index}" for index in range(LABELS)])
    with pytest.raises(ValueError, match="candidates for the background only with a background in the vocabulary"):
        tune_settings(*loaded, plain, dataset, TuningOptions(background_candidates=("sky",)))
    processor.image_processor.image_engineering = False
    with pytest.raises(ValueError, match="Expected something to tune"):
        tune_settings(*loaded, plain, dataset)
    dataset.labels = [np.zeros((48, 60)), np.full((48, 60), IGNORED)]
    with pytest.raises(ValueError, match="labels of at least two classes in the images to tune on, but got 1"):
        tune_settings(*loaded, WORDS, dataset)
    for changes, message in (
        ({"keep": frozenset({"stride"})}, "settings out of similarity_scale, .* but got stride"),
        ({"pixels": 0}, "`pixels` >= 1"),
        ({"min_gain": -1.0}, "`min_gain` between 0 and 1"),
        ({"min_gain": math.nan}, "`min_gain` between 0 and 1"),
        (
            {"keep": frozenset({"background"}), "background_candidates": ("sky",)},
            "candidates for a background that may change",
        ),
        ({"sureness": 1.5}, "`sureness` between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=message):
            TuningOptions(**changes)


def test_classes_that_are_never_labelled_are_named(loaded) -> None:
    dataset = make_dataset(loaded, read_settings(*loaded, WORDS), 2)
    dataset.labels = [np.minimum(labels, 1) for labels in dataset.labels]
    result = tune_settings(*loaded, WORDS, dataset, TuningOptions(keep=frozenset({"background"}), pixels=500))
    assert result.notes[0].startswith("3 of 5 classes are never labelled in the images to tune on: cat, car, tree.")


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def folders(tmp_path: Path, loaded) -> Path:
    truth = replace(read_settings(*loaded, WORDS), auxiliary_weight=0.5, similarity_scale=100.0, score_threshold=0.6)
    dataset = make_dataset(loaded, truth, 6)
    for index, (image, labels) in enumerate(zip(dataset.images, dataset.labels, strict=True)):
        (tmp_path / "images").mkdir(exist_ok=True)
        image.save(tmp_path / "images" / f"{index}.png")
        write_labels(tmp_path / "labels" / f"{index}.png", labels)
    write_json(tmp_path / "words.json", WORDS.to_dict())
    return tmp_path


def test_the_command_reports_what_evaluations_of_the_held_out_part_say(folders: Path, checkpoint: Path) -> None:
    data = ("--images", folders / "images", "--labels", folders / "labels")
    common = ("--model", checkpoint, "--workers", 0, "--no-plots")
    out = folders / "out"
    result = run(
        "tune", *data, "--vocabulary", folders / "words.json", *common, "--pixels", 1000, "--keep", "area-threshold",
        "--background-candidates", "sky, sea", "--save-model", "--out", out,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    report = json.loads((out / "report.json").read_text())
    assert (out / "report.md").read_text() in result.output
    assert report["chosen"]["auxiliary_weight"] == 0.5
    assert json.loads((out / "settings.json").read_text()) == report["chosen"]
    default, chosen = report["held_out"]["mean_iou"]
    assert chosen > default + 0.05
    assert "They are better." in result.output
    tuned = json.loads((out / "tuned" / "report.json").read_text())
    assert tuned["scores"]["mean_iou"] == pytest.approx(chosen)
    indices = report["parts"]["held_out"]["indices"]
    assert sorted(indices + report["parts"]["tuning"]["indices"]) == list(range(6))

    # The printed options, and the saved folder by itself, give the scores of the report.
    for index in report["parts"]["tuning"]["indices"]:
        (folders / "images" / f"{index}.png").unlink()
        (folders / "labels" / f"{index}.png").unlink()
    printed = re.search(r"^    (--vocabulary .*)$", result.output, re.MULTILINE)
    assert printed is not None
    again = run(
        "evaluate", *data, *common, *shlex.split(printed[1]), "--shortest-edge", 40, "--out", folders / "again"
    )
    assert again.exit_code == 0, again.output
    assert json.loads((folders / "again" / "report.json").read_text())["scores"] == tuned["scores"]
    model = ITACLIPForSemanticSegmentation.from_pretrained(out / "model")
    processor = ITACLIPProcessor.from_pretrained(out / "model")
    words = Vocabulary.from_json_file(out / "vocabulary.json")
    assert describe_settings(read_settings(model, processor, words)) == report["chosen"]
    assert model.config.id2label == words.id2label


def test_a_default_that_is_right_stays(folders: Path, checkpoint: Path) -> None:
    result = run(
        "tune", "--images", folders / "images", "--labels", folders / "labels", "--vocabulary", folders / "words.json",
        "--model", checkpoint, "--workers", 0, "--pixels", 300, "--min-gain", 100, "--out", folders / "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "No move of the search gained enough: the default stays." in result.output
    assert "This may be chance: the interval holds 0." in result.output


def test_two_images_are_too_few_for_the_command(folders: Path, checkpoint: Path) -> None:
    result = run(
        "tune", "--images", folders / "images", "--labels", folders / "labels", "--vocabulary", folders / "words.json",
        "--model", checkpoint, "--limit", 2,
    )  # fmt: skip
    assert result.exit_code == 2
    assert "Expected at least 2 labelled images to tune on and 2 held out, but got 1 and 1" in result.output

"""The commands `evaluate`, `compare`, `convert` and `texts`, and ITACLIP's predictor, on a tiny random checkpoint."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from scripted_evaluation import save_tiny_checkpoint, write_folders, write_image, write_labels
from test_llm_texts import save_tiny_chat_model
from typer.testing import CliRunner

from itaclip_hf import ITACLIPForSemanticSegmentation, ITACLIPProcessor, Vocabulary
from itaclip_hf.cli.main import app
from itaclip_hf.evaluation.data.benchmarks import get_benchmark
from itaclip_hf.evaluation.running.predictor import ITACLIPPredictor
from itaclip_hf.evaluation.running.sample_batches import PreparedBatch
from itaclip_hf.files import write_json
from itaclip_hf.loading import load

FIVE = Vocabulary(["one", ["two", "pair"], "three", "four", "five"])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_folders(tmp_path, num_images=3)
    write_json(tmp_path / "five.json", FIVE.to_dict())
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def evaluate(root: Path, checkpoint: Path, *more: object, out: str = "out") -> Result:
    return run(
        "evaluate", "--model", checkpoint, "--preset", "paper", "--shortest-edge", 32, "--workers", 0, "--no-plots",
        "--out", root / out, *more,
    )  # fmt: skip


def folders(root: Path) -> tuple[object, ...]:
    return ("--images", root / "images", "--labels", root / "labels", "--vocabulary", root / "five.json")


def test_any_folder_with_a_vocabulary_is_evaluated(root: Path, checkpoint: Path) -> None:
    result = evaluate(root, checkpoint, *folders(root))
    assert result.exit_code == 0, result.output
    assert "| mIoU | mean accuracy |" in result.output
    report = json.loads((root / "out" / "report.json").read_text())
    assert report["settings"]["predictor"]["image_processor"]["size"]["shortest_edge"] == 32
    assert report["settings"]["predictor"]["config"]["window_stride"] == 28
    assert report["images"]["scored"] == 3


def test_a_table_on_disk_and_its_stream_give_the_scores_of_the_folders(root: Path, checkpoint: Path) -> None:
    evaluate(root, checkpoint, *folders(root))
    files = {
        "image": [str(root / "images" / f"00{n}.png") for n in range(3)],
        "label": [str(root / "labels" / f"00{n}.png") for n in range(3)],
    }
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
    datasets.Dataset.from_dict(files, features=features).save_to_disk(root / "table")
    scores = [json.loads((root / "out" / "report.json").read_text())["scores"]]
    for out, more in (("table_out", ()), ("stream_out", ("--streaming",))):
        result = evaluate(
            root, checkpoint, "--dataset", root / "table", "--vocabulary", root / "five.json", *more, out=out
        )
        assert result.exit_code == 0, result.output
        scores.append(json.loads((root / out / "report.json").read_text())["scores"])
    assert scores[0] == scores[1] == scores[2]


def test_a_split_that_a_dataset_on_disk_lacks_is_refused(root: Path) -> None:
    table = datasets.Dataset.from_dict({"image": ["a.png"], "label": ["a.png"]})
    datasets.DatasetDict({"train": table, "validation": table}).save_to_disk(root / "table")
    result = run("evaluate", "--dataset", root / "table", "--vocabulary", root / "five.json", "--out", root / "out")
    assert result.exit_code == 2, result.exception
    assert "Expected a split out of train, validation" in result.stderr


def test_a_benchmark_runs_with_its_settings_and_published_files(root: Path, checkpoint: Path) -> None:
    base = root / "data/VOCdevkit/VOC2012"
    write_image(base / "JPEGImages/2007_000001.jpg", seed=1)
    write_labels(base / "SegmentationClass/2007_000001.png", np.array([[0, 1, 20, 255]] * 6).repeat(2, axis=1))
    (base / "ImageSets/Segmentation").mkdir(parents=True)
    (base / "ImageSets/Segmentation/val.txt").write_text("2007_000001\n")
    labels = get_benchmark("voc20").vocabulary("none").labels
    (root / "classes.txt").write_text("sky, wall, floor\n" + "\n".join(labels))
    (root / "texts.txt").write_text("\n".join(f"{label} >=a thing" for label in labels))
    result = evaluate(
        root, checkpoint, "voc21", "--data", root / "data",
        "--vocabulary", root / "classes.txt", "--definitions", root / "texts.txt",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    report = json.loads((root / "out" / "report.json").read_text())
    predictor = report["settings"]["predictor"]
    assert predictor["config"]["similarity_scale"] == 60.0
    assert predictor["auxiliary_weight"] == 0.05
    assert predictor["image_processor"]["area_threshold"] == 0.1
    assert predictor["image_processor"]["photometric_weight"] == 0.7
    assert report["vocabulary"]["background"] == ["sky", "wall", "floor"]
    assert (report["vocabulary"]["queries"], report["vocabulary"]["auxiliary_texts"]) == (23, 20)
    assert report["published_mean_iou"] is None  # the checkpoint has a last block of its own


def test_images_that_cannot_be_scored_set_the_exit_code(root: Path, checkpoint: Path) -> None:
    (root / "labels" / "001.png").unlink()
    result = evaluate(root, checkpoint, *folders(root))
    assert result.exit_code == 1
    assert "missing label: `" in result.output
    strict = evaluate(root, checkpoint, *folders(root), "--strict", out="strict_out")
    assert strict.exit_code == 2
    assert "missing label" in strict.output


def test_images_that_decoder_or_model_cannot_take_are_named_and_the_others_scored(
    root: Path, checkpoint: Path
) -> None:
    write_folders(root, num_images=6)
    base = np.zeros((4, 6), dtype=np.float32)
    for number, pixels in enumerate((base + np.nan, base.astype(np.int32) - 5, np.zeros((1, 1000), np.uint8))):
        (root / "images" / f"00{number}.png").unlink()
        Image.fromarray(pixels).save(root / "images" / f"00{number}.tiff")
        write_labels(root / "labels" / f"00{number}.png", np.zeros(pixels.shape))
    (root / "images" / "003.png").write_bytes(b"DDS |\0\0\0")
    for batch_size, out in ((1, "one"), (2, "two")):
        result = evaluate(root, checkpoint, *folders(root), "--longest-edge", 64, "--batch-size", batch_size, out=out)
        assert result.exit_code == 1, result.output
        report = json.loads((root / out / "report.json").read_text())
        problems = {problem["path"].rpartition("/")[2]: problem["message"] for problem in report["images"]["problems"]}
        assert "Expected finite pixels" in problems["000.tiff"]
        assert "Expected integer pixels from 0 on" in problems["001.tiff"]
        assert "Cut or pad a very long strip" in problems["002.tiff"]
        assert "its content is none" in problems["003.png"]
        assert report["images"]["scored"] == 2


def test_a_run_that_is_stopped_says_how_it_goes_on(
    root: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict, done = ITACLIPPredictor.predict, []

    def stop_at_the_third(self: ITACLIPPredictor, prepared: dict) -> list:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(prepared)
        return predict(self, prepared)

    with monkeypatch.context() as patch:
        patch.setattr(ITACLIPPredictor, "predict", stop_at_the_third)
        result = evaluate(root, checkpoint, *folders(root))
    assert result.exit_code == 130
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"Interrupted. 2 images are scored and kept in {root / 'out' / 'progress'}.")
    assert evaluate(root, checkpoint, *folders(root)).exit_code == 0
    assert json.loads((root / "out" / "report.json").read_text())["images"]["of_earlier_runs"] == 2


def test_two_reports_are_compared(root: Path, checkpoint: Path) -> None:
    evaluate(root, checkpoint, *folders(root), out="a")
    evaluate(root, checkpoint, *folders(root), "--similarity-scale", 5, out="b")
    result = run("compare", root / "a", root / "b", "--replicates", 50, "--out", root / "comparison.json")
    assert result.exit_code == 0, result.output
    assert "confidence interval of the difference" in result.output
    assert json.loads((root / "comparison.json").read_text())["images"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("voc21",), "Expected one of BENCHMARK with --data, --images with --labels, --dataset, but got none of them"),
        (("voc21", "--data", "x", "--dataset", "y"), "but got BENCHMARK with --data and --dataset"),
        (("voc21", "--data", "nowhere"), "Check `--data`"),
        (("voc2", "--data", "x"), "Expected a benchmark out of voc21"),
        (("--dataset", "x"), "Expected a benchmark or `--vocabulary`"),
        (("voc21", "--vocabulary", "v.json", "--texts", "none"), "`--vocabulary` or `--texts`, but got both"),
        (("voc21", "--background-first-line"), "Expected `--vocabulary` with `--background-first-line`"),
        (
            ("voc21", "--data", "x", "--ignore-index", 7, "--streaming"),
            "Expected no --ignore-index, --streaming with BENCHMARK and --data, but got them",
        ),
        (
            ("voc21", "--images", "x", "--labels", "x", "--split", "train"),
            "Expected no --split with --images and --labels, but got it",
        ),
        (("voc21", "--dataset", "x", "--labels", "x"), "Expected no --labels with --dataset, but got it"),
    ],
)
def test_options_that_name_no_dataset_or_two_are_refused(arguments: tuple[str, ...], message: str) -> None:
    result = run("evaluate", *arguments)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--workers", -1), "Expected `num_workers` >= 0, but got -1"),
        (("--workers", 257), "Expected at most 256 worker processes, but got 257"),
        (("--batch-size", 0), "Expected `batch_size` >= 1, but got 0"),
        (("--limit", 0), "Expected `limit` >= 1, but got 0"),
    ],
)
def test_numbers_out_of_range_are_told_before_a_model_is_loaded(
    root: Path, option: tuple[Any, ...], message: str
) -> None:
    words = "--vocabulary", root / "five.json", "--model", root / "no-model"
    for command in (("evaluate",), ("ablate", "pamr")):
        result = run(*command, *folders(root), *words, *option)
        assert result.exit_code == 2 and message in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--temperature", 1), "Expected --sample with --temperature, but got none"),
        (("--top-p", 0.5, "--seed", 1), "Expected --sample with --top-p, --seed, but got none"),
        (("--sample", "--temperature", 0), "Expected `temperature` from 0.01 to 100, but got 0.0"),
        (("--sample", "--top-p", 2), "Expected `top_p` from 0.01 to 1, but got 2.0"),
        (("--sample", "--seed", -1), "Invalid value for '--seed'"),
        (("--attempts", 10**6), "Expected `attempts` from 1 to 100, but got 1000000"),
    ],
)
def test_how_a_language_model_is_asked_is_checked_before_it_is_loaded(
    root: Path, options: tuple[Any, ...], message: str
) -> None:
    result = run("texts", "--classes", root / "five.json", "--llm", root / "none", "--out", root / "x.json", *options)
    assert result.exit_code == 2 and message in result.output


def test_a_background_line_is_asked_for_only_where_there_is_one(root: Path, checkpoint: Path) -> None:
    result = evaluate(root, checkpoint, *folders(root), "--background-first-line")
    assert result.exit_code == 2
    assert "with `--background-first-line`, but got another format" in result.output
    words = root / "words"  # the content is what tells JSON
    words.write_text(json.dumps({**json.loads((root / "five.json").read_text()), "background": ["wall"]}))
    result = run("texts", "--classes", words, "--background-first-line", "--llm", "x", "--out", root / "x.json")
    assert result.exit_code == 2
    assert "with `--background-first-line`, but got another format" in result.output


def test_reports_on_the_folder_above_stay_in_their_own_folder(
    root: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "images" / "deep").mkdir()
    (root / "work").mkdir()
    monkeypatch.chdir(root / "images" / "deep")
    result = run(
        "evaluate", "--images", "..", "--labels", root / "labels", "--vocabulary", root / "five.json",
        "--model", checkpoint, "--preset", "paper", "--shortest-edge", 32, "--workers", 0, "--no-plots",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert [str(path) for path in Path().rglob("report.json")] == ["itaclip_evaluation/images/report.json"]


def test_an_ignored_id_that_is_a_class_is_refused(root: Path, checkpoint: Path) -> None:
    result = evaluate(root, checkpoint, *folders(root), "--ignore-index", 4)
    assert result.exit_code == 2
    assert "a class or ignored, but [4] are both" in result.output


def test_too_few_processes_are_refused(root: Path, checkpoint: Path) -> None:
    result = evaluate(root, checkpoint, *folders(root), "--processes", 2)
    assert result.exit_code == 2
    assert "Expected 2 processes, but got 1" in result.output


def test_context_is_converted(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    (tmp_path / "trainval").mkdir()
    scipy_io.savemat(tmp_path / "trainval/2008_000002.mat", {"LabelMap": np.full((6, 8), 2, dtype=np.uint16)})
    result = run("convert", "context", "--data", tmp_path, "--annotations", tmp_path / "trainval")
    assert (result.exit_code, "1 label files written" in result.output) == (0, True)
    assert np.array(Image.open(tmp_path / "SegmentationClassContext/2008_000002.png")).min() == 1
    refused = run("convert", "context", "--data", tmp_path)
    assert (refused.exit_code, "--annotations" in refused.output) == (2, True)


def test_texts_of_a_tiny_chat_model_are_written_or_reported(tmp_path: Path) -> None:
    save_tiny_chat_model(tmp_path / "llm")
    write_json(tmp_path / "classes.json", Vocabulary(["cat", "word"]).to_dict())
    result = run(
        "texts", "--classes", tmp_path / "classes.json", "--llm", tmp_path / "llm", "--out", tmp_path / "words.json",
        "--kind", "definitions", "--model", "demo", "--attempts", 2, "--device", "cpu", "--batch-size", 2,
    )  # fmt: skip
    assert result.exit_code in (0, 1), result.output
    words = Vocabulary.from_json_file(tmp_path / "words.json")
    assert words.labels == ["cat", "word"]
    assert words.metadata["llm"] == str(tmp_path / "llm")
    without = words.metadata["without_text"]
    assert len(without) == sum(not entry.auxiliary_texts for entry in words.classes)
    assert (result.exit_code == 1) == bool(without)
    assert not list(tmp_path.glob("*.progress.json"))


def test_the_predictor_equals_the_model_and_its_post_processing(checkpoint: Path) -> None:
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (40, width, 3), dtype=np.uint8)) for width in (40, 56)]
    loaded = load(checkpoint, benchmark="context60", settings={"shortest_edge": 40})
    predictor = ITACLIPPredictor(*loaded, FIVE)
    model = ITACLIPForSemanticSegmentation.from_pretrained(checkpoint, similarity_scale=55.0).eval()
    processor = ITACLIPProcessor.from_pretrained(checkpoint)
    processor.auxiliary_weight = 0.15
    for image in images:
        inputs = processor(images=image, vocabulary=FIVE, size={"shortest_edge": 40})
        with torch.inference_mode():
            outputs = model(**inputs)
        (labels,) = processor.post_process_semantic_segmentation(outputs, score_threshold=0.1)
        (prediction,) = predictor.predict(predictor.prepare_images([image]))
        assert torch.equal(prediction.labels, labels)
        assert torch.allclose(prediction.confidence, outputs.logits[0].exp().amax(0), atol=1e-5)


def test_a_batch_that_is_split_gives_the_same_maps(checkpoint: Path) -> None:
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (40, width, 3), dtype=np.uint8)) for width in (40, 56)]
    predictor = ITACLIPPredictor(*load(checkpoint, settings={"shortest_edge": 40, "region_vote": True}), FIVE)
    regions = [np.arange(image.width)[None].repeat(40, 0) // 16 for image in images]
    inputs = predictor.prepare_images(images, region_maps=regions)
    batch = PreparedBatch([3, 5], ["a", "b"], [np.zeros((40, 40), np.int32), np.ones((40, 56), np.int32)], inputs, [])
    together = predictor.predict(inputs)
    for single, expected, index, name in zip(batch.split(), together, (3, 5), "ab", strict=True):
        assert (single.indices, single.names, single.labels[0].max()) == ([index], [name], name == "b")
        (found,) = predictor.predict(single.inputs)
        assert torch.equal(found.labels, expected.labels)


def test_other_weights_or_settings_have_another_description(checkpoint: Path) -> None:
    model, processor = load(checkpoint)
    changed = load(checkpoint, benchmark="context60").processor
    first = ITACLIPPredictor(model, processor, FIVE).describe()
    assert json.dumps(first)
    assert ITACLIPPredictor(model, processor, FIVE).describe() == first
    assert ITACLIPPredictor(model, changed, FIVE).describe() != first
    with torch.no_grad():
        model.logit_scale += 1
    assert ITACLIPPredictor(model, processor, FIVE).describe()["weights_sha256"] != first["weights_sha256"]


def test_an_unknown_dtype_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="dtype out of auto, float32, bfloat16, float16, but got 'int8'"):
        load(checkpoint, dtype="int8")

"""`itaclip evaluate --method`: the method's own settings for the benchmark, its figure and its name in the report."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from scripted_evaluation import save_tiny_checkpoint, write_folders, write_image, write_labels
from typer.testing import CliRunner

from itaclip_hf import Vocabulary
from itaclip_hf.cli.main import app
from itaclip_hf.evaluation.data.benchmarks import get_benchmark
from itaclip_hf.evaluation.running.predictor import ITACLIPPredictor
from itaclip_hf.files import write_json
from itaclip_hf.loading import load
from itaclip_hf.methods import method_names


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    base = tmp_path / "data/VOC2012"
    write_image(base / "JPEGImages/2007_000001.jpg", seed=1)
    write_labels(base / "SegmentationClass/2007_000001.png", np.array([[0, 1, 20, 255]] * 6).repeat(2, axis=1))
    (base / "ImageSets/Segmentation").mkdir(parents=True)
    (base / "ImageSets/Segmentation/val.txt").write_text("2007_000001\n")
    return tmp_path


def evaluate(root: Path, checkpoint: Path, *more: object) -> Result:
    words = root / "classes.txt"
    words.write_text("sky, wall\n" + "\n".join(get_benchmark("voc20").vocabulary("none").labels))
    arguments = (
        "evaluate", "voc21", "--data", root / "data", "--model", checkpoint, "--shortest-edge", 32, "--workers", 0,
        "--no-plots", "--vocabulary", words, "--out", root / "out", *more,
    )  # fmt: skip
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def read_report(root: Path) -> dict[str, Any]:
    return json.loads((root / "out" / "report.json").read_text())


def test_the_methods_settings_for_the_benchmark_are_used_and_reported(voc: Path, checkpoint: Path) -> None:
    result = evaluate(voc, checkpoint, "--method", "sclip")
    assert result.exit_code == 0, result.output
    report = read_report(voc)
    predictor = report["settings"]["predictor"]
    assert predictor["method"] == "SCLIP"
    assert report["title"] == f"Pascal VOC 2012 (21), SCLIP, {checkpoint.name}"
    assert predictor["config"]["similarity_scale"] == 65
    assert (predictor["config"]["window_stride"], predictor["config"]["pamr_steps"]) == (112, 0)
    assert predictor["image_processor"]["score_threshold"] == 0.1
    assert predictor["image_processor"]["area_threshold"] == 0.1
    assert (predictor["image_processor"]["image_engineering"], predictor["auxiliary_weight"]) == (False, 0)
    assert report["published_mean_iou"] is None  # the published figure is with refinement
    assert "pamr_steps 0 instead of 10" in report["published_differences"]


def test_explicit_options_win_over_the_method(voc: Path, checkpoint: Path) -> None:
    options = ("--preset", "balanced", "--similarity-scale", 7, "--score-threshold", 0.3, "--pamr-steps", 2)
    result = evaluate(voc, checkpoint, "--method", "sclip", *options)
    assert result.exit_code == 0, result.output
    report = read_report(voc)
    predictor = report["settings"]["predictor"]
    config = predictor["config"]
    assert (config["window_stride"], config["similarity_scale"], config["pamr_steps"]) == (56, 7, 2)
    assert predictor["image_processor"]["score_threshold"] == 0.3
    assert predictor["image_processor"]["size"]["shortest_edge"] == 32
    assert report["published_mean_iou"] is None
    backbone = next(entry for entry in report["published_differences"] if entry.startswith("backbone "))
    assert backbone.endswith("instead of 12 blocks of width 768, patches of 16 pixels")
    for difference in ("similarity_scale 7.0 instead of 65.0", "pamr_steps 2 instead of 10"):
        assert difference in report["published_differences"]


def test_a_folder_takes_the_methods_general_settings_and_a_report_of_its_own(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folders(tmp_path, num_images=1)
    write_json(tmp_path / "five.json", Vocabulary(list("abcde")).to_dict())
    monkeypatch.chdir(tmp_path)
    arguments = (
        "evaluate", "--images", "images", "--labels", "labels", "--vocabulary", "five.json", "--model", checkpoint,
        "--shortest-edge", 32, "--workers", 0, "--no-plots", "--method", "naclip",
    )  # fmt: skip
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    (file,) = Path("itaclip_evaluation").glob("*_naclip/report.json")
    predictor = json.loads(file.read_text())["settings"]["predictor"]
    assert (predictor["method"], predictor["config"]["similarity_scale"]) == ("NACLIP", 40)
    assert predictor["image_processor"]["score_threshold"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "nclip"), "Expected a method out of clip, maskclip"),
        (
            ("--method", "clip", "--photometric-weight", 0.7),
            "Expected no --photometric-weight, as it changes",
        ),
        (("--method", "clip", "--definitions", "texts.txt"), "Expected no --texts or --definitions, as texts about"),
    ],
)
def test_what_would_be_ignored_is_refused(
    voc: Path, checkpoint: Path, options: tuple[object, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(voc)
    Path("texts.txt").write_text("person >=a human being\n")
    result = evaluate(voc, checkpoint, *options)
    assert (result.exit_code, message in result.output) == (2, True), result.output


@pytest.mark.parametrize("method", method_names()[:6])
def test_model_and_processor_of_a_method_are_described_by_its_title(method: str) -> None:
    model, processor = load("demo", method=method, benchmark="voc21", dtype="float32", device="cpu")
    description = ITACLIPPredictor(model, processor, Vocabulary(["a", "b"])).describe()
    assert description["method"].lower() == method
    model.config.attention_maps = ("vv",)
    assert ITACLIPPredictor(model, processor, Vocabulary(["a", "b"])).describe()["method"] == "custom"

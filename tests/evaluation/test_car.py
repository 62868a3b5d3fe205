"""CaR against arrays of the published program, on deterministic weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_clip import build_golden_clip, encode_ids
from PIL import Image
from scripted_evaluation import write_folders
from typer.testing import CliRunner

from itaclip_hf import Vocabulary
from itaclip_hf.cli.main import app
from itaclip_hf.evaluation import get_benchmark
from itaclip_hf.evaluation.running.baselines.car import (
    CaR,
    CaRRules,
    ProposerTexts,
    add_background,
    keep_names,
    mark_mask,
    recur,
)
from itaclip_hf.evaluation.running.baselines.dense_crf import refine_with_crf, shift_colors
from itaclip_hf.evaluation.running.baselines.visual_prompts import draw_ellipse, prompt_visually
from itaclip_hf.evaluation.running.predictor import Predictor

GOLDENS = sorted((Path(__file__).parents[1] / "goldens_seed").glob("car_*.npz"))
THINGS = Vocabulary([["dog", "puppy"], "cat", "bus"], background=["sky", "wall"])
STUFF = Vocabulary(["dog", "cat", "sky"])


def wrap_words(words, classes, templated):
    """Ids of "a clean origami WORD." from those of words alone, after the example of the first class."""
    name, prompt = [int(token) for token in classes[0] if token][1:-1], [int(token) for token in templated[0] if token]
    start = next(place for place in range(len(prompt)) if prompt[place : place + len(name)] == name)
    head, tail = prompt[:start], prompt[start + len(name) :]
    rows = [[*head, *[int(token) for token in word if token][1:-1], *tail] for word in words]
    return np.array([row + [0] * (77 - len(row)) for row in rows]).reshape(len(rows), 77)


@pytest.fixture(scope="module", params=GOLDENS, ids=lambda path: path.stem)
def case(request):
    arrays = dict(np.load(request.param))
    spec = json.loads(bytes(arrays["spec"]))
    proposer, judge = build_golden_clip(spec["cam_clip"]), build_golden_clip(spec["semantic_clip"])
    semantic = arrays["semantic_ids"]
    texts = ProposerTexts(
        encode_ids(proposer, arrays["class_ids"]),
        encode_ids(proposer, semantic[0]),
        encode_ids(proposer, wrap_words(arrays["background_ids"], arrays["class_ids"], semantic[0])),
    )
    car = spec["car"]
    thresholds = [car[f"{name}_threshold"] for name in ("confidence", "mask", "clipes")]
    rules = CaRRules(*thresholds, tuple(car["visual_prompt_type"]), car["bg_factor"])
    with torch.inference_mode():
        stages = list(recur(proposer, judge, arrays["image"], texts, encode_ids(judge, semantic), rules))
    return arrays, spec, rules, stages


def test_stages_are_the_published_ones(case) -> None:
    arrays, spec, _, stages = case
    assert len(stages) == len(spec["stages"])
    for index, (stage, expected) in enumerate(zip(stages, spec["stages"], strict=True)):
        masks, scores = arrays[f"stage{index}_masks"], arrays[f"stage{index}_text_scores"]
        np.testing.assert_allclose(stage.masks[:, ::4, ::4], masks, atol=2e-5)
        np.testing.assert_allclose(stage.text_scores, scores, atol=1e-4)
        kept = [f"a clean origami {spec['classes'][stage.classes[position]]}." for position in stage.kept]
        assert kept == expected["kept"]


def test_marked_images_are_the_published_ones(case) -> None:
    arrays, _, rules, stages = case
    compared = 0
    for index, stage in enumerate(stages):
        if f"stage{index}_prompted" in arrays:
            for mask, expected in zip(stage.masks, arrays[f"stage{index}_prompted"], strict=False):
                marked = mark_mask(arrays["image"], mask, rules)
                # A mask value may be the threshold to the last bit.
                assert (marked != expected).any(-1).sum() <= 1
                compared += 1
    assert compared


def test_labels_after_the_dense_crf_are_the_published_ones(case) -> None:
    pytest.importorskip("pydensecrf")
    arrays, _, rules, stages = case
    maps = add_background(stages[-1].masks, rules.background_exponent)
    best = refine_with_crf(shift_colors(arrays["image"]), maps.numpy()).argmax(0)
    assert (best == arrays["crf_label_map"]).mean() >= 0.999
    ids = np.array([0, *(stages[-1].classes.numpy() + 1)])
    assert (ids[best] == arrays["labels"]).mean() >= 0.999


def test_a_map_that_background_words_leave_empty_is_made_without_them(monkeypatch) -> None:
    from itaclip_hf.evaluation.running.baselines import car

    def make_maps(model, tokens, features, count, epsilon):
        maps = torch.ones(count, 2, 2)
        if len(features) > count:
            maps[0] = 0
        return maps * len(features), None

    monkeypatch.setattr(car, "compute_activation_maps", make_maps)
    maps = car.propose_maps(None, None, torch.zeros(2, 3), torch.zeros(4, 3))
    assert maps[:, 0, 0].tolist() == [2, 6]


def test_the_best_name_stays_where_no_score_is_high_enough() -> None:
    assert keep_names(torch.tensor([0.1, 0.3, 0.2]), 0.25).tolist() == [1]
    assert keep_names(torch.tensor([0.1, 0.3, 0.2]), 0.6).tolist() == [1]


def test_empty_masks_and_images_of_one_pixel_are_marked() -> None:
    image = np.full((1, 1, 3), 9, dtype=np.uint8)
    marked = prompt_visually(image, np.zeros((1, 1), dtype=bool), ("blur", "gray", "circle"))
    assert (marked == 9).all()
    assert (draw_ellipse(image, (0, 0), (0, 0)) == [255, 0, 0]).all()


def test_an_ellipse_beyond_the_border_is_cut() -> None:
    drawn = draw_ellipse(np.zeros((9, 30, 3), dtype=np.uint8), (4, 4), (12, 4))
    is_red = drawn[..., 0] == 255
    assert is_red[:, 16].any() and not is_red[:, 17:].any()  # the right end of the axis
    assert is_red[0].any() and is_red[8].any()


def make_image(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("vocabulary", [THINGS, STUFF], ids=["things", "stuff"])
def test_a_batch_of_odd_sizes_equals_one_by_one(vocabulary) -> None:
    predictor = CaR("demo", vocabulary, settings={"pamr_steps": 2})
    assert isinstance(predictor, Predictor)
    images = [make_image(65, 97), make_image(33, 50, seed=1).convert("L"), make_image(7, 3, seed=2)]
    together = predictor.predict(predictor.prepare_images(images))
    for image, prediction in zip(images, together, strict=True):
        with torch.inference_mode():
            (alone,) = predictor.predict(predictor.prepare_images([image]))
        assert prediction.labels.shape == prediction.confidence.shape == (image.height, image.width)
        assert torch.equal(alone.labels, prediction.labels) and torch.equal(alone.confidence, prediction.confidence)
        assert prediction.labels.min() >= 0 and prediction.labels.max() < len(vocabulary.labels)
        assert prediction.confidence.min() >= 0 and prediction.confidence.max() <= 1


def test_long_images_are_shrunk_and_their_labels_stretched(monkeypatch) -> None:
    monkeypatch.setattr("itaclip_hf.evaluation.running.baselines.car.LONGEST_SIDE", 64)
    predictor = CaR("demo", THINGS, settings={"pamr_steps": 0})
    (prediction,) = predictor.predict(predictor.prepare_images([make_image(100, 131)]))
    assert prediction.labels.shape == prediction.confidence.shape == (100, 131)


def test_background_words_are_the_vocabulary_s_or_the_published_ones_but_never_classes() -> None:
    assert CaR("demo", THINGS, settings={"pamr_steps": 0}).describe()["background_words"] == ["sky", "wall"]
    described = CaR("demo", THINGS, "coco_object", {"pamr_steps": 0, "second_checkpoint": "demo"}).describe()
    assert len(described["background_words"]) == 23 and described["confidence_threshold"] == 0.3
    assert described["refinement"] == "none"
    assert "sky" not in CaR("demo", STUFF, settings={"pamr_steps": 0}).describe()["background_words"]


def test_the_published_words_take_the_place_of_the_benchmark_s_own() -> None:
    words = get_benchmark("voc21").vocabulary("none")
    texts = CaR("demo", words, "voc21", {"pamr_steps": 0}).describe()["class_texts"]
    assert len(texts) == 20 and "person with clothes,people,human" in texts and "bird avian" in texts
    assert CaR("demo", THINGS, settings={"pamr_steps": 0}).describe()["class_texts"] == ["dog,puppy", "cat", "bus"]


def test_without_the_dense_crf_it_says_so_and_offers_pamr(monkeypatch) -> None:
    monkeypatch.setattr("itaclip_hf.evaluation.running.baselines.refinement.has_dense_crf", lambda: False)
    with pytest.raises(ValueError, match=r"Expected pydensecrf2 for the dense CRF.*or refine with PAMR: `pamr_steps`"):
        CaR("demo", THINGS)
    with pytest.raises(ValueError, match="Expected settings out of second_checkpoint, pamr_steps for CaR"):
        CaR("demo", THINGS, settings={"closing": True})


def test_the_command_line_runs_it(tmp_path) -> None:
    write_folders(tmp_path, num_images=2)
    words = Vocabulary(["cat", "dog", "sky", "car"], background=["wall"])
    (tmp_path / "five.json").write_text(json.dumps(words.to_dict()))
    folders = {"images": "images", "labels": "labels", "vocabulary": "five.json", "out": "out"}
    arguments = ["evaluate", "--model", "demo", "--method", "car", "--pamr-steps", 2, "--workers", 0, "--no-plots"]
    for option, name in folders.items():
        arguments += [f"--{option}", tmp_path / name]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["settings"]["predictor"]["method"] == "CaR"

"""CaR against arrays of the published program, on deterministic weights."""

import copy
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_clip import build_golden_clip, encode_ids
from PIL import Image
from scripted_evaluation import write_folders
from typer.testing import CliRunner

from itaclip_hf import Vocabulary, load_demo
from itaclip_hf.cli.main import app
from itaclip_hf.evaluation import get_benchmark
from itaclip_hf.evaluation.running.baselines import car
from itaclip_hf.evaluation.running.baselines.car import (
    CaR,
    CaRRules,
    ProposerTexts,
    Stage,
    add_background,
    judge_masks,
    keep_names,
    mark_mask,
    plan_searches,
    recur,
)
from itaclip_hf.evaluation.running.baselines.clip_images import CLIP_NORMALIZATION
from itaclip_hf.evaluation.running.baselines.dense_crf import refine_with_crf, shift_colors
from itaclip_hf.evaluation.running.baselines.system import load_clip
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
    settings = spec["car"]
    thresholds = [settings[f"{name}_threshold"] for name in ("confidence", "mask", "clipes")]
    rules = CaRRules(*thresholds, tuple(settings["visual_prompt_type"]), settings["bg_factor"])
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
    def make_maps(model, tokens, features, count, epsilon):
        maps = torch.ones(count, 2, 2)
        if len(features) > count:
            maps[0] = 0
        return maps * len(features), None

    monkeypatch.setattr(car, "compute_activation_maps", make_maps)
    maps = car.propose_maps(None, None, torch.zeros(2, 3), torch.zeros(4, 3))
    assert maps[:, 0, 0].tolist() == [2, 6]


# Of four names, which enter each stage, which of these score high enough, and whether their masks are zero everywhere.
EMPTY_STAGES = {
    "last": [([0, 1, 2, 3], [1, 3], False), ([1, 3], [1, 3], True)],
    "all but the first": [([0, 1, 2, 3], [1, 3], False), ([1, 3], [3], True), ([3], [3], True)],
    "middle": [([0, 1, 2, 3], [0, 1, 3], False), ([0, 1, 3], [1, 3], True), ([1, 3], [1, 3], False)],
    "first": [([0, 1, 2, 3], [0, 2], True), ([0, 2], [0, 2], False)],
    "none": [([0, 1, 2, 3], [1, 2], False), ([1, 2], [1, 2], False)],
}


def run_scripted(monkeypatch, background, script):
    """Labels, masks of the stages, and those that the judge is shown, where a script says what the stages find."""
    generator, judged = torch.Generator().manual_seed(0), []
    masks = [torch.rand(len(active), 20, 30, generator=generator) * (not empty) for active, _, empty in script]
    given = iter(masks)

    def judge(model, image, shown, texts, rules, pixels):
        active, kept, _ = script[len(judged)]
        judged.append(shown)
        return torch.diag(torch.tensor([0.9 if name in kept else 0.1 for name in active]))

    monkeypatch.setattr(car, "resize_maps", lambda maps, size, epsilon: next(given))
    monkeypatch.setattr(car, "judge_masks", judge)
    predictor = CaR("demo", Vocabulary(["dog", "cat", "bus", "cup"], background), settings={"pamr_steps": 0})
    (prediction,) = predictor.predict(predictor.prepare_images([make_image(20, 30)]))
    return prediction.labels.numpy(), masks, judged


@pytest.mark.parametrize("script", EMPTY_STAGES.values(), ids=EMPTY_STAGES)
def test_masks_that_are_zero_give_way_to_those_before_as_published(script, monkeypatch) -> None:
    labels, masks, judged = run_scripted(monkeypatch, ["sky"], script)
    active, used = script[-1][0], None
    for found in masks:  # the published loop, without what it judges
        used = used if found.max() == 0 else found.numpy()
    best = np.concatenate([1 - used.max(0, keepdims=True), used]).argmax(0)
    expected = np.zeros((20, 30), dtype=np.int64)
    for name, row in zip(active, range(len(used)), strict=False):  # rows left over go to no name
        expected[best == row + 1] = name + 1
    np.testing.assert_array_equal(labels, expected)
    assert all(torch.equal(shown, found) for shown, found in zip(judged, masks, strict=True))


@pytest.mark.parametrize("script", EMPTY_STAGES.values(), ids=EMPTY_STAGES)
def test_without_a_background_each_name_has_its_own_mask(script, monkeypatch) -> None:
    labels, masks, _ = run_scripted(monkeypatch, [], script)
    last = max(index for index, (_, _, empty) in enumerate(script) if not empty)
    own = {name: masks[last][row] for row, name in enumerate(script[last][0])}
    active = script[-1][0]
    expected = torch.tensor(active)[torch.stack([own[name] for name in active]).argmax(0)]
    np.testing.assert_array_equal(labels, expected)


def test_things_of_pascal_context_are_written_over_its_stuff(monkeypatch) -> None:
    found = {"gray": torch.rand(2, 20, 30), "circle": torch.rand(2, 20, 30)}  # the marks of stuff and of things

    def recur_once(proposer, judge, image, texts, judge_texts, rules, *pixels):
        classes, masks = torch.arange(2), found[rules.visual_prompts[-1]]
        yield Stage(classes, masks, torch.eye(2), classes, masks, classes)

    monkeypatch.setattr(car, "recur", recur_once)
    words = Vocabulary(["cat", "sky", ["dog", "puppy"], "grass"], background=["wall"])
    predictor = CaR("demo", words, "context60", {"pamr_steps": 0})
    (prediction,) = predictor.predict(predictor.prepare_images([make_image(20, 30)]))
    labels, confidence = np.zeros((20, 30), dtype=np.int64), None
    for marks, ids in (("gray", [2, 4]), ("circle", [1, 3])):
        masks = found[marks].numpy()
        maps = np.concatenate([1 - masks.max(0, keepdims=True), masks])
        best = maps.argmax(0)
        for row, label in enumerate(ids):
            labels[best == row + 1] = label
        confidence = maps.max(0) if confidence is None else np.where(best > 0, maps.max(0), confidence)
    assert set(np.unique(labels)) == {0, 1, 2, 3, 4}
    np.testing.assert_array_equal(prediction.labels, labels)
    np.testing.assert_array_equal(prediction.confidence, confidence)
    described = predictor.describe()
    (stuff,) = described["searched_before"]
    assert (stuff["class_texts"], stuff["background_words"]) == (["sky", "grass"], ["cat", "dog,puppy"])
    assert (stuff["visual_prompts"], stuff["mask_threshold"], stuff["box_threshold"]) == (["blur", "gray"], 0.6, 0.4)
    assert described["class_texts"] == ["cat", "dog,puppy"] and len(described["background_words"]) == 23


def test_pascal_context_is_two_searches_and_all_else_is_one() -> None:
    words = get_benchmark("context60").vocabulary("none")
    stuff, things = plan_searches(words, words.labels[1:], "context60")
    assert (len(stuff.classes), len(things.classes)) == (21, 38)
    assert sorted(stuff.classes + things.classes) == list(range(59))
    assert stuff.background_words == [words.labels[1:][place] for place in things.classes]
    assert "tree" in stuff.background_words and "tree" in things.background_words
    for benchmark in ("context59", None):
        assert len(plan_searches(words, words.labels[1:], benchmark)) == 1
    only_things = Vocabulary(["cat", "dog"], background=["wall"])
    assert len(plan_searches(only_things, ["cat", "dog"], "context60")) == 1


@torch.no_grad()
def test_both_towers_round_the_table_of_their_own_grid_as_published() -> None:
    model, _ = load_clip("demo", "float32", torch.device("cpu"))
    table = model.vision_model.embeddings.position_embedding.weight
    table += 1e-3 * torch.randn(table.shape, generator=torch.Generator().manual_seed(0))
    rounded = copy.deepcopy(model)
    rounded.vision_model.embeddings.position_embedding.weight.copy_(table.half().float())
    image = np.asarray(make_image(*[model.config.vision_config.image_size] * 2))
    features = F.normalize(torch.randn(5, model.config.projection_dim), dim=-1)
    texts = ProposerTexts(features[:3], features[:3], features[3:])
    for proposer, judge in ((model, rounded), (rounded, model)):
        found, expected = (
            list(recur(*towers, image, texts, features[None, :3], CaRRules()))
            for towers in ((proposer, judge), (rounded, rounded))
        )
        for stage, other in zip(found, expected, strict=True):
            assert torch.equal(stage.masks, other.masks) and torch.equal(stage.text_scores, other.text_scores)


def test_marks_that_are_not_drawn_are_refused() -> None:
    image, mask = np.ones((9, 9, 3), dtype=np.uint8), np.eye(9, dtype=bool)
    message = (
        "Expected visual prompts out of blur, gray, circle, but got black, rectangle, contour. Leave the others out"
    )
    with pytest.raises(ValueError, match=message):
        prompt_visually(image, mask, ("blur", "black", "rectangle", "contour"))


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
    assert described["refinement"] == "none" and described["searched_before"] == []
    assert "sky" not in CaR("demo", STUFF, settings={"pamr_steps": 0}).describe()["background_words"]


def test_the_published_words_take_the_place_of_the_benchmark_s_own() -> None:
    words = get_benchmark("voc21").vocabulary("none")
    texts = CaR("demo", words, "voc21", {"pamr_steps": 0}).describe()["class_texts"]
    assert len(texts) == 20 and "person with clothes,people,human" in texts and "bird avian" in texts
    words = get_benchmark("coco_object").vocabulary("none")
    texts = CaR("demo", words, "coco_object", {"pamr_steps": 0}).describe()["class_texts"]
    assert len(texts) == 80 and {"person with clothes,people,human", "glove", "sknowboard"} < set(texts)
    assert CaR("demo", THINGS, settings={"pamr_steps": 0}).describe()["class_texts"] == ["dog,puppy", "cat", "bus"]


def test_both_towers_see_pixels_as_their_own_checkpoint_says(tmp_path) -> None:
    """Such as newer ones of LAION, whose mean and deviation are 0.5."""
    model, processor = load_demo()
    processor.image_processor.image_mean = processor.image_processor.image_std = [0.5, 0.5, 0.5]
    for part in (model, processor):
        part.save_pretrained(tmp_path)
    halves, image = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}, make_image(40, 60)
    confidence = {}
    for checkpoint, judge in itertools.product(("demo", str(tmp_path)), repeat=2):
        predictor = CaR(checkpoint, THINGS, settings={"pamr_steps": 0, "second_checkpoint": judge}, dtype="float32")
        described = predictor.describe()
        assert (described["proposer_pixels"] == halves) == (checkpoint != "demo")
        assert (described["judge_pixels"] == halves) == (judge != "demo")
        (prediction,) = predictor.predict(predictor.prepare_images([image]))
        confidence[checkpoint, judge] = prediction.confidence
    assert CaR("demo", THINGS, settings={"pamr_steps": 0})._pixels == CLIP_NORMALIZATION  # to the last digit
    assert not torch.equal(confidence["demo", "demo"], confidence[str(tmp_path), "demo"])
    eager_model, _ = load_clip("demo", "float32", torch.device("cpu"))
    masks, texts = torch.ones(2, 40, 60), F.normalize(torch.randn(1, 2, model.config.projection_dim), dim=-1)
    scores = [
        judge_masks(eager_model, np.asarray(image), masks, texts, CaRRules(), pixels)
        for pixels in (CLIP_NORMALIZATION, halves)
    ]
    assert not torch.equal(*scores)


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

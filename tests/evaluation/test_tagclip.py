"""TagCLIP against recordings of the published program, step by step and as a whole, and through the command line."""

import functools
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_clip import build_golden_clip
from PIL import Image
from scripted_evaluation import write_folders
from transformers import AutoTokenizer, CLIPConfig, CLIPModel
from typer.testing import CliRunner

from itaclip_hf import ITACLIPForSemanticSegmentation, ITACLIPProcessor, Vocabulary
from itaclip_hf.cli.main import app
from itaclip_hf.evaluation import find_baseline, get_benchmark
from itaclip_hf.evaluation.running.baselines import refinement, system, tagclip
from itaclip_hf.evaluation.running.baselines.activation_maps import (
    compute_activation_maps,
    compute_affinity,
    refine_maps,
    resize_maps,
)
from itaclip_hf.evaluation.running.baselines.dense_crf import has_dense_crf
from itaclip_hf.evaluation.running.predictor import Predictor
from itaclip_hf.files import write_json
from itaclip_hf.loading import DEMO_CHECKPOINT, load_demo_vocabulary
from itaclip_hf.samples import load_demo_scene, load_demo_scene_labels

CASES = sorted((Path(__file__).parents[1] / "goldens_seed").glob("tagclip_*.npz"))
END_TOKEN = 49407
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def make_words(spec: dict) -> Vocabulary:
    pairs = zip(spec["tag_names"], spec["cam_names"], strict=True)
    return Vocabulary([tuple(dict.fromkeys(pair)) for pair in pairs], spec["tag_background"])


class Case:
    """One recording, and the model that it was made with."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as arrays:
            self.arrays = dict(arrays)
        self.spec = json.loads(bytes(self.arrays["spec"]))
        spec = self.spec
        self.model = build_golden_clip(spec)
        self.grid = tuple(spec["grid"])
        self.num_classes = len(spec["tag_names"])
        self.benchmark = "coco_stuff" if spec["stuff"] else "voc21" if spec["box_threshold"] == 0.4 else "coco_object"
        self.words = make_words(spec)
        self.rules = tagclip.choose_rules(self.words, self.benchmark)
        assert self.rules.map_blocks == tuple(spec["cam_layers"]) and self.rules.box_threshold == spec["box_threshold"]

    def __getitem__(self, name: str) -> torch.Tensor:
        array = self.arrays[name]
        return torch.from_numpy(array.astype(np.int64) if array.dtype == np.uint16 else array)

    @functools.cached_property
    def pixel_values(self) -> torch.Tensor:
        prepared = tagclip._prepare_images(16, [Image.fromarray(self.arrays["image"])], MEAN, STD)
        return prepared["pixel_values"][0][None]

    @functools.cached_property
    @torch.inference_mode()
    def encoded(self) -> tagclip.EncodedImage:
        return tagclip.encode_image(self.model, self.pixel_values, self.rules)


MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(scope="module", params=CASES, ids=lambda path: path.stem)
def case(request) -> Case:
    return Case(request.param)


def assert_close(found: torch.Tensor, expected: torch.Tensor, **tolerance: float) -> None:
    torch.testing.assert_close(found, expected, **{**TOLERANCE, **tolerance})


def test_templates_are_the_published_ones(case):
    assert list(tagclip.TAG_TEMPLATES) == case.spec["tag_templates"]
    assert list(tagclip.MAP_TEMPLATES) == [case.spec["cam_template"]]


def test_pixels_are_stretched_to_whole_patches(case):
    levels = (case.pixel_values[0] * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]) * 255
    assert torch.equal(levels.round().byte().permute(1, 2, 0), case["resized"])


def test_the_tower_gives_features_and_attention(case):
    assert_close(case.encoded.features, case["features"])
    assert_close(case.encoded.attention, case["voted_attention"])
    assert_close(case.encoded.tokens.last_input, case["cam_last_input"])
    assert_close(case.encoded.tokens.attention, case["cam_attention"])
    assert case.encoded.tokens.grid == case.grid


def test_scores_spread_to_the_image(case):
    probabilities = tagclip.score_texts(case.model, case.encoded.features[1:], case["tag_text_features"])
    assert_close(probabilities, case["patch_probabilities"])
    assert_close(case.encoded.attention @ probabilities, case["propagated"])
    scores = tagclip.spread_scores(probabilities, case.encoded.attention, case.grid)
    assert_close(scores, case["refined"])
    assert_close(scores[:, : case.num_classes].amax(0), case["image_scores_before"])


def test_classes_that_look_present_are_scored_again(case):
    threshold = case.rules.label_threshold
    crops = tagclip.find_crops(case["refined"], case.num_classes, case.grid, threshold)
    assert len(crops) == len(case.arrays["second_masks"])
    if crops:
        pixels, masks = tagclip.cut_crops(case.pixel_values, crops, 16, 224)
        assert torch.equal(masks, case["second_masks"])
        with torch.inference_mode():
            assert_close(tagclip.encode_crops(case.model, pixels, masks), case["second_cls"])
    assert torch.equal(tagclip.choose_labels(case["image_scores"], threshold), case["labels"])


def test_maps_of_labels_are_refined(case):
    kept = case["labels"]
    texts = torch.cat([case["cam_text_features"][kept], case["cam_text_features"][case.num_classes :]])
    maps, probabilities = compute_activation_maps(case.model, case.encoded.tokens, texts, len(kept), tagclip.EPSILON)
    assert_close(probabilities.expand(len(kept), -1), case["cam_probabilities"])
    assert_close(maps, case["cams"], atol=1e-4)
    refined = refine_maps(maps, compute_affinity(case.encoded.tokens.attention), case.rules.box_threshold)
    assert_close(refined, case["cam_refined"])
    resized = resize_maps(refined, case.arrays["image"].shape[:2], tagclip.EPSILON).half()
    assert_close(resized[:, ::4, ::4].float(), case["maps"].float(), atol=1e-3)


@pytest.fixture
def recorded(case, tmp_path, monkeypatch) -> Case:
    """The case, where predictors load its weights and encode its token ids instead of their words."""
    case.model.save_pretrained(tmp_path)
    loaded = (
        ITACLIPForSemanticSegmentation.from_pretrained(tmp_path),
        ITACLIPProcessor.from_pretrained(DEMO_CHECKPOINT),
    )
    monkeypatch.setattr(system, "load", lambda checkpoint, **options: loaded)

    def encode_texts(self, names, background, templates):
        kind, of_classes, of_background = (
            ("tag", "tag_names", "tag_background") if len(templates) > 1 else ("cam", "cam_names", "cam_background")
        )
        assert [names, background] == [case.spec[of_classes], case.spec[of_background]]
        ids = case[f"{kind}_ids"].view(len(names) + len(background), len(templates), -1)
        is_text = (ids == END_TOKEN).cumsum(-1) - (ids == END_TOKEN).long() == 0
        features = self._model.encode_texts(ids, is_text.long())
        assert_close(features, case[f"{kind}_text_features"])
        return features

    monkeypatch.setattr(tagclip.TagCLIP, "_encode_texts", encode_texts)
    return case


def test_label_maps_are_the_published_ones(recorded):
    case = recorded
    predictor = tagclip.TagCLIP("recorded", case.words, case.benchmark)
    assert isinstance(predictor, Predictor) and predictor._rules == case.rules
    with torch.inference_mode():  # as callers do
        (prediction,) = predictor.predict(predictor.prepare_images([Image.fromarray(case.arrays["image"])]))
    expected = case["label_map"].long()
    assert (prediction.labels == expected).double().mean() >= 0.999
    assert prediction.confidence.shape == expected.shape
    assert prediction.confidence.min() >= 0 and prediction.confidence.max() <= 1


@pytest.mark.skipif(not has_dense_crf(), reason="pydensecrf2 is not installed")
def test_label_maps_after_the_crf_are_the_published_ones(recorded):
    case = recorded
    predictor = tagclip.TagCLIPWithCRF("recorded", case.words, case.benchmark)
    (prediction,) = predictor.predict(predictor.prepare_images([Image.fromarray(case.arrays["image"])]))
    assert (prediction.labels == case["crf_label_map"].long()).double().mean() >= 0.999


def make_image(height: int, width: int, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def save_tiny_checkpoint(folder: Path, blocks: int) -> Path:
    """Random weights with fewer blocks, other patches and another size than those that the method was made for."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(DEMO_CHECKPOINT)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": blocks}
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = {**tower, **ids, "vocab_size": len(tokenizer)}
    vision = {**tower, "patch_size": 8, "image_size": 32}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        shutil.copy(DEMO_CHECKPOINT / file, folder)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), blocks=3)


SCENE = Vocabulary(["sky", "cactus", "grapes", "umbrella", "dog", "car", "house", "book"])
OBJECTS = Vocabulary(["dog", "cat", "car"], background=["sky", "wall"])


def test_classes_of_a_scene_are_found():
    image, labels = load_demo_scene(3)
    labels_of_words = [load_demo_scene_labels().index(label) for label in SCENE.labels]
    predictor = tagclip.TagCLIP("demo", SCENE)
    (prediction,) = predictor.predict(predictor.prepare_images([image]))
    found = np.array(labels_of_words)[prediction.labels.numpy()]
    assert (found == labels)[labels != 255].mean() > 0.9


@pytest.mark.parametrize("words", [OBJECTS, Vocabulary(["dog", "cat", "background"])], ids=["objects", "stuff"])
def test_any_sizes_in_one_batch_give_what_each_gives_alone(words, tiny, monkeypatch):
    monkeypatch.setattr(tagclip, "LONGEST_SIDE", 64)
    predictor = tagclip.TagCLIP(tiny, words)
    sizes = [(1, 1), (16, 300), (50, 75), (64, 50)]
    images = [make_image(*size, seed) for seed, size in enumerate(sizes)]
    prepared = predictor.prepare_images(images)
    assert [tuple(pixels.shape[1:]) for pixels in prepared["pixel_values"]][:3] == [(8, 8), (8, 64), (48, 64)]
    for image, prediction in zip(images, predictor.predict(prepared), strict=True):
        (alone,) = predictor.predict(predictor.prepare_images([image]))
        assert prediction.labels.shape == prediction.confidence.shape == (image.height, image.width)
        assert torch.equal(prediction.labels, alone.labels) and torch.equal(prediction.confidence, alone.confidence)
        assert prediction.labels.max() < len(words.labels) and prediction.confidence.isfinite().all()


def test_scores_of_one_value_have_no_boxes_and_stay_finite():
    scores, attention = torch.full((12, 3), 0.2), torch.full((12, 12), 1 / 12)
    spread = tagclip.spread_scores(scores, attention, (3, 4))
    assert torch.equal(spread, torch.zeros(12, 3))
    assert tagclip.find_crops(scores, 3, (3, 4), 0.5) == []
    assert tagclip.choose_labels(spread.amax(0), 0.5).tolist() == [0]


def test_pixel_refinement_is_there_for_the_crf(tiny):
    image = make_image(50, 70)
    plain, refined = (tagclip.TagCLIP(tiny, OBJECTS, settings={"pamr_steps": steps}) for steps in (0, 10))
    (before,), (after,) = (each.predict(each.prepare_images([image])) for each in (plain, refined))
    assert (before.confidence - after.confidence).abs().max() > 1e-3
    assert plain.describe()["refinement"] == "none"
    assert refined.describe()["refinement"] == {"pamr": {"steps": 10, "dilations": [8, 16]}}


def test_published_words_stand_in_for_the_benchmarks_own():
    own = get_benchmark("voc21").vocabulary("none")
    words = tagclip.choose_words(own, "voc21")
    assert len(words.labels) == len(own.labels) and words.background[:2] == ("ground", "land")
    assert tagclip.list_map_texts(words)[0][14] == "person with clothes,people,human"
    assert tagclip.list_tag_texts(words)[0][10] == "diningtable"
    assert not tagclip.choose_words(get_benchmark("voc20").vocabulary("none"), "voc20").background
    for other, benchmark in ((own, None), (own, "context60"), (OBJECTS, "voc21")):
        assert tagclip.choose_words(other, benchmark) is other
    words = Vocabulary(["car", ["dog", "puppy", "hound"]])
    assert tagclip.list_map_texts(words) == (["car", "puppy,hound"], ["background"])
    objects = tagclip.choose_words(get_benchmark("coco_object").vocabulary("none"), "coco_object")
    assert len(objects.background) == 23 and objects.background[::22] == ("ground", "bridge")
    tagged, mapped = tagclip.list_tag_texts(objects)[0], tagclip.list_map_texts(objects)[0]
    assert (len(tagged), tagged[62], tagged[31], mapped[31]) == (80, "tvmonitor", "snowboard", "sknowboard")
    stuff = tagclip.choose_words(get_benchmark("coco_stuff").vocabulary("none"), "coco_stuff")
    tagged, (mapped, background) = tagclip.list_tag_texts(stuff)[0], tagclip.list_map_texts(stuff)
    assert (len(tagged), tagged[62], mapped[62], mapped[31]) == (171, "tv", "tvmonitor screen", "snowboard")
    assert not stuff.background and background == ["background"]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_published_words_are_those_of_the_recorded_runs(path):
    with np.load(path) as arrays:
        spec = json.loads(bytes(arrays["spec"]))
    benchmark = {"voc2012": "voc21", "cocostuff": "coco_stuff"}[spec["mode"]]
    words = tagclip.choose_words(get_benchmark(benchmark).vocabulary("none"), benchmark)
    published = dict(zip(tagclip.list_tag_texts(words)[0], tagclip.list_map_texts(words)[0], strict=True))
    assert set(zip(spec["tag_names"], spec["cam_names"], strict=True)) <= set(published.items())
    assert list(words.background) == spec["tag_background"]


def test_the_word_background_stands_beside_a_class_of_that_name(tiny):
    predictor = tagclip.TagCLIP(tiny, Vocabulary(["dog", "background"]))
    assert tagclip.list_map_texts(predictor.vocabulary) == (["dog", "background"], ["background"])
    _, of_class, of_word = predictor._map_features
    torch.testing.assert_close(of_class, of_word)


def test_the_description_tells_rules_words_and_settings(tiny):
    predictor = tagclip.TagCLIP(tiny, OBJECTS.with_auxiliary_texts(["a", "b", "c"]))
    assert predictor.vocabulary == OBJECTS
    description = predictor.describe()
    assert json.loads(json.dumps(description)) == description
    assert (description["method"], description["longest_side"]) == ("TagCLIP", 1024)
    assert description["words"] == "the vocabulary's" and description["rules"]["box_threshold"] == 0.4
    objects = tagclip.TagCLIP(tiny, OBJECTS, "coco_object").describe()
    assert objects["rules"]["box_threshold"] == 0.7
    prepare = pickle.loads(pickle.dumps(predictor.prepare_images))
    assert prepare([make_image(40, 50)])["pixel_values"][0].shape == (3, 40, 56)


def test_the_command_line_runs_it_by_name(tiny, tmp_path):
    write_folders(tmp_path, num_images=2)
    write_json(tmp_path / "five.json", Vocabulary(["cat", "dog", "sky", "car"], background=["wall"]).to_dict())

    def evaluate(*more: object):
        arguments = (
            "evaluate", "--model", tiny, "--images", tmp_path / "images", "--labels",
            tmp_path / "labels", "--vocabulary", tmp_path / "five.json", "--workers", 0, "--no-plots",
            "--out", tmp_path / "out", "--batch-size", 2, *more,
        )  # fmt: skip
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    result = evaluate("--method", "tagclip", "--pamr-steps", 2)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["settings"]["predictor"]["method"] == "TagCLIP"
    assert "- refinement: pamr\n" in (tmp_path / "out" / "report.md").read_text()
    refused = evaluate("--method", "tagclip", "--window-stride", 56)
    assert refused.exit_code == 2 and "Expected no --window-stride with TagCLIP" in refused.output


def test_what_it_cannot_run_is_refused(tiny, tmp_path, monkeypatch):
    assert find_baseline("demo", "tagclip") is tagclip.TagCLIP
    with pytest.raises(ValueError, match="out of pamr_steps for TagCLIP, but got window_stride"):
        tagclip.TagCLIP(tiny, OBJECTS, settings={"window_stride": 7})
    with pytest.raises(ValueError, match="tower of two blocks or more"):
        tagclip.TagCLIP(save_tiny_checkpoint(tmp_path, blocks=1), OBJECTS)
    monkeypatch.setattr(refinement, "has_dense_crf", lambda: False)
    with pytest.raises(ValueError, match=r"Expected pydensecrf2 .* or refine with PAMR"):
        find_baseline(tiny, "tagclip-crf")(tiny, OBJECTS)
    assert find_baseline(tiny, "tagclip-crf")(tiny, OBJECTS, settings={"pamr_steps": 1}).describe()["refinement"]


def test_half_precision_finds_the_same() -> None:
    """Gradients of unlikely labels are below 6e-8, the smallest number of float16, and their maps would be empty."""
    image, found = load_demo_scene(0)[0], []
    for dtype in ("float32", "float16"):
        predictor = tagclip.TagCLIP("demo", load_demo_vocabulary(), dtype=dtype)
        found += predictor.predict(predictor.prepare_images([image]))
    assert (found[0].labels == found[1].labels).double().mean() > 0.995

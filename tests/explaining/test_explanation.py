"""Explanations against brute force: the whole model on other vocabularies, and Transformers' own attention."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPVisionModel

from itaclip_hf import ITACLIPForSemanticSegmentation, Vocabulary, explain, load
from itaclip_hf.explaining import explanation
from itaclip_hf.explaining.evidence import PixelEvidence
from itaclip_hf.explaining.patch_attention import attend_from
from itaclip_hf.explaining.pictures import draw_evidence
from itaclip_hf.loading import DEMO_CHECKPOINT
from itaclip_hf.modeling.data_contract import ImageInputs, read_images
from itaclip_hf.samples import load_demo_scene

from ..modeling.conftest import make_tiny_config

VOCABULARY = Vocabulary(["grass", ["dog", "puppy", "hound"], ["house", "home"]], background=["sky", "sand", "berry"])
VOCABULARY = VOCABULARY.with_auxiliary_texts(
    [None, ["a loyal pet", "an animal that barks"], "a building in which people live"]
)
FAST = {"window_stride": 112, "image_engineering": False, "shortest_edge": 224}
SETTINGS = {
    "plain": {"closing": False},
    "thresholds": {"score_threshold": 0.3, "area_threshold": 0.1},
    "without texts": {"auxiliary_weight": 0.0},
}


@pytest.fixture(scope="module")
def scene():
    return load_demo_scene(0)[0].resize((150, 112))


@pytest.fixture(scope="module", params=SETTINGS)
def explained(request, scene):
    """Model, processor and explanation, with settings of several kinds."""
    loaded = load("demo", settings={**FAST, **SETTINGS[request.param]}, dtype="float32", device="cpu")
    return *loaded, explain(scene, *loaded, VOCABULARY)


def predict(model, processor, image, vocabulary):
    return model.predict_labels(processor, **processor(images=image, vocabulary=vocabulary))


def list_others():
    """Vocabularies without one text, written by hand: kind, label, text, vocabulary."""
    words, (grass, dog, house) = VOCABULARY.background, VOCABULARY.classes
    for word in words:
        rest = tuple(other for other in words if other != word)
        yield "background word", "background", word, Vocabulary(VOCABULARY.classes, rest)
    for name in dog.names:
        rest = tuple(other for other in dog.names if other != name)
        yield "name", "dog", name, Vocabulary([grass, replace(dog, names=rest), house], words)
    for name, other in (("house", "home"), ("home", "house")):
        yield "name", "house", name, Vocabulary([grass, dog, replace(house, names=other)], words)
    for text, other in (dog.auxiliary_texts, dog.auxiliary_texts[::-1]):
        yield "definition", "dog", text, Vocabulary([grass, replace(dog, auxiliary_texts=other), house], words)
    (text,) = house.auxiliary_texts
    yield "definition", "house", text, Vocabulary([grass, dog, replace(house, auxiliary_texts=())], words)


def test_leaving_out_a_text_equals_running_the_model_without_it(explained, scene):
    model, processor, found = explained
    labels = predict(model, processor, scene, VOCABULARY).labels[0]
    assert (found.evidence.labels != labels).sum() <= 2  # that are tied but for rounding
    omissions = {(each.kind, each.label, each.text): each for each in found.omissions}
    others = [entry for entry in list_others() if processor.auxiliary_weight or entry[0] != "definition"]
    assert {entry[:3] for entry in others} == set(omissions)
    for *key, vocabulary in others:
        without = predict(model, processor, scene, vocabulary).labels[0]
        changes = dict.fromkeys(omissions[tuple(key)].changes, 0)
        for old, new in zip(labels.flatten().tolist(), without.flatten().tolist(), strict=True):
            if old != new:
                pair = VOCABULARY.labels[old], VOCABULARY.labels[new]
                changes[pair] = changes.get(pair, 0) + 1
        differences = [abs(count - omissions[tuple(key)].changes.get(pair, 0)) for pair, count in changes.items()]
        assert sum(differences) <= 4, key
    assert found.omissions[0].pixels > 100  # there is something to compare
    assert [each.pixels for each in found.omissions] == sorted((each.pixels for each in found.omissions), reverse=True)


def test_evidence_equals_that_of_single_queries(explained, scene):
    """As many classes as queries: the model's own scores of each tell which was the best of its class."""
    model, processor, found = explained
    words = processor(vocabulary=VOCABULARY)
    words["query_classes"] = torch.arange(len(words["query_classes"]))
    with torch.inference_mode():
        scores = model(**processor(images=scene), **words).logits[0].exp()
    classes = torch.tensor(VOCABULARY.query_classes)
    evidence = found.evidence
    best = torch.stack([scores[classes == index].amax(0) for index in range(4)])
    own = best.gather(0, evidence.labels[None])[0]
    torch.testing.assert_close(evidence.scores, own, atol=1e-5, rtol=0)
    next_best = best.scatter(0, evidence.labels[None], -1)
    torch.testing.assert_close(evidence.margins, own - next_best.amax(0), atol=1e-5, rtol=0)
    assert (evidence.runners_up != next_best.argmax(0)).sum() <= 2
    winners = scores.masked_fill(classes[:, None, None] != evidence.labels, -1).argmax(0)
    assert (evidence.queries != winners).sum() <= 2
    if not (processor.image_processor.closing or processor.image_processor.score_threshold):
        assert (evidence.queries != scores.argmax(0)).sum() <= 2
        assert evidence.margins.min() >= 0


def test_classes_add_up(explained):
    *_, found = explained
    total = found.evidence.labels.numel()
    assert sum(entry.pixels for entry in found.classes) == sum(entry.behind for entry in found.classes) == total
    for entry in found.classes:
        assert sum(entry.names.values()) == sum(entry.runners_up.values()) == entry.pixels
        assert (entry.score is None) == (entry.margin is None) == (entry.pixels == 0)
    assert found.classes[0].names.keys() == {"sky", "sand", "berry"}


def test_json_and_tables_hold_the_figures(explained):
    *_, found = explained
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert [entry["label"] for entry in content["classes"]] == VOCABULARY.labels
    assert content["without"][0]["pixels"] == sum(change["pixels"] for change in content["without"][0]["changes"])
    page, largest = found.to_markdown(), found.omissions[0]
    assert f"| {largest.text} | {largest.pixels:,} |" in page
    assert found.draw().width > found.image.width
    with pytest.raises(ValueError, match=r"Expected an explanation of a patch, but got one without\. Pass `at="):
        found.draw_attention()


def test_a_background_word_that_won_has_a_colour_of_its_own():
    image, everywhere = Image.new("RGB", (560, 560)), torch.zeros(560, 560, dtype=torch.int64)
    evidence = PixelEvidence(everywhere, everywhere, everywhere.float(), everywhere, everywhere.float())
    page = np.asarray(draw_evidence(image, Vocabulary(["dog"], background=["sky", "wall"]), evidence), dtype=int)
    columns = (page.shape[1] // 8, page.shape[1] * 5 // 8)  # of the classes, of the words
    is_grey = [np.ptp(page[100, column]) < 10 for column in columns]
    assert is_grey == [True, False]


def test_a_single_class_has_no_other(scene):
    found = explain(scene, *load("demo", settings=FAST, dtype="float32"), Vocabulary(["dog"]))
    (entry,) = found.classes
    assert (entry.pixels, entry.runners_up, entry.behind, found.omissions) == (150 * 112, {}, 0, ())
    assert entry.score == entry.margin == 1
    assert "| dog | 100.0 | 1.00 | 1.00 | dog 100% |" in found.to_markdown()


def test_large_images_are_explained_at_a_smaller_size(scene, monkeypatch):
    monkeypatch.setattr(explanation, "MOST_ELEMENTS", 75 * 56 * 5)
    loaded = load("demo", settings=FAST, dtype="float32")
    found = explain(scene, *loaded, Vocabulary(["grass", ["dog", "puppy"]], ["sky", "sand"]), at=(149, 111))
    assert found.image.size == (75, 56) and found.evidence.labels.shape == (56, 75)
    assert found.attention.at == (74, 55)


@pytest.mark.parametrize("at", [(150, 0), (0, 112), (-1, 0)])
def test_pixels_outside_are_refused(scene, at):
    with pytest.raises(ValueError, match=r"Expected a pixel \(x, y\) of an image of 150 x 112, counted from 0"):
        explain(scene, *load("demo"), VOCABULARY, at)


@pytest.mark.parametrize("at", [5, "12", (1,), (1, 2, 3), (1.5, 2), (True, 0), (float("nan"), 0)])
def test_a_pixel_is_two_whole_numbers(scene, at):
    with pytest.raises(TypeError, match=r"Expected `at` to be two whole numbers \(x, y\), but got "):
        explain(scene, *load("demo"), VOCABULARY, at)


def test_arrays_are_refused_with_the_way_to_make_a_picture():
    with pytest.raises(TypeError, match=r"Expected a PIL image or the path .* but got ndarray.*Image\.fromarray"):
        explain(np.zeros((40, 60, 3), dtype=np.uint8), *load("demo"), VOCABULARY)


def test_the_default_dtype_of_the_process_changes_nothing(scene):
    loaded = load("demo", settings=FAST, dtype="float32", device="cpu")
    expected, before = explain(scene, *loaded, VOCABULARY, at=(70, 50)).to_json(), torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert explain(scene, *loaded, VOCABULARY, at=(70, 50)).to_json() == expected
    finally:
        torch.set_default_dtype(before)


def test_other_words_than_a_vocabulary_are_refused(scene):
    with pytest.raises(TypeError, match="Expected a Vocabulary, but got list"):
        explain(scene, *load("demo"), ["cat"])


@pytest.fixture(scope="module")
def wide():
    """The embedded checkpoint over one window of 14 x 14 patches, and pixels of that."""
    model, _ = load("demo", settings={"attention_prior_std": 3.0}, dtype="float32", device="cpu")
    return model, torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def attend(model, pixels, at):
    (image,) = read_images(ImageInputs(pixels), model.config)
    with torch.inference_mode():
        return attend_from(model, image, at)


def test_attention_of_ordinary_blocks_is_that_of_transformers(wide):
    model, pixels = wide
    eager = CLIPVisionModel.from_pretrained(DEMO_CHECKPOINT, attn_implementation="eager", dtype=torch.float32).eval()
    with torch.inference_mode():
        expected = eager(pixels, output_attentions=True).attentions
    found = attend(model, pixels, (100, 40))
    assert found.patch == (2, 6) and found.window == (0, 0, 224, 224)
    assert found.blocks == [*(f"block {number}" for number in range(1, 13)), "block 12, rebuilt"]
    for index, attention in enumerate(expected):
        row = attention[0, :, 1 + 2 * 14 + 6].mean(0)
        torch.testing.assert_close(found.class_token[index], row[0], atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(found.maps[index], row[1:].view(14, 14), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("maps", [("qk",), ("qq", "kk"), ("qq", "kk", "vv"), ("identity",)])
def test_shares_of_the_rebuilt_block_sum_to_the_number_of_maps(wide, maps):
    model, pixels = copy.deepcopy(wide[0]), wide[1]
    model.config.attention_maps = maps
    found = attend(model, pixels, (223, 223))
    sums = found.maps.sum((1, 2)) + found.class_token
    torch.testing.assert_close(sums, torch.tensor([1.0] * 12 + [float(len(maps))]))


def test_the_rebuilt_block_shows_its_own_formula(wide):
    """Half of S of the last block, half of the mean of S of blocks 7, 8 and 10, S = softmax(q qᵀ) + softmax(k kᵀ)."""
    model, pixels = copy.deepcopy(wide[0]), wide[1]
    model.config.attention_prior_std = 0.0
    vision, token = model.vision_model, 1 + 2 * 14 + 6
    with torch.inference_mode():
        encoded = vision.encode_blocks(pixels, [model.config])
        last = vision.encoder.layers[-1]
        own = last.self_attn.project(last.layer_norm1(encoded.hidden_states))

    def total(block):
        return sum((x @ x.mT * x.shape[-1] ** -0.5).softmax(-1)[0, :, token].mean(0) for x in block[:2])

    expected = 0.5 * total(own) + 0.5 * sum(map(total, encoded.projections.values())) / 3
    found = attend(model, pixels, (100, 40))
    torch.testing.assert_close(found.maps[-1].flatten(), expected[1:], atol=1e-6, rtol=1e-4)


def test_the_window_is_the_one_around_the_patch():
    model = ITACLIPForSemanticSegmentation(make_tiny_config()).eval()  # windows of 16 pixels every 8, patches of 4
    pixels = torch.zeros(1, 3, 30, 46)
    found = attend(model, pixels, (45, 29))
    assert found.window == (14, 30, 30, 46) and found.patch == (3, 3)
    found = attend(model, pixels, (17, 9))
    assert found.window == (0, 8, 16, 24) and found.patch == (2, 2)


def test_margins_of_the_window_are_looked_at_as_the_model_does():
    model = ITACLIPForSemanticSegmentation(make_tiny_config(window_multiple=8)).eval()
    found = attend(model, torch.zeros(1, 3, 13, 46), (45, 12))  # 13 pixels become 16: one above, two below
    assert found.window == (-1, 30, 15, 46)
    assert found.patch == (3, 3) and found.maps.shape[1:] == (4, 4)

"""What the method does for the embedded checkpoint on held-out scenes: margins on a fixed set, with room for noise."""

import numpy as np
import pytest
import torch

from demo_world.dataset import load_benchmark
from itaclip_hf import Settings, Vocabulary, load_demo
from itaclip_hf.evaluation.metrics.confusion_matrix import (
    compute_segmentation_scores,
    decode_pair_counts,
    encode_pair_counts,
)
from itaclip_hf.loading import DEMO_CHECKPOINT

PLAIN_CLIP = {"attention_maps": ("qk",), "intermediate_layers": (), "last_feed_forward": True, "pamr_steps": 0}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo():
    model, processor = load_demo()
    processor.templates = processor.templates[:8]  # a tenth of the time for the texts
    return model, processor


@pytest.fixture(scope="module")
def scenes():
    """Twelve scenes of one window each, never used for training."""
    dataset = load_benchmark("world-stuff", scenes=12, size=(224, 224))
    return [(row["image"], np.array(row["label"])) for row in dataset]


@pytest.fixture
def segment(demo):
    """A function that segments an image with changed fields of the method, which are set back afterwards."""
    model, processor = demo
    before = Settings.of(model, processor)

    baked: list[Vocabulary] = []

    def run(image, words: Vocabulary, **settings) -> torch.Tensor:
        for name, value in settings.items():
            setattr(model.config, name, value)
        if words not in baked:  # the same words come for many images
            model.set_vocabulary(processor, words)
            baked[:] = [words]
        with torch.inference_mode():
            outputs = model(**processor(images=image, image_engineering=False))
        return processor.post_process_semantic_segmentation(outputs)[0]

    yield run
    before.apply(model, processor)


@pytest.fixture(scope="module")
def names(demo):
    return Vocabulary([demo[0].config.id2label[index] for index in range(demo[0].config.num_labels)])


def _mean_iou(segment, scenes, words, **settings) -> float:
    count = len(words.labels)
    confusion = np.zeros((count, count), dtype=np.int64)
    for image, truth in scenes:
        codes, counts = encode_pair_counts(truth, segment(image, words, **settings).numpy(), count)
        confusion += decode_pair_counts(codes, counts, count)
    return 100 * compute_segmentation_scores(confusion)["mean_iou"]


def test_full_method_beats_plain_clip_by_five_points_and_refinement_does_not_harm(segment, scenes, names):
    plain = _mean_iou(segment, scenes, names, **PLAIN_CLIP)
    full = {"attention_maps": ("qq", "kk"), "intermediate_layers": (7, 8, 10), "last_feed_forward": False}
    unrefined = _mean_iou(segment, scenes, names, **full)
    refined = _mean_iou(segment, scenes, names, **full, pamr_steps=10)
    assert refined > plain + 5
    assert refined > unrefined - 1


def test_a_synonym_is_as_good_as_the_name_that_was_left_out(segment, scenes, names):
    content = Vocabulary.from_json_file(DEMO_CHECKPOINT / "vocabulary.json")
    synonyms = Vocabulary([entry.names[-1] for entry in content.classes])
    nonsense = Vocabulary([f"qz{index}" for index in range(len(content.classes))])
    found = {
        kind: _mean_iou(segment, scenes[:6], words, pamr_steps=0)
        for kind, words in (("names", names), ("synonyms", synonyms), ("nonsense", nonsense))
    }
    assert found["synonyms"] > found["nonsense"] + 10
    assert found["names"] >= found["synonyms"] - 3


def test_a_definition_carries_a_class_whose_name_says_nothing(segment, scenes, names, demo):
    content = Vocabulary.from_json_file(DEMO_CHECKPOINT / "vocabulary.json")
    mute = {"classes": [{"names": [f"qz{index}"]} for index in range(len(content.classes))]}
    defined = {
        "classes": [
            {**entry, "auxiliary_texts": list(known.auxiliary_texts)}
            for entry, known in zip(mute["classes"], content.classes, strict=True)
        ]
    }
    processor = demo[1]
    before, processor.auxiliary_weight = processor.auxiliary_weight, 0.5
    try:
        without = _mean_iou(segment, scenes[:6], Vocabulary.from_dict(mute), pamr_steps=0)
        with_definitions = _mean_iou(segment, scenes[:6], Vocabulary.from_dict(defined), pamr_steps=0)
    finally:
        processor.auxiliary_weight = before
    assert with_definitions > without + 5


def test_background_words_take_what_no_class_claims(segment, scenes, names):
    stuff, nouns = names.labels[:10], names.labels[10:]
    shares = []
    for image, truth in scenes[:6]:
        labels = segment(image, Vocabulary(nouns, background=stuff), pamr_steps=0).numpy()
        shares.append((labels[truth < 10] == 0).mean())
    assert np.mean(shares) > 0.9

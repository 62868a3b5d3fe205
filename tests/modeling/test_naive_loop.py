"""The package against the naive loop of the benchmarks, which is written from the method's description alone."""

import pytest
import torch

from benchmarks.naive_itaclip import NaiveITACLIP, compare_results
from itaclip_hf import ITACLIPImageProcessor
from itaclip_hf.processing.augmentation import stack_views


@pytest.fixture
def image():
    return torch.randn(3, 29, 37, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def queries():
    generator = torch.Generator().manual_seed(3)
    return torch.nn.functional.normalize(torch.randn(6, 24, generator=generator), dim=-1)


QUERY_CLASSES = (0, 0, 1, 2, 2, 3)
OUTPUT_SIZE = (43, 55)


@torch.inference_mode()
def segment_with_package(model, processor, image, queries):
    views = stack_views(processor.choose_views(), batch_size=1)
    outputs = model(
        image[None],
        original_sizes=torch.tensor([OUTPUT_SIZE]),
        query_embeddings=queries,
        query_classes=torch.tensor(QUERY_CLASSES),
        **{name: torch.from_numpy(values) for name, values in views.items()},
    )
    return outputs.logits[0].exp(), processor.post_process_semantic_segmentation(outputs)[0]


@pytest.mark.parametrize(
    "thresholds",
    [{}, {"score_threshold": 0.3, "area_threshold": 0.2}, {"closing": False}],
    ids=["no thresholds", "thresholds", "no closing"],
)
def test_package_agrees_with_the_naive_loop(tiny_model, image, queries, thresholds):
    model = tiny_model(pamr_steps=3, similarity_scale=10.0)
    processor = ITACLIPImageProcessor(photometric_weight=0.6, **thresholds)
    naive = NaiveITACLIP(model, model.config, photometric_weight=0.6, **thresholds)
    with torch.inference_mode():
        expected = naive.segment(image, OUTPUT_SIZE, queries, QUERY_CLASSES)
    agreement = compare_results(expected, segment_with_package(model, processor, image, queries))
    assert agreement.largest_difference < 1e-4
    assert agreement.equal_labels >= 0.999
    assert agreement.classes > 1


def test_image_smaller_than_a_window_agrees_with_the_naive_loop(tiny_model, image, queries):
    model = tiny_model(window_size=32, window_stride=16)
    processor = ITACLIPImageProcessor()
    with torch.inference_mode():
        expected = NaiveITACLIP(model, model.config).segment(image, OUTPUT_SIZE, queries, QUERY_CLASSES)
    agreement = compare_results(expected, segment_with_package(model, processor, image, queries))
    assert agreement.largest_difference < 1e-4
    assert agreement.equal_labels >= 0.999


def test_naive_loop_refuses_another_last_block(tiny_model):
    model = tiny_model(attention_maps=("qk",))
    with pytest.raises(ValueError, match="last block of the paper"):
        NaiveITACLIP(model, model.config)

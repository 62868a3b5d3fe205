"""What is encoded once for many uses, and how much at once: images, prompts."""

import pytest
import torch
from transformers import CLIPVisionConfig

from itaclip_hf import ITACLIPImageProcessor
from itaclip_hf.modeling.class_scores import Queries
from itaclip_hf.modeling.data_contract import ImageInputs, group_prompts
from itaclip_hf.modeling.windows import choose_views_per_batch
from tests.modeling.conftest import make_tiny_config


@torch.inference_mode()
def test_later_stages_can_differ_on_one_encoding(tiny_model, texts):
    pixels = torch.randn(1, 3, 24, 32, generator=torch.Generator().manual_seed(3))
    model = tiny_model()
    embeddings = model.encode_queries(texts["input_ids"], texts["attention_mask"], texts["text_weight"])
    queries = Queries.sort(embeddings, texts["query_classes"])
    (features,) = model.encode_dense(ImageInputs(pixels))
    processor = ITACLIPImageProcessor(closing=False)
    for method in ({"pamr_steps": 0}, {"similarity_scale": 5.0}, {"pamr_dilations": (3,)}):
        found = model.label_dense(features, queries, make_tiny_config(**method))
        expected = tiny_model(**method).predict_labels(processor, pixel_values=pixels, **texts)
        assert torch.equal(found.labels, expected.labels[0])
        torch.testing.assert_close(found.confidence, expected.confidence[0], atol=1e-5, rtol=1e-5)


def test_prompts_are_encoded_once_and_without_padding():
    input_ids = torch.tensor([[5, 6, 9, 9], [5, 9, 9, 9], [5, 6, 9, 9], [7, 8, 6, 9]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]])
    batches, places = group_prompts(input_ids, mask, tokens_per_batch=99)
    rows = [row.tolist() for batch in batches for row in batch]
    assert rows == [[5, 9, 9, 9], [5, 6, 9, 9], [7, 8, 6, 9]]
    assert places.tolist() == [1, 0, 1, 2]
    batches, places = group_prompts(input_ids[:3], mask[:3], tokens_per_batch=99)
    assert [tuple(batch.shape) for batch in batches] == [(2, 3)]


@pytest.mark.parametrize(
    ("tokens_per_batch", "shapes"),
    [
        (8, [(3, 2), (2, 4)]),
        (7, [(3, 2), (1, 3), (1, 4)]),
        (3, [(1, 2), (1, 2), (1, 2), (1, 3), (1, 4)]),
        (99, [(5, 4)]),
    ],
)
def test_groups_of_prompts_hold_similar_lengths_and_no_more_tokens_than_asked_for(tokens_per_batch, shapes):
    lengths = torch.tensor([4, 2, 3, 2, 2])
    input_ids = torch.arange(20).view(5, 4)
    mask = (torch.arange(4) < lengths[:, None]).long()
    batches, places = group_prompts(input_ids, mask, tokens_per_batch)
    assert [tuple(batch.shape) for batch in batches] == shapes
    rows = [row for batch in batches for row in batch]
    for prompt, length, place in zip(input_ids, lengths.tolist(), places.tolist(), strict=True):
        assert rows[place][:length].tolist() == prompt[:length].tolist()


@torch.inference_mode()
def test_padding_of_others_does_not_change_a_text(tiny_model, texts):
    model = tiny_model()
    together = model.encode_texts(texts["input_ids"], texts["attention_mask"])
    longer = torch.nn.functional.pad(texts["input_ids"], (0, 3), value=98)
    padded = model.encode_texts(longer, torch.nn.functional.pad(texts["attention_mask"], (0, 3)))
    torch.testing.assert_close(padded, together, atol=1e-6, rtol=1e-5)
    for text, expected in zip(texts["input_ids"], together, strict=True):
        torch.testing.assert_close(model.encode_texts(text[None])[0], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", [(3072, 16, 224), (4096, 14, 336), (32, 4, 8), (32768, 14, 896)])
def test_activations_of_a_batch_on_a_cpu_stay_small_enough_for_allocators_to_keep(sizes, dtype):
    intermediate_size, patch_size, side = sizes
    config = CLIPVisionConfig(intermediate_size=intermediate_size, patch_size=patch_size)
    views = choose_views_per_batch(config, (side, side), dtype, torch.device("cpu"))
    tokens = 1 + (side // patch_size) ** 2
    assert views == 1 or views * tokens * intermediate_size * dtype.itemsize <= 12 * 2**20
    assert views == 1024 or 2 * views * tokens * intermediate_size * dtype.itemsize > 12 * 2**20


def test_number_of_window_views_follows_the_memory_of_a_gpu_and_not_what_is_free_of_it(monkeypatch):
    config = CLIPVisionConfig()
    for total, expected in ((1, 1), (10 * 2**30, 177), (200 * 2**30, 1024)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, total=total: (12345, total))
        config.patch_size = 16
        assert choose_views_per_batch(config, (224, 224), torch.bfloat16, torch.device("cuda")) == expected

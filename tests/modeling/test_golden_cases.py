"""Equality with the published method: recorded inputs and outputs on deterministic weights, through the public API."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPTokenizer

from itaclip_hf import ITACLIPConfig, ITACLIPForSemanticSegmentation, ITACLIPImageProcessor, ITACLIPProcessor
from tests.goldens.golden_weights import golden_state_dict

GOLDENS = Path(__file__).parents[1] / "goldens"
CASES = sorted(GOLDENS.glob("*.npz"))
QUERY_INPUTS = (
    ("query_embeddings", "query_features", torch.float32),
    ("query_classes", "query_to_class", torch.int64),
)


def _load_model(spec):
    dims = spec["dims"]

    def tower(kind):
        width = dims[f"{kind}_width"]
        return {
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_attention_heads": width // 64,
            "num_hidden_layers": dims[f"{kind}_layers"],
        }

    config = ITACLIPConfig(
        projection_dim=dims["embed_dim"],
        text_config=tower("text"),
        vision_config={**tower("vision"), "patch_size": dims["patch_size"], "image_size": dims["image_size"]},
        attention_maps=("qq", "kk") if spec["self_attention"] else ("qk",),
        window_size=spec["window"],
        window_stride=spec["stride"],
        pamr_steps=spec["pamr_steps"],
        pamr_dilations=spec["pamr_dilations"],
        similarity_scale=spec["logit_scale"],
    )
    model = ITACLIPForSemanticSegmentation(config).eval()
    weights = golden_state_dict(**dims)
    model.load_state_dict({key: torch.from_numpy(np.asarray(value)) for key, value in weights.items()})
    return model


def _load_processor(spec):
    image_processor = ITACLIPImageProcessor(
        size={"longest_edge": spec["scale"][0], "shortest_edge": spec["scale"][1]},
        image_engineering=spec["image_engineering"],
        photometric_weight=spec["image_weight"],
        score_threshold=spec["score_threshold"],
        area_threshold=spec["area_threshold"],
    )
    content = json.loads((GOLDENS / "tokenizer.json").read_text(encoding="utf-8"))
    merges = [tuple(merge.split()) for merge in content["merges"]]
    tokenizer = CLIPTokenizer(vocab=content["vocab"], merges=merges, model_max_length=77)
    return ITACLIPProcessor(image_processor, tokenizer, auxiliary_weight=spec["auxiliary_weight"])


@pytest.fixture(scope="module", params=CASES, ids=lambda path: path.stem)
def case(request):
    """Arrays, settings, model, processor and inputs of one recording."""
    with np.load(request.param) as arrays:
        arrays = dict(arrays)
    spec = json.loads(bytes(arrays["spec"]))
    processor = _load_processor(spec)
    background, classes = (spec["classes"][0], spec["classes"][1:]) if spec["background"] else (None, spec["classes"])
    inputs = processor(
        images=arrays["resized"],
        text=classes,
        auxiliary_text=spec["auxiliary"],
        background=background,
        do_resize=False,
        return_tensors="pt",
    )
    inputs["original_sizes"] = torch.tensor([arrays["image"].shape[:2]])
    model = _load_model(spec)
    with torch.inference_mode():
        outputs = model(**inputs)
    return arrays, model, processor, inputs, outputs


@pytest.fixture(scope="module")
def outputs_from_image(case):
    """Outputs for the original image, which the processor resizes, and the recorded query embeddings."""
    arrays, model, processor, _, _ = case
    inputs = processor(images=arrays["image"], return_tensors="pt")
    queries = {key: torch.from_numpy(arrays[name]).to(dtype) for key, name, dtype in QUERY_INPUTS}
    with torch.inference_mode():
        return model(**inputs, **queries)


def test_processor_resizes_to_the_published_bits(case):
    arrays, _, processor, _, _ = case
    inputs = processor.image_processor(arrays["image"], do_rescale=False, do_normalize=False, return_tensors="np")
    np.testing.assert_array_equal(inputs["pixel_values"][0].transpose(1, 2, 0), arrays["resized"])


def test_tokens_equal_the_published_ones(case):
    arrays, _, _, inputs, _ = case
    recorded = np.concatenate([arrays[name] for name in ("name_ids", "auxiliary_ids") if name in arrays])
    found = inputs["input_ids"] * inputs["attention_mask"]
    np.testing.assert_array_equal(found, recorded[..., : found.shape[-1]])


def test_query_embeddings_equal_the_published_ones(case):
    arrays, model, _, inputs, _ = case
    with torch.inference_mode():
        queries = model.encode_queries(inputs["input_ids"], inputs["attention_mask"], inputs["text_weight"])
    np.testing.assert_allclose(queries.numpy(), arrays["query_features"], atol=1e-6, rtol=0)
    np.testing.assert_array_equal(inputs["query_classes"], arrays["query_to_class"])


def test_scores_and_labels_equal_the_published_ones(case):
    arrays, _, processor, _, outputs = case
    (result,) = processor.post_process_semantic_segmentation(outputs, return_segmentation_scores=True)
    scores, labels = result["segmentation_scores"], result["segmentation"]
    np.testing.assert_allclose(scores[:, ::8, ::8].numpy(), arrays["scores"], atol=1e-4, rtol=0)
    assert labels.shape == arrays["labels"].shape
    assert (labels.numpy() == arrays["labels"]).mean() >= 0.999


def test_scores_and_labels_from_the_original_image_equal_the_published_ones(case, outputs_from_image):
    arrays, _, processor, _, _ = case
    (result,) = processor.post_process_semantic_segmentation(outputs_from_image, return_segmentation_scores=True)
    scores, labels = result["segmentation_scores"], result["segmentation"]
    np.testing.assert_allclose(scores[:, ::8, ::8].numpy(), arrays["scores"], atol=2e-4, rtol=0)
    assert labels.shape == arrays["labels"].shape
    assert (labels.numpy() == arrays["labels"]).mean() >= 0.999

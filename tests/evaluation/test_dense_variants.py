"""Variants of the last block and of the weights of views, encoded in one pass, against models of their own."""

import pytest
import torch

from itaclip_hf.evaluation.ablation.dense_variants import DenseVariant, encode_variants
from itaclip_hf.modeling.data_contract import ImageInputs, read_images
from tests.modeling.conftest import make_tiny_config

METHODS = (
    {},
    {"attention_maps": ("qk",), "intermediate_layers": (), "last_feed_forward": True},
    {"attention_maps": ("kk",), "attention_prior_std": 2.0, "intermediate_layers": (2,), "last_residual": False},
)


@torch.inference_mode()
def test_variants_of_the_last_block_share_a_pass_and_equal_models_of_their_own(tiny_model, engineering):
    pixels = torch.randn(1, 3, 24, 32, generator=torch.Generator().manual_seed(3))
    model = tiny_model()
    blocks_run = []
    model.vision_model.encoder.layers[0].register_forward_hook(lambda *call: blocks_run.append(call))
    images = ImageInputs(pixels, **engineering)
    variants = [DenseVariant(make_tiny_config(**method)) for method in METHODS]
    found = encode_variants(model, read_images(images, model.config), [*variants, variants[1]])
    assert len(blocks_run) == 1  # all views of all windows, whatever the number of variants
    for method, (features,) in zip((*METHODS, METHODS[1]), found, strict=True):
        (expected,) = tiny_model(**method).encode_dense(images)
        assert torch.equal(features.patches, expected.patches)


@torch.inference_mode()
def test_weights_of_views_can_differ_between_variants(tiny_model, engineering):
    pixels = torch.randn(1, 3, 24, 32, generator=torch.Generator().manual_seed(3))
    model = tiny_model()
    images = read_images(ImageInputs(pixels, **engineering), model.config)
    plain = DenseVariant(model.config, (1.0, 0.0, 0.0, 0.0, 0.0))
    (found,), (engineered,) = encode_variants(model, images, [plain, DenseVariant(model.config)])
    (expected,) = model.encode_dense(ImageInputs(pixels))
    torch.testing.assert_close(found.patches, expected.patches, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found.patches, engineered.patches, atol=1e-3)
    with pytest.raises(ValueError, match="for each of 5 views, but got 2"):
        encode_variants(model, images, [DenseVariant(model.config, (0.5, 0.5))])

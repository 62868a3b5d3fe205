"""The last block against maps that are written out, from queries, keys and values of CLIP's own modules."""

import math

import pytest
import torch
from transformers import CLIPModel

from itaclip_hf.modeling.attention_maps import compute_neighbourhood_prior


def _heads(linear, hidden_states, heads=2):
    batch, tokens, dim = hidden_states.shape
    return linear(hidden_states).view(batch, tokens, heads, dim // heads).transpose(1, 2)


def _written_out_tower(clip: CLIPModel, pixels, maps, layers, weight, residual, feed_forward, prior=0.0):
    """Published arithmetic with stored (tokens, tokens) maps, on plain `CLIPModel` modules."""
    tower = clip.vision_model
    hidden = tower.pre_layrnorm(tower.embeddings(pixels))
    *blocks, last = tower.encoder.layers
    stored = []

    def block_map(block, hidden):
        normed = block.layer_norm1(hidden)
        parts = {letter: _heads(getattr(block.self_attn, f"{letter}_proj"), normed) for letter in "qkv"}
        scale = parts["q"].shape[-1] ** -0.5
        total = 0
        for kind in maps:
            if kind == "identity":
                total = total + torch.eye(hidden.shape[1])
            else:
                bias = prior if block is last else 0.0
                total = total + (parts[kind[0]] @ parts[kind[1]].mT * scale + bias).softmax(-1)
        return total, parts["v"]

    for number, block in enumerate(blocks, start=1):
        if number in layers:
            stored.append(block_map(block, hidden)[0])
        hidden = block(hidden, None)
    attention, values = block_map(last, hidden)
    if stored:
        attention = weight * sum(stored) / len(stored) + (1 - weight) * attention
    attended = last.self_attn.out_proj((attention @ values).transpose(1, 2).flatten(2))
    hidden = hidden + attended if residual else attended
    if feed_forward:
        hidden = hidden + last.mlp(last.layer_norm2(hidden))
    return hidden


@pytest.mark.parametrize(
    ("maps", "layers", "weight", "residual", "feed_forward"),
    [
        (("qq", "kk"), (1, 2), 0.5, True, False),
        (("qq", "kk"), (), 0.5, True, True),
        (("qk",), (2,), 0.3, True, False),
        (("vv", "qq"), (1,), 0.5, False, False),
        (("identity",), (), 0.5, True, True),
        (("kq", "qv", "identity"), (2,), 0.5, True, False),
    ],
)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_last_block_equals_written_out_maps(tiny_model, maps, layers, weight, residual, feed_forward, attention):
    model = tiny_model(
        attention_maps=maps,
        intermediate_layers=layers,
        intermediate_weight=weight,
        last_residual=residual,
        last_feed_forward=feed_forward,
    )
    model.set_attn_implementation(attention)
    clip = CLIPModel(model.config)
    clip.load_state_dict(model.state_dict())
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected = _written_out_tower(clip.eval(), pixels, maps, layers, weight, residual, feed_forward)
        found = model.vision_model(pixels).last_hidden_state
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_neighbourhood_prior_is_added_before_the_softmax_of_the_last_block(tiny_model):
    model = tiny_model(attention_maps=("kk",), attention_prior_std=1.5, last_residual=False, intermediate_layers=())
    clip = CLIPModel(model.config)
    clip.load_state_dict(model.state_dict())
    prior = torch.zeros(17, 17)
    for i in range(16):
        for j in range(16):
            distance = math.dist(divmod(i, 4), divmod(j, 4))
            prior[1 + i, 1 + j] = math.exp(-(distance**2) / (2 * 1.5**2))
    pixels = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected = _written_out_tower(clip.eval(), pixels, ("kk",), (), 0.5, False, False, prior)
        found = model.vision_model(pixels).last_hidden_state
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(compute_neighbourhood_prior((4, 4), 1.5, like=pixels)[0, 0], prior)


@pytest.mark.parametrize("std", [1e-3, 1e-30, 5e-324])
def test_the_narrowest_prior_is_that_of_the_patch_itself(std):
    found = compute_neighbourhood_prior((2, 3), std, like=torch.zeros(1))[0, 0]
    assert torch.equal(found, torch.diag(torch.tensor([0.0, 1, 1, 1, 1, 1, 1])))


def test_ordinary_configuration_equals_clip_bit_for_bit(tiny_model):
    model = tiny_model(attention_maps=("qk",), intermediate_layers=(), last_feed_forward=True)
    clip = CLIPModel(model.config)
    clip.load_state_dict(model.state_dict())
    pixels = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        expected, found = clip.eval().get_image_features(pixels), model.get_image_features(pixels)
        assert torch.equal(found.last_hidden_state, expected.last_hidden_state)
        assert torch.equal(found.pooler_output, expected.pooler_output)

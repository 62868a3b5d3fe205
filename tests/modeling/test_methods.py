"""Each training-free method against its arithmetic written out on transformers' CLIPModel."""

import pytest
import torch
import torch.nn.functional as F
from transformers import CLIPModel

from itaclip_hf import ITACLIPConfig, ITACLIPForSemanticSegmentation
from itaclip_hf.methods import get_method

TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2}
NATIVE = {**TOWER, "num_hidden_layers": 12, "image_size": 224, "patch_size": 16}


def attention_of_clip(q, k, scale, grid):
    return (q @ k.mT * scale).softmax(-1)


def attention_of_maskclip(q, k, scale, grid):
    return torch.eye(q.shape[-2])


def attention_of_sclip(q, k, scale, grid):
    return (q @ q.mT * scale).softmax(-1) + (k @ k.mT * scale).softmax(-1)


def attention_of_clearclip(q, k, scale, grid):
    return (q @ q.mT * scale).softmax(-1)


def attention_of_naclip(q, k, scale, grid):
    places = torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1])).double()
    near = torch.exp(-(torch.cdist(places, places) ** 2) / (2 * 5**2)).float()
    prior = torch.zeros(1 + len(places), 1 + len(places))
    prior[1:, 1:] = near
    return (k @ k.mT * scale + prior).softmax(-1)


# attention, residual, feed-forward, window, stride, scale, (height, width) of the image after resizing
WRITTEN_OUT = {
    "clip": (attention_of_clip, True, True, 224, 112, 40, (336, 400)),
    "maskclip": (attention_of_maskclip, True, True, None, None, 40, (512, 560)),
    "sclip": (attention_of_sclip, True, True, 224, 112, 40, (336, 400)),
    "clearclip": (attention_of_clearclip, False, False, 448, 224, 50, (448, 512)),
    "naclip": (attention_of_naclip, False, False, 224, 112, 40, (336, 400)),
}


def make_pair(name, **settings):
    """A random model under a method, and a CLIPModel of the same weights."""
    torch.manual_seed(0)
    config = ITACLIPConfig(
        **get_method(name).settings().replace(**settings).held_by("config"),
        projection_dim=24,
        text_config={**TOWER, "num_hidden_layers": 1, "vocab_size": 99, "eos_token_id": 98},
        vision_config=NATIVE,
    )
    model = ITACLIPForSemanticSegmentation(config).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith(("proj.weight", "projection.weight")):  # otherwise all patches look alike
            parameter.data = torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.5 * 2
    clip = CLIPModel(config).eval()
    clip.load_state_dict(model.state_dict())
    return model, clip


def add_positions(embeddings, patches):
    """The table of CLIP; for another patch grid, sampled bicubically at the published scale factor."""
    table = embeddings.position_embedding.weight
    grid = patches.shape[-2:]
    if grid != (14, 14):
        scale = tuple((n + 0.1) / 14 for n in grid)
        picture = table[1:].T.reshape(1, -1, 14, 14)
        resized = F.interpolate(picture, scale_factor=scale, mode="bicubic", align_corners=False)
        table = torch.cat([table[:1], resized.flatten(2)[0].T])
    tokens = torch.cat([embeddings.class_embedding.expand(1, 1, -1), patches.flatten(2).mT], dim=1)
    return tokens + table


def encode_window(clip, pixels, attention, residual, feed_forward):
    """(1, 3, h, w) -> unit features of the patches, (dim, grid_h, grid_w)."""
    tower = clip.vision_model
    patches = tower.embeddings.patch_embedding(pixels)
    hidden = tower.pre_layrnorm(add_positions(tower.embeddings, patches))
    *blocks, last = tower.encoder.layers
    for block in blocks:
        hidden = block(hidden, None)
    normed = last.layer_norm1(hidden)
    q, k, v = (
        getattr(last.self_attn, f"{letter}_proj")(normed).unflatten(-1, (2, 16)).transpose(1, 2) for letter in "qkv"
    )
    attended = attention(q, k, 16**-0.5, patches.shape[-2:]) @ v
    attended = last.self_attn.out_proj(attended.transpose(1, 2).flatten(2))
    hidden = hidden + attended if residual else attended
    if feed_forward:
        hidden = hidden + last.mlp(last.layer_norm2(hidden))
    features = clip.visual_projection(tower.post_layernorm(hidden))[0, 1:]
    return F.normalize(features, dim=-1).T.unflatten(1, patches.shape[-2:])


def segment_by_windows(clip, pixels, queries, query_classes, size, attention, residual, feed_forward, window, stride):
    """Cosines of every window upsampled, summed, divided by how many there were, resized: (queries, H, W)."""
    height, width = pixels.shape[-2:]
    if window is None:
        cosines = torch.einsum("qd,dhw->qhw", queries, encode_window(clip, pixels, attention, residual, feed_forward))
        return F.interpolate(cosines[None], size, mode="bilinear")[0]
    total, count = torch.zeros(len(queries), height, width), torch.zeros(height, width)
    for top in sorted({*range(0, height - window, stride), height - window}):
        for left in sorted({*range(0, width - window, stride), width - window}):
            place = (..., slice(top, top + window), slice(left, left + window))
            features = encode_window(clip, pixels[place], attention, residual, feed_forward)
            cosines = torch.einsum("qd,dhw->qhw", queries, features)
            total[place] += F.interpolate(cosines[None], (window, window), mode="bilinear")[0]
            count[place] += 1
    return F.interpolate((total / count)[None], size, mode="bilinear")[0]


@pytest.mark.parametrize("name", WRITTEN_OUT)
@torch.inference_mode()
def test_scores_equal_the_method_written_out_on_clip(name):
    attention, residual, feed_forward, window, stride, scale, image_size = WRITTEN_OUT[name]
    model, clip = make_pair(name)
    generator = torch.Generator().manual_seed(1)
    pixels = F.interpolate(torch.randn(1, 3, 40, 40, generator=generator), image_size, mode="bilinear")
    queries = F.normalize(torch.randn(6, 24, generator=generator), dim=-1)
    query_classes = torch.tensor([0, 0, 1, 2, 2, 3])
    size = (150, 170)
    maps = segment_by_windows(
        clip, pixels, queries, query_classes, size, attention, residual, feed_forward, window, stride
    )
    shares = (maps * scale).softmax(0)
    expected = torch.stack([shares[query_classes == class_id].amax(0) for class_id in range(4)])
    found = model(
        pixels, original_sizes=torch.tensor([size]), query_embeddings=queries, query_classes=query_classes
    ).logits[0]
    assert expected.std() > 0.05  # patches differ, so the comparison says something
    torch.testing.assert_close(found.exp(), expected, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_clip_on_a_whole_native_image_equals_clip_model_bit_for_bit():
    model, clip = make_pair("clip", window_size=0)
    pixels = torch.randn(2, 3, 224, 224)
    hidden = clip.vision_model(pixels).last_hidden_state
    assert torch.equal(model.vision_model(pixels).last_hidden_state, hidden)
    features = clip.visual_projection(clip.vision_model.post_layernorm(hidden[:, 1:]))
    found = model.encode_patches(pixels)
    assert torch.equal(found, F.normalize(features, dim=-1).unflatten(1, (14, 14)))

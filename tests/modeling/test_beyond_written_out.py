"""SC-CLIP's and CorrCLIP's arithmetic written out: one window at a time, patch by patch, on CLIP's own modules."""

import math

import pytest
import torch
from transformers import ViTConfig, ViTModel

from itaclip_hf.modeling.patch_similarity import encode_proxy
from itaclip_hf.modeling.windows import make_views, read_views

SCCLIP = {
    "attention_maps": ("similarity", "kk"),
    "attention_map_weights": (0.6, 0.4),
    "intermediate_layers": (),
    "last_residual": False,
    "last_class_token": False,
    "class_token_share": 0.3,
    "similarity_block": 2,
    "similarity_threshold": 0.9,
    "token_cleaning": "lof",
    "smoothing_before": 2,
    "smoothing_after": 1,
    "fused_layers": (1, 2),
}
CORRCLIP = {
    "attention_maps": ("similarity",),
    "intermediate_layers": (),
    "last_residual": False,
    "last_class_token": False,
    "similarity_sharpness": 4.0,
    "similarity_threshold": None,
    "proxy_features": "query_key",
    "region_scope": True,
    "region_merge_distance": 0.7,
    "region_token_weight": 0.5,
    "fused_layers": (1, 2),
    "fused_as": "branch",
    "fused_weight": 0.7,
}


def _unit(features):
    return features / features.norm(dim=-1, keepdim=True)


def _cosines(features):
    return _unit(features) @ _unit(features).T


def _heads(linear, tokens):
    return linear(tokens).unflatten(-1, (2, 16)).transpose(0, 1)


def _states(model, image):
    """Tokens before the first block and after each one but the last, of one image."""
    return [state[0] for state in model.vision_model.encode_blocks(image[None], [model.config], range(3)).states]


def _write_out_scclip(model, image):
    tower, grid = model.vision_model, (image.shape[1] // 4, image.shape[2] // 4)
    states, block = _states(model, image), tower.encoder.layers[-1]
    patches = [state[1:] for state in states]
    count = len(patches[0])

    distances = [[float((one - two).square().sum()) for two in patches[2]] for one in patches[2]]
    nearest = [sorted(range(count), key=row.__getitem__)[1:31] for row in distances]  # the first is the patch itself
    reach = torch.tensor([row[order[-1]] for row, order in zip(distances, nearest, strict=True)])
    factors = torch.stack([(reach[index] / reach[order]).mean() for index, order in enumerate(nearest)])
    is_outlier = factors > factors.quantile(0.95)

    def clean(features):
        cleaned = features.clone()
        for index in is_outlier.nonzero().flatten().tolist():
            row, column = divmod(index, grid[1])
            around = [
                y * grid[1] + x
                for y in range(max(row - 1, 0), min(row + 2, grid[0]))
                for x in range(max(column - 1, 0), min(column + 2, grid[1]))
            ]
            sound = [neighbour for neighbour in around if not is_outlier[neighbour]]
            cleaned[index] = features[sound].mean(0) if sound else features[index]
        return cleaned

    def smooth(features, similarity):
        weights = torch.where(similarity >= 0.4, similarity, 0)
        return weights @ features / (weights.sum(1, keepdim=True) + 1e-6)

    similarity = _cosines(clean(patches[2]))
    is_kept = (similarity >= 0.9 * similarity.mean()) | torch.eye(count, dtype=torch.bool)
    gated = torch.where(is_kept, 3 * similarity, -math.inf).softmax(-1)

    def end(features, class_token):
        normed = block.layer_norm1(features)
        key, value = _heads(block.self_attn.k_proj, normed), _heads(block.self_attn.v_proj, normed)
        attention = 0.6 * gated + 0.4 * (key @ key.mT / 4).softmax(-1)
        attended = block.self_attn.out_proj((attention @ value).transpose(0, 1).flatten(1))
        return smooth(attended + 0.3 * class_token, _cosines(patches[1]))

    fused = states[1] + states[2]
    both = end(smooth(clean(patches[2]), similarity), states[2][0]) + end(fused[1:], fused[0])
    assert is_outlier.any() and not is_kept.all()
    return _unit(model.visual_projection(tower.post_layernorm(both)))


def _sample(regions, grid):
    height, width = regions.shape
    return [int(regions[y * height // grid[0], x * width // grid[1]]) for y in range(grid[0]) for x in range(grid[1])]


def _write_out_corrclip(model, image, regions):
    tower, grid = model.vision_model, (image.shape[1] // 4, image.shape[2] // 4)
    states, block = _states(model, image), tower.encoder.layers[-1]
    features, wide = encode_proxy(model.proxy_model, image[None], "query_key")
    similarity, unit = _cosines(features[0]), _unit(features[0])
    of_proxy = _sample(regions.clamp(min=0), wide)

    joined = {region: region for region in of_proxy}
    ids = sorted({*of_proxy} - {0})
    means = _unit(torch.stack([unit[[one == region for one in of_proxy]].mean(0) for region in ids]))
    alike = means @ means.T
    for _ in ids:  # as often as the longest chain needs
        for first, one in enumerate(ids):
            for second, two in enumerate(ids):
                if alike.max() - alike[first, second] <= 0.7:
                    joined[one] = joined[two] = min(joined[one], joined[two])
    assert 1 < len({joined[region] for region in ids}) < len(ids)

    of_proxy = [joined[one] for one in of_proxy]
    of_clip = _sample(torch.tensor(of_proxy).view(wide), grid)
    scope = similarity > similarity.mean()
    for index, one in enumerate(of_proxy):
        for other, two in enumerate(of_proxy):
            if one and two:
                scope[index, other] = one == two
    attention = torch.where(scope, 4 * similarity, -math.inf).softmax(-1)

    def attend(tokens):
        value = block.self_attn.v_proj(block.layer_norm1(tokens[1:])).T.unflatten(1, grid)[None]
        value = torch.nn.functional.interpolate(value, wide, mode="bilinear")[0].flatten(1).T  # heads share the map
        return tower.post_layernorm(block.self_attn.out_proj(attention @ value))

    def follow(region):
        """A copy of the class token that sees the class token and the region's patches, through all blocks."""
        token, seen = states[0][:1], [0, *(1 + index for index, one in enumerate(of_clip) if one == region)]
        for layer, state in zip(tower.encoder.layers, states, strict=False):
            attn, image_tokens = layer.self_attn, layer.layer_norm1(state[seen])
            query = _heads(attn.q_proj, layer.layer_norm1(token))
            key, value = _heads(attn.k_proj, image_tokens), _heads(attn.v_proj, image_tokens)
            attended = ((query @ key.mT / 4).softmax(-1) @ value).transpose(0, 1).flatten(1)
            token = token + attn.out_proj(attended)
            token = token + layer.mlp(layer.layer_norm2(token))
        return tower.post_layernorm(token[0])

    tokens = {region: follow(region) for region in set(of_clip)}
    of_patch = _sample(torch.tensor(of_clip).view(grid), wide)
    total = attend(states[2]) + 0.7 * attend((states[1] + states[2]) / 2)
    total = total + 0.5 * torch.stack([tokens[region] for region in of_patch])
    return _unit(model.visual_projection(total))


def _attach_tiny_proxy(model, patch_size):
    torch.manual_seed(2)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model.attach_proxy(ViTModel(ViTConfig(**sizes, image_size=24, patch_size=patch_size)))


@pytest.mark.parametrize("shape", [(24, 40), (40, 16)])
@torch.inference_mode()
def test_scclip(tiny_model, shape):
    pixels = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(6))
    model = tiny_model(**SCCLIP)
    found = model.encode_patches(pixels).flatten(1, 2)
    torch.testing.assert_close(
        found, torch.stack([_write_out_scclip(model, image) for image in pixels]), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("patch_size", [2, 3, 6])  # finer than CLIP's patches, also by no whole number, and coarser
@torch.inference_mode()
def test_corrclip(tiny_model, patch_size):
    model = tiny_model(**CORRCLIP)
    _attach_tiny_proxy(model, patch_size)
    pixels = torch.randn(2, 3, 24, 40, generator=torch.Generator().manual_seed(7))
    ids = torch.tensor([0, 7, 3, 7_000_000_000, 12, 1, -3, 5, 40])
    regions = ids[torch.randint(9, (2, 8, 10), generator=torch.Generator().manual_seed(8))]
    regions = regions.repeat_interleave(3, 1).repeat_interleave(4, 2)
    found = model.encode_patches(pixels, regions).flatten(1, 2)
    expected = [_write_out_corrclip(model, *pair) for pair in zip(pixels, regions, strict=True)]
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_region_maps_of_another_size_are_brought_to_that_of_the_pixels(tiny_model):
    model = tiny_model(**CORRCLIP)
    _attach_tiny_proxy(model, patch_size=4)
    pixels = torch.randn(1, 3, 24, 36, generator=torch.Generator().manual_seed(9))
    small = torch.tensor([[[0, 3], [8, 3], [5, 0]]])
    full = small.repeat_interleave(8, 1).repeat_interleave(18, 2)
    expected = model.encode_patches(pixels, full)
    assert torch.equal(model.encode_patches(pixels, small), expected)
    assert torch.equal(model.encode_patches(pixels, full.repeat_interleave(3, 1)), expected)
    with pytest.raises(ValueError, match="Expected `region_maps` of shape"):
        model.encode_patches(pixels, small[0])


PROXYCLIP = {
    "attention_maps": ("similarity",),
    "intermediate_layers": (),
    "last_residual": False,
    "last_class_token": False,
    "similarity_threshold": 1.2,
    "pamr_steps": 0,
}


@pytest.mark.parametrize("changes", [PROXYCLIP, CORRCLIP | {"pamr_steps": 0}], ids=["proxyclip", "corrclip"])
@torch.inference_mode()
def test_windows_are_padded_and_cut_back(tiny_model, changes):
    model = tiny_model(**changes, window_size=20, window_stride=10, window_multiple=8)
    _attach_tiny_proxy(model, patch_size=2)
    generator = torch.Generator().manual_seed(10)
    pixels = torch.randn(1, 3, 17, 33, generator=generator)
    regions = torch.randint(4, (1, 5, 9), generator=generator).repeat_interleave(4, 1).repeat_interleave(4, 2)
    regions = regions[:, :17, :33]
    queries = _unit(torch.randn(3, model.config.projection_dim, generator=generator))
    found = model(pixel_values=pixels, query_embeddings=queries, region_maps=regions).logits[0]

    total, cover = torch.zeros(3, 17, 33), torch.zeros(33)
    for left in (0, 10, 13):  # 17 + 7 is 24 = 3 * 8: 3 above, 4 below; 20 + 4: 2 and 2
        window = torch.nn.functional.pad(pixels[..., left : left + 20], (2, 2, 3, 4))
        of_window = torch.nn.functional.pad(regions[..., left : left + 20], (2, 2, 3, 4), value=99)
        maps = (model.encode_patches(window, of_window)[0] @ queries.T).permute(2, 0, 1)
        maps = torch.nn.functional.interpolate(maps[None], (24, 24), mode="bilinear")[0]
        total[..., left : left + 20] += maps[:, 3:20, 2:22]
        cover[left : left + 20] += 1
    expected = (total / cover * model.config.similarity_scale).log_softmax(0)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_the_proxy_sees_the_plain_view_and_is_flipped_with_the_others(tiny_model, engineering):
    model = tiny_model(**PROXYCLIP, window_size=24)
    _attach_tiny_proxy(model, patch_size=2)
    pixels = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(11))
    queries = torch.eye(3, model.config.projection_dim)
    seen = []
    hook = model.proxy_model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    found = model(pixel_values=pixels, query_embeddings=queries, **engineering).logits[0]
    hook.remove()
    assert seen == [(1, 3, 24, 24)]

    plain, grid = encode_proxy(model.proxy_model, pixels, "hidden")
    total = 0
    for view in read_views(*(tensor[0] for tensor in engineering.values())):
        axes = [axis - 1 for axis in view.flip_axes]
        flipped = plain.unflatten(1, grid).flip(axes).flatten(1, 2)
        last = model.vision_model(make_views(pixels, [view])[0], proxied={"hidden": (flipped, grid)}).last
        total = total + view.weight * model.project_patches(last)[0].flip(axes)
    maps = torch.nn.functional.interpolate((total @ queries.T).permute(2, 0, 1)[None], (24, 24), mode="bilinear")[0]
    expected = (maps * model.config.similarity_scale).log_softmax(0)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)

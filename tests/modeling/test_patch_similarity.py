"""Parts around the last block, on tiny models: windows of any shape, flat images, proxies of every kind, folders."""

import pytest
import torch
from transformers import (
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    RadioConfig,
    RadioModel,
    ViTConfig,
    ViTModel,
)

from itaclip_hf import ITACLIPForSemanticSegmentation
from itaclip_hf.modeling.patch_similarity import (
    clean_patches,
    find_outliers,
    gate_similarity,
    join_regions,
    limit_to_regions,
    sample_regions,
    smooth_patches,
)

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
PROXIES = {
    "vit": lambda: ViTModel(ViTConfig(**SIZES, intermediate_size=64, image_size=32, patch_size=8)),
    "dinov2": lambda: Dinov2Model(Dinov2Config(**SIZES, image_size=42, patch_size=14)),
    "dinov2_with_registers": lambda: Dinov2WithRegistersModel(
        Dinov2WithRegistersConfig(**SIZES, image_size=42, patch_size=14, num_register_tokens=4)
    ),
    "dinov3_vit": lambda: DINOv3ViTModel(DINOv3ViTConfig(**SIZES, intermediate_size=64, image_size=32, patch_size=8)),
    "radio": lambda: RadioModel(RadioConfig(**SIZES, image_size=32, patch_size=8)),
}
BLOCKS = {
    "attention_maps": ("similarity", "kk"),
    "intermediate_layers": (),
    "similarity_block": 2,
    "last_residual": False,
    "last_class_token": False,
    "class_token_share": 0.3,
    "token_cleaning": "lof",
    "smoothing_before": 2,
    "smoothing_after": 1,
    "fused_layers": (1, 2),
}
BY_PROXY = {
    "attention_maps": ("similarity",),
    "intermediate_layers": (),
    "last_residual": False,
    "last_class_token": False,
}
CORRCLIP = {
    **BY_PROXY,
    "similarity_threshold": None,
    "proxy_features": "query_key",
    "region_scope": True,
    "fused_layers": (1, 2),
    "fused_as": "branch",
    "region_token_weight": 0.5,
}


@pytest.fixture
def pixels():
    return torch.randn(2, 3, 24, 40, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("shape", [(16, 16), (24, 40), (40, 24), (4, 4), (4, 20)])
@pytest.mark.parametrize(
    "method",
    [BLOCKS, {**BLOCKS, "token_cleaning": "class_row", "fused_as": "branch"}, {**BLOCKS, "last_class_token": True}],
)
@torch.inference_mode()
def test_any_window_and_flat_images_give_finite_unit_features(tiny_model, shape, method):
    model = tiny_model(**method)
    for image in (torch.randn(2, 3, *shape), torch.zeros(1, 3, *shape)):
        found = model.encode_patches(image)
        assert found.shape == (len(image), shape[0] // 4, shape[1] // 4, 24)
        torch.testing.assert_close(found.norm(dim=-1), torch.ones(found.shape[:-1]))


def test_a_window_more_alike_than_the_threshold_allows_keeps_every_patch_to_itself():
    similarity = 0.9 + 0.1 * torch.eye(5)[None]
    torch.testing.assert_close(gate_similarity(similarity, 3.0, 1.2), torch.eye(5)[None])


def test_gate_is_a_softmax_over_what_stands_out():
    similarity = torch.tensor([[[1.0, 0.8, 0.0], [0.8, 1.0, 0.1], [0.0, 0.1, 1.0]]])  # mean 0.53
    found = gate_similarity(similarity, 2.0, 1.0)[0]
    pair = torch.tensor([2.0, 1.6]).softmax(0)
    torch.testing.assert_close(found, torch.tensor([[pair[0], pair[1], 0], [pair[1], pair[0], 0], [0, 0, 1]]))


def test_without_sharpness_nothing_stands_out():
    similarity = torch.tensor([[[1.0, 0.8, 0.0], [0.8, 1.0, 0.1], [0.0, 0.1, 1.0]]])
    torch.testing.assert_close(gate_similarity(similarity, 0.0, 1.0), torch.full((1, 3, 3), 1 / 3))


def test_smoothing_is_a_weighted_mean_of_like_patches():
    similarity = torch.tensor([[[1.0, 0.5, 0.3], [0.5, 1.0, 0.3], [0.3, 0.3, 1.0]]])
    found = smooth_patches(torch.tensor([[[3.0], [0.0], [5.0]]]), similarity, 0.4)
    torch.testing.assert_close(found, torch.tensor([[[2.0], [1.0], [5.0]]]), atol=1e-4, rtol=0)


def test_outliers_become_the_mean_of_sound_neighbours_in_grids_of_any_shape():
    patches = torch.arange(12.0).view(1, 12, 1)  # 3 rows of 4
    is_outlier = torch.zeros(1, 12, dtype=torch.bool)
    is_outlier[0, [0, 1, 4, 5, 11]] = True
    found = clean_patches(patches, is_outlier, (3, 4))[0, :, 0]
    expected = torch.arange(12.0)
    expected[0] = 0  # all three neighbours are outliers themselves
    expected[1] = (2 + 6) / 2
    expected[4], expected[5] = (8 + 9) / 2, (2 + 6 + 8 + 9 + 10) / 5
    expected[11] = (6 + 7 + 10) / 3
    torch.testing.assert_close(found, expected)


@torch.inference_mode()
def test_class_row_flags_what_the_class_token_looks_at_more_than_the_patch_at_itself(tiny_model):
    model = tiny_model(token_cleaning="class_row", intermediate_layers=())
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    encoded = model.vision_model.encode_blocks(pixels, [model.config])
    query, key, _ = encoded.projections[2]
    attention = (query @ key.mT * query.shape[-1] ** -0.5).softmax(-1).mean(1)[0]
    candidates = [
        (1.5 * float(attention[0, n]), n - 1) for n in range(1, 65) if 1.5 * attention[0, n] > attention[n, n]
    ]
    expected = sorted(index for _, index in sorted(candidates, reverse=True)[:10])
    found = find_outliers("class_row", encoded.hidden_states[:, 1:], encoded.projections[2])
    assert expected and found[0].nonzero().flatten().tolist() == expected


def test_cleaning_by_the_class_row_needs_a_block_before_the_last(tiny_model):
    config = tiny_model().config
    config.vision_config.num_hidden_layers, config.intermediate_layers = 1, ()
    config.validate_settings()
    config.token_cleaning = "class_row"
    with pytest.raises(ValueError, match=r"Expected a block before the last one.*but got 1 block"):
        config.validate_settings()


def test_regions_are_joined_transitively_and_bound_what_patches_see():
    angles = torch.tensor([0.0, 0.5, 1.0, 2.5, 0.1])  # 0.5 apart: cosine 0.878; 1 apart: 0.54
    features = torch.stack([angles.cos(), angles.sin()], -1)[None]
    regions = torch.tensor([[7, 3, -2, 9, 0]])
    found = join_regions(features, regions, 0.2)
    assert found.tolist() == [[1, 1, 1, 2, 0]]
    similarity = features @ features.mT
    allowed = limit_to_regions(similarity, found)[0]
    assert allowed[:3, :3].all() and not allowed[3, :3].any()
    torch.testing.assert_close(allowed[4], similarity[0, 4] > similarity.mean())


def test_regions_of_patches_are_those_of_their_upper_left_pixels():
    maps = torch.arange(30).view(1, 5, 6)
    assert sample_regions(maps, (2, 3)).tolist() == [[0, 2, 4, 12, 14, 16]]


@pytest.mark.parametrize("kind", PROXIES)
@pytest.mark.parametrize("features", ["hidden", "query_key"])
@torch.inference_mode()
def test_proxies_answer_on_their_own_grid(tiny_model, pixels, kind, features):
    model = tiny_model(**BY_PROXY, proxy_features=features)
    proxy = PROXIES[kind]()
    model.attach_proxy(proxy)
    side = proxy.config.patch_size
    found = model.encode_patches(pixels)
    assert found.shape == (2, 24 // side, 40 // side, 24)
    each = torch.cat([model.encode_patches(image) for image in pixels.split(1)])
    torch.testing.assert_close(found, each, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_beside_other_maps_a_proxy_speaks_on_the_grid_of_clip(tiny_model, pixels):
    model = tiny_model(attention_maps=("qq", "kk", "similarity"), intermediate_layers=())
    model.attach_proxy(PROXIES["vit"]())
    assert model.encode_patches(pixels).shape == (2, 6, 10, 24)


@pytest.mark.parametrize("method", [BY_PROXY, CORRCLIP])
@torch.inference_mode()
def test_folders_carry_the_proxy(tiny_model, pixels, tmp_path, method):
    model = tiny_model(**method)
    model.attach_proxy(PROXIES["vit"]())
    model.save_pretrained(tmp_path)
    again = ITACLIPForSemanticSegmentation.from_pretrained(tmp_path).eval()
    regions = torch.arange(24 * 40).view(1, 24, 40).repeat(2, 1, 1) // 300
    assert torch.equal(again.encode_patches(pixels, regions), model.encode_patches(pixels, regions))
    assert again.config.proxy_config.model_type == "vit"


@torch.inference_mode()
def test_windows_and_flipped_views_take_their_regions_along(tiny_model, texts):
    model = tiny_model(**CORRCLIP, similarity_block=2)  # a proxy would see the plain view
    image = torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(5))
    regions = torch.arange(16 * 24).view(1, 16, 24) // 90
    plain = model(image, region_maps=regions, **texts).logits
    identity, impulse = torch.eye(3)[None, None], torch.ones(1, 1, 1)
    flip = {
        "augmentation_color": identity,
        "augmentation_blur": impulse,
        "augmentation_flip": torch.tensor([[[False, True]]]),
        "augmentation_weight": torch.ones(1, 1),
    }
    mirrored = model(image.flip(-1), region_maps=regions.flip(-1), **flip, **texts).logits
    torch.testing.assert_close(mirrored.flip(-1), plain, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_bfloat16_runs_every_part(tiny_model, pixels):
    for method in (BLOCKS, CORRCLIP):
        model = tiny_model(**method)
        if method is CORRCLIP:
            model.attach_proxy(PROXIES["vit"]())
        exact, half = model.encode_patches(pixels), model.bfloat16().encode_patches(pixels)
        assert (exact * half).sum(-1).mean() > 0.9


def test_without_a_proxy_the_error_says_how_to_get_one(tiny_model, pixels):
    with pytest.raises(ValueError, match=r"Expected a proxy, .* Attach one with `model.attach_proxy"):
        tiny_model(**BY_PROXY).encode_patches(pixels)
    with pytest.raises(TypeError, match="Expected a vision backbone with square patches as proxy, but got Linear"):
        tiny_model(**BY_PROXY).attach_proxy(torch.nn.Linear(2, 2))


def test_a_checkpoint_without_all_weights_is_no_proxy(tiny_model, tmp_path):
    proxy = PROXIES["vit"]()
    proxy.save_pretrained(tmp_path, state_dict={"layernorm.weight": proxy.layernorm.weight})
    with pytest.raises(ValueError, match=r"Expected all weights of the proxy, but .* are missing"):
        tiny_model(**BY_PROXY).attach_proxy(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attention_map_weights": (1.0,)}, "`attention_map_weights` to have an entry for each"),
        ({"intermediate_maps": ("qk", "qq", "kk")}, "`intermediate_maps` to have no more entries"),
        ({"attention_maps": ("similarity",)}, "no map 'similarity' in intermediate blocks"),
        ({"fused_layers": (3,)}, "`fused_layers` to count blocks from 1 to 2"),
        ({"smoothing_after": 3}, "smoothing_after` to count blocks from 1 to 2"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tiny_model, fields, message):
    with pytest.raises(ValueError, match=message):
        tiny_model(**fields)


def test_what_is_off_costs_nothing(tiny_model, pixels):
    model = tiny_model()
    encoded = model.vision_model.encode_blocks(pixels, [model.config])
    assert set(encoded.projections) == {1, 2} and not any(state is not None for state in encoded.states)
    assert {*model.state_dict()} - {*CLIPModel(model.config).state_dict()} == set()

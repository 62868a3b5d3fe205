"""Each training-free method against its arithmetic written out on transformers' CLIPModel; the declared settings."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from transformers import CLIPModel

from itaclip_hf import ITACLIPConfig, ITACLIPForSemanticSegmentation, ITACLIPImageProcessor, ITACLIPProcessor
from itaclip_hf.modeling import Method, get_method, method_names, methods, register_method

BENCHMARKS = ("voc21", "context60", "coco_object", "coco_stuff", "cityscapes")
TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2}
NATIVE = {**TOWER, "num_hidden_layers": 12, "image_size": 224, "patch_size": 16}


@pytest.fixture
def separate_registry(monkeypatch):
    monkeypatch.setattr(methods, "_METHODS", dict(methods._METHODS))


# --- the arithmetic, from CLIP's own queries, keys and values -------------------------------------------------------


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


def make_pair(name, **overrides):
    """A random model under a method, and a CLIPModel of the same weights."""
    torch.manual_seed(0)
    config = ITACLIPConfig.from_method(
        name,
        projection_dim=24,
        text_config={**TOWER, "num_hidden_layers": 1, "vocab_size": 99, "eos_token_id": 98},
        vision_config=NATIVE,
        **overrides,
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


# --- the declared settings ------------------------------------------------------------------------------------------

# score thresholds, scales and sizes on VOC, Context, COCO-Object, COCO-Stuff, Cityscapes
PUBLISHED_SETTINGS = {
    "clip": ((0.1, 0.05, 0.1, 0, 0), (40,) * 5, (336,) * 5, (224, 112)),
    "maskclip": ((0,) * 5, (40,) * 5, (512,) * 5, (0, 112)),
    "sclip": ((0.1, 0.1, 0.1, 0, 0), (65, 50, 50, 40, 40), (336, 336, 336, 448, 560), (224, 112)),
    "clearclip": ((0.5, 0.15, 0.4, 0, 0), (50,) * 5, (448,) * 5, (448, 224)),
    "naclip": ((0.1, 0.1, 0.1, 0, 0), (40,) * 5, (336, 336, 336, 336, 560), (224, 112)),
    "itaclip": ((0.1, 0.1, 0.1, 0, 0), (60, 55, 50, 40, 40), (336, 336, 336, 448, 560), (224, 28)),
}
LAST_BLOCKS = {  # maps, width of the prior, intermediate layers, residual, feed-forward
    "clip": (("qk",), 0, (), True, True),
    "maskclip": (("identity",), 0, (), True, True),
    "sclip": (("qq", "kk"), 0, (), True, True),
    "clearclip": (("qq",), 0, (), False, False),
    "naclip": (("kk",), 5, (), False, False),
    "itaclip": (("qq", "kk"), 0, (7, 8, 10), True, False),
}


def test_methods_are_these():
    assert set(method_names()) == set(PUBLISHED_SETTINGS)


@pytest.mark.parametrize("name", PUBLISHED_SETTINGS)
def test_settings_are_the_published_ones(name):
    thresholds, scales, edges, (window_size, window_stride) = PUBLISHED_SETTINGS[name]
    for benchmark, threshold, scale, edge in zip(BENCHMARKS, thresholds, scales, edges, strict=True):
        config = ITACLIPConfig.from_method(name, benchmark)
        processor = get_method(name).processor_fields(benchmark)
        assert (config.similarity_scale, config.window_size, config.window_stride) == (
            scale,
            window_size,
            window_stride,
        )
        assert (processor["score_threshold"], processor["shortest_edge"]) == (threshold, edge)
        found = (config.attention_maps, config.attention_prior_std, config.intermediate_layers)
        assert (*found, config.last_residual, config.last_feed_forward) == LAST_BLOCKS[name]


@pytest.mark.parametrize("name", [name for name in PUBLISHED_SETTINGS if name != "itaclip"])
@pytest.mark.parametrize("benchmark", [None, *BENCHMARKS])
def test_methods_but_itaclip_have_one_view_names_alone_and_no_refinement(name, benchmark):
    processor = get_method(name).processor_fields(benchmark)
    assert (processor["image_engineering"], processor["auxiliary_weight"], processor["area_threshold"]) == (
        False,
        0,
        None,
    )
    assert ITACLIPConfig.from_method(name, benchmark).pamr_steps == 0


def test_itaclip_is_the_default_of_configuration_and_processor():
    config, image_processor = ITACLIPConfig(), ITACLIPImageProcessor()
    assert {name: getattr(config, name) for name in methods.ITACLIP_CONFIG} == get_method("itaclip").config_fields()
    expected = {
        name: getattr(image_processor, name)
        for name in ("image_engineering", "photometric_weight", "score_threshold", "area_threshold", "closing")
    }
    weight = ITACLIPProcessor.__init__.__defaults__[2]
    edge = image_processor.size["shortest_edge"]
    assert get_method("itaclip").processor_fields() == {**expected, "auxiliary_weight": weight, "shortest_edge": edge}


def test_every_field_of_the_configuration_belongs_to_methods_or_to_the_machine():
    fields = set(ITACLIPConfig().method_fields())
    assert fields == {*methods.ITACLIP_CONFIG, "window_batch_size", "query_classes"}


def test_overrides_win_over_the_method():
    config = ITACLIPConfig.from_method("sclip", "voc21", similarity_scale=7.0, pamr_steps=10)
    assert (config.similarity_scale, config.pamr_steps, config.last_feed_forward) == (7.0, 10, True)


def test_a_saved_configuration_is_recognised_whatever_its_windows_are(tmp_path):
    for name in method_names():
        ITACLIPConfig.from_method(name, "voc21", window_size=0).save_pretrained(tmp_path / name)
        assert ITACLIPConfig.from_pretrained(tmp_path / name).identify_method().name == name
    assert ITACLIPConfig(attention_maps=("kk", "qq")).identify_method().title == "ITACLIP"  # a sum has no order
    assert ITACLIPConfig(attention_maps=("vv",)).identify_method() is None


def test_a_derived_method_changes_what_it_says_and_keeps_the_rest(separate_registry):
    base = get_method("clearclip")
    method = base.derive(
        "mine", "Mine", "nowhere", config={"attention_maps": ("kk",)}, benchmarks={"voc21": {"similarity_scale": 9.0}}
    )
    register_method(method)
    config = ITACLIPConfig.from_method("mine", "voc21")
    assert config.method_fields() == {
        **ITACLIPConfig.from_method("clearclip").method_fields(),
        "attention_maps": ["kk"],
        "similarity_scale": 9.0,
    }
    assert get_method("mine").processor_fields("voc21")["score_threshold"] == 0.5
    assert config.identify_method() is method
    assert method.published_miou == {}


def test_of_two_methods_with_one_last_block_the_nearer_is_recognised(separate_registry):
    register_method(get_method("sclip").derive("coarse", "Coarse", "nowhere", config={"window_stride": 224}))
    assert ITACLIPConfig.from_method("sclip").identify_method().name == "sclip"
    assert ITACLIPConfig.from_method("coarse").identify_method().name == "coarse"


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="out of clip, maskclip, sclip, clearclip, naclip, itaclip, but got 'nclip'"):
        ITACLIPConfig.from_method("nclip")
    with pytest.raises(ValueError, match=r"Expected a benchmark out of .*voc21.*, but got 'voc'"):
        ITACLIPConfig.from_method("clip", "voc")


def test_entries_with_mistakes_are_refused(separate_registry):
    with pytest.raises(ValueError, match=r"`config` of the method 'mine' .*window_stride.*but got window_strde"):
        Method("mine", "Mine", "nowhere", config={"window_strde": 1})
    with pytest.raises(ValueError, match=r"`processor` of the method 'mine' .*but got size"):
        Method("mine", "Mine", "nowhere", processor={"size": 1})
    with pytest.raises(ValueError, match=r"`benchmarks\['voc21'\]` of the method 'mine' .*but got scale"):
        Method("mine", "Mine", "nowhere", benchmarks={"voc21": {"scale": 1}})
    with pytest.raises(ValueError, match="Expected an attention map out of"):
        Method("mine", "Mine", "nowhere", config={"attention_maps": ("unheard_of",)})
    with pytest.raises(ValueError, match=r"'clip' is taken\. Choose another name"):
        register_method(Method("clip", "Mine", "nowhere"), exist_ok=True)
    register_method(Method("mine", "Mine", "nowhere"))
    with pytest.raises(ValueError, match=r"'mine' is taken\. Choose another, or pass `exist_ok=True`"):
        register_method(Method("mine", "Mine", "nowhere"))
    register_method(replace(get_method("mine"), title="Mine again"), exist_ok=True)
    assert get_method("mine").title == "Mine again"

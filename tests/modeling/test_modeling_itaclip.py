"""The whole model: batches, dtypes, vocabularies, files and errors."""

import pytest
import torch
from accelerate import cpu_offload
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize
from transformers import CLIPModel

from itaclip_hf import ITACLIPConfig, ITACLIPForSemanticSegmentation
from tests.goldens.golden_weights import clip_shapes


def _pixels(*shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _repeat(engineering, times):
    return {name: tensor.repeat(times, *[1] * (tensor.ndim - 1)) for name, tensor in engineering.items()}


@torch.inference_mode()
def test_batch_of_mixed_sizes_equals_single_calls(tiny_model, texts, engineering):
    model = tiny_model(window_batch_size=7)
    sizes, originals = [(24, 32), (12, 40), (24, 24)], [(30, 41), (20, 33), (24, 24)]
    images = [_pixels(3, *size, seed=index) for index, size in enumerate(sizes)]
    padded = torch.zeros(3, 3, 24, 40)
    for index, image in enumerate(images):
        padded[index, :, : image.shape[1], : image.shape[2]] = image
    together = model(
        pixel_values=padded,
        image_sizes=torch.tensor(sizes),
        original_sizes=torch.tensor(originals),
        **_repeat(engineering, 3),
        **texts,
    ).logits
    assert isinstance(together, list)
    for image, original, found in zip(images, originals, together, strict=True):
        alone = model(image[None], original_sizes=torch.tensor([original]), **engineering, **texts).logits
        assert alone.shape == (1, 3, *original)
        torch.testing.assert_close(found, alone[0], atol=1e-4, rtol=1e-5)


@torch.inference_mode()
def test_batch_of_one_size_is_one_tensor(tiny_model, texts):
    logits = tiny_model()(_pixels(2, 3, 24, 20), **texts).logits
    assert logits.shape == (2, 3, 24, 20)
    assert logits.dtype == torch.float32
    assert (logits.exp().sum(1) <= 1 + 1e-5).all()


@torch.inference_mode()
def test_encoder_batch_size_and_query_chunks_change_nothing(tiny_model, texts, engineering, monkeypatch):
    expected = tiny_model()(_pixels(1, 3, 24, 32), **engineering, **texts).logits
    monkeypatch.setattr("itaclip_hf.modeling.query_maps.MAP_ELEMENTS_PER_CHUNK", 1)
    found = tiny_model(window_batch_size=1)(_pixels(1, 3, 24, 32), **engineering, **texts).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


@torch.inference_mode()
def test_query_is_the_mix_of_normalised_texts_and_not_renormalised(tiny_model, texts):
    model = tiny_model()
    clip = CLIPModel(model.config).eval()
    clip.load_state_dict(model.state_dict())
    embeddings = []
    for prompts in texts["input_ids"]:
        features = clip.get_text_features(prompts).pooler_output
        embeddings.append(normalize(normalize(features, dim=-1).mean(0), dim=-1))
    expected = texts["text_weight"] @ torch.stack(embeddings)
    found = model.encode_queries(texts["input_ids"], texts["attention_mask"], texts["text_weight"])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert found[3].norm() < 0.999


@torch.inference_mode()
def test_texts_embeddings_and_defaults_are_three_ways_to_the_same_result(tiny_model, texts):
    model, pixels = tiny_model(), _pixels(1, 3, 16, 16)
    expected = model(pixels, **texts).logits
    queries = model.encode_queries(texts["input_ids"], texts["attention_mask"], texts["text_weight"])
    found = model(pixels, query_embeddings=queries, query_classes=texts["query_classes"]).logits
    torch.testing.assert_close(found, expected)
    assert model(pixels, input_ids=texts["input_ids"]).logits.shape[1] == len(texts["input_ids"])
    single = model(pixels, input_ids=texts["input_ids"][:, 0]).logits
    torch.testing.assert_close(single, model(pixels, input_ids=texts["input_ids"][:, :1]).logits)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close_to_float32(tiny_model, texts, engineering, dtype):
    expected = tiny_model()(_pixels(1, 3, 24, 24), **engineering, **texts).logits
    found = tiny_model().to(dtype)(_pixels(1, 3, 24, 24), **engineering, **texts).logits
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


@torch.inference_mode()
def test_eager_equals_sdpa(tiny_model, texts, engineering):
    model = tiny_model()
    expected = model(_pixels(1, 3, 24, 24), **engineering, **texts).logits
    model.set_attn_implementation("eager")
    found = model(_pixels(1, 3, 24, 24), **engineering, **texts).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


@torch.inference_mode()
def test_hidden_states_cover_every_view_of_every_window(tiny_model, texts, engineering):
    model = tiny_model(window_batch_size=3)
    batches = []
    model.vision_model.register_forward_pre_hook(lambda tower, inputs: batches.append(len(inputs[0])))
    inputs = {**engineering, **texts}
    states = model(_pixels(1, 3, 24, 24), output_hidden_states=True, **inputs).hidden_states
    assert batches == [3 * 5, 1 * 5]  # windows with all their views
    assert [tuple(state.shape) for state in states] == [(4 * 5, 17, 32)] * 4
    assert model(_pixels(1, 3, 24, 24), **inputs).hidden_states is None
    chosen = model(_pixels(1, 3, 24, 24), output_hidden_states=[0, -1], **inputs).hidden_states
    assert chosen[1] is None and chosen[2] is None
    assert torch.equal(chosen[0], states[0]) and torch.equal(chosen[3], states[3])


@torch.inference_mode()
def test_hidden_states_of_windows_of_several_sizes_are_lists(tiny_model, texts):
    pixels, sizes = _pixels(2, 3, 24, 24), torch.tensor([[24, 24], [12, 24]])
    states = tiny_model()(pixels, image_sizes=sizes, output_hidden_states=True, **texts).hidden_states
    assert [tuple(batch.shape) for batch in states[0]] == [(4, 17, 32), (2, 13, 32)]


@torch.inference_mode()
def test_return_dict_false_gives_a_tuple(tiny_model, texts):
    model = tiny_model()
    found = model(_pixels(1, 3, 16, 16), return_dict=False, **texts)
    assert isinstance(found, tuple)
    torch.testing.assert_close(found[0], model(_pixels(1, 3, 16, 16), **texts).logits)


@torch.inference_mode()
def test_outputs_follow_the_configuration(tiny_model, texts):
    model = tiny_model()
    expected = model(_pixels(1, 3, 16, 16), **texts).logits
    model.config.output_hidden_states = True
    assert len(model(_pixels(1, 3, 16, 16), **texts).hidden_states) == 4
    for config in (model.config, model.config.text_config, model.config.vision_config):
        config.return_dict = False
    found = model(_pixels(1, 3, 16, 16), **texts)
    assert isinstance(found, tuple)
    assert torch.equal(found[0], expected)


@torch.inference_mode()
def test_autocast_leaves_everything_behind_the_towers_in_float32(tiny_model, texts, engineering):
    model = tiny_model()
    expected = model(_pixels(1, 3, 24, 24), **engineering, **texts).logits
    with torch.autocast("cpu", torch.bfloat16):
        found = model(_pixels(1, 3, 24, 24), **engineering, **texts).logits
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


@torch.inference_mode()
def test_offloaded_weights_are_fetched(tiny_model, texts):
    model, pixels = tiny_model(), _pixels(1, 3, 20, 28)
    expected = model(pixels, **texts).logits
    offloaded = cpu_offload(tiny_model(), execution_device=torch.device("cpu"))
    torch.testing.assert_close(offloaded(pixels, **texts).logits, expected)


@torch.inference_mode()
def test_sizes_may_be_lists(tiny_model, texts):
    logits = tiny_model()(_pixels(1, 3, 16, 20), image_sizes=[[16, 18]], original_sizes=[(9, 10)], **texts).logits
    assert logits.shape == (1, 3, 9, 10)


def test_loss_is_the_mean_negative_log_score_and_reaches_the_weights(tiny_model, texts):
    model = tiny_model()
    labels = torch.randint(0, 3, (1, 16, 16), generator=torch.Generator().manual_seed(4))
    labels[0, :4] = 255
    outputs = model(_pixels(1, 3, 16, 16), labels=labels, **texts)
    picked = [outputs.logits[0, labels[0, y, x], y, x] for y in range(4, 16) for x in range(16)]
    torch.testing.assert_close(outputs.loss, -torch.stack(picked).mean())
    torch.testing.assert_close(model(_pixels(1, 3, 16, 16), labels=labels.int(), **texts).loss, outputs.loss)
    outputs.loss.backward()
    for layer in model.vision_model.encoder.layers:
        assert layer.self_attn.q_proj.weight.grad.abs().sum() > 0


def _baked(model):
    """Bake two queries of one class by hand, as `set_vocabulary` does from a processor."""
    model.config.id2label = {0: "cat", 1: "dog"}
    model.config.label2id = {"cat": 0, "dog": 1}
    model.config.query_classes = (1, 0, 1)
    model._register_queries(normalize(_pixels(3, 24), dim=-1))
    return model


@torch.inference_mode()
def test_baked_vocabulary_survives_saving(tiny_model, tmp_path):
    model = _baked(tiny_model())
    model.save_pretrained(tmp_path)
    loaded, info = ITACLIPForSemanticSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert loaded.config.id2label == {0: "cat", 1: "dog"}
    assert torch.equal(loaded.query_embeddings, model.query_embeddings)
    pixels = _pixels(1, 3, 24, 16)
    assert torch.equal(loaded(pixels).logits, model(pixels).logits)


def test_stock_clip_weights_load_and_files_stay_interchangeable(tiny_model, tmp_path):
    model = tiny_model()
    clip = CLIPModel(model.config)
    clip.load_state_dict(model.state_dict())
    clip.config.model_type = "clip"
    clip.save_pretrained(tmp_path / "clip")
    _write_clip_config(model.config, tmp_path / "clip")
    loaded, info = ITACLIPForSemanticSegmentation.from_pretrained(
        tmp_path / "clip", output_loading_info=True, intermediate_layers=(1,), window_size=16, window_stride=8
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert loaded.config.model_type == "itaclip"
    loaded.save_pretrained(tmp_path / "itaclip")
    theirs = load_file(tmp_path / "clip" / "model.safetensors")
    ours = load_file(tmp_path / "itaclip" / "model.safetensors")
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[key], ours[key]) for key in theirs)


@pytest.mark.parametrize(
    ("patch_size", "image_size", "width", "layers", "text_width", "embed_dim"),
    [
        (16, 224, 768, 12, 512, 512),
        (32, 224, 768, 12, 512, 512),
        (14, 224, 1024, 24, 768, 768),
        (14, 336, 1024, 24, 768, 768),
    ],
    ids=["B/16", "B/32", "L/14", "L/14-336"],
)
def test_keys_and_shapes_are_those_of_the_published_checkpoints(
    patch_size, image_size, width, layers, text_width, embed_dim
):
    config = ITACLIPConfig(
        projection_dim=embed_dim,
        text_config={"hidden_size": text_width, "intermediate_size": 4 * text_width},
        vision_config={
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 64,
            "patch_size": patch_size,
            "image_size": image_size,
        },
    )
    with torch.device("meta"):
        model = ITACLIPForSemanticSegmentation(config)
    expected = clip_shapes(
        embed_dim=embed_dim,
        vision_width=width,
        vision_layers=layers,
        patch_size=patch_size,
        image_size=image_size,
        text_width=text_width,
        text_layers=12,
    )
    assert {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()} == expected


def test_position_ids_of_old_checkpoints_are_ignored(tiny_model, tmp_path):
    tiny_model().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    weights["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    _, info = ITACLIPForSemanticSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]


def _write_clip_config(config, folder):
    from transformers import CLIPConfig

    CLIPConfig(
        text_config=config.text_config.to_dict(),
        vision_config=config.vision_config.to_dict(),
        projection_dim=config.projection_dim,
    ).save_pretrained(folder)


def test_other_model_types_are_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}')
    with pytest.raises(ValueError, match='Expected a checkpoint of model type "clip" or "itaclip", but got "siglip"'):
        ITACLIPForSemanticSegmentation.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"window_stride": 300}, "`window_stride` <= `window_size`, but got 300 > 224. Use a stride of at most 224"),
        ({"window_stride": 0}, "`window_stride` to be a whole number from 1"),
        ({"window_size": -1}, "`window_size` to be a whole number from 0"),
        (
            {"window_size": 28, "vision_config": {"patch_size": 32}},
            r"`window_size` of at least one patch \(32\), or 0",
        ),
        ({"intermediate_layers": (12,)}, "`intermediate_layers` to count blocks from 1 to 11"),
        ({"intermediate_weight": 1.5}, "`intermediate_weight` to be a number from 0 to 1"),
        ({"attention_maps": ("xy",)}, "`attention_maps` to name one or more of"),
        ({"attention_maps": ()}, "`attention_maps` to name one or more of"),
        ({"attention_prior_std": -1}, "`attention_prior_std` to be a number from 0"),
        ({"pamr_steps": -1}, "`pamr_steps` to be a whole number from 0"),
        ({"pamr_dilations": (0,)}, "`pamr_dilations` to be a list of up to 64, each of it a whole number from 1"),
        ({"similarity_scale": 0}, "`similarity_scale` to be a number from 0.001"),
        ({"similarity_scale": 1e-300}, "`similarity_scale` to be a number from 0.001"),
        ({"pamr_dilations": (8,) * 65}, "`pamr_dilations` to be a list of up to 64"),
        ({"pamr_step": 5}, "Expected the field 'pamr_steps', but got 'pamr_step'"),
        ({"score_threshold": 0.5}, "but got `score_threshold`, a setting of its processor. Pass it there"),
        ({"window_batch_size": 0}, "`window_batch_size` to be a whole number from 1"),
        ({"query_classes": (5,)}, r"`query_classes` to hold ids of `id2label` \(0 to 1\), but got \[5\]"),
    ],
)
def test_configuration_out_of_range_is_named(field, message):
    with pytest.raises(ValueError, match=message):
        ITACLIPConfig(**field)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("query_classes", 5),
        ("query_classes", (0.5,)),
        ("id2label", "x"),
        ("proxy_config", 5),
        ("dtype", "nope"),
        ("semantic_loss_ignore_index", "255"),
    ],
)
def test_fields_that_are_no_settings_have_types_too(name, value):
    with pytest.raises(TypeError, match=f"Expected `{name}` to be a"):
        ITACLIPConfig(**{name: value})
    with pytest.raises(TypeError, match=f"Expected `{name}` to be a"):
        setattr(ITACLIPConfig(), name, value)


@pytest.mark.parametrize("field", ["intermediate_layers", "pamr_dilations", "attention_maps"])
def test_number_where_a_tuple_is_expected_is_named(field):
    with pytest.raises(TypeError, match=f"`{field}` to be a list of up to 64, each of it .*, but got 7"):
        ITACLIPConfig(**{field: 7})


def test_field_changed_after_loading_is_checked_again(tiny_model, texts):
    model = tiny_model()
    model.config.window_stride = 100
    with pytest.raises(ValueError, match="Use a stride of at most 16"):
        model(_pixels(1, 3, 16, 16), **texts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"pixel_values": torch.zeros(3, 16, 16)},
            r"`pixel_values` of shape \(batch, 3, height, width\), but got \(3, 16, 16\)",
        ),
        ({"image_sizes": torch.tensor([[16, 20]])}, "image 0 to be between one patch"),
        ({"image_sizes": torch.tensor([[16, 3]])}, "image 0 to be between one patch"),
        ({"image_sizes": torch.tensor([16, 16])}, r"`image_sizes` of shape \(1, 2\)"),
        ({"original_sizes": torch.tensor([[1, 2], [3, 4]])}, r"`original_sizes` of shape \(1, 2\)"),
        ({"original_sizes": torch.tensor([[0, 2]])}, r"`original_sizes` .*positive"),
        ({"query_classes": torch.tensor([0])}, r"`query_classes` of shape \(4,\)"),
        ({"query_classes": torch.tensor([0, 1, -1, 2])}, "`query_classes` from 0 to 65535, but got -1 to 2"),
        ({"text_weight": torch.eye(3)}, r"`text_weight` of shape \(3, 5\)"),
        ({"input_ids": torch.zeros(7, dtype=torch.long)}, r"`input_ids` of shape \(texts, prompts, tokens\)"),
        ({"augmentation_weight": None}, "but got no augmentation_weight"),
        ({"augmentation_flip": torch.zeros(1, 4, 2, dtype=torch.bool)}, r"`augmentation_flip` of shape \(1, 5, 2\)"),
        ({"augmentation_blur": torch.zeros(1, 5, 4)}, "odd length"),
        ({"labels": torch.zeros(1, 8, 8, dtype=torch.long)}, r"`labels` of shape \(1, 16, 16\)"),
        ({"labels": torch.full((1, 16, 16), 3)}, "`labels` from 0 to 2, or 255 to ignore, but got 3"),
        ({"labels": torch.full((1, 16, 16), -100)}, "`labels` from 0 to 2, or 255 to ignore, but got -100"),
        (
            {"pixel_values": torch.full((1, 3, 16, 16), torch.nan)},
            "finite `pixel_values` .*, but got nan",
        ),
        ({"pixel_values": torch.full((1, 3, 16, 16), 1e36)}, "finite `pixel_values` of at most 1e.06, but got 1e.36"),
        ({"input_ids": torch.full((5, 3, 7), 99)}, "`input_ids` from 0 to 98, but got 99 to 99"),
        ({"input_ids": torch.zeros(5, 3, 78, dtype=torch.long), "attention_mask": None}, "at most 77 tokens"),
        ({"attention_mask": torch.zeros(5, 3, 7, dtype=torch.long)}, "`attention_mask.* from 1 to 1"),
        ({"original_sizes": torch.tensor([[10**5, 10**5]])}, "results of at most 268435456 pixels"),
        (
            {"pixel_values": torch.zeros(0, 3, 16, 16)},
            r"`pixel_values` with .* the shape \(0, 3, 16, 16\)",
        ),
        ({"input_ids": None, "query_embeddings": torch.zeros(4, 7)}, r"`query_embeddings` of shape \(4, 24\)"),
        (
            {"input_ids": None, "query_embeddings": torch.zeros(0, 24)},
            r"`query_embeddings` with .* \(0, 24\)",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_named(tiny_model, texts, engineering, change, message):
    inputs = {"pixel_values": _pixels(1, 3, 16, 16), **engineering, **texts, **change}
    with pytest.raises(ValueError, match=message):
        tiny_model()(**inputs)


def test_forward_without_any_vocabulary_says_what_is_missing(tiny_model):
    with pytest.raises(ValueError, match=r"a baked vocabulary, but got none of them\. Pass `text="):
        tiny_model()(_pixels(1, 3, 16, 16))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixel_values": [[1.0]]}, "`pixel_values` to be a tensor of real numbers, but got list"),
        ({"query_classes": torch.tensor([0.0, 1, 0, 2])}, r"`query_classes` .*whole numbers, but got torch\.float32"),
        ({"labels": torch.zeros(1, 16, 16)}, r"`labels` to be a tensor of whole numbers, but got torch\.float32"),
        ({"original_sizes": torch.tensor([[2.5, 3]])}, r"`original_sizes` in whole pixels, but got torch\.float32"),
    ],
)
def test_inputs_of_other_types_are_named(tiny_model, texts, change, message):
    with pytest.raises(TypeError, match=message):
        tiny_model()(**{"pixel_values": _pixels(1, 3, 16, 16), **texts, **change})


def test_the_loss_of_ignored_pixels_alone_is_zero(tiny_model, texts):
    labels = torch.full((1, 16, 16), 255)
    assert tiny_model()(pixel_values=_pixels(1, 3, 16, 16), **texts, labels=labels).loss == 0


def test_the_index_to_ignore_is_a_field_and_never_a_class(tiny_model, texts):
    model = tiny_model(semantic_loss_ignore_index=-100)
    labels = torch.randint(0, 3, (1, 16, 16), generator=torch.Generator().manual_seed(3))
    labels[:, :8] = -100
    outputs = model(pixel_values=_pixels(1, 3, 16, 16), **texts, labels=labels)
    expected = torch.nn.functional.nll_loss(outputs.logits[:, :, 8:], labels[:, 8:])
    torch.testing.assert_close(outputs.loss, expected)
    model.config.semantic_loss_ignore_index = 2
    with pytest.raises(ValueError, match="Expected no class to be ignored, but 2 is one of 3"):
        model(pixel_values=_pixels(1, 3, 16, 16), **texts, labels=labels)


def test_the_default_dtype_of_the_process_changes_nothing(tiny_model, texts, engineering):
    model, pixels = tiny_model(), _pixels(1, 3, 16, 20)
    expected = model(pixels, **engineering, **texts).logits
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        found = model(pixels, **engineering, **texts).logits
    finally:
        torch.set_default_dtype(before)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (torch.zeros_like, ValueError, "Expected `query_embeddings` that are means of unit vectors"),
        (lambda queries: queries * torch.nan, ValueError, "Expected finite `query_embeddings`"),
        (lambda queries: queries.tolist(), TypeError, "`query_embeddings` to be a tensor"),
    ],
)
def test_queries_that_are_no_embeddings_are_not_baked(tiny_model, change, error, message):
    model = tiny_model()
    queries = normalize(torch.ones(2, model.config.projection_dim), dim=-1)
    with pytest.raises(error, match=message):
        model.set_queries(change(queries), [0, 1], ["sky", "dog"])
    with pytest.raises(ValueError, match="Expected `labels` that differ"):
        model.set_queries(queries, [0, 1], ["sky", "sky"])

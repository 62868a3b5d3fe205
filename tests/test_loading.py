"""A method on a checkpoint: model and processor with its settings, whatever the folder said before."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ViTModel, logging, pipeline

from itaclip_hf import (
    ITACLIPForSemanticSegmentation,
    Settings,
    Vocabulary,
    load,
    load_method,
)
from itaclip_hf.loading import DEMO_CHECKPOINT, check_weights, choose_device
from itaclip_hf.methods import get_method, identify_method
from itaclip_hf.samples import load_demo_scene

WORDS = Vocabulary(["sky", "grass", "dog"])


@pytest.fixture
def folder(tmp_path):
    """A copy of the embedded checkpoint, to be broken."""
    return Path(shutil.copytree(DEMO_CHECKPOINT, tmp_path / "copy"))


def test_model_and_processor_get_the_methods_settings_for_the_benchmark():
    model, processor = load_method("sclip", "demo", "voc21")
    assert identify_method(Settings.of(model, processor)).name == "sclip"
    assert (model.config.similarity_scale, model.config.window_stride, model.config.pamr_steps) == (65, 112, 0)
    image_processor = processor.image_processor
    assert (image_processor.image_engineering, image_processor.closing, processor.auxiliary_weight) == (
        False,
        False,
        0,
    )
    assert (image_processor.score_threshold, image_processor.area_threshold) == (0.1, 0.1)
    assert image_processor.size["shortest_edge"] == 336
    assert not model.training


def test_overrides_of_both_kinds_win():
    model, processor = load_method("sclip", "demo", "voc21", pamr_steps=3, shortest_edge=112, score_threshold=0.2)
    assert (model.config.pamr_steps, model.config.similarity_scale) == (3, 65)
    assert (processor.image_processor.size["shortest_edge"], processor.image_processor.score_threshold) == (112, 0.2)


def test_a_saved_folder_keeps_its_method_and_takes_another_on_request(tmp_path):
    model, processor = load_method("naclip", "demo", shortest_edge=112)
    model.set_vocabulary(processor, WORDS)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert identify_method(Settings.of(*load(tmp_path))).name == "naclip"
    fields = get_method("clip").settings().held_by("config")
    changed = ITACLIPForSemanticSegmentation.from_pretrained(tmp_path, **fields)
    assert {name: getattr(changed.config, name) for name in fields} == fields
    assert load_method("maskclip", tmp_path)[1].image_processor.size["shortest_edge"] == 512


def test_pipeline_runs_a_method_from_memory_and_from_its_folder(tmp_path):
    logging.disable_progress_bar()
    model, processor = load_method("clearclip", "demo", shortest_edge=112, window_size=112, window_stride=112)
    model.set_vocabulary(processor, WORDS)
    scene = load_demo_scene(0)[0]
    segment = pipeline("image-segmentation", model=model, image_processor=processor.image_processor)
    found = segment(scene)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = pipeline("image-segmentation", model=str(tmp_path))(scene)
    logging.enable_progress_bar()
    assert [result["label"] for result in found] == [result["label"] for result in again]
    assert {result["label"] for result in found} <= set(WORDS.labels)
    with torch.inference_mode():
        outputs = model(**processor(images=scene, return_tensors="pt"))
    labels = processor.post_process_semantic_segmentation(outputs)[0]
    assert len(found) == len(labels.unique())


def test_a_benchmark_without_a_method_has_the_settings_of_the_checkpoints_own(tmp_path):
    assert Settings.of(*load("demo", benchmark="voc21")) == get_method("itaclip").settings("voc21")
    model, processor = load_method("sclip", "demo", window_stride=56, score_threshold=0.7)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    found = Settings.of(*load(tmp_path, benchmark="cityscapes"))
    assert found == get_method("sclip").settings("cityscapes").replace(window_stride=56)


def test_presets_and_settings_win_over_methods():
    found = Settings.of(*load("demo", method="naclip", preset="fast", settings={"pamr_dilations": [4]}))
    assert found == get_method("naclip").settings().replace(window_stride=112, pamr_dilations=(4,))


def test_a_vocabulary_is_baked():
    model, _ = load("demo", WORDS)
    assert [*model.config.id2label.values()] == WORDS.labels


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"Expected a method out of clip, .*, but got 'nclip'"):
        load_method("nclip", "demo")
    with pytest.raises(ValueError, match=r"Expected settings out of attention_maps, .*closing, but got pamr"):
        load_method("naclip", "demo", pamr=3)
    with pytest.raises(ValueError, match=r"Expected a benchmark out of .*, but got 'voc'"):
        load_method("naclip", "demo", "voc")
    with pytest.raises(ValueError, match="Expected `auxiliary_weight` to be a number from 0 to 1, but got 2"):
        load_method("naclip", "demo", auxiliary_weight=2)
    with pytest.raises(ValueError, match=r"Expected a dtype out of auto, .*, but got 'float8'"):
        load("demo", dtype="float8")


@pytest.mark.parametrize("name", ["gpu", "cuda:7", "meta", "mps", "xpu"])
def test_devices_that_are_not_there_are_named(name):
    with pytest.raises(ValueError, match=f"Expected a device of this machine, such as 'cpu'.*, but got '{name}'"):
        choose_device(name)


def test_a_folder_without_its_tokenizer_is_refused(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises((OSError, ValueError), match="tokenizer"):
        load(folder)


def test_the_tokenizer_of_another_model_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 7
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="Expected the tokenizer that goes with the text tower"):
        load(folder)


def test_merges_that_are_cut_are_refused(folder):
    """Every name would still have tokens, but other ones."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    merges = [" ".join(pair) for pair in tokenizer["model"]["merges"]]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(tokenizer["model"]["vocab"]))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    load(folder)
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges[: len(merges) // 2]]))
    with pytest.raises(
        ValueError, match=r"tokenizer whose merges make all of its 2048 entries, but .* lacks 767, such"
    ):
        load(folder)


def test_missing_weights_are_refused(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("visual_projection.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"Expected a CLIP ViT checkpoint, but .* lacks 1 weights"):
        load(folder)


def rewrite_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("visual_projection.weight", torch.zeros_like, "visual_projection.weight holds whole numbers"),
        ("visual_projection.weight", lambda weight: (weight * 99).to(torch.int8), "holds whole numbers"),
        ("visual_projection.weight", lambda weight: weight > 0, "holds whole numbers"),
        ("text_model.final_layer_norm.bias", lambda weight: weight * torch.nan, r"bias holds numbers beyond 1e\+06"),
        ("logit_scale", lambda weight: weight + torch.inf, "logit_scale holds numbers beyond"),
        ("text_projection.weight", lambda weight: torch.full_like(weight, 0.3), "holds one number alone"),
        ("vision_model.post_layernorm.weight", torch.zeros_like, "post_layernorm.weight holds zeros"),
        ("visual_projection.weight", lambda weight: weight.repeat(2, 1), "has in other shapes 1 weights"),
    ],
)
def test_weights_that_cannot_be_right_are_refused(folder, name, change, message):
    rewrite_weights(folder, lambda tensors: {**tensors, name: change(tensors[name])})
    with pytest.raises(ValueError, match=rf"Expected .*{message}.* [Gg]et "):
        load(folder)


@pytest.mark.parametrize(
    "change",
    [
        torch.zeros_like,
        torch.ones_like,
        lambda queries: queries * torch.nan,
        lambda queries: queries[:1].expand_as(queries).contiguous(),
    ],
)
def test_baked_queries_that_are_no_embeddings_are_refused(folder, change):
    model = load(folder, Vocabulary(["sky", "dog"])).model
    model.save_pretrained(folder)
    rewrite_weights(folder, lambda tensors: {**tensors, "query_embeddings": tensors["query_embeddings"] * 0.3})
    load(folder)  # as of a text that is a mean of many
    rewrite_weights(folder, lambda tensors: {**tensors, "query_embeddings": change(tensors["query_embeddings"])})
    with pytest.raises(ValueError, match="query_embeddings holds no embeddings of texts"):
        load(folder)


def test_the_weights_of_a_proxy_are_looked_at_too(proxy):
    backbone = ViTModel.from_pretrained(proxy)
    load("demo", method="proxyclip", proxy=backbone, device="cpu")
    backbone.layernorm.weight.data.zero_()
    with pytest.raises(ValueError, match=r"layernorm\.weight holds zeros"):
        load("demo", method="proxyclip", proxy=backbone, device="cpu")


def test_a_part_without_entries_is_no_flaw():
    part = torch.nn.ParameterDict({"register_tokens": torch.nn.Parameter(torch.zeros(1, 0, 8))})
    check_weights(torch.nn.ModuleList([part, torch.nn.Linear(4, 4)]))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_are_looked_at_in_every_number_format(dtype):
    assert str(load("demo", dtype=dtype, device="cpu").model.dtype) == f"torch.{dtype}"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer. Run"),
        ("model.safetensors", b"", r"its model cannot be read \(.*\). Check the name, or get the files anew"),
        ("config.json", b"", "Expected JSON, but .*config.json is none"),
        ("config.json", b"[]", "Expected a JSON object, but .*config.json holds a value of type list"),
        ("preprocessor_config.json", b"null", "preprocessor_config.json holds a value of type NoneType"),
        ("tokenizer.json", b'{"model": 3}', "its processor cannot be read"),
    ],
)
def test_a_broken_file_is_named(folder, name, content, message):
    (folder / name).write_bytes(content)
    with pytest.raises(OSError, match=message):
        load(folder)


def test_a_folder_without_its_configuration_is_refused(folder):
    (folder / "config.json").unlink()
    with pytest.raises(OSError, match=r"Expected a checkpoint in .*, but it has no config\.json"):
        load(folder)


@pytest.mark.parametrize("name", ["/no/such/folder", "./no-such", "models/clip/large", __file__])
def test_a_path_that_is_no_folder_is_not_taken_for_a_hub_id(name):
    with pytest.raises(OSError, match=r"Expected the folder of a checkpoint, but '.*' is none"):
        load(name)


def test_texts_are_bounded_by_the_positions_of_the_text_tower(folder):
    about = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**about, "model_max_length": 512}))
    model, processor = load(folder)
    assert processor.tokenizer.model_max_length == model.config.text_config.max_position_embeddings == 77


def test_what_is_no_vocabulary_or_no_settings_is_refused():
    with pytest.raises(TypeError, match="Expected `vocabulary` to be a Vocabulary, but got list"):
        load("demo", ["dog"])
    with pytest.raises(TypeError, match="Expected `settings` by name, but got list"):
        load("demo", settings=[3])

"""A method on a checkpoint: model and processor with its settings, whatever the folder said before."""

import pytest
import torch
from itaclip_hf.demo import DEMO_CHECKPOINT
from itaclip_hf.method_loading import set_processor_fields
from transformers import logging, pipeline

from itaclip_hf import (
    ITACLIPForSemanticSegmentation,
    ITACLIPImageProcessor,
    ITACLIPProcessor,
    Vocabulary,
    load_method,
)
from itaclip_hf.modeling import get_method
from itaclip_hf.samples import load_demo_scene

WORDS = Vocabulary(["sky", "grass", "dog"])


@pytest.fixture
def processor():
    return ITACLIPProcessor.from_pretrained(DEMO_CHECKPOINT)


def test_model_and_processor_get_the_methods_settings_for_the_benchmark():
    model, processor = load_method("sclip", "demo", "voc21")
    assert model.config.identify_method().name == "sclip"
    assert (model.config.similarity_scale, model.config.window_stride, model.config.pamr_steps) == (65, 112, 0)
    image_processor = processor.image_processor
    assert (image_processor.image_engineering, image_processor.closing, processor.auxiliary_weight) == (
        False,
        False,
        0,
    )
    assert (image_processor.score_threshold, image_processor.area_threshold) == (0.1, None)
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
    kept = ITACLIPForSemanticSegmentation.from_pretrained(tmp_path)
    assert kept.config.identify_method().name == "naclip"
    fields = get_method("clip").config_fields()
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


@pytest.mark.parametrize("size", [{"shortest_edge": 20}, {"height": 20, "width": 30}])
def test_the_shortest_edge_takes_the_place_of_a_fixed_size(processor, size):
    processor.image_processor = ITACLIPImageProcessor(size=size)
    set_processor_fields(processor, {"shortest_edge": 30})
    assert processor.image_processor.to_dict()["size"] == {"shortest_edge": 30}


def test_the_longest_edge_stays(processor):
    processor.image_processor = ITACLIPImageProcessor(size={"shortest_edge": 20, "longest_edge": 50})
    set_processor_fields(processor, {"shortest_edge": 30})
    assert processor.image_processor.to_dict()["size"] == {"shortest_edge": 30, "longest_edge": 50}


def test_mistakes_are_named(processor):
    with pytest.raises(ValueError, match=r"Expected a method out of clip, .*, but got 'nclip'"):
        load_method("nclip", "demo")
    with pytest.raises(ValueError, match=r"Expected fields out of attention_maps, .*closing, but got pamr"):
        load_method("naclip", "demo", pamr=3)
    with pytest.raises(ValueError, match=r"Expected a benchmark out of .*, but got 'voc'"):
        load_method("naclip", "demo", "voc")
    with pytest.raises(ValueError, match="Expected `auxiliary_weight` between 0 and 1, but got 2"):
        set_processor_fields(processor, {"auxiliary_weight": 2})

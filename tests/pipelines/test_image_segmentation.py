"""Transformers' own task with our models: words are refused, scores are there, batches are of any sizes."""

import sys

import numpy as np
import pytest
import torch
from transformers import (
    AutoImageProcessor,
    CLIPConfig,
    CLIPModel,
    ImageSegmentationPipeline,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    pipeline,
)

from itaclip_hf import ITACLIPForSemanticSegmentation, ITACLIPImageProcessor, Vocabulary, load
from itaclip_hf.pipelines.image_segmentation import ITACLIPImageSegmentationPipeline
from itaclip_hf.samples import load_demo_scene

TASK = "image-segmentation"
SMALL = {"shortest_edge": 64, "window_size": 0, "image_engineering": False, "pamr_steps": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("baked")
    for part in load("demo", Vocabulary(["sky", "grass", "dog"]), settings=SMALL, device="cpu"):
        part.save_pretrained(place)
    return str(place)


@pytest.fixture(scope="module")
def images():
    scene = load_demo_scene(0)[0]
    return [scene, scene.resize((90, 130)), scene.crop((100, 100, 300, 200)), scene]


def show(found):
    return [(each["label"], round(each["score"], 4), np.asarray(each["mask"]).tobytes()) for each in found]


@pytest.mark.parametrize("batch_size", [2, 3, 4])
def test_batches_of_any_sizes_come_out_as_one_by_one(folder, images, batch_size):
    segmenter = pipeline(TASK, model=folder, device="cpu")
    assert isinstance(segmenter, ITACLIPImageSegmentationPipeline)
    expected = [show(segmenter(image)) for image in images]
    assert all(0 < score <= 1 for found in expected for _, score, _ in found)
    assert [show(found) for found in segmenter(images, batch_size=batch_size)] == expected
    from_generator = segmenter((image for image in images), batch_size=batch_size)
    assert [found[0]["mask"].size for found in from_generator] == [image.size for image in images]


@pytest.mark.parametrize("name", ["candidate_labels", "text", "background", "pamr_steps", "treshold"])
def test_what_the_task_would_drop_is_refused_in_a_call_and_when_made(folder, images, name):
    message = rf"Expected arguments out of subtask, .* but got {name}\. Take `pipeline\('zero-shot-image-segment"
    segmenter = pipeline(TASK, model=folder, device="cpu")
    with pytest.raises(TypeError, match=message):
        segmenter(images[0], **{name: ["cat"]})
    with pytest.raises(TypeError, match=message):
        pipeline(TASK, model=folder, device="cpu", **{name: ["cat"]})


@pytest.mark.parametrize(
    ("value", "error"), [("0.5", TypeError), (True, TypeError), (float("nan"), ValueError), (2, ValueError)]
)
def test_a_threshold_is_a_number_from_0_to_1(folder, images, value, error):
    with pytest.raises(error, match=f"Expected `threshold` to be a number from 0 to 1, but got {value!r}"):
        pipeline(TASK, model=folder, device="cpu")(images[0], threshold=value)


def test_no_images_and_files_of_any_kind(folder, images, tmp_path):
    segmenter = pipeline(TASK, model=folder, device="cpu")
    assert segmenter([]) == []
    images[0].save(tmp_path / "one.png")
    assert show(segmenter(str(tmp_path / "one.png"))) == show(segmenter(images[0]))
    with pytest.raises(ValueError, match="Incorrect image source"):
        segmenter("none.png")


def test_a_stock_clip_is_refused_with_the_task_that_takes_it(tmp_path, folder):
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    clip = CLIPModel(CLIPConfig(text_config=tower, vision_config={**tower, "image_size": 32, "patch_size": 16}))
    clip.save_pretrained(tmp_path)
    processor = AutoImageProcessor.from_pretrained(folder)
    for model in (clip, str(tmp_path)):
        with pytest.raises(TypeError, match=r'but got a CLIP.*Take `pipeline\("zero-shot-image-segmentation", model='):
            pipeline(TASK, model=model, image_processor=processor, device="cpu")


def test_threshold_leaves_classes_out(folder, images):
    segmenter = pipeline(TASK, model=folder, device="cpu")
    found = segmenter(images[0])
    middle = sum(sorted(each["score"] for each in found)[:2]) / 2
    kept = [each["label"] for each in found if each["score"] >= middle]
    assert 0 < len(kept) < len(found)
    assert [each["label"] for each in segmenter(images[:2], batch_size=2, threshold=middle)[0]] == kept
    assert show(segmenter(images[0], threshold=0)) == show(segmenter(images[0], threshold=None)) == show(found)


def test_a_threshold_of_transformers_default_counts_where_it_is_given(folder, images):
    found = pipeline(TASK, model=folder, device="cpu")(images[0])
    kept = [each for each in found if each["score"] >= 0.9]
    assert len(kept) < len(found)  # or the test tells nothing
    assert show(pipeline(TASK, model=folder, device="cpu")(images[0], threshold=0.9)) == show(kept)
    assert show(pipeline(TASK, model=folder, device="cpu", threshold=0.9)(images[0])) == show(kept)


@pytest.mark.parametrize("subtask", ["panoptic", "semantic"])
def test_both_subtasks_give_scores_and_heed_the_threshold(folder, images, subtask):
    segmenter = pipeline(TASK, model=folder, device="cpu")
    assert show(segmenter(images[0], subtask=subtask)) == show(segmenter(images[0]))
    assert segmenter(images[0], subtask=subtask, threshold=1.0) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"subtask": "instance"}, "Expected `subtask` to be panoptic or semantic, .* but got 'instance'"),
        ({"mask_threshold": 0.7}, "Expected no `mask_threshold`, as every pixel has one class, but got 0.7"),
        ({"overlap_mask_area_threshold": 0}, "Expected no `overlap_mask_area_threshold`, as .* but got 0. Leave"),
    ],
)
def test_values_that_would_be_ignored_are_refused_in_a_call_and_when_made(folder, images, given, message):
    with pytest.raises(ValueError, match=message):
        pipeline(TASK, model=folder, device="cpu")(images[0], **given)
    with pytest.raises(ValueError, match=message):
        pipeline(TASK, model=folder, device="cpu", **given)


@pytest.fixture
def segformer():
    torch.manual_seed(0)
    sizes = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16], "decoder_hidden_size": 8}
    return SegformerForSemanticSegmentation(SegformerConfig(**sizes, num_labels=2)).eval()


def test_models_of_others_get_transformers_own_pipeline(segformer, folder, images):
    processor = AutoImageProcessor.from_pretrained(folder)
    made = pipeline(TASK, model=segformer, image_processor=processor, device="cpu")
    assert type(made) is ImageSegmentationPipeline and made.task == TASK


def test_a_fault_of_ours_leaves_the_task_to_transformers(segformer, folder, images, monkeypatch):
    monkeypatch.setitem(sys.modules, "itaclip_hf.pipelines.image_segmentation", None)
    made = pipeline(TASK, model=segformer, image_processor=AutoImageProcessor.from_pretrained(folder), device="cpu")
    assert type(made) is ImageSegmentationPipeline


def test_weights_that_cannot_be_right_are_refused(folder, tmp_path):
    model = ITACLIPForSemanticSegmentation.from_pretrained(folder)
    model.vision_model.post_layernorm.weight.data.zero_()
    with pytest.raises(ValueError, match=r"post_layernorm\.weight holds zeros"):
        pipeline("image-segmentation", model=model, image_processor=ITACLIPImageProcessor())


def test_what_is_for_the_model_is_not_for_its_processor(folder, images):
    segmenter = pipeline("image-segmentation", model=str(folder), model_kwargs={"window_stride": 16})
    assert segmenter.model.config.window_stride == 16

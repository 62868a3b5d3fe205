"""A user's program: `test_packaging.py` has mypy check it, in strict mode; an ignored error that is none is one."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_base import BatchFeature
from transformers.image_processing_outputs import SemanticSegmentationPostProcessorOutput
from typing_extensions import assert_type

import itaclip_hf
from itaclip_hf import (
    ITACLIPConfig,
    ITACLIPForSemanticSegmentation,
    ITACLIPImageProcessor,
    ITACLIPProcessor,
    Settings,
    Vocabulary,
    ZeroShotImageSegmentationPipeline,
    evaluation,
    explain,
    load,
    load_demo,
    load_method,
    make_model_card,
    pipeline,
    save_with_code,
)
from itaclip_hf.drawing import draw_overlay, make_palette
from itaclip_hf.evaluation import ITACLIPPredictor, LabelMapping, RunOptions, load_folder_dataset, run_evaluation
from itaclip_hf.explaining import Explanation
from itaclip_hf.methods import Method, get_method, method_names, register_method
from itaclip_hf.modeling import ITACLIPLabelMapsOutput, register_attention_map
from itaclip_hf.processing import read_rgb_image
from itaclip_hf.samples import load_demo_scene

words = Vocabulary(["cat", ["dog", "puppy"]], background=["sky", "wall"])
words = words.with_auxiliary_texts({"cat": "a small pet that purrs"})
assert_type(words.labels, list[str])
assert_type(Vocabulary.from_text("cat; dog, puppy"), Vocabulary)
Vocabulary(3)  # type: ignore[arg-type]


def load_all(place: Path) -> tuple[ITACLIPForSemanticSegmentation, ITACLIPProcessor]:
    """Every way to a model and a processor."""
    model, processor = load_demo()
    assert_type(model, ITACLIPForSemanticSegmentation)
    assert_type(processor, ITACLIPProcessor)
    assert_type(ITACLIPForSemanticSegmentation.from_pretrained(place, pamr_steps=0), ITACLIPForSemanticSegmentation)
    assert_type(ITACLIPProcessor.from_pretrained(place), ITACLIPProcessor)
    assert_type(ITACLIPImageProcessor.from_pretrained(place), ITACLIPImageProcessor)
    assert_type(load("demo", words, method="naclip", settings={"pamr_steps": 0}).model, ITACLIPForSemanticSegmentation)
    assert_type(load_method("sclip", place, "voc21", window_stride=56).processor, ITACLIPProcessor)
    assert_type(load_method("clip-diy", place).set_vocabulary(words), evaluation.System)
    load(vocabulary="cat")  # type: ignore[arg-type]
    print(load_demo().weights)  # type: ignore[attr-defined]
    return model, processor


def segment(model: ITACLIPForSemanticSegmentation, processor: ITACLIPProcessor, image: Image.Image) -> torch.Tensor:
    """The model's two ways to label maps."""
    inputs = processor(images=image, vocabulary=words, return_tensors="pt")
    assert_type(inputs, BatchFeature)
    with torch.inference_mode():
        outputs = model(**inputs)
    maps = processor.post_process_semantic_segmentation(outputs, target_sizes=[(image.height, image.width)])
    assert_type(maps, list[torch.Tensor])
    scored = processor.post_process_semantic_segmentation(outputs, return_segmentation_scores=True)
    assert_type(scored, list[SemanticSegmentationPostProcessorOutput])
    found = model.predict_labels(processor, **inputs)
    assert_type(found, ITACLIPLabelMapsOutput)
    assert_type(found.labels, list[torch.Tensor])
    assert_type(found.confidence, list[torch.Tensor])
    assert_type(model.predict_regions(processor, **inputs).regions, list[list[dict[str, Any]]])
    print(found.label)  # type: ignore[attr-defined]
    return found.labels[0]


def bake_and_save(model: ITACLIPForSemanticSegmentation, processor: ITACLIPProcessor, place: Path) -> None:
    """Words into the model, and the model into folders."""
    model.set_vocabulary(processor, words)
    assert_type(model.config, ITACLIPConfig)
    assert_type(model.config.id2label, dict[int, str])
    assert_type(model.config.intermediate_layers, tuple[int, ...])
    assert_type(processor.image_processor, ITACLIPImageProcessor)
    model.save_pretrained(place)
    processor.save_pretrained(place)
    save_with_code(place, model, processor)
    make_model_card(model, processor, place).save(place / "README.md")


def choose_settings(model: ITACLIPForSemanticSegmentation, processor: ITACLIPProcessor) -> Settings:
    """Settings are typed by name."""
    settings = Settings.of(model, processor).replace(window_stride=56)
    assert_type(settings, Settings)
    assert_type(settings.area_threshold, float | None)
    settings.apply(model, processor)
    Settings(pamr_steps="ten")  # type: ignore[arg-type]
    Settings(pamr_step=10)  # type: ignore[call-arg]
    return settings


def ask_the_pipeline(image: Image.Image) -> list[str]:
    """The package's own task, and Transformers' by its name."""
    segmenter = pipeline(model="demo", preset="fast")
    assert_type(segmenter, ZeroShotImageSegmentationPipeline)
    assert_type(pipeline("zero-shot-image-segmentation", "demo"), ZeroShotImageSegmentationPipeline)
    masks: list[dict[str, Any]] = segmenter(image, candidate_labels=["cat", ["dog", "puppy"]])
    return [str(mask["label"]) for mask in masks]


def look_and_draw(model: ITACLIPForSemanticSegmentation, processor: ITACLIPProcessor, path: Path) -> Image.Image:
    """Explanations, samples and pictures."""
    image = read_rgb_image(path)
    assert_type(image, Image.Image)
    why = explain(image, model, processor, words, at=(10, 20))
    assert_type(why, Explanation)
    assert_type(why.omissions[0].text, str)
    scene, truth = load_demo_scene(0)
    overlay = draw_overlay(np.asarray(scene), truth, make_palette())
    assert_type(overlay, Image.Image)
    return overlay


def evaluate_all(model: ITACLIPForSemanticSegmentation, processor: ITACLIPProcessor, place: Path) -> float:
    """A folder of images and labels, the runner, the report and the metric."""
    dataset = load_folder_dataset(place / "images", place / "labels", LabelMapping.shifted(3, first=0))
    predictor = ITACLIPPredictor(model, processor, words)
    result = run_evaluation(dataset, predictor, place / "progress", RunOptions(batch_size=2))
    assert_type(result, evaluation.EvaluationResult)
    report = evaluation.evaluate_and_report(dataset, predictor, place, "ours", evaluation.get_benchmark("voc21"))[1]
    assert_type(report, dict[str, Any])
    run_evaluation(dataset, model, place)  # type: ignore[arg-type]
    metric = evaluation.MeanIoU(num_labels=3)
    metric.add_batch(predictions=[], references=[])
    return result.images_per_second


register_method(Method("mine", "Mine", "none", {"last_residual": False}), exist_ok=True)
assert_type(get_method("mine").settings("voc21"), Settings)
assert_type(method_names(), tuple[str, ...])
register_method("mine")  # type: ignore[arg-type]
register_attention_map("mine", lambda context, projections, values: values)
assert_type(itaclip_hf.__version__, str)
itaclip_hf.load_demos()  # type: ignore[attr-defined]

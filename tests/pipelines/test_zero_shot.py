"""The task "zero-shot-image-segmentation": words of each call, batches of any sizes, masks and scores."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset as TorchDataset
from transformers import CLIPConfig, CLIPModel, pipeline

import itaclip_hf
from itaclip_hf import ITACLIPForSemanticSegmentation, Settings, Vocabulary, ZeroShotImageSegmentationPipeline, load
from itaclip_hf.loading import DEMO_CHECKPOINT
from itaclip_hf.samples import load_demo_scene

TASK = "zero-shot-image-segmentation"
SMALL = {"shortest_edge": 64, "window_size": 0, "image_engineering": False, "pamr_steps": 0}
WORDS = ["sky", ["grass", "meadow"], "dog"]


@pytest.fixture(scope="module")
def scene():
    return load_demo_scene(0)[0]


@pytest.fixture(scope="module")
def demo():
    return load("demo")


@pytest.fixture
def segmenter(demo):
    return ZeroShotImageSegmentationPipeline(*demo, task=TASK, device="cpu", **SMALL)


@pytest.fixture(scope="module")
def stock_folder(tmp_path_factory):
    """A tiny CLIP as Transformers and OpenAI save it, with the embedded checkpoint's tokenizer."""
    path = tmp_path_factory.mktemp("stock")
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 12}
    embedded = json.loads((DEMO_CHECKPOINT / "config.json").read_text())["text_config"]
    ids = {name: embedded[name] for name in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")}
    vision = {**tower, "image_size": 32, "patch_size": 16}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config={**tower, **ids}, vision_config=vision, projection_dim=24)).save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO_CHECKPOINT / name, path)
    fields = {"image_processor_type": "CLIPImageProcessor", "size": 224, "crop_size": 224, "do_center_crop": True}
    (path / "preprocessor_config.json").write_text(json.dumps(fields))
    return path


def show(found):
    """Comparable content of masks."""
    return [(each["label"], each["score"], np.asarray(each["mask"]).tobytes()) for each in found]


def test_masks_and_scores_are_those_of_the_models_scores(segmenter, demo, scene):
    texts = {"dog": "a loyal pet", "sky": ["what is above", "clouds"]}
    found = segmenter(scene, WORDS, background=["road", "wall"], definitions=texts)
    model, processor = load("demo", settings=SMALL)
    inputs = processor(
        images=scene, text=WORDS, background=["road", "wall"], auxiliary_text=texts, return_tensors="pt"
    )
    with torch.inference_mode():
        outputs = model(**inputs)
    labels = processor.post_process_semantic_segmentation(outputs)[0].numpy()
    best = outputs.logits[0].exp().amax(0).double().numpy()
    names = ["background", "sky", "grass", "dog"]
    assert [each["label"] for each in found] == [names[index] for index in np.unique(labels)]
    assert len(found) > 1
    for each in found:
        mask = labels == names.index(each["label"])
        assert each["score"] == pytest.approx(best[mask].mean(), abs=1e-6)
        assert each["mask"].mode == "L" and np.array_equal(np.asarray(each["mask"]), mask * np.uint8(255))


class Images(TorchDataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_images_of_any_sizes_come_out_as_one_by_one_however_they_are_given(segmenter, scene, batch_size, tmp_path):
    images = [scene, scene.resize((90, 130)), scene.crop((100, 100, 300, 200))]
    scene.save(tmp_path / "scene.png")
    expected = [show(segmenter(image, WORDS)) for image in images]
    assert len({len(mask) for of_image in expected for *_, mask in of_image}) == 3
    rows = Dataset.from_dict({"image": images, "number": [0, 1, 2]})
    given = {
        "list": images,
        "tuple": tuple(images),
        "paths and arrays": [str(tmp_path / "scene.png"), np.asarray(images[1]), images[2]],
        "generator": (image for image in images),
        "torch's data set": Images(images),
        "data set": rows,
        "iterable data set": rows.to_iterable_dataset(),
    }
    for kind, inputs in given.items():
        assert [show(found) for found in segmenter(inputs, WORDS, batch_size=batch_size)] == expected, kind
    assert segmenter([], WORDS) == []


def test_workers_prepare_images(segmenter, scene):
    assert [show(found) for found in segmenter([scene] * 2, WORDS, num_workers=1)] == [
        show(segmenter(scene, WORDS))
    ] * 2


def test_the_map_is_the_models_labels_and_confidence(segmenter, scene):
    found = segmenter(scene, WORDS, output="map")
    model, processor = load("demo", settings=SMALL)
    labels, confidence = model.predict_labels(processor, **processor(images=scene, text=WORDS, return_tensors="pt"))
    assert torch.equal(found["labels"], labels[0])
    torch.testing.assert_close(found["confidence"], confidence[0], rtol=0, atol=1e-6)
    assert found["id2label"] == {0: "sky", 1: "grass", 2: "dog"}


def test_the_runner_up_is_second_in_the_models_scores(segmenter, demo, scene):
    found = segmenter(scene, WORDS, output="map", runner_up=True)
    model, processor = load("demo", settings=SMALL)
    with torch.inference_mode():
        scores = model(**processor(images=scene, text=WORDS, return_tensors="pt")).logits[0].exp()
    scores = scores.scatter(0, found["labels"][None], 0)
    assert torch.equal(found["runner_up"], scores.argmax(0))
    assert torch.allclose(found["runner_up_confidence"], scores.amax(0), atol=1e-6)
    alone = segmenter(scene, ["sky"], output="map", runner_up=True)
    assert (alone["runner_up"] == -1).all() and not alone["runner_up_confidence"].any()


def test_unsure_pixels_are_background_where_there_is_one_and_nothing_elsewhere(segmenter, scene):
    sure = segmenter(scene, WORDS, output="map")
    lowest = float(sure["confidence"].quantile(0.5))
    unsure = sure["confidence"] < lowest
    found = segmenter(scene, WORDS, output="map", threshold=lowest)
    assert torch.equal(found["labels"], sure["labels"].masked_fill(unsure, -1))
    masks = segmenter(scene, WORDS, threshold=lowest)
    assert sum(np.count_nonzero(each["mask"]) for each in masks) == int((~unsure).sum())

    sure = segmenter(scene, WORDS, background=["road"], output="map")
    lowest = float(sure["confidence"].quantile(0.5))
    found = segmenter(scene, WORDS, background=["road"], output="map", threshold=lowest)
    assert torch.equal(found["labels"], sure["labels"].masked_fill(sure["confidence"] < lowest, 0))
    assert found["id2label"][0] == "background"


def test_method_preset_and_settings_of_a_call_leave_the_model_as_it_was(demo, scene):
    segmenter = ZeroShotImageSegmentationPipeline(*demo, device="cpu")
    before = Settings.of(*demo)
    asked = {"method": "naclip", "preset": "live", "shortest_edge": 64}
    found = segmenter(scene, WORDS, output="map", **asked)
    assert Settings.of(*demo) == before and demo.model.vision_model.itaclip_config is demo.model.config
    model, processor = load("demo", Vocabulary(WORDS), method="naclip", preset="live", settings={"shortest_edge": 64})
    expected = model.predict_labels(processor, **processor(images=scene, return_tensors="pt"))
    assert torch.equal(found["labels"], expected.labels[0])
    assert torch.allclose(found["confidence"], expected.confidence[0], atol=1e-5)


def test_the_preset_live_is_one_encoder_pass(demo, scene):
    passes = []
    hook = demo.model.vision_model.register_forward_pre_hook(
        lambda module, arguments: passes.append(tuple(arguments[0].shape))
    )
    ZeroShotImageSegmentationPipeline(*demo, device="cpu", preset="live")(scene, WORDS)
    hook.remove()
    assert passes == [(1, 3, 336, 448)]


def test_a_generator_keeps_the_settings_that_it_was_begun_with(segmenter, scene):
    first = segmenter((scene for _ in range(2)), ["sky", "dog"], output="map")
    assert next(iter(first))["id2label"] == {0: "sky", 1: "dog"}
    segmenter(scene, ["grass", "road"], shortest_edge=80)
    again = segmenter(scene, ["sky", "dog"], output="map")
    assert torch.equal(next(first)["confidence"], again["confidence"])


def test_words_are_embedded_once(segmenter, demo, scene, monkeypatch):
    calls = []
    encode = ITACLIPForSemanticSegmentation.encode_vocabulary
    monkeypatch.setattr(
        ITACLIPForSemanticSegmentation,
        "encode_vocabulary",
        lambda self, *arguments: calls.append(arguments[1]) or encode(self, *arguments),
    )
    monkeypatch.setattr("itaclip_hf.pipelines.zero_shot.KEPT_VOCABULARIES", 2)
    for words in (WORDS, WORDS, list(WORDS), ["sky"], ["sky", "dog"], WORDS):
        segmenter(scene, words)
    assert [vocabulary.labels for vocabulary in calls] == [
        ["sky", "grass", "dog"],
        ["sky"],
        ["sky", "dog"],
        ["sky", "grass", "dog"],
    ]
    # The share of definitions is part of what is embedded.
    for share in (0.2, 0.9, 0.9):
        segmenter(scene, ["sky"], definitions=["blue"], auxiliary_weight=share)
    assert len(calls) == 6


def test_words_and_settings_may_be_given_once_and_a_call_wins(demo, scene):
    segmenter = ZeroShotImageSegmentationPipeline(
        *demo, device="cpu", candidate_labels=["sky"], output="map", batch_size=2, **SMALL
    )
    assert segmenter(scene)["id2label"] == {0: "sky"}
    assert segmenter(scene, ["dog"])["id2label"] == {0: "dog"}
    assert segmenter(scene, Vocabulary(["cat"], ["road"]))["id2label"] == {0: "background", 1: "cat"}


def test_a_stock_checkpoint_becomes_a_segmenter(stock_folder, scene):
    segmenter = pipeline(TASK, model=str(stock_folder), device="cpu", preset="live", shortest_edge=64)
    assert type(segmenter) is ZeroShotImageSegmentationPipeline
    assert type(segmenter.model) is ITACLIPForSemanticSegmentation
    found = segmenter(scene, candidate_labels=["sky", "dog"], output="map")
    model, processor = load(stock_folder, Vocabulary(["sky", "dog"]), preset="live", settings={"shortest_edge": 64})
    expected = model.predict_labels(processor, **processor(images=scene, return_tensors="pt"))
    assert torch.allclose(found["confidence"], expected.confidence[0], atol=1e-5)


@pytest.mark.parametrize("flaw", ["missing", "zero"])
def test_weights_are_checked_as_by_the_loader(stock_folder, tmp_path, flaw):
    shutil.copytree(stock_folder, tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    if flaw == "missing":
        del weights["visual_projection.weight"]
    else:
        weights["visual_projection.weight"].zero_()
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights, among them vis|trained weights in .*visual_projection"):
        pipeline(TASK, model=str(tmp_path), device="cpu")


def test_a_saved_pipeline_is_a_folder_for_both_tasks(demo, scene, tmp_path):
    made = itaclip_hf.pipeline(model="demo", device="cpu")
    assert made.task == TASK
    Settings().replace(**SMALL, auxiliary_weight=0.5).apply(made.model, made.processor)
    made.model.set_vocabulary(made.processor, Vocabulary(WORDS, ["road"]))
    made.save_pretrained(tmp_path)
    assert "custom_pipelines" not in json.loads((tmp_path / "config.json").read_text())
    loaded = pipeline(TASK, model=str(tmp_path), device="cpu")
    assert loaded.processor.auxiliary_weight == 0.5
    found = loaded(scene)
    assert [each["label"] for each in loaded(scene, ["cat"])] == ["cat"]
    ordinary = pipeline("image-segmentation", model=str(tmp_path), device="cpu")
    for threshold in ({}, {"threshold": 0.5}):
        kept = [each for each in found if each["score"] >= threshold.get("threshold", 0)]
        others = ordinary(scene, **threshold)
        assert [each["label"] for each in others] == [each["label"] for each in kept]
        assert [each["score"] for each in others] == pytest.approx([each["score"] for each in kept], abs=1e-4)
        assert all(np.array_equal(a["mask"], b["mask"]) for a, b in zip(others, kept, strict=True))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "Expected `candidate_labels`, or a model with a baked vocabulary, but got neither"),
        ({"candidate_labels": "cat, dog"}, TypeError, "Expected `candidate_labels` as a list of names, but got 'cat"),
        ({"foo": 1, "treshold": 0.2}, TypeError, "Expected the argument `threshold`, but got `treshold`. Correct"),
        (
            {"candidate_label": ["cat"]},
            TypeError,
            "Expected the argument `candidate_labels`, but got `candidate_label`",
        ),
        ({"candidate_labels": []}, ValueError, "Expected at least one class"),
        ({"text": ["cat"]}, TypeError, "Expected arguments out of candidate_labels, .* but got text"),
        ({"background": ["sky"]}, ValueError, "Expected `background` and `definitions` with a list"),
        ({"candidate_labels": ["cat"], "output": "maps"}, ValueError, "Expected `output` to be 'masks' or 'map'"),
        ({"candidate_labels": ["cat"], "runner_up": True}, ValueError, "Expected `runner_up` with `output=.map.`"),
        ({"candidate_labels": ["cat"], "preset": "slow"}, ValueError, "Expected a preset out of paper"),
        ({"candidate_labels": ["cat"], "method": "slow"}, ValueError, "Expected a method out of clip"),
        (
            {"candidate_labels": ["cat"], "threshold": 2},
            ValueError,
            "Expected `threshold` to be a number from 0 to 1, but got 2",
        ),
        ({"candidate_labels": ["cat"], "threshold": float("nan")}, ValueError, "Expected `threshold` .* but got nan"),
        ({"candidate_labels": ["cat"], "threshold": "0.5"}, TypeError, "Expected `threshold` .* but got '0.5'"),
        (
            {"candidate_labels": ["cat"], "output": "map", "runner_up": "no"},
            TypeError,
            "Expected `runner_up` to be true or false, but got 'no'",
        ),
        ({"candidate_labels": ["cat"], "pamr_steps": -1}, ValueError, "Expected `pamr_steps` to be a whole number"),
    ],
)
def test_what_is_wrong_is_told(demo, scene, arguments, error, message):
    demo.model._register_queries(torch.zeros(0, demo.model.config.projection_dim))
    segmenter = ZeroShotImageSegmentationPipeline(*demo, device="cpu")
    with pytest.raises(error, match=message):
        segmenter(scene, **arguments)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"threshold": 3}, ValueError, "Expected `threshold` to be a number from 0 to 1, but got 3"),
        ({"output": "x"}, ValueError, "Expected `output` to be 'masks' or 'map'"),
        ({"preset": "x"}, ValueError, "Expected a preset out of paper"),
        ({"method": "x"}, ValueError, "Expected a method out of clip"),
        ({"pamr_steps": -1}, ValueError, "Expected `pamr_steps` to be a whole number"),
        ({"runner_up": "no"}, TypeError, "Expected `runner_up` to be true or false"),
    ],
)
def test_what_is_wrong_once_for_all_is_told_when_the_pipeline_is_made(demo, given, error, message):
    with pytest.raises(error, match=message):
        ZeroShotImageSegmentationPipeline(*demo, device="cpu", **given)


def test_places_without_a_checkpoint_are_told(tmp_path):
    with pytest.raises(OSError, match=r"Expected the folder of a checkpoint, but '/nowhere' is none"):
        itaclip_hf.pipeline(model="/nowhere")
    with pytest.raises(OSError, match=r"Expected a checkpoint in .*, but it has no config\.json"):
        itaclip_hf.pipeline(model=tmp_path)


def test_a_large_image_that_is_scaled_down_is_said_once(demo, scene, caplog):
    segmenter = ZeroShotImageSegmentationPipeline(*demo, device="cpu", candidate_labels=["cat", "sky"], **SMALL)
    large = scene.resize((2240, 1680))
    segmenter([large, large])
    assert caplog.text.count("An image has 1680 x 2240 pixels, and the model sees") == 1
    assert segmenter.is_reduction_noted


def test_further_frames_are_told(segmenter, scene, tmp_path):
    scene.save(tmp_path / "many.gif", save_all=True, append_images=[scene.rotate(90)])
    with pytest.warns(UserWarning, match=r"Expected a file of one picture, but .*many\.gif has 2, of which the first"):
        segmenter(str(tmp_path / "many.gif"), ["cat", "sky"])


def test_a_threshold_of_none_is_none(segmenter, scene):
    assert len(segmenter(scene, ["cat", "sky"], threshold=None)) == len(segmenter(scene, ["cat", "sky"]))


def test_wrong_models_data_sets_and_names_are_told(demo, scene, segmenter, stock_folder):
    with pytest.raises(TypeError, match=f"Expected a CLIP ViT checkpoint for the task '{TASK}', but got CLIPModel"):
        ZeroShotImageSegmentationPipeline(CLIPModel.from_pretrained(stock_folder))
    with pytest.raises(TypeError, match="but got texts"):
        ZeroShotImageSegmentationPipeline(*demo, texts=["cat"])
    with pytest.raises(ValueError, match="Expected `processor` with a model that was not loaded from a checkpoint"):
        ZeroShotImageSegmentationPipeline(ITACLIPForSemanticSegmentation(demo.model.config.__class__(**TINY)))
    with pytest.raises(ValueError, match=r"Expected a data set with a column 'image', .* but got number"):
        segmenter(Dataset.from_dict({"number": [1]}), WORDS)
    with pytest.raises(ValueError, match="Expected one image in each place, but got 2 in one"):
        segmenter([[scene, scene]], WORDS)


TINY = {
    "projection_dim": 8,
    "intermediate_layers": (1,),
    "text_config": {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1},
    "vision_config": {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2},
}


def run_python(code, *arguments):
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "first",
    [
        "import itaclip_hf; from transformers import pipeline",
        "from transformers import pipeline; import itaclip_hf",
        "import transformers.pipelines.base, itaclip_hf; from transformers import pipeline",
    ],
)
def test_the_task_is_known_whatever_is_imported_first(first, stock_folder):
    run_python(
        f"import sys; {first}\n"
        "from transformers.pipelines import PIPELINE_REGISTRY\n"
        f"assert '{TASK}' in PIPELINE_REGISTRY.get_supported_tasks()\n"
        "assert not {'itaclip_hf.modeling', 'itaclip_hf.pipelines'} & {*sys.modules}\n"
        "from transformers import logging; logging.disable_progress_bar()\n"
        f"made = pipeline('{TASK}', model=sys.argv[1])\n"
        "assert type(made) is itaclip_hf.ZeroShotImageSegmentationPipeline",
        stock_folder,
    )


@pytest.mark.slow
def test_a_fault_in_the_package_leaves_other_tasks_alone(stock_folder):
    run_python(
        "import sys, itaclip_hf; sys.modules['itaclip_hf.pipelines.zero_shot'] = None\n"
        "from transformers import logging, pipeline; logging.disable_progress_bar()\n"
        "assert pipeline('feature-extraction', model=sys.argv[1], tokenizer=sys.argv[1]).model\n"
        "try:\n"
        f"    pipeline('{TASK}', model=sys.argv[1])\n"
        "except ImportError as error:\n"
        "    assert 'Expected itaclip_hf to load its ZeroShotImageSegmentationPipeline' in str(error), error\n"
        "else:\n    raise SystemExit('no error')",
        stock_folder,
    )


def test_regions_vote_and_say_what_they_are(segmenter, scene):
    label = np.asarray(scene.convert("L")) // 64
    regions = [np.asarray(label, dtype=np.int64), label[::2, ::3] + 1]
    alone = [segmenter(scene, WORDS, region_maps=each, region_vote=True, return_regions=True) for each in regions]
    model, processor = load("demo", Vocabulary(WORDS), settings={**SMALL, "region_vote": True})
    for own, found in zip(regions, alone, strict=True):
        expected = model.predict_regions(processor, **processor(images=scene, region_maps=own, return_tensors="pt"))
        for row, same in zip(expected.regions[0], found["regions"], strict=True):
            assert same == {
                **row,
                "score": pytest.approx(row["score"], abs=1e-5),
                "label": ["sky", "grass", "dog"][row["label_id"]],
            }
        assert sum(np.count_nonzero(each["mask"]) for each in found["masks"]) == scene.width * scene.height
    together = segmenter([scene] * 2, WORDS, region_maps=regions, region_vote=True, output="map", batch_size=2)
    for found, mapped in zip(alone, together, strict=True):
        for each in found["masks"]:
            index = next(label for label, name in mapped["id2label"].items() if name == each["label"])
            np.testing.assert_array_equal(np.asarray(each["mask"]) > 0, mapped["labels"] == index)


def test_regions_that_do_not_go_with_the_images_are_refused(segmenter, scene):
    with pytest.raises(ValueError, match=r"Expected a list of the region maps of each image \(2\), but got 1"):
        segmenter([scene] * 2, WORDS, region_maps=[np.ones((4, 4), int)])
    with pytest.raises(TypeError, match="Expected one image or a list with `region_maps`, but got generator"):
        segmenter((each for each in [scene]), WORDS, region_maps=np.ones((4, 4), int))
    with pytest.raises(ValueError, match="Expected `region_maps` with `return_regions`"):
        segmenter(scene, WORDS, return_regions=True)

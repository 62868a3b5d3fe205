"""GroupViT as a predictor, against a recomputation with Transformers' own model."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scripted_evaluation import NUM_CLASSES, TOKENIZER, load_folders, write_folders
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    GroupViTConfig,
    GroupViTModel,
)
from typer.testing import CliRunner

from itaclip_hf import Vocabulary
from itaclip_hf.cli.main import app
from itaclip_hf.evaluation.running.baselines import find_baseline
from itaclip_hf.evaluation.running.baselines.groupvit import GroupViT
from itaclip_hf.evaluation.running.predictor import Predictor
from itaclip_hf.evaluation.running.runner import RunOptions, run_evaluation
from itaclip_hf.files import write_json

STUFF = Vocabulary([f"{word}" for word in ("dog", "cat", "sky", "tree", "car", "bus", "cup")])
OBJECTS = Vocabulary([["dog", "puppy"], "cat", ["bus", "coach", "van"], "cup"], background=["sky", "wall"])
PROMPTS = {name: f"a photo of a {name}." for name in (*STUFF.query_names, *OBJECTS.query_names)}


def save_checkpoint(folder: Path) -> Path:
    """Random weights that tell images and texts apart, as a user has them on disk."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "patch_size": 16}
    processor = {
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.3, 0.25],
        "do_normalize": True,
        "do_rescale": True,
    }
    groups = {
        "num_hidden_layers": 3, "depths": [1, 1, 1], "num_group_tokens": [6, 4, 0],
        "num_output_groups": [6, 4, 4], "image_size": 64,
    }  # fmt: skip
    sizes = {"projection_dim": 16, "projection_intermediate_dim": 24}
    model = GroupViTModel(GroupViTConfig(text_config=text, vision_config={**vision, **groups}, **sizes))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_()
    processor |= {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 224}, "resample": 3}
    processor |= {"do_center_crop": True, "crop_size": {"height": 224, "width": 224}, "do_resize": True}
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():  # the default initialisation hardly tells anything apart
        if parameter.ndim > 1:
            parameter.data = torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.5
            if "assign" in name and "proj" in name:
                parameter.data *= 4
    model.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / file, folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.fixture(scope="module")
def groupvit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("groupvit"))


def make_image(height: int, width: int, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def tokenize(folder: Path, names: list[str]) -> dict[str, torch.Tensor]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return dict(tokenizer([PROMPTS[name] for name in names], padding=True, return_tensors="pt"))


def recompute_groupvit(folder: Path, image: Image.Image, names: list[list[str]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Best class and its probability for each pixel of a square image of the model's own size, in plain steps."""
    model = GroupViTModel.from_pretrained(folder).eval()
    image_processor = AutoImageProcessor.from_pretrained(folder)
    size = {"height": 64, "width": 64}
    pixels = image_processor(image, size=size, resample=2, do_center_crop=False, return_tensors="pt")["pixel_values"]
    flat = [name for entry in names for name in entry]
    with torch.inference_mode():
        outputs = model(pixel_values=pixels, **tokenize(folder, flat), output_segmentation=True)
        tokens = model.visual_projection(outputs.vision_model_output.last_hidden_state[0])
    first, second = outputs.vision_model_output.attentions
    shares = (second[0] @ first[0]).reshape(1, -1, 4, 4)
    shares = F.interpolate(F.interpolate(shares, (64, 64), mode="bilinear"), image.size[::-1], mode="bilinear")[0]
    scale = min(float(model.logit_scale.detach().exp()), 100.0)
    columns = []
    for entry in names:
        indices = [flat.index(name) for name in entry]
        cosine = [F.cosine_similarity(tokens, outputs.text_embeds[index][None]) for index in indices]
        whole = [F.cosine_similarity(outputs.image_embeds, outputs.text_embeds[index][None]) for index in indices]
        columns.append((torch.stack(cosine).max(0).values * scale, torch.stack(whole).max() * scale))
    groups = torch.stack([column for column, _ in columns], 1).double()
    kept = sorted(range(len(names)), key=lambda index: -float(columns[index][1]))[:5]
    probability = torch.zeros_like(groups)
    probability[:, kept] = groups[:, kept].softmax(1)
    probability *= groups.softmax(1)
    pixel_probability = probability[shares.argmax(0)]
    return pixel_probability.argmax(-1), pixel_probability.amax(-1)


@pytest.mark.parametrize("vocabulary", [STUFF, OBJECTS], ids=["stuff", "objects"])
def test_groupvit_equals_a_recomputation(groupvit: Path, vocabulary: Vocabulary) -> None:
    image = make_image(90, 90)
    settings = {"shortest_edge": 64, **({"score_threshold": 0.3} if vocabulary.background else {})}
    predictor = GroupViT(groupvit, vocabulary, settings=settings)
    assert isinstance(predictor, Predictor)
    (prediction,) = predictor.predict(predictor.prepare_images([image]))
    classes, best = recompute_groupvit(groupvit, image, [list(entry.names) for entry in vocabulary.classes])
    assert len(classes.unique()) > 1
    expected = classes
    if vocabulary.background:
        is_background = best < min(0.3, best.max())
        assert is_background.any() and not is_background.all()
        expected = torch.where(is_background, 0, classes + 1)
    assert (prediction.labels == expected).double().mean() > 0.999
    matched = prediction.labels == expected
    assert torch.allclose(prediction.confidence[matched], best[matched].float(), atol=1e-5)


def test_groupvit_keeps_the_best_group_where_none_reaches_the_threshold(groupvit: Path) -> None:
    predictor = GroupViT(groupvit, OBJECTS, settings={"score_threshold": 1.0, "shortest_edge": 64})
    (prediction,) = predictor.predict(predictor.prepare_images([make_image(64, 64)]))
    found = prediction.labels.unique()
    assert 0 in found and len(found) == 2  # one group's class, all else background


def test_groupvit_takes_any_proportions_and_sizes_in_one_batch(groupvit: Path) -> None:
    images = [make_image(50, 75, 1), make_image(80, 60, 2), make_image(100, 150, 3)]
    predictor = GroupViT(groupvit, OBJECTS, settings={"shortest_edge": 64})
    prepared = predictor.prepare_images(images)
    assert [tuple(pixels.shape) for pixels in prepared["pixel_values"]] == [(3, 64, 96), (3, 80, 64), (3, 64, 96)]
    together = predictor.predict(prepared)
    for image, prediction in zip(images, together, strict=True):
        (alone,) = predictor.predict(predictor.prepare_images([image]))
        assert prediction.labels.shape == (image.height, image.width)
        assert torch.equal(prediction.labels, alone.labels)


def test_groupvit_refuses_pixels_out_of_range_as_the_other_systems_do(groupvit: Path) -> None:
    image = Image.fromarray(np.full((64, 64), 300, dtype=np.float32))
    with pytest.raises(ValueError, match="Expected pixels between 0 and 255, but got 300 to 300"):
        GroupViT(groupvit, OBJECTS).prepare_images([image])


def test_an_evaluation_runs_and_its_preparation_travels_to_workers(groupvit: Path, tmp_path: Path) -> None:
    write_folders(tmp_path, num_images=3)
    vocabulary = Vocabulary(["dog", ["cat", "kitten"], "sky", "tree", "car"])
    predictor = GroupViT(groupvit, vocabulary)
    pickle.loads(pickle.dumps(predictor.prepare_images))
    options = RunOptions(batch_size=2, num_workers=0, show_progress=False)
    result = run_evaluation(load_folders(tmp_path), predictor, tmp_path / "progress", options)
    labelled = sum((np.array(Image.open(path)) != 255).sum() for path in (tmp_path / "labels").iterdir())
    assert result.confusion.sum() == labelled and result.confusion.shape == (NUM_CLASSES, NUM_CLASSES)


def test_checkpoints_are_recognised_by_their_configuration(groupvit: Path) -> None:
    assert find_baseline(groupvit) is GroupViT
    assert find_baseline("demo") is None


def test_the_papers_background_thresholds_are_chosen(groupvit: Path) -> None:
    found = {
        name: GroupViT(groupvit, OBJECTS, benchmark=name).describe()["background_threshold"]
        for name in ("voc21", "context60", "coco_object", None)
    }
    assert found == {"voc21": 0.95, "context60": 0.35, "coco_object": 0.95, None: 0.95}
    assert GroupViT(groupvit, STUFF, benchmark="voc21").describe()["background_threshold"] is None


def test_the_description_tells_settings_and_weights_apart(groupvit: Path, tmp_path: Path) -> None:
    first = GroupViT(groupvit, OBJECTS, benchmark="context60").describe()
    assert json.loads(json.dumps(first)) == first
    assert (first["method"], first["background_threshold"], first["shortest_edge"]) == ("GroupViT", 0.35, 448)
    assert GroupViT(groupvit, OBJECTS, benchmark="voc21").describe() != first
    shutil.copytree(groupvit, tmp_path, dirs_exist_ok=True)
    model = GroupViTModel.from_pretrained(groupvit)
    model.visual_projection[1].running_mean += 1  # no parameter, and yet it changes results
    model.save_pretrained(tmp_path)
    changed = GroupViT(tmp_path, OBJECTS, benchmark="context60").describe()
    assert changed["weights_sha256"] != first["weights_sha256"]


def test_texts_and_background_words_are_left_out_of_the_vocabulary(groupvit: Path) -> None:
    vocabulary = Vocabulary(["dog", "cat"], ["sky", "wall"]).with_auxiliary_texts(["a loyal pet", "a small pet"])
    used = GroupViT(groupvit, vocabulary).vocabulary
    assert used == Vocabulary(["dog", "cat"], ["background"])
    assert used.labels == vocabulary.labels


def test_unusable_checkpoints_and_settings_are_refused(groupvit: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="settings out of score_threshold, shortest_edge for GroupViT, but got pamr"):
        GroupViT(groupvit, STUFF, settings={"pamr_steps": 0})
    with pytest.raises(ValueError, match="background threshold between 0 and 1, but got 40"):
        GroupViT(groupvit, OBJECTS, settings={"score_threshold": 40})
    with pytest.raises(ValueError, match="no background threshold without a background in the vocabulary, but got 0"):
        GroupViT(groupvit, STUFF, settings={"score_threshold": 0.5})
    with pytest.raises(ValueError, match=r"prompts of at most 77 tokens, but 'a photo of a dog dog .* Shorten"):
        GroupViT(groupvit, Vocabulary(["dog " * 80, "cat"]))
    shutil.copytree(groupvit, tmp_path, dirs_exist_ok=True)
    model = GroupViTModel.from_pretrained(groupvit)
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("visual_projection")}
    model.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(ValueError, match=r"Expected a whole GroupViT, but .* lacks"):
        GroupViT(tmp_path, STUFF)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    write_json(tmp_path / "config.json", {**config, "projection_dim": 8})
    with pytest.raises(ValueError, match=r"lacks 4 weights, among them text_projection\.3\.bias"):
        GroupViT(tmp_path, STUFF)


def evaluate(root: Path, checkpoint: Path, *more: object):
    arguments = (
        "evaluate", "--model", checkpoint, "--images", root / "images", "--labels", root / "labels", "--vocabulary",
        root / "five.json", "--workers", 0, "--no-plots", "--out", root / "out", *more,
    )  # fmt: skip
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_line_recognises_it_and_refuses_what_does_not_apply(groupvit: Path, tmp_path: Path) -> None:
    write_folders(tmp_path, num_images=2)
    write_json(tmp_path / "five.json", Vocabulary(["cat", "dog", "sky", "car"], background=["wall"]).to_dict())
    result = evaluate(tmp_path, groupvit, "--shortest-edge", 64, "--score-threshold", 0.4)
    assert result.exit_code == 0, result.output
    predictor = json.loads((tmp_path / "out" / "report.json").read_text())["settings"]["predictor"]
    assert (predictor["method"], predictor["background_threshold"]) == ("GroupViT", 0.4)
    refused = evaluate(tmp_path, groupvit, "--similarity-scale", 50, "--preset", "fast")
    assert refused.exit_code == 2
    assert "Expected no --preset, --similarity-scale with" in refused.output


def test_a_system_is_chosen_by_its_method_name(groupvit, tmp_path) -> None:
    assert find_baseline("demo", "groupvit") is GroupViT and find_baseline("demo", "naclip") is None
    write_folders(tmp_path, num_images=2)
    write_json(tmp_path / "five.json", Vocabulary(["cat", "dog", "sky", "car"], background=["wall"]).to_dict())
    result = evaluate(tmp_path, groupvit, "--shortest-edge", 64, "--method", "groupvit")
    assert result.exit_code == 0, result.output
    refused = evaluate(tmp_path, groupvit, "--method", "groupvit", "--preset", "fast")
    assert refused.exit_code == 2
    assert "Expected no --preset with GroupViT, which has no such settings" in refused.output
    refused = evaluate(tmp_path, groupvit, "--method", "naclip")
    assert "Expected no --method with GroupViT" in refused.output
    unknown = evaluate(tmp_path, groupvit, "--method", "nclip")
    assert unknown.exit_code == 2 and "Expected a method out of clip" in unknown.output

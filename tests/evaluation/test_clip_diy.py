"""CLIP-DIY against arrays of the published program, on deterministic weights; FOUND against plain steps."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_clip import build_golden_clip, encode_ids
from PIL import Image
from safetensors.torch import load_file, save_file
from scripted_evaluation import write_folders
from transformers import ViTConfig, ViTModel
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from typer.testing import CliRunner

from itaclip_hf import Vocabulary, load_demo
from itaclip_hf.cli.main import app
from itaclip_hf.evaluation import get_benchmark
from itaclip_hf.evaluation.running.baselines.clip_diy import (
    WINDOWS,
    ClipDIY,
    average_grids,
    choose_labels,
    choose_words,
    compare_windows,
    stretch_nearest,
    stretch_to_square,
    weigh_by_saliency,
)
from itaclip_hf.evaluation.running.baselines.clip_images import embed_images
from itaclip_hf.evaluation.running.baselines.groupvit import GroupViT
from itaclip_hf.evaluation.running.baselines.saliency import Found
from itaclip_hf.evaluation.running.baselines.tagclip import TagCLIP
from itaclip_hf.evaluation.running.predictor import Predictor, hash_weights

GOLDENS = sorted((Path(__file__).parents[1] / "goldens_seed").glob("clipdiy_*.npz"))
THINGS = Vocabulary([["dog", "puppy"], "cat", "bus"], background=["sky", "wall"])
STUFF = Vocabulary(["dog", "cat", "sky"])


@pytest.fixture(scope="module", params=GOLDENS, ids=lambda path: path.stem)
def case(request):
    arrays = dict(np.load(request.param))
    model = build_golden_clip(json.loads(bytes(arrays["spec"])))
    square = stretch_to_square(arrays["image"])
    texts = encode_ids(model, arrays["text_ids"])
    recorded = torch.from_numpy(arrays["text_features"])
    with torch.inference_mode():
        grids = [[compare_windows(model, square, window, each) for window in WINDOWS] for each in (recorded, texts)]
    return arrays, square, texts, *grids


def test_square_texts_and_similarities_are_the_published_ones(case) -> None:
    arrays, square, texts, grids, _ = case
    np.testing.assert_array_equal(square[::4], arrays["resized"])
    np.testing.assert_allclose(texts, arrays["text_features"], atol=1e-6)
    for window, grid in zip(WINDOWS, grids, strict=True):
        np.testing.assert_allclose(grid.flatten(1).T, arrays[f"similarities_{window}"], atol=1e-5)


def test_labels_with_and_without_saliency_are_the_published_ones(case) -> None:
    arrays, _, _, grids, _ = case
    scores = average_grids(grids)
    # The same names tie in the border, where all windows agree.
    assert (scores.argmax(0).numpy() == arrays["labels_without_saliency"]).mean() > 0.99
    weighed = weigh_by_saliency(scores, torch.from_numpy(arrays["saliency"].astype(np.float32)))
    np.testing.assert_allclose(weighed[:, ::8, ::8], arrays["scores"], atol=1e-5)
    labels, _ = choose_labels(weighed, is_weighed=True)
    assert (labels.numpy() == arrays["labels_square"]).mean() >= 0.999
    stretched = stretch_nearest(labels, arrays["labels"].shape)
    assert (stretched.numpy() == arrays["labels"]).mean() >= 0.999


def test_labels_from_our_own_texts_differ_in_ties_alone(case) -> None:
    """Under these weights, names of one token are alike to 5e-4: the last bit decides between them in places."""
    arrays, _, _, _, grids = case
    saliency = torch.from_numpy(arrays["saliency"].astype(np.float32))
    weighed = weigh_by_saliency(average_grids(grids), saliency)
    expected = torch.from_numpy(arrays["labels_square"].astype(np.int64))[None]
    labels = weighed.softmax(0).argmax(0, keepdim=True)
    ahead = weighed.gather(0, labels) - weighed.gather(0, expected)
    assert (labels == expected).double().mean() >= 0.99 and ahead.abs().max() < 2e-7


def make_image(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def found_folder(tmp_path_factory):
    """A DINO of random weights, and a file like FOUND's that goes with it."""
    folder = tmp_path_factory.mktemp("found")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ViTModel(ViTConfig(**sizes, image_size=32, patch_size=8), add_pooling_layer=False).save_pretrained(folder)
    head = {"weight": torch.randn(1, 32, 1, 1) * 3, "bias": torch.randn(1)}
    torch.save({"decoder": head}, folder / "decoder_weights.pt")
    return folder


def test_saliency_is_a_layer_on_the_keys_of_the_last_block(found_folder) -> None:
    image = np.asarray(make_image(21, 37))
    saliency = Found(found_folder)(image)
    assert saliency.shape == (21, 37)
    model = ViTModel.from_pretrained(found_folder, add_pooling_layer=False).eval()
    pixels = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    pixels = F.pad(torch.from_numpy(pixels).float().permute(2, 0, 1), (0, 3, 0, 3))[None]
    with torch.no_grad():
        outputs = model(pixels, interpolate_pos_encoding=True, output_hidden_states=True)
        weights = model.state_dict()
        last = max(name.split(".attention.")[0] for name in weights if ".attention." in name)
        norm = {name: weights[f"{last}.layernorm_before.{name}"] for name in ("weight", "bias")}
        names = [name for name in weights if name.startswith(last) and (".k_proj." in name or ".key." in name)]
        key = {name.rpartition(".")[2]: weights[name] for name in names}
        normed = F.layer_norm(outputs.hidden_states[-2], (32,), **norm, eps=model.config.layer_norm_eps)
        keys = F.linear(normed, **key)[0, 1:]
    head = torch.load(found_folder / "decoder_weights.pt", weights_only=True)["decoder"]
    logits = (keys @ head["weight"].flatten() + head["bias"]).view(1, 1, 3, 5)
    expected = F.interpolate(logits, (24, 40), mode="bilinear")[0, 0, :21, :37].sigmoid()
    torch.testing.assert_close(saliency, expected, atol=1e-5, rtol=1e-4)
    assert saliency.max() - saliency.min() > 0.1


def test_a_batch_of_odd_sizes_equals_one_by_one(found_folder) -> None:
    predictor = ClipDIY("demo", THINGS, settings={"second_checkpoint": found_folder})
    assert isinstance(predictor, Predictor)
    images = [make_image(65, 97), make_image(7, 3, seed=2).convert("L")]
    together = predictor.predict(predictor.prepare_images(images))
    for image, prediction in zip(images, together, strict=True):
        (alone,) = predictor.predict(predictor.prepare_images([image]))
        assert prediction.labels.shape == prediction.confidence.shape == (image.height, image.width)
        assert torch.equal(alone.labels, prediction.labels) and torch.equal(alone.confidence, prediction.confidence)
        assert prediction.labels.min() >= 0 and prediction.labels.max() < 4
        assert prediction.confidence.min() > 0 and prediction.confidence.max() <= 1


def test_scores_that_the_softmax_makes_ties_are_told_apart_without_saliency() -> None:
    scores = torch.tensor([[[0.25, 0.3]], [[np.nextafter(np.float32(0.25), np.float32(1)), 0.2]]])
    labels, best = choose_labels(scores, is_weighed=False)
    weighed, _ = choose_labels(scores, is_weighed=True)
    assert labels.tolist() == [[1, 0]] and weighed.tolist() == [[0, 0]]
    exact = scores.double().exp()
    expected = exact.gather(0, labels[None])[0] / exact.sum(0)
    torch.testing.assert_close(best.double(), expected, atol=1e-7, rtol=0)


def test_the_predictor_takes_the_largest_score_where_there_is_no_saliency(monkeypatch) -> None:
    # The last classes, 3e-8 ahead of the others, would lose the tie that the softmax makes.
    score = np.nextafter(np.float32(0.25), np.float32(1)) - np.float32(0.25)

    def compare(model, square, window, texts, normalization):
        return 0.25 + torch.arange(len(texts)).view(-1, 1, 1) * torch.tensor(score) * torch.ones(1, 2, 2)

    monkeypatch.setattr("itaclip_hf.evaluation.running.baselines.clip_diy.compare_windows", compare)
    for words, last in ((Vocabulary(["dog", "cat"]), 1), (Vocabulary(["dog"], ["wall"]), 1)):
        predictor = ClipDIY("demo", words)
        prepared = predictor.prepare_images([make_image(20, 30)])
        (prediction,) = predictor.predict(prepared)
        assert (prediction.labels == last).all()


@pytest.mark.parametrize("length", [1, 7, 100, 255, 256, 257, 488, 500, 683, 976, 1023])
def test_labels_are_stretched_as_opencv_does_it(length) -> None:
    places = [min(int(place * (1 / (length / 256))), 255) for place in range(length)]
    square = torch.arange(256 * 256).view(256, 256)
    expected = square[places][:, [0, 85, 170]]  # a width of 3
    assert torch.equal(stretch_nearest(square, (length, 3)), expected)
    assert torch.equal(stretch_nearest(square.T, (3, length)), expected.T)


def test_benchmarks_of_published_names_have_one_for_each_class() -> None:
    words = choose_words(get_benchmark("voc21").vocabulary("none"), "voc21")
    assert len(words.query_names) == len(words.labels) - 1 + len(words.background) == 20 + len(words.background)
    assert [words.labels[index] for index in (1, 11, 16, 20)] == [
        "aeroplane",
        "diningtable",
        "potted plant",
        "tv/monitor",
    ]
    objects = choose_words(get_benchmark("coco_object").vocabulary("none"), "coco_object")
    assert len(objects.classes) == 80 and all(len(entry.names) == 1 for entry in objects.classes)
    own = get_benchmark("context60").vocabulary("none")
    for other, benchmark in ((own, "context60"), (own, None), (THINGS, "voc21")):
        assert choose_words(other, benchmark) is other
    predictor = ClipDIY("demo", get_benchmark("voc21").vocabulary(), "voc21")
    assert predictor.describe()["words"]["background"] == ["background"]
    (prediction,) = predictor.predict(predictor.prepare_images([make_image(20, 30)]))
    assert prediction.labels.max() <= 20


def test_saliency_takes_the_background_from_objects_and_the_classes_from_the_rest() -> None:
    scores = torch.tensor([[[0.4, 0.4]], [[0.3, 0.3]], [[0.2, 0.5]]])
    weighed = weigh_by_saliency(scores, torch.tensor([[1.0, 0.25]]))
    torch.testing.assert_close(weighed, torch.tensor([[[0.0, 0.3]], [[0.3, 0.075]], [[0.2, 0.125]]]))


def test_without_a_background_saliency_is_not_asked_for(found_folder) -> None:
    predictor = ClipDIY("demo", STUFF, settings={"second_checkpoint": found_folder})
    prepared = predictor.prepare_images([make_image(20, 30)])
    (plain,) = predictor.predict(prepared)
    (weighed,) = predictor.predict({**prepared, "saliency_maps": [np.zeros((20, 30), dtype=np.float32)]})
    assert torch.equal(plain.labels, weighed.labels) and plain.labels.max() < 3


def test_saliency_maps_of_one_s_own_take_part() -> None:
    predictor = ClipDIY("demo", THINGS)
    prepared = predictor.prepare_images([make_image(40, 50)] * 2)
    maps = [np.zeros((40, 50), dtype=np.float32), np.ones((40, 50), dtype=np.float32)]
    nowhere, everywhere = predictor.predict({**prepared, "saliency_maps": maps})
    assert not torch.equal(nowhere.labels, everywhere.labels)
    assert predictor.describe()["method"] == "CLIP-DIY without saliency"


def test_windows_are_normalised_as_the_checkpoint_s_own_processor_says(tmp_path) -> None:
    """LAION's newer checkpoints have a mean and deviation of 0.5, with which cosines are others."""
    model, processor = load_demo()
    processor.image_processor.image_mean = processor.image_processor.image_std = [0.5, 0.5, 0.5]
    for part in (model, processor):
        part.save_pretrained(tmp_path)
    image = make_image(256, 256)
    predictor = ClipDIY(tmp_path, STUFF, dtype="float32")
    (prediction,) = predictor.predict(predictor.prepare_images([image]))
    side = model.config.vision_config.image_size
    grids = []
    for window in WINDOWS:
        starts = range(0, 257 - window, window // 2)
        cuts = [image.crop((left, top, left + window, top + window)) for top in starts for left in starts]
        cuts = [cut.resize((side, side), Image.Resampling.BICUBIC) for cut in cuts]
        pixels = torch.stack([torch.from_numpy(np.array(cut)).permute(2, 0, 1) / 127.5 - 1 for cut in cuts])
        with torch.inference_mode():
            grids.append(embed_images(predictor._model, pixels).T.unflatten(1, (len(starts), len(starts))))
    scores = torch.einsum("td,dhw->thw", predictor._texts, average_grids(grids))
    assert (prediction.labels == scores.argmax(0)).double().mean() > 0.999
    assert predictor.describe()["image_mean"] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("system", [ClipDIY, TagCLIP])
def test_clip_s_own_mean_is_taken_to_the_last_digit(system) -> None:
    """Our processor rounds it, which moves labels where names are nearly alike."""
    assert system("demo", THINGS)._pixels == {"image_mean": OPENAI_CLIP_MEAN, "image_std": OPENAI_CLIP_STD}


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ([np.zeros((4, 5))], "of 2 images, but got 1"),
        (3, "of 2 images, but got int"),
        ([np.zeros((4, 5)), np.full((4, 5), 255, dtype=np.uint8)], r"map 1 as .* from 255 to 255"),
        ([np.zeros((4, 5)), np.full((4, 5), np.nan)], "map 1 as .* from nan to nan"),
        ([np.zeros((4, 5)), np.zeros((3, 4, 5))], r"map 1 as .* of the shape \(3, 4, 5\)"),
        ([np.zeros((4, 5)), Image.new("L", (5, 4), 9)], "map 1 as .* from 9 to 9"),
        ([None, None], "map 0 as .*but got object"),
    ],
)
def test_saliency_maps_that_mean_nothing_are_refused(maps, message) -> None:
    predictor = ClipDIY("demo", THINGS)
    prepared = predictor.prepare_images([make_image(40, 50)] * 2)
    with pytest.raises(ValueError, match=f"Expected .*{message}"):
        predictor.predict({**prepared, "saliency_maps": maps})
    stacked = torch.rand(2, 7, 9, dtype=torch.float64)  # of any size and number format
    one_by_one = predictor.predict({**prepared, "saliency_maps": list(stacked.numpy())})
    for found, expected in zip(predictor.predict({**prepared, "saliency_maps": stacked}), one_by_one, strict=True):
        assert torch.equal(found.labels, expected.labels)


def test_saliency_is_the_same_in_every_process_and_whole(found_folder, tmp_path) -> None:
    """Transformers gives a checkpoint without a pooler one of random weights."""
    assert hash_weights(Found(found_folder).state()) == hash_weights(Found(found_folder).state())
    shutil.copytree(found_folder, tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    lost = min(name for name in weights if ".1." in name)
    del weights[lost]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        ValueError, match=r"Expected a DINO vision transformer, but .* lacks 1 weights, among them .*\.1\."
    ):
        Found(tmp_path)


def test_what_is_not_there_is_told(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Expected FOUND's decoder_weights.pt, but there is no .*none.pt"):
        ClipDIY("demo", THINGS, settings={"second_checkpoint": str(tmp_path / "none.pt")})
    with pytest.raises(TypeError, match="Expected `second_checkpoint` to be a folder, file or hub id, but got 3"):
        ClipDIY("demo", THINGS, settings={"second_checkpoint": 3})
    with pytest.raises(TypeError, match="Expected a Vocabulary, but got list"):
        ClipDIY("demo", ["dog"])
    with pytest.raises(OSError, match=r"Expected a GroupViT checkpoint in .*none', but its configuration cannot"):
        GroupViT(str(tmp_path / "none"))


def test_other_files_than_found_s_are_refused(found_folder, tmp_path) -> None:
    for content in ({"decoder": {"weight": torch.zeros(2, 32, 1, 1), "bias": torch.zeros(2)}}, {"model": 1}):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(
            ValueError, match=r"Expected FOUND's decoder_weights.pt, .* but .*other.pt is another file"
        ):
            Found(tmp_path / "other.pt")
    (tmp_path / "other.pt").write_text("no weights")
    with pytest.raises(ValueError, match="is another file"):
        Found(tmp_path / "other.pt")
    (tmp_path / "dino").mkdir()
    for file in ("config.json", "model.safetensors"):
        (tmp_path / "dino" / file).write_bytes((found_folder / file).read_bytes())
    torch.save(
        {"decoder": {"weight": torch.zeros(1, 8, 1, 1), "bias": torch.zeros(1)}},
        tmp_path / "dino" / "decoder_weights.pt",
    )
    with pytest.raises(ValueError, match=r"Expected a DINO vision transformer of width 8 .* has 32"):
        Found(tmp_path / "dino")
    with pytest.raises(ValueError, match="Expected settings out of second_checkpoint for CLIP-DIY, but got closing"):
        ClipDIY("demo", THINGS, settings={"closing": True})


def test_the_command_line_runs_it(tmp_path, found_folder) -> None:
    write_folders(tmp_path, num_images=2)
    words = Vocabulary(["cat", "dog", "sky", "car"], background=["wall"])
    (tmp_path / "five.json").write_text(json.dumps(words.to_dict()))
    folders = {"images": "images", "labels": "labels", "vocabulary": "five.json", "out": "out"}
    arguments = ["evaluate", "--model", "demo", "--method", "clip-diy", "--workers", 0, "--no-plots"]
    arguments += ["--second-checkpoint", found_folder]
    for option, name in folders.items():
        arguments += [f"--{option}", tmp_path / name]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["settings"]["predictor"]["saliency"]["found"] == str(found_folder)
    alone = [argument if argument != "clip-diy" else "naclip" for argument in arguments]
    refused = CliRunner().invoke(app, [str(argument) for argument in alone])
    assert refused.exit_code == 2 and "Expected no --second-checkpoint with one model" in refused.output

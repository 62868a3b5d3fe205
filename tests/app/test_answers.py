"""What stands behind the page: requests as typed, answers equal to the model's own, files as of `itaclip segment`."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from itaclip_hf import Vocabulary, load
from itaclip_hf.app.answers import Answer, Request, read_request
from itaclip_hf.cli.main import app
from itaclip_hf.drawing import make_palette
from itaclip_hf.samples import list_samples

WORDS = "grass; dog, puppy\nfrog"
SAMPLE = str(list_samples(for_demo_checkpoint=True)[0].path)


@pytest.fixture(scope="module")
def answer(segmenter):
    return segmenter.answer(read_request(SAMPLE, WORDS, "house, road", "dog >=a loyal pet", None, "live"))


@pytest.fixture
def small():
    """An answer made by hand: two rows, three columns; the last pixel was filled in by closing."""
    request = Request(Image.new("RGB", (3, 2)), "a<b>.jpg", Vocabulary(["<i>cat</i>", "dog"], ["wall"]), None, "live")
    return Answer(
        request,
        labels=np.array([[0, 1, 1], [2, 2, 2]], dtype=np.int32),
        confidence=np.array([[0.5, 0.75, 0.25], [1, 1, 0.5]], dtype=np.float32),
        runner_up=np.array([[1, 2, 0], [-1, 0, 1]], dtype=np.int32),
        runner_up_confidence=np.array([[0.25, 0.125, 0.2], [0, 0, 0.5]], dtype=np.float32),
        settings={},
        seconds=0.1,
    )


def test_an_answer_is_the_models_own(answer):
    vocabulary = Vocabulary.from_text(WORDS, "house, road", "dog >=a loyal pet")
    model, processor = load("demo", vocabulary, preset="live", dtype="float32", device="cpu")
    inputs = processor(images=Image.open(SAMPLE), return_tensors="pt")
    with torch.inference_mode():
        found = model.predict_ranked_labels(processor, **inputs)
    assert np.array_equal(answer.labels, found.labels[0]) and np.array_equal(answer.runner_up, found.runner_up[0])
    assert np.allclose(answer.confidence, found.confidence[0], atol=1e-5)
    assert np.allclose(answer.runner_up_confidence, found.runner_up_confidence[0], atol=1e-5)
    assert answer.names == ["background", "grass", "dog", "frog"]


def test_another_preset_refines_the_same_request(segmenter, answer):
    refined = segmenter.answer(replace(answer.request, preset="fast"))
    assert refined.request.vocabulary is answer.request.vocabulary and refined.request.preset == "fast"
    assert refined.settings["window_stride"] == 112 and answer.settings["window_size"] == 0
    assert not np.array_equal(refined.confidence, answer.confidence)


def test_a_pixel_tells_class_score_and_runner_up(small):
    def read(column, row):
        return " ".join(re.sub(r"<[^>]+>", "", small.tell_pixel(column, row)).split())

    assert read(1, 0) == "&lt;i&gt;cat&lt;/i&gt; 0.75 then dog 0.12 column 1, row 0"
    assert read(0, 1) == "dog 1.00 column 0, row 1"
    assert read(2, 1) == "dog after smoothing; the highest score here has &lt;i&gt;cat&lt;/i&gt; 0.50 column 2, row 1"


def test_the_legend_has_colour_share_and_score_of_what_is_there_the_largest_first(small):
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr>", small.tell_legend())
    assert [re.sub(r"<[^>]+>", "", name) for name, *_ in rows] == ["dog", "&lt;i&gt;cat&lt;/i&gt;", "background"]
    assert [figures for _, *figures in rows] == [["50.0%", "0.83"], ["33.3%", "0.50"], ["16.7%", "0.50"]]
    assert all(f"rgb{make_palette(True)[label]}" in row[0] for label, row in zip((2, 1, 0), rows, strict=True))


def test_small_pictures_are_drawn_larger_by_whole_pixels(small):
    assert small.zoom == 333 and small.draw_overlay(0.5).size == (999, 666)
    pixels = np.asarray(small.draw_confidence())
    assert len(np.unique(pixels[:333, :333].reshape(-1, 3), axis=0)) == 1
    assert not np.array_equal(pixels[0, 332], pixels[0, 333])


def test_opacity_reaches_from_the_picture_to_the_colours(answer):
    picture = np.asarray(answer.request.image).repeat(2, axis=0).repeat(2, axis=1)
    bare, full = (np.asarray(answer.draw_overlay(opacity)).astype(int) for opacity in (0, 1))
    assert (abs(bare - picture).max(-1) == 0).mean() > 0.9  # but for borders and names
    colours = np.array(answer.palette)[answer.labels].repeat(2, axis=0).repeat(2, axis=1)
    assert (abs(full - colours).max(-1) == 0).mean() > 0.9


def test_files_are_those_of_the_command_line(answer, tmp_path):
    from typer.testing import CliRunner

    (tmp_path / "definitions.txt").write_text("dog >=a loyal pet\n")
    words = ["--classes", WORDS, "--background", "house, road", "--definitions", str(tmp_path / "definitions.txt")]
    options = ["--model", "demo", "--preset", "live", "--dtype", "float32", "--device", "cpu"]
    arguments = ["segment", SAMPLE, *words, *options, "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    labels, description = answer.write(tmp_path)
    for path in (labels, description):
        assert (tmp_path / "out" / path.name).is_file()
    expected = Image.open(tmp_path / "out" / labels.name)
    with Image.open(labels) as found:
        assert found.mode == "P" and found.getpalette() == expected.getpalette()
        assert np.array_equal(found, expected)
    content, expected = (
        json.loads((folder / description.name).read_text()) for folder in (tmp_path, tmp_path / "out")
    )
    assert [entry["name"] for entry in content["classes"]] == ["background", "grass", "dog", "frog"]
    for entry, other in zip(content["classes"], expected["classes"], strict=True):
        assert {**entry, "mean_score": None} == {**other, "mean_score": None}
        assert entry["mean_score"] == pytest.approx(other["mean_score"], abs=1e-4)
    assert (content["height"], content["width"]) == (expected["height"], expected["width"])
    shared = content["settings"].keys() & expected["settings"].keys()
    assert {"model", "method", "window_size", "pamr_steps", "dtype", "vocabulary"} <= shared
    assert all(content["settings"][name] == expected["settings"][name] for name in shared)
    assert Vocabulary.from_dict(content["vocabulary"]) == answer.request.vocabulary


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"path": None}, ValueError, "Expected a picture, but got none"),
        ({"classes": ""}, ValueError, "Expected classes like"),
        ({"classes": "cat; cat"}, ValueError, "Expected every name once"),
        ({"background": "wall,,floor"}, ValueError, "Expected no empty background word"),
        ({"definitions": "it purrs"}, ValueError, "definitions:1: Expected `name >=text`"),
    ],
)
def test_what_is_wrong_with_a_request_is_told(changes, error, message):
    typed = {"path": SAMPLE, "classes": "cat", "background": "", "definitions": "", "method": None, "preset": "live"}
    with pytest.raises(error, match=message):
        read_request(**{**typed, **changes})


def test_what_is_no_picture_is_told(tmp_path):
    (tmp_path / "note.png").write_text("no picture")
    with pytest.raises(OSError, match="Expected an image in JPEG"):
        read_request(str(tmp_path / "note.png"), "cat", "", "", None, "live")


@pytest.mark.parametrize("for_demo_checkpoint", [True, False])
def test_samples_are_pictures_with_words_that_can_be_read(for_demo_checkpoint):
    samples = list_samples(for_demo_checkpoint)
    assert len(samples) >= 3
    for sample in samples:
        assert Vocabulary.from_text(sample.classes, sample.background)
        with Image.open(sample.path) as image:
            assert image.size > (0, 0)

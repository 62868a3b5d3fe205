"""`--method` of the commands: methods by name, methods of a file of one's own, and what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

from itaclip_hf import Vocabulary, load_method
from itaclip_hf.modeling import attention_maps, methods

OWN_METHOD = """
from itaclip_hf.modeling import get_method, register_attention_map, register_method

register_attention_map("half_qq", lambda attend, parts, value: attend(0.5 * parts.query, parts.query, value))
register_method(get_method("clearclip").derive("own", "Own", "here", {"attention_maps": ("half_qq",)}))
"""


@pytest.fixture
def separate_registries(monkeypatch):
    monkeypatch.setattr(methods, "_METHODS", dict(methods._METHODS))
    monkeypatch.setattr(attention_maps, "_MAPS", dict(attention_maps._MAPS))


def segment(itaclip, checkpoint, photo, out, *options):
    return itaclip("segment", photo, "--model", checkpoint, "--classes", "cat; sky", "--out", out, *options)


@pytest.mark.parametrize("name", ["maskclip", "naclip"])
def test_segment_runs_the_method_of_load_method(itaclip, checkpoint, photo, tmp_path, name):
    result = segment(itaclip, checkpoint, photo, tmp_path / "out", "--method", name)
    assert result.exit_code == 0, result.output
    model, processor = load_method(name, checkpoint)
    model.set_vocabulary(processor, Vocabulary(["cat", "sky"]))
    outputs = model(**processor(images=Image.open(photo), return_tensors="pt"))
    expected = processor.post_process_semantic_segmentation(outputs)[0].numpy()
    assert np.array_equal(np.array(Image.open(tmp_path / "out" / "photo_labels.png")), expected)
    assert json.loads((tmp_path / "out" / "photo.json").read_text())["settings"]["method"] == name


def test_preset_wins_over_the_method(itaclip, checkpoint, photo, tmp_path):
    for options, stride in (((), 112), (("--preset", "balanced"), 56)):
        out = tmp_path / str(stride)
        assert segment(itaclip, checkpoint, photo, out, "--method", "sclip", *options).exit_code == 0
        assert json.loads((out / "photo.json").read_text())["settings"]["window_stride"] == stride


def test_a_file_of_ones_own_makes_its_method_known(itaclip, checkpoint, photo, tmp_path, separate_registries):
    file = tmp_path / "own_methods.py"
    file.write_text(OWN_METHOD)
    for out in ("once", "twice"):  # the file is run once
        result = segment(itaclip, checkpoint, photo, tmp_path / out, "--method", f"{file}:own")
        assert result.exit_code == 0, result.output
    assert methods.get_method("own").title == "Own"


def test_unknown_methods_and_files_are_errors_of_use(itaclip, checkpoint, photo, tmp_path):
    for name, message in (
        ("nclip", "Expected a method out of clip, maskclip"),
        (f"{tmp_path}/nowhere.py:own", "Expected a Python file in `--method FILE.py:NAME`, but there is no"),
    ):
        result = segment(itaclip, checkpoint, photo, tmp_path / "out", "--method", name)
        assert (result.exit_code, message in result.output) == (2, True)


def test_demo_scenes_run_a_method_with_its_own_windows(itaclip, checkpoint, photo, tmp_path, monkeypatch):
    monkeypatch.setattr("itaclip_hf.samples.count_demo_scenes", lambda: 1)
    result = itaclip(
        "demo-scenes", "--model", checkpoint, "--method", "clip", "--image", photo, "--out", tmp_path / "out"
    )
    assert result.exit_code == 0, result.output
    assert "Method: CLIP, windows every 112 pixels" in result.output

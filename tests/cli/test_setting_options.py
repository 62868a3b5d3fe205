"""Options about the method: by name, of a file of one's own, presets, every single setting, and what is refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import typer.main
from PIL import Image

import itaclip_hf.cli
from itaclip_hf import Vocabulary, load_method
from itaclip_hf.cli.main import app
from itaclip_hf.cli.options.settings import SettingOptions
from itaclip_hf.methods import Settings, get_method, registry
from itaclip_hf.methods.settings import SETTING_NAMES, describe_setting
from itaclip_hf.modeling import attention_maps

CLI = Path(itaclip_hf.cli.__file__).parent

OWN_METHOD = """
from itaclip_hf.methods import get_method, register_method
from itaclip_hf.modeling import register_attention_map

register_attention_map("half_qq", lambda attend, parts, value: attend(0.5 * parts.query, parts.query, value))
register_method(get_method("clearclip").derive("own", "Own", "here", {"attention_maps": ("half_qq",)}))
"""


@pytest.fixture
def separate_registries(monkeypatch):
    known = dict(registry._methods())
    monkeypatch.setattr(registry, "_methods", lambda: known)
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
    assert get_method("own").title == "Own"


def test_unknown_methods_and_files_are_errors_of_use(itaclip, checkpoint, photo, tmp_path):
    for name, message in (
        ("nclip", "Expected a method out of clip, maskclip"),
        ("tcl", "also groupvit, car, clip-diy, tagclip, tagclip-crf, but got 'tcl'. docs/methods.md tells of them"),
        ("tagclip", "but tagclip is a system of its own. Use `load_method('tagclip', …)`, or `itaclip evaluate"),
        (f"{tmp_path}/nowhere.py:own", "Expected a Python file in `--method FILE.py:NAME`, but there is no"),
    ):
        result = segment(itaclip, checkpoint, photo, tmp_path / "out", "--method", name)
        assert (result.exit_code, message in result.output) == (2, True)
        assert "Loading" not in result.output


def test_demo_scenes_run_a_method_with_its_own_windows(itaclip, checkpoint, photo, tmp_path, monkeypatch):
    monkeypatch.setattr("itaclip_hf.samples.count_demo_scenes", lambda: 1)
    result = itaclip(
        "demo-scenes", "--model", checkpoint, "--method", "clip", "--image", photo, "--out", tmp_path / "out"
    )
    assert result.exit_code == 0, result.output
    assert "Method: CLIP, windows every 112 pixels" in result.output


@pytest.mark.parametrize("command", ["segment", "demo-scenes", "evaluate", "tune"])
def test_every_setting_is_an_option_with_its_help(command):
    options = {option.name: option for option in typer.main.get_command(app).commands[command].params}
    for name in SETTING_NAMES:
        assert options[name].opts == [f"--{name.replace('_', '-')}"]
        assert describe_setting(name).startswith(options[name].help)
        assert options[name].default is None


def test_no_setting_is_named_in_the_commands():
    names = re.compile("|".join(rf"\b{name}\b" for name in SETTING_NAMES))
    for path in CLI.rglob("*.py"):
        assert not names.findall(path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize(
    ("given", "changes"),
    [
        ({}, {}),
        ({"pamr_dilations": "4, 8"}, {"pamr_dilations": (4, 8)}),
        ({"attention_maps": "qq"}, {"attention_maps": ("qq",)}),
        ({"intermediate_layers": "none"}, {"intermediate_layers": ()}),
        ({"intermediate_layers": ""}, {"intermediate_layers": ()}),
        ({"area_threshold": "none", "shortest_edge": "64"}, {"area_threshold": None, "shortest_edge": 64}),
        ({"similarity_scale": "5e1", "closing": False}, {"similarity_scale": 50.0, "closing": False}),
    ],
)
def test_texts_of_options_are_values_of_settings(given, changes):
    assert SettingOptions(**given).changes() == changes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pamr-steps", "many"], "Expected `pamr_steps` to be a whole number from 0 to 1000, but got 'many'"),
        (["--pamr-steps", "1e12"], "Expected `pamr_steps` to be a whole number"),
        (["--score-threshold", "nan"], "Expected `score_threshold` to be a number from 0 to 1, but got nan"),
        (["--pamr-dilations", "8,x"], "Expected `pamr_dilations` to be a list"),
        (["--window-stride", "none"], "Expected `window_stride` to be a whole number"),
        (["--preset", "slow"], "Expected a preset out of paper, balanced, fast, live, demo, but got 'slow'"),
        (["--method", "clip", "--photometric-weight", "0.7"], "where `image_engineering` is False, but got one"),
        (["--window-size", "0", "--window-stride", "56"], "Expected no --window-stride, as it changes nothing"),
    ],
)
def test_values_that_mean_nothing_are_refused(itaclip, checkpoint, photo, tmp_path, options, message):
    result = segment(itaclip, checkpoint, photo, tmp_path / "out", *options)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_settings_change_what_they_say_and_win_over_preset_and_method(itaclip, checkpoint, photo, tmp_path):
    options = ["--method", "naclip", "--preset", "fast", "--window-stride", "96", "--score-threshold", "1"]
    options += ["--pamr-steps", "1", "--pamr-dilations", "4,8", "--area-threshold", "none", "--no-closing"]
    result = segment(itaclip, checkpoint, photo, tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "out" / "photo.json").read_text())["settings"]
    changes = {"window_stride": 96, "score_threshold": 1.0, "pamr_steps": 1, "pamr_dilations": (4, 8)}
    expected = get_method("naclip").settings().replace(**changes).to_json()
    assert written.items() >= expected.items()
    assert expected.keys() == Settings().to_json().keys()
    assert not np.array(Image.open(tmp_path / "out" / "photo_labels.png")).any()  # all scores are below 1

"""Published systems by name: one loader and one interface, whatever they need inside."""

import json
from typing import get_args

import pytest
import torch
from typer.testing import CliRunner

from itaclip_hf import Vocabulary, load_method, pipeline
from itaclip_hf.cli.main import app
from itaclip_hf.evaluation import Predictor, System, find_baseline
from itaclip_hf.evaluation.running.baselines import SYSTEMS
from itaclip_hf.method_loading import SystemName
from itaclip_hf.methods import Method, get_method, published_systems, register_method
from itaclip_hf.samples import SAMPLE_PHOTOS, load_demo_scene

WORDS = Vocabulary(["dog", "cat", "car"], background=["sky", "wall"])
OTHERS = Vocabulary(["dog", ["grass", "meadow"], "sky", "umbrella"])
SETTINGS = {"tagclip": {}, "tagclip-crf": {"pamr_steps": 2}, "car": {"pamr_steps": 2}, "clip-diy": {}}


def test_every_system_has_a_row_of_published_figures_and_a_name_for_type_checkers():
    assert set(SYSTEMS) == set(published_systems()) == set(get_args(SystemName))
    assert {SYSTEMS[name].title for name in SYSTEMS} == {row.title for row in published_systems().values()}
    assert published_systems()["tagclip-crf"].published["voc21"] == 68.7


@pytest.mark.parametrize("name", SETTINGS)
def test_load_method_gives_what_an_evaluation_runs(name):
    image, settings = load_demo_scene(1)[0].crop((0, 0, 90, 70)), SETTINGS[name]
    system = load_method(name, "demo", "voc21", **settings)
    assert isinstance(system, System) and not isinstance(system, Predictor)  # before it has words
    with pytest.raises(AttributeError, match=r"Expected words for .*set_vocabulary\(vocabulary\)` first"):
        system.predict(system.prepare_images([image]))
    for words in (OTHERS, WORDS):  # the second ones take the place of the first
        assert system.set_vocabulary(words) is system and isinstance(system, Predictor)
        evaluated = find_baseline("demo", name)("demo", words, "voc21", settings, "float32")
        assert json.loads(json.dumps(system.describe())) == evaluated.describe()
        (found,), (expected,) = (each.predict(each.prepare_images([image])) for each in (system, evaluated))
        assert found.labels.shape == found.confidence.shape == (image.height, image.width)
        assert torch.equal(found.labels, expected.labels)
        # Products of weights that lie elsewhere in memory may differ in the last bit.
        torch.testing.assert_close(found.confidence, expected.confidence, rtol=0, atol=1e-6)


def test_a_system_is_not_taken_apart():
    system = load_method("clip-diy", "demo")
    sentence = r"Expected a method that is settings of our model for `model` and `processor`, but CLIP-DIY is a system"
    with pytest.raises(TypeError, match=sentence):
        _model, _processor = system
    for part in ("model", "processor"):
        with pytest.raises(AttributeError, match=sentence):
            getattr(system, part)


def test_where_settings_alone_will_do_the_way_to_a_system_is_told(tmp_path):
    sentence = r"but tagclip is a system of its own. Use `load_method\('tagclip', …\)`"
    with pytest.raises(ValueError, match=sentence):
        get_method("tagclip")
    with pytest.raises(ValueError, match=sentence):
        pipeline(model="demo", method="tagclip")(load_demo_scene(0)[0], candidate_labels=["dog"])
    arguments = ["segment", SAMPLE_PHOTOS["coffee"], "--classes", "cat; sky", "--method", "tagclip", "--out", tmp_path]
    refused = CliRunner().invoke(app, [*map(str, arguments), "--model", "demo"])
    assert refused.exit_code == 2 and "tagclip is a system of its own" in refused.output
    with pytest.raises(ValueError, match="Expected a new name for the method, but 'car' is taken"):
        register_method(Method("car", "Car", "nowhere"))


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"Expected a benchmark out of voc21, .*, but got 'voc'"):
        load_method("tagclip", "demo", "voc")
    with pytest.raises(TypeError, match=r"Expected `pamr_steps` to be a whole number .*, but got 'many'"):
        load_method("tagclip", "demo", pamr_steps="many")
    with pytest.raises(ValueError, match="Expected a GroupViT checkpoint, but demo is of the type clip"):
        load_method("groupvit", "demo")

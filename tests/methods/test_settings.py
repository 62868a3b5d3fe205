"""The one home of settings: types and ranges, holders, and that defaults of the holders are the same."""

import re
from pathlib import Path

import numpy as np
import pytest

from itaclip_hf import ITACLIPConfig, ITACLIPImageProcessor, ITACLIPProcessor, load_demo
from itaclip_hf.methods import get_method, method_names, settings as home
from itaclip_hf.methods.settings import SETTING_NAMES, Settings, check_setting, describe_setting, setting_fields


@pytest.fixture(scope="module")
def demo():
    return load_demo()


def test_defaults_of_the_holders_are_those_of_the_settings(demo):
    processor = ITACLIPProcessor(ITACLIPImageProcessor(), demo.processor.tokenizer)
    assert Settings.of(ITACLIPConfig(), processor) == Settings()


def test_the_configuration_has_no_other_fields_of_its_own():
    held = {name for name, field in setting_fields().items() if field.metadata["holder"] == "config"}
    others = {"query_classes", "semantic_loss_ignore_index", "proxy_config"}  # of weights and labels, no settings
    assert {*ITACLIPConfig.__annotations__} - others == held


@pytest.mark.parametrize("method", method_names())
def test_configuration_and_settings_agree_on_who_needs_a_proxy(method):
    settings = get_method(method).settings()
    needs_proxy = method in ("proxyclip", "corrclip")
    assert ITACLIPConfig(**settings.held_by("config")).uses_proxy is settings.uses_proxy is needs_proxy


@pytest.mark.parametrize("name", SETTING_NAMES)
def test_a_setting_is_named_where_it_is_said_held_and_used_and_nowhere_else(name):
    package = Path(home.__file__).parents[1]
    named = [
        path.relative_to(package).as_posix()
        for path in sorted(package.rglob("*.py"))
        if re.search(rf"(?<!from \.)\b{name}\b(?!\.py)", path.read_text(encoding="utf-8"))
    ]
    assert len(named) <= 4, named


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("last_feed_forward", "false"), ("closing", "no"), ("image_engineering", -1), ("window_stride", "3"),
        ("window_batch_size", 0.5), ("attention_maps", 0), ("attention_maps", "qq"), ("pamr_steps", True),
        ("intermediate_layers", (7.5,)), ("similarity_scale", "40"), ("score_threshold", None),
    ],
)  # fmt: skip
def test_wrong_types_are_refused_and_nothing_is_taken_for_something(name, value):
    with pytest.raises(TypeError, match=f"Expected `{name}` to be .*, but got .*The paper's value is"):
        check_setting(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("similarity_scale", float("inf")), ("similarity_scale", 0), ("similarity_scale", float("nan")),
        ("pamr_steps", 10**12), ("pamr_steps", -1), ("window_size", -1), ("window_stride", 0), ("shortest_edge", -5),
        ("shortest_edge", 0), ("photometric_weight", 1.1), ("area_threshold", -0.1), ("pamr_dilations", (8, 0)),
        ("intermediate_layers", (0,)), ("window_batch_size", 0),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"Expected `{name}` to be .* from|above .*, but got"):
        check_setting(name, value)


def test_numbers_of_numpy_and_lists_become_plain_python():
    assert type(check_setting("similarity_scale", np.float32(40))) is float
    assert type(check_setting("pamr_steps", np.int64(3))) is int
    assert check_setting("pamr_dilations", [8, np.int32(16)]) == (8, 16)
    assert check_setting("area_threshold", None) is None


def test_an_unknown_setting_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"Expected settings out of attention_maps, .*closing, but got pamr"):
        Settings().replace(pamr=3)


def test_setting_a_field_of_a_loaded_model_or_processor_is_checked_at_once(demo):
    with pytest.raises(TypeError, match="Expected `last_feed_forward` to be true or false, but got 'false'"):
        demo.model.config.last_feed_forward = "false"
    with pytest.raises(ValueError, match="Expected `score_threshold` to be a number from 0 to 1, but got 2"):
        demo.processor.image_processor.score_threshold = 2
    with pytest.raises(ValueError, match="Expected `auxiliary_weight` to be a number from 0 to 1"):
        demo.processor.auxiliary_weight = -1
    assert Settings.of(*demo) == Settings()


def test_what_is_applied_is_what_is_read(demo):
    model, processor = load_demo()
    changed = Settings(
        attention_maps=("kk",), intermediate_layers=(3,), window_stride=56, pamr_steps=0, similarity_scale=50,
        shortest_edge=112, longest_edge=None, photometric_weight=0.5, auxiliary_weight=0, area_threshold=0.1,
        closing=False,
    )  # fmt: skip
    held = processor.image_processor
    changed.apply(model, processor)
    assert Settings.of(model, processor) == changed
    assert held.closing  # who else holds the image processor is not disturbed


def test_settings_that_do_not_go_together_are_refused(demo):
    model, processor = load_demo()
    with pytest.raises(ValueError, match=r"Expected `window_stride` <= `window_size`, but got 300 > 224"):
        Settings(window_stride=300).apply(model, processor)


def test_a_fixed_size_reads_as_no_edges_and_stays(demo):
    processor = ITACLIPProcessor(ITACLIPImageProcessor(size={"height": 20, "width": 30}), demo.processor.tokenizer)
    settings = Settings.of(demo.model, processor)
    assert (settings.shortest_edge, settings.longest_edge) == (None, None)
    settings.replace(closing=False).apply(demo.model.config, processor)
    assert dict(processor.image_processor.size) == {"height": 20, "width": 30}
    settings.replace(shortest_edge=30).apply(demo.model.config, processor)
    assert dict(processor.image_processor.size) == {"shortest_edge": 30}


def test_json_holds_what_results_depend_on_as_plain_values():
    values = Settings(window_batch_size=3).to_json()
    assert {*SETTING_NAMES} - values.keys() == {"window_batch_size"}
    assert values["pamr_dilations"] == [8, 16]
    assert Settings(**values) == Settings()
    assert Settings().to_json("processor") == {"auxiliary_weight": 0.2}


def test_every_setting_says_what_it_does_and_what_it_takes():
    assert describe_setting("pamr_steps") == "Steps of pixel refinement; 0: none. (a whole number from 0 to 1000)"
    assert all(describe_setting(name).count("(") >= 1 for name in SETTING_NAMES)

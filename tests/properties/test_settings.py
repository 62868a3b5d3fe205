"""Values of every type for every setting, wherever it can be set."""

import copy
import math

import numpy as np
import torch
from hypothesis import given, strategies as st

from itaclip_hf import ITACLIPConfig, ITACLIPImageProcessor, ITACLIPProcessor, Settings, load
from itaclip_hf.methods import get_method, get_preset
from itaclip_hf.methods.settings import SETTING_NAMES, setting_fields

from . import strategies as ours
from .outcomes import attempt

NAMES = st.sampled_from(SETTING_NAMES)
PICTURE = np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)


def check_value(name, value, held):
    """A value that is taken is the one that was given, of the right type, and a number is one."""
    kind = setting_fields()[name].metadata["values"].type
    for given_one, held_one in zip(_entries(value), _entries(held), strict=True):
        assert held_one is None or type(held_one) is kind, f"{held_one!r} is no {kind}"
        if held_one is not None and kind is not str:
            assert math.isfinite(held_one) and held_one == kind(given_one)
        else:
            assert held_one == given_one


def _entries(value):
    return list(value) if isinstance(value, list | tuple) else [value]


@given(NAMES, ours.VALUES)
def test_settings(name, value):
    attempt(
        "settings",
        lambda: Settings().replace(**{name: value}),
        lambda found: check_value(name, value, getattr(found, name)),
        (name, value),
    )


@given(NAMES, ours.VALUES, st.booleans())
def test_settings_of_parts(loaded, name, value, when_made):
    """On the configuration and the processors: when they are made, and set on one that is there."""
    holder = setting_fields()[name].metadata["holder"]
    values = {name: value}
    if name in ("shortest_edge", "longest_edge"):
        values = {"size": {name: value}}
    made = {
        "config": lambda: ITACLIPConfig(**values),
        "image_processor": lambda: ITACLIPImageProcessor(**values),
        "processor": lambda: ITACLIPProcessor(loaded.processor.image_processor, loaded.processor.tokenizer, **values),
    }

    def call():
        if when_made:
            return made[holder]()
        part = copy.deepcopy({"config": loaded.model.config, "processor": loaded.processor}.get(holder))
        part = ITACLIPImageProcessor() if part is None else part
        for field, each in values.items():
            setattr(part, field, each)
        return part

    def check(part):
        check_value(name, value, part.size[name] if "size" in values else getattr(part, name))

    attempt("settings of parts", call, check, (holder, name, value, when_made))


def _is_quick(settings):
    """Whether a run of it belongs into a test; large ones are right, and long."""
    edges = (settings.shortest_edge or 9999, settings.longest_edge or 9999)
    return (
        max(edges) <= 600
        and settings.pamr_steps <= 20
        and len(settings.pamr_dilations) <= 4
        and (settings.window_size == 0 or (settings.window_size >= 32 and settings.window_stride >= 16))
    )


@given(st.dictionaries(NAMES, st.one_of(ours.VALUES, ours.NUMBERS, st.floats(0, 1), st.integers(0, 60)), max_size=3))
def test_load_with_settings(loaded, changes):
    small = Settings.of(*loaded).to_json()

    def call():
        model, processor = load("demo", settings={**small, **changes})
        found = Settings.of(model, processor)
        for name, value in changes.items():
            check_value(name, value, getattr(found, name))
        if not _is_quick(found):
            return None
        model.set_queries(
            loaded.model.query_embeddings, loaded.model.config.query_classes, ["background", "dog", "sky"]
        )
        with torch.inference_mode():
            inputs = processor(images=PICTURE)
            outputs = model(**inputs)
            labels = model.predict_labels(processor, **inputs).labels
        return outputs, labels, processor.post_process_semantic_segmentation(outputs)

    def check(result):
        if result is None:
            return
        outputs, labels, maps = result
        scores = outputs.logits.exp()
        assert torch.isfinite(scores).all() and scores.min() >= 0 and scores.max() <= 1 + 1e-5
        assert maps[0].shape == PICTURE.shape[:2] and maps[0].min() >= 0 and maps[0].max() < 3
        assert (maps[0] == labels[0]).float().mean() > 0.99

    attempt("load(settings=…)", call, check, changes)


@given(st.sampled_from(["method", "benchmark", "preset", "dtype", "device", "vocabulary", "settings"]), ours.VALUES)
def test_names_of_load(name, value):
    attempt("names of load(…)", lambda: load("demo", **{name: value}), about=(name, value))


@given(ours.VALUES, ours.VALUES)
def test_names_of_methods(name, benchmark):
    attempt("names of methods", lambda: get_method(name), about=name)
    attempt("names of methods", lambda: get_preset(name), about=name)
    attempt("names of methods", lambda: get_method("sclip").settings(benchmark), about=benchmark)

"""The held-out test sets as `datasets.Dataset`."""

import datasets
import numpy as np
import pytest

from demo_world import dataset as world_dataset
from demo_world.dataset import (
    BENCHMARK_NAMES,
    benchmark_labels,
    compose_benchmark_scene,
    load_benchmark,
    vocabulary_dict,
)
from demo_world.sprites import HELD_OUT_STYLES

SIZE = (48, 64)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.mark.parametrize(("name", "classes"), [("world-stuff", 42), ("world-20", 21), ("world-object", 33)])
def test_columns_sizes_and_class_names(name, classes):
    test_set = load_benchmark(name, scenes=3, size=SIZE)
    assert len(test_set) == 3 and test_set.column_names == ["image", "label", "classes"]
    names = test_set.features["classes"].feature.names
    assert names == benchmark_labels(name) and len(names) == classes
    for row in test_set:
        assert row["image"].mode == "RGB" and row["image"].size == SIZE[::-1] == row["label"].size
        assert row["label"].mode == "L"
        assert np.unique(np.asarray(row["label"])).tolist() == row["classes"]


def test_streamed_scenes_equal_stored_ones():
    stored, streamed = load_benchmark(scenes=2, size=SIZE), load_benchmark(scenes=2, size=SIZE, streaming=True)
    for row, other in zip(stored, streamed, strict=True):
        assert np.array_equal(np.asarray(row["image"]), np.asarray(other["image"]))
        assert np.array_equal(np.asarray(row["label"]), np.asarray(other["label"]))


def test_a_longer_set_begins_with_the_shorter_one_and_seeds_differ():
    scene = compose_benchmark_scene("world-20", 1, size=SIZE)
    row = load_benchmark("world-20", scenes=4, size=SIZE)[1]
    assert np.array_equal(np.asarray(row["image"]), scene.image)
    assert not np.array_equal(compose_benchmark_scene("world-20", 1, seed=1, size=SIZE).image, scene.image)


def test_scenes_show_held_out_styles_only_unless_asked(monkeypatch):
    asked = []
    monkeypatch.setattr(world_dataset, "load_sprites", lambda styles, nouns: asked.append(styles) or {})
    world_dataset._composer.__wrapped__("world-stuff", HELD_OUT_STYLES, False)
    assert asked == [HELD_OUT_STYLES]
    assert load_benchmark.__defaults__ is not None and HELD_OUT_STYLES in load_benchmark.__defaults__


@pytest.mark.parametrize("name", BENCHMARK_NAMES)
def test_vocabulary_has_the_labels_of_the_set(name):
    from itaclip_hf import Vocabulary

    vocabulary = Vocabulary.from_dict(vocabulary_dict(name))
    assert vocabulary.labels == benchmark_labels(name)
    assert bool(vocabulary.background) == (name != "world-stuff")


def test_all_nouns_are_a_hundred():
    assert len(benchmark_labels("world-object", all_nouns=True)) == 101
    assert len(benchmark_labels("world-20", all_nouns=True)) == 21


def test_unknown_set_is_named():
    with pytest.raises(ValueError, match=r"Expected `name` to be one of .*world-stuff.* but got 'world-7'"):
        load_benchmark("world-7")  # type: ignore[call-overload]

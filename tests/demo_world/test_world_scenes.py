"""Scenes: the same seed gives the same picture, and the label map says exactly what can be seen."""

import numpy as np
import pytest
from PIL import Image

from demo_world.captions import caption_scene, choose_name
from demo_world.scenes import SceneComposer, SceneSettings
from demo_world.sprite_variation import vary_sprite
from demo_world.sprites import HELD_OUT_STYLES, SPRITE_SIZE, TRAINING_STYLES, Sprite, load_sprites
from demo_world.stuff import STUFF_GENERATORS, generate_stuff
from demo_world.vocabulary import load_world_classes

PURE = SceneSettings(objects=(2, 2), object_sizes=(40, 40), two_stuff_share=0, noise=0, photometric_variation=0)


def draw_black(name: str, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


def square(noun: str, color: tuple[int, int, int]) -> dict[str, list[Sprite]]:
    return {noun: [Sprite(noun, "test", Image.new("RGBA", (32, 32), (*color, 255)))]}


def compose_squares(settings: SceneSettings, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    sprites = square("red", (255, 0, 0)) | square("blue", (0, 0, 255))
    composer = SceneComposer(["black", "red", "blue"], sprites, ["black"], draw_black, settings)
    scene = composer.compose(np.random.default_rng(seed), 96, 128)
    return scene.image, scene.label


@pytest.fixture(scope="module")
def composer() -> SceneComposer:
    world = load_world_classes(small=True)
    sprites = load_sprites(TRAINING_STYLES, [noun.label for noun in world.nouns])
    return SceneComposer(world.labels, sprites, list(STUFF_GENERATORS), settings=SceneSettings(sprite_variation=1.0))


def test_same_seed_gives_same_scene_and_another_seed_another(composer):
    first, again, other = (composer.compose(np.random.default_rng(seed), 64, 96) for seed in (3, 3, 4))
    assert np.array_equal(first.image, again.image) and np.array_equal(first.label, again.label)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("size", [(32, 32), (50, 131), (224, 160)])
def test_any_size_gives_picture_and_labels_of_that_size(composer, size):
    scene = composer.compose(np.random.default_rng(0), *size)
    assert scene.image.shape == (*size, 3) and scene.image.dtype == np.uint8
    assert scene.label.shape == size and scene.label.dtype == np.uint8
    assert scene.label.max() < 42


@pytest.mark.parametrize("seed", range(8))
def test_every_pixel_carries_the_label_of_the_colour_that_is_seen(seed):
    image, label = compose_squares(PURE, seed)
    # Edges are blended and may go either way; everywhere else the colour tells the class, hidden parts included.
    red, blue = image[..., 0] > 200, image[..., 2] > 200
    assert red.any() or blue.any()
    assert np.all(label[red] == 1) and np.all(label[blue] == 2)
    assert np.all(label[image.max(-1) < 50] == 0)


def test_later_objects_hide_earlier_ones():
    crowded = SceneSettings(
        objects=(12, 12), object_sizes=(60, 60), two_stuff_share=0, noise=0, photometric_variation=0
    )
    image, label = compose_squares(crowded)
    assert {0, 1, 2} >= set(np.unique(label)) and (label > 0).mean() > 0.5
    assert np.all(label[image[..., 0] > 250] == 1) and np.all(label[image[..., 2] > 250] == 2)


def test_objects_may_leave_the_picture():
    outside = SceneSettings(objects=(6, 6), object_sizes=(40, 40), two_stuff_share=0, margin=-0.5)
    for seed in range(10):
        compose_squares(outside, seed)


def test_a_backdrop_that_is_no_class_is_background():
    composer = SceneComposer(["background", "red"], square("red", (255, 0, 0)), ["photo"], draw_black, PURE)
    label = composer.compose(np.random.default_rng(0), 64, 64).label
    assert set(np.unique(label)) == {0, 1}


@pytest.mark.parametrize("name", STUFF_GENERATORS)
def test_stuff_is_deterministic_and_varied(name):
    first, again, other = (generate_stuff(name, np.random.default_rng(seed), 40, 56) for seed in (0, 0, 1))
    assert first.shape == (40, 56, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert first.std() > 1


def test_variation_keeps_size_and_changes_colour():
    sprite = Image.new("RGBA", (20, 40), (200, 40, 40, 255))
    plain = vary_sprite(np.random.default_rng(0), sprite, 80, 0.0)
    varied = vary_sprite(np.random.default_rng(5), sprite, 80, 1.0)
    assert 70 < plain.shape[0] < 110 and plain.dtype == np.float32
    middle = plain.shape[0] // 2, plain.shape[1] // 2
    assert np.allclose(plain[middle], (200, 40, 40, 255), atol=2)
    assert np.abs(varied[varied.shape[0] // 2, varied.shape[1] // 2, :3] - (200, 40, 40)).max() > 5


def test_held_out_family_is_no_training_style():
    assert not set(TRAINING_STYLES) & set(HELD_OUT_STYLES)
    assert not any("fluent" in style for style in TRAINING_STYLES)
    assert all("fluent" in style for style in HELD_OUT_STYLES)


def test_every_noun_is_drawn_in_training_and_held_out_styles():
    nouns = [noun.label for noun in load_world_classes().nouns]
    assert len(nouns) == len(set(nouns)) == 100
    for styles, fewest in ((TRAINING_STYLES, 4), (HELD_OUT_STYLES, 3)):
        for drawings in load_sprites(styles, nouns).values():
            assert len({sprite.style for sprite in drawings}) >= fewest
            assert all(max(sprite.image.size) <= SPRITE_SIZE for sprite in drawings)


def test_unknown_style_and_noun_are_named():
    with pytest.raises(ValueError, match=r"Expected styles of .* but got \['oil-painting'\]"):
        load_sprites(["oil-painting"], ["dog"])
    with pytest.raises(ValueError, match=r"\['unicorn'\] have none"):
        load_sprites(["noto"], ["unicorn"])


def test_no_name_belongs_to_two_classes_and_every_definition_is_there():
    world = load_world_classes()
    names = [name for entry in world.classes for name in entry.names]
    assert len(names) == len(set(names))
    for entry in world.classes:
        assert 3 <= len(entry.definition.split()) < 40
        is_colour = entry.label == "orange"  # the fruit's definition may name the colour
        assert is_colour or entry.label not in entry.definition.split(), "a definition must not give its word away"


def test_caption_names_everything_that_is_there():
    world = load_world_classes(small=True)
    rng = np.random.default_rng(0)
    for _ in range(50):
        nouns = [world.nouns[index] for index in rng.permutation(len(world.nouns))[: rng.integers(0, 4)]]
        stuff = [world.stuff[index] for index in rng.permutation(len(world.stuff))[: rng.integers(1, 3)]]
        caption = caption_scene(rng, nouns, stuff)
        for entry in (*nouns, *stuff):
            assert any(text in caption for text in (*entry.names, entry.definition)), (caption, entry)


def test_names_are_mostly_labels_now_and_then_synonyms_or_definitions():
    dog = load_world_classes().nouns[0]
    rng = np.random.default_rng(0)
    chosen = [choose_name(rng, dog) for _ in range(2000)]
    assert 0.6 < chosen.count("dog") / 2000 < 0.8
    assert 0.05 < chosen.count(dog.definition) / 2000 < 0.15
    assert set(chosen) == {*dog.names, dog.definition}

"""Further drawings: named with their licences, painted in any colours, varied in style with their outline kept."""

import json

import numpy as np
import pytest
from PIL import Image

from demo_world.build_sprite_packs import DRAWINGS_FILE
from demo_world.sprite_painting import DrawingChooser, paint_sprite
from demo_world.sprites import (
    HELD_OUT_STYLES,
    PACKS_FOLDER,
    PAINTED_STYLES,
    TRAINING_STYLES,
    VALIDATION_STYLES,
    Sprite,
    load_sprites,
)
from demo_world.style_randomization import exchange_palette, randomize_style
from demo_world.vocabulary import load_world_classes

NOUNS = [noun.label for noun in load_world_classes(small=True).nouns]
FREE_LICENCES = {"MIT", "Apache-2.0", "CC-BY-4.0", "CC-BY-3.0", "CC0-1.0", "ISC"}
NO_PALETTE = np.zeros((0, 3), np.float32)


@pytest.fixture(scope="module")
def drawings() -> dict:
    return json.loads(DRAWINGS_FILE.read_text())


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def ink_and_paper() -> Image.Image:
    """A square of paper with a frame of ink."""
    tone = np.full((20, 20), 255, np.uint8)
    tone[:3] = tone[-3:] = tone[:, :3] = tone[:, -3:] = 0
    return Image.fromarray(np.stack([tone, np.full_like(tone, 255)], axis=-1), "LA")


def disc(color: tuple[int, int, int]) -> Image.Image:
    y, x = np.mgrid[-20:20, -20:20]
    alpha = ((y**2 + x**2 < 15**2) * 255).astype(np.uint8)
    shading = (y[..., None] + 20) / 80 + 0.5
    return Image.fromarray(np.dstack([np.array(color) * shading, alpha]).astype(np.uint8), "RGBA")


def test_every_set_has_a_free_licence_and_is_attributed(drawings):
    attribution = (PACKS_FOLDER / "ATTRIBUTION.md").read_text()
    for name, entry in drawings["sets"].items():
        assert entry["licence"] in FREE_LICENCES, name
        assert f"| `{name}` |" in attribution and entry["url"] in attribution, name


def test_packs_hold_what_is_listed_and_nothing_of_the_held_out_family(drawings):
    index = json.loads((PACKS_FOLDER / "index.json").read_text())["styles"]
    for pack, by_noun in drawings["packs"].items():
        assert index[pack] == [[noun, drawing] for noun, icons in by_noun.items() for drawing in icons]
        assert not any("fluent" in drawing for icons in by_noun.values() for drawing in icons)
    assert {name for name in drawings["sets"] if "fluent" in name} == set()


def test_no_style_and_no_drawing_is_for_two_uses(drawings):
    uses = [set(TRAINING_STYLES + PAINTED_STYLES), set(VALIDATION_STYLES), set(HELD_OUT_STYLES)]
    assert sum(map(len, uses)) == len(set.union(*uses))
    validation_sets, training_sets = (
        {drawing.split(":")[0] for pack in packs for icons in drawings["packs"][pack].values() for drawing in icons}
        for packs in (["validation"], ["streamline", "single-colour"])
    )
    assert not validation_sets & training_sets


def test_committed_artwork_is_small():
    assert sum(path.stat().st_size for path in PACKS_FOLDER.rglob("*.png")) < 12e6


def test_single_colour_drawings_are_ink_and_paper_for_every_noun():
    sprites = load_sprites(PAINTED_STYLES, NOUNS)
    assert list(sprites) == NOUNS and min(map(len, sprites.values())) >= 4
    assert {sprite.image.mode for drawn in sprites.values() for sprite in drawn} == {"LA"}


def test_nouns_without_a_drawing_are_left_out_on_request():
    sprites = load_sprites(VALIDATION_STYLES, NOUNS, needs_all=False)
    assert 0 < len(sprites) < len(NOUNS) and all(sprites.values())
    with pytest.raises(ValueError, match="Expected nouns with a sprite in"):
        load_sprites(VALIDATION_STYLES, NOUNS)


def test_ink_and_paper_get_a_colour_each(rng):
    for _ in range(20):
        pixels = np.asarray(paint_sprite(rng, ink_and_paper(), NO_PALETTE), np.int64)
        assert pixels.shape == (20, 20, 4) and (pixels[..., 3] == 255).all()
        frame = pixels[:3].reshape(-1, 4)
        assert (frame == frame[0]).all(), "ink has one colour"


def test_paint_follows_the_palette_of_the_noun(rng):
    painted = [paint_sprite(rng, ink_and_paper(), np.array([[1, 0, 0]], np.float32)) for _ in range(60)]
    share = np.mean([np.asarray(image)[10, 10, :3].tolist() == [255, 0, 0] for image in painted])
    assert 0.2 < share < 0.7


def test_chooser_mixes_coloured_and_painted_drawings(rng):
    chooser = DrawingChooser(
        {
            "both": [Sprite("both", "", disc((255, 0, 0))), Sprite("both", "", ink_and_paper())],
            "plain": [Sprite("plain", "", ink_and_paper())],
        }
    )
    sizes = [chooser.choose(rng, "both").size for _ in range(60)]
    assert 20 < sizes.count((40, 40)) < 55
    assert chooser.choose(rng, "plain").mode == "RGBA" and chooser.choose_colored(rng, "plain") is None


def test_style_changes_colours_and_keeps_what_is_drawn(rng):
    drawing, other = disc((200, 60, 20)), disc((20, 60, 200))
    before = np.asarray(drawing)
    varied = [np.asarray(randomize_style(rng, drawing, other)) for _ in range(40)]
    assert {image.shape for image in varied} == {before.shape}
    is_drawn = before[..., 3] > 127
    overlaps = [(image[..., 3] > 127)[is_drawn].mean() for image in varied]
    assert min(overlaps) > 0.75
    assert 5 < sum(not np.array_equal(image[..., :3], before[..., :3]) for image in varied) < 40


def test_exchanged_palette_has_the_mean_and_spread_of_the_other_drawing():
    pixels, other = (np.asarray(disc(color), np.float32) for color in ((200, 60, 20), (20, 60, 200)))
    color = exchange_palette(pixels[..., :3] / 255, pixels[..., 3:], other)
    visible = pixels[..., 3] > 0
    assert np.allclose(color[visible].mean(0), other[visible][:, :3].mean(0) / 255, atol=1e-3)

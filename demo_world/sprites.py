"""Reads the committed sprite packs: labelled artwork, in colour (RGBA) or in ink and paper to be painted (LA).

*Training* styles, *validation* styles (to steer a run by) and the *held-out* family (Microsoft's Fluent emoji, three
renderings of the same drawings) are disjoint lists: nothing that trains may name a style of the last two.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

__all__ = [
    "HELD_OUT_STYLES",
    "PACKS_FOLDER",
    "PAINTED_STYLES",
    "SPRITE_SIZE",
    "STRIP_LENGTH",
    "TRAINING_STYLES",
    "VALIDATION_STYLES",
    "Sprite",
    "load_sprites",
]

PACKS_FOLDER = Path(__file__).parent / "sprite_packs"
SPRITE_SIZE = 96
STRIP_LENGTH = 16
TRAINING_STYLES = ("noto", "noto-v1", "fxemoji", "twemoji", "emojione", "streamline")
PAINTED_STYLES = ("single-colour",)
VALIDATION_STYLES = ("validation",)
HELD_OUT_STYLES = ("fluent-emoji-flat", "fluent-emoji", "fluent-emoji-3d")


@dataclass(frozen=True)
class Sprite:
    """One drawing, cut to its visible box; `noun` is the label of what it shows.

    `image` is RGBA, or LA where colours are still to be chosen: 0 is ink, 255 is paper.
    """

    noun: str
    style: str
    image: Image.Image


@cache
def _load_style(style: str) -> tuple[Sprite, ...]:
    cells = json.loads((PACKS_FOLDER / "index.json").read_text())["styles"][style]
    sprites: list[Sprite] = []
    for start in range(0, len(cells), STRIP_LENGTH):
        strip: Image.Image = Image.open(PACKS_FOLDER / style / f"{start // STRIP_LENGTH:02d}.png")
        strip = strip if strip.mode == "LA" else strip.convert("RGBA")
        for column, (noun, _) in enumerate(cells[start : start + STRIP_LENGTH]):
            image = strip.crop((column * SPRITE_SIZE, 0, (column + 1) * SPRITE_SIZE, SPRITE_SIZE))
            sprites.append(Sprite(noun, style, image.crop(image.getchannel("A").getbbox())))
    return tuple(sprites)


def load_sprites(styles: Sequence[str], nouns: Sequence[str], needs_all: bool = True) -> dict[str, list[Sprite]]:
    """All sprites of the wanted styles, grouped by noun in the order of `nouns`.

    Without `needs_all`, nouns that no style draws are left out.

    Raises:
        ValueError: If a style has no pack, or, with `needs_all`, a noun has no sprite in any of the styles.
    """
    known = TRAINING_STYLES + PAINTED_STYLES + VALIDATION_STYLES + HELD_OUT_STYLES
    if unknown := set(styles) - {*known}:
        raise ValueError(f"Expected styles of {known}, but got {sorted(unknown)}.")
    sprites: dict[str, list[Sprite]] = {noun: [] for noun in nouns}
    for style in styles:
        for sprite in _load_style(style):
            if sprite.noun in sprites:
                sprites[sprite.noun].append(sprite)
    missing = [noun for noun, drawings in sprites.items() if not drawings]
    if missing and needs_all:
        raise ValueError(f"Expected nouns with a sprite in {tuple(styles)}, but {missing} have none.")
    return {noun: drawings for noun, drawings in sprites.items() if drawings}

"""Reads the committed sprite packs: labelled emoji artwork as RGBA pictures.

The *training* styles and the *held-out* family (Microsoft's Fluent emoji, three renderings of the same drawings) are
two disjoint lists: nothing that trains may name a held-out style.
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
    "SPRITE_SIZE",
    "STRIP_LENGTH",
    "TRAINING_STYLES",
    "Sprite",
    "load_sprites",
]

PACKS_FOLDER = Path(__file__).parent / "sprite_packs"
SPRITE_SIZE = 96
STRIP_LENGTH = 16
TRAINING_STYLES = ("noto", "noto-v1", "fxemoji", "twemoji", "emojione")
HELD_OUT_STYLES = ("fluent-emoji-flat", "fluent-emoji", "fluent-emoji-3d")


@dataclass(frozen=True)
class Sprite:
    """One drawing, cut to its visible box; `noun` is the label of what it shows."""

    noun: str
    emoji: str
    style: str
    image: Image.Image


@cache
def _load_style(style: str) -> tuple[Sprite, ...]:
    cells = json.loads((PACKS_FOLDER / "index.json").read_text())["styles"][style]
    sprites: list[Sprite] = []
    for start in range(0, len(cells), STRIP_LENGTH):
        strip = Image.open(PACKS_FOLDER / style / f"{start // STRIP_LENGTH:02d}.png").convert("RGBA")
        for column, (noun, emoji) in enumerate(cells[start : start + STRIP_LENGTH]):
            image = strip.crop((column * SPRITE_SIZE, 0, (column + 1) * SPRITE_SIZE, SPRITE_SIZE))
            sprites.append(Sprite(noun, emoji, style, image.crop(image.getchannel("A").getbbox())))
    return tuple(sprites)


def load_sprites(styles: Sequence[str], nouns: Sequence[str]) -> dict[str, list[Sprite]]:
    """All sprites of the wanted styles, grouped by noun in the order of `nouns`.

    Raises:
        ValueError: If a style has no pack, or a noun has no sprite in any of the styles.
    """
    if unknown := set(styles) - {*TRAINING_STYLES, *HELD_OUT_STYLES}:
        raise ValueError(f"Expected styles of {TRAINING_STYLES + HELD_OUT_STYLES}, but got {sorted(unknown)}.")
    sprites: dict[str, list[Sprite]] = {noun: [] for noun in nouns}
    for style in styles:
        for sprite in _load_style(style):
            if sprite.noun in sprites:
                sprites[sprite.noun].append(sprite)
    if missing := [noun for noun, drawings in sprites.items() if not drawings]:
        raise ValueError(f"Expected nouns with a sprite in {tuple(styles)}, but {missing} have none.")
    return sprites

"""Step 1 of a training sprite: which drawing of a noun, and in which colours.

Icons of a single colour come as ink and paper (LA). They are painted in two colours that, half of the time, stand in a
colour drawing of the same noun, so that colour stays a hint of the class; otherwise any colours will do. What remains
in common between all drawings of a noun is its shape.
"""

import colorsys
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from .sprites import Sprite

__all__ = ["DrawingChooser", "paint_sprite"]

# Most icons are schematic: a batch leans on the drawings in colour, which look more like what is to be recognised.
COLOR_SHARE = 0.65
PALETTE_SHARE, GRADIENT_SHARE, DARKER_LINE_SHARE = 0.5, 0.3, 0.6
PALETTE_SIZE = 24


class DrawingChooser:
    """Chooses a drawing of a noun and returns it in colour (RGBA).

    Args:
        sprites: Drawings by noun, in colour and as ink and paper.
    """

    def __init__(self, sprites: Mapping[str, Sequence[Sprite]]):
        images = {noun: [sprite.image for sprite in drawings] for noun, drawings in sprites.items()}
        self.colored = {noun: [image for image in drawn if image.mode != "LA"] for noun, drawn in images.items()}
        self.plain = {noun: [image for image in drawn if image.mode == "LA"] for noun, drawn in images.items()}
        self.palettes = {noun: _collect_palette(drawn) for noun, drawn in self.colored.items()}

    def choose(self, rng: np.random.Generator, noun: str) -> Image.Image:
        """A drawing in colours of its own, or one painted now."""
        colored, plain = self.colored[noun], self.plain[noun]
        if colored and (not plain or rng.random() < COLOR_SHARE):
            return colored[int(rng.integers(len(colored)))]
        return paint_sprite(rng, plain[int(rng.integers(len(plain)))], self.palettes[noun])

    def choose_colored(self, rng: np.random.Generator, noun: str) -> Image.Image | None:
        """A drawing in colours of its own, if there is one."""
        colored = self.colored[noun]
        return colored[int(rng.integers(len(colored)))] if colored else None


def paint_sprite(rng: np.random.Generator, sprite: Image.Image, palette: np.ndarray) -> Image.Image:
    """Paints ink and paper.

    Args:
        rng: Source of all choices.
        sprite: LA; 0 is ink, 255 is paper.
        palette: Colours that suit the noun, 0…1. (colours, 3); may be empty.

    Returns:
        RGBA.
    """
    tone, alpha = np.moveaxis(np.asarray(sprite, np.float32), -1, 0)
    body = _choose_color(rng, palette)
    ink = body * rng.uniform(0.1, 0.6) if rng.random() < DARKER_LINE_SHARE else _choose_color(rng, palette)
    tone = tone[..., None] / 255  # (height, width, 1)
    paper = np.broadcast_to(body, (*tone.shape[:2], 3))
    if rng.random() < GRADIENT_SHARE:
        paper = paper + _slope(rng, *tone.shape[:2]) * (_choose_color(rng, palette) - body)
    painted = np.concatenate([(ink + tone * (paper - ink)) * 255, alpha[..., None]], axis=-1)
    return Image.fromarray(np.clip(painted, 0, 255).astype(np.uint8), "RGBA")


def _collect_palette(images: Sequence[Image.Image]) -> np.ndarray:
    """The colours that fill the drawings most. (colours, 3) in 0…1."""
    palette = [np.zeros((0, 3), np.float32)]
    for image in images:
        pixels = np.asarray(image, np.float32)
        visible = pixels[pixels[..., 3] > 200][:, :3]
        # Evenly spaced pixels stand for areas: no clustering, no randomness.
        palette.append(visible[np.linspace(0, len(visible) - 1, PALETTE_SIZE).astype(int)] / 255)
    return np.concatenate(palette)


def _choose_color(rng: np.random.Generator, palette: np.ndarray) -> np.ndarray:
    """One of the palette, or any colour, bright and saturated ones more often. (3,)."""
    if len(palette) and rng.random() < PALETTE_SHARE:
        return palette[rng.integers(len(palette))]
    saturation, value = rng.random() ** 0.7, 1 - 0.9 * rng.random() ** 1.5
    return np.asarray(colorsys.hsv_to_rgb(rng.random(), saturation, value), np.float32)


def _slope(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """From 0 to 1 in a random direction. (height, width, 1)."""
    y, x = np.linspace(-0.5, 0.5, height)[:, None], np.linspace(-0.5, 0.5, width)[None]
    angle = rng.uniform(0, 2 * np.pi)
    return np.clip(np.cos(angle) * x + np.sin(angle) * y + 0.5, 0, 1)[..., None].astype(np.float32)

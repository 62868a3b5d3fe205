"""Draws one sprite in a new way: size, turn, stretch, and, for training, colours, shading and edges.

The stronger changes close part of the gap between drawing styles: what is left in common is shape.
"""

import numpy as np
from PIL import Image, ImageFilter

__all__ = ["vary_sprite"]

GRAY_WEIGHTS = np.array([0.2989, 0.587, 0.114], np.float32)


def vary_sprite(rng: np.random.Generator, sprite: Image.Image, size: int, strength: float) -> np.ndarray:
    """Resizes a sprite to `size` px (longest side), mirrors and turns it, and varies it with the given strength.

    Returns:
        RGBA, float32 (height, width, 4) in 0…255.
    """
    sprite = _resize_and_turn(rng, sprite, size, stretch=0.05 + 0.15 * strength)
    if strength and rng.random() < 0.25 * strength:
        sprite = _outline(rng, sprite)
    if strength and rng.random() < 0.25 * strength:
        sprite = sprite.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.5)))
    pixels = np.asarray(sprite, np.float32)
    if not strength:
        return pixels
    color = _recolor(rng, pixels[..., :3] / 255, strength)
    color = _shade(rng, color, strength)
    return np.concatenate([np.clip(color * 255, 0, 255), pixels[..., 3:]], axis=-1)


def _resize_and_turn(rng: np.random.Generator, sprite: Image.Image, size: int, stretch: float) -> Image.Image:
    scale = size / max(sprite.size)
    aspect = np.exp(rng.uniform(-stretch, stretch))
    width, height = (
        max(4, round(side * scale * factor)) for side, factor in zip(sprite.size, (aspect, 1 / aspect), strict=True)
    )
    # Premultiplied alpha keeps the colour hidden under transparent pixels from bleeding into the edges.
    sprite = sprite.convert("RGBa").resize((width, height), Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return sprite.rotate(rng.uniform(-20, 20), Image.Resampling.BILINEAR, expand=True).convert("RGBA")


def _outline(rng: np.random.Generator, sprite: Image.Image) -> Image.Image:
    """A dark or white line around the drawing."""
    tone = int(rng.integers(0, 60)) if rng.random() < 0.6 else 250
    line = Image.new("RGBA", sprite.size, (tone, tone, tone, 0))
    line.putalpha(sprite.getchannel("A").filter(ImageFilter.MaxFilter(int(rng.choice([3, 5])))))
    line.alpha_composite(sprite)
    return line


def _recolor(rng: np.random.Generator, color: np.ndarray, strength: float) -> np.ndarray:
    """Turns the hue, scales saturation and contrast, bends the tone curve. (height, width, 3) in 0…1."""
    angle = rng.normal(0, 0.6) * strength if rng.random() < 0.6 else 0.0
    saturation = np.exp(rng.normal(0, 0.35) * strength)
    matrix = saturation * _hue_rotation(angle) + (1 - saturation) * np.tile(GRAY_WEIGHTS, (3, 1))
    color = np.clip(color @ matrix.T.astype(np.float32), 0, 1) ** np.float32(np.exp(rng.normal(0, 0.3) * strength))
    contrast = rng.uniform(1 - 0.3 * strength, 1 + 0.2 * strength)
    return (
        (color - 0.5) * np.float32(contrast) + np.float32(0.5) + rng.normal(0, 0.06 * strength, 3).astype(np.float32)
    )


def _hue_rotation(angle: float) -> np.ndarray:
    """Rotation of RGB about the grey axis by `angle` radians. (3, 3)."""
    cosine, sine = np.cos(angle), np.sin(angle) / np.sqrt(3)
    third = (1 - cosine) / 3
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], np.float32)
    return cosine * np.eye(3) + third * np.ones((3, 3)) + sine * cross


def _shade(rng: np.random.Generator, color: np.ndarray, strength: float) -> np.ndarray:
    """Light falling from one side, with a soft highlight: flat drawings look rendered. (height, width, 3)."""
    if rng.random() > 0.6:
        return color
    height, width = color.shape[:2]
    y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)[None]
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y
    center_y, center_x = rng.uniform(-0.7, 0.7, 2).astype(np.float32)
    glow = np.exp(-((x - center_x) ** 2 + (y - center_y) ** 2) * np.float32(rng.uniform(2, 8)))
    light = np.float32(rng.normal(0, 0.22 * strength)) * slope + np.float32(rng.normal(0, 0.2 * strength)) * glow
    return color * (1 + light[..., None])

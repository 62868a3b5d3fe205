"""Step 2 of a training sprite: the same drawing as if by another hand.

Each change keeps the outline, which carries the class, and breaks what only tells drawing styles apart: colours of
another drawing of the noun, a random small convolution (Xu et al., 2021, "RandConv"), a texture, a slant.
"""

import numpy as np
from PIL import Image

__all__ = ["exchange_palette", "randomize_style"]

PALETTE_SHARE, CONVOLUTION_SHARE, TEXTURE_SHARE, SLANT_SHARE = 0.2, 0.25, 0.15, 0.4


def randomize_style(rng: np.random.Generator, sprite: Image.Image, other: Image.Image | None) -> Image.Image:
    """Varies a drawing; `other` is another drawing of the same noun that may lend its colours. RGBA to RGBA."""
    if rng.random() < SLANT_SHARE:
        sprite = _slant(rng, sprite)
    wants_palette, wants_convolution, wants_texture = rng.random(3) < (PALETTE_SHARE, CONVOLUTION_SHARE, TEXTURE_SHARE)
    if not (wants_palette or wants_convolution or wants_texture):
        return sprite
    pixels = np.asarray(sprite, np.float32)
    color, alpha = pixels[..., :3] / 255, pixels[..., 3:]
    if other is not None and wants_palette:
        color = exchange_palette(color, alpha, np.asarray(other, np.float32))
    if wants_convolution:
        color = _convolve(rng, color, alpha)
    if wants_texture:
        color = _roughen(rng, color)
    varied = np.concatenate([np.clip(color, 0, 1) * 255, alpha], axis=-1)
    return Image.fromarray(varied.astype(np.uint8), "RGBA")


def exchange_palette(color: np.ndarray, alpha: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Gives a drawing the mean and the spread of another one's colours.

    Args:
        color: (height, width, 3) in 0…1.
        alpha: (height, width, 1) in 0…255.
        other: RGBA in 0…255, of any size.
    """
    mean, spread = _measure(color, alpha)
    other_mean, other_spread = _measure(other[..., :3] / 255, other[..., 3:])
    return (color - mean) / np.maximum(spread, 0.02) * other_spread + other_mean


def _convolve(rng: np.random.Generator, color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """A random 1x1 or 3x3 filter, mixed with the original; mean and spread of each channel are kept."""
    size = 1 if rng.random() < 0.5 else 3
    weights = rng.normal(0, 1 / np.sqrt(3 * size * size), (size, size, 3, 3)).astype(np.float32)
    margin = size // 2
    padded = np.pad(color, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    height, width = color.shape[:2]
    filtered = sum(
        padded[row : row + height, column : column + width] @ weights[row, column]
        for row in range(size)
        for column in range(size)
    )
    mean, spread = _measure(color, alpha)
    filtered_mean, filtered_spread = _measure(filtered, alpha)
    filtered = (filtered - filtered_mean) / np.maximum(filtered_spread, 1e-3) * spread + mean
    return color + np.float32(rng.uniform(0.2, 1)) * (filtered - color)


def _roughen(rng: np.random.Generator, color: np.ndarray) -> np.ndarray:
    """Smooth noise of a random grain, as of paper, wool or brush."""
    height, width = color.shape[:2]
    rows, columns = rng.integers(3, 40, 2)
    noise = Image.fromarray(rng.normal(0, 1, (rows, columns)).astype(np.float32))
    grain = np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC))
    return color * (1 + np.float32(rng.uniform(0.05, 0.25)) * grain[..., None])


def _slant(rng: np.random.Generator, sprite: Image.Image) -> Image.Image:
    """Moves the corners: a slight turn out of the plane."""
    width, height = sprite.size
    reach = np.array([width, height]) * 0.14
    corners = np.array([[0, 0], [0, height], [width, height], [width, 0]], np.float32)
    corners = corners + rng.uniform(-1, 1, (4, 2)) * reach
    outside = np.max(np.abs(corners - np.clip(corners, 0, [width, height])))
    margin = int(np.ceil(outside)) + 1
    # Room for what the corners push outwards.
    roomy = Image.new("RGBa", (width + 2 * margin, height + 2 * margin))
    roomy.paste(sprite.convert("RGBa"), (margin, margin))
    quad = tuple((corners + margin).ravel().tolist())
    return roomy.transform((width, height), Image.Transform.QUAD, quad, Image.Resampling.BILINEAR).convert("RGBA")


def _measure(color: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, weighted by opacity. (3,), (3,)."""
    weights, flat = alpha.reshape(-1), color.reshape(-1, 3)
    weights = weights / max(float(weights.sum()), 1.0)
    mean = weights @ flat
    return mean, np.sqrt(np.maximum(weights @ (flat * flat) - mean * mean, 0))

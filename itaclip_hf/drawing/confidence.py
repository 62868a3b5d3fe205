"""Pictures of scores between 0 and 1: in colours for people, also over a part of a picture, in grey for programs."""

import numpy as np
from PIL import Image

from .palette import PAPER

__all__ = ["draw_confidence", "draw_heat", "to_grey_image"]

CONFIDENCE_COLORS = (  # from dark violet (0) by way of magenta and orange to pale yellow (1): lightness rises evenly
    (13, 8, 35),
    (87, 20, 110),
    (165, 44, 96),
    (229, 92, 48),
    (251, 164, 10),
    (252, 255, 190),
)
HEAT_OPACITY = 0.65


def draw_confidence(confidence: np.ndarray) -> Image.Image:
    """RGB picture of scores between 0 (dark violet) and 1 (pale yellow), (height, width)."""
    places = np.linspace(0, 1, len(CONFIDENCE_COLORS))
    stops = np.array(CONFIDENCE_COLORS, dtype=float)
    channels = [np.interp(np.clip(confidence, 0, 1), places, stops[:, channel]) for channel in range(3)]
    return Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8))


def draw_heat(image: Image.Image, scores: np.ndarray, box: tuple[float, float, float, float]) -> Image.Image:
    """Lay coarse scores over a part of a picture; the rest is dimmed.

    Args:
        image: RGB picture.
        scores: Between 0 and 1, (rows, columns), one for each cell of the part.
        box: (top, left, bottom, right) of the part, in pixels.
    """
    top, left, bottom, right = map(round, box)
    heat = draw_confidence(scores).resize((right - left, bottom - top), Image.Resampling.NEAREST)
    drawn = Image.blend(image, Image.new("RGB", image.size, PAPER), 0.6)
    drawn.paste(Image.blend(image.crop((left, top, right, bottom)), heat, HEAT_OPACITY), (left, top))
    return drawn


def to_grey_image(scores: np.ndarray) -> Image.Image:
    """Scores between 0 and 1, (height, width), as a 16-bit grey image from 0 to 65535, exact to 1e-5."""
    return Image.fromarray((np.clip(scores, 0, 1) * 65535).round().astype(np.uint16))

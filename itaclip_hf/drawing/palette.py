"""Colours: of labels, the same for an id in every picture, and of paper and ink. NumPy only."""

from collections.abc import Sequence
from functools import cache

import numpy as np

__all__ = ["BACKGROUND_COLOR", "FAINT", "INK", "PAPER", "colorize", "find_color", "make_palette"]

PALETTE_SIZE = 256
BACKGROUND_COLOR = (38, 40, 46)
PAPER, INK, FAINT = (255, 255, 255), (24, 26, 30), (110, 114, 122)


@cache
def make_palette(has_background: bool = False) -> tuple[tuple[int, int, int], ...]:
    """256 colours that are as far from each other as can be, the first ones farthest.

    Each colour is the one with the greatest distance, in the OKLab colour space, to all before it. The same id has the
    same colour in every picture.

    Args:
        has_background: Whether label 0 is the background: it becomes dark grey and the others keep their order.

    Returns:
        (red, green, blue) of each label, 0 to 255.
    """
    axis = np.linspace(0, 255, 18).round()
    colors = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _rgb_to_oklab(colors)
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    # Near black, near white and grey stay for outlines, names and the background; neon colours hurt the eye.
    is_usable = (lab[:, 0] > 0.38) & (lab[:, 0] < 0.93) & (chroma > 0.06) & (chroma < 0.21)
    colors, lab = colors[is_usable], lab[is_usable]
    chosen = [int(np.argmin(np.linalg.norm(lab - _rgb_to_oklab(np.array([[66.0, 120.0, 245.0]])), axis=1)))]
    distances = np.full(len(lab), np.inf)
    for _ in range(PALETTE_SIZE - 1):
        distances = np.minimum(distances, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
        chosen.append(int(np.argmax(distances.round(6))))  # rounding makes ties the same on every machine
    palette = [(int(red), int(green), int(blue)) for red, green, blue in colors[chosen]]
    return tuple([BACKGROUND_COLOR, *palette[:-1]] if has_background else palette)


def find_color(label: int, palette: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    """The colour of a label; ids beyond the palette begin again at its second colour."""
    # The first colour may be the background's and shall not come back.
    return palette[label if label < len(palette) else 1 + (label - 1) % (len(palette) - 1)]


def colorize(labels: np.ndarray, palette: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """Colours of a label map: (height, width) -> (height, width, 3), uint8."""
    colors = [find_color(label, palette) for label in range(int(labels.max()) + 1)]
    return np.array(colors, dtype=np.uint8)[labels]


def _rgb_to_oklab(colors: np.ndarray) -> np.ndarray:
    """OKLab (Ottosson 2020) of sRGB colours between 0 and 255: (n, 3) -> (n, 3)."""
    share = colors / 255
    linear = np.where(share > 0.04045, ((share + 0.055) / 1.055) ** 2.4, share / 12.92)
    to_cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return np.cbrt(linear @ to_cones.T) @ to_lab.T

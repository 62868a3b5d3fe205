"""Photo backdrops: crops of a few CC0 panoramas, for scenes whose background is no class."""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["PANORAMAS", "PANORAMAS_FOLDER", "draw_panorama"]

PANORAMAS_FOLDER = Path(__file__).parent / "panoramas"
PANORAMAS = ("apartment", "city", "dawn", "lobby", "park", "sunset", "venice")


@cache
def _load_panorama(name: str) -> Image.Image:
    return Image.open(PANORAMAS_FOLDER / f"{name}.jpg").convert("RGB")


def draw_panorama(name: str, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A random crop around the horizon, mirrored half of the time. uint8 (height, width, 3)."""
    panorama = _load_panorama(name)
    # Near the poles an equirectangular panorama is stretched beyond recognition: keep to the middle.
    crop_height = panorama.height * rng.uniform(0.5, 0.75)
    crop_width = min(panorama.width, crop_height * width / height)
    crop_height = crop_width * height / width
    top = rng.uniform(0.1, 0.95) * (panorama.height - crop_height)
    left = rng.uniform(0, panorama.width - crop_width)
    box = (left, top, left + crop_width, top + crop_height)
    picture = np.asarray(panorama.resize((width, height), Image.Resampling.BICUBIC, box=box))
    return picture[:, ::-1] if rng.random() < 0.5 else picture

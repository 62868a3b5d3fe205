"""Procedural textures of *stuff*: sky, grass, water, sand, snow, brick, wood, road, stone, tile.

Every generator takes a random generator and a size and returns a picture, float32 (height, width, 3) in 0…1; nothing
is read from disk. Colours, scales and directions are drawn at random, so that a texture and not a colour is the class.
"""

import colorsys
from collections.abc import Callable

import numpy as np
from PIL import Image

__all__ = ["STUFF_GENERATORS", "generate_stuff"]

Range = tuple[float, float]


def generate_stuff(name: str, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draws one picture of `name`, uint8 (height, width, 3)."""
    picture = STUFF_GENERATORS[name](rng, height, width)
    return np.clip(picture * 255, 0, 255).astype(np.uint8)


def _noise(rng: np.random.Generator, height: int, width: int, cell_height: float, cell_width: float) -> np.ndarray:
    """Smooth noise in about -1…1: random values on a grid of cells, bicubic in between. (height, width)."""
    rows, columns = max(2, round(height / cell_height) + 1), max(2, round(width / cell_width) + 1)
    grid = Image.fromarray(rng.uniform(-1, 1, (rows, columns)).astype(np.float32))
    return np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC))


def _fractal(
    rng: np.random.Generator, height: int, width: int, cell_height: float, cell_width: float, octaves: int = 4
) -> np.ndarray:
    """Sum of noises, each half as wide and half as strong as the one before. (height, width)."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        scale = 0.5**octave
        total += scale * _noise(rng, height, width, max(1, cell_height * scale), max(1, cell_width * scale))
    return total / (2 - 2 * 0.5**octaves)


def _grain(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return rng.standard_normal((height, width), np.float32)


def _color(rng: np.random.Generator, hue: Range, saturation: Range, value: Range) -> np.ndarray:
    """A random colour; each argument is (low, high), the hue as a share of the circle."""
    return np.asarray(
        colorsys.hsv_to_rgb(rng.uniform(*hue) % 1, rng.uniform(*saturation), rng.uniform(*value)),
        np.float32,
    )


def _shade(color: np.ndarray, lightness: np.ndarray) -> np.ndarray:
    """Colour times (1 + lightness). (3,), (height, width) -> (height, width, 3)."""
    return color * (1 + lightness[..., None])


def _blend(below: np.ndarray, above: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    return below + (above - below) * np.clip(opacity, 0, 1)[..., None]


def _sky(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    top, bottom = (
        _color(rng, (0.56, 0.64), (0.45, 0.85), (0.65, 0.95)),
        _color(rng, (0.52, 0.62), (0.1, 0.5), (0.85, 1)),
    )
    fall = np.linspace(0, 1, height, dtype=np.float32)[:, None] ** rng.uniform(0.6, 1.6) * np.ones(
        (1, width), np.float32
    )
    sky = _blend(top * np.ones((height, width, 3), np.float32), bottom, fall)
    clouds = _fractal(rng, height, width, rng.uniform(40, 90), rng.uniform(60, 150), 5)
    cloud_color = np.float32(rng.uniform(0.88, 1.0)) + 0.08 * _fractal(rng, height, width, 20, 20, 2)[..., None]
    return _blend(sky, cloud_color, (clouds - rng.uniform(0.0, 0.45)) * rng.uniform(3, 7))


def _grass(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    color = _color(rng, (0.24, 0.36), (0.5, 0.95), (0.35, 0.7))
    blades = _noise(rng, height, width, rng.uniform(4, 9), 1.2) + 0.5 * _grain(rng, height, width)
    return _shade(color, 0.3 * _fractal(rng, height, width, 50, 50) + rng.uniform(0.1, 0.28) * blades)


def _water(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    color = _color(rng, (0.53, 0.63), (0.55, 0.95), (0.4, 0.8))
    waves = _fractal(rng, height, width, rng.uniform(6, 14), rng.uniform(40, 90), 4)
    water = _shade(color, 0.55 * waves + 0.15 * _fractal(rng, height, width, 60, 120, 2))
    return _blend(water, np.float32(0.95), (waves - rng.uniform(0.35, 0.6)) * 2.5)


def _sand(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    color = _color(rng, (0.09, 0.15), (0.3, 0.6), (0.75, 0.97))
    ripples = _fractal(rng, height, width, rng.uniform(8, 20), rng.uniform(30, 120), 3)
    lightness = (
        0.14 * _fractal(rng, height, width, 60, 60)
        + 0.1 * ripples
        + rng.uniform(0.03, 0.08) * _grain(rng, height, width)
    )
    return _shade(color, lightness)


def _snow(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    color = _color(rng, (0.5, 0.7), (0.0, 0.1), (0.92, 1))
    shadow = np.clip(_fractal(rng, height, width, rng.uniform(40, 100), rng.uniform(40, 120)), -1, 0.2)
    snow = _shade(color, 0.2 * shadow + 0.02 * _grain(rng, height, width))
    snow[..., 2] += 0.06 * np.clip(-shadow, 0, 1)
    return snow


def _masonry(
    rng: np.random.Generator, height: int, width: int, row_height: float, brick_width: float
) -> tuple[np.ndarray, np.ndarray]:
    """Running bond: distance of each pixel to the nearest joint (pixels) and the number of its brick."""
    y = np.arange(height, dtype=np.float32)[:, None] + rng.uniform(0, row_height)
    x = np.arange(width, dtype=np.float32)[None] + rng.uniform(0, brick_width)
    row = np.floor(y / row_height)
    shifted = x + row % 2 * brick_width / 2
    column = np.floor(shifted / brick_width)
    to_row_joint, to_joint = y - row * row_height, shifted - column * brick_width
    distance = np.minimum(
        np.minimum(to_row_joint, row_height - to_row_joint), np.minimum(to_joint, brick_width - to_joint)
    )
    return distance, (row * 1009 + column).astype(np.int64)


def _vary(rng: np.random.Generator, cells: np.ndarray, amount: float) -> np.ndarray:
    """One random lightness for every cell number."""
    return rng.uniform(-amount, amount, 4096).astype(np.float32)[cells % 4096]


def _brick(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    row_height = rng.uniform(10, 24)
    distance, bricks = _masonry(rng, height, width, row_height, row_height * rng.uniform(2, 3))
    color, mortar = _color(rng, (-0.01, 0.06), (0.5, 0.8), (0.5, 0.8)), _color(rng, (0, 1), (0.0, 0.15), (0.55, 0.85))
    lightness = _vary(rng, bricks, rng.uniform(0.08, 0.25)) + 0.15 * _fractal(rng, height, width, 12, 12, 3)
    brick = _shade(color, lightness + 0.06 * _grain(rng, height, width))
    return _blend(_shade(mortar, 0.08 * _grain(rng, height, width)), brick, distance - rng.uniform(0.3, 1.2))


def _wood(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    if rng.random() < 0.5:
        return _wood_upright(rng, width, height).transpose(1, 0, 2)
    return _wood_upright(rng, height, width)


def _wood_upright(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    plank = rng.uniform(22, 60)
    x = np.arange(width, dtype=np.float32) + rng.uniform(0, plank)
    boards = np.broadcast_to(np.floor(x / plank).astype(np.int64), (height, width))
    to_gap = np.broadcast_to(np.minimum(x % plank, plank - x % plank), (height, width))
    color = _color(rng, (0.04, 0.1), (0.5, 0.8), (0.45, 0.8))
    rings = np.sin(9 * _noise(rng, height, width, rng.uniform(60, 160), rng.uniform(8, 20)) + 0.5 * x)
    grain = _noise(rng, height, width, 40, 1.5)
    wood = _shade(color, _vary(rng, boards, 0.18) + 0.07 * rings + 0.14 * grain + 0.02 * _grain(rng, height, width))
    return _blend(0.25 * color * np.ones_like(wood), wood, to_gap - 0.3)


def _road(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    color = _color(rng, (0, 1), (0.0, 0.1), (0.22, 0.42))
    road = _shade(
        color, 0.15 * _fractal(rng, height, width, 60, 60) + rng.uniform(0.08, 0.16) * _grain(rng, height, width)
    )
    if rng.random() < 0.7:
        angle, (center_y, center_x) = rng.uniform(0, np.pi), rng.uniform(0.2, 0.8, 2) * (height, width)
        y, x = np.mgrid[:height, :width].astype(np.float32)
        across = (x - center_x) * np.cos(angle) + (y - center_y) * np.sin(angle)
        along = (y - center_y) * np.cos(angle) - (x - center_x) * np.sin(angle)
        dashed = along % rng.uniform(35, 60) < rng.uniform(18, 30) if rng.random() < 0.7 else np.ones_like(along, bool)
        line = (
            _color(rng, (0.11, 0.14), (0.5, 0.8), (0.8, 0.95))
            if rng.random() < 0.5
            else np.array([0.9, 0.9, 0.88], np.float32)
        )
        road = _blend(road, line, (rng.uniform(2, 4) - np.abs(across)) * dashed * 0.9)
    return road


def _stone(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    nearest, second, stones = _voronoi(rng, height, width, rng.uniform(14, 30))
    color = _color(rng, (0.02, 0.12) if rng.random() < 0.5 else (0.55, 0.75), (0.0, 0.18), (0.4, 0.65))
    lightness = (
        _vary(rng, stones, 0.2) + 0.15 * _fractal(rng, height, width, 10, 10, 3) + 0.06 * _grain(rng, height, width)
    )
    return _blend(
        0.3 * color * np.ones((height, width, 3), np.float32), _shade(color, lightness), (second - nearest - 1.2) / 1.5
    )


def _voronoi(
    rng: np.random.Generator, height: int, width: int, cell: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances to the nearest and second nearest of the jittered grid points, and the nearest one's number."""
    rows, columns = int(height / cell) + 3, int(width / cell) + 3
    jitter = rng.uniform(0.1, 0.9, (rows, columns, 2)).astype(np.float32)
    points = (np.moveaxis(np.mgrid[:rows, :columns], 0, -1) - 1 + jitter) * cell
    y, x = np.mgrid[:height, :width].astype(np.float32)
    row, column = (y / cell).astype(np.int64) + 1, (x / cell).astype(np.int64) + 1
    nearest, second = np.full((2, height, width), np.inf, np.float32)
    stones = np.zeros((height, width), np.int64)
    for row_step in (-1, 0, 1):
        for column_step in (-1, 0, 1):
            neighbor = points[row + row_step, np.minimum(column + column_step, columns - 1)]
            distance = np.hypot(neighbor[..., 0] - y, neighbor[..., 1] - x)
            second = np.minimum(second, np.maximum(nearest, distance))
            stones = np.where(distance < nearest, (row + row_step) * columns + column + column_step, stones)
            nearest = np.minimum(nearest, distance)
    return nearest, second, stones


def _tile(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    side = rng.uniform(14, 36)
    y = (np.arange(height, dtype=np.float32)[:, None] + rng.uniform(0, side)) * np.ones((1, width), np.float32)
    x = (np.arange(width, dtype=np.float32)[None] + rng.uniform(0, side)) * np.ones((height, 1), np.float32)
    row, column = np.floor(y / side).astype(np.int64), np.floor(x / side).astype(np.int64)
    to_grout = np.minimum(np.minimum(y % side, side - y % side), np.minimum(x % side, side - x % side))
    first, second = (_color(rng, (0, 1), (0.1, 0.55), (0.6, 0.98)) for _ in range(2))
    checker = ((row + column) % 2).astype(np.float32)
    glaze = _blend(first * np.ones((height, width, 3), np.float32), second, checker)
    glaze *= 1 + (_vary(rng, row * 1009 + column, 0.08) + 0.06 * _fractal(rng, height, width, 25, 25, 3))[..., None]
    return _blend(np.float32(rng.uniform(0.7, 0.95)) * np.ones_like(glaze), glaze, to_grout - rng.uniform(0.2, 0.8))


STUFF_GENERATORS: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "sky": _sky,
    "grass": _grass,
    "water": _water,
    "sand": _sand,
    "snow": _snow,
    "brick": _brick,
    "wood": _wood,
    "road": _road,
    "stone": _stone,
    "tile": _tile,
}

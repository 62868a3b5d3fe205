"""Marks that lead a CLIP's eye to one region of an image: surroundings blurred or gray, a red ellipse around it.

As CaR draws them with OpenCV 4.10, to the last bit and without OpenCV, whose releases draw different ellipses.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np

__all__ = ["blur_image", "draw_ellipse", "prompt_visually"]

BLUR_LENGTH, BLUR_SIGMA = 15, 2.6
GRAY_WEIGHTS = np.array([3735, 19235, 9798])  # of 2**15; the published code takes red for blue
RED = (255, 0, 0)
PROMPTS = ("blur", "gray", "circle")
FRACTION_BITS = 16
ONE, HALF = 1 << FRACTION_BITS, 1 << (FRACTION_BITS - 1)

Point = tuple[int, int]


def prompt_visually(
    image: np.ndarray, mask: np.ndarray, prompts: Sequence[str], blurred: np.ndarray | None = None
) -> np.ndarray:
    """Mark a region.

    Args:
        image: (height, width, 3) uint8, RGB.
        mask: (height, width) bool, the region; where it is empty, there is no ellipse.
        prompts: Out of "blur", "gray" and "circle", which are applied in this order.
        blurred: What [`blur_image`] makes of the image, if that is known: many masks share it.

    Returns:
        (height, width, 3) uint8.

    Raises:
        ValueError: If a prompt is another one.
    """
    unknown = [prompt for prompt in prompts if prompt not in PROMPTS]
    if unknown:
        raise ValueError(
            f"Expected visual prompts out of {', '.join(PROMPTS)}, but got {', '.join(unknown)}. Leave the "
            "others out: how they are drawn is not known here."
        )
    if "blur" in prompts:
        image = np.where(mask[..., None], image, blur_image(image) if blurred is None else blurred)
    if "gray" in prompts:
        gray = (image.astype(np.int64) @ GRAY_WEIGHTS + (1 << 14)) >> 15
        image = np.where(mask[..., None], image, gray[..., None].astype(np.uint8))
    if "circle" in prompts and mask.any():
        rows, columns = np.nonzero(mask)
        centre = int(columns.mean()), int(rows.mean())
        width, height = (int(np.ptp(places)) + 1 for places in (columns, rows))
        image = draw_ellipse(image, centre, (width // 2, height // 2))
    return image


def draw_ellipse(image: np.ndarray, centre: Point, half_axes: Point) -> np.ndarray:
    """A red outline of one pixel, not antialiased, on a copy of (height, width, 3) uint8; columns come before rows."""
    drawn = image.copy()
    for start, end in itertools.pairwise(_find_corners(centre, half_axes)):
        _draw_line(drawn, start, end)
    return drawn


def blur_image(image: np.ndarray) -> np.ndarray:
    """Gaussian blur of (height, width, 3) uint8, in fixed point; borders are mirrored without repeating the edge."""
    kernel, reach = _blur_kernel(), BLUR_LENGTH // 2
    height, width = image.shape[:2]
    rows, columns = (_mirror(np.arange(-reach, length + reach), length) for length in (height, width))
    lines = image[rows][:, columns].astype(np.int64)
    across = sum(weight * lines[:, shift : shift + width] for shift, weight in enumerate(kernel))
    down = sum(weight * across[shift : shift + height] for shift, weight in enumerate(kernel))
    return ((down + HALF) >> FRACTION_BITS).astype(np.uint8)


def _blur_kernel() -> list[int]:
    """Weights out of 256; what rounding leaves is handed on from the ends to the centre."""
    places = np.arange(BLUR_LENGTH) - BLUR_LENGTH // 2
    exact = np.exp(-(places**2) / (2 * BLUR_SIGMA**2))
    exact *= 256 / exact.sum()
    rest, weights = 0.0, []
    for value in exact[: BLUR_LENGTH // 2]:
        weights.append(round(value + rest))
        rest += value - weights[-1]
    return [*weights, 256 - 2 * sum(weights), *reversed(weights)]


def _mirror(indices: np.ndarray, length: int) -> np.ndarray:
    """Indices beyond the border reflected into it, as often as it takes."""
    if length == 1:
        return np.zeros_like(indices)
    folded = np.abs(indices) % (2 * length - 2)
    return np.minimum(folded, 2 * length - 2 - folded)


def _find_corners(centre: Point, half_axes: Point) -> list[Point]:
    """The ellipse as a polygon, in 1/65536 of a pixel."""
    longest = max(half_axes)
    step = 90 if longest < 3 else 30 if longest < 10 else 18 if longest < 15 else 5
    corners: list[Point] = []
    for degrees in range(0, 361, step):
        # Sines of whole degrees come from a table of single-precision numbers with seven decimals.
        shares = (float(np.float32(round(math.sin(math.radians(angle)), 7))) for angle in (degrees + 90, degrees))
        exact = [(middle + half * share) * ONE for middle, half, share in zip(centre, half_axes, shares, strict=True)]
        corner = (round(exact[0]), round(exact[1]))
        if not corners or corner != corners[-1]:
            corners.append(corner)
    return corners if len(corners) > 1 else corners * 2


def _draw_line(image: np.ndarray, start: Point, end: Point) -> None:
    """One pixel for each step along the longer axis, between points in 1/65536 of a pixel."""
    height, width = image.shape[:2]
    clipped = _clip_line(start, end, ((width << FRACTION_BITS) - 1, (height << FRACTION_BITS) - 1))
    if clipped is None:
        return
    start, end = clipped
    long = 0 if abs(end[0] - start[0]) > abs(end[1] - start[1]) else 1
    if end[long] < start[long]:
        start, end = end, start
    length, rise = end[long] - start[long], end[1 - long] - start[1 - long]
    slope = _divide(rise << FRACTION_BITS, length | 1)  # odd as in OpenCV, so never 0
    first, other = (start[long] + HALF) >> FRACTION_BITS, start[1 - long] + HALF
    dots = [((end[0] + HALF) >> FRACTION_BITS, (end[1] + HALF) >> FRACTION_BITS)]
    for index in range((length >> FRACTION_BITS) + 1):
        pair = (first + index, (other + index * slope) >> FRACTION_BITS)
        dots.append(pair if long == 0 else pair[::-1])
    for column, row in dots:
        if 0 <= column < width and 0 <= row < height:
            image[row, column] = RED


def _clip_line(start: Point, end: Point, largest: Point) -> tuple[Point, Point] | None:
    """The part of a line inside 0 ... largest, first cut above and below, then left and right."""
    points = [list(start), list(end)]
    for axis in (1, 0):
        sides = [[(point[a] > largest[a]) - (point[a] < 0) for a in (0, 1)] for point in points]
        if any(first * second > 0 for first, second in zip(*sides, strict=True)):
            return None
        for point, side in zip(points, sides, strict=True):
            if side[axis]:
                border = largest[axis] if side[axis] > 0 else 0
                spans = [points[1][a] - points[0][a] for a in (0, 1)]
                # In double precision and cut off, as OpenCV does it.
                point[1 - axis] += int(float(border - point[axis]) * spans[1 - axis] / spans[axis])
                point[axis] = border
    return (points[0][0], points[0][1]), (points[1][0], points[1][1])


def _divide(number: int, divisor: int) -> int:
    """Whole quotient towards zero, as processors divide."""
    return number // divisor if number >= 0 else -(-number // divisor)

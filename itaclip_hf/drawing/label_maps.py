"""Pictures of label maps: as a file of ids, in colours, over their image, with names in the regions or a legend."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .palette import INK, PAPER, colorize, find_color

__all__ = ["draw_label_map", "draw_named_regions", "draw_overlay", "draw_with_legend", "to_indexed_image"]

OUTLINE_SHADE = 0.45
SMALLEST_NAMED_SHARE = 0.004  # of the image; names of smaller regions would cover them
PIXELS_AT_ONCE = 2**20  # blended in double precision: 24 MiB
THINNING_SIDE = 160  # pixels; places for names are found on a coarse copy of the map


def to_indexed_image(labels: np.ndarray, palette: Sequence[tuple[int, int, int]]) -> Image.Image:
    """Image whose pixel values are the label ids: 8 bits with the palette, or 16 bits without if an id needs them.

    Args:
        labels: Label ids (height, width).
        palette: Colour of each label.

    Raises:
        ValueError: If an id is negative or above 65535.
    """
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest > 65535:
        raise ValueError(f"Expected label ids from 0 to 65535, but got {lowest} to {highest}. Renumber the classes.")
    if highest >= len(palette):
        return Image.fromarray(labels.astype(np.uint16))
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette(np.array(palette, dtype=np.uint8).tobytes())
    return image


def draw_label_map(labels: np.ndarray, palette: Sequence[tuple[int, int, int]]) -> Image.Image:
    """RGB picture of a label map (height, width); ids beyond the palette begin again at its second colour."""
    return Image.fromarray(colorize(labels, palette))


def draw_overlay(
    pixels: np.ndarray, labels: np.ndarray, palette: Sequence[tuple[int, int, int]], opacity: float = 0.55
) -> Image.Image:
    """Lay a label map over its picture and draw the borders of the regions.

    Args:
        pixels: RGB picture (height, width, 3), uint8.
        labels: Label ids (height, width).
        palette: Colour of each label.
        opacity: How much of the colour is seen, from 0 to 1.
    """
    overlay, borders = np.empty_like(pixels, dtype=np.uint8), _find_borders(labels)
    strip = max(1, PIXELS_AT_ONCE // labels.shape[1])
    for top in range(0, len(labels), strip):
        rows = slice(top, top + strip)
        blend = (1.0 - opacity) * pixels[rows] + opacity * colorize(labels[rows], palette)
        blend[borders[rows]] *= OUTLINE_SHADE
        overlay[rows] = blend.round()
    return Image.fromarray(overlay)


def draw_named_regions(image: Image.Image, labels: np.ndarray, names: Sequence[str]) -> Image.Image:
    """Write the name of each class into the middle of its thickest region.

    Args:
        image: Picture of the size of the label map.
        labels: Label ids (height, width).
        names: Name of each label.
    """
    named = image.convert("RGB")
    draw = ImageDraw.Draw(named)
    size = max(11, round(min(named.size) / 22))
    for label in np.unique(labels):
        is_label = labels == label
        if is_label.mean() < SMALLEST_NAMED_SHARE:
            continue
        row, column = _find_thickest_place(is_label)
        _write_inside(draw, (column, row), names[label], size, named.size)
    return named


def draw_with_legend(
    image: Image.Image, labels: np.ndarray, names: Sequence[str], palette: Sequence[tuple[int, int, int]]
) -> Image.Image:
    """Put a legend beside a picture: colour, name and share of each class that occurs, the largest first.

    Args:
        image: Picture of the size of the label map.
        labels: Label ids (height, width).
        names: Name of each label.
        palette: Colour of each label.
    """
    ids, counts = np.unique(labels, return_counts=True)
    # Stable: classes of one size keep the order of their ids.
    order = np.argsort(-counts, kind="stable")
    entries = {
        names[ids[index]]: (find_color(int(ids[index]), palette), counts[index] / labels.size) for index in order
    }
    legend = _draw_legend(entries, image.height)
    page = Image.new("RGB", (image.width + legend.width, image.height), PAPER)
    page.paste(image, (0, 0))
    page.paste(legend, (image.width, 0))
    return page


def _find_borders(labels: np.ndarray) -> np.ndarray:
    """Pixels whose right or lower neighbour has another label, bool (height, width)."""
    is_border = np.zeros(labels.shape, dtype=bool)
    is_border[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    is_border[:-1] |= labels[:-1] != labels[1:]
    return is_border


def _find_thickest_place(is_label: np.ndarray) -> tuple[int, int]:
    """Row and column of a pixel that is as far from the region's border as can be."""
    step = max(1, max(is_label.shape) // THINNING_SIDE)
    region = is_label[::step, ::step]
    if not region.any():  # all of it lies between the samples
        rows, columns = np.nonzero(is_label)
        return int(rows[len(rows) // 2]), int(columns[len(columns) // 2])
    while True:
        padded = np.pad(region, 1)
        thinner = region & padded[2:, 1:-1] & padded[:-2, 1:-1] & padded[1:-1, 2:] & padded[1:-1, :-2]
        if not thinner.any():
            break
        region = thinner
    rows, columns = np.nonzero(region)
    middle = np.argmin(np.abs(rows - rows.mean()) + np.abs(columns - columns.mean()))
    return int(rows[middle]) * step, int(columns[middle]) * step


def _write_inside(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, size: int, bounds: tuple[int, int]
) -> None:
    """Write text centred at (x, y), moved back inside the picture where it would leave it."""
    font = ImageFont.load_default(size)
    stroke = max(1, size // 7)
    half_width, half_height = font.getlength(text) / 2 + stroke + 1, size / 2 + stroke + 1
    # A text wider than the picture is centred.
    x = min(max(place[0], half_width), max(bounds[0] - half_width, bounds[0] / 2))
    y = min(max(place[1], half_height), max(bounds[1] - half_height, bounds[1] / 2))
    draw.text((x, y), text, PAPER, font, anchor="mm", stroke_width=stroke, stroke_fill=INK)


def _draw_legend(entries: Mapping[str, tuple[tuple[int, int, int], float]], height: int) -> Image.Image:
    """Legend of a given height; entries that do not fit below each other go into further columns."""
    size = min(22, max(12, height // 24))
    font = ImageFont.load_default(size)
    line, gap, swatch = round(size * 1.6), size, round(size * 0.9)
    lines = max(1, (height - gap) // line)
    texts = {name: f"{name}  {share:.1%}" for name, (_, share) in entries.items()}
    column_width = round(swatch + 1.6 * gap + max(font.getlength(text) for text in texts.values()))
    columns = -(-len(entries) // lines)
    legend = Image.new("RGB", (gap + columns * column_width, height), PAPER)
    draw = ImageDraw.Draw(legend)
    for index, (name, (color, _)) in enumerate(entries.items()):
        left, top = gap + index // lines * column_width, gap // 2 + index % lines * line
        draw.rectangle((left, top + 2, left + swatch, top + 2 + swatch), color, INK)
        draw.text((left + swatch + gap // 2, top + 2 + swatch / 2), texts[name], INK, font, anchor="lm")
    return legend

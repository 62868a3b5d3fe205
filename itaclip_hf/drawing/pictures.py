"""Pictures of segmentations: palette, label maps, overlays with names and legend, confidence maps and galleries.

Label maps and RGB pixels come in as arrays, PIL images go out. NumPy and PIL only. Used by the commands, the demo and
the reports.
"""

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = [
    "draw_confidence",
    "draw_gallery",
    "draw_label_map",
    "draw_named_regions",
    "draw_overlay",
    "draw_with_legend",
    "make_palette",
    "to_grey_image",
    "to_indexed_image",
]

PALETTE_SIZE = 256
BACKGROUND_COLOR = (38, 40, 46)
PAPER, INK, FAINT = (255, 255, 255), (24, 26, 30), (110, 114, 122)
CONFIDENCE_STOPS = (  # from dark violet (0) by way of magenta and orange to pale yellow (1): lightness rises evenly
    (13, 8, 35),
    (87, 20, 110),
    (165, 44, 96),
    (229, 92, 48),
    (251, 164, 10),
    (252, 255, 190),
)
OUTLINE_SHADE = 0.45
SMALLEST_NAMED_SHARE = 0.004  # of the image; names of smaller regions would cover them
THINNING_SIDE = 160  # pixels; places for names are found on a coarse copy of the map


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
    return Image.fromarray(_colorize(labels, palette))


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
    blend = (1 - opacity) * pixels + opacity * _colorize(labels, palette)
    blend[_find_borders(labels)] *= OUTLINE_SHADE
    return Image.fromarray(blend.round().astype(np.uint8))


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
    order = np.argsort(-counts, kind="stable")
    entries = {
        names[ids[index]]: (_color_of(int(ids[index]), palette), counts[index] / labels.size) for index in order
    }
    legend = _draw_legend(entries, image.height)
    page = Image.new("RGB", (image.width + legend.width, image.height), PAPER)
    page.paste(image, (0, 0))
    page.paste(legend, (image.width, 0))
    return page


def draw_confidence(confidence: np.ndarray) -> Image.Image:
    """RGB picture of scores between 0 (dark violet) and 1 (pale yellow), (height, width)."""
    places = np.linspace(0, 1, len(CONFIDENCE_STOPS))
    stops = np.array(CONFIDENCE_STOPS, dtype=float)
    channels = [np.interp(np.clip(confidence, 0, 1), places, stops[:, channel]) for channel in range(3)]
    return Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8))


def to_grey_image(scores: np.ndarray) -> Image.Image:
    """Scores between 0 and 1, (height, width), as a 16-bit grey image from 0 to 65535, exact to 1e-5."""
    return Image.fromarray((np.clip(scores, 0, 1) * 65535).round().astype(np.uint16))


def draw_gallery(
    rows: Sequence[Sequence[Image.Image]],
    column_titles: Sequence[str] = (),
    row_titles: Sequence[str] = (),
    cell_width: int = 320,
) -> Image.Image:
    """Arrange pictures in a table.

    Args:
        rows: Pictures of each row, one per column; rows may differ in height.
        column_titles: Written above the columns.
        row_titles: Written above each row.
        cell_width: Width of every picture, in pixels.

    Raises:
        ValueError: If there are no pictures, or rows or titles differ in number.
    """
    columns = len(rows[0]) if rows else 0
    if not columns or any(len(row) != columns for row in rows):
        raise ValueError(f"Expected rows of equal length, but got {[len(row) for row in rows]}. Fill them up.")
    if len(column_titles) not in (0, columns) or len(row_titles) not in (0, len(rows)):
        raise ValueError(
            f"Expected {columns} column titles and {len(rows)} row titles or none, but got {len(column_titles)} and "
            f"{len(row_titles)}. Name each or none."
        )
    gap, title_height = 8, 26
    cells = [[_fit_width(image, cell_width) for image in row] for row in rows]
    heights = [max(cell.height for cell in row) for row in cells]
    row_title_height = title_height if row_titles else 0
    height = gap + (title_height if column_titles else 0) + sum(heights) + len(rows) * (gap + row_title_height)
    page = Image.new("RGB", (gap + columns * (cell_width + gap), height), PAPER)
    draw, top = ImageDraw.Draw(page), gap
    for column, title in enumerate(column_titles):
        draw.text((gap + column * (cell_width + gap), top), title, INK, ImageFont.load_default(17))
    top += title_height if column_titles else 0
    for index, (row, row_height) in enumerate(zip(cells, heights, strict=True)):
        if row_titles:
            draw.text((gap, top + 2), row_titles[index], FAINT, ImageFont.load_default(15))
            top += row_title_height
        for column, cell in enumerate(row):
            page.paste(cell, (gap + column * (cell_width + gap), top))
        top += row_height + gap
    return page


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


def _color_of(label: int, palette: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    # The first colour may be the background's and shall not come back.
    return palette[label if label < len(palette) else 1 + (label - 1) % (len(palette) - 1)]


def _colorize(labels: np.ndarray, palette: Sequence[tuple[int, int, int]]) -> np.ndarray:
    colors = [_color_of(label, palette) for label in range(int(labels.max()) + 1)]
    return np.array(colors, dtype=np.uint8)[labels]


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
    if not region.any():
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


def _fit_width(image: Image.Image, width: int) -> Image.Image:
    if image.width == width:
        return image.convert("RGB")
    height = max(1, round(image.height * width / image.width))
    return image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)

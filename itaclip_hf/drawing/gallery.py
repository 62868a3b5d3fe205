"""Pictures side by side on one page."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont, ImageOps

from .palette import FAINT, INK, PAPER

__all__ = ["draw_gallery"]


def draw_gallery(
    rows: Sequence[Sequence[Image.Image]],
    column_titles: Sequence[str] = (),
    row_titles: Sequence[str] = (),
    cell_width: int = 320,
    cell_titles: Sequence[Sequence[str]] = (),
) -> Image.Image:
    """Arrange pictures in a table.

    Args:
        rows: Pictures of each row, one per column; rows may differ in height.
        column_titles: Written above the columns.
        row_titles: Written above each row.
        cell_width: Width of every picture, in pixels.
        cell_titles: Written above each picture, row by row.

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
    if cell_titles:
        cells = [
            [_draw_title(cell, title, title_height) for cell, title in zip(*row, strict=True)]
            for row in zip(cells, cell_titles, strict=True)
        ]
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


def _fit_width(image: Image.Image, width: int) -> Image.Image:
    height = max(1, round(image.height * width / image.width))
    return image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


def _draw_title(image: Image.Image, title: str, height: int) -> Image.Image:
    page = ImageOps.expand(image, (0, height, 0, 0), PAPER)
    ImageDraw.Draw(page).text((0, 4), title, FAINT, ImageFont.load_default(15))
    return page

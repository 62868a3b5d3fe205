"""Pages that show an explanation: classes, words, leads and runners-up of all pixels; what a patch looks at."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from ..drawing import draw_confidence, draw_gallery, draw_heat, draw_named_regions, draw_overlay, draw_with_legend
from ..drawing.palette import PAPER, make_palette
from ..processing import Vocabulary
from .evidence import PixelEvidence
from .patch_attention import PatchAttention

__all__ = ["draw_evidence", "draw_patch_attention"]

CELL_WIDTH = 560
COLUMNS = 5
MARKER = (255, 70, 60)


def draw_evidence(image: Image.Image, vocabulary: Vocabulary, evidence: PixelEvidence) -> Image.Image:
    """Four pictures: the classes, the words that won, each pixel's lead, and the classes that come next.

    The lead is the share of the score by which the next class falls behind: 0 (dark) for a tie, 1 (bright) where
    nothing else comes into question.
    """
    lead = (evidence.margins / evidence.scores.clamp(min=1e-12)).clamp(0, 1).numpy()
    labels, has_background = vocabulary.labels, bool(vocabulary.background)
    pages = [
        _draw_map(image, evidence.labels.numpy(), labels, has_background),
        _draw_map(image, evidence.queries.numpy(), vocabulary.query_names, False),  # no word is the whole background
        draw_confidence(lead),
        _draw_map(image, evidence.runners_up.numpy(), labels, has_background),
    ]
    width = max(page.width for page in pages)
    # Room at the right, so that pictures with legends and the one without are of one size.
    cells = [ImageOps.expand(page, (0, 0, width - page.width, 0), PAPER) for page in pages]
    titles = [["classes", "words that won"], ["lead over the next class (dark: none)", "the next class"]]
    return draw_gallery([cells[:2], cells[2:]], cell_width=CELL_WIDTH, cell_titles=titles)


def draw_patch_attention(image: Image.Image, attention: PatchAttention) -> Image.Image:
    """The image with the patch and its window, then each map over the window, the highest share brightest."""
    maps = attention.maps / attention.maps.amax((1, 2), keepdim=True).clamp(min=1e-12)
    cells = [image.copy(), *(draw_heat(image, scores.numpy(), attention.window) for scores in maps)]
    for cell in cells:
        _mark(cell, attention)
    ImageDraw.Draw(cells[0]).rectangle(_to_corners(attention.window), outline=MARKER, width=2)
    titles = [f"patch at {attention.at[0]},{attention.at[1]}", *attention.blocks]
    missing = -len(cells) % COLUMNS
    cells += [Image.new("RGB", image.size, PAPER)] * missing
    titles += [""] * missing
    return draw_gallery(_fold(cells), cell_width=CELL_WIDTH // 2, cell_titles=_fold(titles))


def _draw_map(image: Image.Image, ids: np.ndarray, names: Sequence[str], has_background: bool) -> Image.Image:
    palette = make_palette(has_background)
    overlay = draw_named_regions(draw_overlay(np.asarray(image), ids, palette), ids, names)
    return draw_with_legend(overlay, ids, names, palette)


def _mark(image: Image.Image, attention: PatchAttention) -> None:
    """Frame the patch."""
    top, left, bottom, right = attention.window
    height, width = (bottom - top) / attention.maps.shape[1], (right - left) / attention.maps.shape[2]
    top, left = top + attention.patch[0] * height, left + attention.patch[1] * width
    ImageDraw.Draw(image).rectangle(_to_corners((top, left, top + height, left + width)), outline=MARKER, width=2)


def _to_corners(box: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) as PIL counts a rectangle's corners, which belong to it."""
    top, left, bottom, right = map(round, box)
    return left, top, right - 1, bottom - 1


def _fold(cells: list) -> list[list]:
    return [cells[start : start + COLUMNS] for start in range(0, len(cells), COLUMNS)]

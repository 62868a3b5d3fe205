"""Pictures of segmentations: label maps and RGB pixels come in as arrays, PIL images go out. NumPy and PIL only."""

from .confidence import draw_confidence, draw_heat, to_grey_image
from .gallery import draw_gallery
from .label_maps import draw_label_map, draw_named_regions, draw_overlay, draw_with_legend, to_indexed_image
from .palette import make_palette

__all__ = [
    "draw_confidence",
    "draw_gallery",
    "draw_heat",
    "draw_label_map",
    "draw_named_regions",
    "draw_overlay",
    "draw_with_legend",
    "make_palette",
    "to_grey_image",
    "to_indexed_image",
]

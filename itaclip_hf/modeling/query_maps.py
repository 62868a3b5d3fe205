"""From one image's window features to refined cosine maps at original size, by tiles and chunks of queries.

Nothing here grows with the number of queries, and nothing but the features with the size of the image: stitching takes
any part of the image as it is, and the refinement reaches `steps * dilation` pixels, so tiles that much larger are
exact.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch

from .configuration_itaclip import ITACLIPConfig
from .pixel_refinement import compute_refinement_matrix, resize_guide
from .stitching import plan_stitching
from .window_views import Box, WindowLayout

__all__ = ["DenseFeatures", "QueryMaps", "Tile", "plan_tiles"]

# The refinement matrix takes 8 bytes for each of (usually) 16 neighbours of a pixel, and as much while it is made.
PIXELS_PER_TILE = 2**21
MAP_ELEMENTS_PER_CHUNK = 2**23  # maps held at once: 32 MiB of float32 (a few such buffers are alive together)


class DenseFeatures(NamedTuple):
    """One image, encoded: what stitching starts from.

    Attributes:
        image: (3, height, width) CLIP-normalised, as the windows saw it; guides the refinement.
        layout: Where the windows lie.
        grid: Features of all windows side by side, (n_h * grid_h, n_w * grid_w, dim), views summed by weight.
        patch_grid: (grid_h, grid_w) of one window.
        output_size: (H₀, W₀) of the result.
    """

    image: torch.Tensor
    layout: WindowLayout
    grid: torch.Tensor
    patch_grid: tuple[int, int]
    output_size: tuple[int, int]


class Tile(NamedTuple):
    """A part of the result.

    Attributes:
        core: Rows and columns of the result that the tile yields.
        reach: Rows and columns that it is computed on: the core and what the refinement sees around it.
    """

    core: Box
    reach: Box

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the core."""
        return _length(self.core[0]), _length(self.core[1])

    def crop(self, maps: torch.Tensor) -> torch.Tensor:
        """Cut the core out of what was computed on the reach, (height, width, ...)."""
        inner = (
            slice(core.start - reach.start, core.stop - reach.start)
            for core, reach in zip(self.core, self.reach, strict=True)
        )
        return maps[tuple(inner)]


def plan_tiles(size: tuple[int, int], halo: int, pixels: int) -> list[Tile]:
    """Cut a result into tiles of equal sides as far as possible; one tile if it is small enough.

    Args:
        size: (height, width) of the result.
        halo: How far beyond its core a tile is computed, in pixels; ends at the border of the image.
        pixels: Largest number of pixels that a tile is computed on. With a halo that leaves no room for a core, the
            core is as large as the halo.
    """
    if size[0] * size[1] <= pixels:
        whole = (slice(0, size[0]), slice(0, size[1]))
        return [Tile(whole, whole)]
    side = max(int(pixels**0.5) - 2 * halo, halo, 1)
    rows, columns = (_cut_axis(length, side, halo) for length in size)
    return [
        Tile((core_rows, core_columns), (reach_rows, reach_columns))
        for core_rows, reach_rows in rows
        for core_columns, reach_columns in columns
    ]


class QueryMaps:
    """Scaled and refined cosine maps of one image, computed when asked for.

    Args:
        features: The encoded image.
        method: Says how to refine and scale; only `pamr_steps`, `pamr_dilations` and `similarity_scale` are read.
    """

    def __init__(self, features: DenseFeatures, method: ITACLIPConfig) -> None:
        image_size = (features.image.shape[-2], features.image.shape[-1])
        self.size = features.output_size
        self._features = features
        self._method = method
        self._stitcher = plan_stitching(
            features.layout, features.patch_grid, image_size, features.output_size, features.image.device
        )
        halo = method.pamr_steps * max(method.pamr_dilations) if method.pamr_steps else 0
        self.tiles = plan_tiles(features.output_size, halo, PIXELS_PER_TILE)

    def compute(self, tile: Tile, embeddings: torch.Tensor) -> Iterator[torch.Tensor]:
        """Maps of one tile, a chunk of queries at a time.

        Args:
            tile: One of `tiles`.
            embeddings: (queries, dim) float32.

        Yields:
            (height, width, queries of the chunk) float32.
        """
        features, steps = self._features, self._method.pamr_steps
        stitcher = self._stitcher.cut(tile.reach)
        if steps:
            guide = resize_guide(features.image.float(), self.size, tile.reach)
            refinement = compute_refinement_matrix(guide, self._method.pamr_dilations)
        for chunk in embeddings.split(max(1, MAP_ELEMENTS_PER_CHUNK // _count_pixels(tile.reach))):
            maps = stitcher.stitch(features.grid @ chunk.T)
            if steps:
                maps = refinement.refine(maps, steps)
            yield tile.crop(maps) * self._method.similarity_scale


def _cut_axis(length: int, side: int, halo: int) -> list[tuple[slice, slice]]:
    count = -(-length // side)
    edges = [index * length // count for index in range(count + 1)]
    return [
        (slice(start, stop), slice(max(start - halo, 0), min(stop + halo, length))) for start, stop in pairwise(edges)
    ]


def _count_pixels(box: Box) -> int:
    return _length(box[0]) * _length(box[1])


def _length(part: slice) -> int:
    return int(part.stop - part.start)

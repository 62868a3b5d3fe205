"""From one image's window features to refined cosine maps at original size, by tiles and chunks of queries.

Stitching is two matrix products: upsampling a window, adding it in place, dividing by the cover count (which
factorises) and resizing to the original size are all linear and separable, so the map of one query is
`rows @ patches @ columns.T`, exact up to rounding. Nothing here grows with the number of queries, and nothing but the
features with the size of the image: stitching takes any part of the image as it is, and the refinement reaches
`steps * dilation` pixels, so tiles that much larger are exact.

The refinement is PAMR, pixel-adaptive mask refinement (Araslanov & Roth, "Single-Stage Semantic Segmentation from
Image Labels", CVPR 2020): maps become averages over neighbours that look alike in the image. One step is a product
with a sparse row-stochastic matrix of 8 entries a row for each dilation, the same in every step. It is computed as a
weighted bag of rows (`embedding_bag`): the same product, on every device, and faster on a CPU than torch's kernel.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import nn

from .configuration_itaclip import ITACLIPConfig
from .windows import Box, DenseFeatures, WindowLayout

__all__ = [
    "QueryMaps",
    "RefinementMatrix",
    "Stitcher",
    "Tile",
    "compute_refinement_matrix",
    "cut_tiles",
    "interpolation_matrix",
    "plan_stitching",
    "plan_tiles",
    "resize_guide",
]

STD_SHARE = 0.1  # the published softness: differences are measured in tenths of the local standard deviation
EPSILON = 1e-8
# The refinement matrix takes 8 bytes for each of (usually) 16 neighbours of a pixel, and as much while it is made.
PIXELS_PER_TILE = 2**21
MAP_ELEMENTS_PER_CHUNK = 2**23  # maps held at once: 32 MiB of float32 (a few such buffers are alive together)


class Stitcher(NamedTuple):
    """The two matrices of an image.

    Attributes:
        rows: (H₀, n_h * grid_h)
        columns: (W₀, n_w * grid_w)
    """

    rows: torch.Tensor
    columns: torch.Tensor

    def cut(self, box: Box) -> "Stitcher":
        """The stitcher of a part of the result, by its rows and columns."""
        return Stitcher(self.rows[box[0]], self.columns[box[1]])

    def stitch(self, patches: torch.Tensor) -> torch.Tensor:
        """(n_h * grid_h, n_w * grid_w, channels) -> (H₀, W₀, channels)."""
        height, width, channels = patches.shape
        rows = (self.rows @ patches.reshape(height, width * channels)).view(-1, width, channels)
        return self.columns @ rows


def plan_stitching(
    layout: WindowLayout,
    grid: tuple[int, int],
    image_size: tuple[int, int],
    output_size: tuple[int, int],
    device: torch.device,
) -> Stitcher:
    """Matrices for the windows of one image.

    Args:
        layout: Where the windows lie.
        grid: Patch grid (height, width) of one window.
        image_size: (height, width) of the resized image that the windows cover.
        output_size: (height, width) of the result.
        device: Where the matrices live; they are float32.
    """
    if layout.is_whole_image:  # one resize, not two
        return Stitcher(*(interpolation_matrix(*axis, device) for axis in zip(grid, output_size, strict=True)))
    lengths = zip(image_size, output_size, strict=True)
    axes = zip((layout.tops, layout.lefts), layout.size, layout.margins, grid, lengths, strict=True)
    return Stitcher(*(_axis_matrix(*axis, device) for axis in axes))


def interpolation_matrix(source: int, target: int, device: torch.device | None = None) -> torch.Tensor:
    """(target, source) matrix of linear interpolation along one axis, half-pixel centres, not antialiased."""
    # Torch's interpolation of every unit vector, each a channel, is the matrix of its very weights.
    unit_vectors = torch.eye(source, dtype=torch.float32, device=device)[None]
    return nn.functional.interpolate(unit_vectors, size=target, mode="linear", align_corners=False)[0].T


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
    return cut_tiles(size, max(int(pixels**0.5) - 2 * halo, halo, 1), halo)


def cut_tiles(size: tuple[int, int], side: int, halo: int, step: int = 1) -> list[Tile]:
    """Cut a result, or an image, into tiles of equal sides as far as possible.

    Args:
        size: (height, width).
        side: Longest side of a core, in pixels, but for rounding to `step`.
        halo: How far beyond its core a tile is computed, in pixels, at least; ends at the border of the image.
        step: What the upper and left edges of cores and of what they are computed on are multiples of.
    """
    halo = -(-halo // step) * step  # rounded up, so that what starts a halo before a core starts on a step, too
    rows, columns = (_cut_axis(length, side, halo, step) for length in size)
    return [
        Tile((core_rows, core_columns), (reach_rows, reach_columns))
        for core_rows, reach_rows in rows
        for core_columns, reach_columns in columns
    ]


class RefinementMatrix(NamedTuple):
    """The sparse matrix, row by row.

    Attributes:
        neighbours: (pixels, entries) int32, column of each entry; pixels are counted row by row.
        weights: (pixels, entries) float32, non-negative, rows sum to 1.
    """

    neighbours: torch.Tensor
    weights: torch.Tensor

    def refine(self, maps: torch.Tensor, steps: int) -> torch.Tensor:
        """Apply the matrix `steps` times: (height, width, channels) float32 -> the same."""
        rows = maps.flatten(0, 1)
        for _ in range(steps):
            rows = nn.functional.embedding_bag(self.neighbours, rows, per_sample_weights=self.weights, mode="sum")
        return rows.view_as(maps)


def resize_guide(image: torch.Tensor, size: tuple[int, int], box: Box = (slice(None), slice(None))) -> torch.Tensor:
    """Resize the guide bilinearly (half-pixel centres, not antialiased); equal pixels stay equal to the last bit.

    Where the image is flat, the refinement divides by a standard deviation of almost 0, and rounding alone would
    decide which neighbours look alike. `torch.nn.functional.interpolate` weighs both samples, `a * x + b * y`, and its
    rounding depends on the number of threads; `x + b * (y - x)` is exact where x = y.

    Args:
        image: (3, height, width) float32.
        size: (height, width) of the result.
        box: Rows and columns of the result that are wanted; all by default.
    """
    for axis, target, part in ((-2, size[0], box[0]), (-1, size[1], box[1])):
        source = image.shape[axis]
        # Counted from the whole result's edge: a tile's pixels are those of the whole to the last bit.
        places = torch.arange(target, device=image.device, dtype=torch.float32)[part]
        places = ((places + 0.5) * (source / target) - 0.5).clamp(min=0)
        before = places.long().clamp(max=source - 1)
        share = (places - before)[:, None] if axis == -2 else places - before
        lower = image.index_select(axis, before)
        image = lower + share * (image.index_select(axis, (before + 1).clamp(max=source - 1)) - lower)
    return image


def compute_refinement_matrix(image: torch.Tensor, dilations: Sequence[int]) -> RefinementMatrix:
    """Weigh each pixel's eight neighbours at each dilation by how much they look like it.

    The weight is the softmax over all neighbours of the mean over colours of `-|ΔI| / (1e-8 + 0.1 * std)`; std is the
    unbiased standard deviation of the 9 samples (pixel and neighbours) of all dilations together. The pixel itself is
    not among the averaged. Beyond the border the nearest pixel stands in.

    Args:
        image: (3, height, width) float, the guide at the size of the maps.
        dilations: Distances of the neighbours in pixels.
    """
    image = image.float()
    count = 9 * len(dilations)
    # Two passes over shifted views: the 9 samples a dilation are never held all at once.
    mean = reduce(torch.add, _samples(image, dilations)) / count
    squares = ((sample - mean).square() for sample in _samples(image, dilations))
    variance = reduce(torch.add, squares) / (count - 1)
    softness = EPSILON + STD_SHARE * variance.sqrt()
    similarity = [(-(sample - image).abs() / softness).mean(0) for sample in _samples(image, dilations, centre=False)]
    weights = torch.stack(similarity, dim=-1).flatten(0, 1).softmax(-1)
    return RefinementMatrix(_neighbour_indices(image, dilations), weights)


class QueryMaps:
    """Scaled and refined cosine maps of one image, computed when asked for.

    Args:
        features: The encoded image.
        config: Says how to refine and scale.
    """

    def __init__(self, features: DenseFeatures, config: ITACLIPConfig) -> None:
        self.size = features.image.output_size
        self.device = features.image.pixels.device
        self._features = features
        self._config = config
        self._stitcher = plan_stitching(
            features.image.layout, features.grid, features.image.size, self.size, self.device
        )
        self.tiles = plan_tiles(self.size, config.refinement_reach, PIXELS_PER_TILE)

    def compute(self, tile: Tile, embeddings: torch.Tensor) -> Iterator[torch.Tensor]:
        """Maps of one tile, a chunk of queries at a time.

        Args:
            tile: One of `tiles`.
            embeddings: (queries, dim) float32.

        Yields:
            (height, width, queries of the chunk) float32.
        """
        steps = self._config.pamr_steps
        stitcher = self._stitcher.cut(tile.reach)
        if steps:
            guide = resize_guide(self._features.image.pixels.float(), self.size, tile.reach)
            refinement = compute_refinement_matrix(guide, self._config.pamr_dilations)
        reach_pixels = _length(tile.reach[0]) * _length(tile.reach[1])
        for chunk in embeddings.split(max(1, MAP_ELEMENTS_PER_CHUNK // reach_pixels)):
            # All is linear, so the order is the cheapest: cosines before stitching, as a chunk has mostly fewer
            # queries than a patch has channels, and scaling at last, when the tile is down to its core.
            maps = stitcher.stitch(self._features.patches @ chunk.T)
            if steps:
                maps = refinement.refine(maps, steps)
            yield tile.crop(maps) * self._config.similarity_scale


def _axis_matrix(
    starts: tuple[int, ...],
    window: int,
    margins: tuple[int, int],
    patches: int,
    lengths: tuple[int, int],
    device: torch.device,
) -> torch.Tensor:
    """(length of the result, windows * patches): upsample windows, place them, divide by the cover count, resize."""
    length, output_length = lengths
    upsample = interpolation_matrix(patches, window + sum(margins), device)[margins[0] :][:window]
    placed = torch.zeros(length, len(starts), patches, dtype=torch.float32, device=device)
    cover = torch.zeros(length, 1, 1, dtype=torch.float32, device=device)
    for index, start in enumerate(starts):
        placed[start : start + window, index] = upsample
        cover[start : start + window] += 1
    # How many windows cover a pixel is a product of rows and columns, so each axis divides by its own count.
    return interpolation_matrix(length, output_length, device) @ (placed / cover).flatten(1)


def _cut_axis(length: int, side: int, halo: int, step: int) -> list[tuple[slice, slice]]:
    count = -(-length // side)
    # A set, as rounding to `step` may bring two edges together.
    edges = [*sorted({index * length // count // step * step for index in range(count)}), length]
    return [
        (slice(start, stop), slice(max(start - halo, 0), min(stop + halo, length))) for start, stop in pairwise(edges)
    ]


def _length(part: slice) -> int:
    return int(part.stop - part.start)


def _offsets(dilations: Sequence[int], centre: bool) -> Iterator[tuple[int, int]]:
    for dilation in dilations:
        for down in (-dilation, 0, dilation):
            for right in (-dilation, 0, dilation):
                if centre or down or right:
                    yield down, right


def _samples(image: torch.Tensor, dilations: Sequence[int], centre: bool = True) -> Iterator[torch.Tensor]:
    """(3, height, width) views of the image shifted to each neighbour, edges repeated."""
    height, width = image.shape[-2:]
    reach = max(dilations)
    padded = nn.functional.pad(image[None], (reach, reach, reach, reach), mode="replicate")[0]
    for down, right in _offsets(dilations, centre):
        yield padded[:, reach + down : reach + down + height, reach + right : reach + right + width]


def _neighbour_indices(image: torch.Tensor, dilations: Sequence[int]) -> torch.Tensor:
    """(height * width, 8 * dilations) int32: flat index of each neighbour, clamped to the image.

    At the border of a tile that is no border of the image this is wrong; what it spoils, the tile's halo cuts off.
    """
    height, width = image.shape[-2:]
    rows = torch.arange(height, device=image.device, dtype=torch.int32)[:, None]
    columns = torch.arange(width, device=image.device, dtype=torch.int32)
    indices = [
        (rows + down).clamp(0, height - 1) * width + (columns + right).clamp(0, width - 1)
        for down, right in _offsets(dilations, centre=False)
    ]
    return torch.stack(indices, dim=-1).flatten(0, 1)

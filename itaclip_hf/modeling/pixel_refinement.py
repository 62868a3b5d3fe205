"""PAMR, pixel-adaptive mask refinement: maps become averages over neighbours that look alike in the image.

Source: Araslanov & Roth, "Single-Stage Semantic Segmentation from Image Labels" (CVPR 2020). One step is a product
with a sparse row-stochastic matrix of 8 entries a row for each dilation, the same in every step. It is computed as a
weighted bag of rows (`embedding_bag`): the same product, on every device, and faster on a CPU than torch's CSR kernel.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import nn

__all__ = ["RefinementMatrix", "compute_refinement_matrix", "resize_guide"]

STD_SHARE = 0.1  # the published softness: differences are measured in tenths of the local standard deviation
EPSILON = 1e-8


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


def resize_guide(
    image: torch.Tensor, size: tuple[int, int], box: tuple[slice, slice] = (slice(None), slice(None))
) -> torch.Tensor:
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
    """(height * width, 8 * dilations) int32: flat index of each neighbour, clamped to the image."""
    height, width = image.shape[-2:]
    rows = torch.arange(height, device=image.device, dtype=torch.int32)[:, None]
    columns = torch.arange(width, device=image.device, dtype=torch.int32)
    indices = [
        (rows + down).clamp(0, height - 1) * width + (columns + right).clamp(0, width - 1)
        for down, right in _offsets(dilations, centre=False)
    ]
    return torch.stack(indices, dim=-1).flatten(0, 1)

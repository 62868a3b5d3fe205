"""Stitching: from the patch grids of all windows to maps of the original size, as two matrix products.

Upsampling a window, adding it in place, dividing by the cover count (which factorises) and resizing to the original
size are all linear and separable: the map of one query is `rows @ grids @ columns.T`, exact up to rounding.
"""

from typing import NamedTuple

import torch
from torch import nn

from .window_views import Box, WindowLayout

__all__ = ["Stitcher", "interpolation_matrix", "plan_stitching"]


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

    def stitch(self, grids: torch.Tensor) -> torch.Tensor:
        """(n_h * grid_h, n_w * grid_w, channels) -> (H₀, W₀, channels)."""
        height, width, channels = grids.shape
        rows = (self.rows @ grids.reshape(height, width * channels)).view(-1, width, channels)
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
    axes = zip((layout.tops, layout.lefts), layout.size, grid, image_size, output_size, strict=True)
    return Stitcher(*(_axis_matrix(*axis, device) for axis in axes))


def interpolation_matrix(source: int, target: int, device: torch.device | None = None) -> torch.Tensor:
    """(target, source) matrix of linear interpolation along one axis, half-pixel centres, not antialiased."""
    identity = torch.eye(source, device=device)[None]  # every unit vector is one channel of a signal
    return nn.functional.interpolate(identity, size=target, mode="linear", align_corners=False)[0].T


def _axis_matrix(
    starts: tuple[int, ...], window: int, grid: int, length: int, output_length: int, device: torch.device
) -> torch.Tensor:
    """(output_length, windows * grid): upsample each window, place it, divide by the cover count, resize."""
    upsample = interpolation_matrix(grid, window, device)
    placed = torch.zeros(length, len(starts), grid, device=device)
    cover = torch.zeros(length, 1, 1, device=device)
    for index, start in enumerate(starts):
        placed[start : start + window, index] = upsample
        cover[start : start + window] += 1
    return interpolation_matrix(length, output_length, device) @ (placed / cover).flatten(1)

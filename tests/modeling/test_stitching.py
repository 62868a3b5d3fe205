"""Stitching by two matrices against upsampling and adding window by window."""

import pytest
import torch
from torch.nn.functional import interpolate

from itaclip_hf.modeling.query_maps import interpolation_matrix, plan_stitching
from itaclip_hf.modeling.windows import plan_windows


def _stitch_by_loop(windows, layout, image_size, output_size):
    """(n, channels, grid_h, grid_w) -> (channels, H₀, W₀), as the published description reads."""
    total = torch.zeros(windows.shape[1], *image_size)
    cover = torch.zeros(image_size)
    for window, box in zip(windows, layout.boxes(), strict=True):
        total[:, box[0], box[1]] += interpolate(window[None], layout.size, mode="bilinear", align_corners=False)[0]
        cover[box] += 1
    return interpolate((total / cover)[None], output_size, mode="bilinear", align_corners=False)[0]


@pytest.mark.parametrize(
    ("image_size", "output_size"), [((40, 57), (83, 61)), ((30, 64), (30, 64)), ((20, 50), (11, 97))]
)
def test_stitching_equals_the_window_loop(image_size, output_size):
    layout = plan_windows(image_size, 32, 8)
    grid = tuple(side // 8 for side in layout.size)
    n_h, n_w = len(layout.tops), len(layout.lefts)
    windows = torch.randn(n_h * n_w, 5, *grid)
    side_by_side = windows.view(n_h, n_w, 5, *grid).permute(0, 3, 1, 4, 2).reshape(n_h * grid[0], n_w * grid[1], 5)
    stitcher = plan_stitching(layout, grid, image_size, output_size, torch.device("cpu"))
    expected = _stitch_by_loop(windows, layout, image_size, output_size)
    torch.testing.assert_close(stitcher.stitch(side_by_side).permute(2, 0, 1), expected, atol=2e-5, rtol=1e-5)


def test_whole_image_is_resized_once_from_the_patch_grid():
    layout = plan_windows((40, 56), 0, 8)
    grid = torch.randn(5, 7, 2)
    found = plan_stitching(layout, (5, 7), (40, 56), (63, 30), torch.device("cpu")).stitch(grid)
    expected = interpolate(grid.permute(2, 0, 1)[None], (63, 30), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(found.permute(2, 0, 1), expected, atol=1e-5, rtol=1e-5)


def test_interpolation_matrix_rows_are_weights():
    matrix = interpolation_matrix(2, 4)
    expected = torch.tensor([[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]])
    torch.testing.assert_close(matrix, expected)

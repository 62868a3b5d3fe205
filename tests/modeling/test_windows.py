"""Window placement, views and their way back, against loops and torch's own convolution."""

import pytest
import torch
from torch.nn.functional import conv2d, pad

from itaclip_hf.modeling.windows import (
    PLAIN_VIEW,
    WindowView,
    combine_views,
    make_views,
    plan_windows,
    read_views,
    share_windows,
)


@pytest.mark.parametrize(
    ("image_size", "window", "stride", "tops", "lefts", "size"),
    [
        ((336, 448), 224, 112, (0, 112), (0, 112, 224), (224, 224)),
        ((224, 225), 224, 28, (0,), (0, 1), (224, 224)),
        ((90, 300), 224, 28, (0,), (0, 28, 56, 76), (90, 224)),
        ((100, 50), 0, 28, (0,), (0,), (100, 50)),
    ],
)
def test_windows_cover_the_image_and_the_last_is_shifted_back(image_size, window, stride, tops, lefts, size):
    layout = plan_windows(image_size, window, stride)
    assert (layout.tops, layout.lefts, layout.size) == (tops, lefts, size)
    covered = torch.zeros(image_size, dtype=torch.bool)
    for box in layout.boxes():
        covered[box] = True
    assert covered.all()


def test_batches_hold_windows_of_one_size_and_every_window_once():
    layouts = [plan_windows(size, 16, 8) for size in ((24, 24), (12, 24), (24, 20))]
    batches = list(share_windows(layouts, 4))
    for batch in batches:
        assert sum(len(boxes) for _, boxes in batch) <= 4
        assert len({layouts[index].size for index, _ in batch}) == 1
    for index, layout in enumerate(layouts):
        found = [box for batch in batches for image, boxes in batch if image == index for box in boxes]
        assert found == list(layout.boxes())


def test_blur_mirrors_the_border_without_repeating_it():
    windows = torch.randn(2, 3, 13, 17)
    kernel = torch.rand(11)
    view = WindowView(color=None, kernel=kernel, flip_axes=(), weight=1.0)
    mirrored = pad(windows, (5, 5, 5, 5), mode="reflect")
    expected = conv2d(mirrored.flatten(0, 1)[:, None], torch.outer(kernel, kernel)[None, None]).view_as(windows)
    torch.testing.assert_close(make_views(windows, [view])[:, 0], expected, atol=1e-5, rtol=1e-5)


def test_blur_of_a_side_shorter_than_the_kernel_keeps_a_constant():
    view = WindowView(color=None, kernel=torch.full((11,), 1 / 11), flip_axes=(), weight=1.0)
    for side in (1, 2, 4):
        windows = torch.full((1, 3, side, 9), 2.5)
        torch.testing.assert_close(make_views(windows, [view])[:, 0], windows)


def test_colour_matrix_mixes_channels_and_flips_turn_the_axes():
    windows = torch.randn(1, 3, 4, 6)
    matrix = torch.randn(3, 3)
    views = [WindowView(matrix, None, (-2,), 0.5), WindowView(None, None, (-1,), 0.5)]
    colored, mirrored = make_views(windows, views)[0]
    for y in range(4):
        for x in range(6):
            torch.testing.assert_close(colored[:, 3 - y, x], matrix @ windows[0, :, y, x])
            torch.testing.assert_close(mirrored[:, y, 5 - x], windows[0, :, y, x])


def test_combining_undoes_flips_and_weighs():
    grid = torch.randn(2, 3, 4, 5)
    views = [
        PLAIN_VIEW._replace(weight=0.5),
        WindowView(None, None, (-2,), 0.3),
        WindowView(None, None, (-2, -1), 0.2),
    ]
    features = torch.stack([grid, grid.flip(1), grid.flip(1, 2)], dim=1)
    torch.testing.assert_close(combine_views(features, views), grid)


def test_reading_views_leaves_out_what_does_nothing(engineering):
    tensors = [engineering[f"augmentation_{name}"][0] for name in ("color", "blur", "flip", "weight")]
    plain, gray, blurred, upside_down, mirrored = read_views(*tensors)
    assert plain == WindowView(None, None, (), 0.25)
    assert gray.color is not None and gray.kernel is None
    assert blurred.color is None and blurred.kernel is not None
    assert upside_down.flip_axes == (-2,) and mirrored.flip_axes == (-1,)

"""Image engineering on windows: crop, view (colour, blur, flips), and back (un-flip, weighted sum on the patch grid).

A view is data made by the processor: a 3x3 colour matrix, a 1-D blur kernel, two flip bits and a weight. Everything
after the encoder is linear and commutes with flips, so views are summed on the patch grid, before any upsampling.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import torch

__all__ = [
    "PLAIN_VIEW",
    "Box",
    "View",
    "WindowLayout",
    "batch_windows",
    "combine_views",
    "make_views",
    "plan_windows",
    "read_views",
]


class View(NamedTuple):
    """One view of a window: how to make it and how much it counts.

    Attributes:
        color: 3x3 matrix applied to normalised pixels, or `None` for the identity.
        kernel: 1-D blur kernel of odd length for both axes, or `None` for none.
        flip_axes: Axes to flip, -2 (vertical) and -1 (horizontal).
        weight: Weight in the sum of unit features.
    """

    color: torch.Tensor | None
    kernel: torch.Tensor | None
    flip_axes: tuple[int, ...]
    weight: float


Box = tuple[slice, slice]  # rows and columns of a window

PLAIN_VIEW = View(color=None, kernel=None, flip_axes=(), weight=1.0)


class WindowLayout(NamedTuple):
    """Where the windows of one image lie.

    Attributes:
        tops: Upper edges of the rows of windows, in pixels.
        lefts: Left edges of the columns of windows.
        size: (height, width) of every window.
        is_whole_image: Whether windows are off and the one window is the image.
    """

    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    size: tuple[int, int]
    is_whole_image: bool

    def boxes(self) -> Iterator[Box]:
        """Row and column slices of every window, row by row."""
        height, width = self.size
        for top in self.tops:
            for left in self.lefts:
                yield slice(top, top + height), slice(left, left + width)


def plan_windows(image_size: tuple[int, int], window_size: int, window_stride: int) -> WindowLayout:
    """Place windows over an image: every `window_stride` pixels, the last one of an axis shifted back inside.

    Args:
        image_size: (height, width) in pixels.
        window_size: Side of a window in pixels; an image side below it gives a smaller window, 0 the whole image.
        window_stride: Step in pixels.
    """
    height, width = (min(length, window_size or length) for length in image_size)
    tops = _window_starts(image_size[0], height, window_stride)
    lefts = _window_starts(image_size[1], width, window_stride)
    return WindowLayout(tops, lefts, (height, width), is_whole_image=window_size == 0)


def _window_starts(length: int, window: int, stride: int) -> tuple[int, ...]:
    count = max(length - window + stride - 1, 0) // stride + 1
    return tuple(min(index * stride, length - window) for index in range(count))


def batch_windows(layouts: Sequence[WindowLayout], batch_size: int) -> Iterator[list[tuple[int, list[Box]]]]:
    """Share out the windows of all images among encoder batches; windows of a batch are of one size.

    Args:
        layouts: Layout of each image.
        batch_size: Number of windows in a batch, at most.

    Yields:
        For each batch: image index and boxes, images in order within a window size.
    """
    for size in dict.fromkeys(layout.size for layout in layouts):
        tasks = [(index, box) for index, layout in enumerate(layouts) if layout.size == size for box in layout.boxes()]
        for start in range(0, len(tasks), batch_size):
            runs = groupby(tasks[start : start + batch_size], key=itemgetter(0))
            yield [(index, [box for _, box in run]) for index, run in runs]


def read_views(color: torch.Tensor, blur: torch.Tensor, flip: torch.Tensor, weight: torch.Tensor) -> list[View]:
    """Turn the processor's tensors of one image into views, leaving out what does nothing.

    Args:
        color: (views, 3, 3)
        blur: (views, K) with K odd; a unit impulse for none.
        flip: (views, 2) of bool: vertical, horizontal.
        weight: (views,)
    """
    identity = torch.eye(3, device=color.device, dtype=color.dtype)
    impulse = torch.zeros_like(blur[0])
    impulse[len(impulse) // 2] = 1
    return [
        View(
            color=None if torch.equal(matrix, identity) else matrix,
            kernel=None if torch.equal(kernel, impulse) else kernel,
            flip_axes=tuple(axis for axis, flipped in zip((-2, -1), flips, strict=True) if flipped),
            weight=share,
        )
        for matrix, kernel, flips, share in zip(color, blur, flip.tolist(), weight.tolist(), strict=True)
    ]


def make_views(windows: torch.Tensor, views: Sequence[View]) -> torch.Tensor:
    """(windows, 3, height, width) -> (windows, views, 3, height, width)."""
    return torch.stack([_make_view(windows, view) for view in views], dim=1)


def combine_views(features: torch.Tensor, views: Sequence[View]) -> torch.Tensor:
    """Un-flip the patch grids and sum the views by weight.

    Args:
        features: (windows, views, grid_h, grid_w, dim), unit vectors.
        views: As given to [`make_views`].

    Returns:
        (windows, grid_h, grid_w, dim), not renormalised.
    """
    combined = torch.zeros_like(features[:, 0])
    for index, view in enumerate(views):
        if view.weight == 0:
            continue
        # The grid is (-3, -2) here where pixels were (-2, -1).
        combined = combined + view.weight * features[:, index].flip([axis - 1 for axis in view.flip_axes])
    return combined


def _make_view(windows: torch.Tensor, view: View) -> torch.Tensor:
    if view.color is not None:
        windows = torch.einsum("ij,njhw->nihw", view.color.to(windows), windows)
    if view.kernel is not None:
        height, width = windows.shape[-2:]
        kernel = view.kernel.to(windows)
        windows = _blur_matrix(kernel, height) @ windows @ _blur_matrix(kernel, width).T
    return windows.flip(view.flip_axes)


def _blur_matrix(kernel: torch.Tensor, length: int) -> torch.Tensor:
    """(length, length) matrix that convolves an axis with `kernel`, mirrored at both ends, edges not repeated."""
    radius = len(kernel) // 2
    places = torch.arange(length, device=kernel.device)
    matrix = kernel.new_zeros(length, length)
    for offset, tap in zip(range(-radius, radius + 1), kernel, strict=True):
        period = max(2 * (length - 1), 1)
        mirrored = (places + offset).remainder(period)
        mirrored = torch.minimum(mirrored, period - mirrored) if length > 1 else mirrored
        matrix[places, mirrored] += tap
    return matrix

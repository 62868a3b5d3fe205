"""Windows and their views: crop, view (colour, blur, flips), and back (un-flip, weighted sum on the patch grid).

A view is data made by the processor: a 3x3 colour matrix, a 1-D blur kernel, two flip bits and a weight. Everything
after the encoder is linear and commutes with flips, so views are summed on the patch grid, before any upsampling.
All views of all windows of all images share encoder batches; what comes out lies side by side, window by window.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple, cast

import torch
from torch import nn
from transformers.models.clip.configuration_clip import CLIPTextConfig, CLIPVisionConfig

__all__ = [
    "PLAIN_VIEW",
    "Box",
    "DenseFeatures",
    "WindowBatch",
    "WindowFeatures",
    "WindowLayout",
    "WindowView",
    "WindowedImage",
    "choose_tokens_per_batch",
    "choose_views_per_batch",
    "combine_views",
    "make_batches",
    "make_views",
    "plan_windows",
    "read_views",
    "share_windows",
]

# The widest activation of a batch on a CPU. Allocators soon give large blocks back (glibc at once from 32 MiB on,
# smaller ones when a few lie free), and the next one is mapped anew, page by page: with activations of 75 MiB that
# took ViT-B/16 up to a third of its time. Products are as fast in small batches.
CPU_ACTIVATION_BYTES = 12 * 2**20
GPU_MEMORY_SHARE = 0.2  # of all there is, free or not: the same batches, and with them the same rounding, in every run
# Vectors of a token alive at once: the widened half of a feed-forward twice, projections of a block and of the
# intermediate ones, residuals and the float32 result.
VECTORS_PER_TOKEN = 40
MOST_WINDOW_VIEWS = 1024
MARGIN_REGION = -1  # no image has it


class WindowView(NamedTuple):
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
Margins = tuple[tuple[int, int], tuple[int, int]]  # above and below, left and right, in pixels

PLAIN_VIEW = WindowView(color=None, kernel=None, flip_axes=(), weight=1.0)


class WindowLayout(NamedTuple):
    """Where the windows of one image lie.

    Attributes:
        tops: Upper edges of the rows of windows, in pixels.
        lefts: Left edges of the columns of windows.
        size: (height, width) of every window.
        is_whole_image: Whether windows are off and the one window is the image.
        margins: What every window is padded by.
    """

    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    size: tuple[int, int]
    is_whole_image: bool
    margins: Margins = ((0, 0), (0, 0))

    @property
    def num_windows(self) -> int:
        """Number of windows."""
        return len(self.tops) * len(self.lefts)

    @property
    def padded_size(self) -> tuple[int, int]:
        """(height, width) of every window with its margins, which is what the encoder gets."""
        height, width = (length + sum(margin) for length, margin in zip(self.size, self.margins, strict=True))
        return height, width

    def cut(self, maps: torch.Tensor, box: Box, filling: int = 0) -> torch.Tensor:
        """A window of maps (..., height, width) with its margins."""
        (above, below), (left, right) = self.margins
        return nn.functional.pad(maps[..., box[0], box[1]], (left, right, above, below), value=filling)

    def boxes(self) -> Iterator[Box]:
        """Row and column slices of every window, row by row."""
        height, width = self.size
        for top in self.tops:
            for left in self.lefts:
                yield slice(top, top + height), slice(left, left + width)


class WindowedImage(NamedTuple):
    """One image, ready to be encoded.

    Attributes:
        pixels: (3, height, width) CLIP-normalised; guides the refinement, too.
        layout: Where its windows lie.
        views: What is made of each window.
        output_size: (H₀, W₀) of the result.
        regions: (height, width) region of each pixel, 0 for none and none below, where there are any.
    """

    pixels: torch.Tensor
    layout: WindowLayout
    views: Sequence[WindowView]
    output_size: tuple[int, int]
    regions: torch.Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[-2], self.pixels.shape[-1]


class DenseFeatures(NamedTuple):
    """One image, encoded: what stitching starts from.

    Attributes:
        image: The image.
        patches: Features of all windows side by side, (n_h * grid_h, n_w * grid_w, dim), views summed by weight.
    """

    image: WindowedImage
    patches: torch.Tensor

    @property
    def grid(self) -> tuple[int, int]:
        """(grid_h, grid_w): patches of one window."""
        layout = self.image.layout
        return self.patches.shape[0] // len(layout.tops), self.patches.shape[1] // len(layout.lefts)


class WindowBatch(NamedTuple):
    """What goes through the encoder at once.

    Attributes:
        pixel_values: (windows * views, 3, height, width).
        counts: Which images they are from, in order: index of the image, and number of its windows.
        windows: (windows, 3, height, width), what the views were made of.
        flips: Axes by which each view is flipped, (windows * views).
        regions: (windows * views, height, width) region of each pixel, where there are any; margins are a region, too.
    """

    pixel_values: torch.Tensor
    counts: tuple[tuple[int, int], ...]
    windows: torch.Tensor
    flips: tuple[tuple[int, ...], ...]
    regions: torch.Tensor | None = None

    def repeat_for_views(self, patches: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """What was made of the windows, (windows, grid_h * grid_w, dim), for each view, flipped as it is."""
        maps = patches.unflatten(1, grid).repeat_interleave(len(self.flips) // len(self.windows), dim=0)
        # The grid is (-3, -2) here where pixels were (-2, -1).
        flipped = [of_view.flip([axis - 1 for axis in axes]) for of_view, axes in zip(maps, self.flips, strict=True)]
        return torch.stack(flipped).flatten(1, 2)


class WindowFeatures:
    """Gathers what an encoder makes of one batch after the other.

    Args:
        images: All images, as given to [`make_batches`].
        view_weights: Weight of each view; those that came with the images if `None`.
    """

    def __init__(self, images: Sequence[WindowedImage], view_weights: Sequence[float] | None = None) -> None:
        self._images = images
        self._views = [_weigh_views(image.views, view_weights) for image in images]
        self._parts: list[list[torch.Tensor]] = [[] for _ in images]

    def add(self, batch: WindowBatch, patches: torch.Tensor) -> None:
        """Take a batch's unit features, (windows * views, grid_h, grid_w, dim), and sum the views."""
        windows = patches.unflatten(0, (-1, len(self._views[0])))
        for (index, _), part in zip(batch.counts, windows.split([count for _, count in batch.counts]), strict=True):
            combined = combine_views(part, self._views[index])
            self._parts[index].append(combined.to(self._images[index].pixels.device))

    def lay_out(self) -> list[DenseFeatures]:
        """Lay each image's windows side by side, once all batches are in."""
        results = []
        for image, parts in zip(self._images, self._parts, strict=True):
            windows = torch.cat(parts).unflatten(0, (len(image.layout.tops), len(image.layout.lefts)))
            # (n_h, n_w, grid_h, grid_w, dim) -> (n_h * grid_h, n_w * grid_w, dim)
            results.append(DenseFeatures(image, windows.transpose(1, 2).flatten(2, 3).flatten(0, 1)))
        return results


def plan_windows(image_size: tuple[int, int], side: int, stride: int, multiple: int = 1) -> WindowLayout:
    """Place windows over an image: one every `stride` pixels, the last one of an axis shifted back inside.

    Args:
        image_size: (height, width) in pixels.
        side: Side of a window in pixels; an image side below it gives a smaller window, 0 the whole image.
        stride: Step in pixels.
        multiple: Windows are padded to multiples of so many pixels; the whole image is not.
    """
    height, width = (min(length, side or length) for length in image_size)
    tops = _window_starts(image_size[0], height, stride)
    lefts = _window_starts(image_size[1], width, stride)
    margins = ((0, 0), (0, 0)) if side == 0 else (_share_rest(height, multiple), _share_rest(width, multiple))
    return WindowLayout(tops, lefts, (height, width), side == 0, margins)


def _share_rest(length: int, multiple: int) -> tuple[int, int]:
    """What is added before and after."""
    rest = -length % multiple
    return rest // 2, rest - rest // 2


def _window_starts(length: int, window: int, stride: int) -> tuple[int, ...]:
    count = max(length - window + stride - 1, 0) // stride + 1
    return tuple(min(index * stride, length - window) for index in range(count))


def choose_tokens_per_batch(
    config: CLIPVisionConfig | CLIPTextConfig, dtype: torch.dtype, device: torch.device
) -> int:
    """Number of tokens, of all window views or prompts, that go through a tower of that number format at once."""
    if device.type != "cuda":
        return CPU_ACTIVATION_BYTES // (config.intermediate_size * dtype.itemsize)
    _, total = torch.cuda.mem_get_info(device)
    return int(GPU_MEMORY_SHARE * total) // (config.hidden_size * dtype.itemsize * VECTORS_PER_TOKEN)


def choose_views_per_batch(
    config: CLIPVisionConfig, window_size: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> int:
    """Number of views of windows of (height, width) pixels, at least 1, that go through the vision tower at once."""
    patch_size = cast(int, config.patch_size)
    tokens = 1 + (window_size[0] // patch_size) * (window_size[1] // patch_size)
    return max(1, min(choose_tokens_per_batch(config, dtype, device) // tokens, MOST_WINDOW_VIEWS))


def make_batches(images: Sequence[WindowedImage], batch_size: int) -> Iterator[WindowBatch]:
    """Cut out all windows of all images, which have as many views each, and make these, a batch at a time.

    A batch is of `batch_size` windows, at most, with all their views.
    """
    for batch in share_windows([image.layout for image in images], batch_size):
        cut_out, parts, flips, regions = [], [], [], []
        for index, boxes in batch:
            image = images[index]
            windows = torch.stack([image.layout.cut(image.pixels, box) for box in boxes])
            cut_out.append(windows)
            parts.append(make_views(windows, image.views))
            flips += [view.flip_axes for view in image.views] * len(boxes)
            if image.regions is not None:  # flipped like the pixels: views attend as they look
                regions += [
                    image.layout.cut(image.regions, box, MARGIN_REGION).flip(view.flip_axes)
                    for box in boxes
                    for view in image.views
                ]
        yield WindowBatch(
            torch.cat(parts).flatten(0, 1),
            tuple((index, len(boxes)) for index, boxes in batch),
            torch.cat(cut_out),
            tuple(flips),
            torch.stack(regions) if regions else None,
        )


def share_windows(layouts: Sequence[WindowLayout], batch_size: int) -> Iterator[list[tuple[int, list[Box]]]]:
    """Share out the windows of all images among batches of at most `batch_size`; those of a batch are of one size.

    Yields:
        For each batch: image index and boxes, images in order within a window size.
    """
    for size in dict.fromkeys(layout.size for layout in layouts):  # each size once, in order, as a set is not
        tasks = [(index, box) for index, layout in enumerate(layouts) if layout.size == size for box in layout.boxes()]
        for start in range(0, len(tasks), batch_size):
            runs = groupby(tasks[start : start + batch_size], key=itemgetter(0))
            yield [(index, [box for _, box in run]) for index, run in runs]


def read_views(color: torch.Tensor, blur: torch.Tensor, flip: torch.Tensor, weight: torch.Tensor) -> list[WindowView]:
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
        WindowView(
            color=None if torch.equal(matrix, identity) else matrix,
            kernel=None if torch.equal(kernel, impulse) else kernel,
            flip_axes=tuple(axis for axis, flipped in zip((-2, -1), flips, strict=True) if flipped),
            weight=share,
        )
        for matrix, kernel, flips, share in zip(color, blur, flip.tolist(), weight.tolist(), strict=True)
    ]


def make_views(windows: torch.Tensor, views: Sequence[WindowView]) -> torch.Tensor:
    """(windows, 3, height, width) -> (windows, views, 3, height, width)."""
    return torch.stack([_make_view(windows, view) for view in views], dim=1)


def combine_views(features: torch.Tensor, views: Sequence[WindowView]) -> torch.Tensor:
    """Un-flip the patch grids and sum the views by weight.

    Args:
        features: (windows, views, grid_h, grid_w, dim), unit vectors.
        views: As given to [`make_views`].

    Returns:
        (windows, grid_h, grid_w, dim), not renormalised.
    """
    combined = torch.zeros_like(features[:, 0])
    for index, view in enumerate(views):
        if view.weight == 0:  # such as the flips where photometric views have all the weight
            continue
        # The grid is (-3, -2) here where pixels were (-2, -1).
        combined = combined + view.weight * features[:, index].flip([axis - 1 for axis in view.flip_axes])
    return combined


def _weigh_views(views: Sequence[WindowView], weights: Sequence[float] | None) -> Sequence[WindowView]:
    if weights is None:
        return views
    if len(weights) != len(views):
        raise ValueError(f"Expected a weight for each of {len(views)} views, but got {len(weights)}.")
    return [view._replace(weight=weight) for view, weight in zip(views, weights, strict=True)]


def _make_view(windows: torch.Tensor, view: WindowView) -> torch.Tensor:
    if view.color is not None:
        windows = torch.einsum("ij,njhw->nihw", view.color.to(windows), windows)
    if view.kernel is not None:
        height, width = windows.shape[-2:]
        kernel = view.kernel.to(windows)
        windows = _blur_matrix(kernel, height) @ windows @ _blur_matrix(kernel, width).T
    return windows.flip(view.flip_axes)


def _blur_matrix(kernel: torch.Tensor, length: int) -> torch.Tensor:
    """(length, length) matrix that convolves an axis with `kernel`, mirrored at both ends, edges not repeated.

    A matrix, as torch's reflecting padding refuses axes that are not longer than the kernel's radius; here they are
    mirrored again and again.
    """
    radius = len(kernel) // 2
    places = torch.arange(length, device=kernel.device)
    matrix = kernel.new_zeros(length, length)
    for offset, tap in zip(range(-radius, radius + 1), kernel, strict=True):
        period = max(2 * (length - 1), 1)  # of one pixel, mirrored, there is no more to see
        mirrored = (places + offset).remainder(period)
        mirrored = torch.minimum(mirrored, period - mirrored)
        # One entry in each row at a time: indexed addition drops all but one of several to the same place.
        matrix[places, mirrored] += tap
    return matrix

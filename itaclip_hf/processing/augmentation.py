"""Image engineering as data: the views of a window that ITACLIP encodes, and the weight of each.

A view is a colour matrix, a blur kernel and two flips. Nothing is applied here: the model applies the views to every
window after cropping, as the published method does, and sums the encoded views with the weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["View", "compute_gaussian_kernel", "compute_views", "stack_views"]

# Luma weights of ITU-R BT.601. They act on normalised pixels and add up to 0.9999, both as in the published method.
GRAYSCALE_WEIGHTS = (0.2989, 0.587, 0.114)
BLUR_KERNEL_SIZE = 11
BLUR_SIGMA = 5.0

IDENTITY_COLOR = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
GRAYSCALE_COLOR = (GRAYSCALE_WEIGHTS,) * 3
NO_BLUR = (1.0,)


@dataclass(frozen=True)
class View:
    """One way to look at a window.

    Args:
        weight: Share of this view in the weighted sum.
        color: Matrix (3, 3) that maps the colours of a normalised pixel to new ones.
        blur: One-dimensional kernel of odd length, applied along both axes; `(1.0,)` for none.
        flip_vertical: Whether the window is turned upside down.
        flip_horizontal: Whether left and right are swapped.
    """

    weight: float
    color: tuple[tuple[float, ...], ...] = IDENTITY_COLOR
    blur: tuple[float, ...] = NO_BLUR
    flip_vertical: bool = False
    flip_horizontal: bool = False


def compute_gaussian_kernel(size: int, sigma: float) -> tuple[float, ...]:
    """Sample a Gaussian at the `size` positions around its centre, in pixels, and scale the samples to the sum 1."""
    positions = np.arange(size) - (size - 1) / 2
    samples = np.exp(-0.5 * (positions / sigma) ** 2)
    return tuple((samples / samples.sum()).tolist())


def compute_views(share: float) -> tuple[View, ...]:
    """Choose the views of ITACLIP's image engineering.

    Original, grayscale and blurred window divide `share` (λ) evenly; the vertical and the horizontal flip
    divide the rest. Views without weight are left out, as they would cost time and change nothing.

    Args:
        share: Between 0 and 1.

    Returns:
        The views; their weights sum to 1.
    """
    photometric = share / 3
    geometric = (1 - share) / 2
    views = (
        View(photometric),
        View(photometric, color=GRAYSCALE_COLOR),
        View(photometric, blur=compute_gaussian_kernel(BLUR_KERNEL_SIZE, BLUR_SIGMA)),
        View(geometric, flip_vertical=True),
        View(geometric, flip_horizontal=True),
    )
    return tuple(view for view in views if view.weight > 0)


def stack_views(views: Sequence[View], batch_size: int) -> dict[str, np.ndarray]:
    """Write views down as the arrays of the model's data contract, the same for every image.

    Args:
        views: V views.
        batch_size: Number of images, B.

    Returns:
        `augmentation_color` (B, V, 3, 3), `augmentation_blur` (B, V, K) and `augmentation_weight` (B, V) in float32
        and `augmentation_flip` (B, V, 2), vertical before horizontal, in bool.
    """
    kernel_size = max(len(view.blur) for view in views)
    arrays = {
        "augmentation_color": np.array([view.color for view in views], dtype=np.float32),
        "augmentation_blur": np.array([_center(view.blur, kernel_size) for view in views], dtype=np.float32),
        "augmentation_flip": np.array([(view.flip_vertical, view.flip_horizontal) for view in views], dtype=bool),
        "augmentation_weight": np.array([view.weight for view in views], dtype=np.float32),
    }
    return {key: np.repeat(array[None], batch_size, axis=0) for key, array in arrays.items()}


def _center(kernel: tuple[float, ...], size: int) -> np.ndarray:
    """Lengthen an odd kernel with zeros on both sides."""
    return np.pad(np.array(kernel), (size - len(kernel)) // 2)

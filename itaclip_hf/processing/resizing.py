"""Resizing without antialiasing; 8-bit images bilinearly to the last bit as the published method does it.

The published method resizes with OpenCV, whose bilinear interpolation of 8-bit images works in fixed point: weights
are whole numbers out of 2048, and bits are dropped between and after the two passes. A float resize is one grey level
off at one value in twelve, and attention can blow that up. Everything else is resized in single precision.
"""

import numbers

import numpy as np
import torch
import torch.nn.functional as F
from transformers.image_utils import PILImageResampling, SizeDict

__all__ = ["compute_resized_size", "resize_image"]

INTERPOLATION_MODES = {
    PILImageResampling.NEAREST: "nearest-exact",
    PILImageResampling.BILINEAR: "bilinear",
    PILImageResampling.BICUBIC: "bicubic",
}
WEIGHT_SCALE = np.float32(2048)  # a weight of 1 in fixed point


def compute_resized_size(height: int, width: int, size: SizeDict) -> tuple[int, int]:
    """Size that keeps the proportions, unless `size` gives both sides; rounded as in the published method.

    Raises:
        TypeError: If a length is no whole number.
        ValueError: If `size` names no length or one below 1.
    """
    for name in ("height", "width", "shortest_edge", "longest_edge"):
        _check_length(name, getattr(size, name))
    if size.height and size.width:
        return size.height, size.width
    factors = []
    if size.shortest_edge:
        factors.append(size.shortest_edge / min(height, width))
    if size.longest_edge:
        factors.append(size.longest_edge / max(height, width))
    if not factors:
        raise ValueError(
            f"Expected `size` to have 'shortest_edge', 'longest_edge' or both, or 'height' and 'width', but got "
            f"{dict(size)}. Use one of these."
        )
    factor = min(factors)
    # A very long strip would otherwise lose its short side.
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def resize_image(
    image: np.ndarray, size: tuple[int, int], resample: PILImageResampling | int | None = None
) -> np.ndarray:
    """Resize an image.

    Args:
        image: (channels, height, width) of any real type.
        size: (height, width) of the result.
        resample: Nearest, bilinear (default) or bicubic.

    Returns:
        (channels, *size): uint8 where uint8 came in, otherwise float32.

    Raises:
        ValueError: If the interpolation is not supported.
    """
    resample = PILImageResampling.BILINEAR if resample is None else resample
    mode = INTERPOLATION_MODES.get(resample)  # type: ignore[call-overload]  # its members are integers
    if mode is None:
        raise ValueError(
            f"Expected `resample` to be nearest (0), bilinear (2) or bicubic (3), but got {resample}. "
            "Use one of these."
        )
    if size == image.shape[-2:]:
        return image
    if image.dtype == np.uint8 and mode == "bilinear":
        return _resize_in_fixed_point(image, size)
    pixels = torch.from_numpy(image.astype(np.float32))[None]
    align_corners = None if mode == "nearest-exact" else False
    resized = F.interpolate(pixels, size, mode=mode, align_corners=align_corners)[0]
    if image.dtype == np.uint8:
        resized = resized.round_().clamp_(0, 255).to(torch.uint8)
    return resized.numpy()


def _check_length(name: str, value: int | None) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"Expected `size` in whole pixels, but got {value!r} as '{name}'. Use a number like 336.")
    if value < 1:
        raise ValueError(f"Expected `size` of at least 1 pixel, but got {value} as '{name}'. Use a number like 336.")


def _resize_in_fixed_point(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """OpenCV's `resize` with `INTER_LINEAR` of 8-bit images."""
    channels, height, width = image.shape
    top, row_share = _find_places(height, size[0])
    left, column_share = _find_places(width, size[1])
    # Columns beyond the first and last sample are that sample. Rows keep their shares there, and only their indices
    # are clipped: both samples are then one, but the dropped bits are those of two products.
    column_share[(left < 0) | (left >= width - 1)] = 0
    left = left.clip(0, width - 1)
    rows, places = np.unique(np.stack([top, top + 1]).clip(0, height - 1), return_inverse=True)
    upper, lower = places.reshape(2, -1)

    # Only the rows that count, each as one line of interleaved colours: (rows, width * channels).
    lines = np.moveaxis(image, 0, -1)[rows].reshape(len(rows), width * channels)
    right = (left + 1).clip(max=width - 1)
    first, second = (weights.repeat(channels) for weights in _to_fixed_point(column_share))
    lines = lines.take(_interleave(left, channels), axis=1) * first + (
        lines.take(_interleave(right, channels), axis=1) * second
    )
    lines >>= 4
    first, second = (weights[:, None] for weights in _to_fixed_point(row_share))
    resized = ((lines[upper] * first) >> 16) + ((lines[lower] * second) >> 16)
    resized = ((resized + 2) >> 2).astype(np.uint8)
    return np.moveaxis(resized.reshape(*size, channels), -1, 0)


def _find_places(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """For each target sample the source sample before it, -1 where there is none, and the share of the next one."""
    # Not simplified: the roundings of this very expression decide which way a weight falls.
    places = ((np.arange(target) + 0.5) * (1 / (target / source)) - 0.5).astype(np.float32)
    before = np.floor(places)
    return before.astype(np.int64), places - before


def _to_fixed_point(share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whole weights of both samples, int32; halves are rounded to even."""
    pair = np.stack([1 - share, share])
    first, second = np.rint(pair * WEIGHT_SCALE).astype(np.int32)
    return first, second


def _interleave(columns: np.ndarray, channels: int) -> np.ndarray:
    """Positions of whole pixels in a line of interleaved colours."""
    return (columns[:, None] * channels + np.arange(channels)).ravel()

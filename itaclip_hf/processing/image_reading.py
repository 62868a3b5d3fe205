"""From anything that holds a picture to an array (channels, height, width): 8-bit integers, or floats as they are.

Files of every format but EPS, PIL images of every mode, NumPy arrays and torch tensors in either layout, EXIF
rotation, transparency (laid on white, as Transformers does), and integers of more than 8 bits (scaled by their range,
never clipped).
"""

import os
from typing import IO, Any

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
from transformers.image_utils import ChannelDimension, infer_channel_dimension_format

__all__ = ["open_image", "read_image", "read_rgb_image"]

TRANSPARENT_MODES = ("RGBA", "LA", "PA", "RGBa", "La")
DEEP_MODES = ("I", "F")  # and everything that begins with "I;16"; PIL's own conversion would clip them at 255


def open_image(source: str | os.PathLike[str] | IO[bytes]) -> PIL.Image.Image:
    """Read an image file, once and whole, in its own mode and orientation.

    Args:
        source: A path or an open binary file.

    Raises:
        OSError: If it cannot be read or decoded, whatever its decoder says; the message need not name the file.
    """
    if isinstance(source, str | os.PathLike) and os.path.exists(source) and not os.path.isfile(source):
        # A pipe would be waited for.
        raise OSError("Expected an image file, but got a folder, pipe or device. Name a file.")
    try:
        with PIL.Image.open(source) as image:
            if image.format == "EPS":
                raise OSError("Expected an image of pixels, but got EPS, which is a program. Convert it first.")
            image.load()
            return image
    except (OSError, MemoryError):
        raise
    except Exception as error:  # decoders raise anything: SyntaxError, RuntimeError, struct.error, ...
        raise OSError(f"Expected an image, but it cannot be decoded ({error}). Repair or leave it out.") from error


def read_rgb_image(source: PIL.Image.Image | str | os.PathLike[str]) -> PIL.Image.Image:
    """Read an image or image file upright as 8-bit RGB.

    Raises:
        OSError, ValueError: See `open_image` and `read_image`.
    """
    image = source if isinstance(source, PIL.Image.Image) else open_image(source)
    return PIL.Image.fromarray(np.moveaxis(read_image(image), 0, -1).round().clip(0, 255).astype(np.uint8))


def read_image(
    image: Any, do_convert_rgb: bool = True, input_data_format: str | ChannelDimension | None = None
) -> np.ndarray:
    """Read one image.

    Args:
        image: A PIL image, or a NumPy array or torch tensor of shape (height, width), (height, width, channels) or
            (channels, height, width).
        do_convert_rgb: Whether to make it RGB; otherwise channels stay as they are.
        input_data_format: Where an array has its channels; found from the shape by default.

    Returns:
        Array (channels, height, width), uint8, or float32 where floats came in.

    Raises:
        TypeError: If it is no image.
        ValueError: If the image is empty, or has pixels that are not finite, or an unknown layout.
    """
    if isinstance(image, PIL.Image.Image):
        pixels = _read_pil_image(image, do_convert_rgb)
        input_data_format = ChannelDimension.LAST
    elif isinstance(image, torch.Tensor):
        tensor = image.detach().cpu()
        # NumPy knows no bfloat16.
        pixels = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    elif isinstance(image, np.ndarray):
        pixels = image
    else:
        raise TypeError(
            f"Expected a PIL image, a NumPy array or a torch tensor, but got {type(image).__name__}. Convert it first."
        )
    _check_pixels(pixels)
    pixels = _to_eight_bits(_move_channels_first(pixels, input_data_format))
    return _convert_channels_to_rgb(pixels) if do_convert_rgb else pixels


def _read_pil_image(image: PIL.Image.Image, do_convert_rgb: bool) -> np.ndarray:
    """Array (height, width) or (height, width, channels) of a PIL image, upright, transparency laid on white."""
    if 0 in image.size:
        return np.empty((image.height, image.width, 3), dtype=np.uint8)
    image = PIL.ImageOps.exif_transpose(image)
    if image.mode in DEEP_MODES or image.mode.startswith("I;16"):
        pixels = np.asarray(image)
        # The floats of a picture are either shares of white or grey values.
        return pixels * 255 if image.mode == "F" and pixels.min() >= 0 and pixels.max() <= 1 else pixels
    if not do_convert_rgb:
        return np.asarray(image)
    if image.mode in TRANSPARENT_MODES or "transparency" in image.info:
        image = image.convert("LA") if image.mode == "La" else image
        white = PIL.Image.new("RGBA", image.size, "white")
        image = PIL.Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _check_pixels(pixels: np.ndarray) -> None:
    if pixels.size == 0:
        raise ValueError(f"Expected pixels, but got an empty image of shape {pixels.shape}. Leave it out.")
    if pixels.dtype.kind not in "biuf":
        raise ValueError(f"Expected numbers as pixels, but got {pixels.dtype}. Convert the array.")
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise ValueError("Expected finite pixels, but got NaN or infinity. Repair or leave out the image.")


def _move_channels_first(pixels: np.ndarray, input_data_format: str | ChannelDimension | None) -> np.ndarray:
    if pixels.ndim == 2:
        return pixels[None]
    if pixels.ndim != 3:
        raise ValueError(f"Expected an image of 2 or 3 dimensions, but got the shape {pixels.shape}. Reshape it.")
    if input_data_format is None:
        try:
            input_data_format = infer_channel_dimension_format(pixels, num_channels=(1, 3, 4))
        except ValueError as error:
            raise ValueError(
                f"Expected 1, 3 or 4 channels first or last, but got the shape {pixels.shape}. Reshape the image."
            ) from error
    return pixels if ChannelDimension(input_data_format) == ChannelDimension.FIRST else np.moveaxis(pixels, -1, 0)


def _to_eight_bits(pixels: np.ndarray) -> np.ndarray:
    """Scale integers to 0...255; floats are only brought to single precision."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype.kind == "f":
        return pixels.astype(np.float32, copy=False)
    if pixels.dtype.kind == "b":
        return pixels.astype(np.uint8) * np.uint8(255)
    lowest, highest = int(pixels.min()), int(pixels.max())
    if lowest < 0:
        raise ValueError(f"Expected integer pixels from 0 on, but got {lowest}. Shift the image.")
    # An unsigned 16-bit image says its range; in other types it is the smallest usual range that holds the pixels.
    is_sixteen_bit = pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2
    bits = (16,) if is_sixteen_bit else (8, 16, 32, 64)
    white = next(2**count - 1 for count in bits if highest < 2**count)
    return np.rint(pixels * (255 / white)).astype(np.uint8)


def _convert_channels_to_rgb(pixels: np.ndarray) -> np.ndarray:
    """Repeat grey, lay transparent pixels on white; (channels, height, width) -> (3, height, width)."""
    if len(pixels) == 1:
        return np.repeat(pixels, 3, axis=0)
    if len(pixels) == 3:
        return pixels
    white = 1.0 if pixels.dtype.kind == "f" and pixels.max() <= 1 else 255.0
    opacity = pixels[3:].astype(np.float32) / white
    opaque = opacity * pixels[:3] + (1 - opacity) * white
    return np.rint(opaque).astype(np.uint8) if pixels.dtype == np.uint8 else opaque.astype(np.float32)

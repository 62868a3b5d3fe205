"""From anything that holds a picture to pixels of the right size: (channels, height, width), 8-bit or floats.

Read are files of every format but EPS, PIL images of every mode, NumPy arrays and torch tensors in either layout, EXIF
rotation, transparency (laid on white, as Transformers does), and unsigned integers of more than 8 bits (scaled by the
range of their type, never clipped).

Resizing is without antialiasing, and of 8-bit images bilinear to the last bit as in the published method. That resizes
with OpenCV, which works in fixed point: weights are whole numbers out of 2048, and bits are dropped between and after
the two passes. A float resize is one grey level off at one value in twelve, and attention can blow that up. Everything
else is resized in single precision.
"""

import numbers
import os
import warnings
from typing import IO, Any

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
import torch.nn.functional as F
from transformers.image_utils import ChannelDimension, PILImageResampling, SizeDict

__all__ = [
    "check_length",
    "compute_resized_size",
    "describe_reduction",
    "list_frames",
    "open_image",
    "read_image",
    "read_rgb_image",
    "resize_image",
]

# What photographs come in; EPS and others would run foreign programs. Those that PIL knows from the start come first,
# and AVIF last, as older versions of PIL know nothing of it.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "DIB", "TIFF", "WEBP", "JPEG2000", "AVIF")

TIFF_KIND, REDUCED, MASK = 254, 1, 4  # the tag, and its bits
TRANSPARENT_MODES = ("RGBA", "LA", "PA", "RGBa", "La")
DEEP_MODES = ("I", "F")  # and everything that begins with "I;16"; PIL's own conversion would clip them at 255
COLOR_CHANNELS = (3, 4)
LONGEST_SIDE = 2**16
NOTED_REDUCTION = 2  # times a side; that the model does not see details is said from there on
LARGEST_FLOAT = 1e9  # far beyond any sensor; squares of what is larger leave single precision
DARK_SHARE = 0.25  # of the range: 12 bits or reflectances in 16-bit integers are darker than any photograph
MOST_HALF_TRANSPARENT = 0.95  # of the pixels of a picture: glass and shadows do not fill it

INTERPOLATION_MODES = {
    PILImageResampling.NEAREST: "nearest-exact",
    PILImageResampling.BILINEAR: "bilinear",
    PILImageResampling.BICUBIC: "bicubic",
}
WEIGHT_SCALE = np.float32(2048)  # a weight of 1 in fixed point


def list_frames(source: str | os.PathLike[str] | IO[bytes]) -> list[int]:
    """Places of the pictures in a file: pages of a TIFF, frames of a GIF; the one of a file that cannot be read.

    Smaller copies and masks in a TIFF, and what a camera puts behind the photograph in a JPEG, are no pictures.
    """
    if isinstance(source, str | os.PathLike) and not os.path.isfile(source):
        return [0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(source, formats=FORMATS) as image:
                return _list_frames(image)
    except Exception:  # decoders raise what they like, and `open_image` says it
        return [0]


def _list_frames(image: PIL.Image.Image) -> list[int]:
    frames = [frame for frame in range(getattr(image, "n_frames", 1)) if not _is_copy(image, frame)]
    return frames[:1] if image.format == "MPO" else frames or [0]


def _is_copy(image: PIL.Image.Image, frame: int) -> bool:
    """Whether a page of a TIFF is a smaller copy or a mask of another one; there are none in other files."""
    if image.format != "TIFF":
        return False
    image.seek(frame)
    return bool(image.tag_v2.get(TIFF_KIND, 0) & (REDUCED | MASK))  # type: ignore[attr-defined]


def open_image(source: str | os.PathLike[str] | IO[bytes], frame: int | None = None) -> PIL.Image.Image:
    """Read an image file, once and whole, in its own mode and orientation.

    Args:
        source: A path or an open binary file.
        frame: Which of its pictures, from 0; by default the first that is no smaller copy of another one.

    Raises:
        OSError: If it cannot be read or decoded, whatever its decoder says; the message need not name the file.
    """
    if isinstance(source, str | os.PathLike) and os.path.exists(source) and not os.path.isfile(source):
        raise OSError("Expected an image file, but it is a folder, a pipe or a device. Leave it out.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(source, formats=FORMATS) as image:
                if frame is None:
                    # Others are looked for only if need be: one further on may be broken.
                    frame = _list_frames(image)[0] if _is_copy(image, 0) else 0
                image.seek(frame)
                image.load()
                return image
    except FileNotFoundError:
        raise FileNotFoundError(f"Expected an image file, but there is no {source}. Check its path.") from None
    except MemoryError:
        raise
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning):
        # A file of some kB may declare any size, and hours would go by.
        limit = (PIL.Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise OSError(f"Expected at most {limit} megapixels, but got more. Scale the image down.") from None
    except (PIL.UnidentifiedImageError, KeyError):
        raise OSError(
            f"Expected an image in {', '.join(FORMATS)}, of 1, 3 or 4 channels, but its content is none. Convert it."
        ) from None
    except Exception as error:  # decoders raise what they like
        what = "can be read" if getattr(error, "errno", None) else "is whole"
        reason = str(error) or type(error).__name__
        raise OSError(f"Expected an image file that {what}, but got: {reason}. Repair or replace it.") from error


def read_rgb_image(source: PIL.Image.Image | str | os.PathLike[str]) -> PIL.Image.Image:
    """Read an image or image file upright as 8-bit RGB.

    Raises:
        OSError, ValueError: See `open_image` and `read_image`.
    """
    pixels = read_image(source if isinstance(source, PIL.Image.Image) else open_image(source))
    if pixels.min() < 0 or pixels.max() > 255:
        raise ValueError(
            f"Expected pixels between 0 and 255, but got {pixels.min():g} to {pixels.max():g}. Scale the image."
        )
    return PIL.Image.fromarray(np.moveaxis(pixels, 0, -1).round().astype(np.uint8))


def read_image(
    image: Any, do_convert_rgb: bool = True, input_data_format: str | ChannelDimension | None = None
) -> np.ndarray:
    """Read one image.

    Args:
        image: A PIL image, or a NumPy array or torch tensor of shape (height, width), (height, width, channels) or
            (channels, height, width).
        do_convert_rgb: Whether to make it RGB; otherwise channels stay as they are.
        input_data_format: Where an array has its channels; by default last where the last axis has length 3 or 4,
            otherwise on the one axis of length 1, 3 or 4.

    Returns:
        Array (channels, height, width), uint8, or float32 where floats came in. Unsigned integers have the range of
        their type, signed ones are 0...255.

    Raises:
        TypeError: If it is no image.
        ValueError: If the image is empty, has an unknown or ambiguous layout, or pixels that are not finite or out of
            range.
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


def check_length(name: str, value: int | None) -> None:
    """Make sure that a length of `size` is one.

    Raises:
        TypeError: If it is no whole number.
        ValueError: If it is below 1 or far beyond any image.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"Expected `size` in whole pixels, but got {value!r:.80} as '{name}'. Use a number like 336.")
    if value < 1:
        raise ValueError(f"Expected `size` of at least 1 pixel, but got {value} as '{name}'. Use a number like 336.")
    if value > LONGEST_SIDE:
        raise ValueError(
            f"Expected `size` of at most {LONGEST_SIDE}, but got more as '{name}'. Use a number like 336."
        )


def compute_resized_size(height: int, width: int, size: SizeDict) -> tuple[int, int]:
    """Size that keeps the proportions, unless `size` gives both sides; rounded as in the published method.

    Raises:
        TypeError: If a length is no whole number.
        ValueError: If `size` names no length or one below 1.
    """
    for name in ("height", "width", "shortest_edge", "longest_edge"):
        check_length(name, getattr(size, name))
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


def describe_reduction(size: tuple[int, int], seen: tuple[int, int]) -> str:
    """That the model sees much less of a picture than there is, to be said of its name; empty where it does not."""
    if min(size) <= NOTED_REDUCTION * min(seen):
        return ""
    there, left = (" x ".join(map(str, each)) for each in (size, seen))
    return f"has {there} pixels, and the model sees {left}."


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


def _read_pil_image(image: PIL.Image.Image, do_convert_rgb: bool) -> np.ndarray:
    """Array (height, width) or (height, width, channels) of a PIL image, upright, transparency laid on white."""
    if 0 in image.size:
        return np.empty((image.height, image.width, 3), dtype=np.uint8)
    image = PIL.ImageOps.exif_transpose(image)
    if image.mode in DEEP_MODES or image.mode.startswith("I;16"):
        pixels = np.asarray(image)
        if image.mode == "I" and pixels.min() >= 0 and pixels.max() < 2**16:
            return pixels.astype(np.uint16)  # 16-bit files come in this mode, too
        # The floats of a picture are either shares of white or grey values.
        if image.mode == "F" and pixels.min() >= 0 and 0 < pixels.max() <= 1:
            warnings.warn(
                "Expected grey values between 0 and 255, but got floats that are all between 0 and 1, which are taken "
                "for shares of white. Scale them if they are not.",
                stacklevel=3,
            )
            return pixels * 255
        return pixels
    if not do_convert_rgb:
        return np.asarray(image)
    if image.mode in TRANSPARENT_MODES or "transparency" in image.info:
        image = image.convert("LA") if image.mode == "La" else image  # PIL knows no direct way from there
        white = PIL.Image.new("RGBA", image.size, "white")
        image = PIL.Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _check_pixels(pixels: np.ndarray) -> None:
    if pixels.size == 0:
        raise ValueError(f"Expected pixels, but got an empty image of shape {pixels.shape}. Leave it out.")
    if pixels.dtype.kind not in "biuf":
        raise ValueError(f"Expected numbers as pixels, but got {pixels.dtype}. Convert the array.")
    if pixels.dtype.kind == "f":
        lowest, highest = float(pixels.min()), float(pixels.max())
        if not (np.isfinite(lowest) and np.isfinite(highest)):
            raise ValueError("Expected finite pixels, but got NaN or infinity. Repair or leave out the image.")
        if max(-lowest, highest) > LARGEST_FLOAT:
            raise ValueError(f"Expected pixels between 0 and 255, but got {lowest:g} to {highest:g}. Scale the image.")


def _move_channels_first(pixels: np.ndarray, input_data_format: str | ChannelDimension | None) -> np.ndarray:
    if pixels.ndim == 2:
        return pixels[None]
    if pixels.ndim != 3:
        raise ValueError(f"Expected an image of 2 or 3 dimensions, but got the shape {pixels.shape}. Reshape it.")
    if input_data_format is None:
        input_data_format = _infer_layout(pixels.shape)
    if input_data_format not in list(ChannelDimension):
        raise ValueError(
            f"Expected `input_data_format` out of 'channels_first' and 'channels_last', but got {input_data_format!r}."
        )
    pixels = pixels if input_data_format == ChannelDimension.FIRST else np.moveaxis(pixels, -1, 0)
    if len(pixels) not in (1, *COLOR_CHANNELS):
        raise ValueError(
            f"Expected 1, 3 or 4 channels, but got {len(pixels)}. Choose three, or set `input_data_format` right."
        )
    return pixels


def _infer_layout(shape: tuple[int, ...]) -> ChannelDimension:
    """Where the channels are: colours come last unless only the first axis can be theirs."""
    first, last = (length in (1, *COLOR_CHANNELS) for length in (shape[0], shape[-1]))
    if shape[-1] in COLOR_CHANNELS or (last and not first):
        return ChannelDimension.LAST
    if last and shape != (1, 1, 1):
        raise ValueError(
            f"Expected channels first or last, but the shape {shape} may mean both. Set `input_data_format`."
        )
    if first:
        return ChannelDimension.FIRST
    raise ValueError(f"Expected 1, 3 or 4 channels first or last, but got the shape {shape}. Reshape the image.")


def _to_eight_bits(pixels: np.ndarray) -> np.ndarray:
    """Scale integers to 0...255; floats are only brought to single precision."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype.kind == "f":
        return pixels.astype(np.float32, copy=False)
    if pixels.dtype.kind == "b":
        return pixels.astype(np.uint8) * np.uint8(255)
    lowest, highest = int(pixels.min()), int(pixels.max())
    # Unsigned types say their range. In signed ones, which arithmetic leaves behind, pixels of 8 bits are usual.
    white = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 255
    if lowest < 0:
        raise ValueError(
            f"Expected integer pixels from 0 on, but got {lowest} to {highest}. Shift and scale the image."
        )
    if highest > white:
        raise ValueError(
            f"Expected {pixels.dtype} pixels between 0 and 255, but got {lowest} to {highest}. Scale them, or convert "
            "them to the unsigned type whose range they have."
        )
    if white > 255 and 0 < highest < DARK_SHARE * white:
        warnings.warn(
            f"Expected {pixels.dtype} pixels between 0 and {white}, but got {lowest} to {highest}, which is dark. "
            "Scale the image if its white is lower.",
            stacklevel=2,
        )
    return np.rint(pixels * (255 / white)).astype(np.uint8)


def _convert_channels_to_rgb(pixels: np.ndarray) -> np.ndarray:
    """Repeat grey, lay transparent pixels on white; (channels, height, width) -> (3, height, width)."""
    if len(pixels) == 1:
        return np.repeat(pixels, 3, axis=0)
    if len(pixels) == 3:
        return pixels
    # Floats may be shares of white; opacity has the range of the colours.
    white = 1.0 if pixels.dtype.kind == "f" and 0 < pixels.max() <= 1 else 255.0
    opacity = pixels[3:].astype(np.float32) / white
    if ((opacity > 0) & (opacity < 1)).mean() > MOST_HALF_TRANSPARENT:
        warnings.warn(
            "Expected a fourth channel that says how opaque pixels are, but got one that is in between nearly "
            "everywhere, as infrared would be. Pass three channels if it is no opacity.",
            stacklevel=3,
        )
    opaque = opacity * pixels[:3] + (1 - opacity) * white
    return np.rint(opaque).astype(np.uint8) if pixels.dtype == np.uint8 else opaque.astype(np.float32)


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
    # 255 * 2048 without four bits fits the 16-bit products of OpenCV's vector code; of the rest, 16 bits are dropped
    # with each product and two in the end, rounded.
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

"""Image files of users: whatever is wrong with one image is its own error, and no reason to leave others undone."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError

__all__ = ["ImageError", "load_image", "name_image_errors"]

# What photographs come in; EPS and others would run foreign programs. Those that PIL knows from the start come first,
# and AVIF last, as older versions of PIL know nothing of it.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "DIB", "TIFF", "WEBP", "JPEG2000", "AVIF")


class ImageError(ValueError):
    """What is wrong with one image; the message does not say with which."""


def load_image(source: Path | IO[bytes]) -> Image.Image:
    """Decode an image, in its own mode and orientation.

    Raises:
        FileNotFoundError: If there is no such file.
        ImageError: If it cannot be decoded, whatever the decoder says.
    """
    if isinstance(source, Path) and source.exists() and not source.is_file():
        raise ImageError("Expected an image file, but it is a folder, a pipe or a device. Leave it out.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source, formats=FORMATS) as image:
                image.load()
                return image
    except (FileNotFoundError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        # A file of some kB may declare any size, and hours would go by.
        limit = (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise ImageError(f"Expected at most {limit} megapixels, but got more. Scale the image down.") from None
    except (UnidentifiedImageError, KeyError):
        raise ImageError(f"Expected an image in {', '.join(FORMATS)}, but its content is none. Convert it.") from None
    except OSError as error:
        what = "can be read" if error.errno else "is whole"
        raise ImageError(f"Expected an image file that {what}, but got: {error}") from error
    except Exception as error:  # decoders raise what they like
        reason = str(error) or type(error).__name__
        raise ImageError(f"Expected an image file that is whole, but got: {reason}") from error


@contextlib.contextmanager
def name_image_errors() -> Iterator[None]:
    """What is raised while one image is worked on, as an [`ImageError`]; faults of the program stay what they are."""
    try:
        yield
    except ImageError:
        raise
    except (MemoryError, TypeError, ValueError) as error:
        raise ImageError(str(error) or type(error).__name__) from error
    except RuntimeError as error:  # torch has no one error for too little memory
        if "memory" not in str(error):
            raise
        raise ImageError(str(error)) from error

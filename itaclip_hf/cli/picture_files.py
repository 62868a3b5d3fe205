"""Writes pictures so that they are whole or not there."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["save_png"]


def save_png(path: Path, image: "Image.Image") -> None:
    """Write a PNG file atomically."""
    from ..files import write_atomically

    content = io.BytesIO()
    image.save(content, "PNG")
    with write_atomically(path) as file:
        file.write(content.getvalue())

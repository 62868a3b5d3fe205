"""Results as masks: for each image a folder with a black and white picture of each class that was found."""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from ..files import is_own_png, write_png
from . import Finished

__all__ = ["write"]

LONGEST_CLASS = 100  # bytes, as file systems count


def write(finished: Iterable[Finished], place: Path) -> None:
    """Write NAME/ID_CLASS.png, 255 where the class is and 0 elsewhere; the background is left out.

    Args:
        finished: The results.
        place: The folder.
    """
    for result in finished:
        labels = result.read_labels()
        for earlier in (place / result.file.result_name).glob("*.png"):
            if is_own_png(earlier):  # of classes that it may not have any more
                earlier.unlink()
        for label in np.unique(labels).tolist():
            if label or not result.has_background:
                name = re.sub(r"[^\w-]+", "_", result.classes[label])
                name = name.encode()[:LONGEST_CLASS].decode(errors="ignore")  # the id tells apart what is cut alike
                mask = Image.fromarray((labels == label).astype(np.uint8) * 255)
                write_png(place / result.file.result_name / f"{label:03}_{name}.png", mask)

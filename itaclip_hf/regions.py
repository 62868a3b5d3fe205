"""Where region maps of image files come from: a folder of maps beside them, or superpixels made on the spot."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from .processing import make_region_map, open_image

__all__ = ["SUPERPIXELS", "RegionSource", "compute_superpixels", "open_regions"]

SUPERPIXELS = "felzenszwalb"

# Gives the regions, (height, width) int64, of the image of a name: a path below the folder, without suffix.
RegionSource = Callable[[str | os.PathLike[str], Image.Image], np.ndarray]


def compute_superpixels(image: Image.Image, scale: float = 100, sigma: float = 0.5, min_size: int = 50) -> np.ndarray:
    """Regions of like colour, by Felzenszwalb and Huttenlocher's graphs; a fallback where there is no segmenter.

    Args:
        image: The image.
        scale: The higher, the larger regions are.
        sigma: Width in pixels of the blur before.
        min_size: Pixels of the smallest region.

    Returns:
        (height, width) int64, every pixel in a region, from 1.

    Raises:
        ImportError: If scikit-image is not installed.
    """
    try:
        from skimage.segmentation import felzenszwalb
    except ModuleNotFoundError as error:
        raise ImportError(
            "Expected scikit-image for superpixels, but it is not installed. Run `pip install 'itaclip_hf[regions]'`."
        ) from error
    found = felzenszwalb(np.asarray(image.convert("RGB")), scale=scale, sigma=sigma, min_size=min_size)
    return found.astype(np.int64) + 1


def open_regions(place: str) -> RegionSource:
    """The source of regions of a name.

    Args:
        place: "felzenszwalb", or a folder with NAME.png, as label maps or COCO's panoptic PNGs, or NAME.npy, ids or
            masks. Where it lacks those of an image, or they are not as expected, the source raises a `ValueError` that
            names the file.

    Raises:
        ValueError: If there is no such folder.
    """
    if place == SUPERPIXELS:
        return lambda name, image: compute_superpixels(image)
    if not os.path.isdir(place):
        raise ValueError(
            f"Expected a folder of region maps, or {SUPERPIXELS!r}, but {place} is none. Correct the path."
        )
    return partial(_read_regions, Path(place))


def _read_regions(folder: Path, name: str | os.PathLike[str], image: Image.Image) -> np.ndarray:
    base = folder / name
    places = [base.with_name(base.name + suffix) for suffix in (".png", ".npy")]  # not `with_suffix`: names have dots
    path = next(filter(os.path.isfile, places), None)
    if path is None:
        raise ValueError(f"Expected regions in {places[0]} or {places[1].name}, but there are none. Put them there.")
    try:
        return make_region_map(_read_array(path) if path.suffix == ".npy" else open_image(path))
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _read_array(path: Path) -> np.ndarray:
    # Not `numpy.load`, which also takes archives and pickles, and leaves broken ones of these open.
    with path.open("rb") as file:
        try:
            return np.lib.format.read_array(file, allow_pickle=False)
        except Exception as error:  # a broken header is parsed as Python, and fails in all its ways
            raise ValueError(
                f"Expected an array as `numpy.save` writes it, but it cannot be read ({error}). Save it anew."
            ) from error

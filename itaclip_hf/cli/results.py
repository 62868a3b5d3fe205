"""Results of images in their folder: what may be replaced, what is finished, what failed."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files import TEMPORARY_SUFFIX, is_own_png, read_json, refuse_others, write_json
from ..media import TIFF_MARK, Finished, Found, ImageFile, ResultFiles
from ..plain_text import show_name
from .terminal import say, warn

__all__ = [
    "Tasks",
    "leave_out_finished",
    "protect_files",
    "read_finished",
    "tell_failure",
    "write_description",
]

Tasks = Sequence[tuple[ImageFile, ResultFiles]]  # inputs, and where their results will be


def protect_files(tasks: Tasks, may_replace: bool) -> None:
    """Make sure that nothing takes the place of an image to segment, nor of a file that is no result of ours.

    Args:
        tasks: Images, each with its results.
        may_replace: Whether earlier results may be there.

    Raises:
        ValueError: If an image, or an earlier result that must stay, is in the way.
        FileExistsError: If another file is.
    """
    images = {os.path.realpath(file.path) for file, _ in tasks}
    with_results = [(file, results, there) for file, results in tasks if (there := _find_existing(results))]
    for _, results, there in with_results:
        for path in there:
            if os.path.realpath(path) in images:
                raise ValueError(
                    f"Expected results beside the images, but {path} is an image itself. Use another --out."
                )
        if may_replace and _read_request(results) == (None, None):
            # A run that was stopped leaves pictures without a description.
            refuse_others(there, _is_own)
    if with_results and not may_replace:
        file, results, _ = with_results[0]
        others = f" and {len(with_results) - 1} others" if len(with_results) > 1 else ""
        raise ValueError(
            f"Expected no results in {results.description.parent} yet, but those of {file}{others} are there. "
            "Use --existing overwrite, --existing skip or another --out."
        )


def tell_failure(file: ImageFile, error: Exception) -> None:
    """Say what is wrong with an image, so that the others are done; errors that are no image's own are raised."""
    from ..image_errors import find_image_error

    reason = find_image_error(error)
    if reason is None:
        raise error
    warn(f"{show_name(file)}: {' '.join(reason.split())}")


def leave_out_finished(tasks: Tasks, request: dict[str, Any]) -> Tasks:
    """The images without a result of this very request; how many have one is said.

    Raises:
        ValueError: If one has a result of another image or of other settings.
    """
    remaining = []
    for file, results in tasks:
        if not os.path.lexists(results.description):
            remaining.append((file, results))
        elif _read_request(results) != (str(file), request):
            raise ValueError(
                f"Expected {results.description} to be of {file} with the same settings, but it is of another "
                "image or other settings. Use --existing overwrite or another --out."
            )
    if len(remaining) < len(tasks):
        say(f"{len(tasks) - len(remaining)} of {len(tasks)} images are finished already.")
    return remaining


def read_finished(tasks: Tasks, request: dict[str, Any]) -> list[Finished]:
    """The results of this very request; without the images that failed."""
    found = [
        (file, results, read_json(results.description)) for file, results in tasks if results.description.exists()
    ]
    return [Finished(*result) for result in found if result[2].get("settings") == request]


def write_description(results: ResultFiles, found: Found, origin: dict[str, Any]) -> None:
    """Write what was found, after where it is from; a result is complete by it."""
    write_json(results.description, {**origin, **found.details, "classes": found.classes})


def _find_existing(results: ResultFiles) -> list[Path]:
    """Those of the files that are there; unlike `Path.exists`, also where a name is too long to exist."""
    return [path for path in vars(results).values() if os.path.lexists(path)]


def _is_own(path: Path) -> bool:
    """Whether a file without a description is ours: a picture, a map of a raster, a folder of those of frames."""
    from PIL import Image
    from PIL.TiffImagePlugin import TiffImageFile

    if path.is_dir():
        return all(is_own_png(each) for each in path.iterdir() if each.suffix != TEMPORARY_SUFFIX)
    if path.suffix != ".tif":
        return is_own_png(path)
    try:
        with Image.open(path, formats=["TIFF"]) as image:
            return isinstance(image, TiffImageFile) and image.tag_v2.get(TIFF_MARK[0]) == TIFF_MARK[1]
    except Exception:  # of a decoder
        return False


def _read_request(results: ResultFiles) -> tuple[Any, Any]:
    """Image and settings of an earlier result; nothing where there is none of ours."""
    try:
        content = read_json(results.description)
        return content["image"], content["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return None, None

"""Results as a YOLO segmentation data set: images, a text file of polygons for each, and data.yaml."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import yaml

from ..files import read_text, write_png, write_text
from . import Finished
from .outlines import find_parts, join_rings, trace_rings
from .pictures import read_picture

__all__ = ["write"]


def write(finished: Iterable[Finished], place: Path) -> None:
    """Write a folder to train from: a line for each connected region, holes joined to its outline by a cut.

    Images are links to the originals, or copies where the system knows no links; frames and images from addresses are
    written as PNG. Ids count the classes from 0, the background left out.

    Args:
        finished: The results.
        place: The folder.
    """
    finished = list(finished)
    names: dict[int, str] = {}
    for result in finished:
        shift = 1 if result.has_background else 0
        names |= {label - shift: name for label, name in result.classes.items()}
    if _read_names(place) not in (None, names):  # ids of other classes, which data.yaml would call otherwise
        for folder in ("labels", "images"):
            shutil.rmtree(place / folder, ignore_errors=True)
    for result in finished:
        shift = 1 if result.has_background else 0
        lines = []
        for part in find_parts(result.read_labels(), result.has_background):
            # Places are shares of width and height there.
            corners = join_rings(trace_rings(part)) / result.size[::-1]
            lines.append(" ".join([str(part.label - shift), *(f"{value:.6g}" for value in corners.ravel())]))
        name = result.file.result_name
        write_text(place / "labels" / name.with_name(f"{name.name}.txt"), "".join(f"{line}\n" for line in lines))
        _bring_image(result, place / "images" / name)
    content = {"path": os.path.abspath(place), "train": "images", "val": "images", "names": names}
    write_text(place / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _read_names(place: Path) -> dict[int, str] | None:
    """The classes of an earlier run, if there was one."""
    if not (place / "data.yaml").is_file():
        return None
    names: dict[int, str] | None = yaml.safe_load(read_text(place / "data.yaml")).get("names")
    return names


def _bring_image(result: Finished, place: Path) -> None:
    file = result.file
    if file.frame is not None or isinstance(file.path, str):
        write_png(place.with_name(f"{place.name}.png"), read_picture(file.path, file.frame))
        return
    target = place.with_name(f"{place.name}{file.path.suffix}")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # of an earlier run; a new link replaces nothing
    try:
        target.symlink_to(file.path.resolve())
    except OSError:
        shutil.copyfile(file.path, target)

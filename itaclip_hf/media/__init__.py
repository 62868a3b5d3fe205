"""Kinds of input and formats of output: one file each and one row here, which `itaclip segment` reads.

The module of a kind of input has `open_input(file, plan)`, which raises OSError or ValueError for what cannot be read;
what it gives has `foresee(loaded, plan)`, which says what is `Foreseen`, and `segment(results, loaded, plan, track)`,
which writes the result and returns what was `Found`. The module of a format has `write(finished, place)`, which writes
the results of all images once more, for other tools.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "ADDRESS_STARTS",
    "FORMATS",
    "KINDS",
    "TIFF_MARK",
    "Finished",
    "Foreseen",
    "Format",
    "Found",
    "ImageFile",
    "Kind",
    "Plan",
    "ResultFiles",
    "Track",
]

# Wraps steps to show how far they are: steps, number of them (or `None`), what they are.
Track = Callable[[Iterable[Any], int | None, str], Iterable[Any]]


class Kind(NamedTuple):
    """A kind of input.

    Attributes:
        module: Its file here.
        suffixes: Of its files' names, where they tell.
        ends: What the names of its results end in: label map, overlay, confidence, description.
        extra: What is installed for it, if anything: `pip install itaclip_hf[extra]`.
    """

    module: str
    suffixes: frozenset[str]
    ends: tuple[str, str, str, str]
    extra: str = ""


class Format(NamedTuple):
    """A format of output beside the usual files.

    Attributes:
        module: Its file here.
        place: The file or folder that is written into the folder for the results.
        extra: What is installed for it, if anything: `pip install itaclip_hf[extra]`.
    """

    module: str
    place: str
    extra: str = ""


KINDS = {
    "picture": Kind(
        "pictures",
        frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}),
        ("_labels.png", "_overlay.png", "_confidence.png", ".json"),
    ),
    "raster": Kind(
        "rasters",
        frozenset({".tif", ".tiff"}),  # those that say where on Earth they are, or are beyond PIL
        ("_labels.tif", "_overlay.png", "_confidence.tif", ".json"),
        "raster",
    ),
    "video": Kind(
        "videos",
        frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}),
        ("_labels", "_overlay.mp4", "_confidence", ".json"),
        "video",
    ),
}
TIFF_MARK = (305, "itaclip_hf")  # tag and content
ADDRESS_STARTS = ("http://", "https://")
FORMATS = {
    "coco": Format("coco", "coco.json", "formats"),
    "yolo": Format("yolo", "yolo", "formats"),
    "masks": Format("masks", "masks"),
}


class Plan(NamedTuple):
    """What is wanted.

    Attributes:
        confidence: Whether confidence maps are written.
        tile: Side in pixels of the tiles that images are cut into at their own resolution; `None`: in one piece,
            scaled to the size that the processor says.
        bands: Bands of a raster that are red, green and blue, from 1; by default those that it calls so.
        every: Of a video, every so many frames.
        regions: Where regions of pictures come from; see `open_regions`.
    """

    confidence: bool = False
    tile: int | None = None
    bands: list[int] | None = None
    every: int = 1
    regions: str | None = None


@dataclass(frozen=True)
class ImageFile:
    """An input, and the name of its results.

    Attributes:
        path: Where it is; an address as text.
        result_name: A path below the output folder without suffix.
        kind: One of `KINDS`.
        frame: Which picture of a file with many; `None` if it has one.
    """

    path: Path | str
    result_name: Path
    kind: str = "picture"
    frame: int | None = None

    def __str__(self) -> str:
        return str(self.path) if self.frame is None else f"{self.path} [{self.frame + 1}]"


@dataclass(frozen=True)
class ResultFiles:
    """The files of one input's result. The JSON file is written last: where it is, the result is complete."""

    labels: Path
    overlay: Path
    confidence: Path
    description: Path


class Foreseen(NamedTuple):
    """What is known of an input before the work, which may be long.

    Attributes:
        size: Its (height, width).
        seen: (height, width) at which the model will see it.
        note: What the user should know, if anything.
    """

    size: tuple[int, int]
    seen: tuple[int, int]
    note: str = ""


class Found(NamedTuple):
    """What was found in an input.

    Attributes:
        classes: Id, name, share and mean score of every class.
        details: What else the description says.
    """

    classes: list[dict[str, Any]]
    details: dict[str, Any] = {}


class Finished(NamedTuple):
    """A finished result on disk.

    Attributes:
        file: The input.
        results: The files.
        description: The content of the JSON file.
    """

    file: ImageFile
    results: ResultFiles
    description: dict[str, Any]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.description["height"], self.description["width"]

    @property
    def classes(self) -> dict[int, str]:
        """Name of each class by label id, without the background."""
        names = {entry["id"]: entry["name"] for entry in self.description["classes"]}
        return {label: name for label, name in names.items() if label or not self.has_background}

    @property
    def scores(self) -> dict[int, float]:
        """Mean score of each label id."""
        return {entry["id"]: entry["mean_score"] for entry in self.description["classes"]}

    @property
    def has_background(self) -> bool:
        """Whether label 0 is the background."""
        return bool(self.description["classes"][0]["name"] == "background")

    def read_labels(self) -> "np.ndarray":
        """Label ids (height, width)."""
        import numpy as np
        from PIL import Image

        with Image.open(self.results.labels) as image:
            return np.array(image)

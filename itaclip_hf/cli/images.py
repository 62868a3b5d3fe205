"""Images of the command line: finds those that were asked for, reads and segments them, describes what was found."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from ..modeling import ITACLIPForSemanticSegmentation
    from ..processing import ITACLIPProcessor

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageFile",
    "SegmentedImage",
    "find_images",
    "read_image_file",
    "segment_image",
]

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class ImageFile:
    """An image and the name of its results, a path below the output folder without suffix."""

    path: Path
    result_name: Path


@dataclass(frozen=True)
class SegmentedImage:
    """An image and what was found in it.

    Attributes:
        image: The RGB image.
        labels: Label ids (height, width).
        confidence: Highest class score of each pixel, between 0 and 1, before thresholds, (height, width).
        names: Name of each label.
        has_background: Whether label 0 is the background.
    """

    image: Image.Image
    labels: np.ndarray
    confidence: np.ndarray
    names: tuple[str, ...]
    has_background: bool

    def describe_classes(self) -> list[dict[str, Any]]:
        """Id, name, share of the pixels and mean score of every class; the score of an absent class is `None`."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.names))
        sums = np.bincount(self.labels.ravel(), weights=self.confidence.ravel(), minlength=len(self.names))
        return [
            {
                "id": label,
                "name": name,
                "share": round(float(counts[label] / self.labels.size), 6),
                "mean_score": round(float(sums[label] / counts[label]), 6) if counts[label] else None,
            }
            for label, name in enumerate(self.names)
        ]

    def summarize(self, most: int = 4) -> str:
        """The largest classes and their shares in a line."""
        found = sorted(
            (entry for entry in self.describe_classes() if entry["share"]), key=lambda entry: -entry["share"]
        )
        shown = [f"{entry['name']} {entry['share']:.0%}" for entry in found[:most]]
        return ", ".join(shown) + (f" and {len(found) - most} more" if len(found) > most else "")

    def draw(self) -> Image.Image:
        """The image with its classes laid over it, named, and a legend beside it."""
        from ..drawing import draw_named_regions, draw_overlay, draw_with_legend, make_palette

        palette = make_palette(self.has_background)
        overlay = draw_overlay(np.asarray(self.image), self.labels, palette)
        overlay = draw_named_regions(overlay, self.labels, self.names)
        return draw_with_legend(overlay, self.labels, self.names, palette)


def find_images(inputs: Iterable[Path], out: Path) -> list[ImageFile]:
    """List the images in the order given, each once; folders with all below them, sorted.

    Results of a folder's image lie in the same subfolder of the output folder. Images whose results would have one
    name are numbered: `cat`, `cat-2`, ...

    Args:
        inputs: Files and folders. Files that are not there and folders that cannot be looked into are listed, so that
            reading them says so.
        out: Output folder; what lies in it is no input.

    Raises:
        ValueError: If there is no image.
    """
    inputs = list(inputs)
    files: list[ImageFile] = []
    seen: set[str] = set()
    taken: set[str] = set()
    for path, name in _expand(inputs, Path(os.path.realpath(out))):
        place = os.path.realpath(path)  # unlike `Path.resolve`, it has nothing against links in a circle
        if place not in seen:
            seen.add(place)
            files.append(ImageFile(path, _make_unique(name, taken)))
    if not files:
        shown = ", ".join(str(path) for path in inputs)
        raise ValueError(
            f"Expected images ({', '.join(sorted(IMAGE_SUFFIXES))}), but found none in {shown}. Name others."
        )
    return files


def read_image_file(path: Path) -> Image.Image:
    """Read any image file upright as RGB.

    Raises:
        OSError, ValueError: If it is no image, or its pixels are not as expected.
    """
    from ..processing import read_rgb_image

    if os.path.isdir(path):  # those that can be looked into never come here
        raise OSError("Expected a folder that may be looked into, but this one may not. Change its permissions.")
    return read_rgb_image(path)


def segment_image(
    image: Image.Image, model: "ITACLIPForSemanticSegmentation", processor: "ITACLIPProcessor"
) -> SegmentedImage:
    """Segment an RGB image with the vocabulary that is baked into the model."""
    import torch

    inputs = processor(images=image, return_tensors="pt").to(model.device)
    with torch.inference_mode():
        outputs = model.predict_labels(processor, **inputs)
    names = tuple(str(name) for _, name in sorted((model.config.id2label or {}).items()))
    labels, confidence = outputs.labels[0].cpu().numpy(), outputs.confidence[0].cpu().numpy()
    return SegmentedImage(image, labels, confidence, names, names[0] == "background")


def _expand(inputs: Sequence[Path], out: Path) -> Iterator[tuple[Path, Path]]:
    """Paths of images and the names that their results ask for."""
    for path in inputs:
        if not os.path.isdir(path):  # unlike `Path.is_dir`, it leaves it to reading to say what is wrong
            yield path, Path(path.stem)
            continue
        for found in sorted(_search(path)):
            if out not in Path(os.path.realpath(found)).parents:
                yield found, Path(path.name) if found == path else found.relative_to(path).with_suffix("")


def _search(folder: Path) -> Iterator[Path]:
    """Everything below a folder that is called like an image, and the folders that cannot be looked into."""
    closed: list[Path] = []
    for root, folders, names in os.walk(folder, onerror=lambda error: closed.append(Path(error.filename))):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                yield Path(root, name)
    yield from closed


def _make_unique(name: Path, taken: set[str]) -> Path:
    """The name, numbered if need be; compared without case, as some file systems do."""
    unique, number = name, 1
    while str(unique).casefold() in taken:
        number += 1
        unique = name.with_name(f"{name.name}-{number}")
    taken.add(str(unique).casefold())
    return unique

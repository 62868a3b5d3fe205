"""Finds the images that were asked for and gives each a place for its results."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["IMAGE_SUFFIXES", "ImageFile", "find_images"]

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class ImageFile:
    """An image and the name of its results, a path below the output folder without suffix."""

    path: Path
    result_name: Path


def find_images(inputs: Iterable[Path], out: Path) -> list[ImageFile]:
    """List the images in the order given, each once; folders with all below them, sorted.

    Results of a folder's image lie in the same subfolder of the output folder. Images whose results would have one
    name are numbered: `cat`, `cat-2`, ...

    Args:
        inputs: Files and folders. A file that does not exist is listed, so that reading it says so.
        out: Output folder; what lies in it is no input.

    Raises:
        ValueError: If there is no image.
    """
    inputs = list(inputs)
    files: list[ImageFile] = []
    seen: set[Path] = set()
    taken: set[str] = set()
    for path, name in _expand(inputs, out):
        if path.resolve() in seen:
            continue
        seen.add(path.resolve())
        files.append(ImageFile(path, _make_unique(name, taken)))
    if not files:
        shown = ", ".join(str(path) for path in inputs)
        raise ValueError(
            f"Expected images ({', '.join(sorted(IMAGE_SUFFIXES))}), but found none in {shown}. Name others."
        )
    return files


def _expand(inputs: Sequence[Path], out: Path) -> Iterator[tuple[Path, Path]]:
    """Paths of images and the names that their results ask for."""
    for path in inputs:
        if not path.is_dir():
            yield path, Path(path.stem)
            continue
        for found in sorted(path.rglob("*")):
            is_result = out.resolve() in found.resolve().parents
            is_hidden = any(part.startswith(".") for part in found.relative_to(path).parts)
            if found.suffix.lower() in IMAGE_SUFFIXES and found.is_file() and not is_result and not is_hidden:
                yield found, found.relative_to(path).with_suffix("")


def _make_unique(name: Path, taken: set[str]) -> Path:
    """The name, numbered if need be; compared without case, as some file systems do."""
    unique, number = name, 1
    while str(unique).casefold() in taken:
        number += 1
        unique = name.with_name(f"{name.name}-{number}")
    taken.add(str(unique).casefold())
    return unique

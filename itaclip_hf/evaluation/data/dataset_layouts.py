"""How published datasets lie on disk: which image belongs to which label file, and what the ids in it mean.

A layout is data: folders, suffixes, an optional list file, a label mapping. The first layout of a benchmark that is
found under the given folder is used; where none is, the error lists what was looked for.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .label_mapping import LabelMapping

__all__ = ["FoundLayout", "ImageLabelPair", "Layout", "find_layout", "pair_folders"]

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class ImageLabelPair:
    """One image and its label file, by path; `name` is unique in the dataset and the same on every machine."""

    name: str
    image: Path
    label: Path


@dataclass(frozen=True)
class Layout:
    """One way in which a dataset lies on disk.

    Args:
        image_folder: Folder of the images below the root; `{split}` is filled in. Searched recursively without
            `list_file`.
        image_suffix: What comes after the name; a name is the path below the folder without this suffix.
        label_folder: Folder of the label files.
        label_suffix: What comes after the name there.
        mapping: What the ids in the label files mean.
        list_file: Text file with one name per line; without it every image is taken.
        splits: The dataset's own word for a split ("validation" for "val").
        roots: Folders below the given one in which the layout may start.
    """

    image_folder: str
    image_suffix: str
    label_folder: str
    label_suffix: str
    mapping: LabelMapping
    list_file: str | None = None
    splits: Mapping[str, str] = field(default_factory=dict)
    roots: Sequence[str] = ("",)

    def resolve(self, pattern: str, split: str) -> str:
        """A folder or file of the layout with the split's own word filled in."""
        return pattern.format(split=self.splits.get(split, split))

    def describe(self, split: str) -> str:
        """One line that shows a user what to look for."""
        images = f"{self.resolve(self.image_folder, split)}/NAME{self.image_suffix}"
        labels = f"{self.resolve(self.label_folder, split)}/NAME{self.label_suffix}"
        listed = f", names in {self.resolve(self.list_file, split)}" if self.list_file else ""
        return f"{images} + {labels}{listed}"


@dataclass(frozen=True)
class FoundLayout:
    """A layout that was found, where, and the pairs in it (sorted by name or in the order of the list file)."""

    layout: Layout
    root: Path
    pairs: tuple[ImageLabelPair, ...]


def find_layout(folder: str | os.PathLike[str], layouts: Sequence[Layout], split: str, title: str) -> FoundLayout:
    """Finds the first layout under a folder.

    Raises:
        FileNotFoundError: The folder does not exist, or none of the layouts is there.
    """
    start = Path(folder)
    if not start.is_dir():
        raise FileNotFoundError(f"Expected a folder with {title}, but {start} is none. Check `--data`.")
    for layout in layouts:
        for root in (start / below for below in layout.roots):
            if _is_present(layout, root, split):
                return FoundLayout(layout, root, tuple(_iterate_pairs(layout, root, split)))
    wanted = "\n".join(f"  {layout.describe(split)}" for layout in layouts)
    raise FileNotFoundError(
        f"Found no {title} (split {split!r}) under {start}. Looked for any of\n{wanted}\n"
        f"there or in its subfolders {sorted({below for layout in layouts for below in layout.roots if below})}."
    )


def pair_folders(images: str | os.PathLike[str], labels: str | os.PathLike[str]) -> tuple[ImageLabelPair, ...]:
    """Pairs any folder of images with a folder of PNG label maps of the same names (subfolders included).

    Raises:
        FileNotFoundError: A folder does not exist, or there are no images.
    """
    image_folder, label_folder = Path(images), Path(labels)
    for path in (image_folder, label_folder):
        if not path.is_dir():
            raise FileNotFoundError(f"Expected a folder, but {path} is none. Check `--images` and `--labels`.")
    paths = sorted(path for path in image_folder.rglob("*") if path.suffix.lower() in _IMAGE_SUFFIXES)
    if not paths:
        raise FileNotFoundError(f"Expected images ({', '.join(_IMAGE_SUFFIXES)}) in {image_folder}, but found none.")
    relative = [path.relative_to(image_folder) for path in paths]
    return tuple(
        ImageLabelPair(name.as_posix(), path, label_folder / name.with_suffix(".png"))
        for name, path in zip(relative, paths, strict=True)
    )


def _is_present(layout: Layout, root: Path, split: str) -> bool:
    folders = [root / layout.resolve(folder, split) for folder in (layout.image_folder, layout.label_folder)]
    return (
        all(folder.is_dir() for folder in folders)
        and (layout.list_file is None or (root / layout.resolve(layout.list_file, split)).is_file())
        # Several kinds of label files may share a folder: one of this kind must belong to an image.
        and any(pair.label.is_file() for pair in _iterate_pairs(layout, root, split))
    )


def _iterate_pairs(layout: Layout, root: Path, split: str) -> Iterator[ImageLabelPair]:
    images = root / layout.resolve(layout.image_folder, split)
    labels = root / layout.resolve(layout.label_folder, split)
    for name in _names(layout, root, images, split):
        yield ImageLabelPair(name, images / (name + layout.image_suffix), labels / (name + layout.label_suffix))


def _names(layout: Layout, root: Path, images: Path, split: str) -> list[str]:
    if layout.list_file is not None:
        lines = (root / layout.resolve(layout.list_file, split)).read_text(encoding="utf-8").splitlines()
        return [line.split()[0] for line in lines if line.strip()]
    found = (path.relative_to(images).as_posix() for path in images.rglob(f"*{layout.image_suffix}"))
    return sorted(name.removesuffix(layout.image_suffix) for name in found)

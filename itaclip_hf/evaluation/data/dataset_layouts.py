"""How published datasets lie on disk: which image belongs to which label file, and what the ids in it mean.

A layout is data: folders, suffixes, an optional list file, a label mapping. The first layout of a benchmark that is
found in the given folder, or up to two levels below it, is used; where none is, the error lists what was looked for
and which half of it is there.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from .label_mapping import LabelMapping

__all__ = ["FoundLayout", "ImageLabelPair", "Layout", "find_layout", "pair_folders"]

LEVELS = 2
"""A dataset is found from so many folders above those that hold it by one of its names."""

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
        roots: Names of the folder in which the layout starts; "" is the given folder itself, whatever it is called.
        advice: What to do where the labels are missing, if there is something.
    """

    image_folder: str
    image_suffix: str
    label_folder: str
    label_suffix: str
    mapping: LabelMapping
    list_file: str | None = None
    splits: Mapping[str, str] = field(default_factory=dict)
    roots: Sequence[str] = ("",)
    advice: str = ""

    def folders(self, root: Path, split: str) -> tuple[Path, Path]:
        """Folders of the images and of the label files."""
        return root / self._resolve(self.image_folder, split), root / self._resolve(self.label_folder, split)

    def list_path(self, root: Path, split: str) -> Path | None:
        """The list of names, where there is to be one."""
        return root / self._resolve(self.list_file, split) if self.list_file else None

    def describe(self, split: str) -> str:
        """One line that shows a user what to look for."""
        images = f"{self._resolve(self.image_folder, split)}/NAME{self.image_suffix}"
        labels = f"{self._resolve(self.label_folder, split)}/NAME{self.label_suffix}"
        listed = f", names in {self._resolve(self.list_file, split)}" if self.list_file else ""
        return f"{images} + {labels}{listed}"

    def _resolve(self, pattern: str, split: str) -> str:
        return pattern.format(split=self.splits.get(split, split))


@dataclass(frozen=True)
class FoundLayout:
    """A layout that was found, where, and the pairs in it (sorted by name or in the order of the list file)."""

    layout: Layout
    root: Path
    pairs: tuple[ImageLabelPair, ...]


def find_layout(folder: str | os.PathLike[str], layouts: Sequence[Layout], split: str, title: str) -> FoundLayout:
    """Finds the first layout in a folder, or in the folders of its names up to two levels below.

    Raises:
        FileNotFoundError: The folder does not exist, or none of the layouts is there.
        ValueError: A layout is in several places alike, or a list of names is not as expected.
    """
    start = Path(folder)
    if not start.is_dir():
        raise FileNotFoundError(f"Expected a folder with {title}, but {start} is none. Check `--data`.")
    searched, level = [], [start]
    for depth in range(LEVELS + 1):
        for layout in layouts:
            # Further down only by name: one year of a challenge must not be taken for another.
            for below in layout.roots if depth == 0 else filter(None, layout.roots):
                places = [place / below for place in level]
                searched += places
                # By resolved path: a link to a dataset is no second place.
                found = {root.resolve(): root for root in places if _is_present(layout, root, split)}
                if len(found) > 1:
                    raise ValueError(_format_choice(title, list(found.values())))
                for root in found.values():
                    return FoundLayout(layout, root, tuple(_iterate_pairs(layout, root, split)))
        level = [below for above in level for below in _subfolders(above)] if depth < LEVELS else []
    raise FileNotFoundError(_format_search(start, searched, layouts, split, title))


def pair_folders(images: str | os.PathLike[str], labels: str | os.PathLike[str]) -> tuple[ImageLabelPair, ...]:
    """Pairs any folder of images with a folder of PNG label maps of the same names (subfolders included).

    Raises:
        FileNotFoundError: A folder does not exist, or there are no images.
        ValueError: Label maps lie among the images, or one would be that of two images.
    """
    image_folder, label_folder = Path(images), Path(labels)
    for path in (image_folder, label_folder):
        if not path.is_dir():
            raise FileNotFoundError(f"Expected a folder, but {path} is none. Check `--images` and `--labels`.")
    if label_folder.resolve().is_relative_to(image_folder.resolve()):
        raise ValueError(
            f"Expected label maps in a folder that is not among the images, which they would be taken for, but got "
            f"{label_folder}. Move them out of {image_folder}."
        )
    paths = sorted(path for path in image_folder.rglob("*") if path.suffix.lower() in _IMAGE_SUFFIXES)
    if not paths:
        raise FileNotFoundError(f"Expected images ({', '.join(_IMAGE_SUFFIXES)}) in {image_folder}, but found none.")
    pairs: dict[Path, ImageLabelPair] = {}
    for path in paths:
        name = path.relative_to(image_folder)
        label = label_folder / name.with_suffix(".png")
        if label in pairs:
            raise ValueError(
                f"Expected a label map for each image, but {pairs[label].image} and {path} would share {label}. "
                "Rename or remove one of them."
            )
        pairs[label] = ImageLabelPair(name.as_posix(), path, label)
    return tuple(pairs.values())


def _subfolders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError:  # what cannot be read holds no dataset; the given folder was read before
        return []
    return [folder / name for name in names]


def _is_present(layout: Layout, root: Path, split: str) -> bool:
    listed = layout.list_path(root, split)
    return (
        all(folder.is_dir() for folder in layout.folders(root, split))
        and (listed is None or listed.is_file())
        # Several kinds of label files may share a folder: one of this kind must belong to an image.
        and any(pair.label.is_file() for pair in _iterate_pairs(layout, root, split))
    )


def _format_choice(title: str, places: Sequence[Path]) -> str:
    listed = "\n".join(f"  {place}" for place in places)
    return f"Expected {title} in one place, but found it in\n{listed}\nGive one of them as `--data`."


def _format_search(start: Path, searched: Sequence[Path], layouts: Sequence[Layout], split: str, title: str) -> str:
    """What was looked for, where, and which half of it is there."""
    wanted = dict.fromkeys(f"  {layout.describe(split)}" for layout in layouts)
    names = dict.fromkeys(name for layout in layouts for name in layout.roots if name)
    halves = [half for root in dict.fromkeys(searched) for half in _describe_halves(root, layouts, split)]
    parts = [
        f"Found no {title} (split {split!r}) under {start}. Looked for any of",
        *wanted,
        "in it, or in one of these folders there or up to two levels below",
        *(f"  {name}" for name in names),
    ]
    if halves:
        parts += ["but found only", *(f"  {half}" for half in dict.fromkeys(halves))]
    parts.append(layouts[0].advice or "Check `--data` and `--split`.")
    return "\n".join(parts)


def _describe_halves(root: Path, layouts: Sequence[Layout], split: str) -> Iterator[str]:
    """Images without labels and the other way round, and what keeps both from being pairs."""
    if not root.is_dir():
        return
    folders = [layout.folders(root, split) for layout in layouts]
    images, labels = (
        [*dict.fromkeys(path for path in paths if path.is_dir())] for paths in zip(*folders, strict=True)
    )
    for path in () if labels else images:
        yield f"images in {path}, but no folder of labels beside them"
    for path in () if images else labels:
        yield f"labels in {path}, but no folder of images beside them"
    for layout, both in zip(layouts, folders, strict=True):
        if not all(path.is_dir() for path in both):
            continue
        listed = layout.list_path(root, split)
        if listed and not listed.is_file():
            yield f"images and labels in {root}, but not the list of names {listed}"
        else:
            yield f"images in {both[0]}, but no label file NAME{layout.label_suffix} of one of them in {both[1]}"


def _iterate_pairs(layout: Layout, root: Path, split: str) -> Iterator[ImageLabelPair]:
    images, labels = layout.folders(root, split)
    listed = layout.list_path(root, split)
    names = _find_names(images, layout.image_suffix) if listed is None else _read_names(listed)
    for name in names:
        yield ImageLabelPair(name, images / (name + layout.image_suffix), labels / (name + layout.label_suffix))


def _find_names(folder: Path, suffix: str) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob(f"*{suffix}"))
    return sorted(name.removesuffix(suffix) for name in found)


def _read_names(path: Path) -> list[str]:
    """The first word of each line; each once, and none leads out of the folders that it is looked for in."""
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: Expected UTF-8 text, but got other bytes ({error}). Convert the file.") from error
    first_lines: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        word = PurePath(line.split()[0])
        name = word.as_posix()  # "./a" and "a" are one image
        if word.anchor or word.drive or not word.parts or ".." in word.parts:
            raise ValueError(
                f"{path}:{number}: Expected the name of an image in its folder, but got {name!r}. Remove it."
            )
        if name in first_lines:
            raise ValueError(
                f"{path}:{number}: Expected every name once, but got {name!r} as on line {first_lines[name]}. Remove "
                "one of them; it would be counted twice."
            )
        first_lines[name] = number
    return list(first_lines)

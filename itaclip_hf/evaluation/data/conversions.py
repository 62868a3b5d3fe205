"""Label files of Pascal Context in the ids of its benchmarks, from its annotations in MATLAB's format.

Files take their place whole or not at all, so a stopped conversion is simply started again.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from ...files import is_own_png, read_text, refuse_others, write_png
from .benchmarks import get_benchmark
from .label_mapping import LabelIdError, LabelMapping

__all__ = ["CONTEXT_ANNOTATION_IDS", "convert_pascal_context"]

CONTEXT_ANNOTATION_IDS = (
    2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113,
    115, 144, 158, 159, 162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326,
    347, 349, 354, 355, 360, 366, 368, 397, 415, 416, 420, 424, 427, 440, 445, 454, 458,
)  # fmt: skip
"""Ids, among the 459 of the annotations, of the 59 classes in label order; all others are background."""

_CONTEXT_ANNOTATION_COUNT = 459
# The two names that `labels.txt` writes in one word.
_CONTEXT_ANNOTATION_NAMES = {"tv monitor": "tvmonitor", "potted plant": "pottedplant"}


def convert_pascal_context(
    annotations: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    names_file: str | os.PathLike[str] | None = None,
    show_progress: bool = True,
) -> int:
    """Writes `SegmentationClassContext/*.png` (0 background, 1…59 classes) from the `.mat` files of the annotations.

    Args:
        annotations: Folder with one `.mat` file per image (`LabelMap`, ids 1…459).
        folder: VOC 2010's folder, with `JPEGImages` in it.
        names_file: `labels.txt` of the annotations; the class names in it are held against the ids used here.
        show_progress: Whether to show a progress bar.

    Returns:
        Number of files written.

    Raises:
        FileNotFoundError: There are no annotations.
        FileExistsError: Another file is where one would be written.
        ValueError: A file holds other ids, or `names_file` other names; it is named.
        ImportError: SciPy, which reads the files, is not installed.
    """
    paths = sorted(Path(annotations).glob("*.mat"))
    if not paths:
        raise FileNotFoundError(
            f"Expected annotations (*.mat) in {annotations}, but there are none. Unpack their archive; "
            "trainval_merged.json, which holds the same, is not read."
        )
    if names_file is not None:
        _check_context_names(Path(names_file))
    read, mapping, target = _find_reader(), _context_mapping(), Path(folder) / "SegmentationClassContext"
    refuse_others((target / f"{path.stem}.png" for path in paths), is_own_png)
    for path in track(paths, description="Pascal Context", disable=not show_progress):
        ids = _apply(mapping, _read_label_map(path, read), path)
        write_png(target / f"{path.stem}.png", Image.fromarray(ids))
    return len(paths)


def _context_mapping() -> LabelMapping:
    classes = {raw: class_id for class_id, raw in enumerate(CONTEXT_ANNOTATION_IDS, start=1)}
    return LabelMapping({raw: classes.get(raw, 0) for raw in range(_CONTEXT_ANNOTATION_COUNT + 1)})


def _check_context_names(path: Path) -> None:
    """Lines like `2: aeroplane` must call the ids what the benchmark calls its classes."""
    found = {}
    for line in read_text(path).splitlines():
        number, _, name = line.partition(":")
        if name and number.strip().isdecimal():
            found[int(number)] = name.strip()
    expected = get_benchmark("context59").vocabulary("none").labels
    for raw, label in zip(CONTEXT_ANNOTATION_IDS, expected, strict=True):
        name = _CONTEXT_ANNOTATION_NAMES.get(label, label)
        if found.get(raw) != name:
            raise ValueError(f"Expected id {raw} to be {name!r} in {path}, but it is {found.get(raw)!r}.")


def _find_reader() -> Callable[[Path], dict[str, Any]]:
    try:
        from scipy.io import loadmat  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(
            "The annotations of Pascal Context are read with SciPy, which is not installed. Run `pip install scipy`."
        ) from error
    return loadmat


def _read_label_map(path: Path, read: Callable[[Path], dict[str, Any]]) -> NDArray[np.integer]:
    try:
        content = read(path)
    except Exception as error:  # a broken file raises what it likes
        raise ValueError(
            f"{path}: Expected a file of MATLAB, but got: {error}. Unpack the annotations anew."
        ) from error
    if "LabelMap" not in content:
        raise ValueError(f"Expected `LabelMap` in {path}, but it holds {sorted(k for k in content if k[0] != '_')}.")
    label_map: NDArray[np.integer] = content["LabelMap"]
    return label_map


def _apply(mapping: LabelMapping, raw: NDArray[np.integer], path: Path) -> NDArray[np.uint8]:
    try:
        return mapping.apply(raw).astype(np.uint8)
    except LabelIdError as error:
        raise ValueError(f"{path}: {error}") from error

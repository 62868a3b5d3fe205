"""The pictures that ship with the package: held-out scenes of the drawn world with exact truth, and photographs."""

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

__all__ = [
    "PHOTO_WORDS",
    "SAMPLE_PHOTOS",
    "Sample",
    "count_demo_scenes",
    "list_samples",
    "load_demo_scene",
    "load_demo_scene_labels",
]

ASSETS = Path(__file__).parent / "assets"
SAMPLE_PHOTOS = {path.stem: path for path in sorted((ASSETS / "photos").glob("*.jpg"))}
PHOTO_WORDS = {  # what is to be seen on the photographs, and what may be around it
    "cat": ("cat", "wall, blanket, floor, chair"),
    "coffee": ("cup of coffee; spoon; saucer", "table, wall"),
    "rocket": ("rocket; tower", "sky, smoke, ground"),
}


class Sample(NamedTuple):
    """A picture and words for it.

    Attributes:
        path: The file.
        classes: As [`Vocabulary.from_text`] reads them.
        background: As it reads them.
    """

    path: Path
    classes: str
    background: str = ""


@cache
def _read_index() -> dict:
    return json.loads((ASSETS / "scenes" / "scenes.json").read_text(encoding="utf-8"))


def count_demo_scenes() -> int:
    """Number of scenes that ship with the package."""
    return len(_read_index()["scenes"])


def load_demo_scene_labels() -> list[str]:
    """Name of each label id in the scenes, in the order of the embedded checkpoint's own vocabulary."""
    return list(_read_index()["labels"])


def load_demo_scene(index: int) -> tuple[Image.Image, np.ndarray]:
    """Load a drawn scene in a style that the embedded checkpoint never saw, and its truth.

    Args:
        index: Number of the scene, from 0.

    Returns:
        The RGB picture and its label ids (height, width), uint8.

    Raises:
        ValueError: If there is no such scene.

    Example:
    ```python
    >>> from itaclip_hf.samples import load_demo_scene

    >>> image, labels = load_demo_scene(0)
    >>> image.size, labels.shape
    ((448, 336), (336, 448))

    ```
    """
    scenes = _read_index()["scenes"]
    if not 0 <= index < len(scenes):
        raise ValueError(f"Expected the number of a scene from 0 to {len(scenes) - 1}, but got {index}.")
    with Image.open(ASSETS / "scenes" / scenes[index]["image"]) as image:
        pixels = image.convert("RGB")
    with Image.open(ASSETS / "scenes" / scenes[index]["labels"]) as labels:
        return pixels, np.array(labels)  # a palette image's array holds its indices


def list_samples(for_demo_checkpoint: bool) -> list[Sample]:
    """Pictures to begin with.

    Args:
        for_demo_checkpoint: Whether they are for the embedded checkpoint: the scenes with the classes that are there.
            Else they are the photographs.
    """
    if not for_demo_checkpoint:
        return [Sample(SAMPLE_PHOTOS[name], *words) for name, words in PHOTO_WORDS.items()]
    names = load_demo_scene_labels()
    truths = [load_demo_scene(index)[1] for index in range(count_demo_scenes())]
    return [
        Sample(ASSETS / "scenes" / scene["image"], "\n".join(names[label] for label in np.unique(truth)))
        for scene, truth in zip(_read_index()["scenes"], truths, strict=True)
    ]

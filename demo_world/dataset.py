"""Held-out test sets as `datasets.Dataset`: scenes in drawing styles that training never saw, with exact label maps.

| name | classes | backdrops |
|---|---|---|
| `world-stuff` | 10 stuff + 32 nouns, every pixel has a class | stuff |
| `world-20` | background + 20 nouns | photo panoramas |
| `world-object` | background + all nouns | stuff and photo panoramas |

Scene number `i` follows from the seed, `i` and the settings alone: a set of 100 scenes begins with the set of 10.
"""

import hashlib
import io
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, overload

import datasets
import numpy as np
from datasets import ClassLabel, Dataset, Features, IterableDataset, List
from PIL import Image

from .panoramas import PANORAMAS, draw_panorama
from .scenes import Scene, SceneComposer, SceneSettings
from .sprites import HELD_OUT_STYLES, load_sprites
from .stuff import STUFF_GENERATORS, generate_stuff
from .vocabulary import PANORAMA_BACKGROUND_WORDS, WorldClass, load_world_classes, to_vocabulary_dict

__all__ = [
    "BENCHMARK_NAMES",
    "BenchmarkName",
    "benchmark_labels",
    "compose_benchmark_scene",
    "load_benchmark",
    "vocabulary_dict",
]

BenchmarkName = Literal["world-stuff", "world-20", "world-object"]
BENCHMARK_NAMES: tuple[BenchmarkName, ...] = ("world-stuff", "world-20", "world-object")
BACKGROUND = "background"
OBJECTS, OBJECT_SIZES = (2, 6), (56, 140)


@overload
def load_benchmark(
    name: BenchmarkName = ...,
    scenes: int = ...,
    seed: int = ...,
    size: tuple[int, int] = ...,
    styles: Sequence[str] = ...,
    all_nouns: bool = ...,
    streaming: Literal[False] = ...,
) -> Dataset: ...
@overload
def load_benchmark(
    name: BenchmarkName = ...,
    scenes: int = ...,
    seed: int = ...,
    size: tuple[int, int] = ...,
    styles: Sequence[str] = ...,
    all_nouns: bool = ...,
    *,
    streaming: Literal[True],
) -> IterableDataset: ...
def load_benchmark(
    name: BenchmarkName = "world-stuff",
    scenes: int = 64,
    seed: int = 2026,
    size: tuple[int, int] = (336, 448),
    styles: Sequence[str] = HELD_OUT_STYLES,
    all_nouns: bool = False,
    streaming: bool = False,
) -> Dataset | IterableDataset:
    """Generates a test set.

    Args:
        name: Which test set.
        scenes: How many scenes.
        seed: Seed of the set.
        size: (height, width) of every scene, in pixels.
        styles: Drawing styles of the sprites; by default the held-out family.
        all_nouns: All 100 nouns, where the embedded checkpoint was trained on 32. `world-20` keeps its 20.
        streaming: Compose each scene when it is asked for and keep none. Otherwise the scenes are composed once,
            written to the cache of `datasets` and mapped from there into memory as they are read.

    Returns:
        Columns `image` (RGB), `label` (8-bit label ids) and `classes` (ids in the scene); the names of all ids are
        `dataset.features["classes"].feature.names`.

    Example:
    ```python
    >>> dataset = load_benchmark("world-stuff", scenes=2)
    >>> dataset[0]["image"].size
    (448, 336)

    ```
    """
    _check_name(name)
    arguments = {"name": name, "seed": seed, "size": tuple(size), "styles": tuple(styles), "all_nouns": all_nouns}
    features = _features(benchmark_labels(name, all_nouns))
    if streaming:
        # Lists are what `datasets` splits over worker processes.
        numbers = {"numbers": list(range(scenes))}
        return IterableDataset.from_generator(_generate_rows, features, gen_kwargs={**arguments, **numbers})
    cached = {"numbers": tuple(range(scenes)), "source": _source_fingerprint()}
    return Dataset.from_generator(_generate_rows, features, gen_kwargs={**arguments, **cached})


def benchmark_labels(name: BenchmarkName, all_nouns: bool = False) -> list[str]:
    """Label names in the order of their ids."""
    labels = [entry.label for entry in _benchmark_classes(name, all_nouns)]
    return labels if name == "world-stuff" else [BACKGROUND, *labels]


def vocabulary_dict(name: BenchmarkName, all_nouns: bool = False) -> dict[str, Any]:
    """The classes of a test set and its background words, if any, in the JSON form of `itaclip_hf.Vocabulary`."""
    classes = _benchmark_classes(name, all_nouns)
    background = [] if name == "world-stuff" else [*PANORAMA_BACKGROUND_WORDS]
    return to_vocabulary_dict(classes, background)


def compose_benchmark_scene(
    name: BenchmarkName,
    number: int,
    seed: int = 2026,
    size: tuple[int, int] = (336, 448),
    styles: Sequence[str] = HELD_OUT_STYLES,
    all_nouns: bool = False,
) -> Scene:
    """One scene of a test set, without the rest."""
    rng = np.random.default_rng([seed, BENCHMARK_NAMES.index(name), number])
    return _composer(name, tuple(styles), all_nouns).compose(rng, *size)


def _check_name(name: str) -> None:
    if name not in BENCHMARK_NAMES:
        raise ValueError(f"Expected `name` to be one of {BENCHMARK_NAMES}, but got {name!r}.")


def _benchmark_classes(name: BenchmarkName, all_nouns: bool) -> tuple[WorldClass, ...]:
    _check_name(name)
    world = load_world_classes(small=not all_nouns)
    if name == "world-stuff":
        return world.classes
    return world.nouns if name == "world-object" else load_world_classes(small=True).nouns[:20]


@cache
def _composer(name: BenchmarkName, styles: tuple[str, ...], all_nouns: bool) -> SceneComposer:
    nouns = [entry.label for entry in _benchmark_classes(name, all_nouns) if entry.emoji]
    stuff, photos = list(STUFF_GENERATORS), list(PANORAMAS)
    backdrops = {"world-stuff": stuff, "world-20": photos, "world-object": stuff + photos}[name]
    labels = benchmark_labels(name, all_nouns)
    # Two photographs side by side would look like no place; two kinds of stuff meet at a horizon.
    settings = SceneSettings(OBJECTS, OBJECT_SIZES, two_stuff_share=0.5 if name == "world-stuff" else 0.0)
    return SceneComposer(labels, load_sprites(styles, nouns), backdrops, _draw_backdrop, settings)


def _draw_backdrop(name: str, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    draw = draw_panorama if name in PANORAMAS else generate_stuff
    return draw(name, rng, height, width)


def _features(labels: Sequence[str]) -> Features:
    classes = List(ClassLabel(names=list(labels)))
    return Features({"image": datasets.Image(), "label": datasets.Image(), "classes": classes})


def _generate_rows(numbers: Sequence[int], source: str = "", **arguments: Any) -> Iterator[dict[str, Any]]:
    """Rows with encoded pictures. `source` only tells apart caches of different versions of this package."""
    for number in numbers:
        scene = compose_benchmark_scene(number=number, **arguments)
        image, label = (Image.fromarray(pixels) for pixels in (scene.image, scene.label))
        yield {"image": _png(image), "label": _png(label), "classes": np.unique(scene.label).tolist()}


def _png(image: Image.Image) -> dict[str, Any]:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return {"bytes": buffer.getvalue(), "path": None}


@cache
def _source_fingerprint() -> str:
    """Changes whenever code, words or artwork of the picture world change."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*")):
        if path.suffix in {".py", ".json", ".png", ".jpg"}:
            digest.update(path.read_bytes())
    return digest.hexdigest()

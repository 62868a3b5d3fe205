"""Composes a labelled picture: sprites pasted over one or two kinds of stuff, with a pixel-exact label map.

Everything follows from the random generator that is handed in: the same seed gives the same scene. Later objects cover
earlier ones, in the picture and in the label map alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .sprite_variation import vary_sprite
from .sprites import Sprite
from .stuff import generate_stuff

__all__ = ["Scene", "SceneComposer", "SceneSettings"]

DrawBackdrop = Callable[[str, np.random.Generator, int, int], np.ndarray]
DrawNoun = Callable[[np.random.Generator, str], Image.Image]


@dataclass(frozen=True)
class SceneSettings:
    """How scenes look.

    Attributes:
        objects: Least and greatest number of sprites.
        object_sizes: Least and greatest longest side of a sprite, in pixels.
        two_stuff_share: Share of scenes with two kinds of stuff, parted by a wavy line.
        margin: How far a sprite's centre keeps from the border, as a share of the side; negative lets it leave.
        sprite_variation: Strength of recolouring, shading and edge jitter of each sprite; 0 for the artwork as drawn.
        noise: Greatest standard deviation of the pixel noise, in 0…1.
        photometric_variation: Strength of the jitter of brightness, contrast and colour of the whole picture.
    """

    objects: tuple[int, int] = (2, 4)
    object_sizes: tuple[int, int] = (56, 112)
    two_stuff_share: float = 0.5
    margin: float = 0.1
    sprite_variation: float = 0.0
    noise: float = 0.03
    photometric_variation: float = 0.15


@dataclass(frozen=True)
class Scene:
    """A picture, uint8 (height, width, 3), and its label ids, uint8 (height, width)."""

    image: np.ndarray
    label: np.ndarray


class SceneComposer:
    """Draws scenes over a fixed list of labels.

    Args:
        labels: All labels; a label's place in the list is its id in the label map.
        sprites: Drawings by noun; only nouns that stand in `labels` are placed.
        backdrops: Names of the backdrops to draw from. One that is no label gets id 0 (background).
        draw_backdrop: Draws a backdrop by name, uint8 (height, width, 3).
        settings: How scenes look.
        draw_noun: Draws a noun by name, RGBA. By default one of its sprites, as it is.
    """

    def __init__(
        self,
        labels: Sequence[str],
        sprites: Mapping[str, Sequence[Sprite]],
        backdrops: Sequence[str],
        draw_backdrop: DrawBackdrop | None = None,
        settings: SceneSettings | None = None,
        draw_noun: DrawNoun | None = None,
    ):
        self.label_ids = {label: index for index, label in enumerate(labels)}
        self.sprites = {noun: drawings for noun, drawings in sprites.items() if noun in self.label_ids}
        self.nouns = list(self.sprites)
        self.backdrops = list(backdrops)
        self.draw_backdrop = draw_backdrop or generate_stuff
        self.settings = settings or SceneSettings()
        self.draw_noun = draw_noun or self._choose_sprite

    def compose(self, rng: np.random.Generator, height: int, width: int) -> Scene:
        """Draws one scene of the given size."""
        image, label = self._draw_backdrops(rng, height, width)
        taken: list[tuple[float, float, float, float]] = []
        for _ in range(rng.integers(self.settings.objects[0], self.settings.objects[1] + 1)):
            self._place_object(rng, image, label, taken)
        return Scene(self._expose(rng, image), label)

    def _draw_backdrops(self, rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        first, second = rng.choice(self.backdrops, 2, replace=False) if len(self.backdrops) > 1 else self.backdrops * 2
        image = self.draw_backdrop(first, rng, height, width).astype(np.float32)
        label = np.full((height, width), self.label_ids.get(first, 0), np.uint8)
        if first != second and rng.random() < self.settings.two_stuff_share:
            below = _below_wavy_line(rng, height, width)
            image = np.where(below[..., None], self.draw_backdrop(second, rng, height, width), image)
            label[below] = self.label_ids.get(second, 0)
        return image, label

    def _place_object(
        self,
        rng: np.random.Generator,
        image: np.ndarray,
        label: np.ndarray,
        taken: list[tuple[float, float, float, float]],
    ) -> None:
        noun = self.nouns[rng.integers(len(self.nouns))]
        size = round(rng.uniform(*self.settings.object_sizes))
        sprite = vary_sprite(rng, self.draw_noun(rng, noun), size, self.settings.sprite_variation)
        box = self._find_room(rng, label.shape, sprite.shape, taken)
        taken.append(box)
        _paste(image, label, sprite, round(box[0]), round(box[1]), self.label_ids[noun])

    def _choose_sprite(self, rng: np.random.Generator, noun: str) -> Image.Image:
        drawings = self.sprites[noun]
        return drawings[int(rng.integers(len(drawings)))].image

    def _find_room(
        self,
        rng: np.random.Generator,
        scene: tuple[int, ...],
        sprite: tuple[int, ...],
        taken: Sequence[tuple[float, ...]],
    ) -> tuple[float, float, float, float]:
        """A box (top, left, bottom, right) that hides at most a third of another one, if a few tries find one."""
        margin = self.settings.margin
        for _ in range(8):
            center_y, center_x = rng.uniform(margin, 1 - margin, 2) * scene[:2]
            top, left = center_y - sprite[0] / 2, center_x - sprite[1] / 2
            box = (top, left, top + sprite[0], left + sprite[1])
            if all(_overlap(box, other) < 0.33 for other in taken):
                break
        return box

    def _expose(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """Brightness, contrast, colour cast and pixel noise of the whole picture."""
        strength = self.settings.photometric_variation
        gain = rng.uniform(1 - strength, 1 + strength) * rng.uniform(1 - strength / 2, 1 + strength / 2, 3)
        offset = rng.uniform(-strength, strength) * 128
        image = (image - 128) * gain.astype(np.float32) + np.float32(128 + offset * 0.5)
        image += rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(0, self.settings.noise) * 255)
        return np.clip(image, 0, 255).astype(np.uint8)


def _below_wavy_line(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """True below a tilted, wavy horizon. (height, width)."""
    x = np.linspace(-0.5, 0.5, width)
    wave = 0.03 * np.sin(x * rng.uniform(4, 16) + rng.uniform(0, 6)) + 0.015 * np.sin(x * rng.uniform(15, 40))
    horizon = rng.uniform(0.25, 0.75) + rng.normal(0, 0.25) * x + wave
    return (np.arange(height)[:, None] + 0.5) / height > horizon[None]


def _overlap(box: Sequence[float], other: Sequence[float]) -> float:
    """Area of the intersection, as a share of the smaller box."""
    height = min(box[2], other[2]) - max(box[0], other[0])
    width = min(box[3], other[3]) - max(box[1], other[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]), (other[2] - other[0]) * (other[3] - other[1]))
    return max(height, 0) * max(width, 0) / smaller


def _paste(image: np.ndarray, label: np.ndarray, sprite: np.ndarray, top: int, left: int, label_id: int) -> None:
    """Blends an RGBA sprite, 0…255, into the picture and writes its label where it is more than half opaque."""
    height, width = label.shape
    rows, columns = (
        slice(max(top, 0), min(top + sprite.shape[0], height)),
        slice(max(left, 0), min(left + sprite.shape[1], width)),
    )
    visible = sprite[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return
    opacity = visible[..., 3:] / 255
    image[rows, columns] += (visible[..., :3] - image[rows, columns]) * opacity
    label[rows, columns][opacity[..., 0] > 0.5] = label_id

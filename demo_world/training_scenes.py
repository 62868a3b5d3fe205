"""Endless training batches: composed windows, their tags and captions, drawn from (seed, step) alone.

Batch number `step` is the same in every run with the same seed, so that a resumed run sees what an uninterrupted one
would have seen. Texts are tokenized here, in the process that composes scenes, to leave the other core to the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from transformers import CLIPTokenizer
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from itaclip_hf.processing.augmentation import (
    BLUR_KERNEL_SIZE,
    BLUR_SIGMA,
    GRAYSCALE_WEIGHTS,
    compute_gaussian_kernel,
)

from .captions import PROMPT_TEMPLATES, caption_scene, choose_name
from .scenes import Scene, SceneComposer, SceneSettings
from .sprite_painting import DrawingChooser
from .sprites import PAINTED_STYLES, TRAINING_STYLES, load_sprites
from .stuff import generate_stuff
from .style_randomization import randomize_style
from .vocabulary import WorldClasses

__all__ = [
    "TrainingBatch",
    "TrainingPhase",
    "TrainingScenes",
    "normalize_pixels",
    "phase_at",
]

GRAYSCALE_SHARE, BLUR_SHARE, UPSIDE_DOWN_SHARE = 0.15, 0.15, 0.1
GRID = 14  # patches a side at the native 224 px
PATCH = 16
# A class must cover this many pixels to be a tag; below, it counts neither for nor against.
LEAST_TAG_PIXELS = 150
# Captions speak to the CLS token alone: a part of the batch is enough.
MOST_CAPTIONS = 32
TEXTURES_PER_STUFF, TEXTURE_SIZE, STEPS_PER_TEXTURE_SET = 16, 288, 1000


@dataclass(frozen=True)
class TrainingPhase:
    """One stretch of the curriculum: window side in patches, windows in a batch, and how scenes look."""

    grid: int
    batch_size: int
    scenes: SceneSettings


PHASES = (
    (0.78, TrainingPhase(7, 96, SceneSettings((1, 3), (40, 124), 0.5, 0.0, 1.0, 0.05, 0.3))),
    (1.0, TrainingPhase(14, 32, SceneSettings((1, 6), (40, 140), 0.5, 0.03, 0.9, 0.05, 0.3))),
)


def phase_at(progress: float) -> TrainingPhase:
    """The phase of the curriculum at a share of the run, 0…1."""
    return next((phase for end, phase in PHASES if progress < end), PHASES[-1][1])


@dataclass(frozen=True)
class TrainingBatch:
    """What one step learns from.

    Attributes:
        pixel_values: (batch, 3, side, side), normalised.
        positions: (batch, patches), where each patch of a window lies in the full grid of positions.
        tags: (batch, classes) of 1 (in the picture), 0 (not in it), -1 (too little of it to say).
        patch_labels: share of each class in the area of each patch. (batch, patches, classes)
        captions: token ids of one caption for each of the first pictures, padded. (at most batch, length)
        prompts: token ids of one prompt per class, padded. (classes, length)
    """

    pixel_values: Tensor
    positions: Tensor
    tags: Tensor
    patch_labels: Tensor
    captions: Tensor
    prompts: Tensor


class TrainingScenes(Dataset[TrainingBatch]):
    """Batch number `step` of a run. The phase is found from the step, or from a clock shared with the trainer.

    Args:
        world: The classes.
        tokenizer: Its tokenizer.
        seed: Seed of the run.
        total_steps: Steps planned; the phase follows from the step. Not used with `clock`.
        clock: A one-element tensor in shared memory with the share of the run that is over.
    """

    def __init__(
        self,
        world: WorldClasses,
        tokenizer: CLIPTokenizer,
        seed: int,
        total_steps: int = 1,
        clock: Tensor | None = None,
    ):
        self.world, self.tokenizer, self.seed = world, tokenizer, seed
        self.total_steps, self.clock = total_steps, clock
        self.sprites = load_sprites(TRAINING_STYLES + PAINTED_STYLES, [noun.label for noun in world.nouns])
        self.chooser = DrawingChooser(self.sprites)
        self.textures: dict[str, list[np.ndarray]] = {}
        self.texture_set = -1

    def __len__(self) -> int:
        return self.total_steps

    def __getitem__(self, step: int) -> TrainingBatch:
        rng = np.random.default_rng([self.seed, 1, step])
        phase = phase_at(float(self.clock[0]) if self.clock is not None else step / self.total_steps)
        self._refresh_textures(step // STEPS_PER_TEXTURE_SET)
        side = phase.grid * PATCH
        stuff = [entry.label for entry in self.world.stuff]
        composer = SceneComposer(
            self.world.labels, self.sprites, stuff, self._cut_texture, phase.scenes, self._draw_noun
        )
        scenes = [_turn(rng, composer.compose(rng, side, side)) for _ in range(phase.batch_size)]
        tags = np.stack([_tag(scene, len(self.world.classes)) for scene in scenes])
        captions = [self._caption(rng, row) for row in tags[:MOST_CAPTIONS]]
        prompts = [
            PROMPT_TEMPLATES[rng.integers(len(PROMPT_TEMPLATES))].format(choose_name(rng, entry))
            for entry in self.world.classes
        ]
        pixels = np.stack([_augment(rng, normalize_pixels(scene.image)) for scene in scenes])
        return TrainingBatch(
            torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))),
            torch.from_numpy(_cut_positions(rng, phase.batch_size, phase.grid)),
            torch.from_numpy(tags),
            torch.from_numpy(np.stack([_label_patches(scene.label, len(self.world.classes)) for scene in scenes])),
            self._tokenize(captions),
            self._tokenize(prompts),
        )

    def _refresh_textures(self, texture_set: int) -> None:
        """Draws new textures every thousand steps, to be cut at random: they cost more than sprites do."""
        if texture_set == self.texture_set:
            return
        rng = np.random.default_rng([self.seed, 2, texture_set])
        self.textures = {
            entry.label: [
                generate_stuff(entry.label, rng, TEXTURE_SIZE, TEXTURE_SIZE) for _ in range(TEXTURES_PER_STUFF)
            ]
            for entry in self.world.stuff
        }
        self.texture_set = texture_set

    def _cut_texture(self, name: str, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        texture = self.textures[name][rng.integers(TEXTURES_PER_STUFF)]
        top, left = rng.integers(TEXTURE_SIZE - height + 1), rng.integers(TEXTURE_SIZE - width + 1)
        cut = texture[top : top + height, left : left + width]
        return cut[:, ::-1] if rng.random() < 0.5 else cut

    def _draw_noun(self, rng: np.random.Generator, noun: str) -> Image.Image:
        drawing = self.chooser.choose(rng, noun)
        return randomize_style(rng, drawing, self.chooser.choose_colored(rng, noun))

    def _caption(self, rng: np.random.Generator, tags: np.ndarray) -> str:
        present = [self.world.classes[index] for index in np.flatnonzero(tags == 1)]
        nouns = [entry for entry in present if entry.emoji]
        return caption_scene(rng, nouns, [entry for entry in present if not entry.emoji])

    def _tokenize(self, texts: Sequence[str]) -> Tensor:
        return self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").input_ids


def normalize_pixels(image: np.ndarray) -> np.ndarray:
    """CLIP's normalisation. uint8 (height, width, 3) -> float32 (height, width, 3)."""
    mean, std = np.array(OPENAI_CLIP_MEAN, np.float32), np.array(OPENAI_CLIP_STD, np.float32)
    return (image.astype(np.float32) / 255 - mean) / std


def _tag(scene: Scene, classes: int) -> np.ndarray:
    pixels = np.bincount(scene.label.ravel(), minlength=classes)
    return np.where(pixels >= LEAST_TAG_PIXELS, 1, np.where(pixels > 0, -1, 0)).astype(np.int64)


def _label_patches(label: np.ndarray, classes: int) -> np.ndarray:
    """Share of each class in each patch. (height, width) -> float32 (patches, classes)."""
    rows, columns = label.shape[0] // PATCH, label.shape[1] // PATCH
    patches = label.reshape(rows, PATCH, columns, PATCH).swapaxes(1, 2).reshape(rows * columns, PATCH * PATCH)
    ids = np.arange(rows * columns)[:, None] * classes + patches
    counts = np.bincount(ids.ravel(), minlength=rows * columns * classes)
    return (counts.reshape(-1, classes) / PATCH**2).astype(np.float32)


def _turn(rng: np.random.Generator, scene: Scene) -> Scene:
    """Now and then upside down, as image engineering feeds pictures; the label map turns along."""
    if rng.random() >= UPSIDE_DOWN_SHARE:
        return scene
    return Scene(scene.image[::-1], scene.label[::-1])


def _cut_positions(rng: np.random.Generator, batch_size: int, grid: int) -> np.ndarray:
    """A random grid x grid cut of the full grid of positions for every window. (batch, grid * grid)."""
    first = rng.integers(0, GRID - grid + 1, (batch_size, 2))
    steps = np.arange(grid)
    rows, columns = first[:, 0, None] + steps, first[:, 1, None] + steps
    return (rows[:, :, None] * GRID + columns[:, None, :]).reshape(batch_size, -1).astype(np.int64)


def _augment(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """Further views that image engineering feeds: grayscale, blurred. (height, width, 3)."""
    if rng.random() < GRAYSCALE_SHARE:
        pixels = np.repeat((pixels @ np.array(GRAYSCALE_WEIGHTS, np.float32))[..., None], 3, axis=-1)
    if rng.random() < BLUR_SHARE:
        pixels = _blur(pixels)
    return pixels


def _blur(pixels: np.ndarray) -> np.ndarray:
    """Separable Gaussian blur with reflect padding, as the method blurs its windows."""
    kernel = np.array(compute_gaussian_kernel(BLUR_KERNEL_SIZE, BLUR_SIGMA), np.float32)
    for axis in (0, 1):
        padding = [(0, 0)] * 3
        padding[axis] = (len(kernel) // 2, len(kernel) // 2)
        padded = np.pad(pixels, padding, mode="reflect")
        length = pixels.shape[axis]
        pixels = sum(weight * padded.take(range(shift, shift + length), axis) for shift, weight in enumerate(kernel))
    return pixels

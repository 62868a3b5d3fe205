"""Captions that name what is in a scene, and the prompt templates that training mixes."""

from collections.abc import Sequence

import numpy as np

from .vocabulary import WorldClass

__all__ = ["CAPTION_OPENINGS", "PROMPT_TEMPLATES", "caption_scene", "choose_name", "with_article"]

SYNONYM_SHARE = 0.2
DEFINITION_SHARE = 0.1
CAPTION_OPENINGS = ("a photo of ", "a picture of ", "a drawing of ", "")
CAPTION_JOINTS = ("on", "over", "with", "in front of")
# The ImageNet templates of CLIP (Radford et al., 2021): the prompts that the method asks its questions with.
PROMPT_TEMPLATES = (
    "a bad photo of a {}.", "a photo of many {}.", "a sculpture of a {}.", "a photo of the hard to see {}.",
    "a low resolution photo of the {}.", "a rendering of a {}.", "graffiti of a {}.", "a bad photo of the {}.",
    "a cropped photo of the {}.", "a tattoo of a {}.", "the embroidered {}.", "a photo of a hard to see {}.",
    "a bright photo of a {}.", "a photo of a clean {}.", "a photo of a dirty {}.", "a dark photo of the {}.",
    "a drawing of a {}.", "a photo of my {}.", "the plastic {}.", "a photo of the cool {}.",
    "a close-up photo of a {}.", "a black and white photo of the {}.", "a painting of the {}.", "a painting of a {}.",
    "a pixelated photo of the {}.", "a sculpture of the {}.", "a bright photo of the {}.", "a cropped photo of a {}.",
    "a plastic {}.", "a photo of the dirty {}.", "a jpeg corrupted photo of a {}.", "a blurry photo of the {}.",
    "a photo of the {}.", "a good photo of the {}.", "a rendering of the {}.", "a {} in a video game.",
    "a photo of one {}.", "a doodle of a {}.", "a close-up photo of the {}.", "a photo of a {}.",
    "the origami {}.", "the {} in a video game.", "a sketch of a {}.", "a doodle of the {}.",
    "a origami {}.", "a low resolution photo of a {}.", "the toy {}.", "a rendition of the {}.",
    "a photo of the clean {}.", "a photo of a large {}.", "a rendition of a {}.", "a photo of a nice {}.",
    "a photo of a weird {}.", "a blurry photo of a {}.", "a cartoon {}.", "art of a {}.",
    "a sketch of the {}.", "a embroidered {}.", "a pixelated photo of a {}.", "itap of the {}.",
    "a jpeg corrupted photo of the {}.", "a good photo of a {}.", "a plushie {}.", "a photo of the nice {}.",
    "a photo of the small {}.", "a photo of the weird {}.", "the cartoon {}.", "art of the {}.",
    "a drawing of the {}.", "a photo of the large {}.", "a black and white photo of a {}.", "the plushie {}.",
    "a dark photo of a {}.", "itap of a {}.", "graffiti of the {}.", "a toy {}.",
    "itap of my {}.", "a photo of a cool {}.", "a photo of a small {}.", "a tattoo of the {}.",
    "{}", "a {}", "a picture of a {}.",
)  # fmt: skip


def choose_name(rng: np.random.Generator, world_class: WorldClass) -> str:
    """The label, or now and then a synonym or the definition, so that these are no unknown words."""
    draw = rng.random()
    if draw < DEFINITION_SHARE:
        return world_class.definition
    if draw < DEFINITION_SHARE + SYNONYM_SHARE and len(world_class.names) > 1:
        return world_class.names[rng.integers(1, len(world_class.names))]
    return world_class.label


def with_article(name: str) -> str:
    """`an apple`, `a cat`; definitions bring their own article, plurals and pairs go without."""
    if name.split()[0] in {"a", "an", "the", "two", "bound", "grapes", "scissors", "loose", "short", "soft"}:
        return name
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def caption_scene(rng: np.random.Generator, nouns: Sequence[WorldClass], stuff: Sequence[WorldClass]) -> str:
    """One sentence that names every given class, in any order: `a photo of a cat and a bus over sand and sky`."""
    things = [with_article(choose_name(rng, nouns[index])) for index in rng.permutation(len(nouns))]
    grounds = [choose_name(rng, stuff[index]) for index in rng.permutation(len(stuff))]
    opening = CAPTION_OPENINGS[rng.integers(len(CAPTION_OPENINGS))]
    joint = f" {CAPTION_JOINTS[rng.integers(len(CAPTION_JOINTS))]} " if things and grounds else ""
    return opening + _enumerate(things) + joint + _enumerate(grounds)


def _enumerate(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else ""

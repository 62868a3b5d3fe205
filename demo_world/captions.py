"""Captions that name what is in a scene, and the prompt templates that training mixes."""

from collections.abc import Sequence

import numpy as np

from itaclip_hf.processing import IMAGENET_TEMPLATES

from .vocabulary import WorldClass

__all__ = ["CAPTION_OPENINGS", "PROMPT_TEMPLATES", "caption_scene", "choose_name", "with_article"]

SYNONYM_SHARE = 0.2
DEFINITION_SHARE = 0.1
CAPTION_OPENINGS = ("a photo of ", "a picture of ", "a drawing of ", "")
CAPTION_JOINTS = ("on", "over", "with", "in front of")
# The prompts that the method asks its questions with, and plainer ones.
PROMPT_TEMPLATES = (*IMAGENET_TEMPLATES, "{}", "a {}", "a picture of a {}.")


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

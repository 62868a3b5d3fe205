"""The classes of the picture world: 10 kinds of stuff and 100 nouns, with synonyms and one-line definitions.

The words live in `classes.json`; this file reads them and selects the *small world* (10 stuff + 32 nouns) that the
embedded checkpoint was trained on.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["PANORAMA_BACKGROUND_WORDS", "WorldClass", "WorldClasses", "load_world_classes", "to_vocabulary_dict"]

PANORAMA_BACKGROUND_WORDS = (
    "background", "sky", "wall", "building", "street", "floor", "ground", "room", "grass", "field", "forest",
    "water", "sand", "snow", "road", "stone", "brick", "wood", "tile", "window", "ceiling", "cloud", "sunset",
)  # fmt: skip


@dataclass(frozen=True)
class WorldClass:
    """One class: its names (the first is the label), a definition and, for nouns, the emoji that draw it."""

    names: tuple[str, ...]
    definition: str
    emoji: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The first name."""
        return self.names[0]


@dataclass(frozen=True)
class WorldClasses:
    """Stuff and nouns of one world; label ids count stuff first, then nouns."""

    stuff: tuple[WorldClass, ...]
    nouns: tuple[WorldClass, ...]

    @property
    def classes(self) -> tuple[WorldClass, ...]:
        """Stuff, then nouns: the label order."""
        return self.stuff + self.nouns

    @property
    def labels(self) -> list[str]:
        """First names in label order."""
        return [world_class.label for world_class in self.classes]


@cache
def load_world_classes(small: bool = False) -> WorldClasses:
    """Reads the classes; `small` keeps 32 of the 100 nouns."""
    data = json.loads((Path(__file__).parent / "classes.json").read_text())
    nouns = [noun for noun in data["nouns"] if noun["in_small_world"] or not small]
    return WorldClasses(tuple(map(_read_class, data["stuff"])), tuple(map(_read_class, nouns)))


def _read_class(entry: dict[str, Any]) -> WorldClass:
    return WorldClass(tuple(entry["names"]), entry["definition"], tuple(entry.get("emoji", ())))


def to_vocabulary_dict(classes: Sequence[WorldClass], background: Sequence[str] = ()) -> dict[str, Any]:
    """The JSON form of `itaclip_hf.Vocabulary`, definitions as auxiliary texts."""
    return {
        "background": list(background),
        "classes": [{"names": list(entry.names), "auxiliary_texts": [entry.definition]} for entry in classes],
    }

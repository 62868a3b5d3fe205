"""What each name, definition and background word is good for: the label map without it, beside the one with it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch

from ..processing import BACKGROUND_LABEL, Vocabulary

__all__ = ["Omission", "Reduction", "count_changes", "list_reductions"]


class Reduction(NamedTuple):
    """A vocabulary without one of its texts.

    Attributes:
        kind: What is left out.
        label: The class that it belongs to.
        text: The text.
        vocabulary: The others.
        class_id: Of the class.
        query: Position of the name or word among the whole vocabulary's `query_names`; none for a definition.
    """

    kind: Literal["name", "definition", "background word"]
    label: str
    text: str
    vocabulary: Vocabulary
    class_id: int
    query: int | None = None


@dataclass(frozen=True)
class Omission:
    """What changes without one text.

    Attributes:
        kind: "name", "definition" or "background word".
        label: The class that it belongs to.
        text: The text.
        changes: Pixels whose class changes, by the class with the text and the one without it; most pixels first.
    """

    kind: str
    label: str
    text: str
    changes: dict[tuple[str, str], int]

    @property
    def pixels(self) -> int:
        """Number of pixels that change."""
        return sum(self.changes.values())

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        changes = [{"from": old, "to": new, "pixels": pixels} for (old, new), pixels in self.changes.items()]
        return {"kind": self.kind, "class": self.label, "text": self.text, "pixels": self.pixels, "changes": changes}


def list_reductions(vocabulary: Vocabulary, uses_texts: bool) -> Iterator[Reduction]:
    """Every vocabulary that has one text less and the same classes: the last name or word of a class stays.

    Args:
        vocabulary: The whole vocabulary.
        uses_texts: Whether definitions have any weight.
    """
    for query, (word, others) in enumerate(_without_each(vocabulary.background)):
        if others:
            reduced = replace(vocabulary, background=others)
            yield Reduction("background word", BACKGROUND_LABEL, word, reduced, 0, query)
    query, first = len(vocabulary.background), 1 if vocabulary.background else 0
    for position, entry in enumerate(vocabulary.classes):
        before, after = vocabulary.classes[:position], vocabulary.classes[position + 1 :]
        for name, others in _without_each(entry.names):
            if others:
                reduced = replace(vocabulary, classes=(*before, replace(entry, names=others), *after))
                yield Reduction("name", entry.label, name, reduced, first + position, query)
            query += 1
        for text, others in _without_each(entry.auxiliary_texts if uses_texts else ()):
            reduced = replace(vocabulary, classes=(*before, replace(entry, auxiliary_texts=others), *after))
            yield Reduction("definition", entry.label, text, reduced, first + position)


def count_changes(labels: torch.Tensor, others: torch.Tensor, names: list[str]) -> dict[tuple[str, str], int]:
    """Pixels that differ between two label maps (height, width), by pairs of class names; most pixels first."""
    is_changed = labels != others
    codes, counts = (labels[is_changed] * len(names) + others[is_changed]).unique(return_counts=True)
    pairs = zip(codes.tolist(), counts.tolist(), strict=True)
    found = {(names[code // len(names)], names[code % len(names)]): count for code, count in pairs}
    return dict(sorted(found.items(), key=lambda entry: -entry[1]))


def _without_each(texts: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
    return [(text, (*texts[:index], *texts[index + 1 :])) for index, text in enumerate(texts)]

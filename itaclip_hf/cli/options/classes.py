"""Options that name the classes of one's own images."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..terminal import warn

if TYPE_CHECKING:
    from ...processing import Vocabulary

__all__ = ["ClassOptions"]


@dataclass(frozen=True)
class ClassOptions:
    """What to look for: classes on the command line, or a file with all words."""

    panel = "Words"

    classes: Annotated[
        str | None,
        typer.Option(help='What to look for: classes between ";", synonyms between ",": "cat; dog, puppy; sky".'),
    ] = None
    background: Annotated[
        str | None, typer.Option(help='Words for everything else, as class 0: "wall, floor, tree".')
    ] = None
    definitions: Annotated[
        Path | None, typer.Option(help="Texts about the classes: 'name >=text' a line, or a vocabulary in JSON.")
    ] = None
    vocabulary: Annotated[Path | None, typer.Option(help="The whole vocabulary as a file, instead of --classes.")] = (
        None
    )

    def read(self) -> "Vocabulary | None":
        """The vocabulary that the options describe, or `None` if they name no classes.

        Raises:
            ValueError: If options contradict each other or a file is not as expected.
            OSError: If a file cannot be read.
        """
        from ...processing import Vocabulary

        if self.classes is not None and self.vocabulary is not None:
            raise ValueError("Expected `--classes` or `--vocabulary`, but got both. Leave one of them out.")
        definitions = self.definitions
        if self.classes is not None:
            words = Vocabulary.from_text(self.classes)
        elif self.vocabulary is not None:
            words = Vocabulary.from_file(self.vocabulary)
        elif definitions is not None:  # by themselves they are the vocabulary
            words, definitions = Vocabulary.from_file(definitions), None
        elif self.background is not None:
            raise ValueError("Expected `--classes` with `--background`, but got none. Name what is to be segmented.")
        else:
            return None
        if self.background is not None:
            words = _add_background(words, self.background)
        return words if definitions is None else _add_definitions(words, definitions)


def _add_background(vocabulary: "Vocabulary", text: str) -> "Vocabulary":
    from ...processing.vocabulary import split_words

    if vocabulary.background:
        raise ValueError(
            "Expected one background, but got `--background` and words in the file. Leave one of them out."
        )
    return replace(vocabulary, background=tuple(split_words(text)))


def _add_definitions(vocabulary: "Vocabulary", path: Path) -> "Vocabulary":
    """Give classes their texts from the file; a file for many classes serves for a few, and both sides are told."""
    texts = _load_texts(path)
    known = {name: entry for name, entry in texts.items() if _has_class(vocabulary, name)}
    if not known:
        raise ValueError(
            f"Expected definitions of the classes, but {path} has none of them. Use the same names in both."
        )
    enriched = vocabulary.with_auxiliary_texts(known)
    without = [entry.label for entry in enriched.classes if not entry.auxiliary_texts]
    if without:
        warn(f"Note: {path} defines none of these classes: {', '.join(without)}", "yellow")
    return enriched


def _load_texts(path: Path) -> dict[str, tuple[str, ...]]:
    """Texts by class, of a vocabulary in JSON or of lines."""
    from ...processing import Vocabulary, load_auxiliary_texts

    if path.suffix != ".json":
        return {name: (text,) for name, text in load_auxiliary_texts(path).items()}
    classes = Vocabulary.from_json_file(path).classes
    return {entry.label: entry.auxiliary_texts for entry in classes if entry.auxiliary_texts}


def _has_class(vocabulary: "Vocabulary", name: str) -> bool:
    try:
        vocabulary.class_id(name)
    except ValueError:
        return False
    return True

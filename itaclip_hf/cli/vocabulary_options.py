"""From the options that name classes to a `Vocabulary`."""

from dataclasses import replace
from pathlib import Path

import typer

from ..processing import Vocabulary, load_auxiliary_texts

__all__ = ["read_vocabulary"]


def read_vocabulary(
    classes: str | None = None,
    background: str | None = None,
    definitions: Path | None = None,
    vocabulary: Path | None = None,
) -> Vocabulary | None:
    """Read the vocabulary that the options describe.

    Args:
        classes: Classes separated by semicolons, synonyms by commas: "cat; dog, puppy; sky".
        background: Background words separated by commas; they form class 0.
        definitions: File with auxiliary texts of classes; by itself it is the vocabulary.
        vocabulary: File with the whole vocabulary, instead of `classes`.

    Returns:
        The vocabulary, or `None` if no option names classes.

    Raises:
        ValueError: If options contradict each other or a file is not as expected.
        OSError: If a file cannot be read.
    """
    if classes is not None and vocabulary is not None:
        raise ValueError("Expected `--classes` or `--vocabulary`, but got both. Leave one of them out.")
    words = () if background is None else _split_background(background)
    if classes is not None:
        result = Vocabulary(_split_classes(classes), words)
    elif vocabulary is not None:
        result = _read_file(vocabulary, words)
    elif definitions is not None:
        return _read_file(definitions, words)
    elif background is not None:
        raise ValueError("Expected `--classes` with `--background`, but got none. Name what is to be segmented.")
    else:
        return None
    return result if definitions is None else _add_definitions(result, definitions)


def _split_classes(text: str) -> list[list[str]]:
    classes = [[name.strip() for name in entry.split(",")] for entry in text.rstrip("; \t\n").split(";")]
    if not all(name for names in classes for name in names):
        raise ValueError(
            f'Expected classes like "cat; dog, puppy; sky", but got {text!r}. Fill in or remove empty names.'
        )
    return classes


def _split_background(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.replace(";", ",").rstrip(", \t\n").split(","))


def _read_file(path: Path, background: tuple[str, ...]) -> Vocabulary:
    vocabulary = Vocabulary.from_file(path)
    if background and vocabulary.background:
        raise ValueError(
            "Expected one background, but got `--background` and words in the file. Leave one of them out."
        )
    return replace(vocabulary, background=background) if background else vocabulary


def _add_definitions(vocabulary: Vocabulary, path: Path) -> Vocabulary:
    """Give classes their texts from the file; a file for many classes serves for a few, and both sides are told."""
    is_json = path.suffix == ".json"
    texts = (
        _load_json_definitions(path)
        if is_json
        else {name: (text,) for name, text in load_auxiliary_texts(path).items()}
    )
    known = {name: entry for name, entry in texts.items() if _has_class(vocabulary, name)}
    if not known:
        raise ValueError(
            f"Expected definitions of the classes, but {path} has none of them. Use the same names in both."
        )
    enriched = vocabulary.with_auxiliary_texts(known)
    without = [entry.label for entry in enriched.classes if not entry.auxiliary_texts]
    if without:
        typer.secho(f"Note: {path} defines none of these classes: {', '.join(without)}", fg="yellow", err=True)
    return enriched


def _load_json_definitions(path: Path) -> dict[str, tuple[str, ...]]:
    return {
        entry.label: entry.auxiliary_texts
        for entry in Vocabulary.from_json_file(path).classes
        if entry.auxiliary_texts
    }


def _has_class(vocabulary: Vocabulary, name: str) -> bool:
    try:
        vocabulary.class_id(name)
    except ValueError:
        return False
    return True

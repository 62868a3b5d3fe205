"""Options about the words of a labelled dataset."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ...evaluation.data.benchmarks import Benchmark
    from ...processing import Vocabulary

__all__ = ["Texts", "VocabularyOptions", "read_class_file"]


class Texts(str, Enum):
    """Which of a benchmark's texts enrich its class names."""

    definitions = "definitions"
    synonyms = "synonyms"
    none = "none"


@dataclass(frozen=True)
class VocabularyOptions:
    """Names of the classes in label order and texts about them: a benchmark's, or those of a file."""

    panel = "Words"

    vocabulary: Annotated[Path | None, typer.Option(help="Class names as JSON or in the published text formats.")] = (
        None
    )
    background_first_line: Annotated[
        bool, typer.Option("--background-first-line", help="The first line of the vocabulary lists background words.")
    ] = False
    definitions: Annotated[
        Path | None, typer.Option(help="Texts about the classes: 'name >=text' a line, instead of the benchmark's.")
    ] = None
    texts: Annotated[Texts | None, typer.Option(help="Which of the benchmark's texts to use; default: its own.")] = (
        None
    )

    @property
    def files(self) -> tuple[Path | None, Path | None]:
        """The files that are named, where they are."""
        return self.vocabulary, self.definitions

    def read(self, benchmark: "Benchmark | None", method: str | None = None) -> "Vocabulary":
        """The benchmark's words, or those of a file, with the texts that were asked for.

        Args:
            benchmark: The benchmark that the command names, if any.
            method: The method that the command names; a benchmark's texts are left out if it gives them no weight.

        Raises:
            ValueError: If no words are named, or they are named twice.
            OSError: If a file cannot be read.
        """
        from ...processing import load_auxiliary_texts

        if self.definitions is not None and self.texts is not None:
            raise ValueError("Expected `--definitions` or `--texts`, but got both. Leave one of them out.")
        words = self._read_names(benchmark, method)
        if self.definitions is None:
            return words
        texts = load_auxiliary_texts(self.definitions)
        if self.vocabulary is None and benchmark is not None:
            return benchmark.vocabulary_with(texts, self.definitions.name)
        return words.with_auxiliary_texts(texts)

    def refuse_texts(self, reason: str) -> None:
        """Refuse options that ask for texts about the classes, as they would be ignored.

        Raises:
            ValueError: If one was given.
        """
        if self.definitions is not None or self.texts in (Texts.definitions, Texts.synonyms):
            raise ValueError(f"Expected no --texts or --definitions, as {reason}, but got them. Leave them out.")

    def _read_names(self, benchmark: "Benchmark | None", method: str | None) -> "Vocabulary":
        from ...methods import get_method, method_names

        if self.vocabulary is not None and self.texts is not None:
            raise ValueError(
                "Expected `--vocabulary` or `--texts`, but got both. Texts of a file go with `--definitions`."
            )
        if self.vocabulary is not None:
            is_asked, has_background = self.background_first_line, benchmark is not None and benchmark.has_background
            return read_class_file(self.vocabulary, is_asked, has_background)
        if self.background_first_line:
            raise ValueError("Expected `--vocabulary` with `--background-first-line`, but got none. Name the file.")
        if benchmark is None:
            raise ValueError("Expected a benchmark or `--vocabulary`, but got neither. Name the classes in a file.")
        if self.texts is not None:
            return benchmark.vocabulary(self.texts.value)
        uses_texts = method not in method_names() or get_method(method).settings().uses_texts
        return benchmark.vocabulary(None if uses_texts else "none")


def read_class_file(path: Path, background_first_line: bool, has_background: bool = False) -> "Vocabulary":
    """A vocabulary from a file.

    Args:
        path: JSON, or one of the published text formats.
        background_first_line: Whether the user says that the first line lists background words.
        has_background: Whether a file of lines begins with them anyway.

    Raises:
        ValueError: If the file is not as expected, or has no such line.
        OSError: If it cannot be read.
    """
    from ...files import read_text
    from ...processing import Vocabulary

    words = Vocabulary.from_file(path, background_first_line=background_first_line or has_background)
    if background_first_line and (not words.background or read_text(path).lstrip().startswith("{")):
        raise ValueError(
            f"Expected a class on each line of {path} with `--background-first-line`, but got another format, which "
            "says itself what is background. Leave the option out."
        )
    return words

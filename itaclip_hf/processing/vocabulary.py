"""The words a segmentation is made of: classes with synonyms and auxiliary texts, and the background's word list.

A `Vocabulary` is checked when it is made and never changes afterwards. It turns into JSON values and back, and reads
JSON files and the two text formats of the published ITACLIP code: class files (`name, synonym, ...` per line) and
auxiliary texts (`name >=text` per line). At the end stand the prompts that every text is put into.
"""

import difflib
import hashlib
import html
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

__all__ = [
    "BACKGROUND_LABEL",
    "IMAGENET_TEMPLATES",
    "Vocabulary",
    "VocabularyClass",
    "check_signs",
    "load_auxiliary_texts",
    "split_words",
    "straighten_text",
]

BACKGROUND_LABEL = "background"
AUXILIARY_TEXT_SEPARATOR = ">="
COMMENT_SIGN = "#"
AUXILIARY_TEXT = "auxiliary text"
LINE_ENDS = "\n\r\u2028\u2029"
SPECIAL_TOKENS = ("<|startoftext|>", "<|endoftext|>")

_STRAIGHT_QUOTES = dict.fromkeys((0x02BC, *range(0x2018, 0x201C)), "'") | dict.fromkeys(range(0x201C, 0x2020), '"')
# Latin ligatures, and letters and signs of full or half width.
_COMPATIBLE = (0x132, 0x133, 0x149, *range(0x1C4, 0x1CD), *range(0x1F1, 0x1F4), *range(0xFB00, 0xFB05), 0xFB06, 0x3000)
_INVISIBLE = dict.fromkeys((*range(0x206A, 0x2070), 0xFEFF, *range(0xFFF9, 0xFFFD)), "")
_TYPOGRAPHY = (
    _STRAIGHT_QUOTES
    | _INVISIBLE
    | {0xFB05: "ſt"}  # CLIP's tokenizer leaves the long s, NFKC does not
    | {
        code: unicodedata.normalize("NFKC", chr(code)).translate(_STRAIGHT_QUOTES)
        for code in (*_COMPATIBLE, *range(0xFF01, 0xFFF0))
    }
)


@dataclass(frozen=True, init=False)
class VocabularyClass:
    """One class: its names, the first of which is the label, and texts that enrich the embedding of each name.

    Args:
        names: The label and its synonyms; a single string is a class of one name.
        auxiliary_texts: Definitions or other texts about the class, usually written by a language model.

    Raises:
        TypeError: If a name or text is not a string.
        ValueError: If there is no name, or a name or text is blank.
    """

    names: tuple[str, ...]
    auxiliary_texts: tuple[str, ...] = ()

    def __init__(self, names: str | Iterable[str], auxiliary_texts: str | Iterable[str] = ()) -> None:
        object.__setattr__(self, "names", _to_texts(names, "class name"))
        object.__setattr__(self, "auxiliary_texts", _to_texts(auxiliary_texts, AUXILIARY_TEXT))
        if not self.names:
            raise ValueError("Expected at least one name per class, but got none. Give the class its label.")

    @property
    def label(self) -> str:
        """The name under which the class is reported."""
        return self.names[0]


@dataclass(frozen=True, init=False)
class Vocabulary:
    """Classes in label order and, optionally, the words that make up the background (then class 0).

    Names are compared the way CLIP's tokenizer sees them: upper and lower case, typography and the amount of white
    space do not matter. Two names of classes, or two background words, that the text encoder cannot tell apart are
    refused. A name of a class may be a background word, too, as in published class files: both are looked for, and
    the class's auxiliary texts tell them apart.

    Args:
        classes: The classes; each a `VocabularyClass`, a name, or a list of names (label first, then synonyms).
        background: Words for everything that is no class. If there are any, class 0 is called "background" and the
            classes follow as 1, 2, ...
        metadata: Where the texts come from (language model, prompt, settings, date, ...), as JSON values. It belongs
            neither to the vocabulary's equality nor to its fingerprint; treat it as read-only.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If there is no class, or a name is blank, or used twice in classes or background.

    Example:
        >>> vocabulary = Vocabulary(["cat", ["dog", "puppy"]], background=["sky", "wall"])
        >>> vocabulary.labels
        ['background', 'cat', 'dog']
        >>> vocabulary.class_id("puppy")
        2
    """

    classes: tuple[VocabularyClass, ...]
    background: tuple[str, ...] = ()
    metadata: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)

    def __init__(
        self,
        classes: Iterable[VocabularyClass | str | Iterable[str]],
        background: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        object.__setattr__(self, "classes", _to_classes(classes))
        object.__setattr__(self, "background", _to_texts(background, "background word", allow_string=False))
        object.__setattr__(self, "metadata", _to_metadata(metadata))
        self._check_names()

    def _check_names(self) -> None:
        if not self.classes:
            raise ValueError("Expected at least one class, but got none. Name what is to be segmented.")
        class_names = [name for entry in self.classes for name in entry.names]
        if self.background and BACKGROUND_LABEL in map(_normalize_name, class_names):
            raise ValueError(
                "Expected no class called 'background' beside a list of background words, but got both. "
                "The words already form the class 'background'; leave one of the two out."
            )
        for what, names in (("background words", self.background), ("classes", class_names)):
            seen: dict[str, str] = {}
            for name in names:
                key = _normalize_name(name)
                if key in seen:
                    raise ValueError(
                        f"Expected every name once over all {what}, but got {seen[key]!r} and {name!r}. Remove or "
                        "rename one of them."
                    )
                seen[key] = name

    @property
    def labels(self) -> list[str]:
        """The label of every class id: "background" first if there are background words."""
        background = [BACKGROUND_LABEL] if self.background else []
        return background + [entry.label for entry in self.classes]

    @property
    def id2label(self) -> dict[int, str]:
        """Class id to label, as model configurations store it."""
        return dict(enumerate(self.labels))

    @property
    def label2id(self) -> dict[str, int]:
        """Label to class id, as model configurations store it."""
        return {label: index for index, label in enumerate(self.labels)}

    @property
    def query_names(self) -> tuple[str, ...]:
        """Everything that is looked for: the background words, then each class's label and synonyms."""
        return self.background + tuple(name for entry in self.classes for name in entry.names)

    @property
    def query_classes(self) -> tuple[int, ...]:
        """The class id of each of `query_names`."""
        first = 1 if self.background else 0
        of_classes = [index for index, entry in enumerate(self.classes, first) for _ in entry.names]
        return (0,) * len(self.background) + tuple(of_classes)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the content (hex): equal vocabularies, and only they, share it. The metadata does not count."""
        content = self.to_dict()
        content.pop("metadata", None)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8")).hexdigest()

    def class_id(self, name: str) -> int:
        """Find the class that a label, synonym or background word belongs to.

        Args:
            name: The name; case and white space do not matter, so that "pottedplant" is found as "potted plant" where
                no other class is called so.

        Returns:
            The class id; of a name that is a background word, too, that of its class.

        Raises:
            ValueError: If nothing in the vocabulary has that name; the message lists similar ones.
        """
        # Background words come first, so that a class of the same name takes their place.
        ids = dict(zip(map(_normalize_name, self.query_names), self.query_classes, strict=True))
        if self.background:
            ids[BACKGROUND_LABEL] = 0
        key = _normalize_name(name)
        if key in ids:
            return ids[key]
        alike = {index for other, index in ids.items() if other.replace(" ", "") == key.replace(" ", "")}
        if len(alike) == 1:
            return alike.pop()
        suggestion = _suggest(key, [*self.labels, *self.query_names])
        raise ValueError(f"Expected a class of the vocabulary, but got {name!r}. {suggestion}")

    def with_auxiliary_texts(
        self, auxiliary_texts: Mapping[str, str | Iterable[str] | None] | Sequence[str | Iterable[str] | None]
    ) -> "Vocabulary":
        """Make a vocabulary with other auxiliary texts.

        Args:
            auxiliary_texts: Either one entry per class in label order (the background has none), or a mapping from
                class names to entries, where classes that are not mentioned keep what they have. An entry is a text,
                several texts, or `None` for none.

        Returns:
            The new vocabulary.

        Raises:
            TypeError: If an entry has the wrong type.
            ValueError: If the number of entries is not that of the classes, or a name is unknown.
        """
        if isinstance(auxiliary_texts, Mapping):
            entries = self._align_auxiliary_texts(auxiliary_texts)
        elif isinstance(auxiliary_texts, str) or not isinstance(auxiliary_texts, Sequence):
            raise TypeError(
                "Expected auxiliary texts as a list with one entry per class or as a mapping from class names, but "
                f"got {type(auxiliary_texts).__name__}. Wrap a single text in a list."
            )
        elif len(auxiliary_texts) != len(self.classes):
            raise ValueError(
                f"Expected one auxiliary text per class ({len(self.classes)}), but got {len(auxiliary_texts)}. "
                "Give `None` for a class without one; background words have none."
            )
        else:
            entries = dict(enumerate(auxiliary_texts))
        classes = [
            replace(entry, auxiliary_texts=_none_to_empty(entries[index])) if index in entries else entry
            for index, entry in enumerate(self.classes)
        ]
        return replace(self, classes=tuple(classes))

    def _align_auxiliary_texts(self, auxiliary_texts: Mapping[str, Any]) -> dict[int, Any]:
        """Turn a mapping from names into one from positions in `classes`."""
        first = 1 if self.background else 0
        entries: dict[int, Any] = {}
        for name, entry in auxiliary_texts.items():
            index = self.class_id(name) - first
            if index < 0:
                raise ValueError(
                    f"Expected auxiliary texts for classes only, but got one for the background word {name!r}. "
                    "Remove it; background words are used as they are."
                )
            if index in entries:
                raise ValueError(
                    f"Expected one entry per class, but {name!r} is the second for {self.classes[index].label!r}. "
                    "Put several texts of a class into one list."
                )
            entries[index] = entry
        return entries

    def to_dict(self) -> dict[str, Any]:
        """The vocabulary as JSON values; see `from_dict`."""
        classes = []
        for entry in self.classes:
            values = {"names": list(entry.names)}
            if entry.auxiliary_texts:
                values["auxiliary_texts"] = list(entry.auxiliary_texts)
            classes.append(values)
        content: dict[str, Any] = {"background": list(self.background), "classes": classes}
        if self.metadata is not None:
            content["metadata"] = _to_metadata(self.metadata)
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Vocabulary":
        """Make a vocabulary from JSON values.

        Args:
            content: `{"background": ["sky"], "classes": [{"names": ["dog", "puppy"], "auxiliary_texts": ["a pet"]}]}`,
                optionally with "metadata". "background" and "auxiliary_texts" may be missing; a class may also be
                written as a name or a list of names.

        Returns:
            The vocabulary.

        Raises:
            TypeError: If a value has the wrong type.
            ValueError: If a key is missing or unknown, or the content is no valid vocabulary.
        """
        _check_keys(content, required={"classes"}, optional={"background", "metadata"}, what="vocabulary")
        classes = content["classes"]
        if not _is_list(classes):
            raise TypeError(f"Expected `classes` to be a list, but got {type(classes).__name__}. List the classes.")
        parsed = []
        for entry in classes:
            if isinstance(entry, Mapping):
                _check_keys(entry, required={"names"}, optional={"auxiliary_texts"}, what="class")
                entry = VocabularyClass(entry["names"], _none_to_empty(entry.get("auxiliary_texts")))
            parsed.append(entry)
        return cls(parsed, _none_to_empty(content.get("background")), content.get("metadata"))

    @classmethod
    def from_json_file(cls, path: str | os.PathLike[str]) -> "Vocabulary":
        """Read a vocabulary from a JSON file; see `from_dict` for its form.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If it holds no valid vocabulary; the message names the file.
        """
        return cls._from_json(path, _read_text(path))

    @classmethod
    def _from_json(cls, path: str | os.PathLike[str], text: str) -> "Vocabulary":
        try:
            return cls.from_dict(json.loads(text, object_pairs_hook=_to_unique_keys))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}:{error.lineno}: Expected JSON, but got something else ({error.msg}). Correct the line."
            ) from error
        except RecursionError as error:
            raise ValueError(
                f"{path}: Expected a vocabulary, but got deeply nested JSON. Correct the file."
            ) from error
        except (TypeError, ValueError) as error:
            reason = str(error)
            if not reason.startswith("Expected "):  # as of numbers with thousands of digits
                reason = f"Expected a vocabulary, but it cannot be read ({reason}). Correct the file."
            raise ValueError(f"{path}: {reason}") from error

    @classmethod
    def from_text(cls, classes: str, background: str = "", definitions: str = "") -> "Vocabulary":
        """Read what a person types.

        Args:
            classes: Classes, one a line or between ";", with synonyms between ",": `cat; dog, puppy; sky`.
            background: Background words, between ",", ";" or a line each.
            definitions: Texts about the classes, `name >=text` a line.

        Returns:
            The vocabulary.

        Raises:
            ValueError: If a name is empty or comes twice, or a definition is of no class.

        Example:
            >>> Vocabulary.from_text("cat; dog, puppy", background="wall, floor").labels
            ['background', 'cat', 'dog']
        """
        lines = [line.rstrip("; \t") for line in _unify_line_ends(classes).split("\n") if line.strip()]
        entries = [entry for line in lines for entry in line.split(";")]
        names = [[name.strip() for name in entry.split(",")] for entry in entries]
        if not (names and all(name for of_class in names for name in of_class)):
            raise ValueError(
                f'Expected classes like "cat; dog, puppy; sky", but got {classes!r}. Fill in or remove empty names.'
            )
        vocabulary = cls(names, split_words(background) if background.strip() else ())
        if not definitions.strip():
            return vocabulary
        return vocabulary.with_auxiliary_texts(_parse_auxiliary_texts("definitions", _unify_line_ends(definitions)))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], background_first_line: bool = False) -> "Vocabulary":
        """Read a vocabulary from JSON or from either text format of the published ITACLIP code.

        The content decides: JSON begins with a brace; lines of the form `name >=text` are classes with an auxiliary
        text; otherwise each line is a class with its synonyms, `name, synonym, ...`. Lines that begin with `#` are
        comments.

        Args:
            path: The file, in UTF-8.
            background_first_line: Whether the first line of a class file lists the background words.

        Returns:
            The vocabulary.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If a line is not as expected; the message names file and line.
        """
        text = _read_text(path)
        if os.fspath(path).endswith(".json") or text.lstrip().startswith("{"):
            return cls._from_json(path, text)
        if AUXILIARY_TEXT_SEPARATOR in text:
            return cls([VocabularyClass(name, entry) for name, entry in load_auxiliary_texts(path).items()])
        names = _parse_class_lines(path, text, background_first_line)
        background = names.pop(0) if background_first_line else ()
        try:
            return cls(names, background)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def split_words(text: str) -> list[str]:
    """Background words that a person types, between commas, semicolons or a line each."""
    return [word.strip() for word in re.split(r"[,;]?\s*\n|[,;]", _unify_line_ends(text).rstrip(",; \t\n"))]


def load_auxiliary_texts(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read auxiliary texts in the form of the published ITACLIP code: `name >=text` per line, `#` for comments.

    Args:
        path: The file, in UTF-8.

    Returns:
        Class name to text, in the file's order; `Vocabulary.with_auxiliary_texts` takes it as it is.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If a line is not as expected or a name comes twice; the message names file and line.
    """
    return _parse_auxiliary_texts(path, _read_text(path))


def _parse_auxiliary_texts(path: str | os.PathLike[str], content: str) -> dict[str, str]:
    texts: dict[str, str] = {}
    first_lines: dict[str, int] = {}
    for number, line in _numbered_lines(path, content):
        name, _, text = (part.strip() for part in line.partition(AUXILIARY_TEXT_SEPARATOR))
        if not (name and text):
            raise ValueError(
                f"{path}:{number}: Expected `name {AUXILIARY_TEXT_SEPARATOR}text`, but got {line.strip()!r}. "
                "Give every line a class name and its text."
            )
        _check_name_is_new(path, number, name, first_lines)
        texts[name] = text
    return texts


def _parse_class_lines(path: str | os.PathLike[str], text: str, background_first_line: bool) -> list[list[str]]:
    """The names on each line of a class file; those of a background line may come again as classes."""
    first_lines: dict[str, int] = {}
    names_by_line: list[list[str]] = []
    for number, line in _numbered_lines(path, text):
        names = [name.strip() for name in line.split(",")]
        if not all(names):
            raise ValueError(
                f"{path}:{number}: Expected `name, synonym, ...`, but got {line.strip()!r}. "
                "Remove the empty name or the blank line."
            )
        for name in names:
            _check_name_is_new(path, number, name, first_lines)
        if background_first_line and not names_by_line:
            first_lines.clear()
        names_by_line.append(names)
    return names_by_line


def _check_name_is_new(path: str | os.PathLike[str], number: int, name: str, first_lines: dict[str, int]) -> None:
    """Note the line of a name's first use; a second one is an error."""
    key = _normalize_name(name)
    if key in first_lines:
        raise ValueError(
            f"{path}:{number}: Expected every name once, but got {name!r} as on line {first_lines[key]}. "
            "Remove or rename one of them."
        )
    first_lines[key] = number


def _numbered_lines(path: str | os.PathLike[str], text: str) -> list[tuple[int, str]]:
    """The lines with their numbers but for comments; blank ones at the end do not count, others shift class ids."""
    # Not `splitlines`, which also ends lines at form feeds and other signs inside a text.
    lines = enumerate(text.rstrip("\n\t ").split("\n"), 1)
    kept = [(number, line) for number, line in lines if not line.lstrip().startswith(COMMENT_SIGN)]
    if not any(line for _, line in kept):
        raise ValueError(f"{path}: Expected one class per line, but the file is empty. Name the classes.")
    return kept


def _read_text(path: str | os.PathLike[str]) -> str:
    if os.path.exists(path) and not os.path.isfile(path):  # which may never end
        raise OSError(f"Expected a file, but {path} is a folder, a pipe or a device. Name a file.")
    try:
        # "utf-8-sig" also drops the byte order mark that some editors write.
        return _unify_line_ends(Path(path).read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise FileNotFoundError(f"Expected a file, but there is no {path}. Correct the path.") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: Expected UTF-8 text, but got other bytes ({error}). Convert the file.") from error


def _unify_line_ends(text: str) -> str:
    """Lines may also end as on Windows, or as on old Macs."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _to_texts(values: Any, what: str, allow_string: bool = True) -> tuple[str, ...]:
    """Check and strip texts; what stands inside a text (underscores, commas, capitals) stays as it is."""
    if isinstance(values, str) and allow_string:
        values = (values,)
    if not _is_list(values):
        raise TypeError(f"Expected a list of {what}s, but got {type(values).__name__}. Wrap a single one in a list.")
    texts = []
    for value in values:
        if not isinstance(value, str):
            raise TypeError(f"Expected every {what} to be a string, but got {type(value).__name__}. Write it as text.")
        if not straighten_text(value).strip():  # signs that nobody sees are no name
            raise ValueError(f"Expected no empty {what}, but got {value!r}. Remove it or fill it in.")
        check_signs(value.strip(), what)
        texts.append(value.strip())
    return tuple(texts)


def _is_list(values: Any) -> bool:
    """Whether it is a collection in an order; that of a set changes from process to process."""
    if isinstance(values, str | bytes | bytearray | Mapping | set | frozenset):
        return False
    return isinstance(values, Iterable) and getattr(values, "ndim", 1) > 0  # numbers of NumPy and torch are no list


def check_signs(text: str, what: str) -> None:
    """Refuse signs that are no text: control characters, halves of a character, the tokenizer's own tokens.

    Texts about classes may have several lines, names and words have one.
    """
    allowed = "\t" + LINE_ENDS * (what == AUXILIARY_TEXT)
    for sign in text:
        if unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") and sign not in allowed:
            raise ValueError(
                f"Expected {what}s of readable characters, but got {text!r} with U+{ord(sign):04X}. Remove it, or "
                "save the file as UTF-8."
            )
    for token in SPECIAL_TOKENS:
        if token in straighten_text(text).lower():
            raise ValueError(f"Expected {what}s without special tokens, but got {token} in {text!r}. Remove it.")


def straighten_text(text: str) -> str:
    """Replace typography the way CLIP's own tokenizer does before it looks: curly quotes, ligatures, HTML, widths.

    Example:
        >>> straighten_text("a ﬁsh’s bed &amp; bowl")
        "a fish's bed & bowl"
    """
    # Unescaped twice, as there: texts of the web are often escaped twice.
    return unicodedata.normalize("NFC", html.unescape(html.unescape(text)).translate(_TYPOGRAPHY))


def _none_to_empty(values: Any) -> Any:
    return () if values is None else values


def _to_classes(values: Any) -> tuple[VocabularyClass, ...]:
    if not _is_list(values):
        raise TypeError(f"Expected a list of classes, but got {type(values).__name__}. Wrap a single name in a list.")
    return tuple(value if isinstance(value, VocabularyClass) else VocabularyClass(value) for value in values)


def _to_metadata(metadata: Any) -> dict[str, Any] | None:
    """Copy metadata; going through JSON shows at once whether it can be saved."""
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping):
        raise TypeError(f"Expected `metadata` to be a mapping, but got {type(metadata).__name__}. Pass a dictionary.")
    try:
        return json.loads(json.dumps(dict(metadata), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"Expected `metadata` to be JSON, but got other values ({error}). Convert them.") from error


def _to_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object that says something twice; JSON would keep the last."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        doubled = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"Expected every key once, but got {doubled!r} twice in one object. Remove one of them.")
    return content


def _check_keys(content: Any, required: set[str], optional: set[str], what: str) -> None:
    if not isinstance(content, Mapping):
        raise TypeError(f"Expected a {what} to be a mapping, but got {type(content).__name__}. Pass a dictionary.")
    for key in sorted(required - content.keys()):
        raise ValueError(f"Expected a {what} to have the key {key!r}, but got {sorted(content)}. Add it.")
    for key in sorted(content.keys() - required - optional):
        raise ValueError(
            f"Expected only the keys {sorted(required | optional)} in a {what}, but got {key!r}. Remove or rename it."
        )


def _normalize_name(name: str) -> str:
    """What CLIP's tokenizer keeps of a name: straight typography, lower case, single spaces."""
    return " ".join(straighten_text(name).lower().split())


def _suggest(key: str, names: Sequence[str]) -> str:
    """Name the most similar candidates, or the first few where none is similar."""
    by_key = {_normalize_name(name): name for name in names}
    matches = difflib.get_close_matches(key, by_key, n=3, cutoff=0.6)
    if matches:
        return f"Did you mean {' or '.join(repr(by_key[match]) for match in matches)}?"
    known = ", ".join(repr(name) for name in list(by_key.values())[:10])
    return f"Known names are {known}{', ...' if len(by_key) > 10 else ''}."


# The 80 sentences with which CLIP's authors ask for ImageNet classes; order and grammar ("a origami") are theirs. The
# embedding of a text is the average over all of them.
IMAGENET_TEMPLATES: tuple[str, ...] = (
    "a bad photo of a {}.",
    "a photo of many {}.",
    "a sculpture of a {}.",
    "a photo of the hard to see {}.",
    "a low resolution photo of the {}.",
    "a rendering of a {}.",
    "graffiti of a {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a tattoo of a {}.",
    "the embroidered {}.",
    "a photo of a hard to see {}.",
    "a bright photo of a {}.",
    "a photo of a clean {}.",
    "a photo of a dirty {}.",
    "a dark photo of the {}.",
    "a drawing of a {}.",
    "a photo of my {}.",
    "the plastic {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a painting of the {}.",
    "a painting of a {}.",
    "a pixelated photo of the {}.",
    "a sculpture of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a plastic {}.",
    "a photo of the dirty {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a rendering of the {}.",
    "a {} in a video game.",
    "a photo of one {}.",
    "a doodle of a {}.",
    "a close-up photo of the {}.",
    "a photo of a {}.",
    "the origami {}.",
    "the {} in a video game.",
    "a sketch of a {}.",
    "a doodle of the {}.",
    "a origami {}.",
    "a low resolution photo of a {}.",
    "the toy {}.",
    "a rendition of the {}.",
    "a photo of the clean {}.",
    "a photo of a large {}.",
    "a rendition of a {}.",
    "a photo of a nice {}.",
    "a photo of a weird {}.",
    "a blurry photo of a {}.",
    "a cartoon {}.",
    "art of a {}.",
    "a sketch of the {}.",
    "a embroidered {}.",
    "a pixelated photo of a {}.",
    "itap of the {}.",
    "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.",
    "a plushie {}.",
    "a photo of the nice {}.",
    "a photo of the small {}.",
    "a photo of the weird {}.",
    "the cartoon {}.",
    "art of the {}.",
    "a drawing of the {}.",
    "a photo of the large {}.",
    "a black and white photo of a {}.",
    "the plushie {}.",
    "a dark photo of a {}.",
    "itap of a {}.",
    "graffiti of the {}.",
    "a toy {}.",
    "itap of my {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
    "a tattoo of the {}.",
)

"""From a row of a table to everything that determines its result: checkpoint, settings and words."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ...methods import Settings, get_method, published_systems
from ...processing import Vocabulary
from .tables import AblationRow, AblationTable

__all__ = ["AblationBase", "SystemVariant", "Variant", "hash_values", "resolve_row"]


@dataclass(frozen=True)
class AblationBase:
    """What the rows of all tables start from.

    Args:
        model: Folder or hub id of a CLIP checkpoint, or "demo".
        vocabulary: The words.
        benchmark: Name of the benchmark whose settings to take; the methods' general ones if left out.
        settings: Changes of the full method, or of another `method` that they name, that hold wherever a row says
            nothing else. They do not touch rows that start from another method, which keep that one's own settings.
    """

    model: str
    vocabulary: Vocabulary
    benchmark: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Variant:
    """One result to compute; rows that mean the same have equal keys and are computed once.

    Args:
        model: The checkpoint.
        settings: All settings.
        vocabulary: The words.
        title: What errors call it; no part of what it is.
    """

    model: str
    settings: Settings
    vocabulary: Vocabulary
    title: str

    @property
    def key(self) -> str:
        """Hash of all of it."""
        return hash_values([self.model, self.settings.to_json(), self.vocabulary.fingerprint])


@dataclass(frozen=True)
class SystemVariant:
    """The result of a system of its own.

    Args:
        model: The checkpoint.
        system: Name of the system.
        settings: Those that it has and that are not its usual ones.
        vocabulary: The words.
        benchmark: Name of the benchmark whose rules to take.
        title: What errors call it; no part of what it is.
    """

    model: str
    system: str
    settings: Mapping[str, Any]
    vocabulary: Vocabulary
    benchmark: str | None
    title: str

    @property
    def key(self) -> str:
        """Hash of all of it."""
        return hash_values([self.model, self.system, dict(self.settings), self.vocabulary.fingerprint, self.benchmark])


def resolve_row(base: AblationBase, table: AblationTable, row: AblationRow) -> Variant | SystemVariant:
    """Put together what a row stands for.

    Raises:
        ValueError: If the row changes background words and the vocabulary has none, or names an unknown method.
    """
    changes = {**table.base, **row.settings}
    start = base.settings.get("method", "itaclip")
    method_name = changes.pop("method", start)
    settings = {**(base.settings if method_name == start else {}), **changes}
    settings.pop("method", None)
    model = settings.pop("model", base.model)
    vocabulary = _change_background(base.vocabulary, settings.pop("background", None), table, row)
    title = f"row {row.name!r} of the table {table.name!r}"
    if method_name in published_systems():
        return SystemVariant(model, method_name, settings, vocabulary, base.benchmark, title)
    return Variant(model, get_method(method_name).settings(base.benchmark).replace(**settings), vocabulary, title)


def hash_values(content: Any) -> str:
    """SHA-256 of JSON values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _change_background(
    vocabulary: Vocabulary, words: tuple[str, ...] | None, table: AblationTable, row: AblationRow
) -> Vocabulary:
    if words is None:
        return vocabulary
    if not vocabulary.background:
        raise ValueError(
            f"Expected a vocabulary with background words for row {row.name!r} of the table {table.name!r}, but there "
            "are none. Choose another table, or give class 0 its words."
        )
    return replace(vocabulary, background=tuple(words))

"""From a row of a table to everything that determines its result: checkpoint, settings and words."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...loading import load_config
from ...methods import Settings, get_method, published_systems
from ...processing import Vocabulary
from .tables import AblationRow, AblationTable

__all__ = ["AblationBase", "SystemVariant", "Variant", "hash_values", "leave_out_rows", "resolve_row"]


@dataclass(frozen=True)
class AblationBase:
    """What the rows of all tables start from.

    Args:
        model: Folder or hub id of a CLIP checkpoint, or "demo".
        vocabulary: The words.
        benchmark: Name of the benchmark whose settings to take; the methods' general ones if left out.
        settings: Changes of the full method, or of another `method` that they name, that hold wherever a row says
            nothing else. They do not touch rows that start from another method, which keep that one's own settings.
        proxy: Folder or hub id of the backbone whose patches those rows compare that do so.
    """

    model: str
    vocabulary: Vocabulary
    benchmark: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    proxy: str | None = None


@dataclass(frozen=True)
class Variant:
    """One result to compute; rows that mean the same have equal keys and are computed once.

    Args:
        model: The checkpoint.
        settings: All settings.
        vocabulary: The words.
        title: What errors call it; no part of what it is.
        proxy: The proxy, if it has one.
    """

    model: str
    settings: Settings
    vocabulary: Vocabulary
    title: str
    proxy: str | None = None

    @property
    def weights(self) -> tuple[str, str | None]:
        """Names of the checkpoint and of the proxy: variants with the same share one model."""
        return self.model, self.proxy

    def find_missing(self, has_regions: bool) -> list[str]:
        """What it looks at and does not get, where that has a name: without it, it would be another method."""
        is_proxy_missing = self.settings.uses_proxy and self.proxy is None and not load_config(self.model).proxy_config
        needs = {"regions": self.settings.takes_regions and not has_regions, "a proxy": is_proxy_missing}
        return [name for name, is_missing in needs.items() if is_missing]

    @property
    def key(self) -> str:
        """Hash of all of it."""
        return hash_values([*self.weights, self.settings.to_json(), self.vocabulary.fingerprint])


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
    method, proxy = get_method(method_name), settings.pop("proxy", None)
    blocks = load_config(model).vision_config.num_hidden_layers if method.towers else None
    resolved = method.settings(base.benchmark, blocks).replace(**settings)
    return Variant(model, resolved, vocabulary, title, proxy or (base.proxy if resolved.uses_proxy else None))


def leave_out_rows(
    table: AblationTable, variants: Sequence[Variant | SystemVariant], has_regions: bool
) -> tuple[AblationTable, list[Variant | SystemVariant]]:
    """A table without the rows that lack what they look at, and what the others stand for.

    Args:
        table: The table; its note then names what was left out, and why.
        variants: What its rows stand for.
        has_regions: Whether images come with regions.

    Raises:
        ValueError: If that leaves nothing to compare.
    """
    rows = list(zip(table.rows, variants, strict=True))
    missing = {row.name: variant.find_missing(has_regions) for row, variant in rows if isinstance(variant, Variant)}
    left_out = ", ".join(f"{name} (needs {' and '.join(needs)})" for name, needs in missing.items() if needs)
    if not left_out:
        return table, list(variants)
    kept = [(row, variant) for row, variant in rows if not missing.get(row.name)]
    if missing.get(table.reference) or len(kept) < 2:
        raise ValueError(
            f"Expected what the rows of the table {table.name!r} look at, but it is not there: {left_out}. Give it, "
            "or leave these rows out."
        )
    note = f"{table.note.rstrip()} Left out: {left_out}.".lstrip()
    return replace(table, rows=tuple(row for row, _ in kept), note=note), [variant for _, variant in kept]


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

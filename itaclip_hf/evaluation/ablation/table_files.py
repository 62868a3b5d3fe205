"""Ablation tables from YAML files, the paper's (`paper/`) and one's own.

A table has `rows`, or a `grid` whose settings are all combined:

    title: My grid                     |  title: My rows
    reference: What the default is     |  base: {SETTING: VALUE}
    grid:                              |  rows:
      SETTING: [VALUE, VALUE]          |    - {name: First, settings: {SETTING: VALUE}, published: {voc21: 58.9}}
      OTHER_SETTING: [VALUE, VALUE]    |    - {name: Second, settings: {SETTING: VALUE}}
"""

import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ...files import read_text
from .tables import AblationRow, AblationTable

__all__ = ["load_table_file", "parse_setting"]

_TABLE_KEYS = ("title", "name", "number", "reference", "base", "note", "rows", "grid")
MOST_ROWS = 1000  # each takes an evaluation
_ROW_KEYS = ("name", "settings", "published")


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases, a page of which stands for more text than there is memory, and with every key once."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"Expected no aliases, but got *{self.peek_event().anchor}. Write it out.")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A mapping that says nothing twice; YAML would keep the last."""
        content = super().construct_mapping(node, deep)
        lines: dict[Any, int] = {}
        for entry, _ in node.value:
            key, line = self.construct_object(entry, deep=True), entry.start_mark.line + 1
            if key in lines:
                raise yaml.YAMLError(
                    f"Expected every key once, but got {key!r} on line {line} as on line {lines[key]}. Remove one of "
                    "them."
                )
            lines[key] = line
        return content


def load_table_file(path: str | os.PathLike[str]) -> AblationTable:
    """Read a table.

    Args:
        path: The YAML file; the table has its name unless it gives itself another.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no table; the message names the file and what is wrong.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"Expected a YAML file with a table, but there is no {file}.")
    try:
        content = yaml.load(read_text(file), _PlainLoader)
        return _read_table(content, default_name=file.stem)
    except (yaml.YAMLError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: {error}") from error


def parse_setting(text: str) -> tuple[str, Any]:
    """Split `NAME=VALUE`; the value is YAML, so that `[8, 16]` is a list.

    Raises:
        ValueError: If there is no `=` or the value is no YAML.
    """
    name, separator, value = text.partition("=")
    if not separator:
        raise ValueError(f"Expected a setting as NAME=VALUE, but got {text!r}.")
    try:
        return name.strip(), yaml.load(value, _PlainLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"Expected a setting as NAME=VALUE, but got {text!r}: {error}") from error


def _read_table(content: Any, default_name: str) -> AblationTable:
    table = _expect_mapping(content, "the table", _TABLE_KEYS)
    if ("rows" in table) == ("grid" in table):
        raise ValueError("Expected `rows` or `grid`, but got " + ("both." if "rows" in table else "neither."))
    rows = _read_rows(table["rows"]) if "rows" in table else _combine(table["grid"])
    name = _expect_text(table.get("name", default_name), "the table's `name`")
    if not name or not all(letter.isalnum() or letter in "-_" for letter in name):
        raise ValueError(f"Expected a `name` of letters, digits, - and _, as files get it, but got {name!r}.")
    number = table.get("number")
    if number is not None and type(number) is not int:  # which `True` is an instance of
        raise ValueError(f"Expected `number` to be the table's number in the paper, but got {number!r}.")
    return AblationTable(
        name,
        _expect_text(table.get("title", name), "`title`"),
        rows,
        reference=_expect_text(table.get("reference", ""), "`reference`"),
        base=_expect_mapping(table.get("base") or {}, "`base`"),
        number=number,
        note=_expect_text(table.get("note", ""), "`note`"),
    )


def _read_rows(content: Any) -> tuple[AblationRow, ...]:
    if not isinstance(content, list):
        raise ValueError(f"Expected `rows` to be a list, but got {content!r}.")
    rows = []
    for number, entry in enumerate(content, start=1):
        row = _expect_mapping(entry, f"row {number}", _ROW_KEYS)
        if "name" not in row:
            raise ValueError(f"Expected a `name` in row {number}, but got {', '.join(row) or 'nothing'}.")
        published = _expect_mapping(row.get("published") or {}, f"`published` of row {number}")
        for benchmark, figure in published.items():
            if isinstance(figure, bool) or not isinstance(figure, int | float):
                raise ValueError(
                    f"Expected `published` of row {number} to give an mIoU in percent for {benchmark}, but got "
                    f"{figure!r}."
                )
        settings = _expect_mapping(row.get("settings") or {}, f"`settings` of row {number}")
        rows.append(AblationRow(_expect_text(row["name"], f"`name` of row {number}"), settings, published))
    return tuple(rows)


def _combine(content: Any) -> tuple[AblationRow, ...]:
    """Every combination of the values of a grid, the last setting changing fastest."""
    grid, count = _expect_mapping(content, "`grid`"), 1
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"Expected a list of values for {name} in `grid`, but got {values!r}.")
        count *= len(values)
    if count > MOST_ROWS:
        raise ValueError(f"Expected a `grid` of at most {MOST_ROWS} rows, but got {count}. Leave values out.")
    combinations = (dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values()))
    return tuple(
        AblationRow(", ".join(f"{name} {_format_value(value)}" for name, value in settings.items()), settings)
        for settings in combinations
    )


def _expect_mapping(value: Any, place: str, keys: tuple[str, ...] | None = None) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"Expected {place} to be a mapping, but got {value!r}.")
    unknown = [] if keys is None else sorted(str(key) for key in value if key not in keys)
    if unknown:
        raise ValueError(
            f"Expected {place} to have keys out of {', '.join(keys or ())}, but got {', '.join(unknown)}."
        )
    return value


def _expect_text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        # YAML takes bare numbers, `on` and `off` for values of their own.
        raise ValueError(f"Expected {place} to be text, but got {value!r}. Put it into quotes.")
    return value


def _format_value(value: Any) -> str:
    if isinstance(value, list):
        return " + ".join(map(str, value)) or "none"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return str(value)

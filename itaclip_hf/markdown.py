"""The one place that writes Markdown, spreadsheets and percentages: tables, lists of facts, escaped texts.

Names of classes, files and rows come from users and datasets. Whatever they hold, a table keeps its columns, a page
runs no HTML, a terminal that prints it gets no control characters, and a spreadsheet takes no text for a formula.
"""

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from .plain_text import show_control_characters

__all__ = [
    "Markup",
    "bold",
    "code",
    "escape",
    "format_csv",
    "format_facts",
    "format_table",
    "percent",
    "picture",
    "signed_percent",
]


class Markup(str):
    """Markdown that is meant as such and not escaped again."""


def escape(text: object) -> Markup:
    """Text as Markdown in one line; `Markup` stays as it is.

    Args:
        text: What to write; `|`, `<` and backslashes lose their meaning, line breaks become spaces, and other control
            characters are shown by their number.
    """
    if isinstance(text, Markup):
        return text
    line = _to_line(text)
    return Markup(line.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;"))


def bold(text: object) -> Markup:
    """Text in bold type."""
    return Markup(f"**{escape(text)}**")


def code(text: object) -> Markup:
    """Text as code, of which only control characters are changed; not for cells of tables."""
    line = _to_line(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    gap = " " if line.startswith("`") or line.endswith("`") else ""
    return Markup(f"{fence}{gap}{line}{gap}{fence}")


def picture(title: str, file: str) -> Markup:
    """A picture that lies beside the page."""
    return Markup(f"![{escape(title)}]({file})")


def format_table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table, with a line break at its end.

    Raises:
        ValueError: A row has more or fewer cells than the header.
    """
    lines = [_join_cells(header), "|---" * len(header) + "|"]
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"Expected rows of {len(header)} cells, but got one of {len(row)}. Fill them up.")
        lines.append(_join_cells(row))
    return "\n".join([*lines, ""])


def format_facts(facts: Mapping[str, object]) -> str:
    """A list with a line for each fact that there is, with a line break at its end."""
    return "\n".join(f"- {escape(name)}: {escape(fact)}" for name, fact in facts.items() if fact) + "\n"


def format_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table for spreadsheets, a line for each row.

    Texts that one would run as a formula begin with an apostrophe, as it shows texts; control characters are as in
    `escape`.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([[_disarm(cell) for cell in row] for row in (header, *rows)])
    return text.getvalue()


def percent(share: float | None, digits: int = 2) -> str:
    """A share in percent, "–" where there is none."""
    return "–" if share is None or math.isnan(share) else f"{100 * share:.{digits}f}"


def signed_percent(share: float | None, digits: int = 2) -> str:
    """A difference of shares in points, with its sign; what rounds to nothing is +0."""
    # Adding 0 turns -0 into 0.
    return "–" if share is None or math.isnan(share) else f"{round(100 * share, digits) + 0.0:+.{digits}f}"


def _join_cells(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(escape, cells))} |"


def _to_line(text: object) -> str:
    return show_control_characters(" ".join(str(text).splitlines()))


def _disarm(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    cell = _to_line(cell)
    if not cell.lstrip().startswith(("=", "+", "-", "@")):
        return cell
    try:
        float(cell)  # figures are written with the digits that they were given
    except ValueError:
        return f"'{cell}"
    return cell

"""Tables, lists and figures of reports: their bytes for ordinary names, and what becomes of hostile ones."""

import csv
import math
import re
from pathlib import Path

import pytest

from itaclip_hf.evaluation.reporting.report import format_markdown, load_report
from itaclip_hf.markdown import (
    bold,
    code,
    escape,
    format_csv,
    format_facts,
    format_table,
    percent,
    picture,
    signed_percent,
)

DOCS = Path(__file__).parents[1] / "docs"


def test_a_table_of_ordinary_names_is_written_as_it_is() -> None:
    rows = [(0, bold("traffic light"), "–"), (1, "q-q + k-k", "-0.2 (-1.0 to +1.1)")]
    assert format_table(("id", "class", ""), rows) == (
        "| id | class |  |\n|---|---|---|\n| 0 | **traffic light** | – |\n| 1 | q-q + k-k | -0.2 (-1.0 to +1.1) |\n"
    )


def test_the_report_of_the_documentation_is_written_byte_by_byte_again() -> None:
    expected = (DOCS / "evaluation_demo" / "report.md").read_text(encoding="utf-8")
    assert format_markdown(load_report(DOCS / "evaluation_demo")) == expected


def test_no_name_breaks_a_table_or_reaches_the_terminal() -> None:
    hostile = "a|b\\|c\r\n<script>\x1b[31m\x9b\u202ered\u2028end"
    table = format_table(("name", hostile), [(hostile, bold(hostile)), ("x", "y")])
    lines = table.splitlines()
    assert len(lines) == 4
    assert all(len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 3 for line in lines)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e<]", table)
    assert escape("a|b\\|c") == r"a\|b\\\|c"
    assert escape("x\x1by\nz") == r"x\\x1by z"
    assert "<" not in format_facts({"dataset": hostile}) and "<" not in picture(hostile, "a.png")


def test_rows_of_another_length_are_an_error() -> None:
    with pytest.raises(ValueError, match="rows of 2 cells, but got one of 1"):
        format_table(("a", "b"), [("a",)])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a <b> | c", "`a <b> | c`"), ("a`b", "``a`b``"), ("`a`", "`` `a` ``"), ("a\nb\x1b", r"`a b\x1b`")],
)
def test_code_keeps_what_it_quotes(text: str, expected: str) -> None:
    assert code(text) == expected


def test_facts_that_there_are_not_are_left_out() -> None:
    assert format_facts({"dataset": "voc21", "command": None, "speed": ""}) == "- dataset: voc21\n"


def test_shares_are_written_in_percent() -> None:
    assert [percent(0.41236), percent(0.41236, 1), percent(None), percent(math.nan)] == ["41.24", "41.2", "–", "–"]
    assert [signed_percent(0.012), signed_percent(-0.2, 1), signed_percent(math.nan)] == ["+1.20", "-20.0", "–"]
    assert [signed_percent(-1e-9), signed_percent(0.0)] == ["+0.00", "+0.00"]


def test_a_spreadsheet_runs_no_name() -> None:
    names = ["=1+1", "+ image engineering", "-x", "@cmd", "\t=1", "q-q + k-k", "one, two"]
    text = format_csv(("row", "miou"), [(name, "-0.191") for name in names])
    rows = list(csv.DictReader(text.splitlines(keepends=True)))
    assert [row["row"] for row in rows] == [
        "'=1+1", "'+ image engineering", "'-x", "'@cmd", "' =1", "q-q + k-k", "one, two",
    ]  # fmt: skip
    assert {row["miou"] for row in rows} == {"-0.191"}


def test_a_spreadsheet_gets_no_control_characters() -> None:
    text = format_csv(("row",), [("a\x1b[31mb",), ("nul\x00",), ("\ufeff=1",), ("two\nlines",)])
    assert text.splitlines() == ["row", r"a\x1b[31mb", r"nul\x00", r"\xfeff=1", "two lines"]

"""Texts of users and files in one line that is harmless wherever it is shown: in a terminal, a page, a table."""

import re

__all__ = ["show_control_characters", "show_name"]

# Those of direction and separation, too, and the mark of a byte order, which is not seen at all.
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def show_control_characters(text: str) -> str:
    """The text with its control characters shown by their number, but for line breaks and tabs."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text.replace("\t", " "))


def show_name(name: object) -> str:
    """The name of a file in one line: line breaks, which names may have, are shown by their number, too."""
    return show_control_characters(str(name)).replace("\n", "\\x0a")

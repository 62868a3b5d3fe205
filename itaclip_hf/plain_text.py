"""Texts of users and files in one line that is harmless wherever it is shown: in a terminal, a page, a table."""

import re

__all__ = ["show_control_characters"]

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")  # those of direction, too


def show_control_characters(text: str) -> str:
    """The text with its control characters shown by their number, but for line breaks and tabs."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text.replace("\t", " "))

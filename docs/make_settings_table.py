"""Writes the table of `docs/settings.md` from the one home of all settings; run by `make docs-pictures`."""

import re
from pathlib import Path

from itaclip_hf.methods.settings import setting_fields

__all__ = ["TABLE", "make_table"]

PAGE = Path(__file__).parent / "settings.md"
TABLE = re.compile(r"^\| step \|.*?(?=^\n)", re.DOTALL | re.MULTILINE)
STEPS = ("image", "views", "windows", "texts", "maps", "labels", "last_block")  # those that are changed most first


def make_table() -> str:
    """A row for each setting: the step that reads it, name, default, and meaning as the options' help gives it."""
    rows = ["| step | setting = default | meaning |", "|---|---|---|"]
    for step in STEPS:
        shown = step.replace("_", " ")
        for name, each in setting_fields().items():
            if each.metadata["stage"] == step:
                symbol = f" ({each.metadata['symbol']})" if each.metadata["symbol"] else ""
                rows.append(f"| {shown} | `{name} = {each.default!r}`{symbol} | {each.metadata['help']} |")
                shown = ""
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(TABLE.sub(lambda _: make_table(), text), encoding="utf-8")

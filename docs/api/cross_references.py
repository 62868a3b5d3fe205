"""Docstrings refer to code in Transformers' manner, [`Vocabulary`]; for the site this makes links of it.

A name that has an entry in the reference, `::: itaclip_hf.Vocabulary`, becomes a link to that; other names stay code.
"""

import re
from pathlib import Path
from typing import Any

import griffe

REFERENCE = re.compile(r"\[`(~?)([\w.]+)`\](?![\[(])")


class CrossReferences(griffe.Extension):
    """Rewrites the references of all docstrings before they become pages."""

    def __init__(self) -> None:
        pages = Path(__file__).parent.glob("*.md")
        found = [name for page in pages for name in re.findall(r"^::: (\S+)", page.read_text("utf-8"), re.MULTILINE)]
        self.entries = {name.rpartition(".")[2]: name for name in found}

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrites one docstring."""
        if obj.docstring:
            obj.docstring.value = REFERENCE.sub(lambda found: self.link(*found.groups(), obj), obj.docstring.value)

    def link(self, shortens: str, name: str, obj: griffe.Object) -> str:
        """The link to a class or function, to a method of such a class, or to a neighbour of the method at hand."""
        shown = name.rpartition(".")[2] if shortens else name
        if obj.parent is not None and obj.parent.is_class and name in obj.parent.members:
            name = f"{obj.parent.name}.{name}"
        elif name.startswith("itaclip_hf."):
            name = name.rpartition(".")[2]
        first, *rest = name.split(".")
        target = ".".join([self.entries.get(first, ""), *rest])
        return f"[`{shown}`][{target}]" if first in self.entries else f"`{shown}`"
